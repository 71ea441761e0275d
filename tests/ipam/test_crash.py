"""*Every prefix is safe*: each operation, cut after each of its writes.

What a dead process leaves must be sound: no address that could be given twice, none that nobody
could release. Then either the runtime gives up (DEL, and a GC later) and nothing stays allocated,
or it repeats the call, which succeeds. Stores with transactions leave nothing, or everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.check import LEFTOVER
from cni_ipam.datastore import keys
from cni_ipam.datastore.sqlite import SqliteDatastore
from tests.ipam.crash import DEFAULT, ME, Scene, bare, contents, nothing, others, watch
from tests.ipam.world import (
    NODES,
    add,
    collect_all,
    delete,
    entries,
    findings,
    furnish,
    holders,
    put,
    put_config,
    put_pool,
    release_block,
    survey,
    unsound,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni_ipam.datastore.port import Datastore

    Step = Callable[[Datastore], object]


def own_block(store):
    """The node has a block, with another container's address in it."""
    add(store, "bystander", fixed=["10.0.0.5"])


def dual_stack(store):
    """Pools of both families."""
    put_pool(store, "six", "fd00::/120")


def lenders(store):
    """All blocks are another node's."""
    for number in range(13):
        add(store, f"bystander{number}", "node2")


def cooling(store):
    """Released addresses rest; one does already."""
    put_config(store, ipCooldownSeconds=600)
    own_block(store)
    add(store, "former", fixed=["10.0.0.6"])
    delete(store, "former")


def half_claimed(store):
    """An affinity that never got its block."""
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30", '{"state":"pending"}')


def unconfirmed(store):
    """A block whose claim was never confirmed, and one on its way out."""
    own_block(store)
    add(store, "bystander2", fixed=["10.0.0.9"])
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30", '{"state":"pending"}')
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.8-30", '{"state":"pendingDeletion"}')


def stale(store):
    """An affinity to a block that is another's by now."""
    add(store, "bystander", "node2", fixed=["10.0.0.5"])
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30", '{"state":"pending"}')


def added(store):
    """The attachment has an address in a block that it shares."""
    own_block(store)
    add(store, ME)


def added_twice(store):
    """The container has two interfaces, and both families."""
    dual_stack(store)
    own_block(store)
    add(store, ME, counts={4: 1, 6: 1})
    add(store, ME, ifname="eth1", counts={4: 4})


def added_and_cooling(store):
    """A cooldown is on."""
    cooling(store)
    add(store, ME)


def unselected(store):
    """The attachment is the last of a block whose pool no longer selects the node."""
    add(store, "bystander", "node2", fixed=["10.0.0.9"])
    add(store, ME, fixed=["10.0.0.5"])
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")


def orphaned(store):
    """The attachment is the last of a block without owner."""
    add(store, ME, fixed=["10.0.0.5"])
    release_block(store, "10.0.0.4/30")


def emptied(store):
    """A block of the node's, with nothing in it."""
    add(store, ME, fixed=["10.0.0.5"])
    delete(store, ME)


def many_dead(store):
    """Three blocks with the dead and the living, one of them another node's."""
    own_block(store)
    add(store, "bystander2", "node2", fixed=["10.0.0.9"])
    for number, address in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.6", "10.0.0.10")):
        add(store, f"dead{number}", fixed=[address])
    add(store, ME, ifname="eth1", fixed=["10.0.0.11", "10.0.0.7"])


def add_me(**fields) -> Step:
    return lambda store: add(store, ME, **fields)


def delete_me(store):
    return delete(store, ME)


def collect_dead(store):
    return collect_all(store, ("bystander", "eth0"))


def first_add_ever(store):
    """Of an embedded store: pools, reservations, Node, claim."""
    wish = {"default_pools": DEFAULT, "makes_node": True, "gateway": "auto"}
    return add(store, ME, counts={4: 1, 6: 1}, **wish)


