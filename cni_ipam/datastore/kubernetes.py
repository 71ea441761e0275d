"""Kubernetes' API server as the datastore: Calico's custom resources, one object at a time.

Nothing here is a transaction. A read asks for each range by itself; a commit writes one object
after the other, in the given order, each only if it still has the revision that was decided on.
Whoever is cut short, or loses a swap in the middle, leaves a prefix, and every prefix is safe
(`datastore/port`).

Blocks, affinities and handles are deleted in two steps, as Calico does: first the object says of
itself that it is deleted, which is the swap, then it goes. One that is marked is gone for all;
who meets it finishes the second step.

A write whose answer is lost is read back: what is as it was to be was applied, what is as it was is
written again, and anything else is a lost swap.
"""

from __future__ import annotations

import _thread
import time

from cni_ipam.datastore.kubernetes_client import Interrupted, LostAnswer, Refused
from cni_ipam.datastore.kubernetes_objects import (
    find_listing,
    find_place,
    is_deleted,
    to_deleted,
    to_entry,
    to_object,
)
from cni_ipam.datastore.kubernetes_records import V1, V3
from cni_ipam.datastore.port import ABSENT, SAME, Entry, Range
from cni_ipam.errors import Conflict, DatastoreUnavailable, InputOutputError
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    from cni_ipam.datastore.kubernetes_client import KubernetesClient
    from cni_ipam.datastore.kubernetes_objects import Listing, Place
    from cni_ipam.datastore.port import Write

    Json = dict[str, Any]
    T = TypeVar("T")

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_OUTDATED = 410
# A list that grows old while its pages are read is begun anew.
_LISTS = 3


