"""Every order of the datastore calls of several operations, without threads.

An operation is a function of the answers that its calls got. So it is run again from its start
with the answers so far, up to the first call that has none; what it asks there is remembered,
and no answers are run through twice. A state is what the store holds and where each operation
stands; equal states are gone on from once, which keeps all orders of two operations few.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cni_ipam.datastore.port import SAME, Entry, Range
from cni_ipam.errors import CniIpamError, Conflict
from cni_ipam.lean.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from random import Random

    from cni_ipam.datastore.memory import MemoryDatastore
    from cni_ipam.datastore.port import Datastore, Write

    Operation = Callable[[Datastore], object]
    Call = Callable[[MemoryDatastore], object]

MOST_CALLS = 400


class _Unanswered(BaseException):
    """The operation has come to a call that no answer is known to."""

    def __init__(self, call: Call) -> None:
        self.call = call


class Place:
    """Where an operation stands after some answers: before `call`, or at its end."""

    def __init__(self, operation: Operation, answers: tuple[object, ...], *, atomic: bool) -> None:
        assert len(answers) < MOST_CALLS, "the operation does not come to its end"
        self._operation, self._answers, self._atomic = operation, answers, atomic
        self._following: dict[object, Place] = {}
        self.call: Call | None = None
        self.result: object = None
        try:
            self.result = operation(_Rerun(answers, atomic=atomic))
        except CniIpamError as error:
            self.result = error
        except _Unanswered as stop:
            self.call = stop.call

    def go_on(self, store: MemoryDatastore) -> Place:
        """The place behind the call, which is made of `store` now."""
        assert self.call is not None
        answer = self.call(store)
        if answer not in self._following:
            answers = (*self._answers, answer)
            self._following[answer] = Place(self._operation, answers, atomic=self._atomic)
        return self._following[answer]


class _Rerun:
    """The port, as far as the answers go."""

    def __init__(self, answers: Iterable[object], *, atomic: bool) -> None:
        self._answers = iter(answers)
        self._atomic = atomic

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        wanted = list(ranges)
        answer = self._ask(lambda store: _frozen(store.read(wanted)))
        return [[Entry(*entry) for entry in entries] for entries in answer]

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        last = ""
        while page := self._ask(lambda store, last=last: _read_page(store, prefix, size, last)):
            yield [Entry(*entry) for entry in page]
            last = page[-1][0]

    def commit(self, writes: Iterable[Write]) -> None:
        if self._atomic:
            self._write(list(writes))
            return
        written: dict[str, int] = {}
        for write in writes:
            if write.expected == SAME:
                write = replace(write, expected=written[write.key])  # noqa: PLW2901
            written[write.key] = self._write([write])

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _write(self, writes: list[Write]) -> int:
        answer = self._ask(lambda store: _commit(store, writes))
        if isinstance(answer, str):
            raise Conflict(answer)
        return answer

    def _ask(self, call: Call) -> object:
        for answer in self._answers:
            return answer
        raise _Unanswered(call)


def _frozen(found: list[list[Entry]]) -> tuple[tuple[tuple[str, str, int], ...], ...]:
    return tuple([tuple([(e.key, e.value, e.revision) for e in entries]) for entries in found])


def _read_page(store: MemoryDatastore, prefix: str, size: int, last: str) -> object:
    (entries,) = _frozen(store.read([Range(prefix, prefix=True)]))
    return tuple([entry for entry in entries if entry[0] > last][:size])


def _commit(store: MemoryDatastore, writes: list[Write]) -> int | str:
    """The new revision of the last key (0: it is gone), or the key that was in conflict."""
    try:
        store.commit(writes)
    except Conflict as conflict:
        return conflict.key
    found = store.read([Range(writes[-1].key)])[0] if writes else []
    return found[0].revision if found else 0


@record
class State:
    """What an order of calls led to; `schedule` says whose turn each call was."""

    store: MemoryDatastore
    places: tuple[Place, ...]
    schedule: tuple[int, ...]

    @property
    def waiting(self) -> list[int]:
        """The operations that have not come to their end."""
        return [worker for worker, place in enumerate(self.places) if place.call is not None]

    @property
    def results(self) -> list[object]:
        """What each operation returned, or the error that it raised."""
        return [place.result for place in self.places]

    def follow(self, worker: int) -> State:
        """The state after the worker's next call; this one stays as it is."""
        store = self.store.copy()
        place = self.places[worker].go_on(store)
        places = (*self.places[:worker], place, *self.places[worker + 1 :])
        return State(store, places, (*self.schedule, worker))


def begin(store: MemoryDatastore, operations: Sequence[Operation]) -> State:
    """Before the first call of any of them."""
    places = [Place(operation, (), atomic=store.atomic) for operation in operations]
    return State(store, tuple(places), ())


def all_states(first: State) -> Iterator[State]:
    """Every state that any order leads to, those after fewer calls first."""
    queue = deque([first])
    seen = set()
    while queue:
        state = queue.popleft()
        yield state
        for worker in state.waiting:
            following = state.follow(worker)
            key = (*_frozen(following.store.read([Range("", prefix=True)])), following.places)
            if key not in seen:
                seen.add(key)
                queue.append(following)


def run_by_chance(first: State, chance: Random) -> Iterator[State]:
    """The states of one order: who is at it goes on for a while, then another."""
    state, worker = first, 0
    while waiting := state.waiting:
        if worker not in waiting or chance.random() < 0.6:
            worker = chance.choice(waiting)
        state = state.follow(worker)
        yield state
