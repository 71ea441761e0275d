"""Where an address comes from, in order; and what is said when there is none."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import Attribute
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import codec, keys
from cni_ipam.errors import (
    BlockLimit,
    DatastoreUnavailable,
    FamilyMissing,
    NoQualifiedPool,
    PoolExhausted,
    StrictAffinity,
)
from tests.ipam.world import (
    NOW,
    add,
    add_as_calico,
    ask,
    blocks_of,
    delete,
    entries,
    find,
    findings,
    holders,
    lock,
    own_blocks,
    put,
    put_config,
    put_node,
    put_pool,
    put_reservation,
    refusal,
    release_block,
    remove,
    survey,
    the_block,
)


def fill(store, number, host="node1", **fields):
    """So many ADDs of a host; all their addresses."""
    return [a for n in range(number) for a in add(store, f"{host}-{n}", host, **fields)]


def test_first_add_claims_a_block_and_records_everything(store):
    """Block, confirmed affinity, handle; nothing left over."""
    (address,) = add(store)
    block = the_block(store)
    assert block.cidr.contains(parse_address(address))
    assert "host:node1" == block.affinity
    assert {address: "net.c1"} == holders(store)
    assert ["confirmed"] == [affinity.state for affinity in survey(store).affinities]
    assert [block.cidr] == own_blocks(store, "node1")
    assert [] == findings(store)


def test_owner_attributes_are_calicos_with_network_and_ifname(store):
    """As the wish has them; the plugin adds the time."""
    add(store, owner={"node": "node1", "pod": "p", "namespace": "ns"})
    assert {
        "node": "node1",
        "pod": "p",
        "namespace": "ns",
    } == the_block(store).attributes[0].secondary


def test_an_address_without_handle_is_nobodys_to_ask_for_again(store):
    """Calico's library knows such addresses: no handle counts them, each call takes another."""
    first, second = [add(store, handle="", owner={}) for _ in range(2)]
    assert first != second
    assert [Attribute()] == list(the_block(store).attributes)
    assert [] == survey(store).handles
    assert [] == findings(store)


def test_own_blocks_come_first(store):
    """The second ADD takes the next address of the block that the first one claimed."""
    first, second = add(store, "c1"), add(store, "c2")
    assert 1 == len(survey(store).blocks)
    assert parse_address(*second).value == parse_address(*first).value + 1


def test_a_full_block_leads_to_another_claim(store):
    """Four addresses a block, so the fifth ADD claims."""
    assert 5 == len(set(fill(store, 5)))
    assert 2 == len(blocks_of(store, "node1"))
    assert [] == findings(store)


def test_pools_are_tried_in_order_and_overflow(empty):
    """Where the first is full the second serves."""
    put_pool(empty, "a", "10.1.0.0/30", blockSize=30)
    put_pool(empty, "b", "10.2.0.0/30", blockSize=30)
    put_node(empty, "node1")
    given = fill(empty, 8)
    assert all(text.startswith("10.1.") for text in given[:4])
    assert all(text.startswith("10.2.") for text in given[4:])


def test_requested_pools_are_tried_in_the_requested_order(empty):
    """By name or CIDR."""
    put_pool(empty, "a", "10.1.0.0/30", blockSize=30)
    put_pool(empty, "b", "10.2.0.0/30", blockSize=30)
    put_node(empty, "node1")
    given = fill(empty, 5, pools={4: ("b", "10.1.0.0/30")})
    assert ["10.2.", "10.1."] == [given[0][:5], given[4][:5]]


def test_a_pool_requested_twice_is_walked_twice_and_gives_each_address_once(empty):
    """Duplicates are kept in the request (facts 2.3.4)."""
    put_pool(empty, "a", "10.1.0.0/30", blockSize=31)
    put_node(empty, "node1")
    error = refusal(empty, counts={4: 5}, pools={4: ("a", "a")}, gateway="none")
    assert "Assigned 4 out of 5 requested" in error.msg
    assert 4 == len(set(add(empty, counts={4: 4}, pools={4: ("a", "a")})))
    assert [] == findings(empty)


def test_many_at_once_span_blocks(store):
    """They share an attribute per block, and the handle counts each block."""
    assert 10 == len(set(add(store, counts={4: 10})))
    assert [1] * 3 == [len(block.attributes) for block in survey(store).blocks]
    (handle,) = survey(store).handles
    assert [2, 4, 4] == sorted(handle.blocks.values())
    assert [] == findings(store)


