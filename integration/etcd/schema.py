"""Every value that we may ever write to etcd, checked as strictly as it can be said.

    assert find_schema_problems(key, value) == []

The key decides what it is; the fields are those of `records`, spelled as `shape` says; here is what
they must say together, and to their key.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from integration.etcd.records import (
    AFFINITY,
    BGP_CONFIGURATION,
    BLOCK,
    CLUSTER,
    CONFIG,
    HANDLE,
    HANDLE_RECORD,
    HOST,
    LB,
    NAME,
    NODE,
    PEER,
    POOL,
    RESERVATION,
)
from integration.etcd.shape import Findings, fields, find_network, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

    from integration.etcd.shape import Network, type_of_check

    Json = dict[str, Any]

BLOCK_PREFIXES = {4: range(20, 33), 6: range(116, 129)}


# What the fields say together, and what they say to the key


def _check_name(names: list[str], document: Json, findings: Findings) -> None:
    if document["metadata"]["name"] != names[0]:
        findings.add("metadata.name", f"is not {names[0]!r}, which the key names")


def _check_pool(names: list[str], document: Json, findings: Findings) -> None:
    _check_name(names, document, findings)
    spec = document["spec"]
    network, size, uses = ipaddress.ip_network(spec["cidr"]), spec["blockSize"], spec["allowedUses"]
    if size not in BLOCK_PREFIXES[network.version]:
        findings.add("spec.blockSize", f"is {size} for an IPv{network.version} pool")
    elif size < network.prefixlen and not spec.get("disabled"):
        findings.add("spec.blockSize", f"is {size}: larger than the pool {network}")
    if "Never" not in (spec["ipipMode"], spec["vxlanMode"]):
        findings.add("spec.ipipMode", "and vxlanMode are both on")
    if network.version == 6 and spec["ipipMode"] != "Never":
        findings.add("spec.ipipMode", "is on for an IPv6 pool")
    if len(set(uses)) < len(uses) or (LB in uses and len(uses) > 1):
        findings.add("spec.allowedUses", f"do not go together: {uses}")


def _check_peer(names: list[str], document: Json, findings: Findings) -> None:
    _check_name(names, document, findings)
    spec = document["spec"]
    for one, other in (("node", "nodeSelector"), ("peerIP", "peerSelector")):
        if one in spec and other in spec:
            findings.add(f"spec.{one}", f"says the same side as {other}")


def _check_config(_: list[str], document: Json, findings: Findings) -> None:
    if not document.get("strict_affinity") and not document.get("auto_allocate_blocks"):
        findings.add("auto_allocate_blocks", "is off, and so is strict_affinity: not both may be")
    if "maxBlocksPerHost" in document and not document.get("strict_affinity"):
        findings.add("maxBlocksPerHost", "is set without strict_affinity")


def _check_handle(_: list[str], document: Json, findings: Findings) -> None:
    for block, count in document["block"].items():
        network = ipaddress.ip_network(block)
        _check_size(network, "block." + block, findings)
        if count > network.num_addresses:
            findings.add("block." + block, f"counts {count}, more than the block holds")


def _check_size(network: Network, path: str, findings: Findings) -> None:
    if network.prefixlen not in BLOCK_PREFIXES[network.version]:
        findings.add(path, f"is {network}, which no block can be")


def _check_block(names: list[str], block: Json, findings: Findings) -> None:
    network = ipaddress.ip_network(block["cidr"])
    if names[1].replace("-", "/", 1) != block["cidr"]:
        findings.add("cidr", f"is {network}, the key names {names[1]}")
    if block["affinity"] is None and "affinity_claim_time" in block:
        findings.add("affinity_claim_time", "is there without an affinity")
    allocations, free = block["allocations"], block["unallocated"]
    if len(allocations) != network.num_addresses:
        findings.add("allocations", f"are {len(allocations)} for {network}")
    right = [ordinal for ordinal, index in enumerate(allocations) if index is None]
    if sorted(free) != right:
        findings.add("unallocated", f"is {free}, but what is not allocated is {right}")
    _check_attributes(block, findings)
    _check_sequence(block, findings)


def _check_attributes(block: Json, findings: Findings) -> None:
    used = {index for index in block["allocations"] if index is not None}
    attributes = block["attributes"] or []
    for index in sorted(used - set(range(len(attributes)))):
        findings.add("allocations", f"name attribute {index} of {len(attributes)}")
    for index, attribute in enumerate(attributes):
        path = f"attributes[{index}]"
        if index not in used:
            findings.add(path, "belongs to no allocation")
        # Each release has an attribute of its own, even in the same second.
        if "releasedAt" not in attribute and attribute in attributes[:index]:
            findings.add(path, "is there twice")
        if "releasedAt" in attribute and {"handle_id", "secondary"} & set(attribute):
            findings.add(path, "is released and yet has an owner")
        _check_own_attribute(attribute, path, findings)


def _check_own_attribute(attribute: Json, path: str, findings: Findings) -> None:
    """An allocation of ours says more than Calico's: `ifname` and `network`, never one alone."""
    owner = attribute.get("secondary", {})
    if not {"ifname", "network"} & set(owner):
        return
    for name in ("ifname", "network", "node", "timestamp"):
        if name not in owner:
            findings.add(f"{path}.secondary.{name}", "is missing in an allocation of ours")
    for name in ("namespace", "pod"):
        if name not in owner and {"namespace", "pod"} & set(owner):
            findings.add(f"{path}.secondary.{name}", "is missing beside its other half")
    if not attribute.get("handle_id", "").startswith(f"{owner.get('network', '')}."):
        findings.add(f"{path}.handle_id", "does not begin with the network's name")


