"""*Every prefix is safe*, also where blocks change hands, and of what operators do.

Each operation is cut after each of its writes. Then either it is repeated, or nobody comes back to
it: DEL, a GC of each node and the release of all affinities leave nothing but the bystanders'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.affinity import PENDING, PENDING_DELETION
from cni_ipam.core.config import IpamConfig
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import NotFound
from cni_ipam.ipam.affinity import (
    claim_blocks,
    release_blocks,
    release_host,
    release_pool,
    remove_host,
)
from cni_ipam.ipam.assign import ensure_block
from cni_ipam.ipam.departure import release_node
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from cni_ipam.ipam.owner import OwnerUpdates, set_owner
from cni_ipam.ipam.release import release_handle
from cni_ipam.ipam.settings import change_config, write_config
from tests.ipam.crash import DEFAULT, ME, Scene, bare, contents, nothing, others, watch
from tests.ipam.world import (
    NODES,
    NOW,
    add,
    collect_all,
    delete,
    entries,
    findings,
    holders,
    make_wish,
    put,
    put_config,
    put_node,
    put_pool,
    release_block,
    survey,
    texts,
    unsound,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.datastore.port import Datastore

    Step = Callable[[Datastore], object]

ALL = parse_cidr("10.0.0.0/28")
BLOCK = "10.0.0.4/30"
EARLIER = NOW - 3600 * SECOND


def idle(store):
    """All blocks are another node's, and nobody uses them."""
    claim_blocks(store, "node2", ALL, EARLIER)


def idle_but_one(store):
    """One of them is in use, and in it an address of this node's."""
    idle(store)
    add(store, "bystander", "node2", fixed=["10.0.0.5"])
    add(store, ME, ifname="eth1", fixed=["10.0.0.6"])


def idle_and_stale(store):
    """This node has been at it already."""
    idle(store)
    one_pending(store)


def unselected(store):
    """Two empty blocks of a pool that no longer selects the node, and a pool that does."""
    claim_blocks(store, "node1", parse_cidr("10.0.0.0/29"), EARLIER)
    add(store, "bystander", fixed=["10.0.0.9"])
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")
    put_pool(store, "pool2", "10.0.1.0/29", blockSize=30)


def unselected_and_used(store):
    """The attachment is the last in a block whose pool no longer selects the node."""
    add(store, "bystander", "node2", fixed=["10.0.0.9"])
    add(store, ME, fixed=["10.0.0.5"])
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")