def test_an_exhausted_pool_lends_from_another_nodes_block(store):
    """Its owner stays; the borrower gets no affinity, and the answer says so."""
    fill(store, 13, "node1")
    outcome = ask(store, "guest", "node2")
    assert [False] == [assigned.is_affine for assigned in outcome.assigned]
    assert [] == blocks_of(store, "node2")
    assert [] == own_blocks(store, "node2")
    assert [] == findings(store)


def test_blocks_without_owner_lend_too(store):
    """They are usable through borrowing alone (facts 2.8)."""
    fill(store, 16)
    for cidr in blocks_of(store, "node1"):
        release_block(store, cidr)
    delete(store, "node1-7")
    assert 1 == len(add(store, "guest"))


def test_earlier_pools_lend_first(empty):
    """Whatever the order of their blocks in the datastore."""
    put_pool(empty, "a", "10.9.0.0/30", blockSize=30)
    put_pool(empty, "b", "10.1.0.0/30", blockSize=30)
    for node in ("node1", "node2"):
        put_node(empty, node)
    fill(empty, 8, "node1")
    delete(empty, "node1-1")
    delete(empty, "node1-6")
    assert ["10.9.", "10.1."] == [text[:5] for text in fill(empty, 2, "node2")]


def test_strict_affinity_forbids_to_borrow(store):
    """With Calico's text."""
    put_config(store, strict_affinity=True)
    fill(store, 13, "node1")
    error = refusal(store, "guest", "node2")
    assert isinstance(error, StrictAffinity)
    assert (
        "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
        "No more free affine blocks and strict affinity enabled"
    ) == error.msg


def test_the_block_limit_ends_the_claims(store):
    """With Calico's text, and nothing is borrowed then (facts 2.5.4)."""
    put_config(store, maxBlocksPerHost=2, strict_affinity=True)
    fill(store, 8, "node1")
    error = refusal(store, "more", "node1")
    assert isinstance(error, BlockLimit)
    assert "limit of 2 blocks reached for this node" in error.msg
    assert "cannot allocate new block due to per host block limit" in error.msg
    assert "maxBlocksPerHost" in error.details


def test_the_block_limit_is_of_the_pools_of_the_request(empty):
    """Blocks in other pools do not count (facts 2.5.2)."""
    put_pool(empty, "a", "10.1.0.0/29", blockSize=30)
    put_pool(empty, "b", "10.2.0.0/29", blockSize=30)
    put_node(empty, "node1")
    put_config(empty, maxBlocksPerHost=1, strict_affinity=True)
    fill(empty, 4, pools={4: ("a",)})
    assert 1 == len(add(empty, "other", pools={4: ("b",)}))


def test_without_auto_allocation_no_block_is_claimed(store):
    """Own blocks still serve; then Calico's text."""
    fill(store, 1)
    put(store, keys.CONFIG, "{}")
    fill(store, 4)
    error = refusal(store, "more")
    assert isinstance(error, PoolExhausted)
    assert "failed to find or claim a block" == error.msg
    assert error.details.startswith("autoAllocateBlocks is false")
    assert error.details.endswith("set it to true in the IPAMConfig")


def test_an_exhausted_pool_is_told_with_its_numbers(store):
    """Calico's message; the details say what to do, and how full it is."""
    put_reservation(store, "10.0.0.14/31")
    put_config(store, ipCooldownSeconds=60)
    fill(store, 14)
    delete(store, "node1-3")
    error = refusal(store, "more")
    assert isinstance(error, PoolExhausted)
    assert (
        "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
        "No IPs available in pools: [10.0.0.0/28]"
    ) == error.msg
    numbers = "10.0.0.0/28: 16 addresses, 14 in use, 2 reserved, 1 cooling, 0 free"
    assert f"free addresses, or create another pool; {numbers}" == error.details


def test_an_exhausted_pool_that_was_named_is_to_be_replaced(store):
    """A pool that was made beside it would not be used."""
    fill(store, 16)
    error = refusal(store, "more", pools={4: ("10.0.0.0/28",)})
    assert error.details.startswith("free addresses, or name another pool; 10.0.0.0/28: ")


def test_exhausted_pools_are_all_named(empty):
    """In Go's spelling of a list."""
    put_pool(empty, "a", "10.1.0.0/31", blockSize=31)
    put_pool(empty, "b", "10.2.0.0/31", blockSize=31)
    put_node(empty, "node1")
    fill(empty, 4)
    error = refusal(empty, "more")
    assert "No IPs available in pools: [10.1.0.0/31 10.2.0.0/31]" in error.msg
    assert 2 == error.details.count("0 free")


