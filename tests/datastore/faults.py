"""A datastore whose process dies at a chosen write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_ipam.datastore.port import Entry, Range, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_ipam.datastore.port import Datastore


class Stopped(BaseException):
    """The process is dead: nothing that catches errors may catch this."""


class StoppingDatastore:
    """Passes everything on to `store`, and dies before or after the write number `stop_at`.

    Writes are counted from 1 over the whole run. Where `store` is atomic, a commit happens as a
    whole or not at all: death before any of its writes is death before it, death after any of them
    is death after it. Where it is not, the writes before the stop are applied.

    A dead datastore stays dead: each further call raises Stopped. `reads`, `commits` and `writes`
    say how many requests, commits and writes there have been.
    """

    def __init__(
        self,
        store: Datastore,
        stop_at: int | None = None,
        *,
        after: bool = False,
        atomic: bool | None = None,
    ) -> None:
        self.store = store
        self.atomic = getattr(store, "atomic", True) if atomic is None else atomic
        self.reads = 0
        self.commits = 0
        self.writes = 0
        self.stopped = False
        self._stop_at = stop_at
        self._after = after

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        self._require_life()
        self.reads += 1
        return self.store.read(ranges)

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        self._require_life()
        for page in self.store.pages(prefix, size):
            self._require_life()
            self.reads += 1
            yield page

    def commit(self, writes: Iterable[Write]) -> None:
        self._require_life()
        writes = list(writes)
        self.commits += 1
        former, self.writes = self.writes, self.writes + len(writes)
        if self._stop_at is None or not former < self._stop_at <= self.writes:
            self.store.commit(writes)
            return
        applied = self._stop_at - former - (0 if self._after else 1)
        if self.atomic:
            applied = len(writes) if self._after else 0
        self.store.commit(writes[:applied])
        self.stopped = True
        self._require_life()

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        self._require_life()
        return self.store.watch(prefix)

    def close(self) -> None:
        self.store.close()

    def _require_life(self) -> None:
        if self.stopped:
            where = "after" if self._after else "before"
            raise Stopped(f"dead since {where} write {self._stop_at}")
