"""Whether an answer of the engine is one that `Plain` allows; if so, `Plain` takes it over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cni_ipam.core.gateway import kept_back
from cni_ipam.errors import BlockLimit, FamilyMissing, NoQualifiedPool, PoolExhausted
from tests.ipam.model.plain import Holder, numbers, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_ipam.core.address import Cidr
    from cni_ipam.errors import AllocationError, CniIpamError
    from cni_ipam.ipam.wish import Assigned, Outcome
    from tests.ipam.model.plain import Plain, PlainPool, Room


@dataclass
class Request:
    """What somebody asked for."""

    holder: Holder
    counts: Mapping[int, int]
    asked: tuple[str, ...] = ()
    whole: bool = True
    gateway: str = "none"
    max_blocks: int = 0

    def chosen(self, plain: Plain, version: int) -> list[PlainPool]:
        """The pools that it may use."""
        return plain.choose(version, self.asked, self.holder.host)

    def again(self) -> Request:
        """The same for somebody on the host who has nothing yet."""
        return replace(self, holder=Holder("nobody", self.holder.host, ""))

    def missing(self, plain: Plain, version: int) -> int:
        """How many addresses it still needs: what it has is part of the answer."""
        return max(0, self.counts[version] - len(self.former(plain, version)))

    def former(self, plain: Plain, version: int) -> set[int]:
        """The addresses that it has."""
        return {a for a, h in plain.held.items() if h == self.holder and version_of(a) == version}

    def kept(self, pools: list[PlainPool]) -> set[int]:
        """What the gateway takes away."""
        return {cidr.base for pool in pools for cidr in kept_back(pool.cidr, self.gateway)}

    def room(self, plain: Plain, version: int) -> Room:
        """What there is for it."""
        pools = self.chosen(plain, version)
        missing = self.missing(plain, version)
        host, kept = self.holder.host, self.kept(pools)
        return plain.room(host, pools, missing, kept, self.max_blocks)


def judge_refusal(plain: Plain, request: Request, error: CniIpamError) -> None:
    """A refusal is right if at least one family may get less than it wants, and for that reason."""
    short = {}
    for version in request.counts:
        missing = request.missing(plain, version)
        if missing:
            room = request.room(plain, version)
            if room.least < missing:
                short[version] = room.errors
    assert short, f"{error!r}, but there is room"
    kinds = {kind for errors in short.values() for kind in errors}
    if request.whole and len(request.counts) > 1:
        kinds.add(FamilyMissing)
    assert isinstance(error, tuple(kinds)), f"{error!r} is none of {kinds}"


def judge_answer(plain: Plain, request: Request, outcome: Outcome) -> None:
    """Each family got what it wants, or, where a part is welcome, as much as there is."""
    is_cut = outcome.error is not None
    if is_cut:
        assert not request.whole
        judge_refusal(plain, request, outcome.error)
    for version, count in request.counts.items():
        answer = [a for a in outcome.assigned if a.address.version == version]
        former = request.former(plain, version)
        new = [a for a in answer if a.address.value not in former]
        known = len(answer) - len(new)
        assert known == min(count, len(former)) or (is_cut and not answer)
        missing = request.missing(plain, version)
        if not missing:
            assert [] == new
            continue
        room = request.room(plain, version)
        least = missing if request.whole else 0 if is_cut else room.least
        assert least <= len(new) <= room.most
        judge_given(plain, request, version, new)
        if not is_cut or answer:
            plain.leave_unselected(request.holder.host, version, request.chosen(plain, version))


def judge_given(plain: Plain, request: Request, version: int, new: list[Assigned]) -> None:
    """The addresses are free, of the right blocks and in the order of their queues."""
    pools = request.chosen(plain, version)
    barred = plain.reserved | request.kept(pools)
    places = {cidr for pool in pools for cidr in pool.blocks()}
    host = request.holder.host
    mine = [cidr for cidr in plain.owned(host) if cidr in places]
    given = group(new)
    claimed = [cidr for cidr, is_affine in given.values() if is_affine and cidr not in mine]
    borrowed = [cidr for cidr, is_affine in given.values() if not is_affine]
    assert len(given) == len({cidr for cidr, _ in given.values()})
    assert places >= {cidr for cidr, _ in given.values()}
    if claimed or borrowed:
        own = [a for cidr in mine for a in plain.free(cidr) if a not in barred]
        assert set(own) <= {a.address.value for a in new}, "the own blocks were not used up"
    if claimed:
        assert plain.auto
        assert len(mine) + len(claimed) <= plain.limit(request.max_blocks)
    unclaimed = set(plain.unclaimed(places, barred))
    idle = set(plain.reclaimable(places, host, barred))
    assert set(claimed) <= unclaimed | idle, "a block was taken that is somebody's"
    if borrowed:
        assert not plain.strict, "borrowed in spite of strictAffinity"
        assert unclaimed | idle <= set(claimed), "borrowed, but there was a block to claim"
        assert not set(borrowed) & set(mine)
    if set(claimed) & idle:
        assert unclaimed <= set(claimed), "taken back, but there was a block that nobody had"
    for addresses, (cidr, _) in given.items():
        take(plain, request.holder, cidr, list(addresses), barred, claim=cidr in claimed)


def judge_block(plain: Plain, request: Request, cidr: Cidr) -> None:
    """A block of the host's that has room, or a new one if there was none."""
    own, unclaimed = find_blocks(plain, request)
    if own:
        assert cidr in own
    else:
        assert cidr in unclaimed
        assert plain.auto
        plain.claim(cidr, request.holder.host)


def judge_no_block(plain: Plain, request: Request, error: AllocationError) -> None:
    """The host has no block with room, and may not have a new one or finds none."""
    own, unclaimed = find_blocks(plain, request)
    assert not own
    (version,) = request.counts
    if not request.chosen(plain, version):
        assert isinstance(error, NoQualifiedPool)
    elif not isinstance(error, BlockLimit):
        assert isinstance(error, PoolExhausted)
        assert not (plain.auto and unclaimed)


def find_blocks(plain: Plain, request: Request) -> tuple[list[Cidr], list[Cidr]]:
    """The host's blocks with room, and those that nobody has."""
    (version,) = request.counts
    pools = request.chosen(plain, version)
    barred = plain.reserved | request.kept(pools)
    places = [place for pool in pools for place in pool.blocks()]
    mine = [cidr for cidr in plain.owned(request.holder.host) if cidr in places]
    return [c for c in mine if set(plain.free(c)) - barred], plain.unclaimed(places, barred)


def group(new: list[Assigned]) -> dict[tuple[int, ...], tuple[Cidr, bool]]:
    """The addresses of each block, in the order of the answer, and whether it is the host's."""
    blocks: dict[Cidr, list[Assigned]] = {}
    for assigned in new:
        blocks.setdefault(assigned.block, []).append(assigned)
    return {
        tuple(a.address.value for a in many): (cidr, many[0].is_affine)
        for cidr, many in blocks.items()
    }


def take(
    plain: Plain, holder: Holder, cidr: Cidr, addresses: list[int], barred: set[int], *, claim: bool
) -> None:
    """A block gave its first free addresses."""
    queue = list(numbers(cidr)) if claim else plain.free(cidr)
    allowed = [address for address in queue if address not in barred]
    assert allowed[: len(addresses)] == addresses, "not from the head of the queue"
    if claim:
        plain.claim(cidr, holder.host)
    plain.give(cidr, addresses, holder)
