"""Two operations at once: whatever the order of their calls, no address twice, and sound.

`schedules` stops the first before each of its calls (or writes), runs the other up to each of its
own, and lets the first go on. Hypothesis adds orders with any number of changes.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.errors import AddressInUse, CniIpamError, NoQualifiedPool, PoolExhausted
from cni_ipam.ipam.affinity import claim_blocks, remove_host
from cni_ipam.ipam.assign import ensure_block
from tests.ipam.turns import race, schedules
from tests.ipam.world import (
    NOW,
    Overtaken,
    add,
    collect_all,
    delete,
    entries,
    findings,
    furnish,
    holders,
    make_wish,
    put,
    put_config,
    put_node,
    put_pool,
    release_block,
    unsound,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni_ipam.datastore.port import Datastore

    Step = Callable[[Datastore], object]

DEFAULT = (("four", {"cidr": "10.7.0.0/28", "blockSize": 30}),)


def nothing(store):
    """Only a pool and nodes."""


def own_block(store):
    """node1 has a block with two addresses in use."""
    add(store, "c1", fixed=["10.0.0.5"])
    add(store, "bystander", fixed=["10.0.0.6"])


def one_left(store):
    """A single block with a single free address."""
    put_pool(store, "pool1", "10.0.0.4/30", blockSize=30)
    own_block(store)
    add(store, "c3", fixed=["10.0.0.4"])


def one_block(store):
    """Two nodes want the only block."""
    put_pool(store, "pool1", "10.0.0.4/30", blockSize=30)


def two_interfaces(store):
    """One handle for both."""
    add(store, "c1", fixed=["10.0.0.5"])
    add(store, "c1", ifname="eth1", fixed=["10.0.0.6"])


def orphaned(store):
    """Two last addresses of a block without owner."""
    own_block(store)
    add(store, "c2", fixed=["10.0.0.7"])
    delete(store, "bystander")
    release_block(store, "10.0.0.4/30")


def unselected(store):
    """The last address of a block that node1 is to lose, and node2 may want."""
    add(store, "c1", fixed=["10.0.0.5"])
    put_pool(store, "pool1", "10.0.0.4/30", blockSize=30, nodeSelector="!has(rack)")
    put_node(store, "node1", rack="1")


def idle(store):
    """All blocks are node2's for long, and nobody uses them."""
    claim_blocks(store, "node2", parse_cidr("10.0.0.0/28"), NOW - 3600 * SECOND)


def begun(store):
    """And node1 has begun to take one back."""
    idle(store)
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.0-30", '{"state":"pending"}')


def unconfirmed(store):
    """A block of node1's, empty, whose claim was never confirmed."""
    claim_blocks(store, "node1", parse_cidr("10.0.0.4/30"), NOW)
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30", '{"state":"pending"}')


def begun_anew(store):
    """node1 has begun to claim a block."""
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30", '{"state":"pending"}')


def cooling(store):
    """A cooldown is on."""
    put_config(store, ipCooldownSeconds=600)
    own_block(store)


def bare_add(container):
    """The first ADD ever of an embedded store."""
    return lambda store: add(
        store, container, default_pools=DEFAULT, makes_node=True, gateway="auto"
    )


def adding(container, host="node1", **fields):
    return lambda store: add(store, container, host, **fields)


def deleting(container, host="node1", **fields):
    return lambda store: delete(store, container, host, **fields)


def collecting(*living):
    return lambda store: collect_all(store, *living)[0]


def releasing(cidr="10.0.0.4/30", host="node1"):
    return lambda store: release_block(store, cidr, host)


def ensuring(host="node1"):
    return lambda store: str(ensure_block(store, make_wish(host=host)))


RACES: dict[str, tuple[Step, Step, Step]] = {
    "ADD and ADD in one block": (own_block, adding("c8"), adding("c9")),
    "ADD and ADD on one claim": (nothing, adding("c8"), adding("c9")),
    "ADD and ADD of two nodes on one claim": (one_block, adding("c8"), adding("c9", "node2")),
    "ADD and ADD of the last address": (one_left, adding("c8"), adding("c9")),
    "ADD and borrowing ADD": (one_left, adding("c8"), adding("c9", "node2")),
    "ADD and ADD of one attachment": (nothing, adding("c8"), adding("c8")),
    "ADD and ADD of two interfaces": (own_block, adding("c8"), adding("c8", ifname="eth1")),
    "ADD and ADD of two interfaces on a claim": (
        nothing,
        adding("c8", counts={4: 3}),
        adding("c8", ifname="eth1", counts={4: 3}),
    ),
    "ADD and fixed ADD": (own_block, adding("c8"), adding("c9", fixed=["10.0.0.7"])),
    "fixed ADD and fixed ADD": (
        nothing,
        adding("c8", fixed=["10.0.0.7"]),
        adding("c9", "node2", fixed=["10.0.0.7"]),
    ),
    "ADD of many and ADD of many": (
        nothing,
        adding("c8", counts={4: 6}),
        adding("c9", "node2", counts={4: 6}),
    ),
    "first ADD ever, twice": (nothing, bare_add("c8"), bare_add("c9")),
    "ADD and DEL in one block": (own_block, adding("c8"), deleting("c1")),
    "ADD and DEL of the last address": (one_left, adding("c8"), deleting("c1")),
    "ADD and DEL of one handle": (own_block, adding("c1", ifname="eth1"), deleting("c1")),
    "ADD and late DEL of one attachment": (own_block, adding("c8"), deleting("c8")),
    "DEL and DEL in one block": (own_block, deleting("c1"), deleting("bystander")),
    "DEL and DEL of one attachment": (own_block, deleting("c1"), deleting("c1")),
    "DEL and DEL of one handle": (two_interfaces, deleting("c1"), deleting("c1", ifname="eth1")),
    "DEL and DEL of a block without owner": (orphaned, deleting("c1"), deleting("c2")),
    "DEL that gives up and ADD elsewhere": (unselected, deleting("c1"), adding("c9", "node2")),
    "DEL that gives up and ADD here": (unselected, deleting("c1"), adding("c9")),
    "DEL with a cooldown and ADD": (cooling, deleting("c1"), adding("c9")),
    "release of a block and ADD in it": (own_block, releasing(), adding("c9")),
    "release of a block and DEL in it": (two_interfaces, releasing(), deleting("c1")),
    "release and release of a block": (two_interfaces, releasing(), releasing()),
    "taking back and release of the claim": (idle, adding("c8"), releasing("10.0.0.0/30")),
    "taking back anew and release of the claim": (begun, adding("c8"), releasing("10.0.0.0/30")),
    "taking back and release by the owner": (idle, adding("c8"), releasing("10.0.0.0/30", "node2")),
    "taking back and ADD of the owner": (idle, adding("c8"), adding("c9", "node2")),
    "ADD that confirms and release of a block": (unconfirmed, adding("c8"), releasing()),
    "ADD that confirms and ADD": (unconfirmed, adding("c8"), adding("c9")),
    "ADD that takes up and ADD that does": (begun_anew, adding("c8"), adding("c9")),
    "ensuring and ensuring": (one_block, ensuring(), ensuring()),
    "ensuring and ADD": (one_block, ensuring(), adding("c9")),
    "GC and ADD": (own_block, collecting(), adding("c9")),
    "GC and DEL": (own_block, collecting(), deleting("c1")),
    "GC and DEL of a block without owner": (orphaned, collecting(), deleting("c1")),
    "GC and GC": (own_block, collecting(), collecting(("c1", "eth0"))),
}


