"""The limit of a handle: so many addresses of a family, on whatever nodes, and however often it
asks. A virtual machine has one, and takes it along wherever it starts (facts: Calico 2.17).

What counts is what the blocks hold: a crash may leave a handle that counts more, and that must
not keep its machine from an address for ever.
"""

from __future__ import annotations

from cni_ipam.errors import HandleLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.block import Block
    from cni_ipam.ipam.assign import Attempt


def assign_from_held(attempt: Attempt, version: int, count: int) -> int:
    """Answer with `count` addresses that the handle has, if more would pass its limit; how many
    there were: all or none. Raises HandleLimit if it has fewer, and may not have more."""
    limit = attempt.wish.max_per_handle
    held = _held(attempt, version)
    if len(held) + count <= limit:
        _stop_slower_ones(attempt, version)
        return 0
    answered = [one.address for one in attempt.assigned]
    others = [(b, ordinal) for b, ordinal in held if b.cidr.address(ordinal) not in answered]
    if len(others) < count:
        raise _limit_reached(attempt, held)
    for block, ordinal in others[:count]:
        attempt.answer(block, ordinal)
    return count


def require_room(attempt: Attempt, version: int) -> None:
    """Raises HandleLimit if the handle may have no further address of the family."""
    held = _held(attempt, version)
    if len(held) >= attempt.wish.max_per_handle:
        raise _limit_reached(attempt, held)
    _stop_slower_ones(attempt, version)


def _held(attempt: Attempt, version: int) -> list[tuple[Block, int]]:
    """Blocks and ordinals of what the handle has, with what this attempt has given it so far."""
    handle_id = attempt.wish.handle
    return [
        (block, ordinal)
        for cidr, (block, _) in attempt.blocks.items()
        if cidr.version == version
        for ordinal in block.find_ordinals(lambda owner: owner.handle == handle_id)
    ]


def _stop_slower_ones(attempt: Attempt, version: int) -> None:
    """Where a store has no transactions, another call for the handle may stand between the handle's
    write and the block's: then the handle counts more than the block holds. That block is written
    as well, so that only one of the two calls succeeds, and the other one counts anew."""
    known = attempt.view.handles.get(attempt.wish.handle)
    for cidr, count in known[0].blocks.items() if known else ():
        block, revision = attempt.blocks.get(cidr, (None, 0))
        if block is None or cidr.version != version or cidr in attempt.changed:
            continue
        if count > len([b for b, _ in _held(attempt, version) if b.cidr == cidr]):
            attempt.blocks[cidr] = (block.touch(), revision)
            attempt.draft.put_block(block.touch(), revision)


def _limit_reached(attempt: Attempt, held: list[tuple[Block, int]]) -> HandleLimit:
    limit, handle_id = attempt.wish.max_per_handle, attempt.wish.handle
    addresses = ", ".join([str(block.cidr.address(ordinal)) for block, ordinal in held])
    return HandleLimit(
        f"handle {handle_id} already has IP(s) allocated: {addresses or 'none'}",
        f"it may have {limit} of each family; release one of them first",
    )
