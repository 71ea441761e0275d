"""A lab: a containerlab file's machines as namespaces, and a Kubernetes that runs pods there.

    with Lab(folder, Page()) as lab:
        lab.type("node1", "calicoctl get ippools --allow-version-mismatch")
        lab.type("node1", "kubectl apply -f 02-externalNamespace.yml")
        address = lab.run_pod("node1", "external-ns", "web")
        lab.expect_soon(lambda: lab.fetches("client", address, "web"), "the client reaches it")

`folder` has the topology, NAME.clab.yaml; if there is a `cluster.yaml`, it is applied before the
story begins: pools, nodes (whose labels Kubernetes's nodes get, too), BGP. Commands are typed in a
shell of their machine, in `folder`, and find calicoctl, ipamctl, kubectl, cnitool, etcdctl, bird
and birdc. Everything goes with the `with` block.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from integration import bird
from integration.cluster import parts
from integration.cluster.machine import NAMESPACES, Machine
from integration.etcd.member import find_programs
from integration.labs import control
from integration.labs.kubelet import NETWORKS, PLUGINS, Kubelet
from integration.labs.pods import PATIENCE_SECONDS, Pods
from integration.labs.topology import read_topology
from integration.netns import Lab as Links
from integration.network import BUNDLE, TOOLS, becomes_true, find_missing, find_obstacle
from integration.page import WIDTH, Broken

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any, Self

    from integration.labs.topology import Box
    from integration.page import Page

    Json = dict[str, Any]
    Done = subprocess.CompletedProcess[str]

KUBECONFIG = f"{NETWORKS}/cni-ipam-kubeconfig"
# kubectl knows neither this machine's home nor its cache; nobody has to become root in a lab.
KUBECTL = '#!/bin/sh\nexec {program} --kubeconfig={kubeconfig} --cache-dir=/run/kubectl "$@"\n'
# Of its own, or the bridge's would change whenever that of one of its ports goes.
MANAGEMENT_MAC = "02:00:00:00:00:02"
SUDO = '#!/bin/sh\nexec "$@"\n'
PREFIX = "cni-lab"


def find_lab_obstacle() -> str | None:
    """Why no lab can be run here; None if one can."""
    return find_obstacle() or find_missing("kubernetes") or find_missing("bird")


def remove_leftovers() -> None:
    """Remove the folders of labs whose process was killed; machines see to what else they leave."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
        found = re.match(rf"{PREFIX}-(\d+)-", folder.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class Lab(Pods):
    """See above; `page` gets what is typed and what is found. `machines` are those that are up,
    each, but for `control`, a `machine`: bare namespaces, or a Container (container.py)."""

    def __init__(self, folder: Path, page: Page, machine: type[Machine] = Machine) -> None:
        self.folder = folder
        self.page = page
        [path] = folder.glob("*.clab.yaml")
        self.topology = read_topology(path)
        self.machines: dict[str, Machine] = {}
        self._nodes: dict[str, Machine] = {}
        self._node_facts: dict[str, tuple[str, Json]] = {}
        self._machine = machine
        self._work = Path()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        remove_leftovers()
        with contextlib.ExitStack() as stack:
            self._work = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-"))
            stack.callback(shutil.rmtree, self._work, ignore_errors=True)
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Commands

    def type(self, machine: str, command: str, *, status: int = 0) -> str:
        """Type a command in a machine's shell before the reader's eyes; all that it prints.

        Raises Broken if it ends with another status."""
        done = self.attempt(machine, command)
        self.page.show(command, done.stdout, prompt=f"{machine}$")
        if done.returncode != status:
            raise Broken(f"this ends with status {status}, not {done.returncode}: {command}")
        return done.stdout

    def ask(self, machine: str, command: str) -> str:
        """The same behind the scenes, for a command that succeeds."""
        done = self.attempt(machine, command)
        assert done.returncode == 0, f"{machine}$ {command}\n{done.stdout}"
        return done.stdout

    def attempt(self, machine: str, command: str) -> Done:
        """The same behind the scenes, with its status; `stdout` has all that it prints."""
        self._check_kubelet()
        inside = (
            f"cd {shlex.quote(str(self.folder))} && exec 2>&1\nexport COLUMNS={WIDTH}\n{command}"
        )
        return self.machines[machine].run("bash", "-c", inside, check=False)

    def expect(self, holds: bool, sentence: str) -> None:
        """Say that something holds. Raises Broken if it does not."""
        self.page.expect(holds, sentence)

    def expect_soon(
        self, question: Callable[[], bool], sentence: str, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Say that something holds as soon as it does. Raises Broken if it does not in time."""
        holds = becomes_true(question, seconds)
        self._check_kubelet()
        self.page.expect(holds, sentence)

    # Traffic

    def fetches(self, machine: str, address: str, expected: str) -> bool:
        """Whether `curl` on a machine gets this page from an address. A kernel that is reached
        connects at once, while a program may have to wait for its turn."""
        host = f"[{address}]" if ":" in address else address
        done = self.attempt(machine, f"curl -s --connect-timeout 2 --max-time 10 http://{host}/")
        return done.returncode == 0 and done.stdout.strip() == expected

    # A machine's end

    def power_off(self, machine: str) -> None:
        """End a machine with all in it, at once: nobody hears a last word."""
        stopped = self.machines.pop(machine)
        self._nodes.pop(machine, None)
        ends = [end for link in self.topology.links for end in link]
        for device in ["eth0", *(device for name, device in ends if name == machine)]:
            stopped.namespace.ip("link", "delete", device)
        stopped.stop()

    def power_on(self, machine: str) -> None:
        """Start a machine that was powered off as one that has never run, with its files and first
        commands; Kubernetes knows it again. The other ends of its links are new, too."""
        box = self.topology.boxes[machine]
        self._start(box, self._stack)
        self._link({machine})
        self._prepare(box)
        if box.is_node:
            self.control.add_node(machine, *self._node_facts[machine])
            self._nodes[machine] = self.machines[machine]

    def entrance(self, machine: str) -> str:
        """A command line that enters a machine from outside."""
        shell = ["bash", "-c", f'cd {shlex.quote(str(self.folder))} && exec bash "$@"', "bash"]
        return shlex.join([*self.machines[machine].entrance(*NAMESPACES), *shell])

    # How it starts

    def _build(self, stack: contextlib.ExitStack) -> None:
        programs = self._work / "bin"
        programs.mkdir()
        management = ipaddress.IPv4Network(self.topology.management)
        self.control = control.Control(self._work / "kube", str(management[2]), (programs,))
        stack.enter_context(self.control.machine)
        self._link_programs(programs)
        network = self.control.machine.namespace
        Links().bridge(network, "eth0")
        network.ip("link", "set", "eth0", "address", MANAGEMENT_MAC)
        network.ip(
            "address", "add", f"{self.control.address}/{management.prefixlen}", "dev", "eth0"
        )
        self.control.start()
        self.machines[control.NAME] = self.control.machine
        for box in self.topology.boxes.values():
            self._start(box, stack)
        self._link(set(self.topology.boxes))
        for box in self.topology.boxes.values():
            self._prepare(box)
            if box.is_node:
                self._nodes[box.name] = self.machines[box.name]
        self.control.wait()
        self._apply_cluster()
        self._kubelet = Kubelet(self.control, self._nodes)
        self._kubelet.start()
        stack.callback(self._kubelet.stop)

    def _link_programs(self, folder: Path) -> None:
        etcd = find_programs("3.4")
        links = {
            "ipamctl": BUNDLE / "ipamctl",
            "calicoctl": BUNDLE / "ipamctl",
            "cnitool": TOOLS / "cnitool",
            "etcd": Path(etcd.etcd),
            "etcdctl": Path(etcd.etcdctl),
            "bird": bird.PROGRAMS / "bird",
            "birdc": bird.PROGRAMS / "birdc",
            "busybox": parts.BUSYBOX,
        }
        for name, program in links.items():
            (folder / name).symlink_to(program.resolve())
        kubectl = KUBECTL.format(
            program=parts.PROGRAMS / "kubectl", kubeconfig=self.control.kubeconfig()
        )
        for name, script in (("kubectl", kubectl), ("sudo", SUDO)):
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)

    def _start(self, box: Box, stack: contextlib.ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix=f"{box.name}-", dir=self._work))
        machine = self._machine(box.name, folder, (self._work / "bin",))
        self.machines[box.name] = stack.enter_context(machine)

    def _link(self, names: set[str]) -> None:
        """Make the links of these machines, and those to the management network."""
        links, hub = Links(), self.control.machine.namespace
        prefix_length = ipaddress.IPv4Network(self.topology.management).prefixlen
        for (one, device), (other, peer) in self.topology.links:
            if {one, other} & names:
                ends = self.machines[one].namespace, self.machines[other].namespace
                links.veth(ends[0], device, ends[1], peer)
        for name in names:
            network, address = self.machines[name].namespace, self.topology.boxes[name].address
            links.veth(hub, name, network, "eth0")
            hub.ip("link", "set", name, "master", "eth0")
            network.ip("address", "add", f"{address}/{prefix_length}", "dev", "eth0")

    def _prepare(self, box: Box) -> None:
        """The image's files, the topology's, and its commands."""
        machine = self.machines[box.name]
        for folder in (PLUGINS, NETWORKS):
            shutil.rmtree(machine.path(folder), ignore_errors=True)
            machine.path(folder).mkdir(parents=True)
        machine.path("/run/bird").mkdir()
        machine.path("/etc/bird").mkdir(exist_ok=True)
        for program in (BUNDLE / "cni-ipam", *map(TOOLS.joinpath, ("ptp", "bridge", "portmap"))):
            (machine.path(PLUGINS) / program.name).symlink_to(program.resolve())
        for bind in box.binds:
            target = machine.path(bind.target)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / bind.source, target)
        if box.is_node:
            machine.path(KUBECONFIG).write_bytes(self.control.kubeconfig().read_bytes())
        for command in box.commands:
            machine.run(*command)

    def _apply_cluster(self) -> None:
        """What the cluster has before the story; each node has its records, there and here."""
        file = self.folder / "cluster.yaml"
        objects = list(yaml.safe_load_all(file.read_text())) if file.exists() else []
        known = {found["metadata"]["name"]: found for found in objects if found["kind"] == "Node"}
        for name in self._nodes:
            if name not in known:
                known[name] = {"metadata": {"name": name}}
                objects.append(
                    {"apiVersion": "projectcalico.org/v3", "kind": "Node", **known[name]}
                )
            bgp = known[name].get("spec", {}).get("bgp", {})
            address = bgp.get("ipv4Address", self.topology.boxes[name].address)
            labels = known[name]["metadata"].get("labels", {})
            self._node_facts[name] = address.partition("/")[0], labels
            self.control.add_node(name, *self._node_facts[name])
        self._apply("---\n".join(json.dumps(found) + "\n" for found in objects))

    def _apply(self, manifest: str) -> None:
        """Apply it on a node, as soon as the datastore answers."""
        machine = self.machines[next(iter(self._nodes))]
        said: list[str] = []

        def succeeds() -> bool:
            done = machine.run("ipamctl", "apply", "-f", "-", input=manifest, check=False)
            said[:] = [done.stderr]
            return done.returncode == 0

        assert becomes_true(succeeds, PATIENCE_SECONDS), said
