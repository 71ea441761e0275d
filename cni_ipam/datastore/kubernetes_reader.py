"""What an API server holds, as the port's entries: single objects, lists, pages; by which group.

An object that cannot be translated hides no other one: it is handed on as a text that the codec
refuses, under the key that it is named after.
"""

from __future__ import annotations

import _thread

from cni_ipam.datastore.codec import NO_RECORD
from cni_ipam.datastore.kubernetes_client import PAGE_LIMIT, LostAnswer, Refused
from cni_ipam.datastore.kubernetes_objects import (
    Place,
    find_listing,
    find_place,
    is_deleted,
    to_entry,
    to_object,
)
from cni_ipam.datastore.kubernetes_records import UNLABELLED, V1, V3
from cni_ipam.datastore.port import ABSENT, Entry, Range
from cni_ipam.errors import CniIpamError, DatastoreUnavailable, InputOutputError, Unauthorized
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from cni_ipam.datastore.kubernetes_client import KubernetesClient
    from cni_ipam.datastore.kubernetes_objects import Listing

    Json = dict[str, Any]
    T = TypeVar("T")

_MISSING, _OUTDATED = 404, 410
# A list that grows old while its pages are read is begun anew.
_LISTS = 3
# What was read is kept for the write that follows, not for ever.
_KEPT_OBJECTS = 2000


