"""Nodes that tell their blocks to a router by BGP, in namespaces: the plugin under ptp, the chained
role, `ipamctl routes watch --bird`, BIRD.

    client -- router -- node1 -- pods
                  `---- node2 -- pods

The nodes share one datastore. Their networks are 192.168.N.0/24 and fd00:168:N::/64, the router has
the first address of each, the client 203.0.113.2 beyond it.
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

from integration.bird import Bird
from integration.daemon import Daemon
from integration.netns import Lab
from integration.network import BUNDLE, ENTER, Node, becomes_true

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Self

    from integration.netns import Namespace

    Json = dict[str, Any]

API = "projectcalico.org/v3"
ROUTERS_AS = 64513
HIDDEN = "100.96.0.0/11"
EXTERNAL = "198.19.24.0/21"
EXTERNAL_SIX = "fd00:198::/64"
POOLS = [
    {"name": "default-ipv4-ippool", "spec": {"cidr": HIDDEN, "disableBGPExport": True}},
    {
        "name": "external-pool",
        "spec": {"cidr": EXTERNAL, "blockSize": 29, "nodeSelector": "!all()"},
    },
    {"name": "external-six", "spec": {"cidr": EXTERNAL_SIX, "nodeSelector": "!all()"}},
]
CLIENT = "203.0.113.2"
CLIENT_SIX = "fd00:203::2"
_TELLER = re.compile(r"\[(node\w+) ")
ROUTER_CONFIG = """
router id 192.168.1.1;
timeformat route iso short;
protocol device {}
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; }
template bgp node4 {
  local as 64513; passive; multihop; ipv4 { import all; export none; };
}
template bgp node6 {
  local as 64513; passive; multihop; ipv6 { import all; export none; };
}
protocol bgp node1 from node4 { neighbor 192.168.1.2 as 64512; }
protocol bgp node2 from node4 { neighbor 192.168.2.2 as 64512; }
protocol bgp node1_six from node6 { neighbor fd00:168:1::2 as 64512; }
protocol bgp node2_six from node6 { neighbor fd00:168:2::2 as 64512; }
"""


class Speaker:
    """A node of the network: the CNI side, its BIRD, and the watch that keeps BIRD right."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"node{number}"
        self.network = network
        self.node = Node(network.lab, network.folder, self.name, network.var_lib)
        self.space = self.node.namespace
        self.bird = Bird(self.name, self.space, network.folder)
        self.watch = Daemon("watch", network.folder / f"{self.name}-watch.log", self.space)
        self._write_network()

    def _write_network(self) -> None:
        ours: Json = {"nodename": self.name, "routes": {"blackhole": not self.network.bird_owns}}
        ipam = {"type": "cni-ipam", "assign_ipv6": "true", "default_pools": POOLS, **ours}
        plugins = [
            {"type": "ptp", "capabilities": {"ips": True}, "ipam": ipam},
            {"type": "cni-ipam", **ours},
        ]
        for name, six in (("net", False), ("dual", True)):
            ipam["assign_ipv6"] = str(six).lower()
            self.node.write_network({"cniVersion": "1.1.0", "name": name, "plugins": plugins})

    def add(self, pod: Namespace, *addresses: str) -> list[str]:
        """What a pod gets: these addresses, or one of the default pool."""
        network = "dual" if any(":" in address for address in addresses) else "net"
        wish = {"CAP_ARGS": json.dumps({"ips": addresses})} if addresses else {}
        result = self.node.add(network, pod, **wish)
        return [found["address"].partition("/")[0] for found in result["ips"]]

    def delete(self, pod: Namespace, network: str = "net") -> None:
        """The pod's addresses are given back."""
        done = self.node.cnitool("del", network, pod)
        assert done.returncode == 0, done.stderr

    def ipamctl(self, *words: str) -> str:
        """What the operator's tool prints."""
        done = self.node.ipamctl(*words)
        assert done.returncode == 0, f"ipamctl {words}: {done.stderr}"
        return done.stdout

    def apply(self, *resources: Json) -> None:
        """Create or replace resources."""
        path = self.network.folder / "resources.json"
        path.write_text(json.dumps(resources))
        self.ipamctl("apply", "-f", str(path))

    def start_watch(self) -> None:
        """Keep BIRD right from now on; waits until its file is there."""
        program = str(BUNDLE / "ipamctl")
        words = ("--bird", str(self.bird.config), "--bird-socket", str(self.bird.socket))
        enter = ("unshare", "--mount", "sh", "-c", ENTER, str(self.node.var_lib))
        command = [*enter, program, "routes", "watch", *words]
        self.watch.spawn(command, {"CNI_NETCONF_DIR": str(self.node.networks)})
        assert becomes_true(self.bird.config.exists), self.watch.read_tail()

    def stop(self) -> None:
        """End the watch and BIRD."""
        self.watch.kill(signal.SIGTERM)
        self.bird.__exit__()


