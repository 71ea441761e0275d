"""Questions about addresses."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import CoolingDown, CorruptRecord, NotFound
from cni_ipam.ipam.query import addresses_of, find_owner, read_host, read_utilization
from tests.datastore.faults import StoppingDatastore
from tests.ipam.world import (
    NOW,
    add,
    delete,
    put,
    put_config,
    put_pool,
    put_reservation,
    remove,
    spoil,
    texts,
    the_block,
)


def test_the_owner_of_an_address(store):
    """Handle and attributes, as they were given."""
    address = parse_address(add(store)[0])
    owner = find_owner(store, address, NOW)
    assert ("net.c1", "node1", "eth0") == (owner.handle, owner.get("node"), owner.get("ifname"))


@pytest.mark.parametrize("text", ["10.0.0.15", "9.9.9.9", "fd00::1"])
def test_an_address_without_block_or_pool_has_no_owner(store, text):
    """It is not an error of the datastore's."""
    add(store)
    with pytest.raises(NotFound, match=f"^{text} is not assigned$"):
        find_owner(store, parse_address(text), NOW)


def test_a_free_address_of_a_block_has_no_owner(store):
    """Its neighbour has one."""
    add(store)
    free = the_block(store).cidr.address(3)
    with pytest.raises(NotFound):
        find_owner(store, free, NOW)


def test_an_address_of_a_disabled_pool_has_no_owner(store):
    """As Calico, which looks at enabled pools only."""
    address = parse_address(add(store)[0])
    remove(store, keys.POOLS + "pool1")
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, disabled=True)
    with pytest.raises(NotFound):
        find_owner(store, address, NOW)


def test_a_cooling_address_has_no_owner(store):
    """Until its cooldown is over it is told apart, then it is a free one."""
    put_config(store, ipCooldownSeconds=60)
    address = parse_address(add(store)[0])
    delete(store)
    with pytest.raises(CoolingDown, match=f"^address {address} is in cooldown$"):
        find_owner(store, address, NOW + 59 * SECOND)
    with pytest.raises(NotFound):
        find_owner(store, address, NOW + 61 * SECOND)


def test_a_broken_block_hides_its_owners(store):
    """Nobody is told that the address is free."""
    address = parse_address(add(store)[0])
    spoil(store, str(the_block(store).cidr))
    with pytest.raises(CorruptRecord):
        find_owner(store, address, NOW)


def test_a_broken_pool_hides_its_owners(store):
    """The address may lie in it."""
    address = parse_address(add(store)[0])
    put(store, keys.POOLS + "pool1", "{")
    with pytest.raises(CorruptRecord):
        find_owner(store, address, NOW)


def test_the_addresses_of_a_handle(store):
    """From all its blocks, and those of no other handle."""
    given = add(store, counts={4: 6})
    add(store, "c2")
    assert sorted(given, key=lambda text: parse_address(text).value) == texts(
        addresses_of(store, "net.c1")
    )


def test_a_handle_that_counts_too_much_has_what_it_has(store):
    """A crash leaves such a one; it is found, with no address."""
    cidr = str(the_block_of(store))
    put(store, keys.handle_key("net.crashed"), {"block": {cidr: 1, "10.0.0.12/30": 1}})
    assert [] == addresses_of(store, "net.crashed")


def the_block_of(store):
    add(store)
    return the_block(store).cidr


@pytest.mark.parametrize("handle_id", ["net.other", "NET.C1"])
def test_an_unknown_handle_is_not_found(store, handle_id):
    """Handles are case sensitive."""
    add(store)
    with pytest.raises(NotFound, match=handle_id):
        addresses_of(store, handle_id)


def test_a_broken_block_hides_the_addresses_of_a_handle(store):
    """A part of them would be taken for all."""
    add(store)
    spoil(store, str(the_block(store).cidr))
    with pytest.raises(CorruptRecord):
        addresses_of(store, "net.c1")


def test_how_full_the_pools_are(store):
    """Each with its blocks."""
    put_pool(store, "pool2", "10.1.0.0/28", blockSize=30)
    put_reservation(store, "10.0.0.0/31")
    add(store)
    add(store, "c2", pools={4: ("pool2",)})
    found = read_utilization(store)
    assert [("pool1", 16, 1, 2, 13), ("pool2", 16, 1, 0, 15)] == [
        (pool.name, pool.total.capacity, pool.total.in_use, pool.total.reserved, pool.total.free)
        for pool in found
    ]
    assert [[4], [4]] == [[block.capacity for block in pool.blocks] for pool in found]


@pytest.mark.parametrize("wanted", ["pool2", "10.1.0.0/28"])
def test_only_the_wanted_pools_are_measured(store, wanted):
    """By name or CIDR."""
    put_pool(store, "pool2", "10.1.0.0/28", blockSize=30)
    assert ["pool2"] == [pool.name for pool in read_utilization(store, [wanted])]


def test_a_hosts_part_of_the_records(store):
    """Its blocks and claims, its addresses wherever, what others have of its blocks."""
    add(store, "c1", fixed=["10.0.0.5"])
    add(store, "c2", "node2", fixed=["10.0.0.6"])
    add(store, "c3", "node2", fixed=["10.0.0.9"])
    add(store, "c4", fixed=["10.0.0.10"])
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.12-30", {"state": "pending"})
    found = read_host(store, "node1")
    assert (["10.0.0.4/30"], ["10.0.0.12/30"]) == (
        [str(cidr) for cidr in found.own],
        [str(cidr) for cidr in found.claimed],
    )
    assert ["10.0.0.5", "10.0.0.10"] == texts(found.allocations)
    assert ["10.0.0.6"] == texts(found.lent)
    assert () == found.unclear


def test_a_hosts_part_takes_one_request(store):
    """Whatever there is of it."""
    add(store)
    counting = StoppingDatastore(store)
    read_host(counting, "node1")
    assert 1 == counting.reads


def test_a_broken_record_leaves_its_block_unclear(store):
    """The block's own, or the host's claim on it; the others are known."""
    for address in ("10.0.0.1", "10.0.0.5", "10.0.0.9"):
        add(store, address, fixed=[address])
    spoil(store, "10.0.0.4/30")
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.8-30", '{"state":')
    found = read_host(store, "node1")
    assert {"10.0.0.4/30", "10.0.0.8/30"} == {str(cidr) for cidr in found.unclear}
    assert ["10.0.0.0/30"] == [str(cidr) for cidr in found.own]
