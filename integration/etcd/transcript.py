"""The golden transcript: every key below /calico/ipam after each step, as calico-ipam left it.

Seen when the Go calico-ipam of v3.34.0-0.dev ran against etcd; the spelling and the order of fields
are Go's. Put in are the two attributes that each allocation of ours has more: `ifname`, `network`.
Times and sequence numbers are named by what they must be: `S` is a block's number at its making.
The transcript does not show the key of the settings; it stands here as Calico's library writes it.
"""

from __future__ import annotations

import re

IPAM = "/calico/ipam/v2"
CONFIG = f"{IPAM}/config"
CONFIRMED = '{"state":"confirmed","deleted":false}'
STORED_POOL = (
    '{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool1","uid":"<uid>",'
    '"creationTimestamp":"<made>"},"spec":{"cidr":"10.0.0.0/24","vxlanMode":"Never","ipipMode":'
    '"Always","natOutgoing":true,"blockSize":29,"nodeSelector":"all()","allowedUses":["Workload",'
    '"Tunnel"],"assignmentMode":"Automatic"}}'
)
STORED_RESERVATION = (
    '{"kind":"IPReservation","apiVersion":"projectcalico.org/v3","metadata":{"name":"kept","uid":'
    '"<uid>","creationTimestamp":"<made>"},"spec":{"reservedCIDRs":["10.0.0.212/31"]}}'
)
A, B, LOW, HIGH = "10.0.0.208/29", "10.0.0.248/29", "10.9.0.0/31", "10.9.0.2/31"


def owner(container: str, node: str, pod: str = "") -> str:
    """An entry of a block's attributes; `secondary` is a map, which Go sorts."""
    return (
        f'{{"handle_id":"k8s-pod-network.{container}","secondary":{{"ifname":"eth0",'
        + ('"namespace":"default",' if pod else "")
        + f'"network":"k8s-pod-network","node":"{node}",'
        + (f'"pod":"{pod}",' if pod else "")
        + '"timestamp":"<assigned>"}}'
    )


def block(cidr: str, host: str, allocations: str, free: str, owners: list[str], seq: str) -> str:
    """A block, which has no claim time without a host. In `allocations` - is null; `seq` is the
    sequence number, and behind a blank those of the allocations."""
    claimed = f'"host:{host}","affinity_claim_time":"<claimed>"' if host else "null"
    number, _, of_allocations = seq.partition(" ")
    return (
        f'{{"cidr":"{cidr}","affinity":{claimed},'
        f'"allocations":[{allocations.replace("-", "null").replace(" ", ",")}],'
        f'"unallocated":[{free.replace(" ", ",")}],"attributes":[{",".join(owners)}],'
        f'"sequenceNumber":{number},"sequenceNumberForAllocation":{{{of_allocations}}},'
        '"deleted":false}'
    )


def count_one(cidr: str) -> str:
    """A handle with one address of a block."""
    return f'{{"block":{{"{cidr}":1}},"deleted":false}}'


def place(cidr: str) -> str:
    """A block's key."""
    return f"{IPAM}/assignment/ipv4/block/{cidr.replace('/', '-')}"


def affinity(node: str, cidr: str) -> str:
    """An affinity's key."""
    return f"{IPAM}/host/{node}/ipv4/block/{cidr.replace('/', '-')}"


def handle(container: str) -> str:
    """A handle's key."""
    return f"{IPAM}/handle/k8s-pod-network.{container}"


C1, C2, C3 = owner("c1", "node1", "p1"), owner("c2", "node1", "p2"), owner("c3", "node1")
C4, C5, C6 = owner("c4", "node2"), owner("c5", "node1"), owner("c6", "node1")
S1, S2, S3, S4 = (owner(f"s{number}", "node1") for number in range(1, 5))
B1 = owner("b1", "node2")
N1, N2 = "node1", "node2"
FROM_3 = "3 4 5 6 7"

