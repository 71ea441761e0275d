"""What is done to one object: get, create, update, apply, patch. `deletion` is a room of its own.

Every change is decided on the record as it was read and stored only if that is still its revision.
Where the object names a `resourceVersion`, that is the one that it must have.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cni_ipam.core.names import format_errors
from cni_ipam.ctl.documents import check_document
from cni_ipam.datastore import codec
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import (
    AlreadyExists,
    Conflict,
    CorruptRecord,
    NotFound,
    OperatorError,
    ValidationError,
)
from cni_ipam.ipam.retry import retry

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni_ipam.ctl.resources import Kind, Resource
    from cni_ipam.datastore.port import Datastore, Entry

_KEPT_AT_CREATION = ("name", "namespace", "resourceVersion", "labels", "annotations")
_OF_THE_UPDATE = ("labels", "annotations")


def get_record(store: Datastore, kind: Kind, name: str) -> Resource:
    """The object of that name. Raises NotFound, CorruptRecord."""
    return kind.decode(get_entry(store, kind, name))


def get_entry(store: Datastore, kind: Kind, name: str) -> Entry:
    """The record of the object of that name. Raises NotFound."""
    entries = store.read([Range(kind.key(name))])[0]
    if not entries:
        raise missing(kind, name)
    return entries[0]


def list_records(store: Datastore, kind: Kind) -> tuple[Resource, list[CorruptRecord]]:
    """The list object of a kind, and the records that could not be understood."""
    items: list[Resource] = []
    faults: list[CorruptRecord] = []
    revision = 0
    for entry in store.read([Range(kind.prefix, prefix=True)])[0]:
        revision = max(revision, entry.revision)
        try:
            items.append(kind.decode(entry))
        except CorruptRecord as fault:
            faults.append(fault)
    found = {
        "kind": f"{kind.name}List",
        "apiVersion": codec.API_VERSION,
        "metadata": {"resourceVersion": str(revision)},
        "items": items,
    }
    return found, faults


def create_record(
    store: Datastore, kind: Kind, resource: Resource, now: int, seed: bytes
) -> Resource:
    """Store a new object. Raises ValidationError, AlreadyExists."""
    _refuse_read_only(kind, "create or apply")
    given = resource["metadata"]
    metadata = {key: given[key] for key in _KEPT_AT_CREATION if given.get(key)}
    resource = {**resource, "metadata": metadata}
    refuse_namespace(kind, metadata)
    _refuse(kind.check_creation(store, resource))
    name = metadata["name"]
    metadata = {**metadata, **codec.new_metadata(kind.name, name, now, seed)}
    resource = kind.arrange(kind.with_defaults({**resource, "metadata": metadata}))
    try:
        store.commit([Write(kind.key(name), kind.encode(resource), ABSENT)])
    except Conflict:
        raise AlreadyExists(
            f"resource already exists: {kind.identify(name)} with error: <nil>"
        ) from None
    return resource


def update_record(store: Datastore, kind: Kind, resource: Resource) -> Resource:
    """Replace an object: metadata stay as stored, but for labels and annotations.

    Raises ValidationError, NotFound, OperatorError if its resourceVersion is not the latest."""
    _refuse_read_only(kind, "apply or replace")
    metadata = resource["metadata"]
    refuse_namespace(kind, metadata)
    version = metadata.get("resourceVersion")

    def replace(stored: Resource) -> Resource:
        refuse_outdated(kind, stored, version)
        return _merged(stored, resource)

    return change_record(store, kind, metadata.get("name") or "", replace)


def apply_record(
    store: Datastore, kind: Kind, resource: Resource, now: int, seed: bytes
) -> Resource:
    """Create the object, or replace it where it exists. Raises as these two do."""
    if kind.is_read_only:
        raise OperatorError(
            f"operation apply is not supported on {kind.name}: resource is readonly"
        )
    metadata = {k: v for k, v in resource["metadata"].items() if k != "resourceVersion"}
    try:
        return create_record(store, kind, {**resource, "metadata": metadata}, now, seed)
    except AlreadyExists:
        return update_record(store, kind, resource)


def patch_record(store: Datastore, kind: Kind, name: str, patch: str) -> Resource:
    """Merge a JSON text into an object; lists are replaced, a null removes a field.

    Raises ValidationError, NotFound, OperatorError."""
    _refuse_read_only(kind, "patch")
    try:
        changes = json.loads(patch)
    except (ValueError, RecursionError) as error:
        raise OperatorError(f"performing strategic merge patch: {error}") from None
    if not isinstance(changes, dict):
        raise OperatorError("performing strategic merge patch: the patch is not a JSON object")

    def merge(stored: Resource) -> Resource:
        document = check_document(_merge_patch(kind.known(stored), changes))
        if document.name != name or document.kind is not kind:
            raise OperatorError("a patch cannot change an object's kind or name")
        refuse_outdated(kind, stored, document.resource["metadata"].get("resourceVersion"))
        unknown = {k: v for k, v in stored["spec"].items() if k not in kind.spec_order}
        patched = {**document.resource, "spec": {**document.resource["spec"], **unknown}}
        return _merged(stored, patched)

    try:
        return change_record(store, kind, name, merge)
    except ValidationError as error:
        if error.args[0].startswith("error with"):
            raise ValidationError(f"updating existing resource: {error.msg}") from None
        raise


def change_record(
    store: Datastore, kind: Kind, name: str, change: Callable[[Resource], Resource]
) -> Resource:
    """Store what `change` makes of an object, decided anew after each lost swap.

    Raises ValidationError, NotFound, CorruptRecord, TryAgainLater."""

    def step() -> Resource:
        entry = get_entry(store, kind, name)
        stored = kind.decode(entry)
        changed = change(stored)
        _refuse(kind.check_update(kind.known(stored), kind.known(changed)))
        changed = kind.arrange(kind.with_defaults(changed))
        store.commit([Write(entry.key, kind.encode(changed), entry.revision)])
        return changed

    return retry(step)


def missing(kind: Kind, name: str) -> NotFound:
    """Calico's error for an object that is not there."""
    return NotFound(f"resource does not exist: {kind.identify(name)} with error: <nil>")


