"""Giving back: *DEL never fails for what is gone*, and takes only what is meant."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.ipam.release import release
from tests.ipam.world import (
    NOW,
    add,
    add_as_calico,
    blocks_of,
    delete,
    entries,
    find,
    findings,
    holders,
    make_wish,
    own_blocks,
    put,
    put_config,
    put_node,
    put_pool,
    release_block,
    remove,
    survey,
    the_block,
)


def test_a_release_frees_the_address_and_keeps_the_block(store):
    """The handle goes, the host keeps its block."""
    given = add(store)
    assert given == delete(store)
    assert {} == holders(store)
    assert [] == entries(store, keys.HANDLES)
    assert [the_block(store).cidr] == own_blocks(store, "node1")
    assert [] == findings(store)


def test_a_second_release_is_success(store):
    """And changes nothing."""
    add(store)
    delete(store)
    before = entries(store)
    assert [] == delete(store)
    assert before == entries(store)


def test_an_unknown_handle_is_success(empty):
    """Also in a store with nothing in it."""
    assert [] == delete(empty)


def test_a_sequence_number_on_every_release(store):
    """It grows by one, so that a release by number cannot hit a later allocation."""
    add(store)
    before = the_block(store).sequence_number
    delete(store)
    assert before + 1 == the_block(store).sequence_number


def test_both_families_are_released(store):
    """All that the handle counts."""
    put_pool(store, "six", "fd00::/120")
    given = add(store, counts={4: 1, 6: 1})
    assert set(given) == set(delete(store))
    assert [] == findings(store)


@pytest.mark.parametrize("what", ["handle", "block", "affinity", "pool", "node", "config"])
def test_del_never_fails_for_what_is_gone(store, what):
    """Each record of an attachment's world, and then the DEL a second time."""
    put_config(store)
    given = add(store)
    cidr = the_block(store).cidr
    gone = {
        "handle": keys.handle_key("net.c1"),
        "block": keys.block_key(cidr),
        "affinity": keys.affinity_key("node1", cidr),
        "pool": f"{keys.POOLS}pool1",
        "node": f"{keys.NODES}node1",
        "config": keys.CONFIG,
    }
    remove(store, gone[what])
    assert ([] if what in ("handle", "block") else given) == delete(store)
    assert [] == delete(store)
    assert [] == entries(store, keys.HANDLES)


def test_another_interface_keeps_its_address(store):
    """Of the same container under the same handle."""
    eth0, eth1 = add(store), add(store, ifname="eth1")
    assert eth0 == delete(store)
    assert set(eth1) == set(holders(store))
    assert [] == findings(store)
    assert eth1 == delete(store, ifname="eth1")
    assert [] == entries(store, keys.HANDLES)


def test_another_nodes_allocation_is_kept(store):
    """The same handle could be had twice where networks span nodes."""
    add(store, "c1", "node2")
    assert [] == delete(store, "c1", "node1")
    assert 1 == len(holders(store))
    assert [] == findings(store)


def test_calicos_allocation_is_taken(store):
    """It names no interface."""
    given = add_as_calico(store)
    assert given == delete(store)
    assert [] == entries(store, keys.HANDLES)


def test_several_handles_are_released_at_once(store):
    """A DEL also looks at the handle of Calico's old plugin; each has its own test."""
    legacy = add(store, "pod", network="ns", owner={"node": "node1"})
    given = add(store)
    wish = make_wish()
    owners = {"ns.pod": lambda owner: owner.get("network") is None, wish.handle: wish.is_mine}
    released = release(store, "node1", owners, NOW)
    assert {*legacy, *given} == {str(address) for address in released.addresses}
    assert [] == findings(store)


def test_a_handle_that_counts_too_much_is_mended(store):
    """What a crash left between the handle and the block."""
    add(store, "c2")
    cidr = the_block(store).cidr
    counts = {str(cidr): 2, "10.0.0.0/29": 1}
    put(store, keys.handle_key("net.c1"), {"block": counts, "deleted": False})
    assert [] == delete(store)
    assert find(store, keys.handle_key("net.c1")) is None
    assert [] == findings(store)


def test_a_count_is_mended_along_with_a_release(store):
    """Counts are those of what is really allocated."""
    given, kept = add(store), add(store, ifname="eth1")
    cidr = str(the_block(store).cidr)
    put(store, keys.handle_key("net.c1"), {"block": {cidr: 7}, "deleted": False})
    assert given == delete(store)
    assert set(kept) == set(holders(store))
    assert [] == findings(store)


def test_mending_a_count_spoils_an_assignment_under_way(store):
    """Else an ADD between its handle's write and its block's would end without a handle."""
    add(store, "c2")
    before = the_block(store).sequence_number
    cidr = str(the_block(store).cidr)
    put(store, keys.handle_key("net.c1"), {"block": {cidr: 1}, "deleted": False})
    delete(store)
    assert before + 1 == the_block(store).sequence_number


def test_an_empty_handle_goes(store):
    """It counts nothing."""
    put(store, keys.handle_key("net.c1"), {"block": {}, "deleted": False})
    assert [] == delete(store)
    assert [] == entries(store, keys.HANDLES)


