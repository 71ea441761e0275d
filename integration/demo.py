"""`make demo`: a real CNI runtime gives three pods addresses of a pool, and takes them back.

All of it happens in network namespaces of its own, one that plays the node and three pods, with a
/var/lib of their own, and nothing is left of it. Each step is looked at by other means than the
step itself (the kernel's routes, pings, the datastore's records); the first that is not as it
should be ends the demo with status 1. `python -m integration.demo LIST` takes another network list
of ptp and one IPv4 pool.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.netns import Lab
from integration.network import BUNDLE, ROOT, TOOLS, Node, find_obstacle, pings
from integration.page import BAD, GOOD, Broken, Page
from integration.pulse import start_pulse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netns import Namespace
    from integration.network import Done, Json

CONFLIST = ROOT / "conf" / "10-cni-ipam.conflist"
PODS = ("pod1", "pod2", "pod3")
INTERRUPTED = 130


class Demo:
    """The node, its pods, and the steps; `addresses` and `devices` are known after ADD."""

    def __init__(self, lab: Lab, folder: Path, conflist: Path, page: Page) -> None:
        self.page = page
        self.node = Node(lab, folder)
        self.pods = {name: lab.namespace(name) for name in PODS}
        self.conflist = conflist
        self.text = conflist.read_text()
        self.conf: Json = json.loads(self.text)
        self.network: str = self.conf["name"]
        [self.pool] = self.conf["plugins"][0]["ipam"]["default_pools"]
        self.cidr = ipaddress.IPv4Network(self.pool["spec"]["cidr"])
        self.gateway = str(self.cidr[1])
        self.addresses: dict[str, str] = {}
        self.devices: dict[str, str] = {}

    def run(self) -> None:
        """Every step in its order. Raises Broken."""
        self.put_network()
        self.add_pods()
        self.show_pool()
        self.show_routes()
        self.ping_everyone()
        self.check_pods()
        self.delete_pods()
        self.show_what_is_left()
        self.delete_pool()

    def put_network(self) -> None:
        self.page.head("The network list, as it would lie in /etc/cni/net.d")
        self.page.show(f"cat {os.path.relpath(self.conflist)}", self.text)
        self.node.write_network(self.conf)
        self.page.expect(
            self.node.links() == ["lo"], "the node is a network namespace with lo alone"
        )
        self.page.expect(not self.node.database.exists(), "there is no datastore yet")

    def add_pods(self) -> None:
        self.page.head("ADD: cnitool connects three pods")
        for name, pod in self.pods.items():
            self.read_result(name, self.cnitool("add", pod))
        self.page.expect(
            len(set(self.addresses.values())) == len(PODS), "the three addresses differ"
        )
        recorded = sorted(self.node.read_store().allocations)
        self.page.expect(
            recorded == sorted(self.addresses.values()), "the datastore has these and no others"
        )

    def read_result(self, name: str, done: Done) -> None:
        """Note the address and the host's device of a pod, if its result is as it should be."""
        result = json.loads(done.stdout)
        [ip] = result["ips"]
        address, _, prefix = ip["address"].partition("/")
        pod_interface = result["interfaces"][ip["interface"]]
        self.addresses[name], self.devices[name] = address, result["interfaces"][0]["name"]
        given = ipaddress.IPv4Address(address)
        self.page.expect(
            given in self.cidr and int(prefix) == self.cidr.prefixlen,
            f"{name} has {address}, an address of the pool, with the pool's mask",
        )
        kept_back = {self.cidr[0], self.cidr[1], self.cidr[-1]}
        self.page.expect(
            ip["gateway"] == self.gateway and given not in kept_back,
            f"its gateway is {self.gateway}, which no pod gets",
        )
        self.page.expect(
            pod_interface == pod_interface | {"name": "eth0", "sandbox": self.pods[name].path}
            and result["routes"] == [{"dst": "0.0.0.0/0"}],
            "it is on the pod's eth0, with a default route",
        )

    def show_pool(self) -> None:
        self.page.head("The pool and its blocks, as the operator sees them")
        shown = self.ipamctl("ipam", "show", "--show-blocks")
        pools = self.ipamctl("get", "ippool", "-o", "wide")
        [block] = self.node.read_store().blocks
        in_use = [line for line in shown.splitlines() if f" {block.cidr} " in line]
        self.page.expect(
            len(in_use) == 1 and f" {len(PODS)} (" in in_use[0],
            f"the node has the block {block.cidr}, three addresses of it are in use",
        )
        self.page.expect(
            self.pool["name"] in pools and str(self.cidr) in pools, "the default pool was made"
        )
        self.page.expect(self.node.read_store().findings == [], "the datastore is sound")

    def show_routes(self) -> None:
        self.page.head("The node's routes")
        self.page.show("ip route", self.node.namespace.ip("route"))
        [block] = self.node.read_store().blocks
        self.page.expect(
            self.node.blackholes(4) == [str(block.cidr)],
            "a blackhole holds the block: what no pod has goes nowhere",
        )
        wanted = [(self.addresses[n], self.devices[n], "85", "link") for n in PODS]
        self.page.expect(
            sorted(self.node.host_routes(4)) == sorted(wanted),
            "one host route of ours leads to each pod, through its own veth",
        )

    def ping_everyone(self) -> None:
        self.page.head("Everyone reaches everyone")
        for name, pod in self.pods.items():
            for other, address in self.addresses.items():
                if other != name:
                    self.ping(name, pod, other, address)
            self.ping(name, pod, "the node", self.gateway)
            self.ping("the node", self.node.namespace, name, self.addresses[name])

    def ping(self, source: str, namespace: Namespace, target: str, address: str) -> None:
        """Raises Broken if there is no answer."""
        self.page.expect(pings(namespace, address), f"{source} pings {target} ({address})")

    def check_pods(self) -> None:
        self.page.head("CHECK: all is as it was given")
        for name, pod in self.pods.items():
            self.cnitool("check", pod)
            self.page.expect(True, f"{name} has what its result says")

    def delete_pods(self) -> None:
        self.page.head("DEL: the pods go")
        for name, pod in self.pods.items():
            self.cnitool("del", pod)
            links = [link["ifname"] for link in pod.ip_json("link", "show")]
            self.page.expect(links == ["lo"], f"{name} has no interface any more")

    def show_what_is_left(self) -> None:
        self.page.head("What is left on the node: its block, for the next pods")
        self.page.show("ip route", self.node.namespace.ip("route"))
        self.page.show("ip -brief link", self.node.namespace.ip("-brief", "link"))
        self.ipamctl("ipam", "show", "--show-blocks")
        store = self.node.read_store()
        self.page.expect(store.allocations == {}, "no address is given out")
        self.page.expect(store.handles == [] and store.findings == [], "no record is left over")
        self.page.expect(self.node.host_routes(4) == [], "no host route is left")
        self.page.expect(self.node.links() == ["lo"], "no interface is left")
        self.page.expect(
            self.node.blackholes(4) == [str(block.cidr) for block in store.blocks],
            "the block is still the node's, and so is its blackhole",
        )

    def delete_pool(self) -> None:
        self.page.head("The operator deletes the pool")
        self.ipamctl("delete", "ippool", self.pool["name"])
        self.page.show("ip route", self.node.namespace.ip("route"))
        store = self.node.read_store()
        self.page.expect(store.pools == [], "the pool is gone")
        self.page.expect(
            store.blocks == [] and store.affinities == [], "the block is gone, with its affinity"
        )
        self.page.expect(self.node.namespace.ip("route") == "", "the blackhole is gone")

    def cnitool(self, verb: str, pod: Namespace) -> Done:
        """Run cnitool before the reader's eyes. Raises Broken if it fails."""
        done = self.node.cnitool(verb, self.network, pod)
        self.page.show(f"cnitool {verb} {self.network} {pod.path}", done.stdout)
        if done.returncode:
            raise Broken(f"cnitool {verb} succeeds, but it says: {done.stderr.strip()}")
        return done

    def ipamctl(self, *words: str) -> str:
        """Run ipamctl before the reader's eyes; what it prints. Raises Broken if it fails."""
        done = self.node.ipamctl(*words)
        self.page.show(f"ipamctl {' '.join(words)}", done.stdout)
        if done.returncode:
            raise Broken(f"ipamctl succeeds, but it says: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def tidying_undisturbed() -> Iterator[None]:
    """The first Ctrl-C ends the demo; a second one must not end its tidying up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def find_missing() -> str | None:
    """What the demo lacks; None if nothing."""
    for needed in (BUNDLE / "cni-ipam", BUNDLE / "ipamctl", TOOLS / "cnitool", TOOLS / "ptp"):
        if not needed.exists():
            return f"{needed.relative_to(ROOT)} is missing; `make demo` makes it"
    return find_obstacle()


def main(arguments: list[str]) -> int:
    """Run the demo; the exit status."""
    conflist = Path(arguments[0]) if arguments else CONFLIST
    started = time.monotonic()
    page = Page()
    if missing := find_missing():
        page.write(f"The demo cannot run here: {missing}.", BAD)
        return 1
    try:
        with (
            tempfile.TemporaryDirectory(prefix="cni-demo-") as folder,
            Lab("cni-demo") as lab,
            tidying_undisturbed(),
        ):
            Demo(lab, Path(folder), conflist, page).run()
    except Broken as failure:
        page.write(f"\nFAILED: this should hold, and does not: {failure}", BAD)
        return 1
    except KeyboardInterrupt:
        page.write("\nInterrupted. All that was made is removed.", BAD)
        return INTERRUPTED
    seconds = time.monotonic() - started
    page.write(f"\nSuccess: {page.checks} checks, {seconds:.1f} s, and nothing is left.", GOOD)
    return 0


if __name__ == "__main__":
    start_pulse()
    sys.exit(main(sys.argv[1:]))