def test_a_wish_for_a_part_is_content_with_a_part(store):
    """The engine may return a part, with messages; the verb decides."""
    outcome = ask(store, counts={4: 20}, whole=False)
    assert 16 == len(outcome.assigned)
    assert ("No IPs available in pools: [10.0.0.0/28]",) == outcome.messages[4]


def test_reserved_addresses_are_never_given(store):
    """Also where a whole block is reserved, in parts."""
    put_reservation(store, "10.0.0.0/31", "10.0.0.2/31", "10.0.0.5", "10.0.0.12/30")
    given = fill(store, 7)
    assert {f"10.0.0.{n}" for n in (4, 6, 7, 8, 9, 10, 11)} == set(given)
    assert isinstance(refusal(store, "more"), PoolExhausted)
    assert 2 == len(survey(store).blocks)


def test_a_repeated_add_answers_with_the_same_address(store):
    """And writes nothing."""
    first = add(store)
    before = entries(store)
    assert first == add(store, now=NOW + SECOND)
    assert before == entries(store)


def test_another_interface_is_another_attachment(store):
    """The same container and network, and so the same handle."""
    eth0, eth1 = add(store), add(store, ifname="eth1")
    assert eth0 != eth1
    assert (eth0, eth1) == (add(store), add(store, ifname="eth1"))
    assert [] == findings(store)


def test_an_address_that_calico_gave_is_found_again(store):
    """Its records name no interface."""
    assert add_as_calico(store) == add(store)


def test_a_repeated_add_finds_a_borrowed_address(store):
    """The handle leads to the block."""
    fill(store, 13, "node1")
    assert add(store, "guest", "node2") == add(store, "guest", "node2")


def test_a_repeated_add_completes_what_is_missing(store):
    """One of two was there already."""
    (first,) = add(store)
    both = add(store, counts={4: 2})
    assert first == both[0]
    assert 2 == len(set(both))
    assert [] == findings(store)


def test_both_families_are_given_together(store):
    """One handle counts them."""
    put_pool(store, "six", "fd00::/120")
    v4, v6 = add(store, counts={4: 1, 6: 1})
    assert ("10.0.0.", "fd00::") == (v4[:7], v6[:6])
    assert 2 == len(survey(store).handles[0].blocks)
    assert [] == findings(store)


@pytest.mark.parametrize("missing", [4, 6])
def test_all_or_none_of_both_families(empty, missing):
    """One family missing leaves nothing of the other, not even a claim."""
    put_pool(empty, "other", {4: "fd00::/120", 6: "10.0.0.0/24"}[missing])
    put_node(empty, "node1")
    error = refusal(empty, counts={4: 1, 6: 1})
    assert isinstance(error, FamilyMissing)
    assert f"there is no IPv{missing} pool" in error.details


def test_two_missing_families_are_told_by_their_cause(empty):
    """It is not the other family that is in the way then."""
    put_node(empty, "node1")
    assert isinstance(refusal(empty, counts={4: 1, 6: 1}), NoQualifiedPool)


def test_an_exhausted_second_family_leaves_nothing_of_the_first(store):
    """Found out only after the first one's block was chosen."""
    put_pool(store, "six", "fd00::/127", blockSize=127)
    add(store, "full", counts={6: 2})
    error = refusal(store, counts={4: 1, 6: 1})
    assert "Assigned 0 out of 1 requested IPv6 addresses" in error.msg


def test_a_node_record_is_needed(store):
    """With Calico's text; nodes of a cluster are made by others."""
    error = refusal(store, host="stranger")
    assert isinstance(error, NoQualifiedPool)
    assert "resource does not exist: Node(stranger) with error: <nil>" == error.msg


def test_an_embedded_store_makes_its_own_node(store):
    """Without labels, in the first commit, with what Calico's clients need to update it."""
    assert 1 == len(add(store, host="alone", makes_node=True))
    entry = find(store, f"{keys.NODES}alone")
    assert {} == codec.decode_labels(entry)
    metadata = json.loads(entry.value)["metadata"]
    assert ("alone", "2027-01-15T08:00:00Z") == (metadata["name"], metadata["creationTimestamp"])
    before = find(store, f"{keys.NODES}alone").revision
    add(store, "c2", "alone", makes_node=True)
    assert before == find(store, f"{keys.NODES}alone").revision


