"""Affinities by themselves: claiming blocks ahead of need, and taking them from a host."""

from __future__ import annotations

from cni_ipam.core.address import BITS, Cidr
from cni_ipam.core.affinity import PENDING, Affinity
from cni_ipam.core.block import new_block
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range
from cni_ipam.errors import CniIpamError, NotEmpty, ValidationError
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.retry import retry
from cni_ipam.ipam.view import pick_overlapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore, Entry


def claim_blocks(
    store: Datastore, host: str, cidr: Cidr, now: int, kind: str = "host"
) -> tuple[list[Cidr], list[Cidr]]:
    """Claim every block of `cidr` for `host`: (those that are its own now, those of others).

    Raises ValidationError if `cidr` lies in no enabled pool or is smaller than a block."""
    blocks_prefix = keys.blocks_prefix(cidr.version)
    pools, existing = store.read(
        [Range(keys.POOLS, prefix=True), Range(blocks_prefix, prefix=True, keys_only=True)]
    )
    pool = _pool_of(pools, cidr)
    # What a pool of another blockSize left is another's, whoever it belongs to.
    odd = pick_overlapping(existing, cidr, pool.block_size)
    claimed: list[Cidr] = []
    failed: list[Cidr] = []
    for block in _blocks_of(cidr, pool.block_size):
        affinity = Affinity(kind, host, block)
        is_ours = not any(block.overlaps(other) for other in odd) and retry(
            lambda affinity=affinity: _claim(store, affinity, now)  # type: ignore[misc]
        )
        (claimed if is_ours else failed).append(block)
    return claimed, failed


def _pool_of(entries: Iterable[Entry], cidr: Cidr) -> Pool:
    for pool in codec.decode_all(codec.decode_pool, entries, []):
        if pool.is_enabled and pool.cidr.covers(cidr):
            if cidr.prefix > pool.block_size:
                raise ValidationError(
                    f"The requested CIDR ({cidr}) is smaller than the minimum.",
                    f"blocks of pool {pool.name} are /{pool.block_size}",
                )
            return pool
    raise ValidationError(
        f"The requested CIDR ({cidr}) is not within any configured pools.",
        "name a CIDR inside one enabled pool",
    )


def _blocks_of(cidr: Cidr, prefix: int) -> Iterator[Cidr]:
    size = 1 << (BITS[cidr.version] - prefix)
    for base in range(cidr.base, cidr.last + 1, size):
        yield Cidr(cidr.version, base, prefix)


def _claim(store: Datastore, affinity: Affinity, now: int) -> bool:
    """Whether the block is the host's afterwards."""
    key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
    found, blocks = store.read([Range(key), Range(keys.block_key(affinity.cidr))])
    known = codec.decode_affinity(found[0]) if found else affinity
    revision = found[0].revision if found else ABSENT
    draft = Draft()
    if not blocks:
        draft.confirm(known, revision)
        draft.put_block(new_block(affinity.cidr, affinity.owner, now), ABSENT)
    else:
        block = codec.decode_block(blocks[0])
        if block.affinity != affinity.owner:
            if found and known.state != PENDING:
                draft.drop_stale(known, revision)
                store.commit(draft.writes())
            return False
        if not found or not known.is_confirmed:
            draft.confirm(known, revision)
            draft.put_block(block.touch(), blocks[0].revision)
    writes = draft.writes()
    if writes:
        store.commit(writes)
    return True


def release_affinity(
    store: Datastore, affinity: Affinity, now: int, *, must_be_empty: bool = False
) -> bool:
    """Take a block from its host: an empty one is deleted, another lives on without owner.

    Returns whether there was anything to do. Raises NotEmpty if it must be empty and is
    not, CorruptRecord, TryAgainLater."""
    return retry(lambda: _release(store, affinity, now, must_be_empty=must_be_empty))


