"""The block: a CIDR whose addresses are given out under one compare-and-swap.

Addresses are *ordinals*, counted from the block's base. Four fields tell one story and must agree:

    allocations   for each ordinal None, or an index into `attributes`
    unallocated   the queue of free ordinals: assignment takes from its head, release appends to
                  its tail, so a freed address rests for as long as the others last
    attributes    who has it: handle and owner attributes, shared by the addresses of one call,
                  each referenced at least once, compacted when the last reference goes
    sequence_number, allocation_sequence
                  the number grows with every update of the block; each allocation keeps the number
                  that stood when it was made. A release that names a number frees just that
                  allocation, not a later one of that address: *a sequence number on every release*

With a cooldown, a released ordinal is not yet free: it points to an attribute that holds
only `releasedAt`, and goes to the queue once that lies further back than the cooldown. With none,
release and return to the queue happen in the same step, and what is stored looks as it
did in versions that know no cooldown.

A Block is a value. Each transition returns a new block, with its sequence number raised where the
rules ask for it, and whoever wants it stored swaps it under the old revision; a lost swap leaves
nothing half-changed. `core.check` says when a block is sound.
"""

from __future__ import annotations

from cni_ipam.core.moment import SECOND, parse_rfc3339, rfc3339
from cni_ipam.lean.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.reservation import Reservations

WINDOWS_RESERVED_HANDLE = "windows-reserved-ipam-handle"


@record
class Attribute:
    """Who owns an address: the handle, Calico's "active owner" attributes (`secondary`), and those
    of an `alternate` owner, to whom a virtual machine moves with its addresses."""

    handle_id: str | None = None
    secondary: dict[str, str] | None = None
    alternate: dict[str, str] | None = None
    released_at: str | None = None
    extra: dict[str, object] | None = None

    @property
    def handle(self) -> str | None:
        """The handle without the malformed tail (from the carriage return on) of old releases."""
        return None if self.handle_id is None else self.handle_id.partition("\r")[0]

    def get(self, name: str) -> str | None:
        """One owner attribute, such as `node` or `pod`."""
        return (self.secondary or {}).get(name)

    def is_on(self, node: str, ifname: str | None) -> bool:
        """Whether it is of this node and interface, as far as it says: a record of Calico's own
        names no interface, and an old one no node."""
        return self.get("node") in (None, node) and self.get("ifname") in (None, ifname)


