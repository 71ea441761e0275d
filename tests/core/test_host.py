"""One host's part of the records."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import CONFIRMED, PENDING, PENDING_DELETION, Affinity
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.host import gather
from cni_ipam.core.reservation import Reservations

NOW = 1_800_000_000_000_000_000
BLOCK, OTHER = "10.0.0.0/30", "10.0.0.4/30"


def affinity(cidr=BLOCK, state=CONFIRMED):
    return Affinity("host", "node1", parse_cidr(cidr), state)


def block(cidr=BLOCK, host="node1", *owners):
    """A block whose first addresses have these owners."""
    made = new_block(parse_cidr(cidr), host and f"host:{host}", NOW)
    for number, owner in enumerate(owners):
        made = made.assign_ordinal(number, owner)
    return made


def on(node):
    return Attribute(f"net.{node}", {"node": node} if node else {})


def texts(found):
    return [str(getattr(one, "address", one)) for one in found]


def cidrs(found):
    return [str(cidr) for cidr in found]


def test_an_own_block_is_one_of_which_both_records_say_so():
    """The affinity is confirmed, and the block names the host."""
    found = gather("node1", [affinity()], [block()], [])

    assert ([BLOCK], []) == (cidrs(found.own), cidrs(found.claimed))


@pytest.mark.parametrize("state", [PENDING, PENDING_DELETION])
def test_a_claim_that_is_not_confirmed_does_not_count(state):
    """Whatever the block says."""
    found = gather("node1", [affinity(state=state)], [block()], [])

    assert ([], [BLOCK]) == (cidrs(found.own), cidrs(found.claimed))


@pytest.mark.parametrize("owner", ["node2", None])
def test_a_claim_on_a_block_of_anothers_does_not_count(owner):
    """A taking over that was cut short may leave such a claim."""
    found = gather("node1", [affinity()], [block(BLOCK, owner)], [])

    assert ([], [BLOCK]) == (cidrs(found.own), cidrs(found.claimed))


def test_a_claim_without_a_block_does_not_count():
    """The block was never made, or is gone."""
    assert [BLOCK] == cidrs(gather("node1", [affinity()], [], []).claimed)


def test_a_legacy_claim_counts():
    """An empty state means confirmed."""
    assert [BLOCK] == cidrs(gather("node1", [affinity(state="")], [block()], []).own)


def test_allocations_are_the_hosts_in_whosesoever_block():
    """Those in other blocks are borrowed."""
    blocks = [block(BLOCK, "node1", on("node1")), block(OTHER, "node2", on("node2"), on("node1"))]

    found = gather("node1", [affinity()], blocks, [])

    assert ["10.0.0.0", "10.0.0.5"] == texts(found.allocations)
    assert ["10.0.0.5"] == texts(found.borrowed)


def test_others_addresses_in_own_blocks_are_lent():
    """With the block that hides them."""
    found = gather("node1", [affinity()], [block(BLOCK, "node1", on("node1"), on("node2"))], [])

    assert ["10.0.0.1"] == texts(found.lent)
    assert [BLOCK] == cidrs([one.block for one in found.lent])


def test_an_address_that_names_no_node_is_its_blocks_owners():
    """In another's block it is not this host's to speak of."""
    blocks = [block(BLOCK, "node1", on("")), block(OTHER, "node2", on(""))]

    found = gather("node1", [affinity()], blocks, [])

    assert (["10.0.0.0"], []) == (texts(found.allocations), texts(found.lent))


def test_a_cooling_address_is_nobodys():
    """Its pod has gone."""
    resting = block(BLOCK, "node1", on("node1")).release([0], NOW, 60)

    found = gather("node1", [affinity()], [resting], [])

    assert ([], []) == (texts(found.allocations), texts(found.lent))


def test_an_unclear_block_is_neither_own_nor_claimed():
    """Its affinity may say what it likes."""
    found = gather("node1", [affinity()], [block()], [parse_cidr(BLOCK)])

    assert ([], [], [BLOCK]) == (cidrs(found.own), cidrs(found.claimed), cidrs(found.unclear))


def test_every_block_that_plays_a_part_is_known():
    """Own, claimed and unclear ones, and those of borrowed addresses; no others."""
    blocks = [
        block(BLOCK),
        block(OTHER, "node2", on("node1")),
        block("10.0.0.8/30", "node2", on("node2")),
    ]
    affinities = [affinity(), affinity("10.0.0.16/30", PENDING)]

    found = gather("node1", affinities, blocks, [parse_cidr("10.0.0.20/30")])

    expected = {BLOCK, OTHER, "10.0.0.16/30", "10.0.0.20/30"}
    assert expected == set(cidrs(found.blocks))


def test_no_block_at_all_is_noticed():
    """Another host's block, or one that cannot be read, is one."""
    none = gather("node1", [affinity()], [], [])
    others = gather("node1", [], [block(OTHER, "node2")], [])
    broken = gather("node1", [], [], [parse_cidr(BLOCK)])

    assert [True, False, False] == [found.is_blank for found in (none, others, broken)]


def test_assignments_of_the_engine_are_understood():
    """As they are recorded by it."""
    made, _ = block().assign(2, on("node1"), Reservations())

    assert ["10.0.0.0", "10.0.0.1"] == texts(gather("node1", [], [made], []).allocations)
