"""How full a pool or a block is."""

from __future__ import annotations

from cni_ipam.core.affinity import parse_owner
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.block import Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.core.reservation import Reservations


@record
class Utilization:
    """Numbers of addresses, as calicoctl counts them.

    `in_use` includes the `cooling` ones and those `borrowed` by a node that does not own their
    block. An address that is both reserved and in use (`overlap`) counts in either, but is withheld
    only once, so `free` is what auto-assignment can still give."""

    cidr: Cidr
    capacity: int
    in_use: int
    reserved: int
    cooling: int
    borrowed: int = 0
    overlap: int = 0

    @property
    def free(self) -> int:
        """Addresses that auto-assignment could still give."""
        return self.capacity - self.in_use - self.reserved + self.overlap

    def __str__(self) -> str:
        return (
            f"{self.cidr}: {self.capacity} addresses, {self.in_use} in use, "
            f"{self.reserved} reserved, {self.cooling} cooling, {self.free} free"
        )


@record
class PoolUtilization:
    """How full a pool is as a whole, and each block in it."""

    name: str
    total: Utilization
    blocks: tuple[Utilization, ...]


def explain_full(pools: Iterable[Utilization], *, are_named: bool) -> str:
    """The details of an error for want of addresses: what to do, and how full each pool is. The
    advice comes first, since what shows errors cuts long ones short."""
    advice = f"free addresses, or {'name' if are_named else 'create'} another pool"
    return "; ".join([advice, *map(str, pools)])


def measure(cidr: Cidr, blocks: Iterable[Block], reservations: Reservations) -> Utilization:
    """How full `cidr` is, a pool or a block, given the blocks that may lie in it."""
    in_use = cooling = borrowed = overlap = 0
    for block in blocks:
        if not cidr.covers(block.cidr):
            continue
        host = parse_owner(block.affinity or "")[1]
        in_use += block.cidr.size - len(block.unallocated)
        for ordinal, owner in block.allocated():
            cooling += owner.released_at is not None
            borrowed += owner.get("node") not in (None, host)
            overlap += reservations.contains(block.cidr.address(ordinal))
    return Utilization(
        cidr, cidr.size, in_use, reservations.count(cidr), cooling, borrowed, overlap
    )


def measure_pools(
    pools: Iterable[Pool], blocks: Iterable[Block], reservations: Reservations
) -> list[PoolUtilization]:
    """How full each pool is, and the blocks that lie in it, in their order."""
    known = list(blocks)
    measured = []
    for pool in pools:
        inside = [block for block in known if pool.cidr.covers(block.cidr)]
        measured.append(
            PoolUtilization(
                pool.name,
                measure(pool.cidr, inside, reservations),
                tuple([measure(block.cidr, [block], reservations) for block in inside]),
            )
        )
    return measured
