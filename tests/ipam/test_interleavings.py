"""Every order of the datastore calls of two operations, and many orders of three.

Each world is a small pool in one condition, so that an ADD there is a claim, an assignment in the
own block, a borrowing, or the taking back of an empty block; `test_the_worlds_are_what_they_say`
shows which. In each world every operation meets every other one.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import combinations_with_replacement, islice
from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.check import UNSOUND, check_datastore
from cni_ipam.core.moment import SECOND
from cni_ipam.ctl.deletion import delete_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Write
from cni_ipam.errors import CniIpamError, NoQualifiedPool, NotFound, PoolExhausted, ValidationError
from cni_ipam.ipam.affinity import claim_blocks, release_host
from tests.ipam.interleaving import all_states, begin, run_by_chance
from tests.ipam.world import (
    NOW,
    add,
    collect_all,
    delete,
    entries,
    find,
    furnish,
    holders,
    put_config,
    put_pool,
    release_block,
    survey,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.datastore.port import Datastore
    from tests.ipam.interleaving import State

    Step = Callable[[Datastore], object]

pytestmark = pytest.mark.proof


BLOCK = "10.0.0.4/30"
LATER = NOW + 120 * SECOND
SCHEDULES_OF_THREE = 20_000
STATES_IN_ORDER = 400
SCHEDULES_IN_ORDER = 10


def free(store):
    """Two blocks, and nobody has one."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)


def one_free(store):
    """One block, and nobody has it."""
    put_pool(store, "pool1", BLOCK, blockSize=30)


def held(store):
    """One block, node1's, with an address of its own, one that node2 has borrowed, two free."""
    one_free(store)
    add(store, "c1", fixed=["10.0.0.4"])
    add(store, "c2", "node2", fixed=["10.0.0.6"])


def one_left(store):
    """The same with one free."""
    held(store)
    add(store, "bystander", fixed=["10.0.0.5"])


def emptied(store):
    """One block, node1's for long, with nothing in it."""
    one_free(store)
    add(store, "c1")
    delete(store, "c1")


def orphaned(store):
    """One block that has no owner, with an address of each."""
    held(store)
    release_block(store, BLOCK)


def cooling(store):
    """Released addresses rest for a while."""
    put_config(store, ipCooldownSeconds=600)
    held(store)


WORLDS = {
    "free": free,
    "one free": one_free,
    "held": held,
    "one left": one_left,
    "emptied": emptied,
    "orphaned": orphaned,
    "cooling": cooling,
}


def adding(host, **fields):
    """The container's name says which of the operations at once it belongs to."""
    return lambda number: lambda store: add(store, f"new{number}", host, now=LATER, **fields)


def deleting(container, host):
    return lambda _: lambda store: delete(store, container, host, LATER)


def release_the_block(_):
    return lambda store: release_block(store, BLOCK)


def delete_the_pool(_):
    resource = {"kind": "IPPool", "metadata": {"name": "pool1"}}
    kind = get_kind("ippool")
    return lambda store: delete_record(store, kind, resource, LATER, lambda _: None)


OPERATIONS: dict[str, Callable[[int], Step]] = {
    "ADD at node1": adding("node1"),
    "ADD at node2": adding("node2"),
    "ADD of three at node2": adding("node2", counts={4: 3}),
    "DEL at node1": deleting("c1", "node1"),
    "DEL at node2": deleting("c2", "node2"),
    "release of the block": release_the_block,
    "deletion of the pool": delete_the_pool,
    "claim at node2": lambda _: (
        lambda store: claim_blocks(store, "node2", parse_cidr(BLOCK), LATER)
    ),
    "release of node1": lambda _: lambda store: release_host(store, "node1", LATER),
    "GC at node1": lambda _: lambda store: collect_all(store, now=LATER)[0],
}
AT_NODE3 = {
    "ADD at node3": adding("node3"),
    "ADD of three at node3": adding("node3", counts={4: 3}),
}
REFUSALS = (PoolExhausted, NoQualifiedPool, NotFound, ValidationError)


@cache
def prepared(world, *, atomic):
    """What is there before; never changed, only copied."""
    store = furnish(MemoryDatastore())
    WORLDS[world](store)
    copy = store.copy()
    copy.atomic = atomic
    return copy


@cache
def find_faults(content):
    """What is unsound and what is left over in a content, which recurs in many states."""
    store = MemoryDatastore()
    store.commit([Write(key, value, ABSENT) for key, value in content])
    seen = survey(store)
    found = check_datastore(seen.blocks, seen.affinities, seen.handles, LATER)
    return [str(f) for f in found if f.severity == UNSOUND], [str(f) for f in found]


