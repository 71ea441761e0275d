"""How full a pool or a block is."""

from __future__ import annotations

from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.block import Block
    from cni_ipam.core.reservation import Reservations


@record
class Utilization:
    """Numbers of addresses. `in_use` includes those that are cooling, as calicoctl counts;
    `reserved` are the reserved ones that nobody has; `free` is what can still be assigned."""

    cidr: Cidr
    capacity: int
    in_use: int
    reserved: int
    cooling: int

    @property
    def free(self) -> int:
        """Addresses that auto-assignment could still give."""
        return self.capacity - self.in_use - self.reserved

    def __str__(self) -> str:
        return (
            f"{self.cidr}: {self.capacity} addresses, {self.in_use} in use, "
            f"{self.reserved} reserved, {self.cooling} cooling, {self.free} free"
        )


def measure(cidr: Cidr, blocks: Iterable[Block], reservations: Reservations) -> Utilization:
    """How full `cidr` is, a pool or a block, given the blocks that may lie in it."""
    in_use = cooling = taken_reserved = 0
    for block in blocks:
        if not cidr.covers(block.cidr):
            continue
        in_use += block.cidr.size - len(block.unallocated)
        for ordinal, owner in block.allocated():
            cooling += owner.released_at is not None
            taken_reserved += reservations.contains(block.cidr.address(ordinal))
    reserved = reservations.count(cidr) - taken_reserved
    return Utilization(cidr, cidr.size, in_use, reserved, cooling)
