"""What the rules of BGPPeer, BGPConfiguration and a node's BGP settings say, and what their columns
show. The texts are Calico's, with what would be right after them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni_ipam.core.address import parse_address
from cni_ipam.core.names import (
    FieldError,
    check_fields,
    check_metadata,
    check_shape,
    check_texts,
    is_subdomain,
)
from cni_ipam.core.selector import parse_selector
from cni_ipam.ctl.bgp_values import (
    LARGEST_PORT,
    find_unusable,
    parse_as_number,
    parse_node_address,
    parse_peer_address,
    parse_seconds,
)
from cni_ipam.errors import CniIpamError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Resource = dict[str, Any]

PEER_TYPES: dict[str, type] = {
    "node": str,
    "nodeSelector": str,
    "peerIP": str,
    "asNumber": object,
    "peerSelector": str,
    "keepOriginalNextHop": bool,
    "password": dict,
    "sourceAddress": str,
    "maxRestartTime": str,
    "numAllowedLocalASNumbers": int,
    "ttlSecurity": int,
    "reachableBy": str,
    "filters": list,
}
CONFIGURATION_TYPES: dict[str, type] = {
    "logSeverityScreen": str,
    "nodeToNodeMeshEnabled": bool,
    "asNumber": object,
    "serviceLoadBalancerIPs": list,
    "serviceExternalIPs": list,
    "serviceClusterIPs": list,
    "communities": list,
    "prefixAdvertisements": list,
    "listenPort": int,
    "nodeMeshPassword": dict,
    "nodeMeshMaxRestartTime": str,
    "bindMode": str,
    "ignoredInterfaces": list,
}
NODE_BGP_TYPES: dict[str, type] = {
    "asNumber": object,
    "ipv4Address": str,
    "ipv6Address": str,
    "ipv4IPIPTunnelAddr": str,
    "routeReflectorClusterID": str,
}
# What only the configuration of all nodes may say, as Calico spells it in an error.
_OF_ALL_NODES = {
    "nodeToNodeMeshEnabled": "nodeToNodeMeshEnabled",
    "asNumber": "ASNumber",
    "serviceLoadBalancerIPs": "ServiceLoadBalancerIPs",
    "serviceExternalIPs": "ServiceExternalIPs",
    "serviceClusterIPs": "ServiceClusterIPs",
    "nodeMeshPassword": "nodeMeshPassword",
    "nodeMeshMaxRestartTime": "nodeMeshMaxRestartTime",
}
_LOG_LEVELS = ("debug", "info", "warning", "error", "fatal", "none")
_BIND_MODES = ("None", "NodeIP")
_INTERFACE = re.compile(r"[a-zA-Z0-9_.*-]{1,15}")
_LARGEST_BYTE = 255


# What is stored


def with_plain_numbers(resource: Resource) -> Resource:
    """A resource whose AS numbers are numbers, and in whose spec nothing is null."""
    spec = {name: value for name, value in resource["spec"].items() if value is not None}
    return {**resource, "spec": _with_plain_number(spec)}


def with_plain_node_number(resource: Resource) -> Resource:
    """A Node whose AS number is a number."""
    bgp = resource["spec"].get("bgp")
    if not isinstance(bgp, dict):
        return resource
    return {**resource, "spec": {**resource["spec"], "bgp": _with_plain_number(bgp)}}


# Rules


def check_peer(resource: Resource) -> list[FieldError]:
    """The rules that a BGPPeer breaks."""
    errors = check_shape(resource, "BGPPeer", PEER_TYPES)
    if errors:
        return errors
    spec = {name: value for name, value in resource["spec"].items() if value}
    errors = check_metadata(resource["metadata"]) + check_texts("spec.filters", spec.get("filters"))
    errors += [
        *_check_name(spec),
        *_check_selectors(spec),
        *_check_peer_address(spec),
        *_check_numbers(spec),
    ]
    if spec.get("sourceAddress", "UseNodeIP") not in ("UseNodeIP", "None"):
        right = "it must be UseNodeIP or None"
        errors.append(_tagged("SourceAddress", spec["sourceAddress"], "sourceAddress", right))
    return errors + _check_sides(spec) + _check_reachable_by(spec)


def check_configuration(resource: Resource) -> list[FieldError]:
    """The rules that a BGPConfiguration breaks."""
    errors = check_shape(resource, "BGPConfiguration", CONFIGURATION_TYPES)
    if errors:
        return errors
    spec, name = resource["spec"], resource["metadata"].get("name")
    errors = check_metadata(resource["metadata"]) + _check_numbers(spec)
    level, port = spec.get("logSeverityScreen"), spec.get("listenPort") or 0
    if level and level.lower() not in _LOG_LEVELS:
        right = f"it must be one of {', '.join(_LOG_LEVELS)}"
        errors.append(_tagged("LogSeverityScreen", level, "logLevel", right))
    if not 0 <= port <= LARGEST_PORT:
        errors.append(FieldError("spec.listenPort", str(port), "must be between 1 and 65535"))
    if spec.get("bindMode") not in (None, "", *_BIND_MODES):
        errors.append(FieldError("spec.bindMode", spec["bindMode"], "must be None or NodeIP"))
    errors += _check_interfaces(spec.get("ignoredInterfaces") or [])
    if spec.get("nodeToNodeMeshEnabled") is False:
        errors += _check_without_mesh(spec)
    return errors if errors or name == "default" else _check_other_configuration(spec)


def check_node_bgp(resource: Resource) -> list[FieldError]:
    """The rules that the BGP settings of a Node break."""
    errors = check_node_bgp_form(resource)
    if errors:
        return errors
    bgp = resource["spec"].get("bgp")
    if bgp is None:
        return []
    if not any(bgp.values()):
        return [FieldError("BGP", None, "Spec.BGP should not be empty")]
    for version in (4, 6):
        text = bgp.get(f"ipv{version}Address") or ""
        reason = find_unusable(parse_node_address(text)) if text else ""
        if reason:
            errors.append(_tagged(f"IPv{version}Address", text, f"cidrv{version}", reason))
    return errors


def check_node_bgp_form(resource: Resource) -> list[FieldError]:
    """Those of them without which the settings cannot be read."""
    bgp = resource["spec"].get("bgp")
    if bgp is None:
        return []
    errors = check_fields("spec.bgp", bgp, NODE_BGP_TYPES)
    if errors:
        return errors
    for version in (4, 6):
        name = f"ipv{version}Address"
        if bgp.get(name) and not _is_address(bgp[name], version):
            right = f"it must be an IPv{version} address, with or without the length of its network"
            errors.append(_tagged(f"IPv{version}Address", bgp[name], f"cidrv{version}", right))
    cluster = bgp.get("routeReflectorClusterID")
    if cluster and ("/" in cluster or not _is_address(cluster, 4)):
        right = "it must have the form of an IPv4 address"
        errors.append(_tagged("RouteReflectorClusterID", cluster, "ipv4", right))
    return errors + _check_numbers(bgp)


# Columns


def show_local_side(resource: Resource) -> str:
    """The nodes that have a peering: one's name, a selector, or all."""
    spec = resource["spec"]
    return str(spec.get("node") or spec.get("nodeSelector") or "(global)")


