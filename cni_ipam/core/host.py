"""What the records say of one host: its blocks, what it has of them, and what others have.

A block is the host's own if both records say so: the affinity, confirmed, and the block
(*pending is absent*). What cannot be read is told as unclear, so that nobody acts on half of it.
"""

from __future__ import annotations

from cni_ipam.core.address import Address, Cidr
from cni_ipam.core.affinity import owner_of
from cni_ipam.core.block import Attribute
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cni_ipam.core.affinity import Affinity
    from cni_ipam.core.block import Block


@record
class Allocation:
    """An address in use, the block that it is of, and who has it."""

    address: Address
    block: Cidr
    owner: Attribute


@record
class HostRecords:
    """One host's part of the records, each in the order of the blocks.

    `claimed` are blocks with an affinity of the host's that does not count. `allocations` are the
    host's, borrowed ones included, and in its own blocks those that name no host; `lent` are
    addresses of its own blocks that other hosts have. `unclear` are blocks of which a record
    cannot be understood. `is_blank` says that there is no block at all, of whatever host: the
    records may be the wrong ones."""

    host: str
    own: tuple[Cidr, ...]
    claimed: tuple[Cidr, ...]
    allocations: tuple[Allocation, ...]
    lent: tuple[Allocation, ...]
    unclear: tuple[Cidr, ...]
    is_blank: bool = False

    @property
    def borrowed(self) -> tuple[Allocation, ...]:
        """The host's allocations in blocks that are not its own."""
        own = set(self.own)
        return tuple([one for one in self.allocations if one.block not in own])

    @property
    def blocks(self) -> frozenset[Cidr]:
        """Every block that plays a part here."""
        known = [one.block for one in (*self.allocations, *self.lent)]
        return frozenset([*self.own, *self.claimed, *self.unclear, *known])


def gather(
    host: str, affinities: Iterable[Affinity], blocks: Iterable[Block], unclear: Collection[Cidr]
) -> HostRecords:
    """The part of `host` in these records; `affinities` are its own, of the kind `host`."""
    claims = {affinity.cidr: affinity for affinity in affinities}
    own, allocations, lent = [], [], []
    is_blank = not unclear
    for block in blocks:
        is_blank = False
        claim = claims.get(block.cidr)
        is_confirmed = claim is not None and claim.is_confirmed and block.cidr not in unclear
        is_own = is_confirmed and block.affinity == owner_of(host)
        if is_own:
            own.append(block.cidr)
        for ordinal, owner in block.allocated():
            if owner.released_at is not None:
                continue
            one = Allocation(block.cidr.address(ordinal), block.cidr, owner)
            node = owner.get("node")
            if node == host or (is_own and node is None):
                allocations.append(one)
            elif is_own:
                lent.append(one)
    claimed = [cidr for cidr in claims if cidr not in {*own, *unclear}]
    return HostRecords(
        host,
        tuple(own),
        tuple(claimed),
        tuple(allocations),
        tuple(lent),
        tuple(unclear),
        is_blank,
    )
