"""`kill -9` of the real process: at random moments with others at work, and at every system call
that changes something, in turn.

Whatever the moment: the store is sound, an address that was acknowledged stays recorded until its
DEL, no attachment has two, and after the runtime's DEL and GC nothing is allocated.
"""

from __future__ import annotations

import random
import re
import shutil
import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.netns import Lab
from integration.network import find_obstacle
from integration.program import Program, inside, kill_after, run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Namespace
    from integration.network import Records
    from integration.program import Answer

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

SEED = 20261121
AT_ONCE = 4
ROUNDS = 25
FIRST_ROUNDS = 15
KILLED = -9
# Every call by which the plugin changes a file, the kernel's routes or what its caller reads.
CHANGING = (
    "chmod,exit_group,fchown,fdatasync,flock,fsync,ftruncate,mkdir,pwrite64,sendto,unlink,write"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def host(lab: Lab) -> Namespace:
    return lab.namespace("host")


@pytest.fixture
def program(host: Namespace, tmp_path: Path) -> Program:
    """A plugin that has never run before, on a node without routes of ours."""
    host.ip("route", "flush", "proto", "85")
    return Program(tmp_path, inside(host))


@pytest.fixture
def pace(host: Namespace, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The seconds that a call takes here while others run: kills spread over a bit more."""
    program = Program(tmp_path_factory.mktemp("pace"), inside(host))
    times = []
    for turn in range(5):
        started = time.monotonic()
        run_at_once([program.start("ADD", f"c{turn}-{n}") for n in range(AT_ONCE)])
        times.append(time.monotonic() - started)
    host.ip("route", "flush", "proto", "85")
    return statistics.median(times)


def assert_nothing_is_left(program: Program, containers: list[str]) -> None:
    """After the runtime's DEL for every container, and GC, all of which succeed."""
    statuses = [program.call("DEL", container).status for container in containers]
    assert [0] * len(containers) == statuses
    assert 0 == program.collect([]).status
    records = program.survey()
    assert {} == records.allocations
    assert [] == records.handles
    assert [] == records.findings


def assert_sound(records: Records, held: dict[str, str]) -> None:
    """What is acknowledged is recorded, and nobody has more than one address."""
    assert [] == records.findings
    assert held.items() <= {f"{h}": a for a, h in records.allocations.items()}.items()
    assert [] == [h for h, n in Counter(records.allocations.values()).items() if n > 1]


def test_kills_at_random_lose_nothing(program, pace):
    """ADDs and DELs, four at a time, a hundred in all; acknowledged ones are kept in a book."""
    chance = random.Random(SEED)
    containers = [f"c{number}" for number in range(12)]
    held: dict[str, str] = {}
    survivors = 0
    for _ in range(ROUNDS):
        chosen = chance.sample(containers, AT_ONCE)
        verbs = ["DEL" if f"net.{c}" in held or chance.random() < 0.2 else "ADD" for c in chosen]
        for verb, container in zip(verbs, chosen, strict=True):
            if verb == "DEL":
                held.pop(f"net.{container}", None)
        calls = [program.start(verb, c) for verb, c in zip(verbs, chosen, strict=True)]
        answers = kill_after(calls, [chance.uniform(0, 1.3 * pace) for _ in calls])
        survived = sum(answer.status == 0 for answer in answers)
        survivors += survived
        # The machine may have more or less to do than when the pace was taken.
        pace *= {0: 1.5, AT_ONCE: 0.7}.get(survived, 1.0)
        for verb, container, answer in zip(verbs, chosen, answers, strict=True):
            assert answer.status in {0, KILLED}
            if verb == "ADD" and answer.status == 0:
                held[f"net.{container}"] = answer.address
        assert_sound(program.survey(), held)
    assert 0 < survivors < ROUNDS * AT_ONCE
    again = {handle: program.call("ADD", handle.removeprefix("net.")).address for handle in held}
    assert held == again
    assert_nothing_is_left(program, containers)


def test_collection_finds_what_killed_calls_left(program, pace):
    """The runtime never asks DEL for a container whose ADD failed: GC alone takes it back."""
    chance = random.Random(SEED + 1)
    held: dict[str, str] = {}
    for turn in range(ROUNDS // 2):
        containers = [f"c{turn}-{number}" for number in range(AT_ONCE)]
        calls = [program.start("ADD", container) for container in containers]
        answers = kill_after(calls, [chance.uniform(0, 1.3 * pace) for _ in calls])
        for container, answer in zip(containers, answers, strict=True):
            if answer.status == 0:
                held[f"net.{container}"] = answer.address
    living = [handle.removeprefix("net.") for handle in held]
    assert 0 == program.collect(living).status
    records = program.survey()
    assert held == {f"{h}": a for a, h in records.allocations.items()}
    assert [] == records.findings


def test_kills_while_the_store_is_made(program, pace):
    """Each turn begins without a file; afterwards the same calls succeed on whatever was left."""
    chance = random.Random(SEED + 2)
    containers = [f"c{number}" for number in range(AT_ONCE)]
    for _ in range(FIRST_ROUNDS):
        shutil.rmtree(program.database.parent, ignore_errors=True)
        calls = [program.start("ADD", container) for container in containers]
        answers = kill_after(calls, [chance.uniform(0, 1.3 * pace) for _ in calls])
        held = {
            f"net.{c}": a.address for c, a in zip(containers, answers, strict=True) if a.status == 0
        }
        assert_sound(program.survey(), held)
        again = {c: program.call("ADD", c).address for c in containers}
        assert len(set(again.values())) == AT_ONCE
        assert held.items() <= {f"net.{c}": address for c, address in again.items()}.items()
    assert_nothing_is_left(program, containers)


class Tracing:
    """One call under strace: what it does, and what is left when it dies before its Nth."""

    def __init__(self, program: Program, host: Namespace, verb: str) -> None:
        self.program = program
        self.host = host
        self.verb = verb
        self.store = program.database.parent
        self.before = program.folder / "before"

    def keep(self) -> None:
        """Remember the store as it is now."""
        self.before.mkdir()
        if self.store.exists():
            shutil.copytree(self.store, self.before / "store")

    def rewind(self) -> None:
        """The store as it was, and no routes of ours."""
        shutil.rmtree(self.store, ignore_errors=True)
        if (self.before / "store").exists():
            shutil.copytree(self.before / "store", self.store)
        self.host.ip("route", "flush", "proto", "85")

    def call(self, *options: str) -> Answer:
        netconf = self.program.netconf(**{"cni.dev/valid-attachments": []})
        wrapper = ("strace", "-f", "-qq", "-o", str(self.program.folder / "trace"), *options)
        return self.program.call(self.verb, "c1", netconf, wrapper=wrapper)

    def list_moments(self) -> list[tuple[str, int]]:
        """Each changing call of an undisturbed run: its name, and its number among those."""
        answer = self.call("-e", f"trace={CHANGING}")
        assert answer.status == 0, answer.stdout
        trace = (self.program.folder / "trace").read_text()
        counts = Counter(re.findall(r"^\d+ +(\w+)\(", trace, re.MULTILINE))
        return [(name, n) for name, count in sorted(counts.items()) for n in range(1, count + 1)]

    def kill_at(self, name: str, number: int) -> Answer:
        """The answer of a run that is killed when it enters that call."""
        return self.call("-e", f"inject={name}:signal=KILL:when={number}")


@pytest.mark.parametrize("others", [0, 2], ids=["a new store", "a store in use"])
def test_add_killed_at_every_change(program, host, others):
    """Asked again it succeeds, with the route of its block; others keep what they have."""
    held = {f"net.other{n}": program.call("ADD", f"other{n}").address for n in range(others)}
    tracing = Tracing(program, host, "ADD")
    tracing.keep()
    moments = tracing.list_moments()
    for name, number in moments:
        tracing.rewind()
        answer = tracing.kill_at(name, number)
        assert answer.status == KILLED, f"{name} {number}"
        records = program.survey()
        assert_sound(records, held)
        address = program.call("ADD", "c1").address
        recorded = [a for a, handle in records.allocations.items() if handle == "net.c1"]
        assert recorded in ([], [address]), f"{name} {number}"
        records = program.survey()
        assert_sound(records, {**held, "net.c1": address})
        assert sorted(str(block.cidr) for block in records.blocks) == sorted(host_blackholes(host))
        assert program.call("DEL", "c1").status == 0
        assert held == {f"{h}": a for a, h in program.survey().allocations.items()}
    assert {"fdatasync", "pwrite64", "sendto", "write"} <= {name for name, _ in moments}


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_removal_killed_at_every_change(program, host, verb):
    """The address is there or gone; asked again, it is gone."""
    address = program.call("ADD", "c1").address
    tracing = Tracing(program, host, verb)
    tracing.keep()
    moments = tracing.list_moments()
    for name, number in moments:
        tracing.rewind()
        answer = tracing.kill_at(name, number)
        assert answer.status == KILLED, f"{name} {number}"
        records = program.survey()
        assert [] == records.findings
        assert records.allocations in ({}, {address: "net.c1"})
        assert_nothing_is_left(program, ["c1"])
    assert {"fdatasync", "pwrite64"} <= {name for name, _ in moments}


def host_blackholes(host: Namespace) -> list[str]:
    """The blocks whose blackhole route is there."""
    return [route["dst"] for route in host.routes(4, "type", "blackhole", "proto", "85")]
