"""What a sound block and a sound datastore are; the one definition that tests, the crash and race
suites and `ipamctl ipam check` share.

*Unsound* is what must never be, at no prefix of any operation's writes: an address that could be
given twice, or one that nobody could release. *Leftover* is what a crash may leave behind and
what harms nobody until the next call of the same owner takes it away: a handle that counts too
much (its DEL), a pending affinity (its host's next ADD).
"""

from __future__ import annotations

from cni_ipam.core.affinity import PENDING, PENDING_DELETION
from cni_ipam.core.block import WINDOWS_RESERVED_HANDLE
from cni_ipam.core.moment import parse_rfc3339
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.affinity import Affinity
    from cni_ipam.core.block import Block
    from cni_ipam.core.handle import Handle


@record
class Finding:
    """One thing that is not as it should be, and where."""

    severity: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.text}"


UNSOUND = "unsound"
LEFTOVER = "leftover"


def check_block(block: Block, now: int | None = None) -> list[str]:
    """What is wrong inside one block, in Calico's words; empty if it is sound."""
    return [*_check_attributes(block, now), *_check_queue(block)]


def _check_attributes(block: Block, now: int | None) -> Iterator[str]:
    used = set()
    for ordinal, index in enumerate(block.allocations):
        if index is not None and not 0 <= index < len(block.attributes):
            yield f"allocation {ordinal} indexes a nonexistent attribute {index}"
        used.add(index)
    for index, attribute in enumerate(block.attributes):
        if index not in used:
            yield f"attribute index {index} exists but is not indexed by an allocation"
        if now is not None and attribute.released_at is not None:
            yield from _check_release_time(index, attribute.released_at, now)


def _check_release_time(index: int, released_at: str, now: int) -> Iterator[str]:
    try:
        if parse_rfc3339(released_at) > now:
            yield f"attribute index {index} has releasedAt in the future, suggesting clock skew"
    except ValueError:
        yield f"attribute index {index} has the unreadable releasedAt {released_at!r}"


def _check_queue(block: Block) -> Iterator[str]:
    seen = set()
    for ordinal in block.unallocated:
        if not 0 <= ordinal < block.cidr.size:
            yield f"ordinal {ordinal} appears in the Unallocated array but is out of the block"
        elif ordinal in seen:
            yield f"ordinal {ordinal} appears more than once in Unallocated array"
        elif ordinal < len(block.allocations) and block.allocations[ordinal] is not None:
            yield f"ordinal {ordinal} is allocated but appears in Unallocated"
        seen.add(ordinal)
    free = len(block.unallocated)
    in_use = sum(index is not None for index in block.allocations)
    if len(block.allocations) != block.cidr.size or free + in_use != block.cidr.size:
        yield (
            f"expected {block.cidr.size} addresses in this block, "
            f"but Unallocated ({free}) + Allocated ({in_use}) = {free + in_use}"
        )


def check_datastore(
    blocks: Sequence[Block],
    affinities: Iterable[Affinity],
    handles: Iterable[Handle],
    now: int | None = None,
) -> list[Finding]:
    """Everything that is not as it should be; no finding means sound and nothing left over."""
    findings = [
        Finding(UNSOUND, str(block.cidr), text)
        for block in blocks
        for text in check_block(block, now)
    ]
    if findings:
        return findings
    return [
        *_check_overlaps(blocks),
        *_check_affinities(blocks, list(affinities)),
        *_check_handles(blocks, handles),
    ]


def _check_overlaps(blocks: Sequence[Block]) -> Iterator[Finding]:
    ordered = sorted(blocks, key=lambda block: (block.cidr.version, block.cidr.base))
    for first, second in zip(ordered, ordered[1:], strict=False):  # noqa: RUF007 - no itertools
        if first.cidr.overlaps(second.cidr):
            yield Finding(UNSOUND, str(first.cidr), f"overlaps with block {second.cidr}")


def _check_affinities(blocks: Sequence[Block], affinities: list[Affinity]) -> Iterator[Finding]:
    owners = {block.cidr: block.affinity for block in blocks}
    claims = {(affinity.owner, affinity.cidr) for affinity in affinities}
    for affinity in affinities:
        where = f"{affinity.cidr} of {affinity.owner}"
        if affinity.is_confirmed and owners.get(affinity.cidr, "") != affinity.owner:
            yield Finding(UNSOUND, where, "confirmed affinity without a block of that owner")
        if affinity.state in (PENDING, PENDING_DELETION):
            yield Finding(LEFTOVER, where, f"affinity is {affinity.state}")
    for block in blocks:
        if block.affinity is not None and (block.affinity, block.cidr) not in claims:
            yield Finding(UNSOUND, str(block.cidr), f"{block.affinity} has no affinity for it")
        if block.affinity is None and block.is_empty:
            yield Finding(LEFTOVER, str(block.cidr), "an empty block that nobody owns")


def _check_handles(blocks: Sequence[Block], handles: Iterable[Handle]) -> Iterator[Finding]:
    in_use = _count_by_handle(blocks)
    counted = {handle.id: handle.blocks for handle in handles}
    for handle, counts in in_use.items():
        for cidr, count in counts.items():
            known = counted.get(handle, {}).get(cidr, 0)
            if known < count:
                yield Finding(UNSOUND, handle, f"counts {known} of its {count} addresses in {cidr}")
    for handle, counts in counted.items():
        for cidr, count in counts.items():
            real = in_use.get(handle, {}).get(cidr, 0)
            if count > real:
                yield Finding(LEFTOVER, handle, f"counts {count} addresses in {cidr}, has {real}")
        if not counts:
            yield Finding(LEFTOVER, handle, "counts no address")


def _count_by_handle(blocks: Sequence[Block]) -> dict[str, dict[Cidr, int]]:
    """How many addresses each handle really has in each block."""
    in_use: dict[str, dict[Cidr, int]] = {}
    for block in blocks:
        for _, owner in block.allocated():
            handle = owner.handle
            if handle is not None and handle.lower() != WINDOWS_RESERVED_HANDLE:
                counts = in_use.setdefault(handle, {})
                counts[block.cidr] = counts.get(block.cidr, 0) + 1
    return in_use
