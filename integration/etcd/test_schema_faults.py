"""Each single fault in a value is named by the checker: a table, and what goes beyond it."""

from __future__ import annotations

import pytest

from integration.etcd.golden import FULL, IPAM, OWNER, UID, names, with_value
from integration.etcd.schema import find_schema_problems
from integration.etcd.shape import spell


def set_at(path: str, value: object):
    """The change that puts `value` at a dotted path; numbers are places in lists."""
    parts = [int(part) if part.isdigit() else part for part in path.split(".")]
    return tuple(parts), value


BOTH_RELEASED = {"handle_id": "net.c1", "releasedAt": "2026-01-02T03:04:06Z"}
# kind, the path that is changed, the value that it gets, the path that must be named.
FAULTS = [
    ("block", "cidr", "10.0.0.1/29", "cidr"),
    ("block", "cidr", "10.0.0.8/29", "cidr"),
    ("block", "cidr", "10.0.0.0", "cidr"),
    ("block", "affinity", "node1", "affinity"),
    ("block", "affinity", "host:", "affinity"),
    ("block", "affinity", "virtual:node1", "affinity"),
    ("block", "affinity", None, "affinity_claim_time"),
    ("block", "affinity_claim_time", "2026-01-02T03:04:05.5Z", "affinity_claim_time"),
    ("block", "affinity_claim_time", "2026-01-02T03:04:05+00:00", "affinity_claim_time"),
    ("block", "affinity_claim_time", "2026-02-30T03:04:05Z", "affinity_claim_time"),
    ("block", "allocations", [2, 0, None, 1, 1, None, None], "allocations"),
    ("block", "allocations", [2, 0, None, 1, 1, None, None, None, None], "allocations"),
    ("block", "allocations.0", 3, "allocations"),
    ("block", "allocations.0", -1, "allocations[0]"),
    ("block", "allocations.0", 0, "attributes[2]"),
    ("block", "allocations.0", None, "unallocated"),
    ("block", "unallocated", [7, 2, 5], "unallocated"),
    ("block", "unallocated", [7, 2, 5, 6, 6], "unallocated"),
    ("block", "unallocated", [7, 2, 5, 6, 0], "unallocated"),
    ("block", "unallocated", [7, 2, 5, 8], "unallocated"),
    ("block", "unallocated.0", -1, "unallocated[0]"),
    ("block", "attributes", None, "attributes"),
    ("block", "attributes.1", {"handle_id": "net.c1", "secondary": OWNER}, "attributes[1]"),
    ("block", "attributes.1", BOTH_RELEASED, "attributes[1]"),
    ("block", "attributes.0.handle_id", "", "attributes[0].handle_id"),
    ("block", "attributes.0.handle_id", "net.c/1", "attributes[0].handle_id"),
    ("block", "attributes.0.handle_id", "net.c1\r", "attributes[0].handle_id"),
    ("block", "attributes.0.handle_id", "other.c1", "attributes[0].handle_id"),
    ("block", "attributes.1.secondary", {}, "attributes[1].secondary"),
    ("block", "attributes.1.alternateOwnerAttrs", {}, "attributes[1].alternateOwnerAttrs"),
    ("block", "attributes.1.alternateOwnerAttrs", {"x": ""}, "attributes[1].alternateOwnerAttrs.x"),
    ("block", "attributes.1.secondary", {"type": "x"}, "attributes[1].secondary.type"),
    ("block", "attributes.0.secondary.node", "", "attributes[0].secondary.node"),
    ("block", "attributes.0.secondary.timestamp", "now", "attributes[0].secondary.timestamp"),
    *(
        ("block", "attributes.0.secondary.timestamp", wrong, "attributes[0].secondary.timestamp")
        for wrong in (
            "2026-01-02T03:04:05Z",
            "2026-01-02 03:04:05.10 +0000 UTC",
            "2026-01-02 03:04:05. +0000 UTC",
            "2026-01-02 03:04:05.1234567891 +0000 UTC",
            "2026-01-02 03:04:05 +0100 CET",
            "2026-13-02 03:04:05 +0000 UTC",
        )
    ),
    (
        "block",
        "attributes.2.releasedAt",
        "2026-01-02 03:04:06 +0000 UTC",
        "attributes[2].releasedAt",
    ),
    ("block", "sequenceNumber", -1, "sequenceNumber"),
    ("block", "sequenceNumber", 2**64, "sequenceNumber"),
    ("block", "sequenceNumber", 99, "sequenceNumberForAllocation.1"),
    ("block", "sequenceNumberForAllocation", {"0": 1}, "sequenceNumberForAllocation.1"),
    ("block", "sequenceNumberForAllocation", {"1": 1, "2": 1}, "sequenceNumberForAllocation.2"),
    ("block", "sequenceNumberForAllocation", {"01": 1, "1": 1}, "sequenceNumberForAllocation.01"),
    ("block", "sequenceNumberForAllocation", {"1": -1}, "sequenceNumberForAllocation.1"),
    ("block", "sequenceNumberForAllocation", {"1": 2**64}, "sequenceNumberForAllocation.1"),
    ("block", "deleted", True, "deleted"),
    ("block", "hostAffinity", "node1", "hostAffinity"),
    ("affinity", "state", "", "state"),
    ("affinity", "state", "Confirmed", "state"),
    ("affinity", "deleted", True, "deleted"),
    ("handle", "block", {}, "block"),
    ("handle", "block", {"10.0.0.0/29": 0}, "block.10.0.0.0/29"),
    ("handle", "block", {"10.0.0.0/29": 9}, "block.10.0.0.0/29"),
    ("handle", "block", {"10.0.0.0-29": 1}, "block.10.0.0.0-29"),
    ("handle", "block", {"10.0.0.0/8": 1}, "block.10.0.0.0/8"),
    ("handle", "block", {"FD00::/122": 1}, "block.FD00::/122"),
    ("handle", "deleted", True, "deleted"),
    ("handle", "handleID", "net.c1", "handleID"),
    ("config", "strict_affinity", False, "strict_affinity"),
    ("config", "auto_allocate_blocks", False, "auto_allocate_blocks"),
    ("config", "maxBlocksPerHost", 0, "maxBlocksPerHost"),
    ("config", "maxBlocksPerHost", 2**31, "maxBlocksPerHost"),
    ("config", "kubeVirtVMAddressPersistence", "", "kubeVirtVMAddressPersistence"),
    ("config", "ipCooldownSeconds", 0, "ipCooldownSeconds"),
    ("config", "ipCooldownSeconds", 1201, "ipCooldownSeconds"),
    ("config", "strictAffinity", True, "strictAffinity"),
    *(
        (kind, f"metadata.{name}", value, f"metadata.{name}")
        for kind in ("pool", "reservation", "node", "cluster")
        for name, value in (
            ("name", "other"),
            ("name", "Default"),
            ("uid", UID.upper()),
            ("uid", UID.replace("-4c7e-", "-1c7e-")),
            ("uid", UID.replace("-9d3a-", "-7d3a-")),
            ("uid", UID.replace("-", "")),
            ("creationTimestamp", "2026-11-21T10:26:22.1Z"),
            ("creationTimestamp", "2026-11-21 10:26:22"),
            ("deletionTimestamp", ""),
            ("generation", 0),
            ("labels", {}),
            ("annotations", {}),
            ("finalizers", []),
            ("resourceVersion", "7"),
            ("namespace", "default"),
        )
    ),
    ("pool", "metadata.labels", {"-a": "b"}, "metadata.labels.-a"),
    ("pool", "metadata.labels.rack", "a b", "metadata.labels.rack"),
    ("pool", "metadata.annotations", {"": "b"}, "metadata.annotations."),
    ("pool", "metadata.finalizers.0", "", "metadata.finalizers[0]"),
    ("pool", "kind", "IPAMBlock", "kind"),
    ("pool", "apiVersion", "crd.projectcalico.org/v1", "apiVersion"),
    ("pool", "status", {}, "status"),
    ("pool", "spec.cidr", "10.0.0.1/24", "spec.cidr"),
    ("pool", "spec.vxlanMode", "never", "spec.vxlanMode"),
    ("pool", "spec.ipipMode", "", "spec.ipipMode"),
    ("pool", "spec.ipipMode", "Always", "spec.ipipMode"),
    ("pool", "spec.natOutgoing", False, "spec.natOutgoing"),
    ("pool", "spec.disabled", False, "spec.disabled"),
    ("pool", "spec.disableBGPExport", False, "spec.disableBGPExport"),
    ("pool", "spec.blockSize", 0, "spec.blockSize"),
    ("pool", "spec.blockSize", 33, "spec.blockSize"),
    ("pool", "spec.blockSize", 122, "spec.blockSize"),
    ("pool", "spec.nodeSelector", "", "spec.nodeSelector"),
    ("pool", "spec.namespaceSelector", "", "spec.namespaceSelector"),
    ("pool", "spec.allowedUses", [], "spec.allowedUses"),
    ("pool", "spec.allowedUses", ["Workload", "Workload"], "spec.allowedUses"),
    ("pool", "spec.allowedUses", ["Workload", "LoadBalancer"], "spec.allowedUses"),
    ("pool", "spec.allowedUses.0", "workload", "spec.allowedUses[0]"),
    ("pool", "spec.assignmentMode", "Auto", "spec.assignmentMode"),
    ("reservation", "spec.reservedCIDRs.0", "10.0.0.1", "spec.reservedCIDRs[0]"),
    ("reservation", "spec.reservedCIDRs.0", "10.0.0.1/33", "spec.reservedCIDRs[0]"),
    ("reservation", "kind", "IPPool", "kind"),
    ("node", "kind", "IPPool", "kind"),
    ("node", "spec.bgp.asNumber", -1, "spec.bgp.asNumber"),
    ("node", "spec.bgp.ipv4Address", "192.168.0.300", "spec.bgp.ipv4Address"),
    ("node", "spec.bgp.ipv4IPIPTunnelAddr", "10.0.0.0/8", "spec.bgp.ipv4IPIPTunnelAddr"),
    ("node", "spec.ipv4VXLANTunnelAddr", "", "spec.ipv4VXLANTunnelAddr"),
    ("node", "spec.vxlanTunnelMACAddr", "", "spec.vxlanTunnelMACAddr"),
    ("node", "spec.vxlanTunnelMACAddrV6", "", "spec.vxlanTunnelMACAddrV6"),
    ("node", "spec.orchRefs", [], "spec.orchRefs"),
    ("node", "spec.orchRefs.0.nodeName", "", "spec.orchRefs[0].nodeName"),
    ("node", "spec.orchRefs.0.orchestrator", "", "spec.orchRefs[0].orchestrator"),
    ("cluster", "kind", "IPPool", "kind"),
    ("cluster", "spec.clusterGUID", UID, "spec.clusterGUID"),
    ("cluster", "spec.clusterGUID", "0" * 32, "spec.clusterGUID"),
    ("cluster", "spec.clusterType", "", "spec.clusterType"),
    ("cluster", "spec.calicoVersion", "", "spec.calicoVersion"),
    ("marker", "x", "", "x"),
]


