"""Borrowing: an address from a block that is not the host's own, its owner unchanged."""

from __future__ import annotations

from cni_ipam.core.affinity import owner_of
from cni_ipam.datastore import codec, keys
from cni_ipam.errors import CorruptRecord
from cni_ipam.ipam.wish import STRICT_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_ipam.core.block import Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.ipam.assign import Attempt

PAGE_SIZE = 256


def assign_borrowed(attempt: Attempt, chosen: Sequence[Pool], count: int) -> int:
    """Take up to `count` addresses from others' blocks in the pools; how many there were.

    One paged list of blocks that ends at the first hit; earlier pools are preferred."""
    version = chosen[0].cidr.version
    if attempt.view.config.strict_affinity:
        attempt.messages[version].append(STRICT_MESSAGE)
        return 0
    reserved = attempt.reservations(chosen)
    taken = 0
    later: list[tuple[int, Block, int]] = []
    for rank, block, revision in _foreign_blocks(attempt, chosen):
        if taken == count:
            break
        if rank == 0:
            taken += attempt.take(block, revision, count - taken, reserved)
        else:
            later.append((rank, block, revision))
    for _, block, revision in sorted(later, key=lambda found: found[0]):
        if taken < count:
            taken += attempt.take(block, revision, count - taken, reserved)
    if taken < count:
        names = " ".join(str(pool.cidr) for pool in chosen)
        attempt.messages[version].append(f"No IPs available in pools: [{names}]")
    return taken


def _foreign_blocks(attempt: Attempt, chosen: Sequence[Pool]) -> Iterator[tuple[int, Block, int]]:
    """Others' blocks in the pools with the rank of their pool; they become known to `attempt`."""
    mine = owner_of(attempt.wish.host)
    for page in attempt.store.pages(keys.blocks_prefix(chosen[0].cidr.version), PAGE_SIZE):
        for entry in page:
            cidr = keys.find_block(entry.key)
            ranks = [rank for rank, p in enumerate(chosen) if cidr and p.cidr.covers(cidr)]
            if not ranks or cidr in attempt.changed:
                continue
            try:
                block = codec.decode_block(entry)
            except CorruptRecord as fault:
                attempt.view.faults.append(fault)
                continue
            attempt.blocks.setdefault(block.cidr, (block, entry.revision))
            if block.affinity != mine:
                yield ranks[0], block, entry.revision
