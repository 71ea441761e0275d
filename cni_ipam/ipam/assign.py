"""Assignment: from a wish to addresses that are recorded.

An attempt is three requests. It reads what there is (pools, reservations, config, node, the
host's affinities, the handle), then the blocks that matter, decides, and commits everything at
once. Whoever was faster makes the commit fail, and the attempt begins anew (`retry`).

Where an address comes from, in this order:

    1. what the attachment has already: a repeated ADD answers with the same addresses
    2. the host's own blocks in the pools that it may use
    3. a block that nobody has, claimed now, unless the host has its limit of blocks
    4. another host's block: taken back if it lies idle, else borrowed from unless strictAffinity
       forbids it

Nothing is committed unless all wanted addresses were found (*all or none, of both families*),
unless the wish is content with a part. The draft's order keeps *handle before block*,
and *pending is absent*: an affinity is confirmed only after its block names the host.
"""

from __future__ import annotations

from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.gateway import kept_back
from cni_ipam.core.handle import Handle
from cni_ipam.core.pool import PoolRequest, choose_pools, find_pool, lies_in_any, resolve_requested
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT
from cni_ipam.errors import (
    AllocationError,
    BlockLimit,
    Conflict,
    DatastoreUnavailable,
    FamilyMissing,
)
from cni_ipam.ipam import claim, fixed, pools
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.labels import LazyLabels
from cni_ipam.ipam.retry import retry
from cni_ipam.ipam.view import read_blocks, read_view
from cni_ipam.ipam.wish import Assigned, Outcome, shortfall
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.block import Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.core.reservation import Reservations
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.ipam.view import View
    from cni_ipam.ipam.wish import Wish

    T = TypeVar("T")


def assign(store: Datastore, wish: Wish) -> Outcome:
    """Addresses for `wish`, recorded when this returns.

    Raises an AllocationError with Calico's message if there are none, CorruptRecord if a broken
    record stood in the way, TryAgainLater; then nothing has changed."""
    return _try(store, wish, Attempt.run)


def _try(store: Datastore, wish: Wish, step: Callable[[Attempt], T]) -> T:
    """What `step` returns for an attempt, or for a further one after a lost swap.

    A frugal first attempt takes the handle for absent: where it is not, its creation is refused."""
    reads_handle = not wish.is_frugal or bool(wish.max_per_handle)

    def attempt() -> T:
        nonlocal reads_handle
        try:
            return step(Attempt(store, wish, _read_view(store, wish, reads_handle=reads_handle)))
        except Conflict:
            reads_handle = True
            raise

    return retry(attempt)


def _read_view(store: Datastore, wish: Wish, *, reads_handle: bool) -> View:
    view = _read_required(store, wish, reads_handle=reads_handle)
    if not view.is_ready and wish.heeds_ready:
        raise DatastoreUnavailable(
            "Calico is currently not ready to process requests",
            "the datastore is locked (datastoreReady is false); `ipamctl datastore unlock`",
        )
    if pools.make_default_pools(store, wish, view):
        view = _read_required(store, wish, reads_handle=reads_handle)
    return view


def _read_required(store: Datastore, wish: Wish, *, reads_handle: bool) -> View:
    handles = [wish.handle] if wish.handle and reads_handle else []
    default_pools = [name for name, _ in wish.default_pools]
    unneeded = ["node"] if wish.is_frugal else []
    if not wish.heeds_ready:
        unneeded.append("cluster")
    view = read_view(
        store, wish.host, wish.versions, handles, wish.kind, default_pools, without=unneeded
    )
    # Node and handle would be written as new ones, which the datastore refuses each time; and what
    # the operator configured is not for us to guess.
    view.require(keys.NODES + wish.host, keys.handle_key(wish.handle), keys.CONFIG)
    if wish.heeds_ready:
        view.require(keys.CLUSTER_INFORMATION)
    if wish.is_frugal and wish.kind == "host":
        labels = LazyLabels(lambda: pools.get_labels(store, wish.host))
        return replace(view, node_labels=labels)
    return view


