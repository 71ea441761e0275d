"""The datastore in memory keeps the contract, with and without transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from tests.datastore.contract import DatastoreContract
from tests.datastore.faults import Stopped, StoppingDatastore

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.datastore.port import Datastore


class TestMemory(DatastoreContract):
    """All or nothing."""

    @pytest.fixture
    def open_store(self) -> Callable[[], Datastore]:
        store = MemoryDatastore()
        return lambda: store


class TestMemoryInOrder(DatastoreContract):
    """One write after the other, as Kubernetes does it."""

    atomic = False

    @pytest.fixture
    def open_store(self) -> Callable[[], Datastore]:
        store = MemoryDatastore(atomic=False)
        return lambda: store


WRITES = [Write(key, "{}", ABSENT) for key in "abc"]


def keys(store: Datastore) -> str:
    return "".join(entry.key for entry in store.read([Range("", prefix=True)])[0])


class TestStoppingDatastore:
    """The wrapper by which crash tests kill a process."""

    @pytest.mark.parametrize(
        ("stop_at", "after", "left"),
        [(1, False, ""), (2, False, "a"), (3, False, "ab"), (1, True, "a"), (3, True, "abc")],
    )
    def test_without_transactions_a_prefix_is_applied(
        self, stop_at: int, after: bool, left: str
    ) -> None:
        """Everything before the stop, and nothing behind it."""
        store = MemoryDatastore(atomic=False)
        with pytest.raises(Stopped):
            StoppingDatastore(store, stop_at, after=after).commit(WRITES)
        assert left == keys(store)

    @pytest.mark.parametrize(("after", "left"), [(False, ""), (True, "abc")])
    def test_with_transactions_all_or_nothing_is_applied(self, after: bool, left: str) -> None:
        """A stop in the middle is one before or after the commit."""
        store = MemoryDatastore()
        with pytest.raises(Stopped):
            StoppingDatastore(store, 2, after=after).commit(WRITES)
        assert left == keys(store)

    def test_the_dead_stay_dead(self) -> None:
        """After the stop no call does anything."""
        stopping = StoppingDatastore(MemoryDatastore(), 1)
        for call in (
            lambda: stopping.commit(WRITES),
            lambda: stopping.commit([]),
            lambda: stopping.read([]),
            lambda: next(stopping.pages("", 1)),
            lambda: stopping.watch(""),
        ):
            with pytest.raises(Stopped):
                call()

    def test_writes_are_counted_over_the_run(self) -> None:
        """A stop that lies in a later commit leaves the earlier ones alone."""
        store = MemoryDatastore()
        stopping = StoppingDatastore(store, 4)
        stopping.commit(WRITES)
        stopping.read([Range("a")])
        with pytest.raises(Stopped):
            stopping.commit([Write("d", "{}", ABSENT)])
        assert (1, 2, 4) == (stopping.reads, stopping.commits, stopping.writes)
        assert "abc" == keys(store)
