"""An operation that dies at each of its writes, in a world that can be made again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.memory import MemoryDatastore
from tests.datastore.faults import Stopped, StoppingDatastore
from tests.ipam.world import entries, furnish, holders, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni_ipam.datastore.port import Datastore

    Step = Callable[[Datastore], object]

DEFAULT = (("four", {"cidr": "10.7.0.0/28", "blockSize": 30}), ("six", {"cidr": "fd07::/64"}))
ME = "c1"


def nothing(store):
    """Only pools and nodes."""


def bare(store):
    """Not even these."""
    for entry in entries(store):
        remove(store, entry.key)


class Scene:
    """An operation in a world that can be made again and again."""

    def __init__(self, prepare: Step, operate: Step) -> None:
        self.prepare = prepare
        self.operate = operate

    def make(self, *, atomic: bool = False) -> Datastore:
        store = furnish(MemoryDatastore(atomic=atomic))
        self.prepare(store)
        return store

    def count_writes(self) -> int:
        counting = StoppingDatastore(self.make())
        self.operate(counting)
        return counting.writes

    def cut(self, store: Datastore, number: int, *, after: bool = True) -> None:
        """Let the operation die at a write."""
        with pytest.raises(Stopped):
            self.operate(StoppingDatastore(store, number, after=after))

    def crashes(self) -> Iterator[tuple[Datastore, dict[str, str]]]:
        """The store after each write of the operation, and who held what before."""
        for number in range(1, self.count_writes() + 1):
            store = self.make()
            before = holders(store)
            self.cut(store, number)
            yield store, before


def others(held):
    """What attachments hold that no operation here is about."""
    return {address: handle for address, handle in held.items() if "bystander" in handle}


def contents(store):
    """Keys and values."""
    return [(entry.key, entry.value) for entry in entries(store)]


def watch(scene):
    """The contents before the operation and after each commit, with the writes until then."""
    store = scene.make(atomic=True)
    counting, commit = StoppingDatastore(store), store.commit
    states = [(0, contents(store))]

    def commit_and_look(writes):
        commit(writes)
        states.append((counting.writes, contents(store)))

    store.commit = commit_and_look
    scene.operate(counting)
    return states
