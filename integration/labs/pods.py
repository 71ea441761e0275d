"""The pods of a lab: made in its Kubernetes, run by its kubelets."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from integration.labs.kubelet import REFUSED, find_path
from integration.network import becomes_true
from integration.page import Broken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from integration.labs.control import Control
    from integration.labs.kubelet import Kubelet

    Json = dict[str, Any]

PATIENCE_SECONDS = 120.0


class Pods:
    """What a lab's story does with pods."""

    control: Control
    _kubelet: Kubelet

    def run_pod(
        self,
        node: str,
        namespace: str,
        name: str,
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Make a pod on a node and wait until it runs; its first address. Raises Broken with the
        plugin's words if it gets none."""
        self.make_pod(node, namespace, name, annotations=annotations, labels=labels)
        return self.wait_for_pod(namespace, name)[0]

    def make_pod(
        self,
        node: str,
        namespace: str,
        name: str,
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Make a pod on a node."""
        metadata = {
            "name": name,
            "annotations": dict(annotations or {}),
            "labels": dict(labels or {}),
        }
        spec = {"nodeName": node, "containers": [{"name": "web", "image": "web"}]}
        body = {"kind": "Pod", "metadata": metadata, "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/pods"
        status, answer = self.control.request("POST", path, body)
        assert status == http.client.CREATED, answer

    def wait_for_pod(self, namespace: str, name: str) -> list[str]:
        """Wait until a pod runs; its addresses. Raises Broken with the plugin's words if it gets
        none."""
        found: list[str] = []

        def look() -> bool:
            found[:] = self.pod_addresses(namespace, name)
            return bool(found or self.refusals(namespace, name))

        becomes_true(look, PATIENCE_SECONDS)
        self._check_kubelet()
        if not found:
            raise Broken(f"pod {namespace}/{name} runs: {self.refusals(namespace, name)}")
        return found

    def pod_addresses(self, namespace: str, name: str) -> list[str]:
        """The addresses that a pod's status has; none if it does not run."""
        pod = self.control.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return [ip["ip"] for ip in pod["status"].get("podIPs", [])]

    def refusals(self, namespace: str, name: str) -> list[str]:
        """What the plugin said against a pod, as its events have it."""
        path = f"/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={name}"
        events = self.control.get(path)["items"]
        return [event["message"] for event in events if event["reason"] == REFUSED]

    def pods(self, namespace: str = "", selector: str = "") -> list[Json]:
        """The pods of a namespace, or all, that have these labels, `app=nginx`."""
        within = f"/namespaces/{namespace}" if namespace else ""
        query = f"?labelSelector={selector}" if selector else ""
        found: list[Json] = self.control.get(f"/api/v1{within}/pods{query}")["items"]
        return found

    def wait_for_pods(self, count: int, namespace: str = "", selector: str = "") -> list[Json]:
        """Wait until there are so many pods, and all run; the pods."""
        found: list[Json] = []

        def look() -> bool:
            found[:] = self.pods(namespace, selector)
            running = [pod for pod in found if pod["status"].get("podIP")]
            going = [pod for pod in found if "deletionTimestamp" in pod["metadata"]]
            return count == len(found) == len(running) and not going

        if not becomes_true(look, PATIENCE_SECONDS):
            self._check_kubelet()
            words = [
                self.refusals(pod["metadata"]["namespace"], pod["metadata"]["name"])
                for pod in found
            ]
            raise Broken(f"{count} pods run: {words}")
        return found

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete a pod and wait until it is gone, and its addresses with it."""
        path = find_path({"metadata": {"namespace": namespace, "name": name}})
        self.control.request("DELETE", path)
        gone = becomes_true(lambda: not self._is_there(path), PATIENCE_SECONDS)
        self._check_kubelet()
        assert gone, f"{path} stays"

    def in_pod(self, namespace: str, name: str, command: str) -> str:
        """The words that run a command in a pod, to be typed on its node."""
        return f"ip netns exec {namespace}.{name} {command}"

    def _is_there(self, path: str) -> bool:
        return self.control.request("GET", path)[0] != http.client.NOT_FOUND

    def _check_kubelet(self) -> None:
        if self._kubelet.error is not None:
            raise AssertionError("the lab's kubelet has ended") from self._kubelet.error
