"""Fixed addresses: just this one, or an error that says who has it."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import (
    AddressInUse,
    AddressReserved,
    CorruptRecord,
    NotInPool,
    StrictAffinity,
)
from tests.ipam.world import (
    NOW,
    add,
    ask,
    blocks_of,
    delete,
    entries,
    findings,
    holders,
    lock,
    put,
    put_config,
    put_pool,
    put_reservation,
    refusal,
    release_block,
    remove,
    spoil,
    survey,
    the_block,
)

ADDRESS = "10.0.0.6"


def test_a_fixed_address_claims_its_block(store):
    """Facts 10.5: affine to this node, the ordinal out of the middle of the queue."""
    assert [ADDRESS] == add(store, fixed=[ADDRESS])
    block = the_block(store)
    assert ("host:node1", (0, 1, 3)) == (block.affinity, block.unallocated)
    assert [] == findings(store)


def test_a_fixed_address_of_an_own_block_is_taken(store):
    """No further claim."""
    (first,) = add(store, "c1")
    wanted = str(the_block(store).cidr.address(3))
    assert first != wanted
    assert [wanted] == add(store, "c2", fixed=[wanted])
    assert 1 == len(survey(store).blocks)
    assert [] == findings(store)


def test_the_answer_says_that_it_is_fixed(store):
    """Its mask is Calico's full length."""
    (assigned,) = ask(store, fixed=[ADDRESS]).assigned
    assert (True, True, "pool1") == (assigned.is_fixed, assigned.is_affine, assigned.pool.name)


def test_a_repeated_add_has_it_already(store):
    """And writes nothing."""
    add(store, fixed=[ADDRESS])
    before = entries(store)
    assert [ADDRESS] == add(store, fixed=[ADDRESS])
    assert before == entries(store)


def test_it_is_borrowed_from_another_nodes_block(store):
    """Unless strictAffinity forbids it."""
    add(store, "c1", "node2", fixed=["10.0.0.5"])
    (assigned,) = ask(store, "c2", "node1", fixed=[ADDRESS]).assigned
    assert not assigned.is_affine
    assert [] == blocks_of(store, "node1")
    assert [] == findings(store)


@pytest.mark.parametrize("orphan", [False, True])
def test_strict_affinity_forbids_to_borrow_it(store, orphan):
    """With Calico's text; a block without owner is nobody's to lend either."""
    add(store, "c1", "node2", fixed=["10.0.0.5"])
    if orphan:
        release_block(store, "10.0.0.4/30", "node2")
    put_config(store, strict_affinity=True)
    error = refusal(store, "c2", "node1", fixed=[ADDRESS])
    assert isinstance(error, StrictAffinity)
    if orphan:
        assert "Attempt to assign from block 10.0.0.4/30 with no affinity" == error.msg
    else:
        assert "Block host affinity does not match" == error.msg
        assert "host:node2" in error.details


@pytest.mark.parametrize(
    ("owner", "who"),
    [
        ({"node": "node2"}, "held by handle net.c1 on node node2"),
        ({"node": "node2", "pod": "p", "namespace": "ns"}, "held by pod ns/p on node2"),
    ],
)
def test_one_that_is_in_use_is_refused_with_its_holder(store, owner, who):
    """Calico's text; the details say who has it."""
    add(store, "c1", "node2", owner=owner, fixed=[ADDRESS])
    error = refusal(store, "c2", "node1", fixed=[ADDRESS])
    assert isinstance(error, AddressInUse)
    expected = f"resource already exists: {ADDRESS} with error: Address already assigned in block"
    assert (expected, f"{ADDRESS} is {who}") == (error.msg, error.details)


def test_one_of_another_interface_is_in_use(store):
    """The same container under the same handle."""
    add(store, fixed=[ADDRESS])
    assert isinstance(refusal(store, ifname="eth1", fixed=[ADDRESS]), AddressInUse)


def test_one_that_cools_down_is_in_use(store):
    """Until its time is over."""
    put_config(store, ipCooldownSeconds=60)
    add(store, fixed=[ADDRESS])
    add(store, "c2", fixed=["10.0.0.5"])
    delete(store)
    error = refusal(store, "c3", fixed=[ADDRESS])
    assert isinstance(error, AddressInUse)
    assert "released at 2027-01-15T08:00:00Z and cooling down" in error.details
    assert [ADDRESS] == add(store, "c3", fixed=[ADDRESS], now=NOW + 61 * SECOND)
    assert [] == findings(store)


