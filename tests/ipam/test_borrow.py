"""Blocks that are there already, when none is unclaimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import StrictAffinity
from cni_ipam.ipam.affinity import claim_blocks
from cni_ipam.ipam.departure import release_node
from cni_ipam.ipam.release import release
from tests.ipam.world import (
    NOW,
    Overtaken,
    add,
    blocks_of,
    find,
    findings,
    put,
    put_config,
    put_pool,
    remove,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_ipam.datastore.port import Entry, Range


class Late(Overtaken):
    """The port over a store, where somebody else does a deed right after each of the first
    reads."""

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        found = super().read(ranges)
        if self._deeds:
            self._deeds.pop(0)()
        return found


@pytest.mark.parametrize("strict", [False, True])
def test_blocks_that_the_host_claimed_meanwhile_serve(store, strict):
    """Other processes of this host were faster to claim the last blocks, which have room."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)
    put_config(store, strict_affinity=strict)
    late = Late(store, lambda: claim_blocks(store, "node1", parse_cidr("10.0.0.0/29"), NOW))
    assert 1 == len(add(late))
    assert 2 == len(blocks_of(store, "node1"))
    assert [] == findings(store)


def test_the_last_free_address_is_found_in_a_block_that_has_just_got_it(store):
    """Another process of this host gave it back, and another host took the last foreign one, after
    this attempt had found its own blocks full: there was a free address at every moment."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)
    claim_blocks(store, "node1", parse_cidr("10.0.0.0/30"), NOW)
    claim_blocks(store, "node2", parse_cidr("10.0.0.4/30"), NOW)
    for number in range(4):
        add(store, f"a{number}", "node1")
    for number in range(3):
        add(store, f"b{number}", "node2")

    def change():
        release(store, "node1", {"net.a0": lambda _: True}, NOW)
        add(store, "b3", "node2")

    late = Late(store, lambda: None, change)
    assert ["10.0.0.0"] == add(late, "a4", "node1")
    assert [] == findings(store)


def test_a_block_whose_owner_left_while_it_cooled_down_is_claimed(store):
    """Its addresses have cooled down; nobody would ever own it otherwise."""
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    put_config(store, strict_affinity=True, ipCooldownSeconds=6)
    assert ["10.0.0.0"] == add(store, "c1", "node1")
    release_node(store, "node1", NOW)
    with pytest.raises(StrictAffinity):
        add(store, "c2", "node2", now=NOW + 5 * SECOND)

    assert ["10.0.0.0"] == add(store, "c2", "node2", now=NOW + 7 * SECOND)
    assert ["10.0.0.0/30"] == blocks_of(store, "node2")
    assert [] == findings(store)


@pytest.mark.parametrize("strict", [False, True])
def test_an_own_block_gets_its_lost_affinity_back(store, strict):
    """A hand took it away. An idle block of another host is left alone meanwhile."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)
    put_config(store, strict_affinity=strict)
    own, other = (parse_cidr(text) for text in ("10.0.0.4/30", "10.0.0.0/30"))
    claim_blocks(store, "node1", own, NOW)
    claim_blocks(store, "node2", other, NOW)
    remove(store, keys.affinity_key("node1", own))

    assert ["10.0.0.4"] == add(store, now=NOW + 70 * SECOND)
    assert ["10.0.0.4/30"] == blocks_of(store, "node1")
    assert ["10.0.0.0/30"] == blocks_of(store, "node2")
    assert [] == findings(store)


def test_an_affinity_that_cannot_be_read_is_left_as_it_is(store):
    """Its block serves all the same."""
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    own = parse_cidr("10.0.0.0/30")
    claim_blocks(store, "node1", own, NOW)
    key = keys.affinity_key("node1", own)
    put(store, key, "no affinity")

    assert ["10.0.0.0"] == add(store)
    assert "no affinity" == find(store, key).value
