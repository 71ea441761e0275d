"""The kinds of objects that ipamctl knows: one table, and how an object lies in the datastore.

A resource is a dict in the shape of projectcalico.org/v3. As it is read it has its defaults and, in
its metadata, the revision of its record as `resourceVersion`; stored it has no revision. Fields
stand in Calico's order, and empty ones are left out as Go's `omitempty` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_ipam.core.names import API_VERSION, FieldError
from cni_ipam.core.pool_rules import (
    check_pool,
    check_pool_creation,
    check_pool_update,
    check_reservation,
    with_pool_defaults,
)
from cni_ipam.ctl import bgp
from cni_ipam.ctl.kinds import (
    CLUSTER_TYPES,
    CONFIG_TYPES,
    NODE_TYPES,
    bgp_field,
    check_cluster,
    check_config,
    check_node,
    field,
    show_as_number,
    show_name,
    show_reserved,
    with_config_defaults,
)
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import OperatorError
from cni_ipam.lean import json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from cni_ipam.datastore.port import Datastore, Entry

    Resource = dict[str, Any]

_METADATA_ORDER = (
    *("name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "labels"),
    *("annotations", "ownerReferences", "finalizers", "managedFields"),
)
# Objects inside of others, with the order of their fields; a map is sorted, as Go writes it.
_INNER_ORDER: dict[str, tuple[str, ...]] = {
    "labels": (),
    "annotations": (),
    "bgp": (
        *("asNumber", "ipv4Address", "ipv6Address", "ipv4IPIPTunnelAddr"),
        "routeReflectorClusterID",
    ),
}


@dataclass(frozen=True)
class Kind:
    """One kind: its names, where its records lie, its rules, and what a table of it shows.

    `always` are the fields of the spec that are written even if they are empty."""

    name: str
    aliases: tuple[str, ...]
    prefix: str
    spec_order: tuple[str, ...]
    columns: dict[str, Callable[[Resource], str]]
    narrow: tuple[str, ...]
    wide: tuple[str, ...]
    check: Callable[[Resource], list[FieldError]]
    always: tuple[str, ...] = ()
    with_defaults: Callable[[Resource], Resource] = lambda resource: resource
    has_status: bool = False
    is_read_only: bool = False

    def key(self, name: str) -> str:
        """The key of the record of that name."""
        return self.prefix + name

    def identify(self, name: str) -> str:
        """How Calico's errors name an object."""
        return f"{self.name}({name})"

    def decode(self, entry: Entry) -> Resource:
        """The resource under a key, defaults filled in. Raises CorruptRecord."""
        document = codec.decode_document(entry)
        metadata, spec = document.get("metadata"), document.get("spec")
        resource = {
            **document,
            "kind": self.name,
            "apiVersion": API_VERSION,
            "metadata": dict(metadata) if isinstance(metadata, dict) else {},
            "spec": dict(spec) if isinstance(spec, dict) else {},
        }
        resource["metadata"].setdefault("name", keys.last_part(entry.key))
        resource["metadata"]["resourceVersion"] = str(entry.revision)
        return self.arrange(self.with_defaults(resource))

    def encode(self, resource: Resource) -> str:
        """What is stored of a resource."""
        metadata = {k: v for k, v in resource["metadata"].items() if k != "resourceVersion"}
        return json.dumps(self.arrange({**resource, "metadata": metadata}))

    def arrange(self, resource: Resource) -> Resource:
        """The same resource with its fields in order and without empty ones."""
        arranged = {
            "kind": self.name,
            "apiVersion": API_VERSION,
            "metadata": _arrange(resource.get("metadata") or {}, _METADATA_ORDER, ()),
            "spec": _arrange(resource.get("spec") or {}, self.spec_order, self.always),
        }
        status = resource.get("status")
        if self.has_status or status:
            arranged["status"] = status or {}
        return arranged

    def known(self, resource: Resource) -> Resource:
        """The same resource without fields of the spec that only a newer peer knows."""
        spec = {key: value for key, value in resource["spec"].items() if key in self.spec_order}
        return {**resource, "spec": spec}

    def check_creation(self, store: Datastore, resource: Resource) -> list[FieldError]:
        """The rules that a new object breaks beside those that are there."""
        del store
        version = resource["metadata"].get("resourceVersion")
        errors = self.check(resource)
        if not errors and version:
            reason = "field must not be set for a Create request"
            errors = [FieldError("Metadata.ResourceVersion", version, reason)]
        return errors

    def check_update(self, old: Resource, new: Resource) -> list[FieldError]:
        """The rules that `new` breaks in the place of `old`."""
        del old
        return self.check(new)


