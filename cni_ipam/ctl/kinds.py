"""What the rules of each kind say and what its columns show: the material of `resources.KINDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_ipam.core.config import (
    LIMIT_NEEDS_STRICT,
    LONGEST_COOLDOWN_SECONDS,
    NO_BLOCK_FOR_ANYBODY,
    PERSISTENCE,
)
from cni_ipam.core.names import FieldError, check_fields, check_metadata, check_shape
from cni_ipam.ctl.bgp import check_node_bgp
from cni_ipam.routes.peers import DEFAULT_AS_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Resource = dict[str, Any]

LONGEST_LIST_SHOWN = 80

NODE_TYPES: dict[str, type] = {
    "bgp": dict,
    "ipv4VXLANTunnelAddr": str,
    "vxlanTunnelMACAddr": str,
    "ipv6VXLANTunnelAddr": str,
    "vxlanTunnelMACAddrV6": str,
    "orchRefs": list,
    "wireguard": dict,
    "addresses": list,
}
CLUSTER_TYPES: dict[str, type] = {
    "clusterGUID": str,
    "clusterType": str,
    "calicoVersion": str,
    "datastoreReady": bool,
    "variant": str,
}
CONFIG_TYPES: dict[str, type] = {
    "strictAffinity": bool,
    "autoAllocateBlocks": bool,
    "maxBlocksPerHost": int,
    "kubeVirtVMAddressPersistence": str,
    "ipCooldownSeconds": int,
}


def check_node(resource: Resource) -> list[FieldError]:
    """The rules that a Node breaks."""
    shape = check_shape(resource, "Node", NODE_TYPES)
    return shape or check_metadata(resource["metadata"]) + check_node_bgp(resource)


def check_cluster(resource: Resource) -> list[FieldError]:
    """The rules that a ClusterInformation breaks."""
    return check_fields("spec", resource.get("spec") or {}, CLUSTER_TYPES)


def check_config(resource: Resource) -> list[FieldError]:
    """The rules that an IPAMConfiguration breaks: its schema's, and those of `ipam configure`."""
    errors = check_shape(resource, "IPAMConfiguration", CONFIG_TYPES)
    if errors:
        return errors
    spec = with_config_defaults(resource)["spec"]
    most, cooldown = spec.get("maxBlocksPerHost") or 0, spec.get("ipCooldownSeconds") or 0
    persistence = spec.get("kubeVirtVMAddressPersistence") or "Enabled"
    rules = (
        (
            most < 0,
            FieldError("MaxBlocksPerHost", str(most), "must be greater than or equal to 0"),
        ),
        (
            not 0 <= cooldown <= LONGEST_COOLDOWN_SECONDS,
            FieldError("spec.ipCooldownSeconds", str(cooldown), "must be between 0 and 1200"),
        ),
        (
            persistence not in PERSISTENCE,
            FieldError(
                "spec.kubeVirtVMAddressPersistence", None, 'supported values: "Enabled", "Disabled"'
            ),
        ),
        (
            not spec["strictAffinity"] and not spec["autoAllocateBlocks"],
            FieldError("spec", None, NO_BLOCK_FOR_ANYBODY),
        ),
        (
            most > 0 and not spec["strictAffinity"],
            FieldError("spec", None, LIMIT_NEEDS_STRICT),
        ),
    )
    broken_rules = [error for broken, error in rules if broken]
    return _check_config_metadata(resource["metadata"]) + broken_rules


def _check_config_metadata(metadata: Resource) -> list[FieldError]:
    """The record is the spec alone, so of its metadata there is nothing but the name."""
    errors, name = [], metadata.get("name")
    if name != "default":
        reason = 'Cannot create an IPAMConfiguration resource with a name other than "default"'
        errors.append(FieldError("metadata.name", name, reason))
    for key in ("labels", "annotations"):
        if metadata.get(key):
            reason = f"an IPAMConfiguration is stored without {key}: leave them out"
            errors.append(FieldError(f"metadata.{key}", _show_pairs(metadata[key]), reason))
    return errors


def with_config_defaults(resource: Resource) -> Resource:
    """A new IPAMConfiguration with what stands for absent fields."""
    given = {key: value for key, value in resource["spec"].items() if value is not None}
    return {**resource, "spec": {"strictAffinity": False, "autoAllocateBlocks": True, **given}}


def field(name: str, default: object = "") -> Callable[[Resource], str]:
    """A column that shows one field of the spec."""
    return lambda resource: show_value(resource["spec"].get(name, default))


def show_name(resource: Resource) -> str:
    """The column NAME."""
    return show_value(resource["metadata"].get("name", ""))


def show_reserved(resource: Resource) -> str:
    """The CIDRs of a reservation, cut where they are too many."""
    return _cut(",".join(map(str, resource["spec"].get("reservedCIDRs") or ())))


def bgp_field(name: str) -> Callable[[Resource], str]:
    """A column that shows one field of a node's BGP settings."""
    return lambda resource: show_value((resource["spec"].get("bgp") or {}).get(name, ""))


def show_as_number(resource: Resource) -> str:
    """The node's own AS number, or in brackets the default one, which all others have."""
    bgp = resource["spec"].get("bgp")
    if not bgp:
        return ""
    return show_value(bgp.get("asNumber") or f"({DEFAULT_AS_NUMBER})")


def show_value(value: object) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show_pairs(values: object) -> str:
    pairs = values.items() if isinstance(values, dict) else ()
    return _cut(",".join(f"{key}={value}" for key, value in pairs) or str(values))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LIST_SHOWN else text[: LONGEST_LIST_SHOWN - 3] + "..."
