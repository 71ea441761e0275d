"""A datastore in this process, for tests, simulation and dry runs.

With `atomic=False` it behaves as a store without transactions does: the writes of a commit are
applied one by one in the given order, and a Conflict leaves those before it in place.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort

from cni_ipam.datastore.port import ABSENT, SAME, Entry, Range, Write, collapse
from cni_ipam.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class MemoryDatastore:
    """The port over a dict; any number of threads may use one."""

    def __init__(self, *, atomic: bool = True) -> None:
        self.atomic = atomic
        self._entries: dict[str, Entry] = {}
        self._bare: dict[str, Entry] = {}  # the same without values
        self._keys: list[str] = []  # sorted
        self._revision = 0
        self._watches: list[list[Entry | str]] = []
        self._changed = threading.Condition()
        self._closed = False

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        """See the port: one moment."""
        with self._changed:
            return [self._select(wanted) for wanted in ranges]

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        """See the port: each page is of its own moment."""
        beginning = prefix
        while True:
            with self._changed:
                page = [self._entries[key] for key in self._find_keys(prefix, beginning, size)]
            if not page:
                return
            yield page
            beginning = page[-1].key + "\0"

    def commit(self, writes: Iterable[Write]) -> None:
        """See the port: all or nothing, or in the given order if not `atomic`."""
        with self._changed:
            if self.atomic:
                writes = collapse(writes)
                for write in writes:
                    self._expect(write, ABSENT)
                self._revision += 1
                for write in writes:
                    self._apply(write)
            else:
                written: dict[str, int] = {}
                for write in writes:
                    self._expect(write, written.get(write.key, ABSENT))
                    self._revision += 1
                    self._apply(write)
                    written[write.key] = self._revision if write.value is not None else ABSENT
            self._changed.notify_all()

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        """See the port; ends when the datastore is closed."""
        unseen: list[Entry | str] = []
        with self._changed:
            self._watches.append(unseen)
        return self._follow(prefix, unseen)

    def close(self) -> None:
        """End the watches; what is stored stays readable."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def copy(self) -> MemoryDatastore:
        """Another datastore with the same content and revisions, for what may never happen."""
        with self._changed:
            other = MemoryDatastore(atomic=self.atomic)
            other._entries = dict(self._entries)
            other._bare = dict(self._bare)
            other._keys = list(self._keys)
            other._revision = self._revision
            return other

    def _find_keys(self, prefix: str, beginning: str, size: int | None = None) -> list[str]:
        """The keys from `beginning` on that have the prefix, at most `size`."""
        first = bisect_left(self._keys, beginning)
        # Behind them all, for any key in practice; the loop is for the rest.
        last = bisect_left(self._keys, prefix + "\U0010ffff", first)
        while last < len(self._keys) and self._keys[last].startswith(prefix):
            last += 1
        return self._keys[first : last if size is None else min(last, first + size)]

    def _select(self, wanted: Range) -> list[Entry]:
        if wanted.prefix:
            keys = self._find_keys(wanted.key, wanted.key)
        else:
            keys = [wanted.key] if wanted.key in self._entries else []
        entries = self._bare if wanted.keys_only else self._entries
        return [entries[key] for key in keys]

    def _expect(self, write: Write, written: int) -> None:
        entry = self._entries.get(write.key)
        revision = entry.revision if entry else ABSENT
        if revision != (written if write.expected == SAME else write.expected):
            raise Conflict(write.key)

    def _apply(self, write: Write) -> None:
        change: Entry | str = write.key
        if write.value is not None:
            if write.key not in self._entries:
                insort(self._keys, write.key)
            change = Entry(write.key, write.value, self._revision)
            self._entries[write.key] = change
            self._bare[write.key] = Entry(write.key, "", self._revision)
        elif self._entries.pop(write.key, None):
            del self._bare[write.key]
            del self._keys[bisect_left(self._keys, write.key)]
        else:
            return
        for unseen in self._watches:
            unseen.append(change)

    def _follow(self, prefix: str, unseen: list[Entry | str]) -> Iterator[Entry | str]:
        try:
            while True:
                with self._changed:
                    while not unseen:
                        if self._closed:
                            return
                        self._changed.wait()
                    change = unseen.pop(0)
                key = change if isinstance(change, str) else change.key
                if key.startswith(prefix):
                    yield change
        finally:
            with self._changed:
                self._watches = [watch for watch in self._watches if watch is not unseen]