@record
class Block:
    """One IPAMBlock; `affinity` is e.g. `host:node1`, or None for a block without owner."""

    cidr: Cidr
    affinity: str | None
    claim_time: str | None
    allocations: tuple[int | None, ...]
    unallocated: tuple[int, ...]
    attributes: tuple[Attribute, ...]
    sequence_number: int
    allocation_sequence: dict[int, int]
    extra: dict[str, object] | None = None

    def attribute_of(self, ordinal: int) -> Attribute | None:
        """The attribute of an allocated ordinal; None if it is free."""
        index = self.allocations[ordinal]
        return None if index is None else self.attributes[index]

    def allocated(self) -> Iterator[tuple[int, Attribute]]:
        """Each allocated or cooling ordinal with its attribute, ascending."""
        for ordinal, index in enumerate(self.allocations):
            if index is not None:
                yield ordinal, self.attributes[index]

    def find_ordinals(self, wanted: Callable[[Attribute], bool]) -> list[int]:
        """The ordinals in use whose attribute is `wanted`; cooling ones are nobody's."""
        return [o for o, owner in self.allocated() if owner.released_at is None and wanted(owner)]

    def ordinal_of(self, address: Address) -> int:
        """The ordinal of an address of this block."""
        return address.value - self.cidr.base

    @property
    def is_empty(self) -> bool:
        """Whether nothing but Windows' own reservations is allocated; cooling counts as in use."""
        return all(
            (owner.handle or "").lower() == WINDOWS_RESERVED_HANDLE for _, owner in self.allocated()
        )

    def free_ordinals(self, reservations: Reservations) -> Iterator[int]:
        """The free ordinals that are not reserved, in the order of the queue."""
        for ordinal in self.unallocated:
            if not reservations.contains(self.cidr.address(ordinal)):
                yield ordinal

    def assign(
        self, count: int, owner: Attribute, reservations: Reservations
    ) -> tuple[Block, list[int]]:
        """Take up to `count` ordinals from the head of the queue for `owner`.

        Reserved ordinals keep their place in the queue. The same block if none was free."""
        taken: list[int] = []
        for ordinal in self.free_ordinals(reservations):
            if len(taken) == count:
                break
            taken.append(ordinal)
        return (self._take(taken, owner) if taken else self), taken

    def assign_ordinal(self, ordinal: int, owner: Attribute) -> Block:
        """Take one free ordinal, wherever it stands in the queue."""
        return self._take([ordinal], owner)

    def _take(self, ordinals: list[int], owner: Attribute) -> Block:
        attributes = self.attributes if owner in self.attributes else (*self.attributes, owner)
        index = attributes.index(owner)
        allocations = list(self.allocations)
        sequence = dict(self.allocation_sequence)
        for ordinal in ordinals:
            allocations[ordinal] = index
            sequence[ordinal] = self.sequence_number
        return replace(
            self,
            allocations=tuple(allocations),
            unallocated=tuple([o for o in self.unallocated if o not in ordinals]),
            attributes=attributes,
            allocation_sequence=sequence,
            sequence_number=self.sequence_number + 1,
        )

    def release(self, ordinals: Iterable[int], now: int, cooldown_seconds: int) -> Block:
        """Give allocated ordinals back: to the queue's tail, or to rest for the cooldown."""
        allocations = list(self.allocations)
        sequence = dict(self.allocation_sequence)
        for ordinal in ordinals:
            allocations[ordinal] = len(self.attributes)
            sequence[ordinal] = self.sequence_number
        released = replace(
            self,
            allocations=tuple(allocations),
            attributes=(*self.attributes, Attribute(released_at=rfc3339(now))),
            allocation_sequence=sequence,
            sequence_number=self.sequence_number + 1,
        )
        return released.collect(now, cooldown_seconds)

    def collect(self, now: int, cooldown_seconds: int) -> Block:
        """Return ordinals whose cooldown is over to the queue, and drop unused attributes.

        Runs on every read of a block that is to be changed; the sequence number stays."""
        rested = [
            ordinal
            for ordinal, owner in self.allocated()
            if owner.released_at is not None
            and _has_rested(owner.released_at, now, cooldown_seconds)
        ]
        used = {index for o, index in enumerate(self.allocations) if o not in rested}
        if not rested and len(used - {None}) == len(self.attributes):
            return self
        kept = [index for index in range(len(self.attributes)) if index in used]
        place = {index: position for position, index in enumerate(kept)}
        return replace(
            self,
            allocations=tuple(
                [
                    None if index is None or ordinal in rested else place[index]
                    for ordinal, index in enumerate(self.allocations)
                ]
            ),
            unallocated=(*self.unallocated, *rested),
            attributes=tuple([self.attributes[index] for index in kept]),
            allocation_sequence={
                o: number for o, number in self.allocation_sequence.items() if o not in rested
            },
        )

    def with_owner(self, ordinal: int, owner: Attribute) -> Block:
        """The same block with `owner` in the place of who has `ordinal`, and with it
        all other addresses that were given to them in the same call."""
        changed = self.allocations[ordinal]
        return replace(
            self,
            attributes=tuple(
                [owner if index == changed else kept for index, kept in enumerate(self.attributes)]
            ),
            sequence_number=self.sequence_number + 1,
        )

    def disown(self) -> Block:
        """The same block without owner: its addresses live on until they are released."""
        return replace(
            self, affinity=None, claim_time=None, sequence_number=self.sequence_number + 1
        )

    def touch(self) -> Block:
        """Unchanged but for the sequence number, to make concurrent swaps of it fail."""
        return replace(self, sequence_number=self.sequence_number + 1)


def new_block(
    cidr: Cidr, affinity: str | None, now: int, host_reserved: tuple[int, int] = (0, 0)
) -> Block:
    """An empty block, claimed now. Its first sequence number is the clock's nanoseconds, so
    that a block which is deleted and made again never repeats a number.

    `host_reserved` says how many addresses at its start and at its end the host keeps for itself
    (Windows does); they are allocated from the beginning."""
    block = Block(
        cidr=cidr,
        affinity=affinity,
        claim_time=None if affinity is None else rfc3339(now),
        allocations=(None,) * cidr.size,
        unallocated=tuple(range(cidr.size)),
        attributes=(),
        sequence_number=now,
        allocation_sequence={},
    )
    first, last = host_reserved
    kept = [o for o in range(cidr.size) if o < first or o >= cidr.size - last]
    if not kept:
        return block
    return replace(
        block,
        allocations=tuple([0 if o in kept else None for o in range(cidr.size)]),
        unallocated=tuple([o for o in range(cidr.size) if o not in kept]),
        attributes=(Attribute(WINDOWS_RESERVED_HANDLE, {"note": "windows host rsvd"}),),
    )


def _has_rested(released_at: str, now: int, cooldown_seconds: int) -> bool:
    if cooldown_seconds <= 0:
        return True
    try:
        return parse_rfc3339(released_at) < now - cooldown_seconds * SECOND
    except ValueError:
        # A time that nobody can read must not hold an address for ever.
        return True
