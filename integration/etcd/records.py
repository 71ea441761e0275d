"""The fields of every kind of record that we may write to etcd, in the order of Go.

Written from what is known of Calico, not from our own codec: the two must agree without knowing
each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.etcd.shape import (
    Field,
    Findings,
    address,
    address_or_cidr,
    boolean,
    cidr,
    exactly,
    fields,
    go_time,
    integer,
    list_of,
    map_of,
    one_of,
    or_null,
    rfc3339,
    text,
    unmasked_cidr,
)

if TYPE_CHECKING:
    from typing import Any

    from integration.etcd.shape import type_of_check

UINT64 = 2**64 - 1
INT32 = 2**31 - 1
LB = "LoadBalancer"
MODES = one_of("Never", "Always", "CrossSubnet")

# What a field that is left out when empty must not be: false, 0, "", [], {}.
TRUE = exactly(True)
FALSE = exactly(False)
HANDLE = text(r"[^/\r]+", "a handle, which is not empty and holds no /")
HOST = text(r"[A-Za-z0-9._-]+", "a node's name")
NAME = text(
    r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "a name of lower case letters, digits, - and .",
)
LABEL = text(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?(?=[^/]{1,63}\Z)[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
    "the name of a label",
)
LABEL_VALUE = text(
    r"(?=.{0,63}\Z)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", "the value of a label"
)
UID = text(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "a v4 UUID")
GUID = text(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", "a v4 UUID without dashes")
ORDINAL = text(r"0|[1-9]\d{0,3}", "an ordinal in decimal")
ANY_TEXT = text(r".*", "a text")

OWNER: dict[str, type_of_check] = {
    **dict.fromkeys(("node", "ifname", "network"), text()),
    **dict.fromkeys(("namespace", "pod", "service", "note"), ANY_TEXT),
    **dict.fromkeys(("vmi-name", "vmi-uid", "vm-uid", "vmim-uid"), ANY_TEXT),
    "timestamp": go_time,
    "type": one_of(
        *("ipipTunnelAddress", "vxlanTunnelAddress", "vxlanV6TunnelAddress"),
        *("wireguardTunnelAddress", "wireguardV6TunnelAddress", LB),
    ),
}


def _owner(value: Any, path: str, findings: Findings) -> None:
    """Attributes of an owner: known ones, as texts."""
    map_of(ANY_TEXT, text(r".*"), least=1)(value, path, findings)
    for name in value if isinstance(value, dict) else ():
        if name in OWNER:
            OWNER[name](value[name], f"{path}.{name}", findings)
        elif name not in findings.foreign:
            findings.add(f"{path}.{name}", "is an attribute that nobody knows")


ATTRIBUTE = fields(
    Field("handle_id", HANDLE, is_required=False),
    Field("secondary", _owner, is_required=False),
    Field("alternateOwnerAttrs", _owner, is_required=False),
    Field("releasedAt", rfc3339, is_required=False),
)
BLOCK = fields(
    Field("cidr", cidr),
    Field("affinity", or_null(text(r"host:[A-Za-z0-9._-]+|virtual:load-balancer", "an affinity"))),
    Field("affinity_claim_time", rfc3339, is_required=False),
    Field("allocations", list_of(or_null(integer(0, 4095)))),
    Field("unallocated", list_of(integer(0, 4095))),
    Field("attributes", or_null(list_of(ATTRIBUTE))),
    Field("sequenceNumber", integer(0, UINT64)),
    Field("sequenceNumberForAllocation", map_of(ORDINAL, integer(0, UINT64))),
    Field("deleted", FALSE),
)
AFFINITY = fields(
    Field("state", one_of("pending", "confirmed", "pendingDeletion")), Field("deleted", FALSE)
)
HANDLE_RECORD = fields(
    Field("block", map_of(cidr, integer(1, 4096), least=1)), Field("deleted", FALSE)
)
CONFIG = fields(
    Field("strict_affinity", TRUE, is_required=False),
    Field("auto_allocate_blocks", TRUE, is_required=False),
    Field("maxBlocksPerHost", integer(1, INT32), is_required=False),
    Field("kubeVirtVMAddressPersistence", one_of("Enabled", "Disabled"), is_required=False),
    Field("ipCooldownSeconds", integer(1, 1200), is_required=False),
)
METADATA = fields(
    Field("name", NAME),
    Field("uid", UID),
    Field("generation", integer(1, UINT64), is_required=False),
    Field("creationTimestamp", rfc3339),
    Field("deletionTimestamp", rfc3339, is_required=False),
    Field("labels", map_of(LABEL, LABEL_VALUE, least=1), is_required=False),
    Field("annotations", map_of(LABEL, ANY_TEXT, least=1), is_required=False),
    Field("finalizers", list_of(text(), least=1), is_required=False),
)


def resource(kind: str, *spec: Field, status: Field | None = None) -> type_of_check:
    """A resource of projectcalico.org/v3."""
    return fields(
        Field("kind", exactly(kind)),
        Field("apiVersion", exactly("projectcalico.org/v3")),
        Field("metadata", METADATA),
        Field("spec", fields(*spec)),
        *([status] if status else []),
    )


POOL = resource(
    "IPPool",
    Field("cidr", cidr),
    Field("vxlanMode", MODES),
    Field("ipipMode", MODES),
    Field("natOutgoing", TRUE, is_required=False),
    Field("disabled", TRUE, is_required=False),
    Field("disableBGPExport", TRUE, is_required=False),
    Field("blockSize", integer(20, 128)),
    Field("nodeSelector", text()),
    Field("namespaceSelector", text(), is_required=False),
    Field("allowedUses", list_of(one_of("Workload", "Tunnel", LB), least=1)),
    Field("assignmentMode", one_of("Automatic", "Manual")),
)
RESERVATION = resource(
    "IPReservation", Field("reservedCIDRs", list_of(unmasked_cidr), is_required=False)
)
AS_NUMBER = integer(0, 2**32 - 1)
DURATION = text(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", "a duration as Go writes it")
PASSWORD = fields(Field("secretKeyRef", fields(Field("name", text()), Field("key", text()))))
BGP = fields(
    Field("asNumber", AS_NUMBER, is_required=False),
    Field("ipv4Address", address_or_cidr, is_required=False),
    Field("ipv6Address", address_or_cidr, is_required=False),
    Field("ipv4IPIPTunnelAddr", address, is_required=False),
    Field("routeReflectorClusterID", address, is_required=False),
)
NODE = resource(
    "Node",
    Field("bgp", BGP, is_required=False),
    Field("ipv4VXLANTunnelAddr", address, is_required=False),
    Field("vxlanTunnelMACAddr", text(), is_required=False),
    Field("ipv6VXLANTunnelAddr", address, is_required=False),
    Field("vxlanTunnelMACAddrV6", text(), is_required=False),
    Field(
        "orchRefs",
        list_of(
            fields(Field("nodeName", text(), is_required=False), Field("orchestrator", text())),
            least=1,
        ),
        is_required=False,
    ),
    Field(
        "wireguard",
        fields(
            Field("interfaceIPv4Address", address, is_required=False),
            Field("interfaceIPv6Address", address, is_required=False),
        ),
        is_required=False,
    ),
    status=Field("status", fields()),
)
CLUSTER = resource(
    "ClusterInformation",
    Field("clusterGUID", GUID, is_required=False),
    Field("clusterType", text(), is_required=False),
    Field("calicoVersion", text(), is_required=False),
    Field("datastoreReady", boolean),
)
PEER = resource(
    "BGPPeer",
    Field("node", HOST, is_required=False),
    Field("nodeSelector", text(), is_required=False),
    Field("peerIP", text(), is_required=False),
    Field("asNumber", AS_NUMBER, is_required=False),
    Field("peerSelector", text(), is_required=False),
    Field("keepOriginalNextHop", TRUE, is_required=False),
    Field("password", PASSWORD, is_required=False),
    Field("sourceAddress", one_of("UseNodeIP", "None"), is_required=False),
    Field("maxRestartTime", DURATION, is_required=False),
    Field("numAllowedLocalASNumbers", integer(1, 255), is_required=False),
    Field("ttlSecurity", integer(1, 255), is_required=False),
    Field("reachableBy", address, is_required=False),
    Field("filters", list_of(text(), least=1), is_required=False),
)
BGP_CONFIGURATION = resource(
    "BGPConfiguration",
    Field("logSeverityScreen", text(), is_required=False),
    Field("nodeToNodeMeshEnabled", boolean, is_required=False),
    Field("asNumber", AS_NUMBER, is_required=False),
    *[
        Field(name, list_of(fields(Field("cidr", cidr)), least=1), is_required=False)
        for name in ("serviceLoadBalancerIPs", "serviceExternalIPs", "serviceClusterIPs")
    ],
    Field("listenPort", integer(1, 65535), is_required=False),
    Field("nodeMeshPassword", PASSWORD, is_required=False),
    Field("nodeMeshMaxRestartTime", DURATION, is_required=False),
    Field("bindMode", one_of("None", "NodeIP"), is_required=False),
    Field("ignoredInterfaces", list_of(text(), least=1), is_required=False),
)