def faults_of(store):
    """The same for a store."""
    return find_faults(tuple([(entry.key, entry.value) for entry in entries(store)]))


def released_by(names):
    """Handles that the operations release; what GC releases was alive for all that others know."""
    ended = {"net.c1"} if "DEL at node1" in names else set()
    ended |= {"net.c2"} if "DEL at node2" in names else set()
    if "GC at node1" in names:
        ended |= {"net.c1", "net.bystander"}
        ended |= {f"net.new{n}" for n, name in enumerate(names) if name == "ADD at node1"}
    return ended


def check_end(world, names, end: State):
    """Who was answered has what it was told, who was not asked lost nothing."""
    before, after = holders(prepared(world, atomic=True)), holders(end.store)
    ended = released_by(names)
    kept = {address: who for address, who in before.items() if who not in ended}
    for number, (name, result) in enumerate(zip(names, end.results, strict=True)):
        who = f"net.new{number}"
        if isinstance(result, CniIpamError):
            assert isinstance(result, REFUSALS), (end.schedule, result)
        elif "ADD" in name and who not in ended:
            assert len(result) == (3 if "three" in name else 1)
            assert not kept.keys() & set(result), end.schedule
            kept |= dict.fromkeys(result, who)
        elif "deletion" in name:
            assert find(end.store, keys.POOLS + "pool1") is None
    given = {a: who for a, who in after.items() if not (who in ended and who.startswith("net.new"))}
    assert kept == given, end.schedule


def check_states(world, names, states):
    """Sound after each call, and everyone served in the end."""
    for state in states:
        unsound, left_over = faults_of(state.store)
        assert [] == unsound, (names, state.schedule)
        if not state.waiting:
            check_end(world, names, state)
            if state.store.atomic:
                assert [] == left_over, (names, state.schedule)


PAIRS = list(combinations_with_replacement(OPERATIONS, 2))


def operations_of(names):
    """As many operations at once."""
    known = OPERATIONS | AT_NODE3
    return [known[name](number) for number, name in enumerate(names)]


@cache
def start(world, names, *, atomic):
    """Before the first call; what is learned of the operations is kept for the next schedule."""
    return begin(prepared(world, atomic=atomic), operations_of(names))


def owners(store):
    """Whose each block is."""
    return [block.affinity for block in survey(store).blocks]


@pytest.mark.parametrize(
    ("world", "host", "before", "after"),
    [
        pytest.param("one free", "node2", [], ["host:node2"], id="claim"),
        pytest.param("held", "node1", ["host:node1"], ["host:node1"], id="assign in own block"),
        pytest.param("held", "node2", ["host:node1"], ["host:node1"], id="borrow"),
        pytest.param("emptied", "node2", ["host:node1"], ["host:node2"], id="take back"),
    ],
)
def test_the_worlds_are_what_they_say(world, host, before, after):
    """What an ADD does there when it is alone."""
    store = prepared(world, atomic=True).copy()
    assert before == owners(store)
    add(store, "alone", host, now=LATER)
    assert after == owners(store)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("names", PAIRS, ids=" + ".join)
def test_every_order_of_two(world, names):
    """Nothing unsound at any time, no address twice, nothing lost, nothing left over."""
    check_states(world, names, all_states(start(world, names, atomic=True)))


@pytest.mark.parametrize("names", PAIRS, ids=" + ".join)
def test_orders_of_two_where_each_write_is_a_step(names):
    """A store without transactions: others see the half of a commit, and may stop its rest.

    The states after few calls, which are all of them for most pairs, and some long ways."""
    chance = random.Random(" + ".join(names))
    for world in WORLDS:
        first = start(world, names, atomic=False)
        check_states(world, names, islice(all_states(first), STATES_IN_ORDER))
        for _ in range(SCHEDULES_IN_ORDER):
            check_states(world, names, run_by_chance(first, chance))


@pytest.mark.parametrize("world", WORLDS)
def test_orders_of_three(world):
    """Three hosts, by chance; the seed is the world's name."""
    chance = random.Random(world)
    for _ in range(SCHEDULES_OF_THREE // len(WORLDS)):
        names = tuple(sorted(chance.choices([*OPERATIONS, *AT_NODE3], k=3)))
        check_states(world, names, run_by_chance(start(world, names, atomic=True), chance))
