"""etcd over its v3 JSON gateway: many nodes on one datastore, Calico's among them.

A read is one transaction of ranges, a commit one transaction that compares revisions. etcd allows
128 operations in each: a longer read goes on at the revision of its first part, and a longer commit
is cut in its given order, in which every prefix is safe.

A commit whose answer is lost is read back. If every key is as it was to be, it was applied; else
the transaction is sent again, and its comparisons decide: an earlier copy of it that arrives late
fails, and one that came first makes this one fail, after which what is there is looked at once
more. What still cannot be told, since others have written meanwhile, is a lost swap like any other:
the engine reads again, and finds its own work if it was done.
"""

from __future__ import annotations

import _thread
import time
from binascii import a2b_base64, b2a_base64

from cni_ipam.datastore.etcd_client import (
    BUDGET_SECONDS,
    Canceled,
    Compacted,
    EtcdClient,
    Interrupted,
    LostAnswer,
)
from cni_ipam.datastore.port import ABSENT, SAME, Entry, Range, catch_up, collapse
from cni_ipam.errors import Conflict, DatastoreUnavailable
from cni_ipam.lean.http import Credentials
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from cni_ipam.datastore.port import Write
    from cni_ipam.lean.http import Endpoint

    Json = dict[str, Any]

MAX_OPERATIONS = 128
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_TXN = "/v3/kv/txn"


class EtcdDatastore:
    """The port over an etcd cluster; nothing is asked of it before the first verb.

    A user without a name means that etcd has none. See `EtcdClient` for budgets."""

    atomic = True

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        credentials: Credentials | None = None,
        username: str = "",
        password: str = "",
        *,
        budget_seconds: float = BUDGET_SECONDS,
        is_short_lived: bool = False,
    ) -> None:
        self._client = EtcdClient(
            endpoints,
            credentials or Credentials(),
            username,
            password,
            budget_seconds=budget_seconds,
            is_short_lived=is_short_lived,
        )
        self._lock = _thread.RLock()
        self._closed = False

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        """See the port: one moment, also where there are more ranges than one request takes."""
        for _ in range(_ATTEMPTS):
            try:
                return self._read(ranges)[0]
            except Compacted:
                continue
        raise DatastoreUnavailable(
            "etcd drops each revision while it is being read (compacted)",
            "compact it less often: it should keep the history of some minutes",
        )

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        """See the port: each page is of its own moment."""
        wanted = {**_prefix(prefix), "limit": str(size)}
        while True:
            answer = self._post("/v3/kv/range", wanted)
            page = _entries(answer)
            if page:
                yield page
                wanted["key"] = _encode(page[-1].key + "\0")
            if not answer.get("more"):
                return

    def commit(self, writes: Iterable[Write]) -> None:
        """See the port: one transaction, or several in the given order if there are too many."""
        writes = list(writes)
        outcome = collapse(writes)
        if len(outcome) <= MAX_OPERATIONS:
            parts = [outcome] if outcome else []
        else:
            parts = [writes[i : i + MAX_OPERATIONS] for i in range(0, len(writes), MAX_OPERATIONS)]
        given: dict[str, int] = {}
        for part in parts:
            known = [
                replace(w, expected=given[w.key]) if w.expected == SAME and w.key in given else w
                for w in part
            ]
            revision = self._commit(collapse(known))
            given.update({write.key: revision for write in part})

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        """See the port; ends when the datastore is closed. Goes on after an interruption, however
        long; where etcd has dropped the history meanwhile, of several changes of a key only the
        last is seen. Raises Unauthorized if etcd no longer lets us."""
        (entries,), revision = self._read([Range(prefix, prefix=True, keys_only=True)])
        return self._follow(prefix, {entry.key: entry.revision for entry in entries}, revision)

    def close(self) -> None:
        """Let go of the connections; watches end."""
        self._closed = True
        self._client.close()

    def _post(self, path: str, message: Json) -> Json:
        with self._lock:
            return self._client.post(path, message)

    def _read(self, ranges: Sequence[Range]) -> tuple[list[list[Entry]], int]:
        """The entries of each range, and the revision at which they are."""
        found: list[list[Entry]] = []
        revision = 0
        for i in range(0, len(ranges), MAX_OPERATIONS):
            part = [_range(wanted, revision) for wanted in ranges[i : i + MAX_OPERATIONS]]
            answer = self._post(_TXN, {"success": [{"request_range": r} for r in part]})
            revision = revision or _revision(answer)
            found += [_entries(r.get("response_range", {})) for r in answer["responses"]]
        return found, revision

    def _commit(self, writes: Sequence[Write]) -> int:
        """Apply `writes`; the revision that they have then. Raises Conflict."""
        message = {
            "compare": [_compare(write) for write in writes],
            "success": [_operation(write) for write in writes],
            "failure": [
                {"request_range": {"key": _encode(write.key), "keys_only": True}}
                for write in writes
            ],
        }
        is_doubtful = False
        for _ in range(_ATTEMPTS):
            try:
                with self._lock:
                    answer = self._client.post(_TXN, message, is_write=True)
            except LostAnswer:
                is_doubtful = True
                if revision := self._find_landed(writes):
                    return revision
                continue
            if answer.get("succeeded"):
                return _revision(answer)
            if is_doubtful and (revision := self._find_landed(writes)):
                return revision
            raise Conflict(_find_lost(writes, answer))
        raise DatastoreUnavailable(
            f"etcd's answer to a write was lost {_ATTEMPTS} times",
            "it may be recorded or not; the call can be repeated",
        )

    def _find_landed(self, writes: Sequence[Write]) -> int:
        """The revision at which `writes` were applied; 0 if they were not, or if others have
        written since."""
        found, revision = self._read([Range(write.key) for write in writes])
        if not all(map(_is_applied, writes, found)):
            return 0
        return max([entries[0].revision for entries in found if entries], default=revision)

    def _follow(self, prefix: str, known: dict[str, int], revision: int) -> Iterator[Entry | str]:
        pause = 0.0
        is_behind = False
        while not self._closed:
            try:
                if is_behind:
                    (entries,), revision = self._read([Range(prefix, prefix=True)])
                    is_behind = False
                    yield from catch_up(entries, known)
                with self._lock:
                    self._client.log_in()
                request = {**_prefix(prefix), "start_revision": str(revision + 1)}
                for answer in self._client.stream("/v3/watch", {"create_request": request}):
                    pause = 0.0
                    for event in answer.get("events", ()):
                        revision = int(event["kv"]["mod_revision"])
                        yield _note(event, known)
            except (Compacted, Canceled):
                is_behind = True
            except (Interrupted, DatastoreUnavailable):
                self._client.move_on()
            time.sleep(pause)
            pause = min(pause + _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)


