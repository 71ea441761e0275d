"""What a datastore is: four verbs over keys and values, and one rule.

*Every prefix is safe.* A commit is a list of writes. A store with transactions applies all of it
or none; a store without them (Kubernetes) applies it in the given order and may die in between.
So whoever makes such a list orders it in a way that each prefix of it, left alone for ever,
keeps the datastore sound and gives no address twice. That is one code path for four stores.

A write names the revision on which its decision was made: 0 says that the key must not exist.
A key may be written twice in one commit (an affinity: `pending`, later `confirmed`): the later
write expects SAME, the revision that the earlier one gave. Transactional adapters keep only the
outcome of such a pair (`collapse`).

Values are JSON texts, to the byte those that Calico keeps in etcd; an adapter that stores them in
another shape translates. Revisions grow whenever a key is written, are never reused, and
mean nothing beyond "unchanged since".
"""

from __future__ import annotations

from cni_ipam.lean.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol
else:
    Protocol = object

ABSENT = 0
SAME = -1


@record
class Entry:
    """A key with its value at one revision."""

    key: str
    value: str
    revision: int


@record
class Write:
    """Put `value` under `key`, or remove the key if it is None, if it is at `expected`."""

    key: str
    value: str | None
    expected: int


@record
class Range:
    """Part of the key space: one key, or with `prefix` every key that begins with it, in order."""

    key: str
    prefix: bool = False
    keys_only: bool = False


class Datastore(Protocol):
    """The four verbs. All raise DatastoreUnavailable, InputOutputError or CorruptRecord."""

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        """The entries of each range, all from one moment where the store can; one request.

        With `keys_only` the values are empty texts."""

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        """The entries whose key begins with `prefix`, in order, at most `size` at a time."""

    def commit(self, writes: Iterable[Write]) -> None:
        """Apply `writes`. Raises Conflict if a key is not at its expected revision."""

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        """Changes under `prefix` from now on: an Entry for a put, the key alone for a removal."""

    def close(self) -> None:
        """Let go of files and connections."""


def collapse(writes: Iterable[Write]) -> list[Write]:
    """One write per key: the first expectation with the last value, in the order of the last."""
    outcome: dict[str, Write] = {}
    for write in writes:
        earlier = outcome.pop(write.key, None)
        outcome[write.key] = replace(write, expected=earlier.expected) if earlier else write
    return list(outcome.values())


def catch_up(entries: list[Entry], known: dict[str, int]) -> Iterator[Entry | str]:
    """What a watch tells that has missed something: the difference between the revisions that were
    `known` and the `entries` that are there, which are known from then on."""
    former = dict(known)
    known.clear()
    known.update({entry.key: entry.revision for entry in entries})
    yield from sorted(former.keys() - known.keys())
    yield from [entry for entry in entries if former.get(entry.key) != entry.revision]