@pytest.mark.parametrize(("kind", "path", "value", "named_path"), FAULTS)
def test_a_single_fault_is_named(kind, path, value, named_path):
    """One value is wrong, or does not go with the others."""
    problems = find_schema_problems(*with_value(kind, *set_at(path, value)))
    assert names(problems, named_path), problems


@pytest.mark.parametrize(
    ("name", "also"),
    [
        ("ifname", ()),
        ("network", ()),
        ("node", ()),
        ("timestamp", ()),
        ("pod", ()),
        ("namespace", ()),
        ("ifname", ("pod", "namespace")),
    ],
)
def test_an_allocation_of_ours_says_everything(name, also):
    """`ifname`, `network`, `node` and `timestamp` always; pod and namespace both or neither."""
    owner = {key: value for key, value in OWNER.items() if key not in (name, *also)}
    problems = find_schema_problems(
        *with_value("block", ("attributes", 0, "secondary"), owner), foreign=()
    )
    assert names(problems, f"attributes[0].secondary.{name}"), problems


def test_an_allocation_of_ours_may_have_no_pod():
    """Without Kubernetes there is none."""
    owner = {key: value for key, value in OWNER.items() if key not in ("pod", "namespace")}
    changed_block = with_value("block", ("attributes", 0, "secondary"), owner)
    assert [] == find_schema_problems(*changed_block)


