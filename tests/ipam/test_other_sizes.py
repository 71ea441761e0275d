"""Blocks of other sizes than their pool's: left by a pool that was made anew, or by a peer.

They serve as they are; no block is ever claimed on top of one (facts: Calico 2.6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import Attribute
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import CorruptRecord, NotInPool, PoolExhausted
from cni_ipam.ipam.affinity import claim_blocks
from cni_ipam.ipam.assign import ensure_block
from cni_ipam.ipam.query import find_owner
from tests.ipam.peers import free, put_block
from tests.ipam.world import (
    NOW,
    add,
    add_as_calico,
    blocks_of,
    collect_all,
    delete,
    find,
    furnish,
    holders,
    make_wish,
    put,
    put_config,
    refusal,
    survey,
    unsound,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.datastore.port import Datastore

LATER = NOW + 120 * SECOND


@pytest.fixture
def resized(empty):
    """A pool of /30 blocks where a pool of /29 ones was: node1 has one with an address in use."""
    furnish(empty, "10.0.0.0/28", 30)
    put_block(empty, "10.0.0.0/29", "host:node1", Attribute("net.old", {"node": "node1"}))
    return empty


def test_an_own_block_of_another_size_serves(resized):
    """Before a new one is claimed."""
    assert ["10.0.0.1"] == add(resized)


def test_a_foreign_block_of_another_size_lends(resized):
    """When all else is taken; nothing is given twice."""
    given = [add(resized, f"c{n}", "node2")[0] for n in range(15)]
    assert 15 == len({*given})
    assert "10.0.0.0" not in given
    assert isinstance(refusal(resized, "c15", "node2"), PoolExhausted)
    assert [] == unsound(resized)


def test_an_idle_block_of_another_size_is_taken_back(resized):
    """As it is, not re-cut."""
    delete(resized, "old")
    put_config(resized, strict_affinity=True)
    for number in range(8):
        add(resized, f"c{number}", "node2")
    add(resized, "c8", "node3", now=LATER)
    assert ["10.0.0.0/29"] == blocks_of(resized, "node3")
    assert [] == unsound(resized)


def test_a_fixed_address_is_taken_from_the_block_that_has_it(resized):
    """Never from one of the pool's own size on top of it."""
    assert ["10.0.0.5"] == add(resized, fixed=["10.0.0.5"])
    assert ["10.0.0.6"] == add(resized, "c2", "node2", fixed=["10.0.0.6"])
    assert ["10.0.0.0/29"] == [str(block.cidr) for block in survey(resized).blocks]
    assert [] == unsound(resized)


def test_several_fixed_addresses_of_one_such_block_are_taken(resized):
    """In one call."""
    given = add(resized, "c1", "node2", fixed=["10.0.0.5", "10.0.0.6"])
    assert ["10.0.0.5", "10.0.0.6"] == given
    assert 3 == len(holders(resized))
    assert [] == unsound(resized)


def test_a_fixed_address_that_is_held_in_such_a_block_is_in_use(resized):
    """With its holder's name."""
    error = refusal(resized, "c2", "node2", fixed=["10.0.0.0"])
    assert "Address already assigned in block" in error.msg
    assert "net.old" in error.details


def test_a_fixed_address_beside_smaller_blocks_is_refused(empty):
    """Its own block would lie on top of them."""
    furnish(empty, "10.0.0.0/28", 29)
    put_block(empty, "10.0.0.0/30", "host:node1", Attribute("net.old", {"node": "node1"}))
    error = refusal(empty, "c1", "node2", fixed=["10.0.0.5"])
    assert isinstance(error, NotInPool)
    assert "10.0.0.5" in error.msg
    assert "10.0.0.0/30" in error.details
    assert ["10.0.0.1"] == add(empty, "c1", "node2", fixed=["10.0.0.1"])
    assert [] == unsound(empty)


def test_a_broken_block_of_another_size_is_the_error_of_its_addresses(resized):
    """Nobody could say whether the address is free."""
    key = keys.block_key(parse_cidr("10.0.0.0/29"))
    put(resized, key, "{")
    error = refusal(resized, "c1", "node2", fixed=["10.0.0.5"])
    assert isinstance(error, CorruptRecord)
    assert key == error.key


