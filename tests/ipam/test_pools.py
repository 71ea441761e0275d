"""Default pools, and the reservations of what a pool with a gateway keeps back."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_address
from cni_ipam.datastore import codec, keys
from cni_ipam.errors import NetconfError, PoolExhausted
from tests.ipam.world import (
    Overtaken,
    add,
    delete,
    entries,
    find,
    findings,
    holders,
    put,
    put_node,
    put_pool,
    put_reservation,
    refusal,
    remove,
)

DEFAULT = (("four", {"cidr": "10.7.0.0/28", "blockSize": 30}), ("six", {"cidr": "fd07::/64"}))
RESERVATION = f"{keys.RESERVATIONS}cni-ipam-four"


def pools_in(store):
    """The names of the pools that there are."""
    return [keys.last_part(entry.key) for entry in entries(store, keys.POOLS)]


def reservations(store):
    """The names of the reservations that there are."""
    return {keys.last_part(entry.key) for entry in entries(store, keys.RESERVATIONS)}


def reserved(store, name):
    """What the reservation of that name holds."""
    return {str(c) for c in codec.decode_reservation(find(store, keys.RESERVATIONS + name))}


def test_default_pools_are_created_by_the_first_add(empty):
    """With Calico's defaults, and what its clients need to update them."""
    add(empty, default_pools=DEFAULT, makes_node=True, counts={4: 1, 6: 1})
    assert ["four", "six"] == pools_in(empty)
    pool = json.loads(find(empty, f"{keys.POOLS}six").value)
    assert ("IPPool", "projectcalico.org/v3") == (pool["kind"], pool["apiVersion"])
    assert {"name", "uid", "creationTimestamp"} == set(pool["metadata"])
    assert ("fd07::/64", 122, "all()") == tuple(
        [pool["spec"][field] for field in ("cidr", "blockSize", "nodeSelector")]
    )
    assert [] == findings(empty)


def test_default_pools_are_created_once(empty):
    """A deleted one stays deleted, a changed one stays changed."""
    add(empty, default_pools=DEFAULT, makes_node=True)
    remove(empty, f"{keys.POOLS}six")
    put_pool(empty, "four", "10.7.0.0/28", blockSize=30, disabled=True)
    put_pool(empty, "other", "10.8.0.0/28", blockSize=30)
    assert ["10.8."] == [a[:5] for a in add(empty, "c2", default_pools=DEFAULT)]
    assert ["four", "other"] == pools_in(empty)


def test_a_default_pool_added_later_is_created_then(empty):
    """The markers are of each pool."""
    add(empty, default_pools=DEFAULT[:1], makes_node=True)
    add(empty, "c2", default_pools=DEFAULT, counts={6: 1})
    assert ["four", "six"] == pools_in(empty)


def test_a_pool_that_exists_by_that_name_is_left_alone(empty):
    """It only gets its marker."""
    put_pool(empty, "four", "10.9.0.0/28", blockSize=30)
    before = find(empty, f"{keys.POOLS}four")
    assert ["10.9."] == [a[:5] for a in add(empty, default_pools=DEFAULT[:1], makes_node=True)]
    assert before == find(empty, f"{keys.POOLS}four")
    remove(empty, f"{keys.POOLS}four")
    details = refusal(empty, "c2", default_pools=DEFAULT[:1]).details
    assert details.endswith("; there is no IPv4 pool")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"cidr": "10.8.0.0/28"}, "too small"),
        ({"cidr": "10.7.0.0/24"}, "overlaps"),
        ({"cidr": "nonsense"}, "nonsense"),
        ({}, "CIDR"),
        ({"cidr": "10.8.0.0/24", "blockSize": 33}, "blockSize must be between"),
        ({"cidr": "10.8.0.0/24", "nodeSelector": "rack =="}, "rack =="),
    ],
)
def test_a_broken_default_pool_is_refused_and_nothing_is_created(empty, spec, text):
    """Not even those beside it."""
    put_node(empty, "node1")
    error = refusal(empty, default_pools=(*DEFAULT, ("bad", spec)))
    assert isinstance(error, NetconfError)
    assert error.msg.startswith("default_pools: pool bad: ")
    assert text in error.msg