class KubernetesDatastore:
    """The port over an API server; nothing is asked of it before the first verb.

    `group` is that of Calico's resources: without one it is the older, unless the API server has
    only the newer."""

    atomic = False

    def __init__(self, client: KubernetesClient, group: str = "") -> None:
        self._client = client
        self._group = group or V1
        self._is_group_certain = bool(group)
        self._objects: dict[str, Json] = {}
        self._lock = _thread.RLock()
        self._closed = False

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        """See the port; one request for each range, or more where it has many objects."""
        with self._lock:
            return [self._read(wanted) for wanted in ranges]

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        """See the port; within a page in order."""
        listing = _get_listing(prefix)
        for page in self._client.list_pages(self._path(listing), listing.selector, size):
            entries = self._read_items(page, listing)
            if entries:
                yield entries

    def commit(self, writes: Iterable[Write]) -> None:
        """See the port: in the given order, each by itself."""
        writes = list(writes)
        places = [_get_place(write.key) for write in writes]
        given: dict[str, int] = {}
        with self._lock:
            for write, place in zip(writes, places, strict=True):
                if write.expected == SAME:
                    write = replace(write, expected=given[write.key])  # noqa: PLW2901
                given[write.key] = self._write(write, place)

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        """See the port; ends when the datastore is closed. Goes on after an interruption; where the
        API server has dropped the history meanwhile, of several changes only the last is seen."""
        listing = _get_listing(prefix)
        entries, revision = self._list(listing)
        return self._follow(listing, {e.key: e.revision for e in entries}, revision)

    def close(self) -> None:
        """Let go of the connections; watches end."""
        self._closed = True
        self._client.close()

    # Reading

    def _read(self, wanted: Range) -> list[Entry]:
        if wanted.prefix:
            found = self._served(lambda: self._list(_get_listing(wanted.key)))[0]
        else:
            place = find_place(wanted.key, to_read=True)
            entry = self._served(lambda: self._find(place)) if place else None
            found = [entry] if entry else []
        if wanted.keys_only:
            return [Entry(entry.key, "", entry.revision) for entry in found]
        return found

    def _find(self, place: Place) -> Entry | None:
        """The record of a place; None if there is none, or another record's object."""
        found = self._client.find(place.path(self._group))
        if found is None:
            return None
        entry = self._translate(found, place.key)
        if entry is None:
            self._finish_removal(found, place)
        return entry if entry and entry.key == place.key else None

    def _list(self, listing: Listing) -> tuple[list[Entry], str]:
        """The records of a listing, in order, and the revision of the list."""
        for _ in range(_LISTS):
            entries: list[Entry] = []
            revision = ""
            try:
                for page in self._client.list_pages(self._path(listing), listing.selector):
                    entries += self._read_items(page, listing)
                    revision = str((page.get("metadata") or {}).get("resourceVersion", ""))
            except Refused as refused:
                if refused.status != _OUTDATED:
                    raise
            else:
                return sorted(entries, key=_key_of), revision
        raise DatastoreUnavailable(
            f"the list of {listing.resource} grew old while it was read, {_LISTS} times",
            "the same call can succeed later",
        )

    def _read_items(self, page: Json, listing: Listing) -> list[Entry]:
        found = []
        for item in page.get("items") or ():
            name = (item.get("metadata") or {}).get("name", "")
            entry = self._translate(item, listing.prefix + name, listing.kind)
            if entry is not None and listing.covers(entry.key):
                found.append(entry)
        return sorted(found, key=_key_of)

    def _translate(self, found: Json, key: str, kind: str = "") -> Entry | None:
        """The record of an object. One that is no record is left to the codec, which refuses it."""
        try:
            entry = to_entry(found, self._group, kind)
        except ValueError as error:
            return Entry(key, f"not a record: {error}", ABSENT)
        if entry is not None:
            self._objects[entry.key] = found
        return entry

    def _path(self, listing: Listing) -> str:
        return listing.path(self._group)

    def _served(self, step: Callable[[], T]) -> T:
        """What `step` returns. Where the API server does not know the older group, and nobody has
        named one, the newer is tried. Raises DatastoreUnavailable if it has neither."""
        try:
            return step()
        except Refused as refused:
            missing = DatastoreUnavailable(
                f"the API server has no resources of {self._group}: {refused.message}",
                "apply the definitions in conf/crds",
            )
            if self._is_group_certain:
                raise missing from refused
        self._is_group_certain = True
        try:
            self._client.ask("GET", f"/apis/{V3}")
        except Refused:
            raise missing from None
        self._group = V3
        return self._served(step)

    # Writing

    def _write(self, write: Write, place: Place) -> int:
        """Apply one write; the revision that it gave. Raises Conflict."""
        is_doubtful = False
        for _ in range(_ATTEMPTS):
            try:
                return self._try(write, place)
            except LostAnswer:
                is_doubtful = True
                landed = self._find_landed(write, place)
            except Conflict:
                landed = self._find_landed(write, place) if is_doubtful else None
                if landed is None:
                    raise
            if landed is not None:
                return landed
        raise DatastoreUnavailable(
            f"the API server's answer to a write was lost {_ATTEMPTS} times",
            "it may be recorded or not; the call can be repeated",
        )

    def _try(self, write: Write, place: Place) -> int:
        try:
            if write.expected == ABSENT:
                done = self._create(write, place)
            elif write.value is None:
                return self._remove(self._get_existing(write, place), place)
            else:
                existing = self._get_existing(write, place)
                changed = to_object(write.key, write.value, self._group, existing=existing)
                done = self._client.ask("PUT", place.path(self._group), changed)
        except Refused as refused:
            if refused.status == 404 and write.expected == ABSENT:
                message = f"the API server refuses {write.key}: {refused.message}"
                raise InputOutputError(message) from refused
            raise Conflict(write.key) from refused
        self._objects[write.key] = done
        return int(done["metadata"]["resourceVersion"])

    def _create(self, write: Write, place: Place) -> Json:
        made = to_object(write.key, write.value or "", self._group)
        try:
            return self._client.ask("POST", place.collection(self._group), made)
        except Refused as refused:
            if refused.status != 409:
                raise
            entry = self._find(place)
            found = self._client.find(place.path(self._group)) if entry is None else None
        if found is not None:
            raise InputOutputError(
                f"{write.key} cannot be recorded: {place.name} is another record's object",
                "names that differ only in case are one name there; choose another one",
            )
        raise Conflict(write.key)

    def _get_existing(self, write: Write, place: Place) -> Json:
        """The object at the expected revision. Raises Conflict if it has another one."""
        known = self._objects.get(write.key)
        if known is None or known["metadata"]["resourceVersion"] != str(write.expected):
            known = self._client.find(place.path(self._group))
        if known is None or known["metadata"]["resourceVersion"] != str(write.expected):
            raise Conflict(write.key)
        return known

    def _remove(self, existing: Json, place: Place) -> int:
        if place.is_deleted_in_two_steps:
            marked = to_deleted(existing, self._group)
            existing = self._client.ask("PUT", place.path(self._group), marked)
            self._finish_removal(existing, place)
        else:
            self._client.ask("DELETE", place.path(self._group), _only(existing, "resourceVersion"))
        self._objects.pop(place.key, None)
        return int(existing["metadata"]["resourceVersion"])

    def _finish_removal(self, found: Json, place: Place) -> None:
        """Remove an object that says of itself that it is deleted; whoever was faster did it."""
        try:
            if place.is_deleted_in_two_steps and is_deleted(found):
                self._client.ask("DELETE", place.path(self._group), _only(found))
        except (Refused, LostAnswer):
            return

    def _find_landed(self, write: Write, place: Place) -> int | None:
        """The revision that a write whose answer was lost has given; None if it was not applied,
        or if others have written since."""
        entry = self._find(place)
        if write.value is None or entry is None:
            return ABSENT if write.value is None and entry is None else None
        is_applied = entry.value == write.value and entry.revision != write.expected
        return entry.revision if is_applied else None

    # Watching

    def _follow(
        self, listing: Listing, known: dict[str, int], revision: str
    ) -> Iterator[Entry | str]:
        pause = 0.0
        query = f"?watch=1&allowWatchBookmarks=true&labelSelector={listing.selector}"
        while not self._closed:
            path = f"{self._path(listing)}{query}&resourceVersion={revision}"
            try:
                for event in self._client.stream(path):
                    if event.get("type") == "ERROR":
                        raise Interrupted  # noqa: TRY301 - as if the server had hung up
                    pause = 0.0
                    revision = event["object"]["metadata"]["resourceVersion"]
                    yield from self._note(event, listing, known)
            except Interrupted:
                time.sleep(pause)
                pause = min(pause + _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            if not self._closed:
                entries, revision = self._list(listing)
                yield from _catch_up(entries, known)

    def _note(self, event: Json, listing: Listing, known: dict[str, int]) -> Iterator[Entry | str]:
        """What a watch tells of an event; an object that is marked as deleted is gone already."""
        if event["type"] == "BOOKMARK":
            return
        found = event["object"]
        entry = self._translate(found, listing.prefix, listing.kind)
        if entry is None or event["type"] == "DELETED":
            name = found["metadata"]["name"]
            for key in [key for key in known if _get_place(key).name == name]:
                del known[key]
                yield key
        elif listing.covers(entry.key) and known.get(entry.key) != entry.revision:
            known[entry.key] = entry.revision
            yield entry


def _get_place(key: str) -> Place:
    """Where the object of a key lies. Raises NetconfError for a name that cannot be."""
    place = find_place(key)
    if place is None:
        raise InputOutputError(f"Kubernetes has no object for {key}")
    return place


def _get_listing(prefix: str) -> Listing:
    listing = find_listing(prefix)
    if listing is None:
        raise InputOutputError(f"Kubernetes has no list of what begins with {prefix}")
    return listing


def _key_of(entry: Entry) -> str:
    return entry.key


def _only(found: Json, *further: str) -> Json:
    """The body of a removal of just this object."""
    wanted = {name: found["metadata"][name] for name in ("uid", *further)}
    return {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": wanted}


def _catch_up(entries: list[Entry], known: dict[str, int]) -> Iterator[Entry | str]:
    """What differs between what was known and what is there."""
    former = dict(known)
    known.clear()
    known.update({entry.key: entry.revision for entry in entries})
    yield from sorted(former.keys() - known.keys())
    yield from [entry for entry in entries if former.get(entry.key) != entry.revision]