class Attempt:
    """One try, from decision to commit; the rooms `claim`, `borrow` and `fixed` work on it."""

    def __init__(self, store: Datastore, wish: Wish, view: View) -> None:
        self.store = store
        self.wish = wish
        self.view = view
        self.draft = Draft()
        self.owner = Attribute(wish.handle or None, dict(wish.owner) or None)
        self.blocks: dict[Cidr, tuple[Block, int]] = {}
        self.changed: dict[Cidr, Block] = {}
        self.assigned: list[Assigned] = []
        self.messages: dict[int, list[str]] = {4: [], 6: []}

    def run(self) -> Outcome:
        """Decide and commit. Raises Conflict if another was first."""
        known = self.view.handles.get(self.wish.handle)
        self.blocks = read_blocks(
            self.store,
            [*self.view.affinities, *(known[0].blocks if known else ()), *fixed.blocks_of(self)],
            self.view.faults,
        )
        for address in self.wish.fixed:
            fixed.assign_fixed(self, address)
        error = None
        if self.wish.whole:
            self._assign_families()
        else:
            error = self._assign_part()
        self._finish()
        messages = {version: tuple(texts) for version, texts in self.messages.items()}
        return Outcome(tuple(self.assigned), messages, tuple(self.view.faults), error)

    def ensure(self) -> Cidr:
        """The block of `ensure_block`."""
        wish = self.wish
        version = min(wish.counts)
        self.blocks = read_blocks(self.store, self.view.affinities, self.view.faults)
        chosen = choose_pools(self.view.pools, self._pool_request(version))
        reserved = self.reservations(chosen)
        for cidr, (block, revision) in self.blocks.items():
            is_own = block.affinity == wish.affinity
            is_meant = is_own and lies_in_any(cidr, chosen)
            collected = block.collect(wish.now, self.view.config.cooldown_seconds)
            if is_meant and _has_room(collected, reserved):
                affinity, known = self.view.affinities[cidr]
                if not affinity.is_confirmed:
                    self.draft.confirm(affinity, known)
                    self.draft.put_block(block.touch(), revision)
                    self.store.commit(self.draft.writes())
                return cidr
        for cidr in self._find_claimable(chosen, reserved):
            if _has_room(new_block(cidr, wish.affinity, wish.now, wish.host_reserved), reserved):
                claim.claim_empty(self, cidr)
                self.store.commit(self.draft.writes())
                return cidr
        raise shortfall(self, version, 1, 1, chosen)

    def _find_claimable(self, chosen: Sequence[Pool], reserved: Reservations) -> Iterator[Cidr]:
        """Blocks that do not exist, first those of the host's whose claim was cut short."""
        for cidr in self.view.affinities:
            is_missing = cidr not in self.blocks and lies_in_any(cidr, chosen)
            if is_missing and claim.can_be_claimed(self, cidr):
                yield cidr
        claim.require_claims(self, chosen)
        yield from claim.find_unclaimed(self, chosen, reserved)

    def _assign_part(self) -> AllocationError | None:
        """What there is; the error that ended a family early, with which the next is not tried.

        A first family that is refused altogether is raised: there is no answer then."""
        is_first = True
        for version, count in self.wish.counts.items():
            try:
                self._assign_family(version, count)
            except AllocationError as error:
                if is_first and not self.assigned and not isinstance(error, BlockLimit):
                    raise
                return error
            is_first = False
        return None

    def _assign_families(self) -> None:
        """Both families, or an error: the one family's own, if the other would be refused too."""
        refused: list[AllocationError] = []
        for version, count in self.wish.counts.items():
            try:
                self._assign_family(version, count)
            except AllocationError as error:
                refused.append(error)
        if refused and len(refused) < len(self.wish.counts):
            raise FamilyMissing(
                refused[0].msg, f"{refused[0].details}; the other family is not kept without it"
            )
        if refused:
            raise refused[0]

    def _assign_family(self, version: int, count: int) -> None:
        missing = count - self._find_again(version, count)
        if missing and self.wish.max_per_handle:
            from cni_ipam.ipam.handle_limit import assign_from_held

            missing -= assign_from_held(self, version, missing)
        if not missing:
            return
        try:
            self._assign_missing(version, count, missing)
        except AllocationError:
            self._tell_fault(version)
            raise

    def _assign_missing(self, version: int, count: int, missing: int) -> None:
        for other, requested in self.wish.pools.items():
            if other not in self.wish.counts:
                # As in Calico a pool must be there even if its family is not wanted.
                resolve_requested(self.view.pools, other, requested)
        chosen = choose_pools(self.view.pools, self._pool_request(version))
        pools.reserve_kept_back(self, chosen)
        claim.give_up_unselected(self, version, chosen)
        reserved = self.reservations(chosen)
        missing -= claim.assign_from_own(self, chosen, missing, reserved)
        if missing:
            missing -= claim.assign_from_claimed(self, chosen, missing, reserved)
        if missing:
            from cni_ipam.ipam.borrow import assign_from_others

            missing -= assign_from_others(self, chosen, missing, reserved)
        if missing and self.wish.whole:
            raise shortfall(self, version, count, missing, chosen)

    def _tell_fault(self, version: int) -> None:
        """Raises CorruptRecord for a record for whose sake a family may have been refused."""
        for fault in self.view.faults:
            found = keys.find_block(fault.key) or (keys.find_affinity(fault.key) or (None,))[-1]
            if fault.key.startswith(keys.POOLS) or (found and found.version == version):
                raise fault

    def _find_again(self, version: int, count: int) -> int:
        """What the attachment has of this family already becomes part of the answer."""
        for cidr, (block, _) in self.blocks.items():
            if cidr.version != version:
                continue
            for ordinal in block.find_ordinals(self.wish.answers_again):
                known = block.cidr.address(ordinal) in [a.address for a in self.assigned]
                if not known and len(self._of_family(version)) < count:
                    self.answer(block, ordinal)
        return len(self._of_family(version))

    def _of_family(self, version: int) -> list[Assigned]:
        return [a for a in self.assigned if a.address.version == version and not a.is_fixed]

    def _pool_request(self, version: int) -> PoolRequest:
        if self.view.node_labels is None and not self.wish.makes_node and self.wish.kind == "host":
            raise pools.missing_node(self.wish.host)
        return PoolRequest(
            version=version,
            requested=self.wish.pools.get(version, ()),
            use=self.wish.use,
            node=self.wish.host,
            node_labels=self.view.node_labels,
            namespace_labels=self.wish.namespace_labels,
            host_reserved=sum(self.wish.host_reserved),
        )

    def reservations(self, chosen: Iterable[Pool]) -> Reservations:
        """What auto-assignment must not give: reserved addresses and those kept back."""
        held = [cidr for pool in chosen for cidr in kept_back(pool.cidr, self.wish.gateway)]
        return self.view.reservations.plus(held)

    def take(self, block: Block, revision: int, count: int, reserved: Reservations) -> int:
        """Assign up to `count` addresses of `block` into the draft; how many there were."""
        cooldown = self.view.config.cooldown_seconds
        changed, ordinals = block.collect(self.wish.now, cooldown).assign(
            count, self.owner, reserved
        )
        if ordinals:
            self.put(changed, revision)
        for ordinal in ordinals:
            self.answer(changed, ordinal)
        return len(ordinals)

    def put(self, block: Block, revision: int) -> None:
        """Put a changed block into the draft."""
        self.blocks[block.cidr] = (block, revision)
        self.changed[block.cidr] = block
        self.draft.put_block(block, revision)

    def answer(self, block: Block, ordinal: int, *, is_fixed: bool = False) -> None:
        """Add an address to the answer."""
        address = block.cidr.address(ordinal)
        self.assigned.append(
            Assigned(
                address=address,
                block=block.cidr,
                pool=find_pool(self.view.pools, address),
                is_affine=block.affinity == self.wish.affinity,
                is_fixed=is_fixed,
            )
        )

    def _finish(self) -> None:
        if self.changed and self.wish.handle:
            self._count()
        if self.changed and self.wish.lacks_node(self.view):
            node = pools.new_node(self.wish)
            self.draft.create(node.key, str(node.value))
        writes = self.draft.writes()
        if writes:
            self.store.commit(writes)

    def _count(self) -> None:
        """Put the handle, with what it has from now on in each block, into the draft.

        What it counts too much elsewhere, since an attempt was cut short between its handle and its
        block, is mended: the host's lock sees to it that no such attempt is still under way."""
        handle, revision = self.view.handles.get(
            self.wish.handle, (Handle(self.wish.handle, {}), ABSENT)
        )
        known = {cidr: block for cidr, (block, _) in self.blocks.items() if cidr in handle.blocks}
        for cidr, block in {**known, **self.changed}.items():
            mine = block.find_ordinals(lambda owner: owner.handle == self.wish.handle)
            handle = handle.with_count(cidr, len(mine))
        self.draft.raise_handle(handle, revision)


def ensure_block(store: Datastore, wish: Wish) -> Cidr:
    """A block of the host with room for one address, claimed if it has none; of IPv4 if the wish
    wants both families. Raises as `assign`."""
    return _try(store, wish, Attempt.ensure)


def _has_room(block: Block, reserved: Reservations) -> bool:
    return next(block.free_ordinals(reserved), None) is not None
