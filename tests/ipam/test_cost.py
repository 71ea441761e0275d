"""What each operation asks of the datastore: counted, not timed, and told in the README."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.ipam.affinity import claim_blocks
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from cni_ipam.plugin.recorded import find_recorded
from tests.ipam.world import (
    NOW,
    add,
    collect_all,
    delete,
    entries,
    furnish,
    make_wish,
    put_pool,
    release_block,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni_ipam.datastore.port import Datastore, Entry

    Step = Callable[[Datastore], object]

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = 512
LATER = NOW + 120 * SECOND
OWN = "10.0.0.0/28"
DEFAULT = (("four", {"cidr": "10.7.0.0/20", "blockSize": 28}),)


class CountingDatastore:
    """The port over `store`; every page is a request, the empty one at a list's end too."""

    def __init__(self, store: Datastore) -> None:
        self._store = store
        self.reads = self.pages_read = self.commits = 0

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        self.reads += 1
        return self._store.read(ranges)

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        pages = self._store.pages(prefix, size)
        while True:
            self.pages_read += 1
            page = next(pages, None)
            if page is None:
                return
            yield page

    def commit(self, writes: Iterable[Write]) -> None:
        self.commits += 1
        self._store.commit(writes)

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        return self._store.watch(prefix)

    def close(self) -> None:
        pass

    @property
    def counts(self) -> tuple[int, int, int]:
        """Reads, pages, commits."""
        return self.reads, self.pages_read, self.commits


def nothing_taken(store):
    """A pool of many blocks, and nobody has one."""
    furnish(store, "10.0.0.0/19", 28)


def own_block(store):
    """node1 has a block, with an address in use."""
    nothing_taken(store)
    add(store, "c1", fixed=["10.0.0.4"])


def own_block_full(store):
    """node1's block is full."""
    nothing_taken(store)
    add(store, "c1", fixed=["10.0.0.4"])
    add(store, "c2", counts={4: 15})


def one_unclaimed(store):
    """All blocks but one are taken, each by a host of its own and with an address in use."""
    nothing_taken(store)
    for number in range(BLOCKS - 1):
        address = parse_cidr("10.0.0.0/19").address(number * 16 + 4)
        add(store, f"d{number}", f"host{number}", fixed=[str(address)])


def all_taken(store):
    """And so is the last one."""
    one_unclaimed(store)
    add(store, "last", "node2", fixed=["10.0.31.244"])


def one_idle(store):
    """And the first of them is empty."""
    all_taken(store)
    delete(store, "d0", "host0")


def unselected(store):
    """node1's pool no longer selects it."""
    own_block(store)
    put_pool(store, "pool1", "10.0.0.0/19", blockSize=28, nodeSelector="has(rack)")


def nothing(_):
    """An empty datastore."""


def adding(**fields):
    return lambda store: add(store, "new", now=LATER, **fields)


def first_add(store):
    return add(store, "new", default_pools=DEFAULT, makes_node=True, gateway="auto")


def checking(store):
    wish = make_wish("c1")
    netconf = SimpleNamespace(node_name="node1")
    call = {"netconf": netconf, "handle": wish.handle, "is_mine": wish.is_mine}
    assert find_recorded(SimpleNamespace(store=lambda: store, **call)).addresses


def releasing_an_address(store):
    freed = release_addresses(store, [ReleaseRequest(parse_address("10.0.0.4"))], NOW)
    assert freed.released


def collecting(*living):
    return lambda store: collect_all(store, *living)


def claiming(store):
    return claim_blocks(store, "node1", parse_cidr(OWN), NOW)


COSTS: dict[str, tuple[Step, Step, tuple[int, int, int]]] = {
    "ADD from an own block": (own_block, adding(), (2, 0, 1)),
    "ADD that is repeated": (own_block, lambda store: add(store, "c1"), (2, 0, 0)),
    "ADD of a fixed address": (own_block, adding(fixed=["10.0.0.9"]), (2, 0, 1)),
    "ADD that claims the node's first block": (nothing_taken, adding(), (2, 0, 1)),
    "ADD that claims another, the own ones being full": (own_block_full, adding(), (3, 0, 1)),
    "ADD that claims the last of 512 blocks": (one_unclaimed, adding(), (2, 0, 1)),
    "ADD that borrows, 512 of 512 blocks being taken": (all_taken, adding(), (2, 1, 1)),
    "ADD that takes back an idle block": (one_idle, adding(), (3, 1, 1)),
    "ADD that makes the default pools": (nothing, first_add, (4, 0, 2)),
    "DEL": (own_block, lambda store: delete(store, "c1"), (2, 0, 1)),
    "DEL of what is gone": (own_block, lambda store: delete(store, "c9"), (1, 0, 0)),
    "DEL that ends a block": (unselected, lambda store: delete(store, "c1"), (3, 0, 1)),
    "CHECK": (own_block, checking, (2, 0, 0)),
    "GC that finds nothing dead": (own_block, collecting(("c1", "eth0")), (0, 2, 0)),
    "GC that finds something dead in one block": (own_block, collecting(), (2, 2, 1)),
    "release by address": (own_block, releasing_an_address, (3, 0, 1)),
    "release of a block": (own_block, lambda store: release_block(store, OWN), (1, 0, 1)),
    "claim of a block": (nothing_taken, claiming, (2, 0, 1)),
}


@pytest.fixture(params=["memory", "sqlite"])
def adapter(request, tmp_path):
    store = MemoryDatastore() if request.param == "memory" else SqliteDatastore(str(tmp_path / "i"))
    yield store
    store.close()


_PREPARED: dict[Step, MemoryDatastore] = {}


def fill(store, prepare):
    """The store is as `prepare` makes it."""
    if prepare not in _PREPARED:
        _PREPARED[prepare] = MemoryDatastore()
        prepare(_PREPARED[prepare])
    store.commit([Write(e.key, e.value, ABSENT) for e in entries(_PREPARED[prepare])])


@pytest.mark.parametrize("name", COSTS)
def test_an_operation_costs_what_the_table_says(name, adapter):
    """Alike on each adapter."""
    prepare, operate, expected = COSTS[name]
    fill(adapter, prepare)
    counting = CountingDatastore(adapter)
    operate(counting)
    assert expected == counting.counts


@pytest.mark.parametrize("taken", [0, BLOCKS // 2, BLOCKS - 1])
def test_to_find_an_unclaimed_block_costs_one_list_of_keys(taken):
    """However full the pool is, and no value is read."""
    store = MemoryDatastore()
    nothing_taken(store)
    for number in range(taken):
        claim_blocks(
            store, f"host{number}", parse_cidr(f"10.0.{number // 16}.{number % 16 * 16}/28"), NOW
        )
    lists: list[Range] = []
    counting = CountingDatastore(store)
    read = counting.read
    counting.read = lambda ranges: lists.extend(ranges) or read(ranges)
    add(counting, "new", now=NOW)
    of_blocks = [r for r in lists if r.prefix and r.key.startswith(keys.BLOCKS)]
    assert [Range(keys.blocks_prefix(4), prefix=True, keys_only=True)] == of_blocks
    assert (2, 0, 1) == counting.counts


def test_the_readme_has_the_table():
    """Row by row."""
    section = README.split("## What an operation costs")[1].split("## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    wanted = [f"| {name} | {' | '.join(map(str, costs))} |" for name, (*_, costs) in COSTS.items()]
    assert wanted == rows[1:]
