"""Values to try the checker on: Calico's own, and one of each kind with every field."""

from __future__ import annotations

import copy
import json

from integration.etcd.shape import spell

IPAM = "/calico/ipam/v2"
V3 = "/calico/resources/v3/projectcalico.org"
MARKER = "/cni-ipam/v1/default-pools/pool1"
UID = "5f2c1b2a-8b7e-4c7e-9d3a-0f1e2d3c4b5a"
META = f'"uid":"{UID}","creationTimestamp":"2026-11-21T10:26:22Z"'

# As Calico's programs wrote them, where a record of it stands in facts/calico.md 1.
GOLDEN = {
    "fresh block": (
        f"{IPAM}/assignment/ipv4/block/10.0.0.0-30",
        (
            '{"cidr":"10.0.0.0/30","affinity":"host:node1",'
            '"affinity_claim_time":"2026-01-02T03:04:05Z","allocations":[null,null,null,null],'
            '"unallocated":[0,1,2,3],"attributes":null,"sequenceNumber":1767323045000000678,'
            '"sequenceNumberForAllocation":{},"deleted":false}'
        ),
    ),
    "block with one allocation": (
        f"{IPAM}/assignment/ipv4/block/10.0.0.208-29",
        (
            '{"cidr":"10.0.0.208/29","affinity":"host:node1",'
            '"affinity_claim_time":"2026-11-21T10:26:59Z",'
            '"allocations":[0,null,null,null,null,null,null,null],"unallocated":[1,2,3,4,5,6,7],'
            '"attributes":[{"handle_id":"k8s-pod-network.c1","secondary":{"namespace":"default",'
            '"node":"node1","pod":"p1","timestamp":"2026-11-21 10:26:59.938437476 +0000 UTC"}}],'
            '"sequenceNumber":1795256819949442452,'
            '"sequenceNumberForAllocation":{"0":1795256819949442451},"deleted":false}'
        ),
    ),
    "cooling block without affinity": (
        f"{IPAM}/assignment/ipv6/block/fd00:10:244::40-126",
        (
            '{"cidr":"fd00:10:244::40/126","affinity":null,"allocations":[null,0,1,null],'
            '"unallocated":[3,0],"attributes":[{"releasedAt":"2026-11-21T10:27:55Z"},'
            '{"releasedAt":"2026-11-21T10:27:55Z"}],"sequenceNumber":5,'
            '"sequenceNumberForAllocation":{"1":3,"2":4},"deleted":false}'
        ),
    ),
    "block with a tunnel's address": (
        f"{IPAM}/assignment/ipv4/block/10.0.0.0-31",
        (
            '{"cidr":"10.0.0.0/31","affinity":"virtual:load-balancer","allocations":[null,0],'
            '"unallocated":[0],"attributes":[{"handle_id":"ipip-tunnel-addr-node1",'
            '"secondary":{"node":"node1","type":"ipipTunnelAddress"}}],"sequenceNumber":0,'
            '"sequenceNumberForAllocation":{},"deleted":false}'
        ),
    ),
    "affinity": (
        f"{IPAM}/host/node1/ipv4/block/10.0.0.0-26",
        '{"state":"confirmed","deleted":false}',
    ),
    "affinity of IPv6": (
        f"{IPAM}/host/node1/ipv6/block/fd00:10:244::40-122",
        '{"state":"pending","deleted":false}',
    ),
    "affinity of the load balancer": (
        f"{IPAM}/virtual/load-balancer/ipv4/block/10.9.0.0-26",
        '{"state":"pendingDeletion","deleted":false}',
    ),
    "handle": (
        f"{IPAM}/handle/k8s-pod-network.c1",
        '{"block":{"10.0.0.208/29":1},"deleted":false}',
    ),
    "config": (
        f"{IPAM}/config",
        (
            '{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":2,'
            '"kubeVirtVMAddressPersistence":"Enabled","ipCooldownSeconds":60}'
        ),
    ),
    "pool": (
        f"{V3}/ippools/pool1",
        (
            f'{{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{{"name":"pool1",{META}}},'
            '"spec":{"cidr":"10.0.0.0/24","vxlanMode":"Never","ipipMode":"Always","natOutgoing":true,'
            '"blockSize":29,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],'
            '"assignmentMode":"Automatic"}}'
        ),
    ),
    "reservation": (
        f"{V3}/ipreservations/r1",
        (
            '{"kind":"IPReservation","apiVersion":"projectcalico.org/v3",'
            f'"metadata":{{"name":"r1",{META}}},"spec":{{"reservedCIDRs":["10.0.0.0/30"]}}}}'
        ),
    ),
    "node": (
        f"{V3}/nodes/node1",
        (
            '{"kind":"Node","apiVersion":"projectcalico.org/v3",'
            f'"metadata":{{"name":"node1",{META},"labels":{{"rack":"1"}}}},'
            '"spec":{"bgp":{"ipv4Address":"192.168.0.1/24"}},"status":{}}'
        ),
    ),
    "cluster": (
        f"{V3}/clusterinformations/default",
        (
            '{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3",'
            f'"metadata":{{"name":"default",{META}}},'
            '"spec":{"clusterGUID":"5f2c1b2a8b7e4c7e9d3a0f1e2d3c4b5a","clusterType":"kdd,k8s",'
            '"calicoVersion":"v3.32.1","datastoreReady":true}}'
        ),
    ),
    "marker": (MARKER, "{}"),
}

