"""Where Calico's records lie in Kubernetes: from an etcd key and its value to an object, and back.

Everything above the port speaks of etcd's keys and values; this is the dictionary (facts: Calico
1.2 to 1.12, 11). Two groups serve the same records, `V1` and `V3`. An object whose `deleted` is
true is gone for everybody, though it still has to be removed.
"""

from __future__ import annotations

from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes_records import (
    V1,
    V3,
    affinity_labels,
    affinity_name,
    block_name,
    read_affinity,
    read_block,
    read_config,
    read_deleted,
    read_handle,
    spell_deleted,
    write_affinity,
    write_block,
    write_config,
    write_handle,
)
from cni_ipam.datastore.kubernetes_resources import (
    MARKER_NAMESPACE,
    MARKER_PREFIX,
    METADATA_ANNOTATION,
    PREFIXES,
    new_metadata,
    read_marker,
    read_node,
    read_resource,
    write_marker,
    write_resource,
)
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import NetconfError, OperatorError
from cni_ipam.lean import json
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]

GROUPS = (V1, V3)
LONGEST_NAME = 253
_KINDS = {
    "bgpconfigurations": "BGPConfiguration",
    "bgppeers": "BGPPeer",
    "blockaffinities": "BlockAffinity",
    "clusterinformations": "ClusterInformation",
    "configmaps": "ConfigMap",
    "ipamblocks": "IPAMBlock",
    "ipamconfigs": "IPAMConfig",
    "ipamhandles": "IPAMHandle",
    "ippools": "IPPool",
    "ipreservations": "IPReservation",
    "nodes": "Node",
}
_RECORDS = {
    "BlockAffinity": (write_affinity, read_affinity),
    "IPAMBlock": (write_block, read_block),
    "IPAMConfig": (write_config, read_config),
    "IPAMHandle": (write_handle, read_handle),
}
_ALLOCATIONS = ("ipamblocks", "blockaffinities", "ipamhandles")
_RESOURCES = {prefix: f"{kind.lower()}s" for kind, prefix in PREFIXES.items()}
_ROOTS = {
    keys.BLOCKS: "ipamblocks",
    keys.HANDLES: "ipamhandles",
    keys.HOST_AFFINITIES: "blockaffinities",
    keys.VIRTUAL_AFFINITIES: "blockaffinities",
    keys.NODES: "nodes",
    keys.CONFIG: "ipamconfigs",
    **_RESOURCES,
}
# What an object is named after, and the key of the netconf that says it.
_NAMED_AFTER = {
    "blockaffinities": ("the node", "nodename"),
    "nodes": ("the node", "nodename"),
    "ipamhandles": ("the network and the container ID", "name"),
    "ipamblocks": ("its CIDR", "ipv6_pools"),
    "ippools": ("the pool", "default_pools"),
    "configmaps": ("the pool", "default_pools"),
}


@record
class Place:
    """Where the object of one key lies. `resource` is the plural of its kind in the older group."""

    resource: str
    name: str
    key: str

    @property
    def is_deleted_in_two_steps(self) -> bool:
        """Whether it is first marked as deleted (`to_deleted`), which is the swap, then removed."""
        return self.resource in _ALLOCATIONS

    @property
    def takes_unknown_fields(self) -> bool:
        """Whether the API server may drop what its definition lacks, as it does unless asked not
        to. Of a record it may: older definitions lack fields that no address depends on. What an
        operator wrote is kept whole or refused: less of it would be another wish."""
        return self.resource in _ALLOCATIONS

    @property
    def is_read_only(self) -> bool:
        """Whether it is Kubernetes' own."""
        return self.resource == "nodes"

    def collection(self, group: str) -> str:
        """The path to create it at."""
        return _collection(self.resource, group)

    def path(self, group: str) -> str:
        """The path to read, replace and delete it at."""
        return f"{_collection(self.resource, group)}/{self.name}"


@record
class Listing:
    """How to list the objects of the keys that begin with `prefix`: by resource, and if it is not
    empty, by label selector. There may be others among them, which `covers` tells."""

    resource: str
    selector: str
    prefix: str

    @property
    def kind(self) -> str:
        """The kind of its objects, which lists of Kubernetes' own resources don't say."""
        return _KINDS[self.resource]

    def covers(self, key: str) -> bool:
        """Whether this is the key of one of the objects wanted."""
        return key.startswith(self.prefix)

    def path(self, group: str) -> str:
        """The path to list at."""
        return _collection(self.resource, group)


