"""From the records to a node's BIRD configuration.

What BIRD cannot be told (a password in a secret, a broken record) concerns one peering or setting:
it is left out and named, and the others work. A node that could no longer withdraw its blocks
because somebody mistyped a peer would be the greater evil. So would one that goes on as before
after its Node was deleted: it has no sessions until it has a Node again. Only a broken
BGPConfiguration is refused as a whole, as without it every session might have another AS number;
and what does not tell whether the node should speak: a broken record of its own, or a datastore
with no nodes and no blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cni_ipam.core.address import BITS, parse_address, parse_cidr
from cni_ipam.core.names import API_VERSION, FieldError
from cni_ipam.ctl.bgp import check_node_bgp_form
from cni_ipam.ctl.bgp_values import (
    find_unusable,
    parse_as_number,
    parse_node_address,
    parse_peer_address,
    parse_seconds,
)
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CorruptRecord, OperatorError, ValidationError
from cni_ipam.routes.bird import Advertised, Speaker, find_router_id, write_config
from cni_ipam.routes.peers import (
    BgpNode,
    BgpSettings,
    Options,
    Peering,
    as_number_of,
    choose_sessions,
    find_unheeded,
)
from cni_ipam.routes.plan import MAIN_TABLE
from cni_ipam.routes.reconcile import find_holdable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.host import HostRecords
    from cni_ipam.ctl.networks import NodeSettings
    from cni_ipam.ctl.resources import Kind, Resource
    from cni_ipam.datastore.port import Datastore, Entry

_NOT_OF_A_PEER = {
    "password": "BIRD's file would have to hold it",
    "filters": "there are no BGPFilters here",
    "reachableBy": "give the node a route to the peer instead",
}
_NOT_HEEDED = {
    "serviceLoadBalancerIPs": "services are not advertised",
    "serviceExternalIPs": "services are not advertised",
    "serviceClusterIPs": "services are not advertised",
    "communities": "routes carry no communities",
    "prefixAdvertisements": "routes carry no communities",
}
_FOR_A_NODE = "node."
# BGP tells it in 12 bits; BIRD would cut a longer one, or refuse the file.
_LONGEST_RESTART_SECONDS = 4095


@dataclass(frozen=True)
class BirdConfig:
    """The text for BIRD, and what had to be left out of it."""

    text: str
    left_out: tuple[str, ...]


@dataclass
class BgpRecords:
    """What the datastore says about BGP, and in `left_out` what of it could not be used; in
    `broken`, by their keys, the records among that."""

    nodes: dict[str, BgpNode] = field(default_factory=dict)
    peerings: list[Peering] = field(default_factory=list)
    configurations: dict[str, Resource] = field(default_factory=dict)
    exported: list[Cidr] = field(default_factory=list)
    hidden: list[Cidr] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def make_bird_config(store: Datastore, node: NodeSettings, records: HostRecords) -> BirdConfig:
    """The configuration of BIRD on `node`, of which `records` tell; without sessions if the node
    has no address for BGP.

    Raises OperatorError if the records don't tell whether it has one, and as `read_bgp`."""
    found = read_bgp(store)
    _require_clear(node.name, found, records)
    speaker = found.nodes.get(node.name) or BgpNode(node.name)
    if not speaker.addresses:
        found.left_out.insert(0, f"all sessions: {_explain_silence(node.name, found)}")
    _check_table(node.routes.table, found)
    settings = _read_settings(found)
    ours = found.configurations.get(_FOR_A_NODE + node.name, {})
    common = found.configurations.get("default", {})
    ends = (speaker, list(found.nodes.values()), found.peerings, settings)
    text = write_config(
        Speaker(
            node=node.name,
            as_number=as_number_of(speaker, settings),
            addresses=speaker.addresses or _stand_in_addresses(node.name),
            cluster_id=speaker.cluster_id,
            port=speaker.port or settings.port,
            binds_to_address={**common, **ours}.get("bindMode") == "NodeIP",
            ignored_interfaces={**common, **ours}.get("ignoredInterfaces") or (),
        ),
        choose_sessions(*ends),
        Advertised(
            blocks=records.own,
            pools=found.exported,
            hidden=found.hidden,
            proto=node.routes.proto,
            bird_owns_blackholes=node.bird_owns_blackholes,
            unheld=_find_unheld(node, records),
        ),
    )
    return BirdConfig(text, (*found.left_out, *find_unheeded(*ends)))


def _find_unheld(node: NodeSettings, records: HostRecords) -> list[Cidr]:
    held = find_holdable(records, node.unheld_networks, node.known_networks)
    return [block for block in records.own if block not in held]


