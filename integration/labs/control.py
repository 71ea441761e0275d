"""A lab's Kubernetes: a machine with a real API server, its etcd, and the controllers of workloads.

It has no scheduler and no kubelet; the lab plays both (kubelet.py). Everybody may do everything:
roles are tested elsewhere, and the server starts faster so.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING

from integration.cluster import parts
from integration.cluster.access import Access
from integration.cluster.authority import ADMIN, Authority
from integration.cluster.machine import Machine
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    Json = dict[str, Any]

NAME = "control"
PORT = 6443
CONTROLLERS = "deployment-controller,replicaset-controller,namespace-controller"
PATIENCE_SECONDS = 180.0


class Control(Access):
    """See above; `address` is its own in the management network, where `server` answers."""

    def __init__(self, folder: Path, address: str, programs: Sequence[Path]) -> None:
        self.address = address
        self.server = f"https://{address}:{PORT}"
        (folder / "keys").mkdir(parents=True)
        machine = Machine(NAME, folder / NAME, programs)
        authority = Authority(folder / "authority", (address, "127.0.0.1"), NAME, ())
        super().__init__(machine, authority, folder / "keys")
        self._connection: http.client.HTTPSConnection | None = None

    def start(self) -> None:
        """Start it all; the management network is there. `wait` says when it serves."""
        machine = self.machine
        machine.start("etcd", parts.etcd_command())
        server = [
            *parts.apiserver_command(self.authority),
            f"--advertise-address={self.address}",
            f"--secure-port={PORT}",
            "--authorization-mode=AlwaysAllow",
            "--disable-admission-plugins=ServiceAccount",
        ]
        self._apiserver = machine.start("apiserver", server)
        admin = self.kubeconfig()
        controllers = [
            *parts.controller_manager_command(self.authority, admin),
            f"--controllers={CONTROLLERS}",
        ]
        self._controllers = controllers

    def wait(self) -> None:
        """Wait until the API server serves, and start the controllers then."""
        assert becomes_true(self._serves, PATIENCE_SECONDS), self._apiserver.read_tail()
        self.machine.start("controllers", self._controllers)

    def _serves(self) -> bool:
        assert self._apiserver.is_running, self._apiserver.read_tail()
        try:
            return self.request("GET", "/api/v1/namespaces/default")[0] == http.client.OK
        except OSError:
            return False

    def add_node(self, name: str, address: str, labels: Json) -> None:
        """Make a node that is ready, as its kubelet would."""
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
        status, answer = self.request(
            "POST", "/api/v1/nodes", {"kind": "Node", "metadata": metadata}
        )
        assert status == http.client.CREATED, answer
        addresses = [
            {"type": "Hostname", "address": name},
            {"type": "InternalIP", "address": address},
        ]
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        self.patch(
            f"/api/v1/nodes/{name}/status",
            {"status": {"addresses": addresses, "conditions": [ready]}},
        )

    def patch(self, path: str, body: Json) -> int:
        """Change some fields of an object; the answer's status."""
        status, _ = self.request("PATCH", path, body, content_type="application/merge-patch+json")
        return status

    def list_pods(self) -> list[Json]:
        """Every pod there is; over one connection, for it is asked often. Raises OSError."""
        if self._connection is None:
            context = ssl.create_default_context(cafile=str(self.ca))
            self._connection = http.client.HTTPSConnection(
                self.address, PORT, timeout=PATIENCE_SECONDS, context=context
            )
            with self.machine.network():
                self._connection.connect()
        headers = {"Authorization": f"Bearer {self.token(ADMIN)}"}
        try:
            self._connection.request("GET", "/api/v1/pods?resourceVersion=0", headers=headers)
            found: list[Json] = json.loads(self._connection.getresponse().read())["items"]
        except (OSError, http.client.HTTPException, KeyError):
            # It was closed, or the server has no time: once more, over a connection of its own.
            self.close()
            return list(self.get("/api/v1/pods")["items"])
        return found

    def close(self) -> None:
        """End the connection that `list_pods` keeps."""
        if self._connection is not None:
            self._connection.close()
