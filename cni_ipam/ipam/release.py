"""Release: give an attachment's addresses back, whatever else is gone.

*DEL never fails for what is gone*: no handle, no block, no pool, no node is success. Only what
cannot be recorded is an error. *Block before handle*: a crash between the two leaves a handle that
counts too much, which the repeated call mends, since counts are always taken from the block.
"""

from __future__ import annotations

from cni_ipam.core.affinity import owner_of
from cni_ipam.core.pool import find_pool
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CorruptRecord, NetconfError
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.retry import retry
from cni_ipam.ipam.view import read_blocks, read_view
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Attribute, Block
    from cni_ipam.core.handle import Handle
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
    removal = retry(lambda: _Removal(store, host, owners, now).run())
    if removal.faults:
        raise removal.faults[0]
    return Released(tuple(removal.addresses), tuple(removal.lost))


class _Removal:
    def __init__(
        self, store: Datastore, host: str, owners: dict[str, Callable[[Attribute], bool]], now: int
    ) -> None:
        self.store, self.host, self.owners, self.now = store, host, owners, now
        self.draft = Draft()
        self.addresses: list[Address] = []
        self.lost: list[Cidr] = []
        self.faults: list[CorruptRecord] = []

    def run(self) -> _Removal:
        view = read_view(self.store, self.host, (), list(self.owners))
        # A broken pool is no reason to keep an address; a broken handle or block is.
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
        if left.is_empty and left.affinity is None:
            self.draft.delete_block(left.cidr, revision)
        elif not self._give_up_unselected(view, left, revision):
            self.draft.put_block(left, revision)
        return left

    def _is_meant(self, owner: Attribute) -> bool:
        test = self.owners.get(owner.handle or "")
        return test is not None and test(owner)

    def _is_unselected(self, view: View, block: Block) -> bool:
        """Whether the block is the host's, but its pool no longer selects the host (facts 2.14).

        A selector that cannot be parsed is for the operator to correct, not for DEL to fail."""
        if block.affinity != owner_of(self.host) or view.node_labels is None:
            return False
        pool = find_pool([p for p in view.pools if p.is_enabled], block.cidr.address(0))
        try:
            return pool is not None and not pool.selects(view.node_labels)
        except NetconfError:
            return False

    def _give_up_unselected(self, view: View, block: Block, revision: int) -> bool:
        """Put the end of an empty block that is no longer for this host into the draft.

        Whether it is one, and its affinity can be understood."""
        if not (block.is_empty and self._is_unselected(view, block)):
            return False
        found = self.store.read([Range(keys.affinity_key(self.host, block.cidr))])[0]
        try:
            affinities = [codec.decode_affinity(entry) for entry in found]
        except CorruptRecord as fault:
            self.faults.append(fault)
            return False
        for affinity in affinities:
            self.draft.give_up(affinity, found[0].revision)
        self.draft.delete_block(block.cidr, revision)
        self.lost.append(block.cidr)
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