def read_bgp(store: Datastore) -> BgpRecords:
    """Nodes, peers, settings and pools, in one request. Raises as `_decode` for settings."""
    prefixes = (keys.BGP_CONFIGURATIONS, keys.NODES, keys.BGP_PEERS, keys.POOLS)
    found = BgpRecords()
    configurations, nodes, peers, pools = store.read(
        [Range(prefix, prefix=True) for prefix in prefixes]
    )
    for resource in _decode("bgpconfig", configurations):
        found.configurations[resource["metadata"]["name"]] = resource["spec"]
    for resource in _decode("node", nodes, found, check_node_bgp_form):
        made = _read_node(resource, found)
        port = found.configurations.get(_FOR_A_NODE + made.name, {}).get("listenPort")
        found.nodes[made.name] = replace(made, port=port or None)
    for resource in _decode("bgppeer", peers, found):
        try:
            found.peerings.append(_read_peering(resource, found))
        except ValueError as error:
            found.left_out.append(f"BGPPeer({resource['metadata']['name']}): {error}")
    for resource in _decode("ippool", pools, found, _check_cidr):
        _read_pool(resource, found)
    return found


def _decode(
    alias: str,
    entries: Iterable[Entry],
    found: BgpRecords | None = None,
    check: Callable[[Resource], list[FieldError]] | None = None,
) -> list[Resource]:
    """The resources of a kind that keep its rules, or as much of them as `check` asks for; others
    are left out of what is `found`. Without that they are refused: settings are everybody's.

    Raises CorruptRecord, ValidationError."""
    kind, resources = get_kind(alias), []
    for entry in entries:
        try:
            resources.append(_decode_sound(kind, entry, check or kind.check))
        except (CorruptRecord, ValidationError) as error:
            if found is None:
                raise
            found.left_out.append(error.msg)
            found.broken[entry.key] = error.msg
    return resources


def _decode_sound(
    kind: Kind, entry: Entry, check: Callable[[Resource], list[FieldError]]
) -> Resource:
    resource = kind.known(kind.decode(entry))
    errors = check(resource)
    if errors:
        name = kind.identify(resource["metadata"]["name"])
        raise ValidationError(f"{name}: {'; '.join(map(str, errors))}")
    return resource


def _check_cidr(resource: Resource) -> list[FieldError]:
    """Which pools are told depends on nothing else of them."""
    try:
        parse_cidr(str(resource["spec"].get("cidr")))
    except ValueError as error:
        return [FieldError("spec.cidr", None, str(error))]
    return []


def _check_table(table: int, found: BgpRecords) -> None:
    if table != MAIN_TABLE:
        found.left_out.append(
            f"routes.table {table}: peers hear of no route in it, as BIRD reads table "
            f"{MAIN_TABLE} alone: leave routes.table out"
        )


def _read_node(resource: Resource, found: BgpRecords) -> BgpNode:
    bgp, name = resource["spec"].get("bgp") or {}, resource["metadata"]["name"]
    addresses: dict[int, Address] = {}
    for version in BITS:
        text = bgp.get(f"ipv{version}Address")
        if not text:
            continue
        address = parse_node_address(text)
        reason = find_unusable(address)
        if reason:
            found.left_out.append(f"Node({name}): ipv{version}Address = {text}: {reason}")
        else:
            addresses[version] = address
    cluster_id = bgp.get("routeReflectorClusterID")
    return BgpNode(
        name=name,
        addresses=addresses,
        as_number=bgp.get("asNumber"),
        labels=resource["metadata"].get("labels") or {},
        cluster_id=str(parse_node_address(cluster_id)) if cluster_id else "",
    )


def _read_pool(resource: Resource, found: BgpRecords) -> None:
    spec = resource["spec"]
    kept = found.hidden if spec.get("disableBGPExport") else found.exported
    kept.append(parse_cidr(spec["cidr"]))
    for mode in ("ipipMode", "vxlanMode"):
        if spec.get(mode) not in (None, "Never"):
            name = resource["metadata"]["name"]
            found.left_out.append(f"IPPool({name}): {mode} is not heeded: there are no tunnels")


