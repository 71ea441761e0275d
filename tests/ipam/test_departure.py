"""Departure: what a dead node holds is given back, and nothing of others'."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.errors import CorruptRecord
from cni_ipam.ipam.affinity import claim_blocks
from cni_ipam.ipam.departure import release_node
from tests.ipam.crash import ME, Scene
from tests.ipam.interleaving import all_states, begin
from tests.ipam.test_crash_upkeep import dead_node
from tests.ipam.world import (
    NOW,
    Overtaken,
    add,
    blocks_of,
    entries,
    findings,
    furnish,
    holders,
    own_blocks,
    put,
    put_config,
    put_pool,
    release_block,
    spoil,
    survey,
    texts,
    unsound,
)

BYSTANDERS = {"10.0.0.9": "net.bystander", "10.0.0.6": "net.bystander2"}


@pytest.fixture
def store():
    """A pool of four blocks of four."""
    return furnish(MemoryDatastore())


def release(store, node="node1"):
    return release_node(store, node, NOW)


def test_all_addresses_of_the_node_are_released(store):
    """In its own block, in another's, in one without owner; of both families."""
    dead_node(store)

    departed = release(store)

    expected = {"10.0.0.5", "10.0.0.10", "10.0.0.13"}
    assert expected < set(texts(departed.addresses))
    assert 4 == len(departed.addresses)
    assert BYSTANDERS == holders(store)


def test_no_handle_of_the_node_is_left(store):
    """Those of others count what they have."""
    dead_node(store)

    release(store)

    assert {"net.bystander", "net.bystander2"} == {handle.id for handle in survey(store).handles}
    assert [] == findings(store)


def test_its_blocks_are_nobodys_or_gone(store):
    """One with an address of another node's lives on without owner, empty ones are gone."""
    dead_node(store)

    departed = release(store)

    assert [] == blocks_of(store, "node1")
    assert {"10.0.0.0/30", "10.0.0.4/30"} < set(map(str, departed.blocks))
    assert [] == entries(store, f"{keys.HOST_AFFINITIES}node1")
    remaining = {str(block.cidr): block.affinity for block in survey(store).blocks}
    assert {"10.0.0.4/30": None, "10.0.0.8/30": "host:node2"} == remaining


def test_another_node_can_claim_the_blocks(store):
    """All of them, in a pool that was used up."""
    claim_blocks(store, "node1", parse_cidr("10.0.0.0/28"), NOW)
    add(store, ME)
    assert [] == own_blocks(store, "node2")

    release(store)
    add(store, "c2", "node2", counts={4: 16})

    assert 4 == len(own_blocks(store, "node2"))


def test_addresses_that_name_no_node_stay(store):
    """Whose they are is not known; their block only loses its owner."""
    add(store, "old", owner={})

    departed = release(store)

    assert () == departed.addresses
    assert ["net.old"] == list(holders(store).values())
    assert [None] == [block.affinity for block in survey(store).blocks]


def test_the_cooldown_holds_for_them_too(store):
    """A released address rests, and keeps its block until it has."""
    put_config(store, ipCooldownSeconds=60)
    add(store, ME, fixed=["10.0.0.5"])

    release(store)

    (block,) = survey(store).blocks
    assert [1] == [ordinal for ordinal, _ in block.allocated()]
    assert {} == holders(store)


def test_a_node_that_holds_nothing_gives_nothing_back(store):
    """And nothing is written."""
    add(store, ME, "node2")
    before = entries(store)

    departed = release(store, "node9")

    assert ((), (), (), ()) == (
        departed.addresses, departed.blocks, departed.begun, departed.errors,
    )  # fmt: skip
    assert before == entries(store)


def test_a_claim_that_was_begun_is_told_and_stays(store):
    """Its maker may be about to write the block; another node may have the block all the same."""
    key = f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30"
    put(store, key, '{"state":"pending"}')

    departed = release(store)

    assert ["10.0.0.4/30"] == list(map(str, departed.begun))
    assert ["10.0.0.5"] == add(store, "c2", "node2", fixed=["10.0.0.5"])


