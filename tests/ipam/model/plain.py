"""The rules of the engine said with sets and dicts, without records, swaps and keys.

An address is its number. `Plain` does not choose: the engine says which address it gave, and
`Plain` whether it might, or, for an error, whether it had to. Only then it takes the change over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cni_ipam.core.moment import SECOND
from cni_ipam.errors import (
    AddressInUse,
    AddressReserved,
    BlockLimit,
    NoQualifiedPool,
    NotInPool,
    PoolExhausted,
    StrictAffinity,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_ipam.core.address import Cidr

DEFAULT_LIMIT = 20
RECLAIM_AGE = 60 * SECOND
RACKS = ("a", "b", None)
SELECTORS: dict[str, Callable[[str | None], bool]] = {
    "all()": lambda _: True,
    "rack == 'a'": lambda rack: rack == "a",
    "!has(rack)": lambda rack: rack is None,
}


@dataclass(frozen=True)
class Holder:
    """Who has an address: a container's interface on a host."""

    handle: str
    host: str
    ifname: str


@dataclass
class PlainPool:
    """A pool as its operator made it."""

    name: str
    cidr: Cidr
    block_size: int
    selector: str = "all()"
    disabled: bool = False
    manual: bool = False
    use: str = "Workload"

    def selects(self, rack: str | None) -> bool:
        """Whether its nodeSelector selects a node in the rack."""
        return SELECTORS[self.selector](rack)

    def blocks(self) -> list[Cidr]:
        """All places for blocks in it."""
        size = self.cidr.size >> (self.block_size - self.cidr.prefix)
        kind = type(self.cidr)
        return [
            kind(self.cidr.version, base, self.block_size)
            for base in range(self.cidr.base, self.cidr.last + 1, size)
        ]

    def block_of(self, address: int) -> Cidr:
        """The place of the block that holds an address."""
        return next(cidr for cidr in self.blocks() if address in numbers(cidr))


@dataclass
class PlainBlock:
    """A block that somebody claimed, and its free addresses in the order of their queue."""

    owner: str | None
    claimed: int
    queue: list[int]


@dataclass(frozen=True)
class Room:
    """How many addresses a request must get at least and can get at most, and the errors of which
    one must be told if it gets less than it wants."""

    least: int
    most: int
    errors: tuple[type[Exception], ...] = ()


def numbers(cidr: Cidr) -> range:
    """The addresses of a CIDR."""
    return range(cidr.base, cidr.last + 1)


def version_of(address: int) -> int:
    """The family; this world has no IPv6 address that begins with zeros."""
    return 4 if address < 1 << 32 else 6


