"""The order in which a host looks for a block."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import Address, Cidr, network_of, parse_address, parse_cidr
from cni_ipam.core.pool import Pool
from cni_ipam.core.reservation import Reservations
from cni_ipam.core.walk import fnv1, walk_blocks


def pool_of(cidr, block_size):
    return Pool("p", parse_cidr(cidr), block_size)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("node1", 3957252814), ("worker-0", 2999756864), ("ip-10-0-0-1.ec2.internal", 1440555195)],
)
def test_fnv1_gives_calicos_numbers(host, expected):
    """FNV-1 and not FNV-1a (facts 2.6.2)."""
    assert expected == fnv1(host)


@given(st.sampled_from(["10.7.0.0/24", "fd00:7::/120"]), st.integers(0, 8), st.text(max_size=8))
def test_every_block_comes_exactly_once(cidr, bits, host):
    """All of the pool, nothing outside, each of the pool's block size."""
    pool = pool_of(cidr, parse_cidr(cidr).prefix + bits)
    walked = list(walk_blocks(pool, host))
    size = pool.cidr.size >> bits
    expected = [
        network_of(pool.cidr.address(number * size), pool.block_size) for number in range(1 << bits)
    ]
    assert expected == sorted(walked, key=lambda block: block.base)


def cidrs_of(size):
    return st.builds(
        lambda base, prefix: network_of(Address(4, 0x0A070000 + base), prefix),
        st.integers(0, size - 1),
        st.integers(25, 32),
    )


@given(st.lists(cidrs_of(256), max_size=6), st.integers(0, 6), st.text(max_size=8))
def test_blocks_that_are_reserved_as_a_whole_are_left_out(cidrs, bits, host):
    """No others, also where several reservations together cover a block."""
    pool = pool_of("10.7.0.0/24", 24 + bits)
    reserved = Reservations().plus(cidrs)
    open_blocks = [block for block in walk_blocks(pool, host) if not reserved.covers(block)]
    walked = list(walk_blocks(pool, host, reserved))
    assert len(walked) == len(set(walked))
    assert set(open_blocks) == set(walked)


def test_a_reservation_of_half_a_pool_costs_nothing():
    """2^57 blocks are stepped over at once."""
    pool = pool_of("fd00::/64", 122)
    reserved = Reservations().plus([parse_cidr("fd00::/65")])
    first = list(itertools.islice(walk_blocks(pool, "node1", reserved), 3))
    assert all(block.base >= parse_cidr("fd00::8000:0:0:0/65").base for block in first)


def test_hosts_that_meet_part_again():
    """Two hosts that come to one block do not go on to the same next one."""
    pool = pool_of("10.0.0.0/16", 26)
    after: dict[Cidr, set[Cidr]] = {}
    for number in range(20):
        walked = list(walk_blocks(pool, f"node{number}"))
        for block, following in itertools.pairwise(walked):
            after.setdefault(block, set()).add(following)
    assert min(len(following) for following in after.values()) > 10


def test_hosts_begin_at_different_places():
    """That keeps them out of each other's way."""
    pool = pool_of("10.0.0.0/16", 26)
    starts = {next(walk_blocks(pool, f"node{number}")) for number in range(20)}
    assert len(starts) > 15


def test_a_huge_pool_is_walked_lazily():
    """2^58 blocks are not counted out to give the first few."""
    pool = pool_of("fd00::/64", 122)
    first = list(itertools.islice(walk_blocks(pool, "node1"), 3))
    assert 3 == len({str(block) for block in first})


def test_a_pool_of_one_block_gives_that_block():
    """A block as large as its pool."""
    pool = pool_of("10.0.0.64/26", 26)
    assert [parse_cidr("10.0.0.64/26")] == list(walk_blocks(pool, "node1"))
    assert pool.block_of(parse_address("10.0.0.100")) == parse_cidr("10.0.0.64/26")
