"""A scheduler for races: of several operations one runs at a time, and which one goes on is
decided before every call of the datastore (in a store without transactions, before every write)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cni_ipam.datastore.port import ABSENT, SAME, Entry, Range, Write
from cni_ipam.errors import CniIpamError
from cni_ipam.lean.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni_ipam.datastore.memory import MemoryDatastore
    from cni_ipam.datastore.port import Datastore

LONGEST_WAIT_SECONDS = 120


class Turns:
    """Gives the turns in the order of `schedule`; when it is used up, each runs to its end."""

    def __init__(self, workers: int, schedule: Iterable[int]) -> None:
        self._schedule = iter(schedule)
        self._alive = set(range(workers))
        self._changed = threading.Condition()
        self._current = next(self._schedule, 0)

    def wait_for_turn(self, worker: int) -> None:
        """Block until it is the worker's turn."""
        with self._changed:
            had = self._changed.wait_for(lambda: self._current == worker, LONGEST_WAIT_SECONDS)
        assert had, "the race is stuck"

    def pass_on(self, worker: int) -> None:
        """The worker is before a call: whoever is next goes on."""
        with self._changed:
            self._current = self._next(worker)
            self._changed.notify_all()
        self.wait_for_turn(worker)

    def finish(self, worker: int) -> None:
        """The worker has ended."""
        with self._changed:
            self._alive.discard(worker)
            self._current = self._next(min(self._alive, default=worker))
            self._changed.notify_all()

    def _next(self, otherwise: int) -> int:
        for worker in self._schedule:
            if worker in self._alive:
                return worker
        return otherwise


class TurnTaking:
    """The port over `store`, for one of the workers."""

    def __init__(self, store: MemoryDatastore, turns: Turns, worker: int) -> None:
        self._store = store
        self._turns = turns
        self._worker = worker

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        self._turns.pass_on(self._worker)
        return self._store.read(ranges)

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        self._turns.pass_on(self._worker)
        for page in self._store.pages(prefix, size):
            yield page
            self._turns.pass_on(self._worker)

    def commit(self, writes: Iterable[Write]) -> None:
        if self._store.atomic:
            self._turns.pass_on(self._worker)
            self._store.commit(writes)
            return
        written: dict[str, int] = {}
        for write in writes:
            self._turns.pass_on(self._worker)
            if write.expected == SAME:
                write = replace(write, expected=written[write.key])  # noqa: PLW2901
            self._store.commit([write])
            found = self._store.read([Range(write.key)])[0]
            written[write.key] = found[0].revision if found else ABSENT

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        return self._store.watch(prefix)

    def close(self) -> None:
        pass


def race(
    store: MemoryDatastore,
    operations: Sequence[Callable[[Datastore], object]],
    schedule: Iterable[int],
) -> list[object]:
    """What each operation returned, or the error that it told, when they ran by `schedule`."""
    turns = Turns(len(operations), schedule)
    results: list[object] = [None] * len(operations)

    def run(worker: int) -> None:
        turns.wait_for_turn(worker)
        try:
            results[worker] = operations[worker](TurnTaking(store, turns, worker))
        except CniIpamError as error:
            results[worker] = error
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            results[worker] = error
        finally:
            turns.finish(worker)

    threads = [threading.Thread(target=run, args=[worker]) for worker in range(len(operations))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, CniIpamError):
            raise result
    return results


def schedules(first: Iterable[int], second: Sequence[int]) -> Iterator[list[int]]:
    """One runs up to its n-th call, then the other up to its m-th, then the first to its end."""
    for calls in first:
        for calls_of_other in second:
            yield [0] * (calls + 1) + [1] * calls_of_other + [0] * 99