def set_field(name: str) -> Callable[[Resource], str]:
    """A column that shows one field of the spec, or a dash where it is not set."""

    def show(resource: Resource) -> str:
        value = resource["spec"].get(name)
        return "-" if value is None else str(value).lower()

    return show


def _with_plain_number(fields: Resource) -> Resource:
    try:
        number = parse_as_number(fields["asNumber"])
    except (KeyError, ValueError):
        return fields
    return {**fields, "asNumber": number}


def _check_name(spec: Resource) -> list[FieldError]:
    node = spec.get("node", "")
    if not node or is_subdomain(node):
        return []
    return [_tagged("Node", node, "name", "it must be the name of a node")]


def _check_selectors(spec: Resource) -> list[FieldError]:
    errors = []
    for name, field in (("nodeSelector", "NodeSelector"), ("peerSelector", "PeerSelector")):
        try:
            parse_selector(spec.get(name, ""))
        except (ValueError, CniIpamError) as error:
            errors.append(_tagged(field, spec[name], "selector", str(error)))
    return errors


def _check_peer_address(spec: Resource) -> list[FieldError]:
    if "peerIP" not in spec:
        return []
    try:
        right = find_unusable(parse_peer_address(spec["peerIP"])[0])
    except ValueError:
        right = (
            "it must be an address, or an address and a port as in 10.0.0.1:179 or [fd00::1]:179"
        )
    return [_tagged("PeerIP", spec["peerIP"], "IP:port", right)] if right else []


