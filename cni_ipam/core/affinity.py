"""Affinities: which host owns which block.

A block is affine to the host whose pods it mostly holds, so that the host can advertise one route
for all of them. The claim is recorded twice, in the block (`affinity`) and in a key of its own
under the host, so that a host finds its blocks with one list. Two records cannot be written at
once in every store, so the key has a state:

    (absent) ──► pending ──► confirmed ──► pendingDeletion ──► (absent)
                   ▲  │                          │
                   └──┴──────────────────────────┘

*Pending is absent.* Who has only a pending affinity does not own the block: no route, no
advertisement, no assignment without confirming it first. The writes of a claim go
pending → block → confirmed, those of a release pendingDeletion → block → gone, so whatever prefix
of them survives a crash, a confirmed affinity always has its block, and a block that names a host
always has that host's key. A state that is empty is a legacy one and means confirmed.
"""

from __future__ import annotations

from cni_ipam.core.address import Cidr
from cni_ipam.lean.record import record

KINDS = ("host", "virtual")
PENDING = "pending"
CONFIRMED = "confirmed"
PENDING_DELETION = "pendingDeletion"


@record
class Affinity:
    """One host's claim on one block. `kind` is `host`, or `virtual` for load balancers."""

    kind: str
    host: str
    cidr: Cidr
    state: str = CONFIRMED
    extra: dict[str, object] | None = None

    @property
    def owner(self) -> str:
        """The text that the block itself holds, e.g. `host:node1`."""
        return f"{self.kind}:{self.host}"

    @property
    def is_confirmed(self) -> bool:
        """Whether the host owns the block."""
        return self.state in (CONFIRMED, "")


def parse_owner(text: str) -> tuple[str, str]:
    """Kind and host of a block's affinity text; an unknown form has an empty kind."""
    kind, colon, host = text.partition(":")
    return (kind, host) if colon else ("", text)


def owner_of(host: str) -> str:
    """The affinity text of blocks that `host` owns."""
    return f"host:{host}"