def test_default_pools_must_not_overlap(empty):
    """Neither each other nor what is there."""
    put_node(empty, "node1")
    twice = (DEFAULT[0], ("again", {"cidr": "10.7.0.0/26"}))
    assert isinstance(refusal(empty, default_pools=twice), NetconfError)
    put_pool(empty, "there", "10.7.0.0/24")
    assert isinstance(refusal(empty, default_pools=DEFAULT), NetconfError)
    assert ["there"] == pools_in(empty)


def test_a_default_pool_comes_with_its_reservation(empty):
    """So that Calico's own nodes keep off what a gateway keeps back."""
    add(empty, default_pools=DEFAULT, makes_node=True, gateway="auto")
    held = codec.decode_reservation(find(empty, RESERVATION))
    assert ["10.7.0.0/32", "10.7.0.1/32", "10.7.0.15/32"] == [str(cidr) for cidr in held]
    six = codec.decode_reservation(find(empty, f"{keys.RESERVATIONS}cni-ipam-six"))
    assert ["fd07::/128", "fd07::1/128"] == [str(cidr) for cidr in six]


def test_a_reservation_of_that_name_is_left_alone(empty):
    """It can be there from a pool that was deleted."""
    put(empty, RESERVATION, {"spec": {"reservedCIDRs": ["10.7.0.0/29"]}})
    before = find(empty, RESERVATION)
    add(empty, default_pools=DEFAULT, makes_node=True, gateway="auto")
    assert before == find(empty, RESERVATION)
    assert {"10.7.0.15/32"} == reserved(empty, "cni-ipam-four-10-7-0-15")


def test_without_a_gateway_nothing_is_reserved(empty):
    """Calico's way."""
    add(empty, default_pools=DEFAULT, makes_node=True)
    assert [] == entries(empty, keys.RESERVATIONS)


def test_the_first_add_that_misses_the_reservation_makes_it(store):
    """For a pool that an operator made."""
    add(store, gateway="auto")
    held = codec.decode_reservation(find(store, f"{keys.RESERVATIONS}cni-ipam-pool1"))
    assert ["10.0.0.0/32", "10.0.0.1/32", "10.0.0.15/32"] == [str(cidr) for cidr in held]
    before = find(store, f"{keys.RESERVATIONS}cni-ipam-pool1")
    add(store, "c2", gateway="auto")
    assert before == find(store, f"{keys.RESERVATIONS}cni-ipam-pool1")


def test_what_is_reserved_already_is_not_reserved_again(store):
    """By another reservation, in whatever way."""
    put_reservation(store, "10.0.0.0/31", "10.0.0.15")
    add(store, gateway="auto")
    assert 1 == len(entries(store, keys.RESERVATIONS))


def test_a_pool_made_again_with_another_cidr_gets_a_further_reservation(store):
    """The first one holds what the former pool kept back, and is nobody's to change."""
    add(store, gateway="auto")
    before = find(store, f"{keys.RESERVATIONS}cni-ipam-pool1")
    delete(store)
    put_pool(store, "pool1", "10.9.0.0/28", blockSize=30)
    add(store, "c2", gateway="auto")
    expected = {"10.9.0.0/32", "10.9.0.1/32", "10.9.0.15/32"}
    assert expected == reserved(store, "cni-ipam-pool1-10-9-0-0")
    assert before == find(store, f"{keys.RESERVATIONS}cni-ipam-pool1")
    add(store, "c3", "node2", gateway="auto")
    assert {"cni-ipam-pool1", "cni-ipam-pool1-10-9-0-0"} == reservations(store)


