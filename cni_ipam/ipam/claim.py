"""The host's own blocks in an attempt: using them, claiming new ones, leaving those that are no
longer for it."""

from __future__ import annotations

from cni_ipam.core.affinity import PENDING, PENDING_DELETION, Affinity
from cni_ipam.core.block import new_block
from cni_ipam.core.pool import find_pool, lies_in_any
from cni_ipam.core.walk import walk_blocks
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Range
from cni_ipam.errors import BlockLimit, PoolExhausted
from cni_ipam.ipam.labels import LazyLabels
from cni_ipam.ipam.view import find_overlapping, pick_overlapping
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.block import Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.core.reservation import Reservations
    from cni_ipam.ipam.assign import Attempt


def give_up_unselected(attempt: Attempt, version: int, chosen: Sequence[Pool]) -> None:
    """Put the end of the host's empty blocks whose pools no longer select it into the draft.

    Those of the chosen pools stay, asked for as they are (Calico: prepareAffinityBlocksForHost)."""
    enabled = [pool for pool in attempt.view.pools if pool.is_enabled]
    for cidr, (affinity, revision) in attempt.view.affinities.items():
        pool = find_pool(enabled, cidr.address(0)) if cidr.version == version else None
        if pool is None or pool in chosen or pool.selects(attempt.view.node_labels or {}):
            continue
        block, block_revision = attempt.blocks.get(cidr, (None, ABSENT))
        if block is None or block.affinity != affinity.owner:
            # The block is gone already where an earlier end was cut short.
            if affinity.state == PENDING_DELETION and not is_unreadable(attempt, cidr):
                attempt.draft.drop_stale(affinity, revision)
        else:
            block = block.collect(attempt.wish.now, attempt.view.config.cooldown_seconds)
            if block.is_empty and cidr not in attempt.changed:
                attempt.draft.give_up(affinity, revision)
                attempt.draft.delete_block(cidr, block_revision)


def assign_from_own(
    attempt: Attempt, chosen: Sequence[Pool], count: int, reserved: Reservations
) -> int:
    """Take up to `count` addresses from blocks that are the host's; how many there were.

    Meets what a crash left: an affinity without its block is claimed anew, one whose
    block is another's goes, an unconfirmed one is confirmed together with the block's write."""
    taken = 0
    for cidr, (affinity, revision) in attempt.view.affinities.items():
        if taken == count or not lies_in_any(cidr, chosen):
            continue
        block, block_revision = attempt.blocks.get(cidr, (None, ABSENT))
        if block is None:
            if can_be_claimed(attempt, cidr):
                taken += claim(attempt, affinity, revision, count - taken, reserved)
        elif block.affinity != affinity.owner:
            # A pending one of an idle block may be of a taking back under way; then it stays.
            idle = block.collect(attempt.wish.now, attempt.view.config.cooldown_seconds).is_empty
            if affinity.state != PENDING or not idle:
                attempt.draft.drop_stale(affinity, revision)
        else:
            got = attempt.take(block, block_revision, count - taken, reserved)
            if got and not affinity.is_confirmed:
                attempt.draft.confirm(affinity, revision)
            taken += got
    return taken


def assign_from_claimed(
    attempt: Attempt, chosen: Sequence[Pool], count: int, reserved: Reservations
) -> int:
    """Claim blocks that nobody has until `count` addresses are taken; how many were.

    Raises BlockLimit if the host has as many blocks as it may have (nothing is borrowed
    then, as in Calico), PoolExhausted if new blocks are switched off."""
    taken = 0
    unclaimed: Iterator[Cidr] | None = None
    while taken < count:
        require_claims(attempt, chosen)
        unclaimed = unclaimed or find_unclaimed(attempt, chosen, reserved)
        cidr = next(unclaimed, None)
        if cidr is None:
            break
        affinity = Affinity(attempt.wish.kind, attempt.wish.host, cidr)
        taken += claim(attempt, affinity, ABSENT, count - taken, reserved)
    return taken


def require_claims(attempt: Attempt, chosen: Sequence[Pool]) -> None:
    """Raises BlockLimit or PoolExhausted unless the host may claim one more block, NoQualifiedPool
    if it has no Node."""
    config, wish = attempt.view.config, attempt.wish
    if isinstance(attempt.view.node_labels, LazyLabels):
        attempt.view.node_labels.load()
    limit = config.limit_blocks(wish.max_blocks)
    owned = _count_owned(attempt, chosen)
    if owned >= limit:
        text = (
            f"Need to allocate an IPAM block but could not - limit of {limit} blocks reached for "
            "this node"
        )
        attempt.messages[chosen[0].cidr.version].append(text)
        raise BlockLimit(
            f"{text}: cannot allocate new block due to per host block limit",
            f"node {wish.host} owns {owned} blocks and all are full; raise maxBlocksPerHost "
            "(0 means 20)",
        )
    if not config.auto_allocate_blocks:
        raise PoolExhausted(
            "failed to find or claim a block",
            "autoAllocateBlocks is false and the node's own blocks are full; set it to true in "
            "the IPAMConfig",
        )


