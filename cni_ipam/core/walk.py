"""In which order a host looks for a block in a pool.

Any order is interoperable, since claims are settled by compare-and-swap. Each host has its own
starting point (FNV-1 of its name, as Calico) and its own stride, so two hosts that meet at a block
part again at the next one instead of chasing each other through the pool. Blocks that are reserved
as a whole are left out by arithmetic: a reservation of half a /8 costs as much as one of a /30.
"""

from __future__ import annotations

from cni_ipam.core.address import Cidr
from cni_ipam.core.reservation import Reservations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_ipam.core.pool import Pool

NOTHING_RESERVED = Reservations()


def fnv1(text: str) -> int:
    """The 32-bit FNV-1 hash (multiply first, which FNV-1a does last)."""
    value = 2166136261
    for byte in text.encode():
        value = value * 16777619 & 0xFFFFFFFF ^ byte
    return value


def walk_blocks(pool: Pool, host: str, reserved: Reservations = NOTHING_RESERVED) -> Iterator[Cidr]:
    """Every block of `pool` that is not reserved as a whole, once, in the host's own order."""
    runs = _find_open_runs(pool, reserved)
    count = sum(length for _, length in runs)
    if not count:
        return
    size = pool.cidr.size >> (pool.block_size - pool.cidr.prefix)
    start, stride = fnv1(host) % count, _find_stride(fnv1(f"{host}/stride"), count)
    for number in range(count):
        place = (start + number * stride) % count
        base = pool.cidr.base + _locate(runs, place) * size
        yield Cidr(pool.cidr.version, base, pool.block_size)


def _find_open_runs(pool: Pool, reserved: Reservations) -> list[tuple[int, int]]:
    """Runs (first block, how many) of blocks with an address that is not reserved."""
    total = 1 << (pool.block_size - pool.cidr.prefix)
    size = pool.cidr.size // total
    runs = []
    after = 0
    for first, last in reserved.v4 if pool.cidr.version == 4 else reserved.v6:
        closed = max(0, -(-(first - pool.cidr.base) // size))
        opened = min(total, (last + 1 - pool.cidr.base) // size)
        if closed < opened:
            if after < closed:
                runs.append((after, closed - after))
            after = opened
    if after < total:
        runs.append((after, total - after))
    return runs


def _locate(runs: list[tuple[int, int]], place: int) -> int:
    for first, length in runs:
        if place < length:
            return first + place
        place -= length
    raise IndexError(place)


def _find_stride(wanted: int, count: int) -> int:
    """A stride near `wanted` that visits all of `count` places: one without a common divisor."""
    stride = wanted % count or 1
    while _greatest_common_divisor(stride, count) != 1:
        stride += 1
    return stride


def _greatest_common_divisor(first: int, second: int) -> int:
    while second:
        first, second = second, first % second
    return first
