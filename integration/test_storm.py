"""Sixty-four processes at once on one SQLite file, its first moment included."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from integration.netns import Lab
from integration.network import find_obstacle
from integration.program import NETWORK, Program, inside, run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.program import Answer, Json

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

MANY = 64
CONTAINERS = [f"c{number}" for number in range(MANY)]
STORM_SECONDS = 4.0
STORM_CALLS = 100


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def program(lab: Lab, tmp_path: Path) -> Program:
    """A plugin that has never run before, on a node where it may make routes."""
    return Program(tmp_path, inside(lab.namespace("host")))


@pytest.fixture(params=["in the host's queue", "by swaps alone"])
def queued(request: pytest.FixtureRequest) -> bool:
    """With the host's lock, and without it, as between the nodes of a shared store."""
    return bool(request.param == "in the host's queue")


def netconf_of(program: Program, container: str, *, queued: bool, network: str = NETWORK) -> Json:
    """Without the queue each process has a lock file of its own."""
    own = {"ipam_lock_file": str(program.folder / f"{network}.{container}.lock")}
    return program.netconf(network, ipam={} if queued else own)


def call_all(
    program: Program, verb: str, *, queued: bool, networks: tuple[str, ...] = (NETWORK,)
) -> dict[str, Answer]:
    """The answers by handle of MANY calls at once, dealt out to the networks."""
    named = [(networks[n % len(networks)], container) for n, container in enumerate(CONTAINERS)]
    answers = run_at_once(
        [
            program.start(verb, container, netconf_of(program, container, queued=queued, network=n))
            for n, container in named
        ]
    )
    return {f"{n}.{c}": answer for (n, c), answer in zip(named, answers, strict=True)}


def addresses_of(answers: dict[str, Answer]) -> dict[str, str]:
    """What each answer says: the address and the handle that should hold it."""
    return {answer.address: handle for handle, answer in answers.items()}


def test_the_first_adds_at_once_get_distinct_addresses(program, queued):
    """The store is made by one of them, and every answer is recorded under its own handle."""
    answers = call_all(program, "ADD", queued=queued)
    found = addresses_of(answers)
    records = program.survey()
    assert len(found) == MANY
    assert found == records.allocations
    assert sorted(answers) == sorted(handle.id for handle in records.handles)
    assert [] == records.findings


def test_dels_at_once_leave_nothing(program, queued):
    """Neither an address nor a handle is left, and the store is sound."""
    call_all(program, "ADD", queued=queued)
    answers = call_all(program, "DEL", queued=queued)
    records = program.survey()
    assert [0] * MANY == [answer.status for answer in answers.values()]
    assert {} == records.allocations
    assert [] == records.handles
    assert [] == records.findings


def test_repeated_adds_at_once_answer_with_the_same_addresses(program, queued):
    """Two networks share the store; what a container has, it gets again, and no second one."""
    networks = ("red", "blue")
    first = addresses_of(call_all(program, "ADD", queued=queued, networks=networks))
    again = addresses_of(call_all(program, "ADD", queued=queued, networks=networks))
    records = program.survey()
    assert first == again
    assert first == records.allocations
    assert [] == records.findings


def test_adds_of_one_container_at_once_get_one_address(program, queued):
    """An impatient runtime asks again before it was answered."""
    calls = [
        program.start("ADD", "c1", netconf_of(program, f"c{n}", queued=queued)) for n in range(16)
    ]
    answers = run_at_once(calls)
    records = program.survey()
    assert {answers[0].address: "net.c1"} == records.allocations
    assert {answers[0].address} == {answer.address for answer in answers}
    assert [] == records.findings


def test_adds_and_dels_mixed_never_share_an_address(program, queued):
    """Sixteen at a time, for some seconds, and a hundred calls at least: what is held at the end is
    what is recorded."""
    crowd = Crowd(program, queued=queued)
    crowd.run(16, STORM_SECONDS)
    records = program.survey()
    assert [] == crowd.complaints
    assert crowd.calls >= STORM_CALLS
    assert crowd.held == records.allocations
    assert [] == records.findings


class Crowd:
    """Threads that each add and delete containers of their own."""

    def __init__(self, program: Program, *, queued: bool) -> None:
        self.program = program
        self.queued = queued
        self.held: dict[str, str] = {}
        self.complaints: list[str] = []
        self.calls = 0
        self._lock = threading.Lock()

    def run(self, threads: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        crowd = [threading.Thread(target=self._work, args=(n, deadline)) for n in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()

    def _work(self, number: int, deadline: float) -> None:
        chance = random.Random(number)
        addresses: dict[str, str] = {}
        while time.monotonic() < deadline or self.calls < STORM_CALLS:
            container = f"t{number}-{chance.randrange(4)}"
            try:
                if container in addresses and chance.random() < 0.7:
                    self._delete(container, addresses.pop(container))
                else:
                    self._add(container, addresses)
            except AssertionError as error:
                self.complaints.append(str(error))
                return

    def _add(self, container: str, addresses: dict[str, str]) -> None:
        address = self._call("ADD", container).address
        with self._lock:
            other = self.held.setdefault(address, f"net.{container}")
        assert other == f"net.{container}", f"{address} for {container}, but {other} has it"
        known = addresses.setdefault(container, address)
        assert known == address, f"{address} for {container}, which has {known}"

    def _delete(self, container: str, address: str) -> None:
        with self._lock:
            del self.held[address]
        answer = self._call("DEL", container)
        assert answer.status == 0, answer.stdout

    def _call(self, verb: str, container: str) -> Answer:
        with self._lock:
            self.calls += 1
        netconf = netconf_of(self.program, container, queued=self.queued)
        return self.program.call(verb, container, netconf)
