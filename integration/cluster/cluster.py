"""A whole Kubernetes cluster of one node, node1, on a machine of its own (machine.py).

    with Cluster(folder) as cluster:
        cluster.install(conflist)                  # a network list, with our bundle beside it
        cluster.run_pod("a", annotations={"cni.projectcalico.org/ipv4pools": '["pool"]'})
        cluster.exec("a", "ping", "-c", "1", cluster.run_pod("b"))
        cluster.kubectl("get", "pods", user="reader")

Real etcd, API server, controllers, scheduler, containerd and kubelet; they and the pods are in the
machine, and so is its network: `cluster.machine.network()` brings a test there, where `server`
answers, `connect` another node. Further nodes are namespaces with a plugin that has another name.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.cluster import parts, runtime
from integration.cluster.authority import Authority
from integration.cluster.image import make_pod_image
from integration.cluster.machine import Machine, find_cgroup_obstacle
from integration.cluster.pods import NODE, PATIENCE_SECONDS, Pods
from integration.network import (
    BUNDLE,
    OURS,
    THEIRS,
    TOOLS,
    becomes_true,
    find_missing,
    find_obstacle,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Self

    from integration.netns import Lab, Namespace

    Json = dict[str, Any]
    Done = subprocess.CompletedProcess[str]

USERS = ("plugin", "agent", "collector", "nobody")
KUBELET = ("127.0.0.1", 10250)
LAN = "lan0"
OUR_PROTOCOL = "85"
# The plugins' files, theirs and ours; and what a runtime keeps of a network.
PLUGIN_DATA = ("/var/lib/cni", "/var/lib/cni-ipam")
REFERENCE_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "reference",
    "plugins": [
        {
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.99.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


def find_cluster_obstacle() -> str | None:
    """Why no cluster can be started on this machine; None if one can."""
    return find_obstacle() or find_cgroup_obstacle() or find_missing("kubernetes")


class Cluster(Pods):
    """Ready in the `with` block: the node is, and its network is `REFERENCE_NETWORK`.

    `users` may do what RBAC grants them, `admin` everything; `containerd` is 2.1 or Debian's 1.6.
    All lies in `folder`; logs stay there.
    """

    etcd = parts.ETCD

    def __init__(self, folder: Path, users: Sequence[str] = USERS, containerd: str = "2.1") -> None:
        programs = (parts.RUNTIMES[containerd], parts.RUNC)
        machine = Machine(NODE, folder / NODE, programs)
        addresses = ("127.0.0.1", "::1", parts.NODE_ADDRESS, parts.SERVICE_ADDRESS)
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        authority = Authority(folder / "authority", (*names, *addresses), NODE, users)
        super().__init__(machine, authority, folder)
        self._version = containerd

    def __enter__(self) -> Self:
        self.machine.__enter__()
        try:
            self._make_lan()
            self._start_parts()
            self.install(REFERENCE_NETWORK)
            self.wait_ready()
        except BaseException as error:
            for process in self.machine.processes:
                error.add_note(f"{process.name}:\n{process.read_tail()}")
            self.machine.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.stop()

    # The node

    @property
    def plugin_folder(self) -> Path:
        """The machine's /opt/cni/bin."""
        return self.machine.path("/opt/cni/bin")

    @property
    def network_folder(self) -> Path:
        """The machine's /etc/cni/net.d."""
        return self.machine.path("/etc/cni/net.d")

    def install(self, conflist: Json, bundle: Path = BUNDLE) -> None:
        """Make `conflist` the node's only network, with the reference plugins and ours beside it;
        the runtime has taken it up afterwards."""
        for folder in (self.plugin_folder, self.network_folder):
            folder.mkdir(parents=True, exist_ok=True)
        places = ((bundle, OURS), (TOOLS.resolve(), THEIRS), (parts.PROGRAMS, ("loopback",)))
        for place, names in places:
            for name in names:
                link = self.plugin_folder / name
                link.unlink(missing_ok=True)
                link.symlink_to(place / name)
        for old in self.network_folder.iterdir():
            old.unlink()
        self.write_network(f"10-{conflist['name']}.conflist", conflist)

    def write_network(self, filename: str, conflist: Json) -> None:
        """Put a network list among the node's, whole or not at all; the first by its name counts,
        and the runtime has taken it up afterwards."""
        written = self.network_folder / f"{filename}.new"
        written.write_text(json.dumps(conflist))
        path = written.rename(self.network_folder / filename)
        socket = self.machine.path(parts.RUNTIME_SOCKET)
        argv = [sys.executable, runtime.__file__, str(socket), str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"containerd does not take {filename}: {done.stderr}"

    def load_image(self, archive: Path) -> None:
        """Give the node an image, from an archive as `make_image` writes it."""
        self.ctr("images", "import", str(archive))

    def ctr(self, *argv: str, check: bool = True) -> Done:
        """Run containerd's own client where the kubelet's containers are."""
        command = ("ctr", "--address", parts.RUNTIME_SOCKET, "--namespace", "k8s.io")
        return self.machine.run(*command, *argv, check=check)

    def restart_kubelet(self, number: int = signal.SIGKILL) -> None:
        """End the kubelet and start it again; it serves afterwards."""
        self.kubelet.kill(number)
        self.kubelet.start()
        self.wait_ready()

    def restart_apiserver(self, number: int = signal.SIGKILL) -> None:
        """End the API server and start it again; it serves afterwards."""
        self.apiserver.kill(number)
        self.apiserver.start()
        self.wait_ready()

    def restart_containerd(self, number: int = signal.SIGKILL) -> None:
        """End containerd and start it again, with the pods that run; it serves afterwards."""
        self.containerd.kill(number)
        self.containerd.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the API server is, the kubelet serves, and the node is ready."""
        waits = {
            "the API server": self._serves,
            "containerd": self._has_containerd,
            "the node": self._has_ready_node,
        }
        for what, question in waits.items():
            assert becomes_true(question, PATIENCE_SECONDS), f"{what} does not become ready"

    def connect(self, lab: Lab, namespace: Namespace, address: str) -> None:
        """Give a namespace of a lab an interface in the node's network, with an address of
        192.0.2.0/24, from which it reaches `server`."""
        port = f"p{address.rsplit('.', 1)[1]}"
        lab.veth(self.machine.namespace, port, namespace, LAN)
        self.machine.namespace.ip("link", "set", port, "master", LAN)
        namespace.ip("address", "add", f"{address}/24", "dev", LAN)

    def clear(self) -> None:
        """Leave no pod, no namespace, no address and no route of a test's, every part at work, and
        `REFERENCE_NETWORK`. Other objects of the cluster are the test's to delete."""
        for process in self.machine.processes:
            process.kill(signal.SIGCONT)
            if not process.is_running:
                process.start()
        self.wait_ready()
        self.delete_pods()
        self.delete_namespaces()
        self.install(REFERENCE_NETWORK)  # with which what has failed so far can be taken down
        self.wait_unplugged()
        for folder in map(self.machine.path, PLUGIN_DATA):
            shutil.rmtree(folder, ignore_errors=True)
        for version in ("-4", "-6"):
            self.machine.run("ip", version, "route", "flush", "proto", OUR_PROTOCOL, check=False)

    def wait_unplugged(self) -> None:
        """Wait until no pod's network is left on the node. A pod that is deleted without a grace
        period is gone from the API before that."""
        folder = self.machine.path("/run/netns")
        gone = becomes_true(lambda: not any(folder.iterdir()), PATIENCE_SECONDS)
        assert gone, f"networks of pods stay: {list(folder.iterdir())}"

    # How it starts

    def _make_lan(self) -> None:
        network = self.machine.namespace
        network.ip("link", "add", LAN, "type", "bridge")
        network.ip("link", "set", LAN, "up")
        network.ip("address", "add", f"{parts.NODE_ADDRESS}/24", "dev", LAN)
        network.ip("address", "add", f"{parts.SERVICE_ADDRESS}/32", "dev", LAN)

    def _start_parts(self) -> None:
        machine, admin = self.machine, self.kubeconfig()
        kubelet = parts.kubelet_command(self.folder, self.kubeconfig(f"system:node:{NODE}"), NODE)
        machine.start("etcd", parts.etcd_command())
        self.apiserver = machine.start("apiserver", parts.apiserver_command(self.authority))
        containerd = parts.containerd_command(self.folder, self._version)
        self.containerd = machine.start("containerd", containerd)
        image = self.folder / "pod-image.tar"
        make_pod_image(image, parts.BUSYBOX)
        assert becomes_true(self._has_containerd, PATIENCE_SECONDS), "containerd does not serve"
        self.load_image(image)
        assert becomes_true(self._serves, PATIENCE_SECONDS), "the API server does not serve"
        self.kubelet = machine.start("kubelet", kubelet)
        controllers = parts.controller_manager_command(self.authority, admin)
        machine.start("controller-manager", controllers)
        machine.start("scheduler", parts.scheduler_command(admin))
        self.wait_for_account("default")

    def _serves(self) -> bool:
        assert self.apiserver.is_running, f"the API server has ended:\n{self.apiserver.read_tail()}"
        try:
            return self.request("GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    def _has_containerd(self) -> bool:
        assert self.containerd.is_running, f"containerd has ended:\n{self.containerd.read_tail()}"
        return self.ctr("version", check=False).returncode == 0

    def _has_ready_node(self) -> bool:
        """Whether the kubelet that runs now says so; an earlier one's word would stand as well."""
        assert self.kubelet.is_running, f"the kubelet has ended:\n{self.kubelet.read_tail()}"
        if not self._kubelet_answers():
            return False
        status, node = self.request("GET", f"/api/v1/nodes/{NODE}")
        if status != http.client.OK or node["spec"].get("taints"):
            return False
        conditions = node["status"].get("conditions", [])
        return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)

    def _kubelet_answers(self) -> bool:
        try:
            with self.machine.network():
                socket.create_connection(KUBELET, timeout=1).close()
        except OSError:
            return False
        return True
