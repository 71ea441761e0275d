"""A process that stays while a test runs: its log, its end.

server = Daemon("etcd", folder / "etcd.log")
server.spawn(["etcd", "--data-dir=…"])
server.kill()
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from integration.netns import Namespace

LOG_LINES = 40
END_SECONDS = 30.0
STILL = {"T", "Z", "X"}  # stopped, or it has ended


class Daemon:
    """One process, in a network namespace if there is one; it can be started again after its end.

    It ends with this process, however this one ends."""

    def __init__(self, name: str, log: Path, namespace: Namespace | None = None) -> None:
        self.name = name
        self.log = log
        self.namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def pid(self) -> int:
        """The process's id, also when it has ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, be it stopped or at work."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end: its status, or the negative of the signal that ended it. Raises
        TimeoutExpired if it does not come."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.wait(END_SECONDS)

    def spawn(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it with nothing in its environment but PATH and `environment`.

        The kernel ends it when the *thread* ends that started it.
        """
        assert threading.current_thread() is threading.main_thread(), "would end with the thread"
        inside = ("ip", "netns", "exec", self.namespace.name) if self.namespace else ()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*inside, "setpriv", "--pdeathsig", "KILL", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", os.defpath)} | dict(environment or {}),
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, SIGTERM for an orderly end, and wait until it stands still (SIGSTOP) or
        has ended; SIGCONT waits for nothing. That it has ended already is fine."""
        if self._process is None:
            return
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            wait_stopped(self.pid)
        elif number != signal.SIGCONT:
            self.wait()

    def read_tail(self) -> str:
        """The last lines of its log."""
        return read_tail(self.log)


def wait_stopped(pid: int) -> None:
    """Wait until a process that was sent SIGSTOP does nothing more: a thread that the signal has
    not reached yet goes on, and may answer."""
    assert becomes_true(lambda: _states(pid) <= STILL, END_SECONDS), f"{pid} does not stop"


def _states(pid: int) -> set[str]:
    """The states of a process's threads, in the letters of proc(5)."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it ends meanwhile
            found.add(task.read_text().rpartition(")")[2].split()[0])
    return found


def read_tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