def _release(store: Datastore, affinity: Affinity, now: int, *, must_be_empty: bool) -> bool:
    key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
    found, blocks, config = store.read(
        [Range(key), Range(keys.block_key(affinity.cidr)), Range(keys.CONFIG)]
    )
    draft = Draft()
    known = codec.decode_affinity(found[0]) if found else affinity
    # A claim under way: its maker will write the block, which no swap of ours could prevent.
    if found and (blocks or known.state != PENDING):
        draft.give_up(known, found[0].revision)
    if blocks:
        block = codec.decode_block(blocks[0])
        cooldown = codec.decode_found_config(config).cooldown_seconds
        if block.affinity == affinity.owner:
            block = block.collect(now, cooldown)
            if block.is_empty:
                draft.delete_block(block.cidr, blocks[0].revision)
            elif must_be_empty:
                raise NotEmpty(f"block '{block.cidr}' is not empty")
            else:
                draft.put_block(block.disown(), blocks[0].revision)
        elif found and known.state == PENDING:
            # A taking back under way must not end without its affinity.
            draft.put_block(block.touch(), blocks[0].revision)
    writes = draft.writes()
    store.commit(writes)
    return bool(writes)


def release_blocks(
    store: Datastore,
    host: str,
    cidr: Cidr,
    now: int,
    *,
    must_be_empty: bool = False,
    kind: str = "host",
) -> list[Cidr]:
    """Take from `host` its blocks inside `cidr`; those that it lost.

    Raises ValidationError as `claim_blocks`; goes on after another error and raises the first."""
    _pool_of(store.read([Range(keys.POOLS, prefix=True)])[0], cidr)
    found = list_affinities(store, [keys.affinities_prefix(host, cidr.version, kind)])
    inside = [affinity for affinity in found if cidr.covers(affinity.cidr)]
    return _release_all(store, inside, now, must_be_empty=must_be_empty)


def release_host(
    store: Datastore, host: str, now: int, *, must_be_empty: bool = False, kind: str = "host"
) -> list[Cidr]:
    """Take all blocks of both families from `host`; those that it lost.

    Goes on after an error and raises the first."""
    found = list_affinities(store, [keys.affinities_prefix(host, v, kind) for v in BITS])
    return _release_all(store, found, now, must_be_empty=must_be_empty)


def release_pool(store: Datastore, cidr: Cidr, now: int) -> list[Cidr]:
    """Take the blocks that begin inside `cidr` from all their hosts; those that were lost.

    Goes on after an error and raises the first."""
    found = list_affinities(store, [keys.HOST_AFFINITIES, keys.VIRTUAL_AFFINITIES])
    inside = [affinity for affinity in found if cidr.contains(affinity.cidr.address(0))]
    return _release_all(store, inside, now, must_be_empty=False)


def remove_host(store: Datastore, host: str, now: int) -> list[Cidr]:
    """Take all blocks from `host` and remove its legacy marker; its addresses live on."""
    lost = release_host(store, host, now)
    retry(lambda: _remove_marker(store, host))
    return lost


def _remove_marker(store: Datastore, host: str) -> None:
    marker = store.read([Range(keys.HOST_AFFINITIES + host)])[0]
    if marker:
        draft = Draft()
        draft.remove(marker[0])
        store.commit(draft.writes())


def list_affinities(store: Datastore, prefixes: Iterable[str]) -> list[Affinity]:
    """The affinities as their keys name them: their states, and broken values, do not matter."""
    ranges = [Range(prefix, prefix=True, keys_only=True) for prefix in prefixes]
    found = [keys.find_affinity(e.key) for entries in store.read(ranges) for e in entries]
    # Under the hosts lie also markers of long ago, which name no block.
    return [Affinity(*named) for named in found if named is not None]


def _release_all(
    store: Datastore, affinities: Iterable[Affinity], now: int, *, must_be_empty: bool
) -> list[Cidr]:
    lost: list[Cidr] = []
    errors: list[CniIpamError] = []
    for affinity in affinities:
        try:
            release_affinity(store, affinity, now, must_be_empty=must_be_empty)
        except CniIpamError as error:
            errors.append(error)
        else:
            lost.append(affinity.cidr)
    if errors:
        raise errors[0]
    return lost
