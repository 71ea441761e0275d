"""autoassign.json: scenarios, step by step against the engine on a datastore of their own.

`CNI_IPAM_STORE` says which datastore: `memory` (the default), `in-order` for a store without
transactions, or `sqlite`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_ipam.core.check import UNSOUND, check_datastore
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.errors import CniIpamError

from .autoassign_expectations import compare
from .autoassign_steps import STEPS, Answer
from .autoassign_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_ipam.datastore.port import Datastore

Row = dict[str, Any]

KEYS = {"id", "name", "what", "source", "origin", "note", "why", "quirk"}
STATE = {"pools", "nodes", "config", "reservations", "steps"}
COMMON = {"op", "expect", "note", "what"}
SHARED_MEMORY = "/dev/shm"
SWITCH_SECONDS = 0.00001
SAVING = {"save", "saveAppend"}


def run_row(row: Row) -> list[str]:
    """Play the row's scenario, and look whether the datastore is sound at its end."""
    unknown = row.keys() - KEYS - STATE
    if unknown:
        return [f"keys that the runner does not know: {sorted(unknown)}"]
    with _open_store() as store:
        world = World(store)
        try:
            world.set_up(row)
        except CniIpamError as error:
            return [f"at the beginning: {error}"]
        complaints = _play(world, row["steps"], "step ")
        return complaints + _find_unsound(world)


@contextmanager
def _open_store() -> Iterator[Datastore]:
    kind = os.environ.get("CNI_IPAM_STORE", "memory")
    if kind == "sqlite":
        # In memory where there is such a place: a disk's flushes take longer than all else.
        place = SHARED_MEMORY if Path(SHARED_MEMORY).is_dir() else None
        with tempfile.TemporaryDirectory(dir=place) as folder:
            store = SqliteDatastore(str(Path(folder) / "ipam.db"), 60.0)
            yield store
            store.close()
    elif kind in ("memory", "in-order"):
        yield MemoryDatastore(atomic=kind == "memory")
    else:
        raise ValueError(f"CNI_IPAM_STORE is {kind}, not memory, in-order or sqlite")


def _play(world: World, steps: list[Row], path: str) -> list[str]:
    """The complaints of `steps`, each with the number of its step."""
    complaints = []
    for number, step in enumerate(steps, 1):
        complaints += _play_one(world, step, f"{path}{number}")
    return complaints


def _play_one(world: World, step: Row, path: str) -> list[str]:
    op = step["op"]
    if op == "repeat":
        _refuse_unknown(step, {"times", "steps"})
        rounds = range(1, step["times"] + 1)
        return [c for i in rounds for c in _play(world, step["steps"], f"{path}, round {i}, step ")]
    if op == "concurrent":
        _refuse_unknown(step, {"steps"})
        return _play_at_once(world, step["steps"], path)
    return [f"{path} ({op}): {complaint}" for complaint in _run_step(world, step)]


def _play_at_once(world: World, steps: list[Row], path: str) -> list[str]:
    """Every step in a thread of its own, all let go at the same moment."""
    outcomes: list[list[str]] = [[] for _ in steps]
    start = threading.Barrier(len(steps))

    def play(index: int) -> None:
        start.wait()
        try:
            outcomes[index] = _play_one(world, steps[index], f"{path}, part {index + 1}")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            outcomes[index] = [f"{path}, part {index + 1}: {type(error).__name__}: {error}"]

    threads = [threading.Thread(target=play, args=(index,)) for index in range(len(steps))]
    with _eager_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [complaint for complaints in outcomes for complaint in complaints]


@contextmanager
def _eager_switches() -> Iterator[None]:
    """Let threads take turns in the midst of a step; a whole one fits into Python's usual turn."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def _run_step(world: World, step: Row) -> list[str]:
    run, arguments = STEPS[step["op"]]
    _refuse_unknown(step, arguments | SAVING)
    resolved = world.resolve({key: value for key, value in step.items() if key not in COMMON})
    try:
        answer = run(world, resolved)
    except CniIpamError as error:
        answer = Answer(error=error)
    if "save" in step:
        world.saved[step["save"]] = answer.saved
    if "saveAppend" in step:
        world.append(step["saveAppend"], answer.saved)
    return compare(world, answer, world.resolve(step.get("expect") or {}))


def _refuse_unknown(step: Row, known: set[str]) -> None:
    unknown = step.keys() - known - COMMON
    if unknown:
        raise LookupError(f"keys of {step['op']} that the runner does not know: {sorted(unknown)}")


def _find_unsound(world: World) -> list[str]:
    state = world.read_state()
    findings = check_datastore(state.blocks, state.affinities, state.handles, world.now)
    broken = [f"at the end: {finding}" for finding in findings if finding.severity == UNSOUND]
    return broken + [f"at the end: {fault}" for fault in state.faults]