def test_the_last_address_of_a_block_without_owner_deletes_it(store):
    """Nobody else would."""
    add(store)
    add(store, "c2")
    release_block(store, str(the_block(store).cidr))
    delete(store)
    assert 1 == len(survey(store).blocks)
    delete(store, "c2")
    assert [] == survey(store).blocks
    assert [] == findings(store)


def test_a_cooling_address_keeps_a_block_without_owner(store):
    """Cooling counts as in use."""
    put_config(store, ipCooldownSeconds=60)
    add(store)
    add(store, "c2")
    release_block(store, str(the_block(store).cidr))
    delete(store)
    delete(store, "c2", now=NOW + 30 * SECOND)
    assert 1 == len(survey(store).blocks)


def test_a_block_whose_pool_no_longer_selects_the_node_is_given_up(store):
    """With its affinity, when its last address goes (facts 2.14)."""
    add(store)
    add(store, "c2")
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")
    delete(store)
    assert 1 == len(blocks_of(store, "node1"))
    wish = make_wish("c2")
    cidr = the_block(store).cidr
    released = release(store, "node1", {wish.handle: wish.is_mine}, NOW)
    assert (cidr,) == released.blocks
    assert [] == survey(store).blocks == survey(store).affinities
    assert [] == findings(store)


def test_a_block_without_its_affinity_is_given_up_too(store):
    """Nothing else is left of it."""
    add(store)
    remove(store, keys.affinity_key("node1", the_block(store).cidr))
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")
    delete(store)
    assert [] == survey(store).blocks


@pytest.mark.parametrize("change", ["labels", "disabled", "no node", "borrowed"])
def test_a_block_is_kept_where_its_pool_still_selects_the_node_or_nobody_can_say(store, change):
    """Selected again by its labels; of a disabled pool; of an unknown node; another's."""
    host = "node2" if change == "borrowed" else "node1"
    add(store, "c1", host, fixed=["10.0.0.5"])
    add(store, "guest", "node1", fixed=["10.0.0.6"])
    spec = {"blockSize": 30, "nodeSelector": "rack == '1'"}
    put_pool(store, "pool1", "10.0.0.0/28", **spec, disabled=change == "disabled")
    if change == "labels":
        put_node(store, "node1", rack="1")
    if change == "no node":
        remove(store, f"{keys.NODES}node1")
    delete(store, "guest", "node1")
    if change != "borrowed":
        delete(store, "c1", host)
    assert ["10.0.0.4/30"] == blocks_of(store, host)


def test_a_blocks_end_is_told_only_to_its_owner(store):
    """The caller takes the blackhole route away."""
    add(store)
    wish = make_wish()
    assert () == release(store, "node1", {wish.handle: wish.is_mine}, NOW).blocks


def test_a_released_address_cools_down(store):
    """As the config says."""
    put_config(store, ipCooldownSeconds=60)
    add(store)
    delete(store)
    block = the_block(store)
    assert ["2027-01-15T08:00:00Z"] == [attribute.released_at for attribute in block.attributes]
    assert [] == findings(store)


def test_an_empty_block_is_deleted_with_its_affinity(store):
    """release_affinity of a host's block."""
    add(store)
    delete(store)
    assert release_block(store, str(the_block(store).cidr))
    assert [] == survey(store).blocks == survey(store).affinities


def test_a_block_in_use_lives_on_without_owner(store):
    """Its addresses stay their pods', without a new one."""
    given = add(store)
    cidr = the_block(store).cidr
    assert release_block(store, str(cidr))
    assert (None, None) == (the_block(store).affinity, the_block(store).claim_time)
    assert [] == survey(store).affinities
    assert set(given) == set(holders(store))
    assert [] == findings(store)


def test_an_affinity_whose_block_is_anothers_goes_alone(store):
    """The block is not touched."""
    add(store, "c1", "node2")
    cidr = the_block(store).cidr
    put(store, keys.affinity_key("node1", cidr), {"state": "confirmed", "deleted": False})
    before = the_block(store)
    assert release_block(store, str(cidr))
    assert before == the_block(store)
    assert ["node2"] == [affinity.host for affinity in survey(store).affinities]


@pytest.mark.parametrize("state", ["confirmed", "pendingDeletion"])
def test_an_affinity_without_block_goes(store, state):
    """What a crash left."""
    put(store, keys.affinity_key("node1", parse_cidr("10.0.0.4/30")), {"state": state})
    assert release_block(store, "10.0.0.4/30")
    assert [] == findings(store)


def test_a_claim_under_way_is_left_alone(store):
    """Its maker may be about to write the block, which would then name a host without affinity."""
    put(store, keys.affinity_key("node1", parse_cidr("10.0.0.4/30")), {"state": "pending"})
    before = entries(store)
    assert not release_block(store, "10.0.0.4/30")
    assert before == entries(store)


def test_releasing_what_is_not_there_is_nothing(store):
    """And says so."""
    before = entries(store)
    assert not release_block(store, "10.0.0.4/30")
    assert before == entries(store)


def test_a_rested_block_counts_as_empty(store):
    """Cooldown over: collected before it is judged."""
    put_config(store, ipCooldownSeconds=60)
    add(store, now=NOW - 200 * SECOND)
    delete(store, now=NOW - 100 * SECOND)
    assert release_block(store, str(the_block(store).cidr))
    assert [] == survey(store).blocks