def one_pending(store):
    """A block that was to be the node's."""
    put(store, f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.4-30", '{"state":"pending"}')


def of_others(store):
    """One block is another's, one nobody's; one is the node's, with an attachment of each."""
    add(store, "bystander", "node2", fixed=["10.0.0.9"])
    add(store, "bystander2", fixed=["10.0.0.13"])
    release_block(store, "10.0.0.12/30")
    two_holders(store)


def two_holders(store):
    """Two handles in one block, one of them in another block too."""
    add(store, ME, fixed=["10.0.0.5"])
    add(store, ME, ifname="eth1", fixed=["10.0.0.2", "10.0.0.6"])
    add(store, "c2", fixed=["10.0.0.7"])


def orphaned(store):
    """The last two of a block without owner, and a block in use."""
    add(store, "bystander", fixed=["10.0.0.1"])
    add(store, ME, fixed=["10.0.0.5"])
    add(store, "c2", fixed=["10.0.0.6"])
    release_block(store, BLOCK)


def full_host(store):
    """Blocks of the node's in both families, some empty, and a marker of long ago."""
    put_pool(store, "six", "fd00::/120")
    put_node(store, "node1")
    put(store, f"{keys.HOST_AFFINITIES}node1", "")
    add(store, "bystander", fixed=["10.0.0.1"])
    add(store, "bystander2", "node2", fixed=["10.0.0.9"])
    add(store, ME, counts={4: 1, 6: 1})
    claim_blocks(store, "node1", parse_cidr(BLOCK), NOW)


def many_dead(store):
    """The dead in a block of the node's, in another's, and in one without owner."""
    of_others(store)
    add(store, "dead1", fixed=["10.0.0.10"])
    add(store, "dead2", fixed=["10.0.0.1"])
    release_block(store, BLOCK)


def dead_node(store):
    """A node's addresses in blocks of its own, of another's and of nobody's, in both families, an
    address of another node in its block, an empty block of its, a marker of long ago."""
    put_pool(store, "six", "fd00::/120")
    put_node(store, "node1")
    put(store, f"{keys.HOST_AFFINITIES}node1", "")
    add(store, "bystander", "node2", fixed=["10.0.0.9"])
    add(store, ME, fixed=["10.0.0.5"])
    add(store, ME, ifname="eth1", counts={6: 1})
    add(store, "dead1", fixed=["10.0.0.10"])
    add(store, "bystander2", "node2", fixed=["10.0.0.6"])
    add(store, "dead2", fixed=["10.0.0.13"])
    release_block(store, "10.0.0.12/30")
    claim_blocks(store, "node1", parse_cidr("10.0.0.0/30"), NOW)


def add_me(**fields) -> Step:
    return lambda store: add(store, ME, **fields)


def claim_all(store):
    """All blocks of the pool, as far as they are free."""
    return texts(claim_blocks(store, "node1", ALL, NOW)[0])


def ensure(store):
    return str(ensure_block(store, make_wish(ME, now=NOW)))


def free(*addresses: str) -> Step:
    requests = [ReleaseRequest(parse_address(address)) for address in addresses]
    return lambda store: release_addresses(store, requests, NOW)


def free_named(store):
    """The same, and the handles are named."""
    named = (("10.0.0.5", ME), ("10.0.0.6", "c2"))
    requests = [ReleaseRequest(parse_address(text), f"net.{who}") for text, who in named]
    return release_addresses(store, requests, NOW)


def release_me(store):
    """All of the handle; it may be gone already."""
    try:
        release_handle(store, f"net.{ME}", NOW)
    except NotFound:
        assert [] == [e for e in entries(store) if f"net.{ME}" in e.key]


def hand_over(store):
    """Another pod takes the address over."""
    updates = OwnerUpdates({"pod": "p2", "namespace": "n"}, {"pod": "p1", "namespace": "n"})
    return set_owner(store, parse_address("10.0.0.5"), f"net.{ME}", updates, NOW)


def collect_dead(store):
    return collect_all(store, ("bystander", "eth0"), ("bystander2", "eth0"))


SCENES: dict[str, tuple[Step, Step]] = {
    "ADD that takes a block back": (idle, add_me()),
    "ADD that takes several back": (idle, add_me(counts={4: 10})),
    "ADD that takes back and borrows": (idle_but_one, add_me(counts={4: 14})),
    "ADD that takes back what was begun": (idle_and_stale, add_me(counts={4: 16})),
    "ADD that gives up empty blocks": (unselected, add_me()),
    "claim of new blocks": (nothing, claim_all),
    "claim of a pending block": (one_pending, claim_all),
    "claim among others' blocks": (of_others, claim_all),
    "claim of idle blocks": (idle, claim_all),
    "ensuring of a new block": (nothing, ensure),
    "ensuring of a pending block": (one_pending, ensure),
    "release of addresses": (two_holders, free("10.0.0.5", "10.0.0.7", "10.0.0.2")),
    "release of the last of a block without owner": (orphaned, free("10.0.0.5", "10.0.0.6")),
    "release of what handles are known to have": (orphaned, free_named),
    "release of the last of a lost block": (unselected_and_used, free("10.0.0.5")),
    "release of a handle": (many_dead, release_me),
    "release of a handle in a block without owner": (orphaned, release_me),
    "release of a claim on another's block": (
        idle_and_stale,
        lambda store: release_block(store, BLOCK),
    ),
    "release of blocks": (full_host, lambda store: release_blocks(store, "node1", ALL, NOW)),
    "release of a host": (full_host, lambda store: release_host(store, "node1", NOW)),
    "removal of a host": (full_host, lambda store: remove_host(store, "node1", NOW)),
    "release of a pool": (full_host, lambda store: release_pool(store, ALL, NOW)),
    "change of owners": (two_holders, hand_over),
    "settings": (nothing, lambda store: write_config(store, IpamConfig(cooldown_seconds=9))),
    "change of settings": (nothing, lambda store: change_config(store, cooldown_seconds=9)),
    "default pools": (bare, add_me(counts={4: 0, 6: 0}, default_pools=DEFAULT, gateway="auto")),
    "departure of a node": (dead_node, lambda store: release_node(store, "node1", NOW)),
    "GC of several blocks": (many_dead, collect_dead),
    "GC of the last of a lost block": (unselected_and_used, collect_dead),
}


@pytest.fixture(params=list(SCENES))
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(*SCENES[request.param])


def give_back(store, before):
    """What runtimes and operators do when nothing is to be left but the bystanders'."""
    for container in (ME, "c2", "dead1", "dead2"):
        for ifname in ("eth0", "eth1"):
            delete(store, container, ifname=ifname)
    living = [(name.removeprefix("net."), "eth0") for name in others(before).values()]
    for node in NODES:
        assert [] == collect_all(store, *living, node=node)[1]
        release_host(store, node, NOW)


def records(store):
    """What is neither block nor handle nor affinity."""
    kept = (keys.BLOCKS, keys.HANDLES, keys.HOST_AFFINITIES)
    return [(key, value) for key, value in contents(store) if not key.startswith(kept)]


def test_every_prefix_is_safe(scene):
    """Sound after each write; nobody else's address is touched."""
    for store, before in scene.crashes():
        assert [] == unsound(store)
        assert others(before) == others(holders(store))


def test_what_a_crash_left_can_be_given_back(scene):
    """Nothing stays allocated, no block stays without need."""
    for store, before in scene.crashes():
        give_back(store, before)
        assert others(before) == holders(store)
        assert [] == [f for f in findings(store) if "pending" not in f.text]
        # A claim that was begun is the host's to end: see the test below.
        assert {PENDING} >= {affinity.state for affinity in survey(store).affinities}


def test_a_claim_that_was_begun_ends_with_the_next_adds(scene):
    """Whatever is left over goes when the nodes go on as usual, and leave at last."""
    for store, before in scene.crashes():
        give_back(store, before)
        for affinity in survey(store).affinities:
            add(store, "late", affinity.host, counts={4: 16}, whole=False)
            delete(store, "late", affinity.host)
        give_back(store, before)
        assert [] == survey(store).affinities


def test_the_repeated_call_leads_to_the_same(scene):
    """As if the first one had not died."""
    whole = scene.make()
    scene.operate(whole)
    for store, before in scene.crashes():
        scene.operate(store)
        assert [] == unsound(store)
        assert len(holders(whole)) == len(holders(store))
        assert others(before) == others(holders(store))
        assert records(whole) == records(store)


def test_the_repeated_call_leaves_nothing_over(scene):
    """Nothing that the whole call would not have left, once all has been given back."""
    for store, before in scene.crashes():
        scene.operate(store)
        give_back(store, before)
        assert others(before) == holders(store)
        assert [] == findings(store)
        assert [] == survey(store).affinities


@pytest.mark.parametrize(
    "scene", [name for name in SCENES if "gives up" in name or "lost" in name], indirect=True
)
def test_an_end_that_was_cut_short_is_finished_by_the_next_add(scene):
    """Nobody else comes back to an affinity whose pool does not select the node."""
    for store, _ in scene.crashes():
        put_pool(store, "pool2", "10.0.1.0/29", blockSize=30)
        scene.operate(store)
        add(store, "late")
        assert PENDING_DELETION not in [a.state for a in survey(store).affinities]
        assert [] == unsound(store)


@pytest.mark.parametrize("limits", [{}, {"maxBlocksPerHost": 1, "strict_affinity": True}])
def test_the_last_block_is_ensured_after_a_crash(limits):
    """The claim that was begun is taken up; it neither blocks the way nor counts as another."""

    def prepare(store):
        put_pool(store, "pool1", BLOCK, blockSize=30)
        put_config(store, **limits)

    for store, _ in Scene(prepare, ensure).crashes():
        assert BLOCK == ensure(store)
        assert [] == findings(store)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_store_with_transactions_is_cut_between_commits_only(scene, after):
    """And then goes on to the same end."""
    states = watch(scene)
    for number in range(1, states[-1][0] + 1):
        store = scene.make(atomic=True)
        before = holders(store)
        scene.cut(store, number, after=after)
        commit = next(place for place, (writes, _) in enumerate(states) if writes >= number)
        assert states[commit if after else commit - 1][1] == contents(store)
        assert [] == unsound(store)
        assert others(before) == others(holders(store))
        scene.operate(store)
        assert [] == unsound(store)
