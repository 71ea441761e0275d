"""The rules that an IPPool and an IPReservation keep, told as Calico tells them.

Calico spreads them over its client library (defaults, what may change, overlaps, leftover
blocks) and the schema of its CRDs (everything that one object shows by itself); here are both, so
that every datastore refuses the same. Resources are dicts in the shape of projectcalico.org/v3.
They may come from a file that somebody wrote by hand, so nothing is taken for granted: a field
that is unknown or of the wrong type is named like any other broken rule.
"""

from __future__ import annotations

from cni_ipam.core.address import Address, Cidr, parse_address, parse_network
from cni_ipam.core.names import (
    FieldError,
    check_metadata,
    check_shape,
    check_texts,
    format_errors,
)
from cni_ipam.core.pool import DEFAULT_BLOCK_SIZE, DEFAULT_USES
from cni_ipam.core.selector import parse_selector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Json = Any  # whatever a document may hold
    Resource = dict[str, Json]

__all__ = ["FieldError", "format_errors"]  # beside what is defined here

BLOCK_SIZES = {4: (20, 32), 6: (116, 128)}
LONGEST_SELECTOR = 1024
MOST_USES = 10
USES = ("Workload", "Tunnel", "LoadBalancer")
ENCAPSULATIONS = ("Never", "Always", "CrossSubnet")
MODES = ("Automatic", "Manual")
BLOCK_SIZE_RULE = (
    "blockSize must be between 20 and 32 for IPv4 pools, and between 116 and 128 for IPv6 pools"
)
POOL_SIZE_RULE = (
    "IP pool size is too small for use with Calico IPAM. "
    "It must be equal to or greater than the block size."
)
LEFTOVER_BLOCKS = (  # sic
    "IPPool blocksSize conflicts with existing allocations that use a different blockSize"
)

_LINK_LOCAL = {4: Cidr(4, 0xA9FE0000, 16), 6: Cidr(6, 0xFE80 << 112, 10)}
_MAPPED_V4 = Cidr(6, 0xFFFF << 32, 96)
_POOL_TYPES: dict[str, type] = {
    "cidr": str,
    "vxlanMode": str,
    "ipipMode": str,
    "natOutgoing": bool,
    "disabled": bool,
    "disableBGPExport": bool,
    "blockSize": int,
    "nodeSelector": str,
    "namespaceSelector": str,
    "allowedUses": list,
    "assignmentMode": str,
}
_RESERVATION_TYPES: dict[str, type] = {"reservedCIDRs": list}


def with_pool_defaults(resource: Resource) -> Resource:
    """A new pool with what Calico fills in, and the CIDR in its canonical text.

    Wrong types do no harm here: the checks name them, and look at the pool as it was given.
    """
    spec = {key: value for key, value in _map(resource.get("spec")).items() if value is not None}
    network = _find_network(spec.get("cidr"))
    if network:
        spec["cidr"] = str(network[1])
        if not spec.get("blockSize"):
            spec["blockSize"] = DEFAULT_BLOCK_SIZE[network[1].version]
    for key, default in (
        ("nodeSelector", "all()"),
        ("ipipMode", "Never"),
        ("vxlanMode", "Never"),
        ("assignmentMode", "Automatic"),
    ):
        if spec.get(key, "") == "":
            spec[key] = default
    if spec.get("allowedUses", []) == []:
        spec["allowedUses"] = list(DEFAULT_USES)
    return {**resource, "spec": spec}


def check_pool(resource: Resource) -> list[FieldError]:
    """The rules that a pool breaks by itself, before or after its defaults are filled in."""
    errors = _check_pool_shape(resource)
    if errors:
        return errors
    errors = check_metadata(resource["metadata"])
    spec = {key: value for key, value in resource["spec"].items() if value not in (None, "", [])}
    errors += _check_choices(spec) + _check_selectors(spec)
    errors += [FieldError("spec", None, reason) for reason in _find_contradictions(spec)]
    network = _find_network(spec.get("cidr"))
    if network is None:
        return [*errors, _bad_cidr(spec.get("cidr", ""))]
    return errors + [FieldError("spec", None, reason) for reason in _find_misfits(spec, *network)]


def check_pool_creation(
    resource: Resource, pools: Iterable[Resource], blocks: Iterable[Cidr]
) -> list[FieldError]:
    """The rules that a new pool breaks beside these pools and these blocks, in Calico's order.

    A pool of the same name is no error here: the write that creates the key finds it.
    """
    errors = _check_pool_shape(resource) or _check_cidr(resource)
    if errors:
        return errors
    pool = with_pool_defaults(resource)
    errors = _check_overlaps(pool, pools) + _check_mask(resource)
    errors = errors or check_pool(pool) or _check_leftover_blocks(pool, blocks)
    version = resource["metadata"].get("resourceVersion")
    if not errors and version:
        reason = "field must not be set for a Create request"
        errors = [FieldError("Metadata.ResourceVersion", version, reason)]
    return errors