OWNER = {
    "ifname": "eth0",
    "namespace": "default",
    "network": "net",
    "node": "node1",
    "pod": "p1",
    "timestamp": "2026-01-02 03:04:05 +0000 UTC",
}
METADATA = {
    "name": "default",
    "uid": UID,
    "generation": 2,
    "creationTimestamp": "2026-11-21T10:26:22Z",
    "deletionTimestamp": "2026-11-21T10:26:23Z",
    "labels": {"example.org/a": "b", "rack": ""},
    "annotations": {"a": "<&>", "b": ""},
    "finalizers": ["projectcalico.org/ippool-finalizer"],
}
BLOCK_KEY = f"{IPAM}/assignment/ipv4/block/10.0.0.0-29"


def resource(kind: str, spec: object) -> dict:
    head = {"kind": kind, "apiVersion": "projectcalico.org/v3"}
    return {**head, "metadata": METADATA, "spec": spec}


# One of each kind with every field that it can have.
FULL = {
    "block": (
        BLOCK_KEY,
        {
            "cidr": "10.0.0.0/29",
            "affinity": "host:node1",
            "affinity_claim_time": "2026-01-02T03:04:05Z",
            "allocations": [2, 0, None, 1, 1, None, None, None],
            "unallocated": [7, 2, 5, 6],
            "attributes": [
                {"handle_id": "net.c1", "secondary": OWNER},
                {
                    "handle_id": "k8s.vm",
                    "secondary": {"node": "n2", "vmi-name": "v", "vmim-uid": "u"},
                    "alternateOwnerAttrs": {"node": "n3", "vm-uid": "u", "vmi-uid": "x"},
                },
                {"releasedAt": "2026-01-02T03:04:06Z"},
            ],
            "sequenceNumber": 100,
            "sequenceNumberForAllocation": {"0": 1, "1": 99, "3": 4, "4": 4},
            "deleted": False,
        },
    ),
    "affinity": (
        f"{IPAM}/host/node1/ipv4/block/10.0.0.0-29",
        {"state": "confirmed", "deleted": False},
    ),
    "handle": (
        f"{IPAM}/handle/net.c1",
        {"block": {"10.0.0.0/29": 8, "fd00::40/122": 1}, "deleted": False},
    ),
    "config": (
        f"{IPAM}/config",
        {
            "strict_affinity": True,
            "auto_allocate_blocks": True,
            "maxBlocksPerHost": 2,
            "kubeVirtVMAddressPersistence": "Disabled",
            "ipCooldownSeconds": 1200,
        },
    ),
    "pool": (
        f"{V3}/ippools/default",
        resource(
            "IPPool",
            {
                "cidr": "10.0.0.0/24",
                "vxlanMode": "CrossSubnet",
                "ipipMode": "Never",
                "natOutgoing": True,
                "disabled": True,
                "disableBGPExport": True,
                "blockSize": 26,
                "nodeSelector": "rack == '1'",
                "namespaceSelector": "all()",
                "allowedUses": ["Workload"],
                "assignmentMode": "Manual",
            },
        ),
    ),
    "reservation": (
        f"{V3}/ipreservations/default",
        resource("IPReservation", {"reservedCIDRs": ["10.0.0.1/30", "fd00::/64"]}),
    ),
    "node": (
        f"{V3}/nodes/default",
        {
            **resource(
                "Node",
                {
                    "bgp": {
                        "asNumber": 64512,
                        "ipv4Address": "192.168.0.1/24",
                        "ipv6Address": "fd00::1/64",
                        "ipv4IPIPTunnelAddr": "10.0.0.1",
                        "routeReflectorClusterID": "1.0.0.1",
                    },
                    "ipv4VXLANTunnelAddr": "10.0.0.2",
                    "vxlanTunnelMACAddr": "66:00:00:00:00:01",
                    "ipv6VXLANTunnelAddr": "fd00::2",
                    "vxlanTunnelMACAddrV6": "66:00:00:00:00:02",
                    "orchRefs": [{"nodeName": "n", "orchestrator": "k8s"}],
                    "wireguard": {
                        "interfaceIPv4Address": "10.0.0.3",
                        "interfaceIPv6Address": "fd00::3",
                    },
                },
            ),
            "status": {},
        },
    ),
    "cluster": (
        f"{V3}/clusterinformations/default",
        resource("ClusterInformation", json.loads(GOLDEN["cluster"][1])["spec"]),
    ),
    "marker": (MARKER, {}),
}

