"""Network namespaces for tests: unique names, code and commands inside, everything removed at exit.

    with Lab() as lab:
        node, pod = lab.namespace("node"), lab.namespace("pod")
        lab.veth(node, "veth0", pod, "eth0")
        node.ip("address", "add", "10.0.0.1/24", "dev", "veth0")
        node.call(function, argument)     # in a thread that has entered the namespace

The machine's own namespace stays as it is: interfaces are made inside the others. Needs root and
iproute2.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeVar

    T = TypeVar("T")

CLONE_NEWNET = 0x40000000
CAP_NET_ADMIN = 12
CAPABILITY_VERSION_3 = 0x20080522
PR_CAPBSET_DROP = 24
PATIENCE_SECONDS = 180.0

_numbers = itertools.count(1)


class Namespace:
    """One network namespace: its `name` for `ip netns`, its `path` for CNI_NETNS."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"

    def run(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command inside; raises CalledProcessError unless `check=False`."""
        options = {"check": True, "text": True, "capture_output": True} | options
        return _run("ip", "netns", "exec", self.name, *argv, **options)

    def ip(self, *argv: str) -> str:
        """What `ip` prints inside."""
        return _run("ip", "-n", self.name, *argv).stdout

    def ip_json(self, *argv: str) -> list[dict[str, Any]]:
        """What `ip -j` prints inside, decoded; nothing printed is an empty list."""
        found: list[dict[str, Any]] = json.loads(self.ip("-j", *argv) or "[]")
        return found

    def routes(self, version: int, *selector: str) -> list[dict[str, Any]]:
        """The routes that `ip -j route show` lists; protocol boot is left out by `ip`."""
        return self.ip_json(f"-{version}", "route", "show", *selector)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` in a thread of its own inside; its value or its exception comes back.

        A process that it starts with a parent's death signal ends with that thread."""

        def work() -> T:
            enter(self.path)
            return function(*arguments)

        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(work).result()

    def remove(self) -> None:
        """Remove it, with its interfaces; that it is gone already is fine."""
        _run("ip", "netns", "delete", self.name, check=False)


class Lab:
    """Some namespaces that live as long as the `with` block; their names begin with `prefix`."""

    def __init__(self, prefix: str = "cni-test") -> None:
        self._prefix = prefix
        self._namespaces: list[Namespace] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._namespaces:
            self._namespaces.pop().remove()

    def namespace(self, label: str) -> Namespace:
        """A new namespace, `lo` up, whose name ends with `label`."""
        made = Namespace(f"{self._prefix}-{os.getpid()}-{next(_numbers)}-{label}")
        self._namespaces.append(made)
        _run("ip", "netns", "add", made.name)
        made.ip("link", "set", "lo", "up")
        return made

    def veth(self, host: Namespace, device: str, pod: Namespace, ifname: str) -> None:
        """A veth pair, both ends up: `device` in `host`, `ifname` in `pod`."""
        peer = ("peer", "name", ifname, "netns", pod.name)
        host.ip("link", "add", device, "type", "veth", *peer)
        host.ip("link", "set", device, "up")
        pod.ip("link", "set", ifname, "up")

    def bridge(self, host: Namespace, device: str, *ports: str) -> None:
        """A bridge in `host`, up, with these interfaces as its ports."""
        host.ip("link", "add", device, "type", "bridge")
        host.ip("link", "set", device, "up")
        for port in ports:
            host.ip("link", "set", port, "master", device)


def enter(path: str) -> None:
    """Move this thread into the network namespace at `path` (os.setns comes with Python 3.12)."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _libc("setns", handle, CLONE_NEWNET)
    finally:
        os.close(handle)


def drop_net_admin() -> None:
    """Give up CAP_NET_ADMIN for good; only this thread does, such as that of `Namespace.call`."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _libc("capget", header, sets)
    for number in range(3):  # effective, permitted, inheritable
        sets[number] &= ~(1 << CAP_NET_ADMIN)
    _libc("prctl", PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0)
    _libc("capset", header, sets)


def _libc(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _run(*argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"text": True, "capture_output": True, "timeout": PATIENCE_SECONDS} | options
    done = subprocess.run(argv, check=False, **options)
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        error.add_note(f"{done.stdout or ''}{done.stderr or ''}")
        raise error
    return done