def test_a_broken_block_is_told_and_the_others_are_released(store):
    """Nothing is guessed about it."""
    add(store, ME, fixed=["10.0.0.5"])
    add(store, "c2", fixed=["10.0.0.9"])
    key = spoil(store, "10.0.0.8/30")

    departed = release(store)

    assert ["10.0.0.5"] == texts(departed.addresses)
    assert {key} == {error.key for error in departed.errors if isinstance(error, CorruptRecord)}


def test_after_a_crash_the_repeated_call_leaves_no_handle_over():
    """Nobody will send a DEL for a dead node's pods, so it is the repetition that must do it."""
    scene = Scene(dead_node, release)
    for store, _ in scene.crashes():
        release(store)
        assert BYSTANDERS == holders(store)
        assert [] == findings(store)
        assert [] == entries(store, f"{keys.HOST_AFFINITIES}node1")


def test_a_handle_that_counts_too_much_is_lowered(store):
    """Where the block is there, and where it is gone."""
    add(store, "c2", "node2", fixed=["10.0.0.9"])
    put(store, f"{keys.HANDLES}net.c2", {"handleID": "net.c2", "block": {"10.0.0.8/30": 3}})
    put(store, f"{keys.HANDLES}net.c3", {"handleID": "net.c3", "block": {"10.0.0.4/30": 1}})

    release(store)

    counts = {handle.id: list(handle.blocks.values()) for handle in survey(store).handles}
    assert {"net.c2": [1]} == counts


def test_the_handle_of_a_block_that_is_being_claimed_is_left_alone(store):
    """An ADD has written its claim and its handle, and will write the block next."""
    put(store, f"{keys.HOST_AFFINITIES}node2/ipv4/block/10.0.0.4-30", '{"state":"pending"}')
    put(store, f"{keys.HANDLES}net.c3", {"handleID": "net.c3", "block": {"10.0.0.4/30": 1}})

    release(store)

    assert ["net.c3"] == [handle.id for handle in survey(store).handles]


def nobody_else(store):
    """The node has one address, and there are free blocks."""
    add(store, "dead")


def borrower(store):
    """The node has borrowed an address of node2's block."""
    add(store, "bystander", "node2", fixed=["10.0.0.5"])
    add(store, "dead", fixed=["10.0.0.6"])


def lender(store):
    """The node has the only block, and node2 an address of it."""
    put_pool(store, "pool1", "10.0.0.4/30", blockSize=30)
    add(store, "dead")
    add(store, "bystander", "node2", fixed=["10.0.0.6"])


@pytest.mark.proof
@pytest.mark.parametrize("prepare", [nobody_else, borrower, lender])
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "write by write"])
def test_an_add_elsewhere_meanwhile_is_safe(prepare, atomic):
    """In every order of their calls: sound at each, and ADD has in the end what it answered."""
    store = furnish(MemoryDatastore(atomic=atomic))
    prepare(store)
    ends = 0
    operations = [lambda store: add(store, "new", "node2"), lambda store: bool(release(store))]
    for state in all_states(begin(store, operations)):
        assert [] == unsound(state.store), state.schedule
        if not state.waiting:
            ends += 1
            assert state.results[0] == addresses_of(state.store, "net.new"), state.schedule
            assert [] == addresses_of(state.store, "net.dead"), state.schedule
    assert ends


def addresses_of(store, handle):
    return [address for address, holder in holders(store).items() if holder == handle]


def test_an_address_that_comes_meanwhile_is_released_too(store):
    """A swap that is lost is made anew."""
    add(store, ME, fixed=["10.0.0.5"])
    late = Overtaken(store, lambda: add(store, "late", fixed=["10.0.0.6"]))

    release(late)

    assert {} == holders(store)
    assert [] == unsound(store)
    assert not release_block(store, "10.0.0.4/30")
