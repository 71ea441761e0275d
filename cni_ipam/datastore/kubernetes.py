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

import time

from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes_client import (
    Interrupted,
    LostAnswer,
    Refused,
    UnknownFields,
)
from cni_ipam.datastore.kubernetes_objects import (
    find_place,
    refuse_read_only,
    to_deleted,
    to_object,
)
from cni_ipam.datastore.kubernetes_reader import KubernetesReader, get_listing, only
from cni_ipam.datastore.kubernetes_resources import omit_defaults
from cni_ipam.datastore.port import ABSENT, SAME, catch_up
from cni_ipam.errors import Conflict, DatastoreUnavailable, InputOutputError
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from cni_ipam.datastore.kubernetes_objects import Listing, Place
    from cni_ipam.datastore.port import Entry, Write

    Json = dict[str, Any]

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_TAKEN = 409
# Without it the API server drops what its definition lacks, and says that all went well: a pool
# whose selector is dropped is everybody's.
_STRICT = "?fieldValidation=Strict"


class KubernetesDatastore(KubernetesReader):
    """The port over an API server."""

    atomic = False

    def commit(self, writes: Iterable[Write]) -> None:
        """See the port: in the given order, each by itself."""
        writes = list(writes)
        places = [_get_place(write.key) for write in writes]
        for place in places:
            refuse_read_only(place)
        given: dict[str, int] = {}
        with self._lock:
            for write, place in zip(writes, places, strict=True):
                if write.expected == SAME:
                    write = replace(write, expected=given[write.key])  # noqa: PLW2901
                given[write.key] = self._write(write, place)

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        """See the port; ends when the datastore is closed. Goes on after an interruption; where the
        API server has dropped the history meanwhile, of several changes only the last is seen."""
        listing = get_listing(prefix)
        entries, revision = self._list(listing)
        changes = self._follow(listing, {e.key: e.revision for e in entries}, revision)
        return _skip_heartbeats(changes, entries) if prefix == keys.NODES else changes

    def close(self) -> None:
        """Let go of the connections; watches end."""
        self._closed = True
        self._client.close()

    # Writing

    def _write(self, write: Write, place: Place) -> int:
        """Apply one write; the revision that it gave. Raises Conflict."""
        lost: LostAnswer | None = None
        for number in range(_ATTEMPTS):
            try:
                return self._try(write, place)
            except LostAnswer as error:
                lost = error
                landed = self._served(self._find_landed, write, place)
            except Conflict:
                landed = self._served(self._find_landed, write, place) if lost else None
                if landed is None:
                    raise
            if landed is not None:
                return landed
            time.sleep(_PAUSE_SECONDS * number)
        raise DatastoreUnavailable(
            f"the API server does not take {write.key}: {lost}",
            f"tried {_ATTEMPTS} times; the same call can succeed later",
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
                done = self._send("PUT", place.path(self._group), changed, place)
        except Refused as refused:
            raise Conflict(write.key) from refused
        revision = _revision_of(done)
        if not revision.isdecimal():
            raise LostAnswer("what it answers to a write is not the object")
        self._objects[write.key] = done
        return int(revision)

    def _create(self, write: Write, place: Place) -> Json:
        """The object as it was created. Raises Conflict, or Refused; InputOutputError if another
        record's object has the name."""
        try:
            return self._served(self._post, write, place)
        except Refused as refused:
            if refused.status != _TAKEN:
                raise
        found = self._client.find(place.path(self._group))
        if found is None:
            raise Conflict(write.key)
        entry = self._translate(found, place)
        if entry is None:
            self._finish_removal(found, place)
            return self._post(write, place)
        if entry.key != write.key:
            raise InputOutputError(
                f"{write.key} cannot be recorded: the object {place.name} is that of {entry.key}",
                "names that differ only in case are one name there; choose another one",
            )
        if place.resource == "blockaffinities":
            self._label(entry)  # else who decides by lists would try to create it for ever
        raise Conflict(write.key)

    def _post(self, write: Write, place: Place) -> Json:
        made = to_object(write.key, write.value or "", self._group)
        return self._send("POST", place.collection(self._group), made, place)

    def _send(self, method: str, path: str, made: Json, place: Place) -> Json:
        """The object as it was written, whole if need be. Raises UnknownFields, and as `ask`."""
        if place.takes_unknown_fields:
            return self._client.ask(method, path, made)
        path += _STRICT
        try:
            return self._client.ask(method, path, made)
        except UnknownFields as unknown:
            # Every pool says its assignmentMode, which older definitions lack.
            shorter = omit_defaults(made, unknown.fields)
            if shorter is None:
                raise
        return self._client.ask(method, path, shorter)

    def _get_existing(self, write: Write, place: Place) -> Json:
        """The object at the expected revision. Raises Conflict if it has another one."""
        known = self._objects.get(write.key)
        if _revision_of(known) != str(write.expected):
            known = self._client.find(place.path(self._group))
        if known is None or _revision_of(known) != str(write.expected):
            raise Conflict(write.key)
        return known

    def _remove(self, existing: Json, place: Place) -> int:
        if place.is_deleted_in_two_steps:
            marked = to_deleted(existing, self._group)
            existing = self._client.ask("PUT", place.path(self._group), marked)
            self._finish_removal(existing, place)
        else:
            self._client.ask("DELETE", place.path(self._group), only(existing, "resourceVersion"))
        self._objects.pop(place.key, None)
        return int(_revision_of(existing) or ABSENT)

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
        while not self._closed:
            try:
                for event in self._client.watch(self._path(listing), listing.selector, revision):
                    pause = 0.0
                    yield from self._note(event, listing, known)
            except Interrupted:
                time.sleep(pause)
                pause = min(pause + _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            if self._closed:
                return
            try:
                entries, revision = self._list(listing)
            except DatastoreUnavailable:
                continue
            yield from catch_up(entries, known)

    def _note(self, event: Json, listing: Listing, known: dict[str, int]) -> Iterator[Entry | str]:
        """What a watch tells of an event; an object that is marked as deleted is gone already."""
        entry = self._translate(event["object"], listing)
        if entry is None or event["type"] == "DELETED":
            name = event["object"]["metadata"]["name"]
            for key in [key for key in known if _get_place(key).name == name]:
                del known[key]
                yield key
        elif listing.covers(entry.key) and known.get(entry.key) != entry.revision:
            known[entry.key] = entry.revision
            yield entry


def _skip_heartbeats(
    changes: Iterator[Entry | str], entries: Iterable[Entry]
) -> Iterator[Entry | str]:
    """The changes without those that leave a record as it was, given the `entries` of before: a
    node's object changes with each heartbeat of its kubelet, of which the record says nothing."""
    values = {entry.key: entry.value for entry in entries}
    for change in changes:
        if isinstance(change, str):
            values.pop(change, None)
            yield change
        elif values.get(change.key) != change.value:
            values[change.key] = change.value
            yield change


def _get_place(key: str) -> Place:
    """Where the object of a key lies. Raises NetconfError for a name that cannot be."""
    place = find_place(key)
    if place is None:
        raise InputOutputError(f"Kubernetes has no object for {key}")
    return place


def _revision_of(found: Json | None) -> str:
    revision = ((found or {}).get("metadata") or {}).get("resourceVersion")
    return revision if isinstance(revision, str) else ""
