"""Locks that somebody else holds: the host's, and SQLite's own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from integration.network import find_obstacle
from integration.program import Program, inside, run_at_once

if TYPE_CHECKING:
    from pathlib import Path

    from integration.netns import Lab
    from integration.program import Answer

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")


@pytest.fixture
def program(lab: Lab, tmp_path: Path) -> Program:
    """A plugin on a store that holds one address."""
    program = Program(tmp_path, inside(lab.namespace("host")))
    assert program.call("ADD", "holder").status == 0
    return program


def assert_refused(answer: Answer, code: int, phrase: str) -> None:
    assert (1, code) == (answer.status, answer.document["code"]), answer.stdout
    assert phrase in answer.document["msg"]


def test_host_lock_held_for_too_long(program):
    """The call can be repeated: code 11, and who holds the lock."""
    netconf = program.netconf(ipam={"ipam_lock_timeout": 0.3})
    before = program.dump()
    with open(f"{program.database}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = program.call("ADD", "c1", netconf)
    assert_refused(answer, 11, f"process {os.getpid()} holds it")
    assert before == program.dump()


def test_host_lock_given_back_in_time(program):
    """Who waits gets its turn."""
    with open(f"{program.database}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = program.start("ADD", "c1")
        waiting.give()
        time.sleep(0.2)
    assert waiting.answer().status == 0


def test_file_locked_for_longer_than_the_timeout(program):
    """Another program holds a transaction. The one test that waits: the timeout is ten seconds."""
    before = program.dump()
    with contextlib.closing(sqlite3.connect(program.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        own_lock = program.netconf(ipam={"ipam_lock_file": str(program.folder / "lock")})
        calls = [program.start("ADD", "c1"), program.start("DEL", "holder", own_lock)]
        answers = run_at_once(calls)
        waited = time.monotonic() - started
        other.execute("ROLLBACK")
    for answer in answers:
        assert_refused(answer, 11, "locked by another process for longer than 10 s")
    assert 9 < waited < 15
    assert before == program.dump()


def test_status_does_not_wait_for_a_locked_file(program):
    """It answers within two seconds, and readers do not wait for writers anyhow."""
    with contextlib.closing(sqlite3.connect(program.database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("UPDATE kv SET revision=revision")
        started = time.monotonic()
        answer = program.call("STATUS", "", program.netconf(ipam={"status_when_unreachable": True}))
        waited = time.monotonic() - started
        other.execute("ROLLBACK")
    assert waited < 2
    assert answer.status == 0 or answer.document["code"] == 50, answer.stdout
