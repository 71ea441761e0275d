"""The plugin driven as a process, the way a runtime drives it: its variables, the netconf on stdin.

    program = Program(folder)
    answer = program.call("ADD", "c1")
    assert answer.addresses == ["10.77.0.2"]

Each program has a datastore of its own below `folder`. `wrapper` is put before the command, for
instance to enter a network namespace (`inside`), where the routes of a default netconf may be made.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

from cni_ipam.lean.record import record
from integration.network import BUNDLE, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from integration.netns import Namespace
    from integration.network import Records

    Json = dict[str, Any]

NETWORK = "net"
NODE = "node1"
POOL = {"name": "pool", "spec": {"cidr": "10.77.0.0/24", "blockSize": 26}}
PATIENCE_SECONDS = 180


@record
class Answer:
    """What a call left behind; `status` is negative if a signal ended it."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def document(self) -> Json:
        """The one JSON object on stdout."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document

    @property
    def addresses(self) -> list[str]:
        """The addresses of a result, without their masks."""
        assert self.status == 0, self.stdout + self.stderr.encode()
        return [ip["address"].partition("/")[0] for ip in self.document["ips"]]

    @property
    def address(self) -> str:
        """The only address of a result."""
        (address,) = self.addresses
        return address


class Call:
    """A call under way: the process runs, and waits for stdin until `give`."""

    def __init__(self, command: Sequence[str], variables: dict[str, str], stdin: bytes) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe
        )
        self._stdin = stdin

    def give(self) -> None:
        """Hand over stdin, as far as the process still wants it."""
        pipe, self._process.stdin = self._process.stdin, None
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.write(self._stdin)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()

    def kill(self) -> None:
        """End the process with SIGKILL, if it has not ended by itself."""
        self._process.kill()

    def answer(self) -> Answer:
        """Wait for the end; stdin is handed over if it was not."""
        stdin = self._stdin if self._process.stdin else None
        stdout, stderr = self._process.communicate(stdin, timeout=PATIENCE_SECONDS)
        return Answer(self._process.returncode, stdout, stderr.decode())


class Program:
    """The plugin `name` of the bundle with a datastore of its own."""

    def __init__(self, folder: Path, wrapper: Sequence[str] = (), name: str = "cni-ipam") -> None:
        self.folder = folder
        self.database = folder / "store" / "ipam.db"
        self.wrapper = tuple(wrapper)
        self.path = str(BUNDLE / name)

    def netconf(self, network: str = NETWORK, *, ipam: Json | None = None, **keys: Any) -> Json:
        """A network configuration with one pool; `ipam` and `keys` go over its own values."""
        inner: Json = {
            "type": "cni-ipam",
            "sqlite_path": str(self.database),
            "nodename": NODE,
            "default_pools": [POOL],
            **(ipam or {}),
        }
        return {"cniVersion": "1.1.0", "name": network, "type": "ptp", "ipam": inner, **keys}

    def variables(self, verb: str, container: str) -> dict[str, str]:
        """The environment of a call."""
        return {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(BUNDLE),
        }

    def start(
        self,
        verb: str,
        container: str = "c1",
        stdin: Json | bytes | None = None,
        *,
        wrapper: Sequence[str] = (),
        **variables: str | None,
    ) -> Call:
        """Start a call; `stdin` is by default `netconf()`; a variable that is None is not set."""
        given = self.netconf() if stdin is None else stdin
        data = given if isinstance(given, bytes) else json.dumps(given).encode()
        environment: dict[str, str | None] = {**self.variables(verb, container), **variables}
        present = {name: value for name, value in environment.items() if value is not None}
        return Call([*self.wrapper, *wrapper, self.path], present, data)

    def call(
        self,
        verb: str,
        container: str = "c1",
        stdin: Json | bytes | None = None,
        *,
        wrapper: Sequence[str] = (),
        **variables: str | None,
    ) -> Answer:
        """Start a call and wait for its end."""
        return self.start(verb, container, stdin, wrapper=wrapper, **variables).answer()

    def collect(self, living: Iterable[str], network: str = NETWORK) -> Answer:
        """GC: the runtime says which containers are alive."""
        attachments = [{"containerID": container, "ifname": "eth0"} for container in living]
        netconf = self.netconf(network, **{"cni.dev/valid-attachments": attachments})
        return self.call("GC", "", netconf)

    def survey(self) -> Records:
        """The records as the product reads them, with the findings of `core.check`."""
        return read_file(self.database)

    def dump(self) -> list[tuple[str, str, int]] | None:
        """Every row of the file as SQLite itself reads it; None if there is no file."""
        if not self.database.exists():
            return None
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute("SELECT key, value, revision FROM kv ORDER BY key").fetchall()


class SharedNode(Program):
    """The plugin `name` on the node `node` of a cluster, whose nodes are processes with another
    name and another lock. `settings` are the keys of its netconfs that say where the datastore is.

    It makes no routes, and answers as Calico does."""

    def __init__(
        self,
        folder: Path,
        node: str,
        settings: Json,
        *,
        wrapper: Sequence[str] = (),
        name: str = "cni-ipam",
    ) -> None:
        super().__init__(folder, wrapper, name)
        self.node = node
        self.lock_file = folder / f"{node}.lock"
        self.settings = settings

    def netconf(self, network: str = NETWORK, *, ipam: Json | None = None, **keys: Any) -> Json:
        """A network configuration; `ipam` and `keys` go over its own values."""
        conf: Json = {
            "cniVersion": "1.0.0" if self.path.endswith("/calico-ipam") else "1.1.0",
            "name": network,
            "type": "ptp",
            "nodename": self.node,
            "ipam_lock_file": str(self.lock_file),
            "ipam": {"type": self.path.rpartition("/")[2], **(ipam or {})},
        }
        if conf["ipam"]["type"] == "cni-ipam":
            conf["gateway"] = "none"
            conf["routes"] = {"host": False, "blackhole": False}
        return conf | self.settings | keys


def inside(namespace: Namespace) -> tuple[str, ...]:
    """A wrapper that enters `namespace`; the process keeps its number, so it can be killed."""
    return ("nsenter", f"--net={namespace.path}", "--")


def run_at_once(calls: Sequence[Call]) -> list[Answer]:
    """The answers of calls which get their stdin when all of them run."""
    for call in calls:
        call.give()
    return [call.answer() for call in calls]


def kill_after(calls: Sequence[Call], delays_seconds: Sequence[float]) -> list[Answer]:
    """The answers of calls that are killed so long after they got their stdin."""
    for call in calls:
        call.give()
    started = time.monotonic()
    for delay, call in sorted(zip(delays_seconds, calls, strict=True), key=lambda pair: pair[0]):
        time.sleep(max(0.0, started + delay - time.monotonic()))
        call.kill()
    return [call.answer() for call in calls]
