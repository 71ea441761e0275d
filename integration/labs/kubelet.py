"""The scheduler and the kubelets of a lab: a thread that runs the API server's pods on its nodes.

A pod is a network namespace `NAMESPACE.NAME` in its node's machine, which cnitool connects as a
runtime would, with the first network list of /etc/cni/net.d; it answers HTTP on port 80 with its
name. Its status says its addresses; what the plugin says against it is an event, and it is tried
again. Deleted pods are taken down.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import threading
import time
from typing import TYPE_CHECKING

from integration.network import becomes_true

if TYPE_CHECKING:
    import subprocess
    from typing import Any

    from integration.cluster.machine import Machine, Process
    from integration.labs.control import Control

    Json = dict[str, Any]
    Done = subprocess.CompletedProcess[str]

PERIOD_SECONDS = 0.15
RETRY_SECONDS = 2.0
END_SECONDS = 60.0
NETWORKS = "/etc/cni/net.d"
PLUGINS = "/opt/cni/bin"
PAGES = "/run/pods"
REFUSED = "FailedCreatePodSandBox"


class Sandbox:
    """One pod on its node: its network namespace and its web server."""

    def __init__(self, machine: Machine, pod: Json) -> None:
        self.machine = machine
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.uid: str = pod["metadata"]["uid"]
        self.netns = f"{self.namespace}.{self.name}"
        self._server: Process | None = None

    def start(self) -> tuple[list[str], str]:
        """Connect it and start its server: its addresses, or nothing and why not."""
        self.machine.run("ip", "netns", "add", self.netns)
        done = self.cnitool("add")
        if done.returncode:
            self.stop()
            return [], read_refusal(done)
        folder = f"{PAGES}/{self.netns}"
        page = self.machine.path(folder) / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(f"{self.name}\n")
        httpd = ["busybox", "httpd", "-f", "-p", "80", "-h", folder]
        inside = ["ip", "netns", "exec", self.netns]
        self._server = self.machine.start(f"pod-{self.uid}", [*inside, *httpd])
        assert becomes_true(self._serves), f"{self.netns}: {self._server.read_tail()}"
        ips = json.loads(done.stdout).get("ips", [])
        return [ip["address"].partition("/")[0] for ip in ips], ""

    def _serves(self) -> bool:
        """Whether its server takes connections."""
        shown = self.machine.run("ip", "netns", "exec", self.netns, "ss", "-Hltn", "sport = :80")
        return shown.stdout != ""

    def stop(self) -> str:
        """End its server, give its addresses back; what the plugin has to say against that."""
        if self._server is not None:
            self._server.kill()
        done = self.cnitool("del")
        self.machine.run("ip", "netns", "delete", self.netns, check=False)
        self.machine.run("rm", "-rf", f"{PAGES}/{self.netns}")
        return read_refusal(done) if done.returncode else ""

    def cnitool(self, verb: str) -> Done:
        """Run cnitool for it as its node's runtime does."""
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.uid.replace("-", ""),
            "K8S_POD_UID": self.uid,
        }
        return self.machine.run(
            "env",
            f"NETCONFPATH={NETWORKS}",
            f"CNI_PATH={PLUGINS}",
            f"CNI_ARGS={';'.join(f'{name}={value}' for name, value in arguments.items())}",
            "cnitool",
            verb,
            find_network(self.machine),
            f"/run/netns/{self.netns}",
            check=False,
        )