def find_place(key: str, *, to_read: bool = False) -> Place | None:
    """The object of a key, or None if Kubernetes has none for it (a host's legacy marker, the
    second copy of the settings).

    Raises NetconfError for a name that the API server refuses (handles with `_`, nodes with upper
    case letters); with `to_read` it is None, since nothing can lie there."""
    found = _find_name(key)
    if found is None:
        return None
    place = Place(*found, key)
    if _is_subdomain(place.name):
        return place
    if to_read:
        return None
    raise _refuse_name(place)


def find_listing(prefix: str) -> Listing | None:
    """How to list the keys that begin with `prefix`; None if they are of several resources, or of
    none that is listed."""
    for root, resource in _ROOTS.items():
        if prefix.startswith(root):
            return Listing(resource, _select(prefix), prefix)
    return None


def refuse_read_only(place: Place) -> None:
    """Raises OperatorError for a node."""
    if place.is_read_only:
        raise OperatorError(
            f"Node({place.name}) cannot be written: it is Kubernetes' own",
            "use kubectl, for example `kubectl label node`",
        )


def to_object(key: str, value: str, group: str, *, existing: Document | None = None) -> Document:
    """The object to create for a key and its value, or to put in the place of `existing`.

    Raises ValueError if there is none, NetconfError as `find_place`, OperatorError for a node."""
    place = find_place(key)
    if place is None:
        raise ValueError(f"{key} has no object in Kubernetes")
    refuse_read_only(place)
    fields = json.loads(value) if value else {}
    if type(fields) is not dict:
        raise ValueError(f"the value of {key} is not a JSON object")
    kind = _KINDS[place.resource]
    metadata = (existing or {}).get("metadata")
    if kind in PREFIXES:
        return write_resource(kind, place.name, fields, group, metadata)
    if kind == "ConfigMap":
        return write_marker(place.name, metadata)
    write, _ = _RECORDS[kind]
    return {
        "kind": _kind(kind, group),
        "apiVersion": group,
        "metadata": _record_metadata(place, group, metadata),
        "spec": write(key, fields, group),
    }


def to_deleted(existing: Document, group: str) -> Document:
    """The object that says of `existing`, an object as it was read, that it is gone."""
    metadata = existing["metadata"]
    spec = dict(existing["spec"])
    spec["deleted"] = spell_deleted(existing["kind"], group, is_deleted=True)
    if existing["kind"] == "IPAMHandle":
        spec["block"] = {}
    return {
        "kind": existing["kind"],
        "apiVersion": group,
        "metadata": new_metadata(metadata["name"], metadata),
        "spec": spec,
    }


def to_entry(found: Document, group: str, kind: str = "") -> Entry | None:
    """Key, value as in etcd, and revision of an object; None if it is gone (`is_deleted`), or none
    of ours. `kind` is for objects that don't say it: items in lists of Kubernetes' own resources.

    The key is what the spec says: it may be another one than that of the place that was asked
    (handles that differ only in case). Raises ValueError that says what is wrong."""
    kind = kind or found.get("kind") or ""
    kind = "IPAMConfig" if kind == "IPAMConfiguration" else kind
    name, revision = _identify(found)
    if kind in PREFIXES:
        key, value = read_resource(kind, found, group)
    elif kind == "Node":
        key, value = read_node(found)
    elif kind == "ConfigMap":
        key, value = read_marker(found)
    elif kind not in _RECORDS:
        raise ValueError(f"the kind {kind!r:.60} is none of Calico's records")
    elif kind == "IPAMConfig" and name != "default":
        return None
    else:
        spec = _read_spec(found)
        if kind != "IPAMConfig" and read_deleted(spec):
            return None
        key, value = _RECORDS[kind][1](name, spec)
    return Entry(key, json.dumps(value), revision)


def is_deleted(found: Document) -> bool:
    """Whether an object is marked as deleted. Raises ValueError if that cannot be read."""
    return found.get("kind") in _RECORDS and read_deleted(_read_spec(found))


