"""`make demo`: it succeeds, says so, fails where it should, and leaves the machine as it was."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean.record import record
from integration.network import ROOT, find_obstacle

if TYPE_CHECKING:
    from pathlib import Path

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

COMMAND = [sys.executable, "-m", "integration.demo"]
LIMIT_SECONDS = 15
PLACES = (
    "/etc/cni",
    "/etc/cni/net.d",
    "/var/lib",
    "/var/lib/cni",
    "/var/lib/cni-ipam",
    "/var/run/calico",
)


@record
class Outcome:
    """What is seen of a run: `unchanged` says whether the machine is as it was before."""

    pid: int
    status: int
    output: str
    seconds: float
    unchanged: bool


def list_folder(path: str) -> list[str]:
    return sorted(os.listdir(path)) if os.path.isdir(path) else ["(none)"]


def look_at_machine() -> list[object]:
    """Its interfaces and routes, and what lies where CNI programs put their files."""
    shown = [
        subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
        for words in (["-o", "link"], ["route", "show", "table", "all"])
    ]
    return [*shown, [list_folder(place) for place in PLACES]]


def list_demos() -> list[str]:
    """The folders of demos."""
    return [name for name in list_folder(tempfile.gettempdir()) if name.startswith("cni-demo-")]


def list_namespaces(pid: int) -> list[str]:
    """The network namespaces of the demo that ran as `pid`."""
    return [name for name in list_folder("/run/netns") if name.startswith(f"cni-demo-{pid}-")]


@pytest.fixture(scope="module")
def demo() -> Outcome:
    """The demo as it is, run once."""
    before, started = (look_at_machine(), list_demos()), time.monotonic()
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output, _ = process.communicate(timeout=300)
    seconds = time.monotonic() - started
    unchanged = before == (look_at_machine(), list_demos())
    return Outcome(process.pid, process.returncode, output, seconds, unchanged)


def test_demo_succeeds(demo: Outcome) -> None:
    """Every step was as it should be, and it says so."""
    assert 0 == demo.status, demo.output
    assert "Success" in demo.output.splitlines()[-1]


def test_demo_shows_each_step(demo: Outcome) -> None:
    """Its headings are the story, and what is not a terminal gets no colours."""
    numbers = re.findall(r"^=== (\d+)\. ", demo.output, re.MULTILINE)

    assert [str(number) for number in range(1, 10)] == numbers
    assert "\033" not in demo.output


def test_demo_is_quick(demo: Outcome) -> None:
    """Nobody waits longer for a first look."""
    assert demo.seconds < LIMIT_SECONDS


def test_demo_leaves_the_machine_as_it_was(demo: Outcome) -> None:
    """No interface, route, namespace or file."""
    assert demo.unchanged
    assert [] == list_namespaces(demo.pid)


def test_demo_fails_where_something_is_not_as_it_should_be(tmp_path: Path) -> None:
    """Here: a network list that switches host routes off."""
    conflist = json.loads((ROOT / "conf" / "10-cni-ipam.conflist").read_text())
    conflist["plugins"][1]["routes"] = {"host": False}
    (tmp_path / "list.conflist").write_text(json.dumps(conflist))
    before = look_at_machine(), list_demos()

    done = subprocess.run(
        [*COMMAND, str(tmp_path / "list.conflist")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 1 == done.returncode
    assert "FAILED: this should hold, and does not: one host route" in done.stdout
    assert before == (look_at_machine(), list_demos())


def test_interrupted_demo_tidies_up() -> None:
    """Ctrl-C amid its steps, which goes to its children too."""
    before = look_at_machine(), list_demos()
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *COMMAND],  # which whoever runs the tests may ignore
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    # Too small for the demo's output, so it waits for us in one of its steps.
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    while not process.stdout.readline().startswith("=== 2."):
        assert process.poll() is None
    at_work = list_namespaces(process.pid)
    os.killpg(process.pid, signal.SIGINT)

    output, _ = process.communicate(timeout=300)

    assert 130 == process.returncode, output
    assert 4 == len(at_work)
    assert [] == list_namespaces(process.pid)
    assert before == (look_at_machine(), list_demos())
