"""Release by address: exactly these allocations, as long as they are still the ones that are meant.

A request may name the handle and the sequence number that it knows. Whoever decided on old
knowledge (a collector, an operator with a report) then frees nothing that was assigned anew
since: *a sequence number on every release*. Requests are served block by block, each block with one
swap; a mismatch refuses all requests of its block, and the other blocks are served all the same.
"""

from __future__ import annotations

from cni_ipam.core.pool import find_pool
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CniIpamError, CorruptRecord, UpdateConflict
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.release import lower_handles, put_released
from cni_ipam.ipam.retry import retry
from cni_ipam.ipam.view import find_overlapping
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore


@record
class ReleaseRequest:
    """An address to release, with the handle and the sequence number that it must still have."""

    address: Address
    handle: str | None = None
    sequence: int | None = None


@record
class Freed:
    """What was released, what was not allocated (any more), and the errors of refused blocks."""

    released: tuple[Address, ...] = ()
    unallocated: tuple[Address, ...] = ()
    errors: tuple[CniIpamError, ...] = ()


def release_addresses(store: Datastore, requests: Sequence[ReleaseRequest], now: int) -> Freed:
    """Release what `requests` name; goes on after an error and returns them all."""
    faults: list[CorruptRecord] = []
    pools = codec.decode_all(
        codec.decode_pool, store.read([Range(keys.POOLS, prefix=True)])[0], faults
    )
    batches: dict[Cidr, dict[Address, ReleaseRequest]] = {}
    released: list[Address] = []
    unallocated: list[Address] = []
    wanted: dict[Address, ReleaseRequest] = {}
    for request in requests:
        wanted.setdefault(request.address, request)
    for address, request in wanted.items():
        cidr = _find_block(store, pools, address)
        if cidr is None:
            unallocated.append(address)
        else:
            batches.setdefault(cidr, {})[address] = request
    errors: list[CniIpamError] = []
    for cidr, batch in batches.items():
        try:
            freed = _release_batch(store, pools, cidr, batch, now)
        except CniIpamError as error:
            errors.append(error)
        else:
            released += freed.released
            unallocated += freed.unallocated
    return Freed(tuple(released), tuple(unallocated), tuple(errors))


def _find_block(store: Datastore, pools: list[Pool], address: Address) -> Cidr | None:
    """The block that holds `address`: by its pool, enabled or not, else by looking at all."""
    pool = find_pool(pools, address)
    if pool is not None:
        return pool.block_of(address)
    prefix = keys.blocks_prefix(address.version)
    entries = store.read([Range(prefix, prefix=True, keys_only=True)])[0]
    found = [keys.find_block(entry.key) for entry in entries]
    return next((cidr for cidr in found if cidr is not None and cidr.contains(address)), None)


def _release_batch(
    store: Datastore,
    pools: list[Pool],
    cidr: Cidr,
    batch: dict[Address, ReleaseRequest],
    now: int,
) -> Freed:
    freed = retry(lambda: _try_batch(store, pools, cidr, batch, now))
    if freed is not None:
        return freed
    # Calico ends here; but the addresses may lie in blocks that were made for another blockSize.
    released: list[Address] = []
    for other in find_overlapping(store, cidr):
        part = {address: request for address, request in batch.items() if other.contains(address)}
        if part:
            freed = retry(
                lambda other=other, part=part: _try_batch(store, pools, other, part, now)  # type: ignore[misc]
            )
            released += freed.released if freed is not None else ()
    return Freed(tuple(released), tuple([a for a in batch if a not in released]))


def _try_batch(
    store: Datastore,
    pools: list[Pool],
    cidr: Cidr,
    batch: dict[Address, ReleaseRequest],
    now: int,
) -> Freed | None:
    """Release what is meant in one block; None if there is no such block."""
    entries, config = store.read([Range(keys.block_key(cidr)), Range(keys.CONFIG)])
    if not entries:
        return None
    cooldown = codec.decode_found_config(config).cooldown_seconds
    block = codec.decode_block(entries[0])
    meant = {block.ordinal_of(a): a for a, r in batch.items() if _is_allocated(block, r)}
    if meant:
        left = block.release(sorted(meant), now, cooldown)
        draft = Draft()
        put_released(store, draft, pools, left, entries[0].revision)
        lower_handles(store, draft, block, left, list(meant))
        store.commit(draft.writes())
    others = [address for address in batch if address not in meant.values()]
    return Freed(tuple(meant.values()), tuple(others))


def _is_allocated(block: Block, request: ReleaseRequest) -> bool:
    """Whether the address is in use; raises UpdateConflict if not as the request knows it."""
    ordinal = block.ordinal_of(request.address)
    number = block.allocation_sequence.get(ordinal)
    if request.sequence is not None and number is not None and number != request.sequence:
        raise UpdateConflict(
            f"update conflict: {request.address}",
            f"the given sequence number ({request.sequence}) does not match ({number}) when "
            "attempting to release IP",
        )
    owner = block.attribute_of(ordinal)
    if owner is None or owner.released_at is not None:
        return False
    if request.handle is not None and owner.handle != request.handle.partition("\r")[0]:
        raise UpdateConflict(
            f"update conflict: {request.address}",
            f"it belongs to handle {owner.handle}, not to {request.handle}",
        )
    return True