def _find_name(key: str) -> tuple[str, str] | None:
    """Resource and name of a key's object."""
    cidr = keys.find_block(key)
    if cidr is not None:
        return "ipamblocks", block_name(cidr)
    affinity = keys.find_affinity(key)
    if affinity is not None:
        return "blockaffinities", affinity_name(affinity[1], affinity[2])
    if key == keys.CONFIG:
        return "ipamconfigs", "default"
    root, slash, name = key.rpartition("/")
    root += slash
    if root == keys.HANDLES and name:
        return "ipamhandles", name.lower()
    if root == keys.DEFAULT_POOLS_MADE and name:
        return "configmaps", MARKER_PREFIX + name
    resource = "nodes" if root == keys.NODES else _RESOURCES.get(root)
    return (resource, name) if resource and name else None


def _select(prefix: str) -> str:
    """The label selector for affinities of one host, in one family or in both."""
    parts = prefix.split("/")
    if len(parts) < 7 or parts[4] not in ("host", "virtual"):
        return ""
    family = parts[6] if len(parts) > 7 else ""
    version = {"ipv4": 4, "ipv6": 6}.get(family)
    labels = affinity_labels(parts[4], parts[5], version)
    return ",".join([f"{name}={value}" for name, value in labels.items()])


def _collection(resource: str, group: str) -> str:
    if resource == "nodes":
        return "/api/v1/nodes"
    if resource == "configmaps":
        return f"/api/v1/namespaces/{MARKER_NAMESPACE}/configmaps"
    if resource == "ipamconfigs" and group == V3:
        resource = "ipamconfigurations"
    return f"/apis/{group}/{resource}"


def _kind(kind: str, group: str) -> str:
    return "IPAMConfiguration" if kind == "IPAMConfig" and group == V3 else kind


def _record_metadata(place: Place, group: str, existing: Document | None) -> Document:
    """Metadata of a record: affinities have labels, which in the older group are said twice."""
    metadata = new_metadata(place.name, existing)
    annotations = dict(metadata.pop("annotations", {}))
    named = keys.find_affinity(place.key)
    labels = {} if named is None else affinity_labels(named[0], named[1], named[2].version)
    if labels:
        metadata["labels"] = {**metadata.get("labels", {}), **labels}
    if group == V1 and (labels or METADATA_ANNOTATION not in annotations):
        annotations[METADATA_ANNOTATION] = json.dumps({"labels": labels} if labels else {})
    if annotations:
        metadata["annotations"] = annotations
    return metadata


def _identify(found: Document) -> tuple[str, int]:
    """Name and revision of an object."""
    metadata = found.get("metadata")
    if type(metadata) is not dict:
        raise ValueError("it has no metadata")
    name, version = metadata.get("name"), metadata.get("resourceVersion")
    if not isinstance(name, str) or not name:
        raise ValueError("it has no name")
    if not isinstance(version, str) or not (version.isascii() and version.isdigit()):
        raise ValueError(f"its resourceVersion {version!r:.60} is not a number")
    return name, int(version)


def _read_spec(found: Document) -> Document:
    spec = found.get("spec")
    if type(spec) is not dict:
        raise ValueError("it has no spec")
    return spec


def _is_subdomain(name: str) -> bool:
    """As in `core.names`, an import that only operators' commands should pay for."""
    if len(name) > LONGEST_NAME or not name.isascii():
        return False
    parts = name.split(".")
    return (
        all(
            part[:1].isalnum() and part[-1:].isalnum() and part.replace("-", "0").isalnum()
            for part in parts
        )
        and name == name.lower()
    )


def _refuse_name(place: Place) -> NetconfError:
    """Calico hangs in retries instead (facts: Calico 9.29)."""
    kind = _KINDS[place.resource]
    source, field = _NAMED_AFTER.get(place.resource, ("itself", "name"))
    return NetconfError(
        f"{field}: in Kubernetes no {kind} can be named {place.name}, after {source}",
        f"a name is at most {LONGEST_NAME} lower case letters, digits, '-' and '.'; what stands "
        "between dots begins and ends with a letter or digit",
    )