# Each step with the keys that it changes; None: the key goes.
TRANSCRIPT: dict[str, dict[str, str | None]] = {
    "1 ADD c1 claims a block": {
        place(A): block(A, N1, "0 - - - - - - -", "1 2 3 4 5 6 7", [C1], 'S+1 "0":S'),
        affinity(N1, A): CONFIRMED,
        handle("c1"): count_one(A),
    },
    "2 ADD c2": {
        place(A): block(A, N1, "0 1 - - - - - -", "2 3 4 5 6 7", [C1, C2], 'S+2 "0":S,"1":S+1'),
        handle("c2"): count_one(A),
    },
    "3 ADD c3 without a pod": {
        place(A): block(
            *(A, N1, "0 1 2 - - - - -", FROM_3, [C1, C2, C3]), 'S+3 "0":S,"1":S+1,"2":S+2'
        ),
        handle("c3"): count_one(A),
    },
    "4 DEL c1": {
        place(A): block(
            *(A, N1, "- 0 1 - - - - -", f"{FROM_3} 0", [C2, C3]), 'S+4 "1":S+1,"2":S+2'
        ),
        handle("c1"): None,
    },
    "4 DEL c1 again": {},
    "5 ADD of 10.0.0.250 on node2": {
        place(B): block(B, N2, "- - 0 - - - - -", "0 1 3 4 5 6 7", [C4], 'S+1 "2":S'),
        affinity(N2, B): CONFIRMED,
        handle("c4"): count_one(B),
    },
    "6 ADD s1 claims half of a small pool": {
        place(LOW): block(LOW, N1, "0 -", "1", [S1], 'S+1 "0":S'),
        affinity(N1, LOW): CONFIRMED,
        handle("s1"): count_one(LOW),
    },
    "6 ADD s2": {
        place(LOW): block(LOW, N1, "0 1", "", [S1, S2], 'S+2 "0":S,"1":S+1'),
        handle("s2"): count_one(LOW),
    },
    "6 ADD s3 claims the other half": {
        place(HIGH): block(HIGH, N1, "0 -", "1", [S3], 'S+1 "0":S'),
        affinity(N1, HIGH): CONFIRMED,
        handle("s3"): count_one(HIGH),
    },
    "6 ADD s4": {
        place(HIGH): block(HIGH, N1, "0 1", "", [S3, S4], 'S+2 "0":S,"1":S+1'),
        handle("s4"): count_one(HIGH),
    },
    "6 a fifth finds none": {},
    "6 DEL s1": {
        place(LOW): block(LOW, N1, "- 0", "0", [S2], 'S+3 "1":S+1'),
        handle("s1"): None,
    },
    "6 node2 borrows": {
        place(LOW): block(LOW, N1, "1 0", "", [S2, B1], 'S+4 "0":S+3,"1":S+1'),
        handle("b1"): count_one(LOW),
    },
    "7 strict affinity, and full": {
        CONFIG: '{"strict_affinity":true,"auto_allocate_blocks":true}',
    },
    "7 one block a node": {
        CONFIG: '{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":1}',
    },
    "8 both settings back, DEL c3": {
        CONFIG: '{"auto_allocate_blocks":true}',
        place(A): block(A, N1, "- 0 - - - - - -", f"{FROM_3} 0 2", [C2], 'S+5 "1":S+1'),
        handle("c3"): None,
    },
    "8 ADD c5 before the reserved": {
        place(A): block(
            *(A, N1, "- 0 - 1 - - - -", "4 5 6 7 0 2", [C2, C5]), 'S+6 "1":S+1,"3":S+5'
        ),
        handle("c5"): count_one(A),
    },
    "8 ADD c6 behind the reserved": {
        place(A): block(
            *(A, N1, "- 0 - 1 - - 2 -", "4 5 7 0 2", [C2, C5, C6]),
            'S+7 "1":S+1,"3":S+5,"6":S+6',
        ),
        handle("c6"): count_one(A),
    },
    "9 the pool goes": {
        place(A): block(
            *(A, "", "- 0 - 1 - - 2 -", "4 5 7 0 2", [C2, C5, C6]),
            'S+8 "1":S+1,"3":S+5,"6":S+6',
        ),
        place(B): block(B, "", "- - 0 - - - - -", "0 1 3 4 5 6 7", [C4], 'S+2 "2":S'),
        affinity(N1, A): None,
        affinity(N2, B): None,
    },
    "9 DEL c2": {
        place(A): block(
            *(A, "", "- - - 0 - - 1 -", "4 5 7 0 2 1", [C5, C6]), 'S+9 "3":S+5,"6":S+6'
        ),
        handle("c2"): None,
    },
    "9 DEL c5": {
        place(A): block(A, "", "- - - - - - 0 -", "4 5 7 0 2 1 3", [C6], 'S+10 "6":S+6'),
        handle("c5"): None,
    },
    "9 DEL c6": {place(A): None, handle("c6"): None},
    "9 DEL c4": {place(B): None, handle("c4"): None},
}
ADDRESSES = {
    "c1": "10.0.0.208/29",
    "c2": "10.0.0.209/29",
    "c3": "10.0.0.210/29",
    "c4": "10.0.0.250/32",
    "s1": "10.9.0.0/31",
    "s2": "10.9.0.1/31",
    "s3": "10.9.0.2/31",
    "s4": "10.9.0.3/31",
    "b1": "10.9.0.0/31",
    "c5": "10.0.0.211/29",
    "c6": "10.0.0.214/29",
}
ERRORS = {
    "6 a fifth finds none": (
        "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
        "No IPs available in pools: [10.9.0.0/30]"
    ),
    "7 strict affinity, and full": "; No more free affine blocks and strict affinity enabled",
    "7 one block a node": "cannot allocate new block due to per host block limit",
}


def tell_transcript(offset: int) -> dict[str, dict[str, str]]:
    """All keys after each step, with the block of node1 moved by `offset` addresses."""
    world: dict[str, str | None] = {}
    worlds = {}
    for step, changes in TRANSCRIPT.items():
        world |= changes
        worlds[step] = {
            move(key, offset): move(value, offset) for key, value in world.items() if value
        }
    return worlds


def move(text: str, offset: int) -> str:
    """Move the addresses of 10.0.0.208/29, and no others."""
    return re.sub(
        r"\b10\.0\.0\.(20[89]|21[0-5])\b", lambda found: f"10.0.0.{int(found[1]) + offset}", text
    )
