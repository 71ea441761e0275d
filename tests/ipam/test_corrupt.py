"""Broken records: the others still serve, and an error names the one that stood in the way."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.errors import CorruptRecord, NetconfError, PoolExhausted
from tests.ipam.world import (
    add,
    add_as_calico,
    ask,
    delete,
    entries,
    find,
    put,
    put_config,
    put_node,
    put_pool,
    refusal,
    spoil,
    the_block,
)


def broken(error, key):
    """Whether the error names the record."""
    return isinstance(error, CorruptRecord) and key == error.key and key in error.msg


def test_another_block_serves_beside_a_broken_own_one(store):
    """And the answer says which record was passed over."""
    add(store)
    cidr = the_block(store).cidr
    key = spoil(store, str(cidr))
    outcome = ask(store, "c2")
    assert not cidr.contains(outcome.assigned[0].address)
    assert [key] == [fault.key for fault in outcome.faults]


def test_a_broken_block_is_the_error_when_nothing_else_serves(store):
    """Instead of a full pool, which it is not."""
    given = [add(store, f"c{n}") for n in range(16)]
    cidr = next(c for c in _blocks(store) if c.contains(parse_address(given[0][0])))
    key = spoil(store, str(cidr))
    assert broken(refusal(store, "more"), key)


def _blocks(store):
    return [keys.find_block(entry.key) for entry in entries(store, keys.BLOCKS)]


def test_a_broken_own_block_is_the_error_at_the_block_limit(store):
    """The node's blocks are not all full: one cannot be read."""
    put_config(store, maxBlocksPerHost=1, strict_affinity=True)
    add(store)
    key = spoil(store, str(the_block(store).cidr))
    assert broken(refusal(store, "c2"), key)


def test_the_only_pool_being_broken_is_the_error(store):
    """Instead of there being no pool."""
    key = f"{keys.POOLS}pool1"
    put(store, key, '{"metadata":{"name":"pool1"},"spec":{"cidr":"nonsense"}}')
    assert broken(refusal(store), key)


def test_a_broken_pool_leaves_the_others(store):
    """They serve as ever."""
    put(store, f"{keys.POOLS}another", "[]")
    assert 1 == len(add(store))


def test_a_broken_record_of_the_other_family_is_no_excuse(store):
    """The pool is full, whatever an IPv6 block looks like."""
    put_pool(store, "six", "fd00::/120")
    add(store, counts={4: 15, 6: 1})
    (six,) = [c for c in _blocks(store) if c.version == 6]
    spoil(store, str(six))
    put(store, keys.affinity_key("node1", six), "[]")
    assert isinstance(refusal(store, "c2", counts={4: 2}), PoolExhausted)


def test_the_attachments_own_handle_being_broken_is_the_error(store):
    """Nothing can be recorded under it; no swap is tried in vain."""
    key = keys.handle_key("net.c1")
    put(store, key, "[]")
    assert broken(refusal(store), key)
    assert 1 == len(add(store, "c2"))


def test_a_broken_affinity_is_passed_over(store):
    """Its block is neither used nor claimed."""
    for number in range(4):
        cidr = parse_cidr(f"10.0.0.{4 * number}/30")
        if number != 2:
            put(store, keys.affinity_key("node1", cidr), '{"state":"nonsense"}')
    assert ["10.0.0.8"] == add(store)


@pytest.mark.parametrize(
    "key",
    [f"{keys.NODES}node1", keys.CONFIG, keys.CLUSTER_INFORMATION],
    ids=["node", "config", "lock"],
)
def test_a_record_that_decides_must_be_readable(store, key):
    """An ADD does not guess what the operator wanted."""
    put(store, key, '{"spec":')
    assert broken(refusal(store, makes_node=True), key)


def test_a_broken_reservation_is_passed_over_as_calico_does(store):
    """And told; it is never why there is no address."""
    key = f"{keys.RESERVATIONS}mine"
    put(store, key, '{"spec":{"reservedCIDRs":7}}')
    assert [key] == [fault.key for fault in ask(store, counts={4: 16}).faults]
    assert isinstance(refusal(store, "more"), PoolExhausted)


@pytest.mark.parametrize(
    "key",
    [
        f"{keys.NODES}node1",
        keys.CLUSTER_INFORMATION,
        f"{keys.POOLS}pool1",
        f"{keys.RESERVATIONS}r",
        keys.CONFIG,
    ],
    ids=["node", "lock", "pool", "reservation", "config"],
)
def test_a_release_needs_none_of_these(store, key):
    """*DEL never fails for what is gone*, nor for what it does not need."""
    given = add(store)
    put(store, key, "[]")
    assert given == delete(store)
    assert find(store, keys.handle_key("net.c1")) is None


def test_a_release_survives_a_selector_that_cannot_be_parsed(store):
    """The pool is the operator's to correct, the address is free."""
    given = add(store)
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack ==")
    assert given == delete(store)
    with pytest.raises(NetconfError):
        add(store)


def test_a_release_survives_a_broken_affinity(store):
    """The block stays the node's, and the address is free."""
    given = add(store)
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")
    key = keys.affinity_key("node1", the_block(store).cidr)
    put(store, key, "[]")
    with pytest.raises(CorruptRecord) as raised:
        delete(store)
    assert broken(raised.value, key)
    assert the_block(store).is_empty
    assert given


def test_a_release_names_the_broken_block_after_all_else(store):
    """What can be released is, and the handle still counts what could not be seen."""
    put_pool(store, "six", "fd00::/120")
    add(store, counts={4: 1, 6: 1})
    (cidr,) = [c for c in _blocks(store) if c.version == 4]
    former = find(store, keys.block_key(cidr)).value
    key = spoil(store, str(cidr))
    with pytest.raises(CorruptRecord) as raised:
        delete(store)
    assert broken(raised.value, key)
    put(store, key, former)
    assert 1 == len(delete(store))
    assert [] == entries(store, keys.HANDLES)


def test_a_release_names_a_broken_handle(store):
    """Its addresses cannot be found."""
    add_as_calico(store)
    key = keys.handle_key("net.c1")
    put(store, key, "[]")
    with pytest.raises(CorruptRecord) as raised:
        delete(store)
    assert broken(raised.value, key)


def test_a_node_without_labels_and_one_with(store):
    """The Node that a store made itself has none; both serve."""
    put_node(store, "node1", rack="1")
    put(store, f"{keys.NODES}node2", '{"metadata":{"name":"node2"}}')
    assert 2 == len({*add(store, "c1", "node1"), *add(store, "c2", "node2")})
