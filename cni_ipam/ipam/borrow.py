"""Others' blocks: taking back one that lies idle, or borrowing an address of it.

Only when no block is unclaimed. One paged list of the blocks' values, which ends with the first
page that has what is missing: in a full pool too it costs what lies before the first hit. A
block is taken back if it is empty and was claimed at least 60 seconds ago, so that nobody loses one
between the claim and the first assignment (Calico does so since v3.32).
"""

from __future__ import annotations

from cni_ipam.core.affinity import KINDS, Affinity, parse_owner
from cni_ipam.core.moment import SECOND, parse_rfc3339
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range
from cni_ipam.errors import CorruptRecord
from cni_ipam.ipam.claim import claim, require_claims
from cni_ipam.ipam.view import PAGE_SIZE
from cni_ipam.ipam.wish import STRICT_MESSAGE
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_ipam.core.block import Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.core.reservation import Reservations
    from cni_ipam.datastore.port import Entry
    from cni_ipam.ipam.assign import Attempt

IDLE_SECONDS = 60


@record
class Foreign:
    """A block of another's with the rank of its pool among the chosen ones."""

    rank: int
    block: Block
    revision: int


def assign_from_others(
    attempt: Attempt, chosen: Sequence[Pool], count: int, reserved: Reservations
) -> int:
    """Take up to `count` addresses by taking blocks back, and unless strictAffinity forbids
    it by borrowing; how many there were. Earlier pools are preferred."""
    version = chosen[0].cidr.version
    strict = attempt.view.config.strict_affinity
    mine = attempt.wish.affinity
    taken = 0
    later: list[Foreign] = []
    for page in _foreign_pages(attempt, chosen):
        own = [found for found in page if found.block.affinity == mine]
        taken += _borrow(attempt, own, count - taken, reserved)
        taken += _take_back(attempt, chosen, page, count - taken, reserved)
        usable = [found for found in page if not strict or found.block.affinity == mine]
        first = [found for found in usable if found.rank == 0]
        taken += _borrow(attempt, first, count - taken, reserved)
        if taken == count:
            return taken
        later += [found for found in usable if found.rank]
    taken += _borrow(attempt, sorted(later, key=_rank), count - taken, reserved)
    if taken < count:
        names = " ".join(str(pool.cidr) for pool in chosen)
        text = STRICT_MESSAGE if strict else f"No IPs available in pools: [{names}]"
        attempt.messages[version].append(text)
    return taken


def _rank(found: Foreign) -> int:
    return found.rank


def _borrow(attempt: Attempt, page: Sequence[Foreign], count: int, reserved: Reservations) -> int:
    taken = 0
    for found in page:
        if taken == count or found.block.cidr in attempt.changed:
            continue
        got = attempt.take(found.block, found.revision, count - taken, reserved)
        if got and found.block.affinity == attempt.wish.affinity:
            _restore_affinity(attempt, found.block)
        taken += got
    return taken


def _restore_affinity(attempt: Attempt, block: Block) -> None:
    """Give an own block its affinity back if that is lost, as Calico does: only by both records
    it is the host's for whoever makes routes."""
    cidr = block.cidr
    if cidr not in attempt.view.affinities and _read_affinity(attempt, block) == []:
        attempt.draft.confirm(Affinity(attempt.wish.kind, attempt.wish.host, cidr), ABSENT)


def _take_back(
    attempt: Attempt,
    chosen: Sequence[Pool],
    page: Sequence[Foreign],
    count: int,
    reserved: Reservations,
) -> int:
    """Claim the idle blocks of a page in their owners' place; how many addresses that gave."""
    taken = 0
    for found in page:
        if taken == count:
            break
        if not _is_idle(attempt, found.block) or reserved.covers(found.block.cidr):
            continue
        require_claims(attempt, chosen)
        former = _read_affinity(attempt, found.block)
        if former is None:
            continue
        mine = Affinity(attempt.wish.kind, attempt.wish.host, found.block.cidr)
        affinity, revision = attempt.view.affinities.get(found.block.cidr, (mine, ABSENT))
        got = claim(
            attempt, affinity, revision, count - taken, reserved, block_revision=found.revision
        )
        if got:
            for ending, ending_revision in former:
                attempt.draft.give_up(ending, ending_revision)
        taken += got
    if 0 < taken < count:
        # The last of them may have been the last that the host may own: then nothing is borrowed.
        require_claims(attempt, chosen)
    return taken


def _read_affinity(attempt: Attempt, block: Block) -> list[tuple[Affinity, int]] | None:
    """The owner's affinity, if it has one; None if that cannot be understood, so that the block
    must be left to its owner."""
    if block.affinity is None:
        return []
    kind, host = parse_owner(block.affinity)
    entries = attempt.store.read([Range(keys.affinity_key(host, block.cidr, kind))])[0]
    known = codec.decode_all(codec.decode_affinity, entries, attempt.view.faults)
    if len(known) < len(entries):
        return None
    return [(affinity, entries[0].revision) for affinity in known]


def _is_idle(attempt: Attempt, block: Block) -> bool:
    """Whether it is empty and was claimed long enough ago; no time counts as long ago. One without
    owner is, as the owner left while addresses were cooling down. The affinity of an owner of an
    unknown kind could not be found, so that one is never idle."""
    owner = block.affinity
    if owner == attempt.wish.affinity or not block.is_empty:
        return False
    if owner is None:
        return True
    if parse_owner(owner)[0] not in KINDS:
        return False
    try:
        claimed = parse_rfc3339(block.claim_time or "")
    except ValueError:
        return True
    return claimed <= attempt.wish.now - IDLE_SECONDS * SECOND


def _foreign_pages(attempt: Attempt, chosen: Sequence[Pool]) -> Iterator[list[Foreign]]:
    """Others' blocks in the pools, page by page; they become known to `attempt`. The host's own
    are among them if another process of its claimed them since this attempt began, or if their
    affinity is lost."""
    prefix = keys.blocks_prefix(chosen[0].cidr.version)
    for page in attempt.store.pages(prefix, PAGE_SIZE):
        found = [_decode(attempt, chosen, entry) for entry in page]
        yield [foreign for foreign in found if foreign is not None]


def _decode(attempt: Attempt, chosen: Sequence[Pool], entry: Entry) -> Foreign | None:
    cidr = keys.find_block(entry.key)
    ranks = [rank for rank, pool in enumerate(chosen) if cidr and pool.cidr.covers(cidr)]
    if not ranks or cidr in attempt.changed:
        return None
    try:
        block = codec.decode_block(entry)
    except CorruptRecord as fault:
        attempt.view.faults.append(fault)
        return None
    cooldown = attempt.view.config.cooldown_seconds
    block = block.collect(attempt.wish.now, cooldown)
    _, revision = attempt.blocks.setdefault(block.cidr, (block, entry.revision))
    affinity, _ = attempt.view.affinities.get(block.cidr, (None, ABSENT))
    # An own one that has changed since it was found full may have room again, and be the last.
    is_changed = affinity is not None and affinity.is_confirmed and revision != entry.revision
    if block.affinity == attempt.wish.affinity and affinity is not None and not is_changed:
        return None
    return Foreign(ranks[0], block, entry.revision)
