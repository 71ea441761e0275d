"""Records as Calico wrote them (facts 1, 2.13, 10), and others made after their likeness."""

from __future__ import annotations

FRESH = (
    '{"cidr":"10.0.0.0/30","affinity":"host:node1","affinity_claim_time":"2026-01-02T03:04:05Z",'
    '"allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":null,'
    '"sequenceNumber":1767323045000000678,"sequenceNumberForAllocation":{},"deleted":false}'
)
ALLOCATED = (
    '{"cidr":"10.0.0.208/29","affinity":"host:node1",'
    '"affinity_claim_time":"2026-11-21T10:26:59Z",'
    '"allocations":[0,null,null,null,null,null,null,null],"unallocated":[1,2,3,4,5,6,7],'
    '"attributes":[{"handle_id":"k8s-pod-network.c1","secondary":{"namespace":"default",'
    '"node":"node1","pod":"p1","timestamp":"2026-11-21 10:26:59.938437476 +0000 UTC"}}],'
    '"sequenceNumber":1795256819949442452,'
    '"sequenceNumberForAllocation":{"0":1795256819949442451},"deleted":false}'
)
COOLING = (
    '{"cidr":"10.0.0.208/29","affinity":null,"allocations":[null,0,1,null,null,null,null,null],'
    '"unallocated":[3,4,5,6,7,0],"attributes":[{"releasedAt":"2026-11-21T10:27:55Z"},'
    '{"handle_id":"k8s-pod-network.vmi.ns.vm","secondary":{"node":"node1"},'
    '"alternateOwnerAttrs":{"node":"node2"}}],"sequenceNumber":9007199254740993,'
    '"sequenceNumberForAllocation":{"1":9007199254740992,"2":18446744073709551615},'
    '"deleted":false}'
)
POOL = (
    '{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool1",'
    '"uid":"1e2f","creationTimestamp":"2026-11-21T10:26:22Z"},"spec":{"cidr":"10.0.0.0/24",'
    '"vxlanMode":"Never","ipipMode":"Always","natOutgoing":true,"blockSize":29,'
    '"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}'
)
RESERVATION = (
    '{"kind":"IPReservation","apiVersion":"projectcalico.org/v3","metadata":{"name":"r"},'
    '"spec":{"reservedCIDRs":["10.0.0.0/30"," 10.0.0.9 ","nonsense",""]}}'
)
PEER = (
    '{"kind":"BGPPeer","apiVersion":"projectcalico.org/v3","metadata":{"name":"router"},'
    '"spec":{"peerIP":"172.20.34.231","asNumber":64513}}'
)
BGP_CONFIGURATION = (
    '{"kind":"BGPConfiguration","apiVersion":"projectcalico.org/v3",'
    '"metadata":{"name":"default"},"spec":{"nodeToNodeMeshEnabled":false,"asNumber":64500}}'
)
NODE = (
    '{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"node1",'
    '"labels":{"rack":"1"}},"spec":{"bgp":{"ipv4Address":"192.168.0.1/24"}},"status":{}}'
)
CLUSTER = (
    '{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3",'
    '"metadata":{"name":"default"},"spec":{"clusterGUID":"1e2f","datastoreReady":false}}'
)
FULL_CONFIG = (
    '{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":2,'
    '"kubeVirtVMAddressPersistence":"Enabled","ipCooldownSeconds":60}'
)
AFFINITY_KEY = "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.208-29"