def check_pool_update(old: Resource, new: Resource) -> list[FieldError]:
    """The rules that `new` breaks in place of the stored pool `old`."""
    errors = _check_pool_shape(new) or _check_cidr(new)
    if errors:
        return errors
    pool = with_pool_defaults(new)
    stored, spec = with_pool_defaults(old)["spec"], pool["spec"]
    if not same_cidr(_map(old.get("spec")).get("cidr", ""), spec["cidr"]):
        errors.append(_cidr_error(spec["cidr"], "IPPool CIDR cannot be modified"))
    if "LoadBalancer" in stored["allowedUses"] and set(spec["allowedUses"]) != {"LoadBalancer"}:
        reason = "IPPool allowed use cannot be changed from LoadBalacer to Workload or Tunnel"
        uses = _show_list(spec["allowedUses"])
        return [*errors, FieldError("IPPool.Spec.AllowedUses", uses, reason)]
    if stored.get("blockSize") not in (None, spec["blockSize"]):
        reason = "IPPool BlockSize cannot be modified"
        errors.append(FieldError("IPPool.Spec.BlockSize", str(spec["blockSize"]), reason))
    return errors + _check_mask(new) or check_pool(pool)


def same_cidr(old: str, new: str) -> bool:
    """Whether a pool may go from the one text to the other: both name one network, `new` well."""
    if old == new:
        return True
    before, after = _find_network(old), _find_network(new)
    if before is None or after is None:
        return False
    return before[1] == after[1] and str(after[1]) == new


def check_reservation(resource: Resource) -> list[FieldError]:
    """The rules that a reservation breaks. Bare addresses and host bits are allowed."""
    errors = check_shape(resource, "IPReservation", _RESERVATION_TYPES)
    if errors:
        return errors
    errors = check_metadata(resource["metadata"])
    entries = resource["spec"].get("reservedCIDRs")
    wrong = check_texts("spec.reservedCIDRs", entries)
    if wrong:
        return errors + wrong
    reason = "must be a CIDR or an IP address, as in 10.0.0.0/30 or 10.0.0.1"
    return errors + [
        FieldError(f"spec.reservedCIDRs[{index}]", text, reason)
        for index, text in enumerate(entries or [])
        if not _is_address_or_network(text)
    ]


def _check_pool_shape(resource: Json) -> list[FieldError]:
    errors = check_shape(resource, "IPPool", _POOL_TYPES)
    return errors or check_texts("spec.allowedUses", resource["spec"].get("allowedUses"))


def _check_cidr(resource: Resource) -> list[FieldError]:
    text = resource["spec"].get("cidr") or ""
    return [] if _find_network(text) else [_bad_cidr(text)]


def _bad_cidr(text: str) -> FieldError:
    if not text:
        return _cidr_error("", "IPPool CIDR must be specified")
    return _cidr_error(text, "IPPool CIDR must be a valid subnet")


def _cidr_error(text: str, reason: str) -> FieldError:
    return FieldError("IPPool.Spec.CIDR", text, reason)


def _check_mask(resource: Resource) -> list[FieldError]:
    network = _find_network(resource["spec"]["cidr"])
    if network is None or network[0].value == network[1].base:
        return []
    return [_cidr_error(str(network[1]), "IPPool CIDR is not strictly masked")]


def _check_overlaps(pool: Resource, others: Iterable[Resource]) -> list[FieldError]:
    name, text = pool["metadata"].get("name"), pool["spec"]["cidr"]
    network = _find_network(text)
    errors = []
    for other in others:
        other_name = _map(other.get("metadata")).get("name")
        taken = _find_network(_map(other.get("spec")).get("cidr"))
        if network and taken and other_name != name and taken[1].overlaps(network[1]):
            reason = f"IPPool({name}) CIDR overlaps with IPPool({other_name}) CIDR {taken[1]}"
            errors.append(_cidr_error(text, reason))
    return errors


def _check_leftover_blocks(pool: Resource, blocks: Iterable[Cidr]) -> list[FieldError]:
    network, block_size = _find_network(pool["spec"]["cidr"]), pool["spec"]["blockSize"]
    for block in blocks:
        if network and block.overlaps(network[1]) and block.prefix != block_size:
            return [FieldError("IPPool.Spec.BlockSize", str(block_size), LEFTOVER_BLOCKS)]
    return []


