"""How full a pool or a block is."""

from __future__ import annotations

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.moment import SECOND
from cni_ipam.core.reservation import Reservations
from cni_ipam.core.utilization import measure

POOL = parse_cidr("10.0.0.0/28")
NOW = 1_800_000_000 * SECOND


def test_every_address_is_counted_once():
    """In use, reserved and free add up to the pool; a reserved one in use counts as in use."""
    block = new_block(parse_cidr("10.0.0.0/30"), "host:node1", NOW)
    block, _ = block.assign(3, Attribute("net.c1"), Reservations())
    block = block.release([1], NOW, 60)
    reserved = Reservations().plus([parse_cidr("10.0.0.2/31"), parse_cidr("10.0.0.8/30")])
    found = measure(POOL, [block], reserved)
    assert (16, 3, 5, 1, 8) == (
        found.capacity,
        found.in_use,
        found.reserved,
        found.cooling,
        found.free,
    )


def test_blocks_outside_do_not_count():
    """The caller may hand over all the blocks that it knows."""
    elsewhere = new_block(parse_cidr("10.0.1.0/30"), "host:node1", NOW)
    elsewhere, _ = elsewhere.assign(2, Attribute("net.c1"), Reservations())
    assert measure(POOL, [], Reservations()) == measure(POOL, [elsewhere], Reservations())


def test_the_text_gives_all_the_numbers():
    """It stands in the details of the error for an exhausted pool."""
    expected = "10.0.0.0/28: 16 addresses, 0 in use, 0 reserved, 0 cooling, 16 free"
    assert expected == str(measure(POOL, [], Reservations()))
