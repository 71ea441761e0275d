"""Custom resources as Calico writes them (facts 1.2, 1.4, 11), and their kin: bodies of requests,
to which an API server adds a UID and a revision."""

from __future__ import annotations

import json

HASH = "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A"
BLOCK = (
    '{"kind":"IPAMBlock","apiVersion":"crd.projectcalico.org/v1","metadata":{"name":"10-0-0-0-30",'
    '"annotations":{"projectcalico.org/metadata":"{}"}},"spec":{"cidr":"10.0.0.0/30",'
    '"affinity":"host:node1","affinityClaimTime":"2026-01-02T03:04:05Z",'
    '"allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":[],'
    '"sequenceNumber":1767323045000000678,"sequenceNumberForAllocation":{},"deleted":false,'
    '"strictAffinity":false}}'
)
AFFINITY = (
    '{"kind":"BlockAffinity","apiVersion":"crd.projectcalico.org/v1","metadata":'
    '{"name":"node1-10-0-0-0-26","labels":{"projectcalico.org/affinity-type":"host",'
    '"projectcalico.org/hostname-hash":"7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A",'
    '"projectcalico.org/ip-version":"4"},"annotations":{"projectcalico.org/metadata":'
    '"{\\"labels\\":{\\"projectcalico.org/affinity-type\\":\\"host\\",'
    '\\"projectcalico.org/hostname-hash\\":'
    '\\"7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A\\",'
    '\\"projectcalico.org/ip-version\\":\\"4\\"}}"}},"spec":{"state":"pending","node":"node1",'
    '"type":"host","cidr":"10.0.0.0/26","deleted":"false"}}'
)
HANDLE = (
    '{"kind":"IPAMHandle","apiVersion":"crd.projectcalico.org/v1","metadata":'
    '{"name":"k8s-pod-network.c1","annotations":{"projectcalico.org/metadata":"{}"}},"spec":'
    '{"handleID":"k8s-pod-network.c1","block":{"10.0.0.208/29":1},"deleted":false}}'
)
CONFIG = (
    '{"kind":"IPAMConfig","apiVersion":"crd.projectcalico.org/v1","metadata":{"name":"default",'
    '"annotations":{"projectcalico.org/metadata":"{}"}},"spec":{"strictAffinity":false,'
    '"autoAllocateBlocks":true}}'
)
REAL_UID = "5f2c1b2a-8b7e-4c7e-9d3a-0f1e2d3c4b5a"
SHOWN_UID = "fa34d854-d17e-4c7e-9d5c-f078b43cd25a"


def stored(body, revision="7", **spec):
    """An object as the API server gives it back: fields sorted, with a UID and a revision."""
    found = json.loads(body) if isinstance(body, str) else body
    found = json.loads(json.dumps(found, sort_keys=True))
    found["metadata"].update(uid=REAL_UID, resourceVersion=revision)
    found["spec"].update(spec)
    return found