def run(name, *, atomic, schedule):
    """The store after the race, and what the two answered."""
    _, first, second = RACES[name]
    store = MemoryDatastore(atomic=atomic)
    store.commit([Write(entry.key, entry.value, ABSENT) for entry in prepared(name)])
    return store, race(store, [first, second], schedule)


@cache
def prepared(name):
    """What is there before the race."""
    store = furnish(MemoryDatastore())
    RACES[name][0](store)
    return entries(store)


def check(name, store, results):
    """What holds after any race."""
    assert [] == unsound(store)
    given, returned = [], []
    for operation, result in zip(RACES[name][1:], results, strict=True):
        if isinstance(result, CniIpamError):
            assert isinstance(result, (PoolExhausted, AddressInUse, NoQualifiedPool))
        elif isinstance(result, list):
            (given if "add" in operation.__qualname__ else returned).extend(result)
    if name != "ADD and ADD of one attachment":
        assert len(given) == len(set(given))
    assert set(given) - set(returned) <= set(holders(store))


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "in order"])
@pytest.mark.parametrize("name", RACES)
def test_no_order_of_two_gives_an_address_twice(name, atomic):
    """Each stop of the first against each stop of the second, and the other way round."""
    stops = (range(4), [1, 3]) if atomic else (range(7), [1, 3, 6])
    for order in schedules(*stops):
        for schedule in (order, [1 - worker for worker in order]):
            check(name, *run(name, atomic=atomic, schedule=schedule))


@settings(max_examples=150)
@given(st.sampled_from(sorted(RACES)), st.booleans(), st.lists(st.integers(0, 1), max_size=30))
def test_no_order_at_all_gives_an_address_twice(name, atomic, schedule):
    """Any number of changes between the two."""
    check(name, *run(name, atomic=atomic, schedule=schedule))


def test_the_loser_of_a_race_for_the_last_address_is_told():
    """One has it, the other hears that the pool is exhausted."""
    for schedule in schedules(range(5), range(1, 5)):
        _, results = run("ADD and ADD of the last address", atomic=True, schedule=schedule)
        assert 1 == sum(isinstance(result, PoolExhausted) for result in results)


def test_both_calls_of_one_attachment_answer_the_same():
    """A runtime that repeats a call too early does no harm."""
    for schedule in schedules(range(6), range(1, 6)):
        name = "ADD and ADD of one attachment"
        store, (first, second) = run(name, atomic=True, schedule=schedule)
        assert first == second
        assert 1 == len(holders(store))


@pytest.mark.parametrize("atomic", [True, False])
def test_a_host_may_be_removed_twice_at_once(atomic):
    """Its marker of long ago is gone afterwards; neither is told of the other."""
    store = MemoryDatastore(atomic=atomic)
    put(store, f"{keys.HOST_AFFINITIES}node1", "")
    late = Overtaken(store, lambda: remove_host(store, "node1", NOW))
    assert [] == remove_host(late, "node1", NOW)
    assert [] == entries(store)


def add_in_threads(store: Datastore, number: int) -> list[str]:
    """As many ADDs at once."""
    given: list[str] = []
    start = threading.Barrier(number)

    def run_one(index: int) -> None:
        start.wait()
        given.extend(add(store, f"c{index}", f"node{index % 3 + 1}"))

    threads = [threading.Thread(target=run_one, args=[index]) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_sixty_four_threads_get_sixty_four_addresses(kind, tmp_path: Path):
    """All distinct, all recorded."""
    store = MemoryDatastore() if kind == "memory" else SqliteDatastore(str(tmp_path / "ipam.db"))
    furnish(store, "10.0.0.0/24", 28)
    given = add_in_threads(store, 64)
    assert 64 == len(set(given))
    assert set(given) == set(holders(store))
    assert [] == findings(store)
    store.close()