def _check_sequence(block: Json, findings: Findings) -> None:
    path, numbers = "sequenceNumberForAllocation", block["sequenceNumberForAllocation"]
    attributes = block["attributes"] or []
    allocated = {str(o): i for o, i in enumerate(block["allocations"]) if i is not None}
    for ordinal, number in numbers.items():
        if ordinal not in allocated:
            findings.add(f"{path}.{ordinal}", "is of an ordinal that is free")
        if number >= block["sequenceNumber"]:
            findings.add(f"{path}.{ordinal}", f"is {number}: every update raises the block's")
    for ordinal, index in allocated.items():
        ours = index < len(attributes) and "ifname" in attributes[index].get("secondary", {})
        if ours and ordinal not in numbers:
            findings.add(f"{path}.{ordinal}", "is missing for an allocation of ours")
    if block["attributes"] is None and allocated:
        findings.add("attributes", "is null, which only a block that gave nothing can have")


# Keys


def _check_block_key(names: list[str], findings: Findings) -> None:
    version, name = names[-2:]
    network = find_network(name.replace("-", "/", 1))
    if network is None or "/" in name or network.version != int(version):
        findings.add("key", f"names {name!r}, which is no IPv{version} block as Calico spells it")
    else:
        _check_size(network, "key", findings)


def _check_affinity_key(names: list[str], findings: Findings) -> None:
    HOST(names[1], "key", findings)
    if names[0] == "virtual" and names[1] != "load-balancer":
        findings.add("key", f"names {names[1]!r}, and load-balancer is the only virtual owner")
    _check_block_key(names, findings)


def _accept(*_: object) -> None:
    """Nothing more is to be said."""


class Kind(NamedTuple):
    """What lies under the keys that a pattern matches."""

    name: str
    pattern: str
    check: type_of_check
    check_together: Callable[[list[str], Json, Findings], None] = _accept
    check_key: Callable[[list[str], Findings], None] = _accept


V3 = "/calico/resources/v3/projectcalico.org"
IPAM = "/calico/ipam/v2"
KINDS = (
    Kind(
        "block",
        f"{IPAM}/assignment/ipv([46])/block/([^/]+)",
        *(BLOCK, _check_block, _check_block_key),
    ),
    Kind(
        "affinity",
        f"{IPAM}/(host|virtual)/([^/]+)/ipv([46])/block/([^/]+)",
        *(AFFINITY, _accept, _check_affinity_key),
    ),
    Kind(
        "handle",
        f"{IPAM}/handle/(.+)",
        *(HANDLE_RECORD, _check_handle, lambda names, out: HANDLE(names[0], "key", out)),
    ),
    Kind("config", f"{IPAM}/config()", CONFIG, _check_config),
    Kind("pool", f"{V3}/ippools/(.+)", POOL, _check_pool),
    Kind("reservation", f"{V3}/ipreservations/(.+)", RESERVATION, _check_name),
    Kind("node", f"{V3}/nodes/(.+)", NODE, _check_name),
    Kind("peer", f"{V3}/bgppeers/(.+)", PEER, _check_peer),
    Kind("bgp", f"{V3}/bgpconfigurations/(.+)", BGP_CONFIGURATION, _check_name),
    Kind("cluster", f"{V3}/clusterinformations/(default)", CLUSTER, _check_name),
    # Not Calico's: a default pool of that name was made once.
    Kind(
        "marker",
        "/cni-ipam/v1/default-pools/(.+)",
        *(fields(), _accept, lambda names, out: NAME(names[0], "key", out)),
    ),
)


def find_kind(key: str) -> tuple[Kind, list[str]] | None:
    """What lies under a key, and what the key names; None for a key that nobody knows."""
    for kind in KINDS:
        found = re.fullmatch(kind.pattern, key, re.DOTALL)
        if found:
            return kind, list(found.groups())
    return None


def find_schema_problems(key: str, value: str | None, foreign: Collection[str] = ()) -> list[str]:
    """What is wrong with a value, each with the field's path; None is a deletion, where only the
    key counts. Fields named in `foreign` are allowed anywhere: a test planted them."""
    found = find_kind(key)
    if found is None:
        return [f"key: {key!r} is none that we may write"]
    kind, names = found
    findings = Findings(foreign)
    kind.check_key(names, findings)
    if value is not None:
        document = parse(value, findings)
        if not findings.problems or document is not None:
            kind.check(document, "", findings)
        if not findings.problems:
            kind.check_together(names, document, findings)
    return findings.problems


def check_all(
    writes: Iterable[tuple[str, str | None, int]], foreign: Collection[str] = ()
) -> dict[str, int]:
    """How many values of each kind were checked, and how many "deletions".

    Raises AssertionError with everything that is wrong, each value that is wrong once."""
    counts: Counter[str] = Counter()
    wrong: dict[tuple[str, str | None], str] = {}
    for key, value, revision in writes:
        found = find_kind(key)
        counts["deletions" if value is None or found is None else found[0].name] += 1
        problems = find_schema_problems(key, value, foreign)
        if problems:
            told = f"{key} at revision {revision}:\n    " + "\n    ".join(problems)
            wrong.setdefault((key, value), f"{told}\n    {value}")
    assert not wrong, f"{len(wrong)} values break the schema:\n" + "\n".join(wrong.values())
    return dict(counts)