def _count_owned(attempt: Attempt, chosen: Sequence[Pool]) -> int:
    """How many blocks of the pools are the host's, those that this attempt claims included."""
    known = {
        cidr
        for cidr, (affinity, _) in attempt.view.affinities.items()
        if not _is_stale(attempt, affinity)
    }
    claimed = {c for c, block in attempt.changed.items() if block.affinity == attempt.wish.affinity}
    return sum(lies_in_any(cidr, chosen) for cidr in known | claimed)


def find_unclaimed(
    attempt: Attempt, chosen: Sequence[Pool], reserved: Reservations
) -> Iterator[Cidr]:
    """Blocks of the pools that nobody has, in the host's order; one list of keys, no values."""
    prefix = keys.blocks_prefix(chosen[0].cidr.version)
    entries = attempt.store.read([Range(prefix, prefix=True, keys_only=True)])[0]
    existing = {entry.key for entry in entries}
    for pool in chosen:
        # Blocks that the pool's block size cannot name; the walk must step around them.
        odd = pick_overlapping(entries, pool.cidr, pool.block_size)
        odd += [cidr for cidr in attempt.changed if cidr.prefix != pool.block_size]
        for cidr in walk_blocks(pool, attempt.wish.host, reserved):
            # A block that this very attempt has claimed is in no list yet.
            if cidr in attempt.view.affinities or cidr in attempt.blocks:
                continue
            if keys.block_key(cidr) in existing or is_unreadable(attempt, cidr):
                continue
            if not any(other.overlaps(cidr) for other in odd):
                yield cidr


def claim(
    attempt: Attempt,
    affinity: Affinity,
    revision: int,
    count: int,
    reserved: Reservations,
    *,
    block_revision: int = ABSENT,
) -> int:
    """Put the claim of a block, with its first addresses, into the draft; how many there were.

    The block takes the place of the one at `block_revision`, if there was one."""
    taken = attempt.take(_fresh(attempt, affinity), block_revision, count, reserved)
    if taken:
        attempt.draft.confirm(affinity, revision)
    return taken


def claim_empty(attempt: Attempt, cidr: Cidr) -> None:
    """Put the claim of a block into the draft, nothing assigned as yet."""
    known = attempt.view.affinities.get(cidr)
    affinity, revision = known or (Affinity(attempt.wish.kind, attempt.wish.host, cidr), ABSENT)
    attempt.draft.confirm(affinity, revision)
    attempt.put(_fresh(attempt, affinity), ABSENT)


def _fresh(attempt: Attempt, affinity: Affinity) -> Block:
    """An empty block; in the place of another it goes on with that one's sequence number, since the
    clock of its former owner may be ahead of ours."""
    wish = attempt.wish
    fresh = new_block(affinity.cidr, affinity.owner, wish.now, wish.host_reserved)
    former, _ = attempt.blocks.get(affinity.cidr, (None, ABSENT))
    if former is None or former.sequence_number < fresh.sequence_number:
        return fresh
    return replace(fresh, sequence_number=former.sequence_number + 1)


def _is_stale(attempt: Attempt, affinity: Affinity) -> bool:
    """Whether the block of the host's affinity is another's."""
    block, _ = attempt.blocks.get(affinity.cidr, (None, ABSENT))
    return block is not None and block.affinity != affinity.owner


def can_be_claimed(attempt: Attempt, cidr: Cidr) -> bool:
    """Whether a block of the host's affinity that was not found is really not there: neither
    unreadable nor, in part, in a block of another size."""
    if is_unreadable(attempt, cidr) or any(cidr.overlaps(other) for other in attempt.changed):
        return False
    return not find_overlapping(attempt.store, cidr)


def is_unreadable(attempt: Attempt, cidr: Cidr) -> bool:
    """Whether the block, or the host's affinity to it, is there but cannot be understood."""
    wish = attempt.wish
    taken = (keys.block_key(cidr), keys.affinity_key(wish.host, cidr, wish.kind))
    return any(fault.key in taken for fault in attempt.view.faults)
