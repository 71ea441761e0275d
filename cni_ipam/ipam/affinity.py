"""The host's own blocks: using them, claiming new ones, giving them up."""

from __future__ import annotations

from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import new_block
from cni_ipam.core.walk import walk_blocks
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range
from cni_ipam.errors import BlockLimit, PoolExhausted
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.retry import retry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.pool import Pool
    from cni_ipam.core.reservation import Reservations
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.ipam.assign import Attempt


def assign_from_own(attempt: Attempt, chosen: Sequence[Pool], count: int) -> int:
    """Take up to `count` addresses from blocks that are the host's; how many there were.

    Meets what a crash left: an affinity without its block is claimed anew, one whose
    block is another's goes, an unconfirmed one is confirmed together with the block's write."""
    taken = 0
    reserved = attempt.reservations(chosen)
    for cidr, (affinity, revision) in attempt.view.affinities.items():
        if taken == count or not any(pool.cidr.covers(cidr) for pool in chosen):
            continue
        block, block_revision = attempt.blocks.get(cidr, (None, ABSENT))
        if block is None:
            if not _is_unreadable(attempt, cidr):
                taken += _claim(attempt, affinity, revision, count - taken, reserved)
        elif block.affinity != affinity.owner:
            attempt.draft.drop_stale(affinity, revision)
        else:
            got = attempt.take(block, block_revision, count - taken, reserved)
            if got and not affinity.is_confirmed:
                attempt.draft.confirm(affinity, revision)
            taken += got
    return taken


def assign_from_claimed(attempt: Attempt, chosen: Sequence[Pool], count: int) -> int:
    """Claim blocks that nobody has until `count` addresses are taken; how many were.

    Raises BlockLimit if the host has as many blocks as it may have (nothing is borrowed
    then, as in Calico), PoolExhausted if new blocks are switched off."""
    config = attempt.view.config
    owned = sum(
        any(pool.cidr.covers(cidr) for pool in chosen) and not _is_stale(attempt, affinity)
        for cidr, (affinity, _) in attempt.view.affinities.items()
    )
    taken = 0
    reserved = attempt.reservations(chosen)
    unclaimed: Iterator[Cidr] | None = None
    while taken < count:
        if owned >= config.block_limit:
            raise _block_limit(config.block_limit, attempt.wish.host)
        if not config.auto_allocate_blocks:
            raise PoolExhausted(
                "failed to find or claim a block",
                "autoAllocateBlocks is false and the node's own blocks are full",
            )
        unclaimed = unclaimed or find_unclaimed(attempt, chosen, reserved)
        cidr = next(unclaimed, None)
        if cidr is None:
            break
        affinity = Affinity("host", attempt.wish.host, cidr)
        taken += _claim(attempt, affinity, ABSENT, count - taken, reserved)
        owned += 1
    return taken


def find_unclaimed(
    attempt: Attempt, chosen: Sequence[Pool], reserved: Reservations
) -> Iterator[Cidr]:
    """Blocks of the pools that nobody has, in the host's order; one list of keys, no values."""
    prefix = keys.blocks_prefix(chosen[0].cidr.version)
    entries = attempt.store.read([Range(prefix, prefix=True, keys_only=True)])[0]
    existing = {entry.key for entry in entries}
    for pool in chosen:
        odd = _blocks_of_other_sizes(existing, pool)
        for cidr in walk_blocks(pool, attempt.wish.host):
            # A block that this very attempt has claimed is in no list yet.
            if cidr in attempt.view.affinities or cidr in attempt.blocks:
                continue
            if keys.block_key(cidr) in existing or _is_unreadable(attempt, cidr):
                continue
            if not reserved.covers(cidr) and not any(other.overlaps(cidr) for other in odd):
                yield cidr


def _blocks_of_other_sizes(existing: set[str], pool: Pool) -> list[Cidr]:
    """Blocks inside the pool that its block size cannot name; the walk must step around them."""
    usual = f"-{pool.block_size}"
    found = [keys.find_block(key) for key in existing if not key.endswith(usual)]
    return [cidr for cidr in found if cidr is not None and cidr.overlaps(pool.cidr)]


def _claim(
    attempt: Attempt, affinity: Affinity, revision: int, count: int, reserved: Reservations
) -> int:
    """Put the claim of a block, with its first addresses, into the draft."""
    block = new_block(affinity.cidr, affinity.owner, attempt.wish.now)
    taken = attempt.take(block, ABSENT, count, reserved)
    if taken:
        attempt.draft.confirm(affinity, revision)
    return taken


def claim_for_fixed(attempt: Attempt, cidr: Cidr) -> None:
    """Put the claim of the block of a fixed address into the draft, empty as yet."""
    known = attempt.view.affinities.get(cidr)
    affinity, revision = known or (Affinity("host", attempt.wish.host, cidr), ABSENT)
    attempt.draft.confirm(affinity, revision)
    block = new_block(cidr, affinity.owner, attempt.wish.now)
    attempt.blocks[cidr] = (block, ABSENT)


def _is_stale(attempt: Attempt, affinity: Affinity) -> bool:
    """Whether the block of the host's affinity is another's."""
    block, _ = attempt.blocks.get(affinity.cidr, (None, ABSENT))
    return block is not None and block.affinity != affinity.owner


def _is_unreadable(attempt: Attempt, cidr: Cidr) -> bool:
    """Whether the block, or the host's affinity to it, is there but cannot be understood."""
    taken = (keys.block_key(cidr), keys.affinity_key(attempt.wish.host, cidr))
    return any(fault.key in taken for fault in attempt.view.faults)


def _block_limit(limit: int, host: str) -> BlockLimit:
    return BlockLimit(
        f"Need to allocate an IPAM block but could not - limit of {limit} blocks reached for this "
        "node: cannot allocate new block due to per host block limit",
        f"node {host} owns {limit} blocks and all are full; raise maxBlocksPerHost (0 means 20)",
    )


def release_affinity(store: Datastore, affinity: Affinity, now: int) -> bool:
    """Take a block from its host: an empty one is deleted, another lives on without owner.

    Returns whether there was anything to do. Raises CorruptRecord, TryAgainLater."""
    return retry(lambda: _release_affinity(store, affinity, now))


def _release_affinity(store: Datastore, affinity: Affinity, now: int) -> bool:
    key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
    found, blocks, config = store.read(
        [Range(key), Range(keys.block_key(affinity.cidr)), Range(keys.CONFIG)]
    )
    draft = Draft()
    if found:
        draft.give_up(codec.decode_affinity(found[0]), found[0].revision)
    if blocks:
        block = codec.decode_block(blocks[0])
        cooldown = codec.decode_config(config[0] if config else None).cooldown_seconds
        if block.affinity == affinity.owner:
            block = block.collect(now, cooldown)
            if block.is_empty:
                draft.delete_block(block.cidr, blocks[0].revision)
            else:
                draft.put_block(block.disown(), blocks[0].revision)
    writes = draft.writes()
    store.commit(writes)
    return bool(writes)


def own_blocks(store: Datastore, host: str) -> list[Cidr]:
    """The blocks whose affinity to `host` is confirmed, of both families."""
    found = store.read([Range(keys.affinities_prefix(host, v), prefix=True) for v in (4, 6)])
    affinities = [codec.decode_affinity(entry) for entries in found for entry in entries]
    return [affinity.cidr for affinity in affinities if affinity.is_confirmed]
