"""`make bench`: ADD and DEL of the bundle against its peers, in one run; `--rounds N` for more.

Three races: on the embedded datastore against `host-local`; on etcd, with and without TLS, and on
an API server of Kubernetes also against Go's `calico-ipam` where PEER_CALICO_IPAM names it. The
servers are started here.

Every contestant has its own network, containers and data, all on one file system, with some
addresses held throughout. In each round each of them does one ADD, in random order, and then one
DEL; later sixteen at a time. What is measured is the wall time from spawn to wait4. Each answer is
checked, and the first wrong one ends the run. A default netconf makes routes, so all this happens
in a network namespace that goes with the run. The engine alone follows, in large pools and with
many hosts (`bench/scale.py`). Tables go to stdout, the numbers to build/bench.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench.contestant import (
    PEER,
    REFERENCE,
    BenchFailed,
    make_embedded,
    make_floor,
    make_on_etcd,
    make_on_kubernetes,
    make_reference,
)
from bench.kubernetes import start_api_server
from bench.scale import measure_scale, print_scale
from cni_ipam.lean.record import record
from integration.etcd.certificates import make_certificates
from integration.etcd.servers import Cluster
from integration.netns import Lab, enter
from integration.network import BUNDLE, ROOT, find_missing, find_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from bench.contestant import Contestant
    from bench.kubernetes import ApiServer

    Json = dict[str, Any]

OUTPUT = ROOT / "build" / "bench.json"
ROUNDS = 100
WARM_UP = 5
STANDING = 20
AT_ONCE = 16
TIME_LIMIT_SECONDS = 45.0
VERBS = ("ADD", "DEL")
FLOOR = "floor"
ETCD_VERSION = "3.4"
COLUMNS = ("case", "subject", "n", "min_ms", "median_ms", "p99_ms", "per_s", "ratio")


@record
class Row:
    """A contestant in one case: its times, and the seconds in which all its calls were done."""

    case: str
    subject: str
    times_ms: list[float]
    seconds: float

    @property
    def median_ms(self) -> float:
        """Half of the calls took longer."""
        return statistics.median(self.times_ms)

    def summary(self, reference: Row) -> Json:
        """The row of the table; `ratio` is that of the medians."""
        ordered = sorted(self.times_ms)
        numbers = {
            "min_ms": ordered[0],
            "median_ms": self.median_ms,
            "p99_ms": ordered[math.ceil(0.99 * len(ordered)) - 1],
            "per_s": len(ordered) / self.seconds,
            "ratio": self.median_ms / reference.median_ms,
        }
        rounded = {name: round(number, 2) for name, number in numbers.items()}
        return {"case": self.case, "subject": self.subject, "n": len(ordered), **rounded}


class Race:
    """The rounds on one `datastore`, and the times that were taken in them. Ratios are those to
    the `reference`."""

    def __init__(
        self,
        datastore: str,
        contestants: Sequence[Contestant],
        reference: str,
        floor: Sequence[Contestant] = (),
    ) -> None:
        self._datastore = datastore
        self._contestants = contestants
        self._reference = reference
        self._floor = floor
        self._deadline = time.monotonic() + TIME_LIMIT_SECONDS
        self._chance = random.Random(20261121)
        self._rows: dict[tuple[str, str], Row] = {}

    def warm_up(self) -> None:
        """Caches are filled and some addresses held; nothing is counted."""
        for contestant in self._contestants:
            for number in range(STANDING):
                self._call(contestant, "ADD", f"{contestant.subject}-stay{number}")
        for number in range(WARM_UP):
            self._run_round(f"warm{number}")
        self._rows.clear()

    def run(self, rounds: int) -> None:
        """One by one and then AT_ONCE at a time, as long as there is time."""
        for number in range(rounds):
            if time.monotonic() < self._deadline:
                self._run_round(str(number))
        for number in range(math.ceil(rounds / AT_ONCE)):
            for verb in VERBS:
                for contestant in self._shuffled(self._contestants):
                    self._run_crowd(contestant, verb, number)

    def summaries(self) -> list[Json]:
        """The rows case by case; the floor's ratio is that to the reference's ADD."""
        references = {
            case: row for (case, who), row in self._rows.items() if who == self._reference
        }
        references[FLOOR] = references[f"{self._datastore}-add"]
        return [self._rows[key].summary(references[key[0]]) for key in sorted(self._rows)]

    def _shuffled(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        return self._chance.sample(contestants, len(contestants))

    def _run_round(self, label: str) -> None:
        for verb in VERBS:
            for contestant in self._shuffled(self._contestants):
                took = self._call(contestant, verb, f"{contestant.subject}-{label}")
                self._note(f"{self._datastore}-{verb.lower()}", contestant, [took], took)
        for program in self._shuffled(self._floor):
            took = self._call(program, "VERSION", FLOOR)
            self._note(FLOOR, program, [took], took)

    def _call(self, contestant: Contestant, verb: str, container: str) -> float:
        enter(contestant.netns)
        started = time.perf_counter()
        pid = contestant.spawn(verb, container)
        _, status, _ = os.wait4(pid, 0)
        took = time.perf_counter() - started
        contestant.check(verb, container, os.waitstatus_to_exitcode(status))
        return took

    def _run_crowd(self, contestant: Contestant, verb: str, label: int) -> None:
        enter(contestant.netns)
        underway: dict[int, tuple[str, float]] = {}
        ended: list[tuple[str, int, float]] = []
        beginning = time.perf_counter()
        for number in range(AT_ONCE):
            container, started = f"{contestant.subject}-{label}-{number}", time.perf_counter()
            underway[contestant.spawn(verb, container)] = (container, started)
        while underway:
            pid, status, _ = os.wait4(-1, 0)
            container, started = underway.pop(pid)
            ended.append((container, status, time.perf_counter() - started))
        seconds = time.perf_counter() - beginning
        for container, status, _ in ended:
            contestant.check(verb, container, os.waitstatus_to_exitcode(status))
        times = [took for _, _, took in ended]
        self._note(f"{self._datastore}-{verb.lower()}-{AT_ONCE}", contestant, times, seconds)

    def _note(
        self, case: str, contestant: Contestant, times: Sequence[float], seconds: float
    ) -> None:
        key = (case, contestant.subject)
        former = self._rows.get(key) or Row(*key, [], 0.0)
        times_ms = [*former.times_ms, *[took * 1000 for took in times]]
        self._rows[key] = Row(*key, times_ms, former.seconds + seconds)


def measure(rounds: int) -> list[Json]:
    """The races; nothing is left of them. Raises BenchFailed, OSError."""
    peer = os.environ.get("PEER_CALICO_IPAM")
    with _own_machine() as (folder, netns):
        embedded, floor = folder / "embedded", folder / "floor"
        contestants = [make_embedded(embedded, netns), make_reference(embedded, netns)]
        summaries = _run(Race("sqlite", contestants, REFERENCE, make_floor(floor, netns)), rounds)
        with Cluster(ETCD_VERSION, folder / "etcd") as plain:
            summaries += _measure_on_etcd(folder, netns, plain, peer, rounds)
            if obstacle := find_missing("kubernetes"):
                print(f"bench: no race on Kubernetes: {obstacle}")
                return summaries
            plain.clear()
            with start_api_server(folder, plain) as server:
                summaries += _measure_on_kubernetes(folder, netns, server, peer, rounds)
    return summaries


def _measure_on_etcd(
    folder: Path, netns: str, plain: Cluster, peer: str | None, rounds: int
) -> list[Json]:
    secrets, on_etcd, ours = folder / "certificates", folder / "on-etcd", BUNDLE / "calico-ipam"
    secrets.mkdir(0o700)
    with Cluster(ETCD_VERSION, folder / "tls", tls=make_certificates(secrets)) as tls:
        contestants = [
            make_on_etcd(on_etcd, netns, plain, "cni-ipam", ours, 96),
            make_on_etcd(on_etcd, netns, tls, "cni-ipam-tls", ours, 95),
            make_reference(on_etcd, netns),
        ]
        if peer:
            contestants += [
                make_on_etcd(on_etcd, netns, plain, PEER, Path(peer), 97),
                make_on_etcd(on_etcd, netns, tls, f"{PEER}-tls", Path(peer), 94),
            ]
        return _run(Race("etcd", contestants, PEER if peer else REFERENCE), rounds)


def _measure_on_kubernetes(
    folder: Path, netns: str, server: ApiServer, peer: str | None, rounds: int
) -> list[Json]:
    place, ours = folder / "on-kubernetes", BUNDLE / "calico-ipam"
    contestants = [
        make_on_kubernetes(place, netns, server, "cni-ipam", ours, 96),
        make_reference(place, netns),
    ]
    if peer:
        contestants.append(make_on_kubernetes(place, netns, server, PEER, Path(peer), 97))
    return _run(Race("kubernetes", contestants, PEER if peer else REFERENCE), rounds)


def _run(race: Race, rounds: int) -> list[Json]:
    race.warm_up()
    race.run(rounds)
    return race.summaries()


@contextlib.contextmanager
def _own_machine() -> Iterator[tuple[Path, str]]:
    """A folder, and a network namespace in which this process is meanwhile."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        handle = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, handle)
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "build"))
        netns = lab.namespace("bench").path
        enter(netns)
        stack.callback(enter, f"/proc/self/fd/{handle}")
        yield Path(folder), netns


def print_table(summaries: Sequence[Json]) -> None:
    """One row each, a line between the cases."""
    table = Table(title="from spawn to wait4; ratio: of the medians, to that which has 1.0")
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if place < 2 else "right")
    cases = [summary["case"] for summary in summaries]
    for summary, following in zip(summaries, [*cases[1:], None], strict=True):
        cells = [f"{summary[column]}" for column in COLUMNS]
        table.add_row(*cells, end_section=summary["case"] != following)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def main() -> None:
    """Measure, print, write; exit 1 if a contestant failed."""
    parser = argparse.ArgumentParser(prog="make bench", description="ADD and DEL against peers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="calls of each kind, 100")
    rounds = max(1, parser.parse_args().rounds)
    if obstacle := find_obstacle():
        sys.exit(f"bench: {obstacle}")
    try:
        summaries = measure(rounds)
        print_table(summaries)
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            scale = measure_scale(Path(folder))
    except (BenchFailed, OSError) as error:
        sys.exit(f"bench: {error}")
    print_scale(scale)
    numbers = [summary for summary in [*summaries, *scale] if summary["case"] != FLOOR]
    OUTPUT.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