def test_a_cap_on_blocks_needs_strict_affinity():
    """Calico's rule for the settings."""
    value = '{"auto_allocate_blocks":true,"maxBlocksPerHost":2}'
    assert names(find_schema_problems(f"{IPAM}/config", value), "maxBlocksPerHost")


@pytest.mark.parametrize("value", ["{}", '{"ipCooldownSeconds":60}'])
def test_settings_that_allow_nothing_are_named(value):
    """Neither strict affinity nor automatic blocks: Calico's setter refuses that."""
    assert names(find_schema_problems(f"{IPAM}/config", value), "auto_allocate_blocks")


def test_strict_affinity_may_stand_without_automatic_blocks():
    """That is a cluster where only the operator claims."""
    assert [] == find_schema_problems(f"{IPAM}/config", '{"strict_affinity":true}')


def test_a_pool_smaller_than_its_blocks_is_named():
    """Unless it is disabled."""
    key, document = FULL["pool"]
    small = {**document["spec"], "cidr": "10.0.0.0/28"}
    assert [] == find_schema_problems(key, spell({**document, "spec": small}))
    del small["disabled"]
    assert names(find_schema_problems(key, spell({**document, "spec": small})), "spec.blockSize")


def test_ip_in_ip_on_ipv6_is_named():
    """There is none in Calico."""
    key, document = FULL["pool"]
    six = {"cidr": "fd00::/64", "vxlanMode": "Never", "ipipMode": "Always", "blockSize": 122}
    spec = {**document["spec"], **six}
    assert names(find_schema_problems(key, spell({**document, "spec": spec})), "spec.ipipMode")


@pytest.mark.parametrize("name", ["Pool", "a_b", "-a", "a..b", "a" * 254])
def test_a_name_that_calico_refuses_is_named(name):
    """Also where the key agrees."""
    key, document = FULL["pool"]
    document = {**document, "metadata": {**document["metadata"], "name": name}}
    key = key.removesuffix("default") + name
    assert names(find_schema_problems(key, spell(document)), "metadata.name")
