"""Gateways, and what a pool keeps back for them."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.gateway import (
    NONE,
    further_reservation_name,
    gateway_of,
    is_reservation_of,
    kept_back,
    prefix_of,
    reservation_name,
)
from cni_ipam.core.names import check_metadata


@pytest.mark.parametrize(
    ("pool", "setting", "gateway", "held"),
    [
        ("10.0.0.0/24", NONE, None, []),
        ("10.0.0.0/24", "auto", "10.0.0.1", ["10.0.0.0", "10.0.0.1", "10.0.0.255"]),
        ("fd00::/64", "auto", "fd00::1", ["fd00::", "fd00::1"]),
        ("10.0.0.0/24", "10.0.0.7", "10.0.0.7", ["10.0.0.0", "10.0.0.7", "10.0.0.255"]),
        ("10.0.0.0/24", "192.168.0.1", "192.168.0.1", ["10.0.0.0", "10.0.0.255"]),
        ("10.0.0.0/24", "fd00::9", "10.0.0.1", ["10.0.0.0", "10.0.0.1", "10.0.0.255"]),
        ("fd00::/64", "fd00::9", "fd00::9", ["fd00::", "fd00::9"]),
        ("10.0.0.0/31", "auto", "10.0.0.1", ["10.0.0.0", "10.0.0.1"]),
        ("10.0.0.4/32", "auto", "10.0.0.5", ["10.0.0.4"]),
    ],
)
def test_a_pool_with_a_gateway_keeps_addresses_back(pool, setting, gateway, held):
    """Its base, its gateway if that lies in it, and the last one of an IPv4 pool."""
    if setting not in ("auto", NONE):
        setting = parse_address(setting)
    found = gateway_of(parse_cidr(pool), setting)
    assert gateway == (None if found is None else str(found))
    expected = [parse_address(text).host_cidr for text in held]
    assert expected == kept_back(parse_cidr(pool), setting)


@pytest.mark.parametrize(
    ("pool", "mask", "fixed", "expected"),
    [
        ("10.0.0.0/16", "pool", False, 16),
        ("10.0.0.0/16", "pool", True, 16),
        ("10.0.0.0/16", "block", False, 26),
        ("10.0.0.0/16", "block", True, 32),
        ("10.0.0.0/16", "host", False, 32),
        (None, "pool", False, 26),
        (None, "pool", True, 32),
    ],
)
def test_prefix_follows_the_mask(pool, mask, fixed, expected):
    """The pool's length only where the pool is known; a fixed address carries Calico's /32."""
    cidr = None if pool is None else parse_cidr(pool)
    assert expected == prefix_of(cidr, parse_cidr("10.0.0.64/26"), mask, fixed=fixed)


def test_reservation_name_is_a_name():
    """It stays within the 253 characters of an object's name and ends as one may."""
    assert "cni-ipam-pool1" == reservation_name("pool1")
    long = reservation_name("a" * 243 + "-." + "b" * 8)
    assert "cni-ipam-" + "a" * 243 == long


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.255", "cni-ipam-pool1-10-0-0-255"),
        ("fd07::", "cni-ipam-pool1-fd07--0"),
        ("fd07::1", "cni-ipam-pool1-fd07--1"),
        ("::", "cni-ipam-pool1---0"),
        ("fd07:1:2:3:4:5:6:7", "cni-ipam-pool1-fd07-1-2-3-4-5-6-7"),
    ],
)
def test_a_further_reservation_is_named_after_an_address(address, expected):
    """With dashes, and a digit at the end, as an object's name needs one."""
    assert expected == further_reservation_name("pool1", parse_address(address).host_cidr)


@pytest.mark.parametrize("pool", ["pool1", "a.b", "a" * 253, "a" * 203 + "." + "b" * 8])
@pytest.mark.parametrize("address", ["10.0.0.1", "fd07::", "f" + ":ffff" * 8])
def test_names_of_reservations_are_names_and_known_again(pool, address):
    """However long the pool's own name is."""
    cidr = parse_address(address.removeprefix("f:")).host_cidr
    for name in (reservation_name(pool), further_reservation_name(pool, cidr)):
        assert [] == check_metadata({"name": name})
        assert is_reservation_of(name, pool)
        assert not is_reservation_of(name, "other")


@pytest.mark.parametrize(
    "name", ["cni-ipam-pool", "cni-ipam-pool1-", "cni-ipam-pool1-abc", "cni-ipam-pool1-10-0-0"]
)
def test_a_reservation_of_another_pool_is_not_this_ones(name):
    """What follows the pool's name must be an address: `pool1-abc` is another pool."""
    assert not is_reservation_of(name, "pool1")