OPTIONAL = {
    "block": {
        *("affinity_claim_time", "attributes[1].alternateOwnerAttrs", "attributes[1].handle_id"),
        *("attributes[0].secondary", "attributes[1].secondary", "attributes[2].releasedAt"),
    },
    "affinity": set(),
    "handle": set(),
    "marker": set(),
    "config": {
        *("auto_allocate_blocks", "maxBlocksPerHost", "kubeVirtVMAddressPersistence"),
        "ipCooldownSeconds",
    },
    "pool": {f"spec.{n}" for n in ("natOutgoing", "disabled", "disableBGPExport")}
    | {"spec.namespaceSelector"},
    "reservation": {"spec.reservedCIDRs"},
    "node": {
        *("spec.bgp", "spec.wireguard", "spec.orchRefs", "spec.orchRefs[0].nodeName"),
        *(f"spec.{n}" for n in ("ipv4VXLANTunnelAddr", "vxlanTunnelMACAddr")),
        *(f"spec.{n}" for n in ("ipv6VXLANTunnelAddr", "vxlanTunnelMACAddrV6")),
        *(f"spec.bgp.{n}" for n in ("asNumber", "ipv4Address", "ipv6Address")),
        *(f"spec.bgp.{n}" for n in ("ipv4IPIPTunnelAddr", "routeReflectorClusterID")),
        *("spec.wireguard.interfaceIPv4Address", "spec.wireguard.interfaceIPv6Address"),
    },
    "cluster": {"spec.clusterGUID", "spec.clusterType", "spec.calicoVersion"},
}
OPTIONAL_METADATA = {
    f"metadata.{name}"
    for name in ("generation", "deletionTimestamp", "labels", "annotations", "finalizers")
}
# Their names are data; each may go, unless two of them belong together.
MAPS = ("labels", "annotations", "sequenceNumberForAllocation", "block")
OWNERS = ("secondary", "alternateOwnerAttrs")


def spelled(path: tuple) -> str:
    """The path as problems name it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def walk(value: object, path: tuple = ()):
    """Every path below a value."""
    inside = value.items() if isinstance(value, dict) else ()
    for part, child in enumerate(value) if isinstance(value, list) else inside:
        yield (*path, part)
        yield from walk(child, (*path, part))


def pick(value: object, path: tuple) -> object:
    for part in path:
        value = value[part]
    return value


def changed(kind: str, path: tuple, change) -> tuple[str, str]:
    """The full example with what holds `path` changed by `change(holder, last part)`."""
    key, document = FULL[kind]
    document = copy.deepcopy(document)
    change(pick(document, path[:-1]), path[-1])
    return key, spell(document)


def with_value(kind: str, path: tuple, value: object) -> tuple[str, str]:
    """The full example with another value at `path`."""

    def change(holder, last):
        holder[last] = value

    return changed(kind, path, change)


def names(problems: list[str], path: str) -> bool:
    """Whether one of the problems is told of that field."""
    return any(problem.startswith(f"{path}: ") for problem in problems)