STEPS: dict[str, Callable[[Datastore], object]] = {
    "an ADD": add,
    "an ADD of many": lambda store: add(store, counts={4: 8}),
    "an ADD of a fixed address": lambda store: add(store, fixed=["10.0.0.1"]),
    "ensuring a block": lambda store: ensure_block(store, make_wish()),
    "claiming ahead": lambda store: claim_blocks(store, "node1", parse_cidr("10.0.0.0/29"), NOW),
}


@pytest.mark.parametrize("state", ["pending", "confirmed", "pendingDeletion"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("size", [29, 31])
def test_a_claim_that_was_cut_short_before_the_pool_changed_is_not_finished(
    empty, step, state, size
):
    """Its block would lie on top of one of the new size, or under it."""
    furnish(empty, "10.0.0.0/28", 30)
    add(empty, "c9", "node2", fixed=["10.0.0.0"])
    stale = parse_cidr(f"10.0.0.0/{size}")
    put(empty, keys.affinity_key("node1", stale), {"state": state, "deleted": False})
    STEPS[step](empty)
    assert None is find(empty, keys.block_key(stale))
    assert [] == [text for text in unsound(empty) if "overlaps" in text]


@pytest.mark.parametrize("step", STEPS)
def test_what_one_call_claims_does_not_overlap(empty, step):
    """Affinities of three sizes for the same addresses, and not a block as yet."""
    furnish(empty, "10.0.0.0/28", 30)
    for cidr in ("10.0.0.0/29", "10.0.0.0/30", "10.0.0.2/31", "10.0.0.8/29"):
        key = keys.affinity_key("node1", parse_cidr(cidr))
        put(empty, key, {"state": "pending", "deleted": False})
    STEPS[step](empty)
    add(empty, "c2", counts={4: 6})
    assert [] == [text for text in unsound(empty) if "overlaps" in text]


def test_blocks_are_not_claimed_ahead_on_top_of_others(resized):
    """Those of the pool's size that overlap with another are another's."""
    claimed, failed = claim_blocks(resized, "node2", parse_cidr("10.0.0.0/28"), NOW)
    assert ["10.0.0.8/30", "10.0.0.12/30"] == [str(cidr) for cidr in claimed]
    assert ["10.0.0.0/30", "10.0.0.4/30"] == [str(cidr) for cidr in failed]
    assert [] == unsound(resized)


def test_an_address_of_such_a_block_is_released_by_address(resized):
    """Calico looks for a block of the pool's size, and says that it is not assigned."""
    (second,) = add(resized, "c1", fixed=["10.0.0.6"])
    assert (["10.0.0.0", second], ["10.0.0.3"]) == free(resized, "10.0.0.0", second, "10.0.0.3")
    assert {} == holders(resized)


def test_addresses_of_smaller_blocks_are_released_by_address(empty):
    """Several blocks where the pool has one; what lies in none is not allocated."""
    furnish(empty, "10.0.0.0/28", 29)
    put_block(empty, "10.0.0.0/31", "host:node1", Attribute("net.a", {"node": "node1"}))
    put_block(empty, "10.0.0.4/30", "host:node2", Attribute("net.b", {"node": "node2"}))
    released, unallocated = free(empty, "10.0.0.0", "10.0.0.2", "10.0.0.4")
    assert (["10.0.0.0", "10.0.0.4"], ["10.0.0.2"]) == (released, unallocated)


def test_such_blocks_are_released_by_handle_and_by_collection(resized):
    """Which know the block by its own name."""
    add_as_calico(resized, "c1")
    assert ["10.0.0.1"] == delete(resized, "c1")
    assert (["10.0.0.0"], []) == collect_all(resized)


def test_the_owner_of_an_address_of_such_a_block(resized):
    """`ipam show --ip` asks so."""
    assert "net.old" == find_owner(resized, parse_address("10.0.0.0"), NOW).handle


def test_a_block_that_reaches_beyond_its_pool_lends_nothing(empty):
    """Half of its addresses are no pool's."""
    furnish(empty, "10.0.0.0/30", 30)
    put_block(empty, "10.0.0.0/29", None, *[Attribute(f"net.f{n}") for n in range(2)])
    refusal(empty, "c1", "node2")
    assert 2 == len(holders(empty))