class KubernetesReader:
    """The half of the port that reads; nothing is asked of the API server before the first verb.

    `group` is that of Calico's resources: without one it is the older, unless the API server has
    only the newer."""

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
            if len(self._objects) > _KEPT_OBJECTS:
                self._objects.clear()
            return [self._read(wanted) for wanted in ranges]

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        """See the port; within a page in order."""
        listing = get_listing(prefix)
        given: set[str] = set()
        for _ in range(_LISTS):
            try:
                for page in self._pages(listing, size):
                    found = self._read_items(page, listing)
                    entries = [entry for entry in found if entry.key not in given]
                    given.update([entry.key for entry in entries])
                    if entries:
                        yield entries
            except Refused as refused:
                _require_outdated(refused)
            else:
                return
        raise _grew_old(listing)

    def _read(self, wanted: Range) -> list[Entry]:
        if wanted.prefix:
            listing = get_listing(wanted.key)
            found = self._list(listing)[0] or self._list_unlabelled(listing)
        else:
            place = find_place(wanted.key, to_read=True)
            entry = self._served(self._find, place) if place else None
            found = [entry] if entry else []
        if wanted.keys_only:
            return [Entry(entry.key, "", entry.revision) for entry in found]
        return found

    def _find(self, place: Place) -> Entry | None:
        """The record of a place; None if there is none, or another record's object."""
        found = self._client.find(place.path(self._group))
        if found is None:
            return None
        entry = self._translate(found, place)
        if entry is None:
            try:
                self._finish_removal(found, place)
            except CniIpamError:  # who may only read leaves it to the next one
                return None
        return entry if entry and entry.key == place.key else None

    def _list(self, listing: Listing) -> tuple[list[Entry], str]:
        """The records of a listing, in order, and the revision of the list."""
        for _ in range(_LISTS):
            entries: list[Entry] = []
            revision = ""
            try:
                for page in self._pages(listing, PAGE_LIMIT):
                    entries += self._read_items(page, listing)
                    revision = str((page.get("metadata") or {}).get("resourceVersion", ""))
            except Refused as refused:
                _require_outdated(refused)
            else:
                return sorted(entries, key=_key_of), revision
        raise _grew_old(listing)

    def _list_unlabelled(self, listing: Listing) -> list[Entry]:
        """A host's affinities from before Calico 3.31, which lists by its labels find from now on.

        Asked for where these find none: a node that changes over from such a version to ours."""
        if not listing.selector:
            return []
        found = self._list(replace(listing, selector=UNLABELLED))[0]
        return [self._label(entry) for entry in found]

    def _label(self, entry: Entry) -> Entry:
        """Give an affinity the labels by which lists find it; as it is then. Whoever may not do
        that, or is too slow, leaves it to the next one."""
        place, existing = find_place(entry.key, to_read=True), self._objects.get(entry.key)
        if place is None or existing is None:
            return entry
        labelled = to_object(entry.key, entry.value, self._group, existing=existing)
        if labelled["metadata"]["labels"] == existing["metadata"].get("labels"):
            return entry
        try:
            done = self._client.ask("PUT", place.path(self._group), labelled)
        except (CniIpamError, LostAnswer, Refused):
            return entry
        return self._translate(done, place) or entry

    def _pages(self, listing: Listing, size: int) -> Iterator[Json]:
        """The lists that make up a whole one. Raises Refused when that has grown too old."""
        following = ""
        while True:
            with self._lock:
                page = self._served(self._get_page, listing, size, following)
            yield page
            following = (page.get("metadata") or {}).get("continue") or ""
            if not following:
                return

    def _get_page(self, listing: Listing, size: int, following: str) -> Json:
        return self._client.get_page(self._path(listing), listing.selector, size, following)

    def _read_items(self, page: Json, listing: Listing) -> list[Entry]:
        found = [self._translate(item, listing) for item in page.get("items") or ()]
        return sorted([e for e in found if e and listing.covers(e.key)], key=_key_of)

    def _translate(self, found: Json, asked: Place | Listing) -> Entry | None:
        """The record of an object. One that is no record is left to the codec, which refuses it."""
        try:
            entry = to_entry(found, self._group, "" if isinstance(asked, Place) else asked.kind)
        except ValueError as error:
            from cni_ipam.datastore.kubernetes_faults import name_key

            if isinstance(asked, Place):
                key = asked.key
            else:
                key = name_key(found, asked.resource, asked.prefix)
            return Entry(key, f"{NO_RECORD}{error}", ABSENT)
        if entry is not None:
            self._objects[entry.key] = found
        return entry

    def _path(self, listing: Listing) -> str:
        return listing.path(self._group)

    def _served(self, step: Callable[..., T], *arguments: Any) -> T:
        """What `step` returns. Where the API server does not know the older group, and nobody has
        named one, the newer is tried. Raises DatastoreUnavailable if it has neither."""
        error: CniIpamError
        try:
            return step(*arguments)
        except Refused as refused:
            if refused.status != _MISSING:
                raise
            error = DatastoreUnavailable(
                f"the API server has no such resources of {self._group}: {refused.message}",
                "apply the definitions in conf/crds",
            )
        except Unauthorized as unauthorized:
            # Rights are looked at first: a role may name the newer group alone.
            error = unauthorized
        try:
            is_elsewhere = not self._is_group_certain and self._has_only_newer()
        except Unauthorized:  # of our own question; the first refusal says more
            is_elsewhere = False
        if not is_elsewhere:
            raise error
        return self._served(step, *arguments)

    def _has_only_newer(self) -> bool:
        """Whether the newer group is the one to use; not where the older is there as well, for
        then the newer is that of Calico's own API server, and has no blocks."""
        if self._client.is_served(f"/apis/{V1}"):
            self._is_group_certain = True
        elif self._client.is_served(f"/apis/{V3}"):
            self._is_group_certain, self._group = True, V3
        return self._group == V3

    def _finish_removal(self, found: Json, place: Place) -> None:
        """Remove an object that says of itself that it is deleted; whoever was faster did it."""
        try:
            if place.is_deleted_in_two_steps and is_deleted(found):
                self._client.ask("DELETE", place.path(self._group), only(found))
        except (Refused, LostAnswer):
            return


def get_listing(prefix: str) -> Listing:
    """How to list a prefix. Raises InputOutputError for one that is not listed."""
    listing = find_listing(prefix)
    if listing is None:
        raise InputOutputError(f"Kubernetes has no list of what begins with {prefix}")
    return listing


def _key_of(entry: Entry) -> str:
    return entry.key


def _require_outdated(refused: Refused) -> None:
    """Raises `refused` unless it says that a list has grown too old to be read on."""
    if refused.status != _OUTDATED:
        raise refused


def _grew_old(listing: Listing) -> DatastoreUnavailable:
    return DatastoreUnavailable(
        f"the list of {listing.resource} grew old while it was read, {_LISTS} times",
        "the same call can succeed later",
    )


def only(found: Json, *further: str) -> Json:
    """The body of a removal of just this object."""
    wanted = {name: found["metadata"][name] for name in ("uid", *further)}
    return {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": wanted}