def refuse_outdated(kind: Kind, stored: Resource, version: str | None) -> None:
    """Raise OperatorError if `version` is given and is not that of the stored object."""
    metadata = stored["metadata"]
    latest = metadata["resourceVersion"]
    if version and version != latest:
        raise OperatorError(
            f"update conflict: {kind.identify(metadata['name'])}: "
            f"resource version '{version}' is out of date (latest: {latest}). "
            "Update the resource YAML/JSON in order to make changes"
        )


def refuse_namespace(kind: Kind, metadata: Resource) -> None:
    """Raise OperatorError if there is a namespace: no kind here has one."""
    if metadata.get("namespace"):
        raise OperatorError(
            "namespace should not be specified for a non-namespaced resource. "
            f"{kind.name} is not a namespaced resource"
        )


def _refuse(errors: list[Any]) -> None:
    if errors:
        raise ValidationError(format_errors(errors))


def _refuse_read_only(kind: Kind, operation: str) -> None:
    if kind.is_read_only:
        raise OperatorError(f"operation {operation} is not supported on {kind.name}")


def _merged(stored: Resource, resource: Resource) -> Resource:
    metadata = {k: v for k, v in stored["metadata"].items() if k not in _OF_THE_UPDATE}
    given = resource["metadata"]
    metadata |= {key: given[key] for key in _OF_THE_UPDATE if given.get(key)}
    merged = {**resource, "metadata": metadata}
    if resource.get("status") is None and "status" in stored:
        merged["status"] = stored["status"]
    return merged


def _merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7386. None of our kinds has a list that a strategic merge would treat otherwise."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patch(merged.get(key), change)
    return merged