class Network:
    """See above. `bird_owns`: whether BIRD owns the blackholes."""

    def __init__(self, folder: Path, *, bird_owns: bool) -> None:
        self.folder = folder
        self.bird_owns = bird_owns
        self.var_lib = folder / "var-lib"
        self.lab = Lab()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.lab)
            self._make_router(stack)
            self.nodes = [Speaker(self, number) for number in (1, 2)]
            for number, node in enumerate(self.nodes, 1):
                stack.callback(node.stop)
                self._link(node, number)
            self._tell_who_speaks()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Everything that stays; waits for the sessions."""
        self.router.start(ROUTER_CONFIG)
        for node in self.nodes:
            node.start_watch()
            node.bird.start()
        self.router.wait_established()

    def pod(self) -> Namespace:
        """A pod that has no interface yet."""
        return self.lab.namespace("pod")

    def told_by(self, number: int, version: int = 4) -> set[str]:
        """The prefixes that the router has from a node."""
        return self.router.prefixes(version, f"node{number}" + ("_six" if version == 6 else ""))

    def find_tellers(self, prefix: str) -> set[str]:
        """The sessions from which the router has a prefix, at one moment."""
        said = self.router.birdc("show", "route", "where", "net", "=", prefix)
        return set(_TELLER.findall(said))

    def hears(self, number: int, prefixes: set[str], version: int = 4) -> bool:
        """Whether the router soon has just these prefixes from a node."""
        return becomes_true(lambda: prefixes == self.told_by(number, version))

    def reaches(self, address: str) -> bool:
        """Whether the client beyond the router gets answers."""
        ping = ("ping", "-n", "-q", "-c", "1", "-W", "1", address)
        return becomes_true(lambda: self.client.run(*ping, check=False).returncode == 0)

    def _make_router(self, stack: ExitStack) -> None:
        space, self.client = self.lab.namespace("router"), self.lab.namespace("client")
        self.router = stack.enter_context(Bird("router", space, self.folder))
        self.lab.veth(space, "beyond", self.client, "eth0")
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            space.run("sysctl", "-qw", f"{name}=1")
        give_address(space, "beyond", "203.0.113.1/24", "fd00:203::1/64")
        give_address(self.client, "eth0", f"{CLIENT}/24", f"{CLIENT_SIX}/64")
        give_default(self.client, "203.0.113.1", "fd00:203::1")

    def _link(self, node: Speaker, number: int) -> None:
        space = self.router.namespace
        self.lab.veth(space, f"to-{node.name}", node.space, "eth0")
        four, six = f"192.168.{number}", f"fd00:168:{number}:"
        give_address(space, f"to-{node.name}", f"{four}.1/24", f"{six}:1/64")
        give_address(node.space, "eth0", f"{four}.2/24", f"{six}:2/64")
        give_default(node.space, f"{four}.1", f"{six}:1")

    def _tell_who_speaks(self) -> None:
        """The nodes and their peers, as resources; the first ADD makes the datastore."""
        first = self.pod()
        self.nodes[0].add(first)
        self.nodes[0].delete(first)
        self.nodes[0].apply(
            resource("BGPConfiguration", "default", {"nodeToNodeMeshEnabled": False}),
            *(resource("Node", node.name, {"bgp": bgp(n)}) for n, node in enumerate(self.nodes, 1)),
            *(
                resource("BGPPeer", f"{n}-{version}", peer(n, version))
                for n in (1, 2)
                for version in (4, 6)
            ),
        )


def resource(kind: str, name: str, spec: Json) -> Json:
    """A resource as an operator writes it."""
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def bgp(number: int) -> Json:
    """A node's addresses."""
    return {"ipv4Address": f"192.168.{number}.2/24", "ipv6Address": f"fd00:168:{number}::2/64"}


def peer(number: int, version: int) -> Json:
    """The router, as a node sees it."""
    address = {4: f"192.168.{number}.1", 6: f"fd00:168:{number}::1"}[version]
    return {"node": f"node{number}", "peerIP": address, "asNumber": ROUTERS_AS}


def give_address(space: Namespace, device: str, *addresses: str) -> None:
    """Add addresses; those of IPv6 are usable at once."""
    for address in addresses:
        nodad = ("nodad",) if ":" in address else ()
        space.ip("address", "add", address, "dev", device, *nodad)


def give_default(space: Namespace, *gateways: str) -> None:
    """Default routes, one for each family."""
    for gateway in gateways:
        family = "-6" if ":" in gateway else "-4"
        space.ip(family, "route", "add", "default", "via", gateway)