@dataclass
class Plain:
    """Who holds which address, and what is free, reserved or cooling."""

    now: int
    pools: dict[str, PlainPool] = field(default_factory=dict)
    racks: dict[str, str | None] = field(default_factory=dict)
    blocks: dict[Cidr, PlainBlock] = field(default_factory=dict)
    held: dict[int, Holder] = field(default_factory=dict)
    cooling: dict[int, int] = field(default_factory=dict)
    reserved: set[int] = field(default_factory=set)
    strict: bool = False
    auto: bool = True
    max_blocks: int = 0
    cooldown: int = 0

    # Questions

    def limit(self, asked: int) -> int:
        """How many blocks a host may own: the smaller of the two limits that are set."""
        return min([n for n in (asked, self.max_blocks) if n] or [DEFAULT_LIMIT])

    def has_rested(self, address: int) -> bool:
        """Whether the cooldown of a released address is over."""
        return self.cooldown <= 0 or self.cooling[address] < self.now - self.cooldown * SECOND

    def free(self, cidr: Cidr) -> list[int]:
        """The free addresses of a block, those first that are in its queue."""
        rested = [a for a in numbers(cidr) if a in self.cooling and self.has_rested(a)]
        return [*self.blocks[cidr].queue, *rested]

    def is_empty(self, cidr: Cidr) -> bool:
        """Whether nobody has an address of a block, and none is cooling."""
        return len(self.free(cidr)) == cidr.size

    def owned(self, host: str) -> list[Cidr]:
        """The blocks of a host."""
        return [cidr for cidr, block in self.blocks.items() if block.owner == host]

    def block_at(self, address: int) -> Cidr:
        """The block of an address that somebody has or had."""
        return next(cidr for cidr in self.blocks if address in numbers(cidr))

    def pool_at(self, address: int) -> PlainPool | None:
        """The pool that an address lies in."""
        found = [p for p in self.pools.values() if address in numbers(p.cidr)]
        return found[0] if found else None

    def is_selected(self, cidr: Cidr, host: str) -> bool:
        """Whether an enabled pool at the block's place is for the host, if it is any pool's."""
        pool = self.pool_at(cidr.base)
        if pool is None or pool.disabled or host not in self.racks:
            return True
        return pool.selects(self.racks[host])

    def choose(self, version: int, asked: tuple[str, ...], host: str) -> list[PlainPool]:
        """The pools from which a host's pod may get addresses; none is an error."""
        usable = [
            pool
            for pool in self.pools.values()
            if pool.cidr.version == version and not pool.disabled
        ]
        if host not in self.racks or any(n not in [p.name for p in usable] for n in asked):
            return []
        if asked:
            chosen = [pool for pool in usable if pool.name in asked]
        else:
            chosen = [p for p in usable if not p.manual and p.selects(self.racks[host])]
        return [pool for pool in chosen if pool.use == "Workload"]

    def room(
        self, host: str, pools: list[PlainPool], count: int, kept: set[int], asked_limit: int = 0
    ) -> Room:
        """What a host can get of `count` addresses: its own blocks first, then new ones up to the
        limit, empty ones of others, and what others have free."""
        if not pools:
            return Room(0, 0, (NoQualifiedPool,))
        barred = self.reserved | kept
        places = {cidr for pool in pools for cidr in pool.blocks()}
        mine = [cidr for cidr in places if cidr in self.blocks and self.blocks[cidr].owner == host]
        own = sum(self._count(cidr, barred) for cidr in mine)
        left = self.limit(asked_limit) - len(mine)
        if own >= count:
            return Room(count, count)
        if left <= 0 or not self.auto:
            return Room(own, own, (BlockLimit if left <= 0 else PoolExhausted,))
        fresh = sorted(self._count(c, barred) for c in self.unclaimed(places, barred))
        idle = sorted(self._count(c, barred) for c in self.reclaimable(places, host, barred))
        least = own + sum([*fresh, *idle][:left])
        most = own + sum([*fresh[::-1], *idle[::-1]][:left])
        error: type[Exception] = BlockLimit
        if len(fresh) + len(idle) < left:
            error = StrictAffinity if self.strict else PoolExhausted
        if error is PoolExhausted:
            others = [cidr for cidr in places if cidr in self.blocks and cidr not in mine]
            least = most = own + sum(fresh) + sum(self._count(cidr, barred) for cidr in others)
        return Room(min(least, count), min(most, count), (error,))

    def unclaimed(self, places: Iterable[Cidr], barred: set[int]) -> list[Cidr]:
        """The places where no block is yet and where one would be of use."""
        return [c for c in places if c not in self.blocks and self._count(c, barred)]

    def reclaimable(self, places: Iterable[Cidr], host: str, barred: set[int]) -> list[Cidr]:
        """Empty blocks that others claimed long ago, or that nobody owns any more."""
        return [
            cidr
            for cidr in places
            if cidr in self.blocks
            and self.blocks[cidr].owner != host
            and self.is_empty(cidr)
            and (self.blocks[cidr].owner is None or self._is_old(cidr))
            and self._count(cidr, barred)
        ]

    def _is_old(self, cidr: Cidr) -> bool:
        return self.now - self.blocks[cidr].claimed >= RECLAIM_AGE

    def _count(self, cidr: Cidr, barred: set[int]) -> int:
        free = self.free(cidr) if cidr in self.blocks else numbers(cidr)
        return sum(address not in barred for address in free)

    def refusals(self, address: int, holder: Holder, kept: set[int]) -> tuple[type[Exception], ...]:
        """The error of a request for just this address, if there must be one."""
        pool = self.pool_at(address)
        if pool is None or pool.disabled or pool.use != "Workload":
            return (NotInPool,)
        if address in kept:
            return (AddressReserved,)
        if self.held.get(address) == holder:
            return ()
        if address in self.held or (address in self.cooling and not self.has_rested(address)):
            return (AddressInUse,)
        block = self.blocks.get(pool.block_of(address))
        if block and self.strict and block.owner != holder.host:
            return (StrictAffinity,)
        return ()

    # Changes

    def claim(self, cidr: Cidr, host: str) -> None:
        """A host takes a block that nobody has, or that was another's and empty."""
        for address in numbers(cidr):
            self.cooling.pop(address, None)
        self.blocks[cidr] = PlainBlock(host, self.now, list(numbers(cidr)))

    def give(self, cidr: Cidr, addresses: Iterable[int], holder: Holder) -> None:
        """Addresses of a block become the holder's."""
        for address in addresses:
            if address in self.cooling:
                del self.cooling[address]
            else:
                self.blocks[cidr].queue.remove(address)
            self.held[address] = holder

    def release(self, addresses: Iterable[int]) -> None:
        """Addresses rest, for as long as the cooldown says."""
        for address in addresses:
            del self.held[address]
            self.cooling[address] = self.now // SECOND * SECOND
        self.after_release(self.block_at(address) for address in addresses)

    def leave_unselected(self, host: str, version: int, chosen: list[PlainPool]) -> None:
        """Before a host takes new addresses, its empty blocks that are not for it any more go."""
        for cidr in self.owned(host):
            is_chosen = any(cidr.base in numbers(pool.cidr) for pool in chosen)
            if cidr.version == version and not is_chosen and not self.is_selected(cidr, host):
                self.lose_if_empty(cidr)

    def after_release(self, cidrs: Iterable[Cidr]) -> None:
        """Blocks that gave something back go if they are empty and nobody's, or not for their
        host any more."""
        for cidr in set(cidrs):
            owner = self.blocks[cidr].owner
            if owner is None or not self.is_selected(cidr, owner):
                self.lose_if_empty(cidr)

    def lose_if_empty(self, cidr: Cidr) -> None:
        """An empty block is gone."""
        if self.is_empty(cidr):
            self.lose(cidr)

    def lose(self, cidr: Cidr) -> None:
        """A block is gone."""
        assert self.is_empty(cidr), f"{cidr} is gone, but was not empty"
        del self.blocks[cidr]
        for address in numbers(cidr):
            self.cooling.pop(address, None)

    def disown(self, cidr: Cidr) -> None:
        """A block's host gives it up: it is gone if it is empty, else it has no owner."""
        if self.is_empty(cidr):
            self.lose(cidr)
        else:
            self.blocks[cidr].owner = None
