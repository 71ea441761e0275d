"""How full a pool or a block is."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.moment import SECOND
from cni_ipam.core.pool import Pool
from cni_ipam.core.reservation import Reservations
from cni_ipam.core.utilization import measure, measure_pools

POOL = parse_cidr("10.0.0.0/28")
NOW = 1_800_000_000 * SECOND


def numbers(found):
    """Capacity, in use, reserved, free."""
    return found.capacity, found.in_use, found.reserved, found.free


def test_a_reserved_address_in_use_counts_in_both_and_is_withheld_once():
    """So `free` is what can still be given."""
    block = new_block(parse_cidr("10.0.0.0/30"), "host:node1", NOW)
    block, _ = block.assign(3, Attribute("net.c1"), Reservations())
    block = block.release([1], NOW, 60)
    reserved = Reservations().plus([parse_cidr("10.0.0.2/31"), parse_cidr("10.0.0.8/30")])
    found = measure(POOL, [block], reserved)
    assert (16, 3, 6, 1, 8) == (
        found.capacity,
        found.in_use,
        found.reserved,
        found.cooling,
        found.free,
    )


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [("host:node1", 1), ("host:node2", 2), ("virtual:node1", 1), (None, 3)],
)
def test_what_a_node_has_in_anothers_block_is_borrowed(affinity, expected):
    """As `ipam show --show-borrowed`; an address that names no node cannot be told."""
    block = new_block(parse_cidr("10.0.0.0/29"), affinity, NOW)
    for count, node in ((2, "node1"), (1, "node2")):
        block, _ = block.assign(count, Attribute("net.c1", {"node": node}), Reservations())
    block, _ = block.assign(1, Attribute("net.c2"), Reservations())
    assert expected == measure(POOL, [block], Reservations()).borrowed


def test_overlapping_reservations_count_once():
    """In the pool and in its block (Calico's own example)."""
    pool = Pool("p", parse_cidr("10.0.0.0/24"), 26)
    block = new_block(parse_cidr("10.0.0.0/26"), "host:node1", NOW)
    block = block.assign_ordinal(5, Attribute("net.c1"))
    cidrs = [parse_cidr(text) for text in ("10.0.0.0/25", "10.0.0.5/32", "10.0.0.64/26")]
    (found,) = measure_pools([pool], [block], Reservations().plus(cidrs))
    assert (256, 1, 128, 128) == numbers(found.total)
    assert [(64, 1, 64, 0)] == [numbers(part) for part in found.blocks]


def test_a_pool_without_blocks_is_free_but_for_its_reservations():
    """Whether they lie inside it or cover it."""
    pool = Pool("p", parse_cidr("fd00::/120"), 122)
    inside = Reservations().plus([parse_cidr("fd00::/126")])
    around = Reservations().plus([parse_cidr("fd00::/64")])
    measured = [measure_pools([pool], [], reserved)[0] for reserved in (inside, around)]
    assert [(256, 0, 4, 252), (256, 0, 256, 0)] == [numbers(found.total) for found in measured]


def test_each_block_stands_with_its_pool():
    """And one outside all of them with none."""
    pools = [Pool(name, parse_cidr(f"10.0.{name}.0/24"), 26) for name in "12"]
    cidrs = ["10.0.2.64/26", "10.0.1.0/26", "10.0.2.0/26", "10.0.3.0/26"]
    blocks = [new_block(parse_cidr(cidr), "host:node1", NOW) for cidr in cidrs]
    found = measure_pools(pools, iter(blocks), Reservations())
    assert {"1": ["10.0.1.0/26"], "2": ["10.0.2.64/26", "10.0.2.0/26"]} == {
        pool.name: [str(block.cidr) for block in pool.blocks] for pool in found
    }


def test_blocks_outside_do_not_count():
    """The caller may hand over all the blocks that it knows."""
    elsewhere = new_block(parse_cidr("10.0.1.0/30"), "host:node1", NOW)
    elsewhere, _ = elsewhere.assign(2, Attribute("net.c1"), Reservations())
    assert measure(POOL, [], Reservations()) == measure(POOL, [elsewhere], Reservations())


def test_the_text_gives_all_the_numbers():
    """It stands in the details of the error for an exhausted pool."""
    expected = "10.0.0.0/28: 16 addresses, 0 in use, 0 reserved, 0 cooling, 16 free"
    assert expected == str(measure(POOL, [], Reservations()))
