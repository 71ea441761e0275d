"""Owners: set, cleared, and handed over while a virtual machine moves (facts 2.16)."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import (
    CniIpamError,
    CoolingDown,
    CorruptRecord,
    NotFound,
    UpdateConflict,
    ValidationError,
)
from cni_ipam.ipam.owner import AttributeOwner, OwnerPreconditions, OwnerUpdates, set_owner
from cni_ipam.ipam.query import find_owner
from tests.ipam.world import (
    NOW,
    Overtaken,
    add,
    delete,
    entries,
    findings,
    put_config,
    put_pool,
    remove,
    spoil,
    the_block,
)

SOURCE = {"pod": "src", "namespace": "vm"}
TARGET = {"pod": "dst", "namespace": "vm"}
SOURCE_POD = AttributeOwner("src", "vm")
TARGET_POD = AttributeOwner("dst", "vm")
STRANGER = AttributeOwner("x", "y")
IS_EMPTY = OwnerPreconditions(active_is_empty=True, alternate_is_empty=True)


@pytest.fixture
def address(store):
    """An address of the handle `net.c1`, whose active owner has been cleared."""
    given = parse_address(add(store)[0])
    set_owner(store, given, "net.c1", OwnerUpdates(clear_active=True), NOW)
    return given


def change(store, address, preconditions=None, handle="net.c1", **updates):
    set_owner(store, address, handle, OwnerUpdates(**updates), NOW, preconditions)


def refusal(store, address, preconditions=None, handle="net.c1", **updates):
    """The error of a change that must fail, and change nothing."""
    before = entries(store)
    with pytest.raises(CniIpamError) as caught:
        change(store, address, preconditions, handle, **updates)
    assert before == entries(store)
    return caught.value


def owners(store, address):
    """The active and the alternate owner."""
    owner = find_owner(store, address, NOW)
    return owner.secondary, owner.alternate


def test_both_owners_are_set_in_one_call(store, address):
    """And the handle stays."""
    change(store, address, active=SOURCE, alternate=TARGET)
    assert (SOURCE, TARGET) == owners(store, address)
    assert "net.c1" == find_owner(store, address, NOW).handle
    assert [] == findings(store)


@pytest.mark.parametrize(
    ("updates", "expected"),
    [
        ({"clear_active": True}, (None, TARGET)),
        ({"clear_alternate": True}, (SOURCE, None)),
        ({"clear_active": True, "clear_alternate": True}, (None, None)),
        ({"active": TARGET}, (TARGET, TARGET)),
        ({"alternate": SOURCE}, (SOURCE, SOURCE)),
        ({"active": {}}, (None, TARGET)),
        ({}, (SOURCE, TARGET)),
    ],
)
def test_each_owner_is_changed_for_itself(store, address, updates, expected):
    """What is not named stays, and an owner without attributes is none."""
    change(store, address, active=SOURCE, alternate=TARGET)
    change(store, address, **updates)
    assert expected == owners(store, address)


@pytest.mark.parametrize(
    "preconditions",
    [
        OwnerPreconditions(active=SOURCE_POD),
        OwnerPreconditions(alternate=TARGET_POD),
        OwnerPreconditions(active=SOURCE_POD, alternate=TARGET_POD),
    ],
)
def test_an_expected_owner_lets_the_change_pass(store, address, preconditions):
    """Only pod and namespace are compared."""
    change(store, address, active={**SOURCE, "node": "node1"}, alternate=TARGET)
    change(store, address, preconditions, clear_active=True, clear_alternate=True)
    assert (None, None) == owners(store, address)


@pytest.mark.parametrize(
    "preconditions",
    [
        OwnerPreconditions(active=STRANGER),
        OwnerPreconditions(active=AttributeOwner("src", "other")),
        OwnerPreconditions(alternate=STRANGER),
        OwnerPreconditions(active=SOURCE_POD, alternate=STRANGER),
        OwnerPreconditions(active_is_empty=True),
        OwnerPreconditions(alternate_is_empty=True),
    ],
)
def test_an_unexpected_owner_is_a_conflict(store, address, preconditions):
    """Neither of the owners changes then."""
    change(store, address, active=SOURCE, alternate=TARGET)
    error = refusal(store, address, preconditions, clear_active=True, clear_alternate=True)
    assert (UpdateConflict, f"update conflict: {address}") == (type(error), str(error))


def test_expecting_somebody_where_nobody_is_is_a_conflict(store, address):
    """Nobody is not the pod without a name."""
    error = refusal(store, address, OwnerPreconditions(active=SOURCE_POD), active=TARGET)
    assert "should be pod vm/src" in error.details


def test_an_owner_may_be_expected_to_be_nobody(store, address):
    """The first to come gets it."""
    change(store, address, IS_EMPTY, active=SOURCE)
    assert isinstance(refusal(store, address, IS_EMPTY, active=TARGET), UpdateConflict)
    assert (SOURCE, None) == owners(store, address)


@pytest.mark.parametrize(
    ("updates", "preconditions"),
    [
        ({"active": SOURCE, "clear_active": True}, None),
        ({"alternate": SOURCE, "clear_alternate": True}, None),
        ({}, OwnerPreconditions(active=SOURCE_POD, active_is_empty=True)),
        ({}, OwnerPreconditions(alternate=SOURCE_POD, alternate_is_empty=True)),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(store, address, updates, preconditions):
    """Before anything is read."""
    error = refusal(store, address, preconditions, **updates)
    assert isinstance(error, ValidationError)
    assert "are mutually exclusive" in str(error)


def test_the_handle_must_be_the_one_that_has_the_address(store, address):
    """Whoever lost the address cannot change it."""
    error = refusal(store, address, handle="net.other", active=SOURCE)
    expected = f"IP {address} is not assigned to handle net.other"
    assert (UpdateConflict, expected) == (type(error), str(error))


@pytest.mark.parametrize("text", ["10.0.0.15", "192.168.1.1", "fd00::1"])
def test_an_address_that_nobody_has(store, address, text):
    """Free, in no block, or in no pool."""
    error = refusal(store, parse_address(text), active=SOURCE)
    assert (NotFound, f"{text} is not assigned") == (type(error), str(error))


def test_a_cooling_address_has_no_owner(store, address):
    """Nobody gets it back by naming an owner."""
    put_config(store, ipCooldownSeconds=60)
    delete(store)
    assert isinstance(refusal(store, address, active=SOURCE), CoolingDown)


def test_a_disabled_pool_does_not_hinder_a_move(store, address):
    """What was given from it lives on."""
    remove(store, keys.POOLS + "pool1")
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, disabled=True)
    change(store, address, active=SOURCE)
    assert [SOURCE] == [attribute.secondary for attribute in the_block(store).attributes]


def test_the_addresses_of_one_call_move_together(store):
    """They share one entry, as in Calico."""
    given = [parse_address(text) for text in add(store, counts={4: 2})]
    change(store, given[0], active=SOURCE)
    assert [(SOURCE, None)] * 2 == [owners(store, address) for address in given]


def test_the_sequence_number_of_the_block_grows(store, address):
    """That of the allocation stays, so that a release which knows it still frees it."""
    before = the_block(store)
    change(store, address, active=SOURCE)
    after = the_block(store)
    assert before.sequence_number + 1 == after.sequence_number
    assert before.allocation_sequence == after.allocation_sequence


def test_a_change_to_what_is_there_writes_nothing(store, address):
    """No revision is spent on it."""
    change(store, address, active=SOURCE)
    before = entries(store)
    change(store, address, active=SOURCE)
    assert before == entries(store)


def test_a_broken_block_is_told(store, address):
    """It is not overwritten."""
    spoil(store, str(the_block(store).cidr))
    assert isinstance(refusal(store, address, active=SOURCE), CorruptRecord)


def test_a_machine_moves(store, address):
    """The source's pod hands over to the target's, each step guarded."""
    change(store, address, active=SOURCE)
    change(store, address, OwnerPreconditions(alternate_is_empty=True), alternate=TARGET)
    change(store, address, OwnerPreconditions(active=SOURCE_POD), clear_active=True)
    assert (None, TARGET) == owners(store, address)
    guard = OwnerPreconditions(active_is_empty=True, alternate=TARGET_POD)
    change(store, address, guard, active=TARGET, clear_alternate=True)
    assert (TARGET, None) == owners(store, address)
    assert [] == findings(store)


def test_what_has_rested_returns_to_the_queue(store, address):
    """A block is tidied whenever it is written."""
    put_config(store, ipCooldownSeconds=60)
    add(store, "c2")
    delete(store, "c2")
    later = NOW + 120 * SECOND
    set_owner(store, address, "net.c1", OwnerUpdates(active=SOURCE), later)
    assert [None] == [attribute.released_at for attribute in the_block(store).attributes]


def test_of_two_who_want_it_at_once_one_gets_it(store, address):
    """The slower one looks again, and finds that its precondition no longer holds."""
    others = Overtaken(store, lambda: change(store, address, IS_EMPTY, active=SOURCE))
    with pytest.raises(UpdateConflict):
        change(others, address, IS_EMPTY, active=TARGET)
    assert (SOURCE, None) == owners(store, address)


def test_an_owner_is_not_set_on_what_was_released_meanwhile(store, address):
    """Somebody else may have it next."""
    others = Overtaken(store, lambda: delete(store, owner={}))
    with pytest.raises(NotFound):
        change(others, address, active=SOURCE)