def _read_peering(resource: Resource, found: BgpRecords) -> Peering:
    """A BGPPeer. Raises ValueError for what BIRD cannot be told."""
    spec, name = resource["spec"], resource["metadata"]["name"]
    for part, reason in _NOT_OF_A_PEER.items():
        if spec.get(part):
            raise ValueError(f"{part} is not supported: {reason}")
    address, port = None, None
    if spec.get("peerIP"):
        address, port = parse_peer_address(spec["peerIP"])
        if not spec.get("asNumber"):
            raise ValueError("asNumber is missing")
    elif not spec.get("peerSelector"):
        raise ValueError("it has neither peerIP nor peerSelector")
    return Peering(
        name=name,
        node=spec.get("node") or "",
        node_selector=spec.get("nodeSelector") or "",
        peer_selector=spec.get("peerSelector") or "",
        address=address,
        port=port,
        as_number=parse_as_number(spec.get("asNumber") or 0),
        options=Options(
            uses_node_address=spec.get("sourceAddress") != "None",
            keeps_next_hop=spec.get("keepOriginalNextHop") or False,
            restart_seconds=_read_restart(f"BGPPeer({name})", "maxRestartTime", spec, found),
            allowed_local_as=spec.get("numAllowedLocalASNumbers") or None,
            ttl_hops=spec.get("ttlSecurity") or None,
        ),
    )


def _read_settings(found: BgpRecords) -> BgpSettings:
    spec = found.configurations.get("default", {})
    for name, reason in _NOT_HEEDED.items():
        if spec.get(name):
            found.left_out.append(f"BGPConfiguration(default): {name} is not heeded: {reason}")
    has_mesh = spec.get("nodeToNodeMeshEnabled") is not False
    if has_mesh and spec.get("nodeMeshPassword"):
        has_mesh = False
        reason = "nodeMeshPassword is not supported, so there is no mesh"
        found.left_out.append(f"BGPConfiguration(default): {reason}")
    who = "BGPConfiguration(default)"
    return BgpSettings(
        as_number=spec.get("asNumber") or BgpSettings.as_number,
        has_mesh=has_mesh,
        mesh_restart_seconds=_read_restart(who, "nodeMeshMaxRestartTime", spec, found),
        port=spec.get("listenPort") or None,
    )


def _read_restart(who: str, name: str, spec: Resource, found: BgpRecords) -> int | None:
    text = spec.get(name)
    if not text:
        return None
    seconds = parse_seconds(text)
    if seconds <= _LONGEST_RESTART_SECONDS:
        return seconds
    found.left_out.append(
        f"{who}: {name} {text} is not heeded: BGP has at most {_LONGEST_RESTART_SECONDS}s, and "
        "BIRD's own 120s stand"
    )
    return None


def _require_clear(name: str, found: BgpRecords, records: HostRecords) -> None:
    """Raises OperatorError if nobody can say whether the node speaks BGP."""
    broken = found.broken.get(keys.NODES + name)
    if broken is not None:
        raise OperatorError(
            f"whether Node({name}) speaks BGP cannot be told: {broken}", "mend that record"
        )
    if not found.nodes and records.is_blank:
        raise OperatorError(
            f"Node({name}) cannot speak BGP: there is no Node at all, and no block",
            f"if this is the right datastore, {_advise(name, has_node=False)}",
        )


def _explain_silence(name: str, found: BgpRecords) -> str:
    """Why a node has no sessions, and what to do about it."""
    has_node = name in found.nodes
    reason = "its spec.bgp has no address" if has_node else "there is no such Node"
    if any(line.startswith(f"Node({name}): ") for line in found.left_out):
        reason = "BIRD can use no address of its spec.bgp"
    return f"Node({name}) cannot speak BGP: {reason}; {_advise(name, has_node=has_node)}"


def _advise(name: str, *, has_node: bool) -> str:
    patch = '{"spec": {"bgp": {"ipv4Address": "192.0.2.1/24"}}}'
    node = (
        f"{{apiVersion: {API_VERSION}, kind: Node, metadata: {{name: {name}}}, "
        "spec: {bgp: {ipv4Address: 192.0.2.1/24}}}"
    )
    command = (
        f"ipamctl patch node {name} -p '{patch}'"
        if has_node
        else f"echo '{node}' | ipamctl apply -f -"
    )
    return (
        f"say its address with `{command}`, or in Kubernetes with "
        f"`kubectl annotate node {name} projectcalico.org/IPv4Address=192.0.2.1/24`"
    )


def _stand_in_addresses(name: str) -> dict[int, Address]:
    """For a node without addresses, so that its file says of both families what the kernel gets:
    the routes that BIRD has put there would outlive a file that is silent about them. Without
    sessions nobody sees these, but for the router ID."""
    router_id = find_router_id(Speaker(name, 0, {}))
    return {4: parse_address(router_id), 6: parse_address("::1")}