class Kubelet:
    """See above; `nodes` are the machines that are up. `error` is what ended the thread early."""

    def __init__(self, control: Control, nodes: dict[str, Machine]) -> None:
        self.error: Exception | None = None
        self.sandboxes: dict[str, Sandbox] = {}
        self._control = control
        self._nodes = nodes
        self._retries: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kubelet", daemon=True)

    def start(self) -> None:
        """Begin to look after pods."""
        self._thread.start()

    def stop(self) -> None:
        """End; the pods stay as they are."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _work(self) -> None:
        try:
            while not self._ended.wait(PERIOD_SECONDS):
                self._look()
        except Exception as error:  # noqa: BLE001  whatever it is, the lab's next command raises it
            self.error = error
        finally:
            self._control.close()

    def _look(self) -> None:
        pods = {pod["metadata"]["uid"]: pod for pod in self._control.list_pods()}
        for uid in [uid for uid in self.sandboxes if uid not in pods]:
            self._take_down(uid)
        for uid, pod in pods.items():
            node = pod["spec"].get("nodeName")
            if pod["metadata"].get("deletionTimestamp"):
                self._delete(uid, pod)
            elif uid in self.sandboxes or time.monotonic() < self._retries.get(uid, 0):
                continue
            elif node is None:
                busy = [found["spec"].get("nodeName") for found in pods.values()]
                self._bind(pod, busy)
            elif node in self._nodes:
                self._start(uid, pod)

    def _bind(self, pod: Json, busy: list[str | None]) -> None:
        """Give a pod the node with the fewest pods of those that it may have; `busy` has each
        pod's node."""
        wanted = pod["spec"].get("nodeSelector", {}).items()
        nodes = [
            node["metadata"]["name"]
            for node in self._control.get("/api/v1/nodes")["items"]
            if not node["spec"].get("unschedulable")
            and node["metadata"]["name"] in self._nodes
            and wanted <= node["metadata"].get("labels", {}).items()
        ]
        if not nodes:
            return
        chosen = min(nodes, key=lambda name: (busy.count(name), name))
        pod["spec"]["nodeName"] = chosen
        target = {"kind": "Node", "name": chosen}
        metadata = {"name": pod["metadata"]["name"]}
        body = {"kind": "Binding", "metadata": metadata, "target": target}
        self._control.request("POST", f"{find_path(pod)}/binding", body)

    def _start(self, uid: str, pod: Json) -> None:
        machine = self._nodes[pod["spec"]["nodeName"]]
        sandbox = Sandbox(machine, pod)
        addresses, refusal = sandbox.start()
        if refusal:
            self._retries[uid] = time.monotonic() + RETRY_SECONDS
            self._say(pod, f"plugin failed (add): {refusal}")
            return
        self.sandboxes[uid] = sandbox
        self._control.patch(f"{find_path(pod)}/status", {"status": make_status(pod, addresses)})

    def _delete(self, uid: str, pod: Json) -> None:
        """Take a pod down, and say so; if its node is down, nobody does."""
        node = pod["spec"].get("nodeName")
        if node in self._nodes or node is None:
            self._take_down(uid)
            self._control.request("DELETE", f"{find_path(pod)}?gracePeriodSeconds=0")

    def _take_down(self, uid: str) -> None:
        sandbox = self.sandboxes.pop(uid, None)
        if sandbox is not None and sandbox.machine.name in self._nodes:
            refusal = sandbox.stop()
            assert not refusal, f"{sandbox.netns}: {refusal}"

    def _say(self, pod: Json, message: str) -> None:
        metadata = pod["metadata"]
        reference = {key: metadata[key] for key in ("name", "namespace", "uid")}
        event = {
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": {"kind": "Pod", **reference},
            "reason": REFUSED,
            "message": message,
            "type": "Warning",
            "source": {"component": "kubelet", "host": pod["spec"]["nodeName"]},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        status, answer = self._control.request("POST", path, event)
        assert status == http.client.CREATED, answer


def read_refusal(done: Done) -> str:
    """What cnitool says, without its usage."""
    return done.stderr.partition("\nUsage:")[0].removeprefix("Error: ").strip()


def make_status(pod: Json, addresses: list[str]) -> Json:
    """What a kubelet says of a pod that runs."""
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now()}},
        }
        for container in pod["spec"]["containers"]
    ]
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "startTime": now(),
        "podIP": addresses[0],
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [{"type": kind, "status": "True"} for kind in kinds],
        "containerStatuses": containers,
    }


def find_network(machine: Machine) -> str:
    """The name of the network that a runtime would choose on a machine."""
    first = min(machine.path(NETWORKS).glob("*.conflist"))
    name: str = json.loads(first.read_text())["name"]
    return name


def find_path(pod: Json) -> str:
    """Where the API server has a pod."""
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def now() -> str:
    """The time as the API has it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
