"""Reservations: merged spans, checked against plain sets of addresses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import Address, Cidr, network_of, parse_address, parse_cidr
from cni_ipam.core.reservation import Reservations, parse_reserved

BASE = {4: parse_address("10.0.0.0").value, 6: parse_address("fd00::").value}


@st.composite
def near_cidrs(draw):
    """Networks inside one range of 256 addresses of either family."""
    version = draw(st.sampled_from([4, 6]))
    prefix = {4: 32, 6: 128}[version] - draw(st.integers(0, 6))
    return network_of(Address(version, BASE[version] + draw(st.integers(0, 255))), prefix)


def addresses_of(cidr):
    return {cidr.address(ordinal) for ordinal in range(cidr.size)}


@given(st.lists(near_cidrs()), st.lists(near_cidrs(), max_size=3), near_cidrs())
def test_reservations_are_sets_of_addresses(first, second, probe):
    """Containing, covering and counting agree with a set, however the entries overlap."""
    reserved = Reservations().plus(first).plus(second)
    expected = set().union(*[addresses_of(cidr) for cidr in [*first, *second]])
    held = addresses_of(probe) & expected
    assert [a in expected for a in addresses_of(probe)] == [
        reserved.contains(a) for a in addresses_of(probe)
    ]
    assert (held == addresses_of(probe)) == reserved.covers(probe)
    assert len(held) == reserved.count(probe)


@given(st.lists(near_cidrs()))
def test_spans_are_sorted_and_apart(cidrs):
    """Adjacent spans become one, so that a block reserved in parts is wholly reserved."""
    reserved = Reservations().plus(cidrs)
    for spans in (reserved.v4, reserved.v6):
        for (_, last), (first, _) in pairwise(spans):
            assert last + 1 < first


def test_plus_leaves_the_former_alone():
    """Reservations are values."""
    none = Reservations()
    none.plus([parse_cidr("10.0.0.0/8")])
    assert Reservations((), ()) == none


def test_a_large_reservation_is_one_span():
    """A whole /8 costs as much as one address."""
    halves = [parse_cidr("10.0.0.0/9"), parse_cidr("10.128.0.0/9"), parse_cidr("10.1.2.3/32")]
    assert 1 == len(Reservations().plus(halves).v4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/30", Cidr(4, BASE[4], 30)),
        ("10.0.0.3/30", Cidr(4, BASE[4], 30)),
        ("  10.0.0.1 ", Cidr(4, BASE[4] + 1, 32)),
        ("fd00::1", Cidr(6, BASE[6] + 1, 128)),
        ("", None),
        ("   ", None),
        ("10.0.0.0/33", None),
        ("ten", None),
    ],
)
def test_entries_are_read_as_calico_reads_them(text, expected):
    """Blanks trimmed, host bits masked, bare addresses taken, malformed entries skipped."""
    assert expected == parse_reserved(text)