SCENES: dict[str, tuple[Step, Step]] = {
    "first ADD, with a claim": (nothing, add_me()),
    "first ADD ever": (bare, first_add_ever),
    "first ADD that reserves": (nothing, add_me(gateway="auto", makes_node=True)),
    "ADD in the own block": (own_block, add_me()),
    "ADD of a second interface": (added, add_me(ifname="eth1")),
    "ADD of both families": (dual_stack, add_me(counts={4: 1, 6: 1})),
    "ADD of many": (own_block, add_me(counts={4: 9})),
    "borrowed ADD": (lenders, add_me()),
    "fixed ADD with a claim": (own_block, add_me(fixed=["10.0.0.9"])),
    "fixed ADD in the own block": (own_block, add_me(fixed=["10.0.0.6"])),
    "fixed ADD of two": (own_block, add_me(fixed=["10.0.0.6", "10.0.0.9"])),
    "ADD beside a cooling address": (cooling, add_me()),
    "ADD that takes up a claim": (half_claimed, add_me()),
    "ADD that confirms": (unconfirmed, add_me(counts={4: 5})),
    "ADD that drops a stale claim": (stale, add_me()),
    "DEL": (added, delete_me),
    "DEL of one interface": (added_twice, delete_me),
    "DEL with a cooldown": (added_and_cooling, delete_me),
    "DEL that gives up a block": (unselected, delete_me),
    "DEL that ends a block without owner": (orphaned, delete_me),
    "release of an empty block": (emptied, lambda store: release_block(store, "10.0.0.4/30")),
    "release of a block in use": (added, lambda store: release_block(store, "10.0.0.4/30")),
    "GC": (many_dead, collect_dead),
    "GC with a cooldown": (added_and_cooling, collect_dead),
    "GC of a block without owner": (orphaned, collect_dead),
}


@pytest.fixture(params=list(SCENES))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(*SCENES[request.param])


def test_every_prefix_is_safe(scene):
    """Sound after each write; nobody else's address is touched."""
    for store, before in scene.crashes():
        assert [] == unsound(store)
        assert others(before) == others(holders(store))


def test_what_a_crash_left_goes_with_del_and_gc(scene):
    """Nothing of the attachment stays allocated, and its handle is gone."""
    for store, before in scene.crashes():
        for ifname in ("eth0", "eth1"):
            delete(store, ME, ifname=ifname)
        living = [(name.removeprefix("net."), "eth0") for name in others(before).values()]
        for node in NODES:
            assert [] == collect_all(store, *living, node=node)[1]
        assert others(before) == holders(store)
        assert keys.handle_key(f"net.{ME}") not in [e.key for e in entries(store)]
        assert [] == unsound(store)


def test_the_repeated_call_succeeds(scene):
    """And leads to where the first one would have led."""
    whole = scene.make()
    scene.operate(whole)
    for store, _ in scene.crashes():
        scene.operate(store)
        assert [] == unsound(store)
        assert len(holders(whole)) == len(holders(store))
        assert others(holders(whole)) == others(holders(store))
        held = [address for address, handle in holders(store).items() if handle == f"net.{ME}"]
        assert sorted(reachable(store)) == sorted(held)


def reachable(store):
    """The attachment's addresses as a release would find them: by its handle's blocks."""
    handles = [handle for handle in survey(store).handles if handle.id == f"net.{ME}"]
    blocks = {block.cidr: block for block in survey(store).blocks}
    return [
        str(cidr.address(ordinal))
        for handle in handles
        for cidr in handle.blocks
        if cidr in blocks
        for ordinal in blocks[cidr].find_ordinals(lambda owner: owner.handle == f"net.{ME}")
    ]


@pytest.mark.parametrize("scene", [name for name in SCENES if "ADD" in name], indirect=True)
def test_a_repeated_add_gives_one_address(scene):
    """Crash, repeat, repeat: the attachment never has two."""
    for store, _ in scene.crashes():
        assert sorted(scene.operate(store)) == sorted(scene.operate(store))


def test_leftovers_of_an_add_go_with_the_repeated_add_and_del(scene):
    """But for a handle's count, which the DEL mends, nothing is left over."""
    for store, _ in scene.crashes():
        scene.operate(store)
        for ifname in ("eth0", "eth1"):
            delete(store, ME, ifname=ifname)
        left = [f for f in findings(store) if f.severity == LEFTOVER and ME in f.where]
        assert [] == left


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_store_with_transactions_leaves_nothing_or_everything(scene, after):
    """A commit is cut as a whole."""
    states = watch(scene)
    for number in range(1, states[-1][0] + 1):
        store = scene.make(atomic=True)
        scene.cut(store, number, after=after)
        commit = next(place for place, (writes, _) in enumerate(states) if writes >= number)
        assert states[commit if after else commit - 1][1] == contents(store)
        assert [] == unsound(store)
        scene.operate(store)
        assert [] == unsound(store)


@pytest.mark.parametrize("name", ["first ADD ever", "ADD in the own block", "DEL", "GC"])
def test_a_file_survives_a_crash(name, tmp_path: Path):
    """The store on the disk, opened anew after the death of a process."""
    scene = Scene(*SCENES[name])
    store = SqliteDatastore(str(tmp_path / "ipam.db"))
    scene.prepare(furnish(store))
    before = contents(store)
    scene.cut(store, 1, after=False)
    store.close()
    reopened = SqliteDatastore(str(tmp_path / "ipam.db"))
    assert before == contents(reopened)
    scene.operate(reopened)
    assert [] == unsound(reopened)
    reopened.close()
