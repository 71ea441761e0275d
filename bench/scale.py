"""How the engine grows: large pools, many reservations, many hosts; a part of `make bench`.

No processes here, only the engine on a datastore. A pool of 16,384 blocks is claimed by others to
0, 50 and 99 %: what is a claim then; or all of it is, with as many blocks full: what is a
borrowing, and at 100 % the refusal. Then 5,000 hosts take 100 addresses each while
others are at it. Whatever is given is checked, and that a claim takes as many requests in a pool
that is nearly full as in an empty one.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench.contestant import BenchFailed
from cni_ipam.core.address import Cidr, parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.reservation import Reservations
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.errors import Conflict, PoolExhausted
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.wish import Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from cni_ipam.core.address import Address
    from cni_ipam.datastore.port import Datastore, Entry

    Json = dict[str, Any]

CLAIMS = (0, 50, 99)
BORROWS = (0, 50, 99, 100)
COLUMNS = ("case", "n", "median_ms", "p99_ms", "calls", "conflicts_per_claim", "addresses_per_s")
POOL = parse_cidr("10.0.0.0/16")
BLOCK_PREFIX = 30
BLOCKS = 1 << (BLOCK_PREFIX - POOL.prefix)
CALLS = 10
CALLS_REFUSED = 2
HOSTS = 5_000
PODS = 100
PODS_AT_ONCE = 20
HOSTS_AT_ONCE = 16
CONFLICTS_PER_CLAIM = 1.1
NOW = 1_800_000_000_000_000_000
SEED = bytes(16)


class Counting:
    """The port over `store`, with the number of requests; `before_commit` may run something."""

    def __init__(self, store: Datastore) -> None:
        self._store = store
        self.calls = self.conflicts = 0
        self.before_commit = _nothing

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        self.calls += 1
        return self._store.read(ranges)

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        pages = self._store.pages(prefix, size)
        while True:
            self.calls += 1
            page = next(pages, None)
            if page is None:
                return
            yield page

    def commit(self, writes: Iterable[Write]) -> None:
        self.calls += 1
        self.before_commit()
        try:
            self._store.commit(writes)
        except Conflict:
            self.conflicts += 1
            raise

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        return self._store.watch(prefix)

    def close(self) -> None:
        pass


def _nothing() -> None: ...


def measure_scale(folder: Path) -> list[Json]:
    """Every case; data of its own goes below `folder`. Raises BenchFailed."""
    rows: list[Json] = []
    for adapter in ("memory", "sqlite"):
        claims = [_measure_pool(folder, adapter, percent, is_claimed=False) for percent in CLAIMS]
        if len({row["calls"] for row in claims}) > 1:
            raise BenchFailed(f"a claim's requests grow with the pool: {claims}")
        rows += claims
        rows += [_measure_pool(folder, adapter, percent, is_claimed=True) for percent in BORROWS]
    return [*rows, _measure_wide_pool(), *_measure_reservations(), _measure_hosts()]


def _measure_pool(folder: Path, adapter: str, percent: int, *, is_claimed: bool) -> Json:
    """A pool of which so many blocks are full, the others claimed or not."""
    case = f"scale-{'borrow' if is_claimed else 'claim'}-{percent}%-{adapter}"
    store = _open(adapter, folder / f"{case}.db")
    _furnish(store, str(POOL), BLOCK_PREFIX)
    full = set(random.Random(percent).sample(range(BLOCKS), BLOCKS * percent // 100))
    numbers = range(BLOCKS) if is_claimed else sorted(full)
    store.commit([w for number in numbers for w in _block(number, is_full=number in full)])
    row = _measure_calls(case, store, 4, is_full=percent == 100)
    store.close()
    return row


def _open(adapter: str, path: Path) -> Datastore:
    return MemoryDatastore() if adapter == "memory" else SqliteDatastore(str(path))


def _furnish(store: Datastore, cidr: str, block_size: int, hosts: int = CALLS) -> None:
    spec = {"cidr": cidr, "blockSize": block_size}
    pool = codec.new_resource("IPPool", "pool", spec, NOW, SEED)
    nodes = [
        Write(keys.NODES + name, codec.new_resource("Node", name, {}, NOW, SEED), ABSENT)
        for name in map(_host, range(hosts))
    ]
    store.commit([Write(keys.POOLS + "pool", pool, ABSENT), *nodes])


def _host(number: int) -> str:
    return f"node{number}"


def _block(number: int, *, is_full: bool) -> list[Write]:
    size = POOL.size // BLOCKS
    cidr = Cidr(4, POOL.base + number * size, BLOCK_PREFIX)
    affinity = Affinity("host", f"other{number}", cidr)
    owner = Attribute("other.pod", {"node": affinity.host})
    block = new_block(cidr, affinity.owner, NOW)
    block, _ = block.assign(size if is_full else 1, owner, Reservations())
    key = keys.affinity_key(affinity.host, cidr)
    return [
        Write(keys.block_key(cidr), codec.encode_block(block), ABSENT),
        Write(key, codec.encode_affinity(affinity), ABSENT),
    ]


def _wish(host: str, number: int, version: int, count: int = 1) -> Wish:
    return Wish(
        host=host,
        handle=f"bench.{host}-{number}",
        owner={"node": host, "network": "bench", "ifname": "eth0"},
        now=NOW,
        seed=SEED,
        counts={version: count},
        pools={},
    )


def _measure_calls(case: str, store: Datastore, version: int, *, is_full: bool = False) -> Json:
    """One ADD of each of some hosts."""
    counting = Counting(store)
    times, calls, given = [], [], []
    for number in range(CALLS_REFUSED if is_full else CALLS):
        before, started = counting.calls, time.perf_counter()
        try:
            given += [
                a.address for a in assign(counting, _wish(_host(number), 0, version)).assigned
            ]
        except PoolExhausted:
            if not is_full:
                raise BenchFailed(f"{case}: the pool is not exhausted") from None
        times.append((time.perf_counter() - started) * 1000)
        calls.append(counting.calls - before)
    expected = 0 if is_full else CALLS
    _require_distinct(case, given, expected)
    return _row(case, times, sum(times) / 1000, calls=max(calls))


def _require_distinct(case: str, given: Sequence[Address], expected: int) -> None:
    if not len(given) == len(set(given)) == expected:
        raise BenchFailed(f"{case}: {len(set(given))} addresses of {expected}")


def _row(case: str, times: Sequence[float], seconds: float, **more: float) -> Json:
    ordered = sorted(times)
    numbers = {
        "min_ms": ordered[0],
        "median_ms": statistics.median(ordered),
        "p99_ms": ordered[math.ceil(0.99 * len(ordered)) - 1],
        "per_s": len(ordered) / seconds,
        **more,
    }
    rounded = {name: round(number, 3) for name, number in numbers.items()}
    return {"case": case, "subject": "cni-ipam", "n": len(ordered), **rounded, "ratio": None}


def _measure_wide_pool() -> Json:
    """An IPv6 pool with more blocks than anyone can count."""
    store = MemoryDatastore()
    _furnish(store, "fd00::/64", 122)
    return _measure_calls("scale-claim-v6/64-memory", store, 6)


def _measure_reservations() -> list[Json]:
    """A thousand reserved blocks, and half of a /8."""
    rows: list[Json] = []
    thousand = [f"10.0.{number // 4}.{number % 4 * 64}/28" for number in range(1000)]
    for case, pool, reserved in (
        ("scale-claim-1000-reservations-memory", "10.0.0.0/16", thousand),
        ("scale-claim-half-a-/8-reserved-memory", "10.0.0.0/8", ["10.0.0.0/9"]),
    ):
        store = MemoryDatastore()
        _furnish(store, pool, BLOCK_PREFIX)
        for number, text in enumerate(reserved):
            name, spec = f"r{number}", {"reservedCIDRs": [text]}
            value = codec.new_resource("IPReservation", name, spec, NOW, SEED)
            store.commit([Write(keys.RESERVATIONS + name, value, ABSENT)])
        rows.append(_measure_calls(case, store, 4))
        spans = Reservations().plus([parse_cidr(text) for text in reserved])
        for address in _allocated(store):
            if spans.contains(address):
                raise BenchFailed(f"{case}: {address} is reserved")
    return rows


def _allocated(store: Datastore) -> Iterator[Address]:
    for page in store.pages(keys.BLOCKS, 256):
        for entry in page:
            block = codec.decode_block(entry)
            for ordinal, _ in block.allocated():
                yield block.cidr.address(ordinal)


class Crowd:
    """Hosts that are at it at the same time: before one's first commit, the next one does all
    of its own request, so all of them have decided before the first of them is served."""

    def __init__(self, store: Datastore) -> None:
        self._counting = Counting(store)
        self._away = 0.0
        self.times: list[float] = []
        self.given: list[Address] = []

    @property
    def conflicts(self) -> int:
        """Swaps that were lost."""
        return self._counting.conflicts

    def serve(self, hosts: Sequence[int], number: int) -> None:
        """One request of each of `hosts`."""
        if not hosts:
            return
        self._counting.before_commit = lambda: self._interrupt(hosts[1:], number)
        started, away = time.perf_counter(), self._away
        outcome = assign(self._counting, _wish(_host(hosts[0]), number, 4, PODS_AT_ONCE))
        own = time.perf_counter() - started - (self._away - away)
        self.times.append(own * 1000)
        self.given += [assigned.address for assigned in outcome.assigned]

    def _interrupt(self, others: Sequence[int], number: int) -> None:
        started, away = time.perf_counter(), self._away
        self._counting.before_commit = _nothing
        self.serve(others, number)
        self._counting.before_commit = _nothing
        self._away = away + time.perf_counter() - started


def _measure_hosts() -> Json:
    """Many hosts fill their blocks, a crowd at a time; what they have is what they were told."""
    case = f"scale-{HOSTS}-hosts-{PODS}-pods-memory"
    store = MemoryDatastore()
    _furnish(store, "10.0.0.0/12", 26, HOSTS)
    crowd = Crowd(store)
    order = list(range(HOSTS))
    chance = random.Random(5)
    started = time.perf_counter()
    for number in range(PODS // PODS_AT_ONCE):
        chance.shuffle(order)
        for first in range(0, HOSTS, HOSTS_AT_ONCE):
            crowd.serve(order[first : first + HOSTS_AT_ONCE], number)
    seconds = time.perf_counter() - started
    _require_distinct(case, crowd.given, HOSTS * PODS)
    stored = list(_allocated(store))
    if set(stored) != set(crowd.given):
        raise BenchFailed(f"{case}: {len(stored)} addresses are recorded")
    (blocks,) = store.read([Range(keys.BLOCKS, prefix=True, keys_only=True)])
    conflicts = crowd.conflicts / len(blocks)
    if conflicts > CONFLICTS_PER_CLAIM:
        raise BenchFailed(f"{case}: {conflicts:.2f} conflicts for each claim")
    row = _row(case, crowd.times, seconds, conflicts_per_claim=conflicts)
    return row | {"addresses_per_s": round(len(stored) / seconds)}


def print_scale(rows: Sequence[Json]) -> None:
    """One row each."""
    table = Table(title="the engine alone; calls are requests to the datastore")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        table.add_row(*[f"{row.get(column, '')}" for column in COLUMNS])
    Console(width=None if sys.stdout.isatty() else 120).print(table)