def _encode(text: str) -> str:
    return b2a_base64(text.encode("utf-8", "surrogateescape"), newline=False).decode()


def _decode(text: str) -> str:
    """A value that is not UTF-8 is left to the codec, which refuses it under its key."""
    return a2b_base64(text).decode("utf-8", "surrogateescape")


def _prefix(prefix: str) -> Json:
    """The range of all keys with that prefix; no key of etcd's is empty, so "" stands for all."""
    if not prefix:
        return {"key": "AA==", "range_end": "AA=="}
    return {"key": _encode(prefix), "range_end": _encode(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def _range(wanted: Range, revision: int) -> Json:
    message: Json = _prefix(wanted.key) if wanted.prefix else {"key": _encode(wanted.key)}
    if wanted.keys_only:
        message["keys_only"] = True
    if revision:
        message["revision"] = str(revision)
    return message


def _entry(kv: Json) -> Entry:
    return Entry(_decode(kv["key"]), _decode(kv.get("value", "")), int(kv["mod_revision"]))


def _entries(response: Json) -> list[Entry]:
    return [_entry(kv) for kv in response.get("kvs", ())]


def _revision(answer: Json) -> int:
    return int(answer["header"]["revision"])


def _compare(write: Write) -> Json:
    """A key that does not exist has the revision 0."""
    return {
        "key": _encode(write.key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(write.expected),
    }


def _operation(write: Write) -> Json:
    key = _encode(write.key)
    if write.value is None:
        return {"request_delete_range": {"key": key}}
    return {"request_put": {"key": key, "value": _encode(write.value)}}


def _find_lost(writes: Sequence[Write], answer: Json) -> str:
    """The key whose comparison failed."""
    for write, response in zip(writes, answer["responses"], strict=True):
        entries = _entries(response.get("response_range", {}))
        if write.expected != (entries[0].revision if entries else ABSENT):
            return write.key
    return writes[0].key


def _is_applied(write: Write, entries: list[Entry]) -> bool:
    if write.value is None or not entries:
        return write.value is None and not entries
    return entries[0].value == write.value and entries[0].revision != write.expected


def _note(event: Json, known: dict[str, int]) -> Entry | str:
    """What a watch tells of an event."""
    entry = _entry(event["kv"])
    if event.get("type") == "DELETE":
        known.pop(entry.key, None)
        return entry.key
    known[entry.key] = entry.revision
    return entry