class PoolKind(Kind):
    """IPPool, whose rules also look at other pools, at blocks, and at what the pool was."""

    def check_creation(self, store: Datastore, resource: Resource) -> list[FieldError]:
        """See Kind."""
        pools, blocks = store.read(
            [Range(self.prefix, prefix=True), Range(keys.BLOCKS, prefix=True, keys_only=True)]
        )
        cidrs = [keys.find_block(entry.key) for entry in blocks]
        return check_pool_creation(
            resource,
            [codec.decode_document(entry) for entry in pools],
            [cidr for cidr in cidrs if cidr is not None],
        )

    def check_update(self, old: Resource, new: Resource) -> list[FieldError]:
        """See Kind."""
        return check_pool_update(old, new)


class ConfigKind(Kind):
    """IPAMConfiguration: one record without metadata, in the engine's own spelling."""

    def key(self, name: str) -> str:
        """See Kind; a name that cannot be has a key that is never there."""
        return self.prefix if name == "default" else f"{self.prefix}/{name}"

    def decode(self, entry: Entry) -> Resource:
        """See Kind."""
        stored = codec.decode_document(entry)
        spec = {
            field: stored.get(codec.CONFIG_SPELLINGS.get(field, field)) for field in CONFIG_TYPES
        }
        # Calico leaves out what is false, so here an absent field is not the default.
        spec["autoAllocateBlocks"] = bool(spec["autoAllocateBlocks"])
        spec["strictAffinity"] = bool(spec["strictAffinity"])
        metadata = {"name": "default", "resourceVersion": str(entry.revision)}
        return self.arrange({"metadata": metadata, "spec": spec})

    def encode(self, resource: Resource) -> str:
        """See Kind."""
        spec = self.arrange(resource)["spec"]
        return json.dumps({codec.CONFIG_SPELLINGS.get(k, k): v for k, v in spec.items() if v})


def _arrange(fields: Resource, order: Iterable[str], always: tuple[str, ...]) -> Resource:
    known = [key for key in order if key in fields]
    extra = [key for key in fields if key not in known]
    return {
        key: _arrange_inner(key, fields[key])
        for key in known + extra
        if key in always or _is_set(fields[key])
    }


def _arrange_inner(name: str, value: Any) -> Any:
    if name not in _INNER_ORDER or not isinstance(value, dict):
        return value
    known = [key for key in _INNER_ORDER[name] if key in value]
    return {key: value[key] for key in [*known, *sorted(value.keys() - set(known))]}


def _is_set(value: object) -> bool:
    return value is not None and value is not False and value not in ("", 0, [], {})