def test_an_ipv6_pool_made_again_gets_a_further_reservation(empty):
    """Its base ends with colons, which no name may end with."""
    put_node(empty, "node1")
    put_pool(empty, "six", "fd07::/64")
    add(empty, counts={6: 1}, gateway="auto")
    put_pool(empty, "six", "fd08::/64")
    add(empty, "c2", counts={6: 1}, gateway="auto")
    assert {"fd08::/128", "fd08::1/128"} == reserved(empty, "cni-ipam-six-fd08--0")


def test_another_gateway_gets_a_further_reservation(store):
    """Of what is not reserved yet, for each gateway once."""
    add(store, gateway="auto")
    for number, host in enumerate(["10.0.0.7", "10.0.0.9", "10.0.0.7"]):
        add(store, f"a{number}", gateway=parse_address(host))
    assert {"10.0.0.7/32"} == reserved(store, "cni-ipam-pool1-10-0-0-7")
    assert {"10.0.0.9/32"} == reserved(store, "cni-ipam-pool1-10-0-0-9")
    assert 3 == len(reservations(store))


def test_a_further_reservation_that_was_emptied_is_followed_by_others(store):
    """One for each address at most: then there is no name left, and pods get addresses still."""
    put(store, f"{keys.RESERVATIONS}cni-ipam-pool1", {"spec": {"reservedCIDRs": []}})
    for number in range(5):
        add(store, f"a{number}", gateway="auto")
        for name in reservations(store):
            put(store, keys.RESERVATIONS + name, {"spec": {"reservedCIDRs": []}})
    further = {f"cni-ipam-pool1-10-0-0-{number}" for number in (0, 1, 15)}
    assert {"cni-ipam-pool1"} | further == reservations(store)


def test_who_is_second_with_a_further_reservation_finds_it(store):
    """Both nodes get an address; with other gateways each makes its own."""
    put(store, f"{keys.RESERVATIONS}cni-ipam-pool1", {"spec": {"reservedCIDRs": ["10.9.0.0"]}})
    first = Overtaken(store, lambda: add(store, "c2", "node2", gateway="auto"))
    assert not {*add(first, gateway="auto")} & {"10.0.0.0", "10.0.0.1", "10.0.0.15"}
    assert {"cni-ipam-pool1", "cni-ipam-pool1-10-0-0-0"} == reservations(store)
    first = Overtaken(store, lambda: add(store, "c4", "node2", gateway=parse_address("10.0.0.7")))
    add(first, "c3", gateway=parse_address("10.0.0.9"))
    assert {"10.0.0.9/32"} == reserved(store, "cni-ipam-pool1-10-0-0-9")
    assert {"10.0.0.7/32"} == reserved(store, "cni-ipam-pool1-10-0-0-7")
    assert [] == findings(store)


def test_kept_back_addresses_are_never_given(store):
    """Not to the last pod of a small pool, whoever asks, alone or borrowing."""
    given = [a for n in range(7) for a in add(store, f"a{n}", "node1", gateway="auto")]
    given += [a for n in range(6) for a in add(store, f"b{n}", "node2", gateway="auto")]
    assert {f"10.0.0.{n}" for n in range(2, 15)} == set(given) == set(holders(store))
    error = refusal(store, "more", gateway="auto")
    assert isinstance(error, PoolExhausted)
    numbers = "10.0.0.0/28: 16 addresses, 13 in use, 3 reserved, 0 cooling, 0 free"
    assert f"free addresses, or create another pool; {numbers}" == error.details
    assert [] == findings(store)


def test_kept_back_addresses_are_never_given_even_unreserved(store):
    """An operator may have emptied the reservation."""
    put(store, f"{keys.RESERVATIONS}cni-ipam-pool1", {"spec": {"reservedCIDRs": []}})
    given = [a for n in range(13) for a in add(store, f"a{n}", gateway="auto")]
    assert not {"10.0.0.0", "10.0.0.1", "10.0.0.15"} & set(given)
    assert isinstance(refusal(store, "more", gateway="auto"), PoolExhausted)


def test_without_a_gateway_every_address_is_given(store):
    """All sixteen."""
    given = [a for n in range(16) for a in add(store, f"a{n}")]
    assert 16 == len(set(given))
