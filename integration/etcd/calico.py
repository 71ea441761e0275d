"""Calico's own plugin and calicoctl (build/peers) beside ours, on the same etcd.

    with Proxy(etcd.endpoints[0]) as proxy:
        mixed = Mixed(etcd, proxy, tmp_path)
        address = mixed.theirs("node1").call("ADD", "c1").address
        assert address in mixed.calicoctl.say("ipam", "show", f"--ip={address}")
        assert mixed.ours("node1").call("DEL", "c1").status == 0

Calico's speak gRPC, which a `Proxy` does not understand, so they go to etcd itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from integration.etcd.node import EtcdNode, read_records
from integration.network import BUNDLE, ROOT, find_missing
from integration.program import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Self

    from integration.etcd.proxy import Proxy
    from integration.etcd.servers import Cluster
    from integration.network import Done, Records

    Json = dict[str, Any]

PEERS = ROOT / "build" / "peers"
CALICO_IPAM = PEERS / "calico-ipam"
# HTTP/2: what a client says first, the head of a frame, its type's place, the type of headers.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD, FRAME_TYPE, HEADERS = 9, 3, 1
API = "projectcalico.org/v3"
IPAM_KEYS = "/calico/ipam/v2/"


MISSING = find_missing("peers")
with_calico = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


def _on_etcd(endpoint: str) -> dict[str, str]:
    return {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": endpoint}


def hand_to_calico(node: EtcdNode, cluster: Cluster) -> None:
    """From now on Calico's own plugin does the work on `node`."""
    node.path = str(CALICO_IPAM)
    node.settings["etcd_endpoints"] = ",".join(cluster.endpoints)


def hand_to_us(node: EtcdNode, proxy: Proxy) -> None:
    """From now on ours does the work on `node`, under Calico's name."""
    node.path = str(BUNDLE / "calico-ipam")
    node.settings["etcd_endpoints"] = proxy.endpoint


def is_calicos(node: EtcdNode) -> bool:
    """Whether Calico's own plugin does the work on `node`."""
    return node.path == str(CALICO_IPAM)


def resource(kind: str, name: str, spec: Json, **metadata: Any) -> Json:
    """A resource as an operator writes it."""
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


class Operator:
    """calicoctl, or ipamctl in its place: the same words for both. `settings` are the variables
    that say where the datastore is, `entrance` the command that leads to it."""

    def __init__(
        self, program: Path, settings: dict[str, str], entrance: Sequence[str] = ()
    ) -> None:
        self.program = program
        self._settings = settings
        self._entrance = entrance

    def run(self, *words: str, stdin: str = "") -> Done:
        """Run a command, whatever becomes of it."""
        return subprocess.run(
            [*self._entrance, str(self.program), *words],
            input=stdin,
            env={"PATH": os.environ["PATH"], "COLUMNS": "120", **self._settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def say(self, *words: str, stdin: str = "") -> str:
        """What a command prints. Raises AssertionError with its words if it fails."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"{self.program.name} {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def give(self, verb: str, *resources: Json) -> str:
        """Create, apply or replace resources."""
        return self.say(verb, "-f", "-", stdin=json.dumps(resources))

    def get(self, kind: str, name: str) -> Json:
        """A resource."""
        found: Json = json.loads(self.say("get", kind, name, "-o", "json"))
        return found

    def table(self, *words: str) -> list[list[str]]:
        """The rows of a table that a command draws, without its heading."""
        lines = self.say(*words).splitlines()
        rows = [
            [cell.strip() for cell in line[1:-1].split("|")] for line in lines if line[:1] == "|"
        ]
        return rows[1:]


class Mixed:
    """What runs on an etcd: Calico's programs, and ours through `proxy`. Nodes of one name, theirs
    and ours, have one lock."""

    def __init__(self, cluster: Cluster, proxy: Proxy, folder: Path) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.folder = folder
        self.calicoctl = Operator(PEERS / "calicoctl", _on_etcd(cluster.endpoints[0]))
        self.ipamctl = Operator(BUNDLE / "ipamctl", _on_etcd(proxy.endpoint))

    def ours(self, node: str = "node1") -> EtcdNode:
        """Our plugin on a node, called as Calico's is."""
        return EtcdNode(self.folder, [self.proxy.endpoint], node, name="calico-ipam")

    def theirs(self, node: str = "node1", *, gate: Gate | None = None) -> EtcdNode:
        """Calico's plugin on a node."""
        made = self.ours(node)
        hand_to_calico(made, self.cluster)
        if gate:
            made.settings["etcd_endpoints"] = gate.endpoint
        return made

    def records(self) -> Records:
        """Every record, as ours reads it."""
        return read_records(self.cluster)

    def list_keys(self) -> list[str]:
        """The keys of all IPAM records but the config, which Calico makes when it reads it."""
        found = self.cluster.etcdctl("get", "--prefix", IPAM_KEYS, "--keys-only").stdout.split()
        return [key for key in found if key != f"{IPAM_KEYS}config"]


class Gate:
    """A relay to etcd that holds each gRPC call of a single process, until it may pass."""

    def __init__(self, cluster: Cluster) -> None:
        parts = urlsplit(cluster.endpoints[0])
        self._server = socket.create_connection((parts.hostname, parts.port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._client: socket.socket | None = None
        self._reached = threading.Event()
        self._passes = threading.Semaphore(0)
        self._is_open = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._relay, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        for end in (self._listener, self._client, self._server):
            if end:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    @property
    def endpoint(self) -> str:
        """The URL of the relay."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def wait(self) -> None:
        """Wait until a call is held. Raises AssertionError if none comes."""
        assert self._reached.wait(PATIENCE_SECONDS), "no call came to the gate"

    def step(self) -> None:
        """Let the call pass that is held, and wait for the next one."""
        self._reached.clear()
        self._passes.release()
        self.wait()

    def open(self) -> None:
        """Let everything pass from now on."""
        self._is_open = True
        self._passes.release()

    def _relay(self) -> None:
        with contextlib.suppress(OSError):
            self._client = self._listener.accept()[0]
            threading.Thread(target=self._bring_back, daemon=True).start()
            with self._client.makefile("rb") as calls:
                self._server.sendall(calls.read(len(PREFACE)))
                while head := calls.read(FRAME_HEAD):
                    self._hold(head[FRAME_TYPE])
                    self._server.sendall(head + calls.read(int.from_bytes(head[:FRAME_TYPE])))

    def _hold(self, kind: int) -> None:
        """A call begins with its headers."""
        if kind == HEADERS and not self._is_open:
            self._reached.set()
            self._passes.acquire()

    def _bring_back(self) -> None:
        assert self._client is not None
        with contextlib.suppress(OSError):
            while piece := self._server.recv(65536):
                self._client.sendall(piece)