KINDS: tuple[Kind, ...] = (
    PoolKind(
        name="IPPool",
        aliases=("ippool", "ippools", "ipp", "ipps", "pool", "pools"),
        prefix=keys.POOLS,
        spec_order=codec.POOL_FIELDS,
        columns={
            "NAME": show_name,
            "CIDR": field("cidr"),
            "NAT": field("natOutgoing", default=False),
            "IPIPMODE": field("ipipMode", "Never"),
            "VXLANMODE": field("vxlanMode", "Never"),
            "DISABLED": field("disabled", default=False),
            "DISABLEBGPEXPORT": field("disableBGPExport", default=False),
            "SELECTOR": field("nodeSelector"),
            "ASSIGNMENTMODE": field("assignmentMode"),
        },
        narrow=("NAME", "CIDR", "SELECTOR"),
        wide=(
            *("NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT"),
            *("SELECTOR", "ASSIGNMENTMODE"),
        ),
        check=check_pool,
        always=("cidr",),
        with_defaults=with_pool_defaults,
    ),
    Kind(
        name="IPReservation",
        aliases=("ipreservation", "ipreservations", "reservation", "reservations"),
        prefix=keys.RESERVATIONS,
        spec_order=("reservedCIDRs",),
        columns={"NAME": show_name, "CIDRS": show_reserved},
        narrow=("NAME",),
        wide=("NAME", "CIDRS"),
        check=check_reservation,
    ),
    ConfigKind(
        name="IPAMConfiguration",
        aliases=("ipamconfiguration", "ipamconfigurations", "ipamconfig", "ipamconfigs"),
        prefix=keys.CONFIG,
        spec_order=tuple(CONFIG_TYPES),
        columns={
            "NAME": show_name,
            "STRICTAFFINITY": field("strictAffinity"),
            "AUTOALLOCATEBLOCKS": field("autoAllocateBlocks"),
            "MAXBLOCKSPERHOST": field("maxBlocksPerHost", 0),
        },
        narrow=("NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"),
        wide=("NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"),
        check=check_config,
        always=("strictAffinity", "autoAllocateBlocks"),
        with_defaults=with_config_defaults,
    ),
    Kind(
        name="Node",
        aliases=("node", "nodes", "no", "nos"),
        prefix=keys.NODES,
        spec_order=tuple(NODE_TYPES),
        columns={
            "NAME": show_name,
            "ASN": show_as_number,
            "IPV4": bgp_field("ipv4Address"),
            "IPV6": bgp_field("ipv6Address"),
        },
        narrow=("NAME",),
        wide=("NAME", "ASN", "IPV4", "IPV6"),
        check=check_node,
        with_defaults=bgp.with_plain_node_number,
        has_status=True,
    ),
    Kind(
        name="BGPPeer",
        aliases=("bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"),
        prefix=keys.BGP_PEERS,
        spec_order=tuple(bgp.PEER_TYPES),
        columns={
            "NAME": show_name,
            "PEERIP": field("peerIP"),
            "NODE": bgp.show_local_side,
            "ASN": field("asNumber", 0),
        },
        narrow=("NAME", "PEERIP", "NODE", "ASN"),
        wide=("NAME", "PEERIP", "NODE", "ASN"),
        check=bgp.check_peer,
        with_defaults=bgp.with_plain_numbers,
    ),
    Kind(
        name="BGPConfiguration",
        aliases=("bgpconfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"),
        prefix=keys.BGP_CONFIGURATIONS,
        spec_order=tuple(bgp.CONFIGURATION_TYPES),
        columns={
            "NAME": show_name,
            "LOGSEVERITY": field("logSeverityScreen"),
            "MESHENABLED": bgp.set_field("nodeToNodeMeshEnabled"),
            "ASNUMBER": bgp.set_field("asNumber"),
        },
        narrow=("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"),
        wide=("NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"),
        check=bgp.check_configuration,
        always=("nodeToNodeMeshEnabled",),
        with_defaults=bgp.with_plain_numbers,
    ),
    Kind(
        name="ClusterInformation",
        aliases=("clusterinformation", "clusterinformations", "clusterinfo", "clusterinfos"),
        prefix=keys.CLUSTER_INFORMATION.removesuffix("default"),
        spec_order=tuple(CLUSTER_TYPES),
        columns={
            "NAME": show_name,
            "CLUSTERGUID": field("clusterGUID"),
            "CLUSTERTYPE": field("clusterType"),
            "CALICOVERSION": field("calicoVersion"),
            "DATASTOREREADY": field("datastoreReady", None),
        },
        narrow=("NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"),
        wide=("NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"),
        check=check_cluster,
        always=("datastoreReady",),
        is_read_only=True,
    ),
)
_BY_ALIAS = {alias: kind for kind in KINDS for alias in kind.aliases}
_BY_NAME = {kind.name: kind for kind in KINDS}


def get_kind(alias: str) -> Kind:
    """The kind that a word of the command line names. Raises OperatorError."""
    kind = _BY_ALIAS.get(alias.lower())
    if kind is None:
        raise OperatorError(f"resource type '{alias}' is not supported")
    return kind


def find_kind(name: str) -> Kind | None:
    """The kind that the field `kind` of an object names, letter by letter."""
    return _BY_NAME.get(name)