def test_one_outside_of_every_pool_is_refused(store):
    """With Calico's text, trailing newline and all; the details list the pools."""
    put_pool(store, "off", "11.0.0.0/28", blockSize=30, disabled=True)
    error = refusal(store, fixed=["12.0.0.1"])
    assert isinstance(error, NotInPool)
    assert "The provided IP address is not in a configured pool\n" == error.msg
    assert "12.0.0.1 lies in none of: 11.0.0.0/28 (disabled), 10.0.0.0/28" == error.details
    assert "fd00::1 lies in none of: (no IPv6 pool)" == refusal(store, fixed=["fd00::1"]).details


def test_one_of_a_disabled_pool_is_refused(store):
    """The details say that it is disabled."""
    put_pool(store, "off", "11.0.0.0/28", blockSize=30, disabled=True)
    error = refusal(store, fixed=["11.0.0.1"])
    assert isinstance(error, NotInPool)
    assert "11.0.0.0/28 (disabled)" in error.details


def test_one_of_a_pool_for_other_uses_is_refused(store):
    """With Calico's text (facts 2.10.2)."""
    put_pool(store, "tunnels", "11.0.0.0/28", blockSize=30, allowedUses=["Tunnel"])
    error = refusal(store, fixed=["11.0.0.1"])
    assert isinstance(error, NotInPool)
    assert (
        'IP address 11.0.0.1 is in IP pool "tunnels", which is not allowed for use "Workload" '
        "(allowedUses: [Tunnel])"
    ) == error.msg


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.1", "10.0.0.15"])
def test_what_a_gateway_keeps_back_is_refused(store, address):
    """Base, gateway, broadcast; without a gateway they are addresses like any other."""
    error = refusal(store, fixed=[address], gateway="auto")
    assert isinstance(error, AddressReserved)
    assert f"IP address {address} is kept back in pool pool1 (10.0.0.0/28)" == error.msg
    assert [address] == add(store, fixed=[address])


def test_a_fixed_address_ignores_what_auto_assignment_heeds(store):
    """Selectors, mode, reservations, block limit, switched-off claims, a missing Node (2.10)."""
    put_pool(
        store,
        "pool1",
        "10.0.0.0/28",
        blockSize=30,
        nodeSelector="rack == '1'",
        namespaceSelector="team == 'x'",
        assignmentMode="Manual",
    )
    put_reservation(store, "10.0.0.0/24")
    put_config(store, maxBlocksPerHost=1, strict_affinity=True, auto_allocate_blocks=False)
    for node in ("node1", "node2"):
        remove(store, keys.NODES + node)
    assert ["10.0.0.1"] == add(store, "c1", fixed=["10.0.0.1"])
    assert [ADDRESS] == add(store, "c2", fixed=[ADDRESS])
    assert [] == findings(store)


def test_a_locked_datastore_gives_none(store):
    """As for every ADD."""
    lock(store)
    assert "not ready" in refusal(store, fixed=[ADDRESS]).msg


def test_several_fixed_addresses_come_all_or_none(store):
    """In one block or in several."""
    wanted = ["10.0.0.5", "10.0.0.6", "10.0.0.9"]
    assert wanted == add(store, fixed=wanted)
    assert ["10.0.0.4/30", "10.0.0.8/30"] == sorted(blocks_of(store, "node1"))
    assert isinstance(refusal(store, "c2", fixed=["10.0.0.12", "10.0.0.9"]), AddressInUse)
    assert [] == findings(store)


def test_a_fixed_and_a_free_address_of_one_family_differ(store):
    """Also when asked for again, and when one block would serve both."""
    wish = {"fixed": [ADDRESS], "counts": {4: 1}}
    given = add(store, **wish)
    assert ADDRESS == given[0]
    assert 2 == len(set(given))
    assert set(given) == set(holders(store))
    assert given == add(store, **wish)
    assert [] == findings(store)


def test_a_fixed_v4_goes_with_a_free_v6(store):
    """Each family by its own way."""
    put_pool(store, "six", "fd00::/120")
    v4, v6 = add(store, fixed=[ADDRESS], counts={6: 1})
    assert (ADDRESS, "fd00::") == (v4, v6[:6])
    assert [] == findings(store)


def test_one_in_a_broken_block_is_refused_at_once(store):
    """The record is named; no swap that cannot succeed is tried a hundred times."""
    add(store, "c1", "node2", fixed=["10.0.0.5"])
    key = spoil(store, "10.0.0.4/30")
    error = refusal(store, "c2", fixed=[ADDRESS])
    assert isinstance(error, CorruptRecord)
    assert key == error.key


def test_one_whose_affinity_is_broken_is_refused_at_once(store):
    """The claim would be refused by the datastore again and again."""
    key = keys.affinity_key("node1", parse_cidr("10.0.0.4/30"))
    put(store, key, '{"state":"nonsense"}')
    error = refusal(store, "c2", fixed=[ADDRESS])
    assert isinstance(error, CorruptRecord)
    assert key == error.key
