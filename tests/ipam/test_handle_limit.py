"""The limit of a handle: a virtual machine's address goes with it (facts 2.17)."""

from __future__ import annotations

import pytest

from cni_ipam.datastore import keys
from cni_ipam.errors import AddressInUse, HandleLimit
from cni_ipam.ipam.query import addresses_of
from tests.ipam.world import (
    Overtaken,
    add,
    ask,
    delete,
    entries,
    find,
    put,
    put_config,
    put_pool,
    refusal,
    release_block,
    survey,
    texts,
    unsound,
)


def ask_for_machine(store, host="node1", limit=1, **fields):
    """What the machine's next pod gets; its container differs from the last one's each time."""
    return add(store, host=host, handle="net.vm", max_per_handle=limit, repeats=False, **fields)


def of_machine(store):
    return texts(addresses_of(store, "net.vm"))


def test_the_first_request_is_served(store):
    """As if there was no limit."""
    assert ask_for_machine(store) == of_machine(store)


@pytest.mark.parametrize("host", ["node1", "node2"])
def test_a_further_request_gets_what_the_handle_has(store, host):
    """On the same node and on another one; nothing is written."""
    given = ask_for_machine(store)
    before = entries(store)
    assert given == ask_for_machine(store, host)
    assert before == entries(store)


def test_a_limit_of_two_gives_two(store):
    """And then one of them."""
    first, second, third = [ask_for_machine(store, limit=2) for _ in range(3)]
    assert first != second
    assert third in (first, second)
    assert sorted(first + second) == sorted(of_machine(store))


def test_a_request_for_more_than_is_left_is_refused(store):
    """One is there, and two more would pass the limit."""
    (address,) = ask_for_machine(store, limit=2)
    error = refusal(store, handle="net.vm", max_per_handle=2, repeats=False, counts={4: 2})
    expected = f"handle net.vm already has IP(s) allocated: {address}"
    assert (HandleLimit, expected) == (type(error), str(error))


def test_a_request_beyond_the_limit_is_refused(store):
    """Even if the handle has nothing."""
    error = refusal(store, max_per_handle=1, counts={4: 2})
    assert (HandleLimit, 104) == (type(error), error.code)


def test_the_limit_holds_for_each_family(store):
    """An IPv4 address does not stand for an IPv6 one."""
    put_pool(store, "pool6", "fd00::/120", blockSize=122)
    (first,) = ask_for_machine(store)
    both = ask_for_machine(store, counts={4: 1, 6: 1})
    assert (first, 2) == (both[0], len(both))
    assert both == ask_for_machine(store, "node2", counts={4: 1, 6: 1})


def test_other_handles_do_not_count(store):
    """Whose addresses lie in the same block."""
    add(store, "c1")
    assert 2 == len({*add(store, "c1"), *ask_for_machine(store)})


def test_a_fixed_address_is_given_again(store):
    """To its own handle, wherever that is; the other way round it is in use."""
    assert ["10.0.0.1"] == ask_for_machine(store, fixed=["10.0.0.1"])
    assert ["10.0.0.1"] == ask_for_machine(store, "node2", fixed=["10.0.0.1"])
    error = refusal(store, "other", max_per_handle=1, fixed=["10.0.0.1"])
    assert AddressInUse is type(error)


def test_another_fixed_address_is_refused(store):
    """The handle has its one."""
    ask_for_machine(store, fixed=["10.0.0.1"])
    error = refusal(store, handle="net.vm", max_per_handle=1, repeats=False, fixed=["10.0.0.2"])
    assert "handle net.vm already has IP(s) allocated: 10.0.0.1" == str(error)


def test_two_fixed_addresses_at_once_count_both(store):
    """Neither is kept."""
    error = refusal(store, max_per_handle=1, fixed=["10.0.0.1", "10.0.0.2"])
    assert isinstance(error, HandleLimit)


def test_a_cooling_address_does_not_count(store):
    """It is the handle's no longer."""
    put_config(store, ipCooldownSeconds=60)
    (former,) = ask_for_machine(store)
    delete(store, handle="net.vm")
    (given,) = ask_for_machine(store)
    assert former != given


def test_a_handle_that_counts_too_much_gets_its_address(store):
    """After a crash, with and without the block that it counts."""
    put(store, keys.handle_key("net.vm"), {"block": {"10.0.0.12/30": 1}})
    assert 1 == len(ask_for_machine(store))


def test_an_address_of_an_orphaned_block_is_found(store):
    """Its block's host gave it up."""
    given = ask_for_machine(store)
    (block,) = survey(store).blocks
    release_block(store, str(block.cidr))
    assert given == ask_for_machine(store, "node2")


def test_of_two_nodes_at_once_both_get_the_same_address(store):
    """The slower one looks again."""
    others = Overtaken(store, lambda: ask_for_machine(store, "node2"))
    assert ask_for_machine(others) == of_machine(store)
    assert [] == unsound(store)


def test_a_call_that_stands_before_its_block_is_overtaken(store):
    """It has raised the handle and not yet written the block; its write must fail then."""
    add(store, "c0", "node2")
    (block,) = survey(store).blocks
    put(store, keys.handle_key("net.vm"), {"block": {str(block.cidr): 1}})
    before = find(store, keys.block_key(block.cidr)).revision
    assert 1 == len(ask_for_machine(store))
    assert before < find(store, keys.block_key(block.cidr)).revision


def test_without_a_limit_each_request_adds_one(store):
    """Zero is no limit."""
    outcomes = [ask(store, handle="net.vm", repeats=False) for _ in range(3)]
    assert 3 == len({str(outcome.assigned[0].address) for outcome in outcomes})
