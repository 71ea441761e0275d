"""In which order a host looks for a block in a pool.

Any order is interoperable, since claims are settled by compare-and-swap. Starting at a place that
depends on the host's name, as Calico does (FNV-1 of the name), keeps hosts out of each other's way.
"""

from __future__ import annotations

from cni_ipam.core.address import Cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_ipam.core.pool import Pool


def fnv1(text: str) -> int:
    """The 32-bit FNV-1 hash (multiply first, which FNV-1a does last)."""
    value = 2166136261
    for byte in text.encode():
        value = value * 16777619 & 0xFFFFFFFF ^ byte
    return value


def walk_blocks(pool: Pool, host: str) -> Iterator[Cidr]:
    """Every block of `pool` once, from the host's own starting point, wrapping at the end."""
    count = 1 << (pool.block_size - pool.cidr.prefix)
    block_size = pool.cidr.size // count
    start = fnv1(host) % count
    for number in range(count):
        base = pool.cidr.base + (start + number) % count * block_size
        yield Cidr(pool.cidr.version, base, pool.block_size)
