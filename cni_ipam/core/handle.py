"""Handles: from an owner to the blocks that hold its addresses.

A handle counts an owner's addresses per block, which makes release by owner a lookup instead of a
scan. It may count too much after a crash, never too little: *handle before block, block before
handle on release*. Counts here are always those of what is really allocated.
"""

from __future__ import annotations

from cni_ipam.core.address import Cidr
from cni_ipam.lean.record import record, replace

TUNNEL_HANDLES = (
    "ipip-tunnel-addr-",
    "vxlan-tunnel-addr-",
    "vxlan-v6-tunnel-addr-",
    "wireguard-tunnel-addr-",
    "wireguard-v6-tunnel-addr-",
)
"""What the handles of a node's tunnel addresses begin with; its name follows."""


@record
class Handle:
    """The owner `id` and how many addresses it has in each block."""

    id: str
    blocks: dict[Cidr, int]
    extra: dict[str, object] | None = None

    def with_count(self, cidr: Cidr, count: int) -> Handle:
        """The same handle with `count` addresses in the block `cidr`; 0 drops the block."""
        blocks = {key: value for key, value in self.blocks.items() if key != cidr}
        if count:
            blocks[cidr] = count
        return replace(self, blocks=blocks)

    @property
    def is_empty(self) -> bool:
        """Whether it counts nothing any more, so that its key goes."""
        return not self.blocks


def handle_id(network: str, container_id: str) -> str:
    """The handle of a container's addresses in one network, as Calico's CNI plugin names it."""
    return f"{network}.{container_id}"