def test_an_operators_node_labels_stay(store):
    """A Node that is there is used as it is."""
    put_node(store, "node1", rack="1")
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")
    assert 1 == len(add(store, makes_node=True))
    assert isinstance(refusal(store, "c2", "node2", makes_node=True), NoQualifiedPool)


def test_namespace_labels_select_pools(store):
    """The workload's namespace decides."""
    put_pool(store, "a", "10.5.0.0/28", blockSize=30, namespaceSelector="team == 'x'")
    assert ["10.5."] == [a[:5] for a in add(store, namespace_labels={"team": "x"})]
    assert ["10.0."] == [a[:5] for a in add(store, "c2", namespace_labels={"team": "y"})]


def test_a_locked_datastore_gives_nothing(store):
    """With Calico's text; DEL works all the same."""
    given = add(store)
    lock(store)
    error = refusal(store, "c2")
    assert isinstance(error, DatastoreUnavailable)
    assert "Calico is currently not ready to process requests" == error.msg
    assert given == delete(store)


def test_as_calico_ipam_the_lock_is_the_main_plugins_affair(store):
    """calico-ipam itself does not look at it (facts 1.10)."""
    lock(store)
    assert 1 == len(add(store, heeds_ready=False))


def test_a_block_that_a_crash_left_pending_is_confirmed_by_its_next_use(store):
    """*Pending is absent*: no assignment without confirming first."""
    (address,) = add(store)
    key = keys.affinity_key("node1", the_block(store).cidr)
    put(store, key, {"state": "pending", "deleted": False})
    assert [] == own_blocks(store, "node1")
    add(store, "c2")
    assert [the_block(store).cidr] == own_blocks(store, "node1")
    assert parse_cidr(f"{address}/30") == the_block(store).cidr
    assert [] == findings(store)


@pytest.mark.parametrize("state", ["pending", "pendingDeletion", "confirmed"])
def test_an_affinity_without_its_block_is_claimed_anew(store, state):
    """What a crash between the two writes left."""
    key = keys.affinity_key("node1", parse_cidr("10.0.0.4/30"))
    put(store, key, {"state": state, "deleted": False})
    assert ["10.0.0.4"] == add(store)
    assert [] == findings(store)


def test_a_stale_affinity_goes(store):
    """Its block is another's by now."""
    add(store, "c1", "node2")
    cidr = the_block(store).cidr
    put(store, keys.affinity_key("node1", cidr), {"state": "pending", "deleted": False})
    (address,) = add(store, "c2", "node1")
    assert not cidr.contains(parse_address(address))
    assert [] == findings(store)


def test_a_stale_affinity_does_not_count_against_the_limit(store):
    """Else a node at its limit could never get rid of it."""
    put_config(store, maxBlocksPerHost=1, strict_affinity=True)
    add(store, "c1", "node2")
    cidr = the_block(store).cidr
    put(store, keys.affinity_key("node1", cidr), {"state": "pending", "deleted": False})
    assert 1 == len(add(store, "c2", "node1"))
    assert [] == findings(store)


def test_a_block_of_another_size_is_stepped_around(store):
    """A pool made anew with another block size must not give an address twice."""
    fill(store, 2)
    held = set(holders(store))
    remove(store, f"{keys.POOLS}pool1")
    put_pool(store, "new", "10.0.0.0/28", blockSize=29)
    given = fill(store, 4, "node2")
    assert not held & set(given)
    assert [] == findings(store)


def test_cooling_addresses_come_back_after_their_time(store):
    """Not before."""
    put_pool(store, "pool1", "10.0.0.0/31", blockSize=31)
    put_config(store, ipCooldownSeconds=60)
    first, second = add(store, "c1"), add(store, "c2")
    assert first == delete(store, "c1")
    assert isinstance(refusal(store, "c3", now=NOW + 59 * SECOND), PoolExhausted)
    assert first == add(store, "c3", now=NOW + 61 * SECOND)
    assert second == add(store, "c2")
    assert [] == findings(store)


def test_answers_name_block_and_pool(store):
    """The verb needs them for the mask and the routes."""
    (assigned,) = ask(store).assigned
    assert ("pool1", "10.0.0.0/28") == (assigned.pool.name, str(assigned.pool.cidr))
    assert assigned.block.contains(assigned.address)
    assert (True, False) == (assigned.is_affine, assigned.is_fixed)