def _check_choices(spec: Resource) -> list[FieldError]:
    """Fields that must be one of a few words."""
    uses = spec.get("allowedUses", [])
    choices = [
        ("spec.ipipMode", spec.get("ipipMode", "Never"), ENCAPSULATIONS),
        ("spec.vxlanMode", spec.get("vxlanMode", "Never"), ENCAPSULATIONS),
        ("spec.assignmentMode", spec.get("assignmentMode", "Automatic"), MODES),
    ]
    choices += [(f"spec.allowedUses[{index}]", use, USES) for index, use in enumerate(uses)]
    errors = [
        FieldError("IPpool.AllowedUses", _show_list(uses), f"unknown use: {use}")
        for use in uses
        if use not in USES
    ]
    errors += [
        FieldError(f"spec.allowedUses[{index}]", None, f'duplicate value: "{use}"')
        for index, use in enumerate(uses)
        if use in uses[:index]
    ]
    for name, word, allowed in choices:
        if word not in allowed:
            reason = "supported values: " + ", ".join([f'"{value}"' for value in allowed])
            errors.append(FieldError(name, None, reason))
    if len(uses) > MOST_USES:
        reason = f"must have at most {MOST_USES} items"
        errors.append(FieldError("spec.allowedUses", str(len(uses)), reason))
    return errors


def _check_selectors(spec: Resource) -> list[FieldError]:
    errors = []
    for key, name in (("nodeSelector", "NodeSelector"), ("namespaceSelector", "NamespaceSelector")):
        text = spec.get(key, "")
        if len(text) > LONGEST_SELECTOR:
            reason = f"may not be longer than {LONGEST_SELECTOR} characters"
            errors.append(FieldError(f"spec.{key}", None, reason))
            continue
        try:
            parse_selector(text)
        except ValueError as error:
            reason = f"Reason: failed to validate Field: {name} because of Tag: selector "
            errors.append(FieldError(name, text, f"{reason}: {error}"))
    return errors


def _find_contradictions(spec: Resource) -> list[str]:
    """What two fields of a pool may not say together; the texts are those of the CRD."""
    uses = spec.get("allowedUses", [])
    node_selector = spec.get("nodeSelector", "all()")
    namespace_selector = spec.get("namespaceSelector", "")
    ipip = spec.get("ipipMode", "Never") != "Never"
    vxlan = spec.get("vxlanMode", "Never") != "Never"
    balancer = "LoadBalancer" in uses
    rules = (
        (ipip and vxlan, "ipipMode and vxlanMode cannot both be enabled"),
        (balancer and (ipip or vxlan), "LoadBalancer IP pool cannot have IPIP or VXLAN enabled"),
        (
            balancer and ("Workload" in uses or "Tunnel" in uses),
            "LoadBalancer cannot be combined with Workload or Tunnel allowed uses",
        ),
        (
            balancer and spec.get("disableBGPExport"),
            "LoadBalancer IP pools cannot disable BGP export",
        ),
        (
            balancer and node_selector != "all()",
            "IP Pool with AllowedUse LoadBalancer must have nodeSelector set to all()",
        ),
        (
            "Tunnel" in uses and namespace_selector,
            "IP Pool with AllowedUse Tunnel cannot have namespaceSelector",
        ),
        ("global(" in node_selector, "global() selector is not valid for IPPool nodeSelector"),
        (
            "global(" in namespace_selector,
            "global() selector is not valid for IPPool namespaceSelector",
        ),
    )
    return [reason for broken, reason in rules if broken]


def _find_misfits(spec: Resource, address: Address, cidr: Cidr) -> list[str]:
    """What does not go with a pool's CIDR; the texts are those of the CRD."""
    version = cidr.version
    smallest, largest = BLOCK_SIZES[version]
    block_size = spec.get("blockSize") or DEFAULT_BLOCK_SIZE[version]
    link_local = _LINK_LOCAL[version]
    ipip = spec.get("ipipMode", "Never") != "Never"
    rules = (
        (version == 6 and ipip, "IPIP is not supported on IPv6 pools"),
        (address.value != cidr.base, "IPPool CIDR must be strictly masked"),
        (
            cidr.overlaps(link_local),
            f"IPPool CIDR overlaps with IPv{version} link local range {link_local}",
        ),
        (not smallest <= block_size <= largest, BLOCK_SIZE_RULE),
        (not spec.get("disabled") and cidr.prefix > block_size, POOL_SIZE_RULE),
    )
    return [reason for broken, reason in rules if broken]


def _find_network(text: Json) -> tuple[Address, Cidr] | None:
    """The address and the network that `text` names; an IPv4-mapped IPv6 network is none."""
    if not isinstance(text, str):
        return None
    try:
        address, cidr = parse_network(text)
    except ValueError:
        return None
    return None if _MAPPED_V4.covers(cidr) else (address, cidr)


def _is_address_or_network(text: str) -> bool:
    if _find_network(text):
        return True
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _map(value: Json) -> Resource:
    """A part of a stored object, empty where it is not the map that it should be."""
    return value if isinstance(value, dict) else {}


def _show_list(texts: list[str]) -> str:
    return "[" + " ".join(texts) + "]"
