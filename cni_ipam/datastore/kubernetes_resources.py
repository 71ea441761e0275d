"""Calico's resources as Kubernetes holds them, and back: pools, reservations, ClusterInformation;
the nodes, which are Kubernetes' own; and the markers of default pools.

In the older group, `crd.projectcalico.org/v1`, an object wraps the metadata that users see: as JSON
in an annotation, beside which it keeps only the labels and annotations of Calico's own. Users also
see another UID, the same for the same object (facts: Calico 1.12). The newer group stores as it is.
"""

from __future__ import annotations

from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.kubernetes_records import V1, V3
from cni_ipam.lean import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Document = dict[str, Any]

METADATA_ANNOTATION = "projectcalico.org/metadata"
MARKER_NAMESPACE = "kube-system"
MARKER_PREFIX = "cni-ipam-default-pool-"
PREFIXES = {
    "BGPConfiguration": keys.BGP_CONFIGURATIONS,
    "BGPPeer": keys.BGP_PEERS,
    "IPPool": keys.POOLS,
    "IPReservation": keys.RESERVATIONS,
    "ClusterInformation": keys.CLUSTER_INFORMATION.removesuffix("default"),
}
_LABELS_ANNOTATION = "projectcalico.org/labels"
_OURS = ("projectcalico.org/", "operator.tigera.io/")
_METADATA_ORDER = (
    *("name", "generateName", "uid", "generation", "creationTimestamp", "deletionTimestamp"),
    *("deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers"),
)
# What the API server alone says of an object.
_SERVERS_OWN = (
    *("name", "namespace", "uid", "resourceVersion", "generation", "selfLink", "managedFields"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
_IDENTITY = ("uid", "resourceVersion")
_ATTACHED = ("labels", "annotations", "ownerReferences", "finalizers")
_REVERSED_BYTES = bytes([int(f"{byte:08b}"[::-1], 2) for byte in range(256)])
# Fields of a node's spec that Calico keeps in annotations, each under projectcalico.org/.
_NODE_BGP = {
    "asNumber": "ASNumber",
    "ipv4Address": "IPv4Address",
    "ipv6Address": "IPv6Address",
    "ipv4IPIPTunnelAddr": "IPv4IPIPTunnelAddr",
    "routeReflectorClusterID": "RouteReflectorClusterID",
}
_NODE_SPEC = {
    "ipv4VXLANTunnelAddr": "IPv4VXLANTunnelAddr",
    "vxlanTunnelMACAddr": "VXLANTunnelMACAddr",
    "ipv6VXLANTunnelAddr": "IPv6VXLANTunnelAddr",
    "vxlanTunnelMACAddrV6": "VXLANTunnelMACAddrV6",
}
_NODE_WIREGUARD = {
    "interfaceIPv4Address": "IPv4WireguardInterfaceAddr",
    "interfaceIPv6Address": "IPv6WireguardInterfaceAddr",
}


def new_metadata(name: str, existing: Document | None) -> Document:
    """Metadata of an object that takes the place of `existing`: its identity and revision, and
    what others attached to it."""
    return {"name": name, **_keep(existing, (*_IDENTITY, *_ATTACHED))}


def write_resource(
    kind: str, name: str, value: Document, group: str, existing: Document | None
) -> Document:
    """The object of a resource; UID and revision are those of `existing`, its metadata."""
    seen = _map(value, "metadata")
    metadata = {"name": name, **_keep(existing, _IDENTITY)}
    if group == V1:
        # What the API server itself acts on is never wrapped.
        metadata.update({**_keep(existing, ("ownerReferences", "finalizers")), **_wrap(seen)})
    else:
        metadata.update({k: v for k, v in seen.items() if v and k not in _SERVERS_OWN})
    found = {"kind": kind, "apiVersion": group, "metadata": metadata, "spec": _map(value, "spec")}
    return {**found, "status": value["status"]} if value.get("status") else found


def omit_defaults(found: Document, fields: Iterable[str]) -> Document | None:
    """A pool without those of these fields, each named as `spec.blockSize` is, that say what every
    reader takes for said without them; None if there are none, and for other kinds."""
    if found["kind"] != "IPPool":
        return None
    spec = found["spec"]
    for name in [name for name in spec if f"spec.{name}" in fields]:
        shorter = {field: value for field, value in spec.items() if field != name}
        if _find_meaning(shorter) == _find_meaning(spec):
            spec = shorter
    return None if spec is found["spec"] else {**found, "spec": spec}


def read_resource(kind: str, found: Document, group: str) -> tuple[str, Document]:
    """Key and value of a resource."""
    real = _map(found, "metadata")
    seen = _unwrap(real) if group == V1 else dict(real)
    if group == V1 and real.get("uid"):
        seen["uid"] = reverse_uid(real["uid"])
    seen.update(_take_set(real, ("deletionTimestamp", "deletionGracePeriodSeconds")))
    spec = _map(found, "spec")
    if kind == "IPPool":
        spec = _arrange(spec, codec.POOL_FIELDS)
    metadata = _take_set(seen, _METADATA_ORDER)
    value = {"kind": kind, "apiVersion": V3, "metadata": metadata, "spec": spec}
    if found.get("status"):
        value["status"] = found["status"]
    return PREFIXES[kind] + real["name"], value


def read_node(found: Document) -> tuple[str, Document]:
    """Key and value of Calico's Node for one of Kubernetes: real labels beat those that users
    gave to Calico alone."""
    real = _map(found, "metadata")
    noted = _map(real, "annotations")
    labels = {**_read_labels(noted), **_map(real, "labels")}
    metadata = {"name": real["name"], "uid": real.get("uid")}
    metadata.update(creationTimestamp=real.get("creationTimestamp"), labels=labels)
    spec: Document = {
        "bgp": _noted(noted, _NODE_BGP),
        **_noted(noted, _NODE_SPEC),
        "orchRefs": [{"nodeName": real["name"], "orchestrator": "k8s"}],
        "wireguard": _noted(noted, _NODE_WIREGUARD),
    }
    value = {
        "kind": "Node",
        "apiVersion": V3,
        "metadata": {field: part for field, part in metadata.items() if part},
        "spec": {field: part for field, part in spec.items() if part},
        "status": {},
    }
    return keys.NODES + real["name"], value


def write_marker(name: str, existing: Document | None) -> Document:
    """The ConfigMap that remembers a default pool; that it is there is all that it says."""
    metadata = {**new_metadata(name, existing), "namespace": MARKER_NAMESPACE}
    metadata["labels"] = {**_map(metadata, "labels"), "app.kubernetes.io/managed-by": "cni-ipam"}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}


def read_marker(found: Document) -> tuple[str, Document]:
    """Key and value of a marker."""
    name = found["metadata"]["name"]
    if not name.startswith(MARKER_PREFIX):
        raise ValueError(f"a marker's name begins with {MARKER_PREFIX}")
    return keys.DEFAULT_POOLS_MADE + name[len(MARKER_PREFIX) :], {}


def reverse_uid(uid: str) -> str:
    """The UID that users see in the older group, from the real one; and back, the same way: the
    bits of each byte reversed, but for those two that hold the UUID's version and variant. What is
    not a UUID stays as it is."""
    try:
        real = bytes.fromhex(uid.replace("-", ""))
    except ValueError:
        return uid
    if len(real) != 16:
        return uid
    turned = bytearray(real.translate(_REVERSED_BYTES))
    turned[6], turned[8] = real[6], real[8]
    text = turned.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _find_meaning(spec: Document) -> Document:
    """What a pool's spec says with its defaults; false, 0 and empty are as good as nothing."""
    # Needed only where definitions are old; importing the rules on each ADD would cost.
    from cni_ipam.core.pool_rules import with_pool_defaults

    whole = with_pool_defaults({"spec": spec})["spec"]
    return {field: value for field, value in whole.items() if value}


def _wrap(seen: Document) -> Document:
    """Labels and annotations of an object in the older group for the metadata that users see."""
    inner = {field: value for field, value in seen.items() if value and field not in _SERVERS_OWN}
    metadata: Document = {}
    labels, annotations = (_pick_ours(_map(seen, f)) for f in ("labels", "annotations"))
    if labels:
        metadata["labels"] = labels
    metadata["annotations"] = {METADATA_ANNOTATION: json.dumps(inner), **annotations}
    return metadata


def _unwrap(real: Document) -> Document:
    """The metadata that users see: the wrapped one, over the object's own where it says nothing."""
    annotations = dict(_map(real, "annotations"))
    if METADATA_ANNOTATION not in annotations:
        return dict(real)
    seen = _read_map(annotations, METADATA_ANNOTATION)
    del annotations[METADATA_ANNOTATION]
    return {
        **seen,
        "name": real["name"],
        "creationTimestamp": seen.get("creationTimestamp") or real.get("creationTimestamp"),
        "labels": {**_map(real, "labels"), **_map(seen, "labels")},
        "annotations": {**annotations, **_map(seen, "annotations")},
    }


def _keep(existing: Document | None, fields: tuple[str, ...]) -> Document:
    return {} if existing is None else _take_set(existing, fields)


def _take_set(fields: Document, names: tuple[str, ...]) -> Document:
    return {name: fields[name] for name in names if fields.get(name)}


def _pick_ours(texts: Document) -> Document:
    return {key: text for key, text in texts.items() if any(part in key for part in _OURS)}


def _noted(annotations: Document, fields: dict[str, str]) -> Document:
    found = {field: annotations.get(f"projectcalico.org/{name}") for field, name in fields.items()}
    return {field: text for field, text in found.items() if text}


def _read_labels(annotations: Document) -> Document:
    """The labels that users gave to Calico alone; none where they cannot be read. Calico goes on
    without them, too: else a slip in an annotation would end every ADD on the node."""
    try:
        found = _read_map(annotations, _LABELS_ANNOTATION)
    except ValueError:
        return {}
    # As Go does, which takes null for an empty text.
    labels = {name: "" if text is None else text for name, text in found.items()}
    return labels if all(type(text) is str for text in labels.values()) else {}


def _read_map(annotations: Document, name: str) -> Document:
    """The JSON object in an annotation; nothing where there is none."""
    text = annotations.get(name)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"its annotation {name} is not JSON: {error}") from None
    if found is None:
        return {}
    if type(found) is not dict:
        raise ValueError(f"its annotation {name} is not a JSON object")
    return found


def _map(fields: Document, name: str) -> Document:
    found = fields.get(name)
    if found is None:
        return {}
    if type(found) is not dict:
        raise ValueError(f"the field {name} holds {found!r:.60}, not a map")
    return found


def _arrange(fields: Document, order: tuple[str, ...]) -> Document:
    known = {field: fields[field] for field in order if field in fields}
    return {**known, **{name: value for name, value in fields.items() if name not in known}}
