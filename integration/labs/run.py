"""`make lab LAB=NN-name`: tell a lab's story, and leave the lab up to play in with LAB_KEEP=1. With
LAB_MACHINES=containers its machines are those of a Docker engine."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.machine import Machine
from integration.demo import tidying_undisturbed
from integration.labs.container import Container, find_docker_obstacle
from integration.labs.lab import Lab, find_lab_obstacle
from integration.network import BUNDLE, ROOT
from integration.page import BAD, GOOD, Broken, Page
from integration.pulse import start_pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LABS = Path(__file__).parent
MACHINES = {"namespaces": Machine, "containers": Container}
KEPT = ROOT / "build" / "labs"
INTERRUPTED = 130
ENTER = """#!/bin/bash
# enter MACHINE [-c COMMAND]
machine=${{1:?one of {names}}}
shift
case $machine in
{cases}*) echo "there is no $machine, but {names}" >&2 && exit 1 ;;
esac
"""
HOW_TO = """
The lab stays as it is, until you press Ctrl-C here. In another terminal:

    {enter} MACHINE     # a shell there: {names}
    {end}               # end it

Pods that you make with kubectl come up; ip netns, on their node, lists them."""


def list_labs() -> list[str]:
    """The names of the labs."""
    return sorted(path.parent.name for path in LABS.glob("*/story.py"))


def find_story(name: str) -> Callable[[Lab], None]:
    """What a lab tells."""
    story = importlib.import_module(f"integration.labs.{name}.story")
    tell: Callable[[Lab], None] = story.tell
    return tell


def find_missing(name: str) -> str | None:
    """Why a lab cannot be run; None if it can."""
    if name not in list_labs():
        return f"there is no lab {name!r}, but {', '.join(list_labs())}"
    if not (BUNDLE / "ipamctl").exists():
        return "dist/cni-ipam is missing; `make lab` makes it"
    wish = choose_machines()
    if wish not in MACHINES:
        return f"LAB_MACHINES is {wish!r}, but there are {' and '.join(MACHINES)}"
    return find_lab_obstacle() or (find_docker_obstacle() if wish == "containers" else None)


def choose_machines() -> str:
    """Of what the machines are."""
    return os.environ.get("LAB_MACHINES") or "namespaces"


@contextlib.contextmanager
def way_in(lab: Lab) -> Iterator[Path]:
    """A folder below build/labs with the scripts `enter` and `end`."""
    folder = next(found for found in _list_folders(lab.folder.name) if not _is_alive(found))
    folder.mkdir(parents=True, exist_ok=True)
    names = " ".join(lab.machines)
    cases = "".join(f'{name}) exec {lab.entrance(name)} "$@" ;;\n' for name in lab.machines)
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "enter").write_text(ENTER.format(names=names, cases=cases))
    (folder / "end").write_text(f"#!/bin/sh\nkill -INT {os.getpid()}\n")
    try:
        for name in ("enter", "end"):
            (folder / name).chmod(0o755)
        yield folder
    finally:
        for name in ("pid", "enter", "end"):
            (folder / name).unlink()
        folder.rmdir()


def _list_folders(name: str) -> Iterator[Path]:
    yield KEPT / name
    for number in range(2, 100):
        yield KEPT / f"{name}-{number}"


def _is_alive(folder: Path) -> bool:
    file = folder / "pid"
    return file.exists() and Path(f"/proc/{file.read_text()}").exists()


def keep(lab: Lab) -> None:
    """Leave the lab up until Ctrl-C."""
    # A shell that starts this in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with way_in(lab) as folder, contextlib.suppress(KeyboardInterrupt):
        enter, end = (os.path.relpath(folder / name) for name in ("enter", "end"))
        lab.page.write(HOW_TO.format(enter=enter, end=end, names=", ".join(lab.machines)))
        while True:
            signal.pause()


def tell(lab: Lab, started: float) -> int:
    """Tell a lab's story; the exit status."""
    try:
        find_story(lab.folder.name)(lab)
    except Broken as failure:
        lab.page.write(f"\nFAILED: this should hold, and does not: {failure}", BAD)
        return 1
    seconds = time.monotonic() - started
    lab.page.write(f"\nSuccess: {lab.page.checks} checks, {seconds:.1f} s.", GOOD)
    return 0


def main(arguments: list[str]) -> int:
    """Run a lab; the exit status."""
    started, page = time.monotonic(), Page()
    name = arguments[0] if arguments else ""
    if missing := find_missing(name):
        page.write(f"The lab cannot run here: {missing}.", BAD)
        return 1
    try:
        with tidying_undisturbed(), Lab(LABS / name, page, MACHINES[choose_machines()]) as lab:
            status = tell(lab, started)
            if os.environ.get("LAB_KEEP"):
                keep(lab)
    except KeyboardInterrupt:
        page.write("\nInterrupted. All that was made is removed.", BAD)
        return INTERRUPTED
    page.write("All that was made is removed.")
    return status


if __name__ == "__main__":
    start_pulse()
    sys.exit(main(sys.argv[1:]))
