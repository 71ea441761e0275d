"""What is in the cluster: namespaces, pods, what was said about them."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

from integration.cluster.access import Access
from integration.cluster.authority import ADMIN
from integration.cluster.image import POD_COMMAND, POD_IMAGE
from integration.network import becomes_true

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from typing import Any

    Json = dict[str, Any]
    Done = subprocess.CompletedProcess[str]

NODE = "node1"
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
PATIENCE_SECONDS = 120.0
# A pod runs a moment before it answers. (With -T this wget dies of SIGSEGV.)
FETCH = "for _ in $(seq 20); do timeout 3 wget -q -O- http://$1/ && break; sleep 0.5; done"


class Pods(Access):
    """The objects of a cluster with one node."""

    def create(self, manifest: str | Json, *, user: str = ADMIN) -> None:
        """Create what a manifest (YAML text, or an object) describes."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        self.kubectl("create", "-f", "-", user=user, stdin=text)

    def create_namespace(self, name: str, annotations: Mapping[str, str] | None = None) -> None:
        """Create a namespace, in which pods can be created afterwards."""
        metadata = {"name": name, "annotations": dict(annotations or {})}
        status, answer = self.request(
            "POST", "/api/v1/namespaces", {"kind": "Namespace", "metadata": metadata}
        )
        assert status == http.client.CREATED, answer
        self.wait_for_account(name)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object, and wait until it is gone; a pod's network is gone before it is."""
        self.kubectl("delete", kind, name, "-n", namespace, f"--timeout={PATIENCE_SECONDS}s")

    def start_pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        annotations: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> None:
        """Create a pod on the node, which answers HTTP with its name; `spec` goes over its own."""
        container = {
            "name": "main",
            "image": POD_IMAGE,
            "imagePullPolicy": "Never",
            "command": list(POD_COMMAND),
        }
        body = {
            "kind": "Pod",
            "metadata": {"name": name, "annotations": dict(annotations or {})},
            "spec": {
                "nodeName": NODE,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "containers": [container],
                **spec,
            },
        }
        status, answer = self.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
        assert status == http.client.CREATED, answer

    def run_pod(self, name: str, *, namespace: str = "default", **options: Any) -> str:
        """`start_pod`, and wait until it runs; its first address."""
        self.start_pod(name, namespace=namespace, **options)
        self.wait_running(name, namespace)
        return self.pod_ip(name, namespace)

    def wait_running(
        self, name: str, namespace: str = "default", seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until a pod runs; raises AssertionError with its events if it does not in time."""
        runs = becomes_true(lambda: self.is_ready(name, namespace), seconds)
        events = "" if runs else "\n".join(self.events(name, namespace))
        assert runs, f"pod {name} does not run:\n{events}"

    def is_ready(self, name: str, namespace: str = "default") -> bool:
        """Whether a pod's containers run, and it has an address."""
        conditions = self.pod(name, namespace)["status"].get("conditions", [])
        return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)

    def pod(self, name: str, namespace: str = "default") -> Json:
        """A pod as the API server has it."""
        return self.get(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def pod_ips(self, name: str, namespace: str = "default") -> list[str]:
        """The addresses of a pod, as its status says."""
        return [ip["ip"] for ip in self.pod(name, namespace)["status"].get("podIPs", [])]

    def pod_ip(self, name: str, namespace: str = "default") -> str:
        """The first of them."""
        return self.pod_ips(name, namespace)[0]

    def exec(self, name: str, *argv: str, namespace: str = "default", check: bool = True) -> Done:
        """Run one of busybox's commands in a pod."""
        return self.kubectl("exec", name, "-n", namespace, "--", *argv, check=check)

    def pings(self, name: str, address: str, namespace: str = "default") -> bool:
        """Whether `address` answers a pod; a new interface is given the time to become usable."""
        ping = ("ping", "-q", "-c", "1", "-W", "1", address)
        return becomes_true(
            lambda: self.exec(name, *ping, namespace=namespace, check=False).returncode == 0
        )

    def fetch(self, name: str, address: str, namespace: str = "default") -> str:
        """What a pod is told by HTTP at `address`: another pod's name; `` if nobody answers."""
        host = f"[{address}]" if ":" in address else address
        done = self.exec(name, "sh", "-c", FETCH, "sh", host, namespace=namespace, check=False)
        return done.stdout.strip()

    def events(self, name: str, namespace: str = "default") -> list[str]:
        """What the events about a pod say, `Reason: message` each."""
        path = f"/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={name}"
        return [f"{event['reason']}: {event['message']}" for event in self.get(path)["items"]]

    def delete_pods(self, namespace: str = "") -> None:
        """Delete every pod (of a namespace), and wait until all are gone."""
        for found in self.list_pods(namespace):
            metadata = found["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
            self.request("DELETE", path)
        gone = becomes_true(lambda: not self.list_pods(namespace), PATIENCE_SECONDS)
        assert gone, f"pods stay: {[found['metadata'] for found in self.list_pods(namespace)]}"

    def list_pods(self, namespace: str = "") -> list[Json]:
        """Every pod, of one namespace or of all."""
        within = f"/namespaces/{namespace}" if namespace else ""
        found: list[Json] = self.get(f"/api/v1{within}/pods")["items"]
        return found

    def delete_namespaces(self) -> None:
        """Delete every namespace that a test made, with all in it; they are gone afterwards."""
        path = "/api/v1/namespaces"

        def list_names() -> list[str]:
            names = (found["metadata"]["name"] for found in self.get(path)["items"])
            return [name for name in names if name not in SYSTEM_NAMESPACES]

        for name in list_names():
            self.request("DELETE", f"{path}/{name}")
        gone = becomes_true(lambda: not list_names(), PATIENCE_SECONDS)
        assert gone, f"namespaces stay: {list_names()}"

    def wait_for_account(self, namespace: str) -> None:
        """Wait until a namespace has the service account without which it gets no pods."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        found = becomes_true(
            lambda: self.request("GET", path)[0] == http.client.OK, PATIENCE_SECONDS
        )
        assert found, f"namespace {namespace} gets no service account"
