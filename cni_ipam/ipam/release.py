"""Release: give addresses back, whatever else is gone.

*DEL never fails for what is gone*: no handle, no block, no pool, no node is success. Only what
cannot be recorded is an error. *Block before handle*: a crash between the two leaves a handle that
counts too much, which the repeated call mends, since counts are always taken from the block.
"""

from __future__ import annotations

from cni_ipam.core.affinity import owner_of, parse_owner
from cni_ipam.core.pool import find_pool
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CorruptRecord, NetconfError
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.retry import retry
from cni_ipam.ipam.view import missing_handle, read_blocks, read_view
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Attribute, Block
    from cni_ipam.core.handle import Handle
    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.ipam.view import View


@record
class Released:
    """The addresses that were given back, and the blocks that the host lost thereby."""

    addresses: tuple[Address, ...] = ()
    blocks: tuple[Cidr, ...] = ()


def release(
    store: Datastore, host: str, owners: dict[str, Callable[[Attribute], bool]], now: int
) -> Released:
    """Release what each handle of `owners` has, as far as its test says that it is meant.

    Nothing to release is success. Raises CorruptRecord (after all else was released),
    TryAgainLater."""
    return retry(lambda: _Removal(store, host, owners, now).run()).get_released()


def release_handle(store: Datastore, handle_id: str, now: int) -> Released:
    """Release all that a handle has, on every node. Raises NotFound if there is no such handle,
    and as `release`."""
    removal = retry(lambda: _Removal(store, "", {handle_id: lambda _: True}, now).run())
    released = removal.get_released()
    if not removal.has_handles:
        raise missing_handle(handle_id)
    return released


class _Removal:
    def __init__(
        self, store: Datastore, host: str, owners: dict[str, Callable[[Attribute], bool]], now: int
    ) -> None:
        self.store, self.host, self.owners, self.now = store, host, owners, now
        self.draft = Draft()
        self.has_handles = False
        self.addresses: list[Address] = []
        self.lost: list[Cidr] = []
        self.faults: list[CorruptRecord] = []

    def run(self) -> _Removal:
        unneeded = ("node", "cluster", "reservations")
        view = read_view(self.store, self.host, (), list(self.owners), without=unneeded)
        self.has_handles = bool(view.handles)
        # A broken pool or config is no reason to keep an address; a broken handle or block is.
        self.faults = [f for f in view.faults if f.key.startswith(keys.HANDLES)]
        handled = [cidr for handle, _ in view.handles.values() for cidr in handle.blocks]
        blocks = read_blocks(self.store, handled, self.faults)
        left = {
            cidr: self._release_from(view, block, revision)
            for cidr, (block, revision) in blocks.items()
        }
        for handle, revision in view.handles.values():
            self._lower(handle, revision, left)
        writes = self.draft.writes()
        if writes:
            self.store.commit(writes)
        return self

    def get_released(self) -> Released:
        """What `run` gave back. Raises CorruptRecord if it could not look at all of it."""
        if self.faults:
            raise self.faults[0]
        return Released(tuple(self.addresses), tuple(self.lost))

    def _lower(self, handle: Handle, revision: int, left: dict[Cidr, Block]) -> None:
        """Make the handle count what its blocks really hold; a broken block keeps its count."""
        broken = {fault.key for fault in self.faults}
        lowered = handle
        for cidr in handle.blocks:
            if keys.block_key(cidr) not in broken:
                lowered = lowered.with_count(cidr, count_of(left.get(cidr), handle.id))
        if lowered != handle or lowered.is_empty:
            self.draft.lower_handle(lowered, revision)

    def _release_from(self, view: View, block: Block, revision: int) -> Block:
        ordinals = block.find_ordinals(self._is_meant)
        if not ordinals:
            if _is_overcounted(view, block):
                # An ADD between its handle's write and its block's must not end without a handle.
                self.draft.put_block(block.touch(), revision)
            return block
        self.addresses += [block.cidr.address(ordinal) for ordinal in ordinals]
        left = block.release(ordinals, self.now, view.config.cooldown_seconds)
        ending = put_released(self.store, self.draft, view.pools, left, revision)
        self.faults += ending.faults
        if ending.is_lost and left.affinity == owner_of(self.host):
            self.lost.append(left.cidr)
        return left

    def _is_meant(self, owner: Attribute) -> bool:
        test = self.owners.get(owner.handle or "")
        return test is not None and test(owner)


@record
class Ending:
    """What became of a block that gave something back."""

    is_lost: bool = False
    faults: tuple[CorruptRecord, ...] = ()


def put_released(
    store: Datastore, draft: Draft, pools: Iterable[Pool], left: Block, revision: int
) -> Ending:
    """Put a block that gave something back into the draft.

    An empty one goes if nobody owns it, and if its pool no longer selects its owner's node
    (facts: Calico 2.14); then with its affinity. A broken affinity keeps its block."""
    if left.is_empty and left.affinity is None:
        draft.delete_block(left.cidr, revision)
        return Ending()
    pool = find_pool([p for p in pools if p.is_enabled], left.cidr.address(0))
    if not left.is_empty or pool is None or pool.node_selector in ("", "all()"):
        draft.put_block(left, revision)
        return Ending()
    kind, host = parse_owner(left.affinity or "")
    key = keys.affinity_key(host, left.cidr, kind)
    nodes, affinities = store.read([Range(keys.NODES + host), Range(key)])
    faults: list[CorruptRecord] = []
    labels = codec.decode_all(codec.decode_labels, nodes, [])
    claims = codec.decode_all(codec.decode_affinity, affinities, faults)
    if kind != "host" or faults or not labels or _selects(pool, labels[0]):
        draft.put_block(left, revision)
        return Ending(faults=tuple(faults))
    for affinity in claims:
        draft.give_up(affinity, affinities[0].revision)
    draft.delete_block(left.cidr, revision)
    return Ending(is_lost=True)


def _selects(pool: Pool, labels: dict[str, str]) -> bool:
    """A selector that cannot be parsed is for the operator to correct, not for DEL to fail."""
    try:
        return pool.selects(labels)
    except NetconfError:
        return True


def _is_overcounted(view: View, block: Block) -> bool:
    """Whether a handle counts more addresses in `block` than it has there."""
    return any(
        handle.blocks.get(block.cidr, 0) > count_of(block, handle.id)
        for handle, _ in view.handles.values()
    )


def count_of(block: Block | None, handle_id: str) -> int:
    """How many addresses of `block` the handle really has; none if there is no block."""
    if block is None:
        return 0
    return len(block.find_ordinals(lambda owner: owner.handle == handle_id))


def lower_handles(
    store: Datastore, draft: Draft, block: Block, left: Block, ordinals: list[int]
) -> None:
    """Put the handles that had `ordinals` of `block` into the draft, with what they have left."""
    owners = [block.attribute_of(ordinal) for ordinal in ordinals]
    handle_ids = dict.fromkeys([o.handle for o in owners if o is not None and o.handle])
    found = store.read([Range(keys.handle_key(handle_id)) for handle_id in handle_ids])
    for handle_id, entries in zip(handle_ids, found, strict=True):
        if entries:
            handle = codec.decode_handle(entries[0])
            lowered = handle.with_count(block.cidr, count_of(left, handle_id))
            draft.lower_handle(lowered, entries[0].revision)