def _check_interfaces(interfaces: list[Any]) -> list[FieldError]:
    errors = check_texts("spec.ignoredInterfaces", interfaces)
    right = "it must be an interface's name"
    return errors or [
        _tagged(f"IgnoredInterfaces[{index}]", interface, "ignoredInterface", right)
        for index, interface in enumerate(interfaces)
        if interface == "*" or not _INTERFACE.fullmatch(interface)
    ]


def _check_numbers(fields: Resource) -> list[FieldError]:
    """AS numbers, durations and counts, whether of a peer, a node or everybody."""
    errors = []
    for name, parse in (
        ("asNumber", parse_as_number),
        ("maxRestartTime", parse_seconds),
        ("nodeMeshMaxRestartTime", parse_seconds),
    ):
        try:
            if fields.get(name) is not None:
                parse(fields[name])
        except ValueError as error:
            errors.append(FieldError(f"spec.{name}", str(fields[name]), str(error)))
    for name in ("ttlSecurity", "numAllowedLocalASNumbers"):
        number = fields.get(name) or 0
        if not 0 <= number <= _LARGEST_BYTE:
            reason = f"must be between 0 and {_LARGEST_BYTE}"
            errors.append(FieldError(f"spec.{name}", str(number), reason))
    return errors


def _check_sides(spec: Resource) -> list[FieldError]:
    """Fields that say the same side of a peering twice."""
    rules = (
        ("node", "Node", "nodeSelector", "NodeSelector"),
        ("peerIP", "PeerIP", "peerSelector", "PeerSelector"),
        ("asNumber", "ASNumber", "peerSelector", "PeerSelector"),
    )
    return [
        FieldError(field, str(spec[name]), f"{field} field must be empty when {rival} is specified")
        for name, field, other, rival in rules
        if name in spec and other in spec
    ]


def _check_reachable_by(spec: Resource) -> list[FieldError]:
    if "reachableBy" not in spec:
        return []
    value = spec["reachableBy"]
    reason = ""
    if "peerIP" not in spec:
        reason = "ReachablyBy field must be empty when PeerIP is empty"
    try:
        gateway = parse_address(value)
        if not reason and gateway.version != parse_peer_address(spec["peerIP"])[0].version:
            reason = "ReachableBy and PeerIP address family mismatched"
    except ValueError:
        reason = reason or "ReachableBy is invalid address"
    return [FieldError("ReachableBy", value, reason)] if reason else []


def _check_without_mesh(spec: Resource) -> list[FieldError]:
    return [
        FieldError(
            f"Spec.{field}", None, f"spec.{field} cannot be set if spec.NodeToNodeMesh is disabled"
        )
        for name, field in (
            ("nodeMeshPassword", "NodeMeshPassword"),
            ("nodeMeshMaxRestartTime", "NodeMeshMaxRestartTime"),
        )
        if spec.get(name)
    ]


def _check_other_configuration(spec: Resource) -> list[FieldError]:
    """What a BGPConfiguration says that is not `default`."""
    return [
        FieldError(
            f"BGPConfiguration.Spec.{name[0].upper()}{name[1:]}".replace("AsN", "ASN"),
            None,
            f"Cannot set {spelled} on a non default BGP Configuration.",
        )
        for name, spelled in _OF_ALL_NODES.items()
        if spec.get(name) not in (None, [])
    ]


def _is_address(text: str, version: int) -> bool:
    try:
        return parse_node_address(text).version == version
    except ValueError:
        return False


def _tagged(field: str, value: str, tag: str, right: str) -> FieldError:
    reason = f"Reason: failed to validate Field: {field} because of Tag: {tag} "
    return FieldError(field, value, f"{reason}; {right}")
