"""Affinities by themselves: claiming blocks ahead of need, and taking them from a host."""

from __future__ import annotations

from cni_ipam.core.address import BITS, Cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import new_block
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range
from cni_ipam.errors import CniIpamError, NotEmpty, ValidationError
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.retry import retry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore


def claim_blocks(
    store: Datastore, host: str, cidr: Cidr, now: int, kind: str = "host"
) -> tuple[list[Cidr], list[Cidr]]:
    """Claim every block of `cidr` for `host`: (those that are its own now, those of others).

    Raises ValidationError if `cidr` lies in no enabled pool or is smaller than a block."""
    pool = _pool_of(store, cidr)
    claimed: list[Cidr] = []
    failed: list[Cidr] = []
    for block in _blocks_of(cidr, pool.block_size):
        affinity = Affinity(kind, host, block)
        is_ours = retry(lambda affinity=affinity: _claim(store, affinity, now))  # type: ignore[misc]
        (claimed if is_ours else failed).append(block)
    return claimed, failed


def _pool_of(store: Datastore, cidr: Cidr) -> Pool:
    entries = store.read([Range(keys.POOLS, prefix=True)])[0]
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
            if found:
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
    if found:
        draft.give_up(codec.decode_affinity(found[0]), found[0].revision)
    if blocks:
        block = codec.decode_block(blocks[0])
        cooldown = codec.decode_config(config[0] if config else None).cooldown_seconds
        if block.affinity == affinity.owner:
            block = block.collect(now, cooldown)
            if block.is_empty:
                draft.delete_block(block.cidr, blocks[0].revision)
            elif must_be_empty:
                raise NotEmpty(f"block '{block.cidr}' is not empty")
            else:
                draft.put_block(block.disown(), blocks[0].revision)
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
) -> None:
    """Take from `host` its blocks inside `cidr`. Raises ValidationError as `claim_blocks`."""
    _pool_of(store, cidr)
    prefix = keys.affinities_prefix(host, cidr.version, kind)
    affinities = [a for a in _list_affinities(store, prefix) if cidr.covers(a.cidr)]
    _release_all(store, affinities, now, must_be_empty=must_be_empty)


def release_host(store: Datastore, host: str, now: int, *, must_be_empty: bool = False) -> None:
    """Take all blocks of both families from `host`; goes on after an error, raises the last."""
    prefixes = [keys.affinities_prefix(host, version) for version in BITS]
    affinities = [a for prefix in prefixes for a in _list_affinities(store, prefix)]
    _release_all(store, affinities, now, must_be_empty=must_be_empty)


def release_pool(store: Datastore, cidr: Cidr, now: int) -> list[Affinity]:
    """Take the blocks inside `cidr` from all their hosts; the affinities that there were."""
    prefixes = (keys.HOST_AFFINITIES, keys.VIRTUAL_AFFINITIES)
    found = [a for prefix in prefixes for a in _list_affinities(store, prefix)]
    affinities = [a for a in found if cidr.contains(a.cidr.address(0))]
    _release_all(store, affinities, now, must_be_empty=False)
    return affinities


def remove_host(store: Datastore, host: str, now: int) -> None:
    """Take all blocks from `host` and remove its legacy marker; its addresses live on."""
    release_host(store, host, now)
    marker = store.read([Range(keys.HOST_AFFINITIES + host)])[0]
    if marker:
        draft = Draft()
        draft.remove(marker[0])
        store.commit(draft.writes())


def own_blocks(store: Datastore, host: str) -> list[Cidr]:
    """The blocks whose affinity to `host` is confirmed, of both families."""
    prefixes = [keys.affinities_prefix(host, version) for version in BITS]
    affinities = [a for prefix in prefixes for a in _list_affinities(store, prefix)]
    return [affinity.cidr for affinity in affinities if affinity.is_confirmed]


def _list_affinities(store: Datastore, prefix: str) -> list[Affinity]:
    # Under the hosts lie also markers of long ago, which name no block.
    entries = [e for e in store.read([Range(prefix, prefix=True)])[0] if keys.find_affinity(e.key)]
    return [codec.decode_affinity(entry) for entry in entries]


def _release_all(
    store: Datastore, affinities: Iterable[Affinity], now: int, *, must_be_empty: bool
) -> None:
    last: CniIpamError | None = None
    for affinity in affinities:
        try:
            release_affinity(store, affinity, now, must_be_empty=must_be_empty)
        except CniIpamError as error:
            last = error
    if last is not None:
        raise last
