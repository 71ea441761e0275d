"""The document "IP Pools and Services Advertisement", step by step, and what follows from it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from typing import TYPE_CHECKING

from integration.labs.bgp import (
    CONFIG,
    expect_router,
    expect_sessions,
    list_routes,
    read_router,
    start_bird,
    start_watch,
    watched,
)
from integration.page import Broken

if TYPE_CHECKING:
    from integration.labs.lab import Lab

# Who makes the blocks' blackhole routes: BIRD, as in the document, or cni-ipam, from which BIRD
# learns them.
OWNERS = ("bird", "cni-ipam")
PROTOCOLS = {"bird": "bird", "cni-ipam": "85"}
NODES = ("node1", "node2")
NAMESPACE = "external-ns"
EXTERNAL = ipaddress.IPv4Network("198.19.24.0/21")
DEFAULT = ipaddress.IPv4Network("100.96.0.0/11")
LOOKS = 20
CONFLIST = "/etc/cni/net.d/10-cni-ipam.conflist"


def tell(lab: Lab, owner: str = os.environ.get("LAB_BLACKHOLES", "bird")) -> None:
    """The whole story; `owner` is one of `OWNERS`."""
    if owner not in OWNERS:
        raise Broken(f"LAB_BLACKHOLES is {' or '.join(OWNERS)}, not {owner!r}")
    story = Story(lab, owner)
    story.begin()
    story.scale_up()
    story.borrow()
    story.lose_node()
    story.get_node_back()
    story.end_last_pod()


class Story:
    """The steps. `address`, `name` and `node` are those of the nginx pod, `plain` is the address of
    a pod of the default pool."""

    def __init__(self, lab: Lab, owner: str) -> None:
        self.lab = lab
        self.page = lab.page
        self.owner = owner
        self.address = self.name = self.node = self.plain = ""
        for node in NODES:
            self.choose_owner(node)

    @property
    def block(self) -> ipaddress.IPv4Network:
        """The block of the nginx pod."""
        return block_of(self.address)

    @property
    def blackhole(self) -> str:
        """The route that holds it."""
        return f"blackhole {self.block} proto {PROTOCOLS[self.owner]}"

    def choose_owner(self, node: str) -> None:
        """The network list as it lies there leaves the blackholes to BIRD."""
        if self.owner == "cni-ipam":
            self.lab.ask(node, f"sed -i '/\"routes\": /d' {CONFLIST}")

    def is_served(self) -> bool:
        """Whether the client gets nginx's page."""
        return self.lab.fetches("client", self.address, self.name)

    def begin(self) -> None:
        """The document, and a client that uses what it has built."""
        self.make_pool()
        self.make_namespace()
        self.deploy()
        self.peer()
        self.look_at_sessions()
        self.look_at_node()
        self.look_at_router()
        self.fetch_from_beyond()

    def make_pool(self) -> None:
        lab = self.lab
        self.page.head("Pod external routable IP Pool")
        self.page.say(
            "The cluster gives its pods addresses of 100.96.0.0/11, which nobody outside of it "
            "knows (its pool has disableBGPExport). A second pool gets addresses that are routed "
            'outside; its nodeSelector "!all()" keeps every pod out that does not ask for it.'
        )
        lab.type("node1", "calicoctl get ippools --allow-version-mismatch")
        lab.type("node1", "cat 01-externalIpPool.yml")
        lab.type("node1", "calicoctl apply -f 01-externalIpPool.yml --allow-version-mismatch")
        pools = lab.type("node1", "calicoctl get ippools --allow-version-mismatch")
        lab.expect(
            ["external-pool", str(EXTERNAL), "!all()"] == pools.splitlines()[2].split(),
            "the pool is there",
        )

    def make_namespace(self) -> None:
        self.page.head("Create external namespace")
        self.lab.type("node1", "cat 02-externalNamespace.yml")
        self.lab.type("node1", "kubectl apply -f 02-externalNamespace.yml")

    def deploy(self) -> None:
        lab = self.lab
        self.page.head("Deploy nginx application")
        self.page.say(
            "A small web server, which answers with its pod's name, stands in for nginx. No policy "
            "engine is at work here, so the NetworkPolicy is kept, and nothing more."
        )
        lab.type("node1", "kubectl apply -f 03-nginx-deployment-ns.yml")
        [pod] = lab.wait_for_pods(1, NAMESPACE, "app=nginx")
        lab.type("node1", f"kubectl get pods -n {NAMESPACE} -o wide")
        self.address = pod["status"]["podIP"]
        self.name, self.node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        lab.expect(
            ipaddress.IPv4Address(self.address) in EXTERNAL,
            f"nginx has {self.address}, an address of external-pool",
        )
        lab.type("node1", "kubectl run plain --image=nginx")
        [plain] = lab.wait_for_pods(1, "default")
        lab.type("node1", "kubectl get pods -o wide")
        self.plain = plain["status"]["podIP"]
        lab.expect(
            ipaddress.IPv4Address(self.plain) in DEFAULT,
            f"a pod of another namespace has {self.plain}, an address of the default pool",
        )

    def peer(self) -> None:
        lab = self.lab
        self.page.head("Configure BGP to peer with Bird VM")
        self.page.say(
            "The nodes run BIRD 2, whose configuration follows from Calico's resources, and from "
            "the node's blocks: routes watch keeps it true, and tells BIRD when it changes."
        )
        lab.type("node1", "cat 01.globalBgpPeer.yml")
        lab.type("node1", "calicoctl apply -f 01.globalBgpPeer.yml --allow-version-mismatch")
        for node in NODES:
            lab.type(node, f"ipamctl routes bird-config >{CONFIG}")
            start_bird(lab, node)
            start_watch(lab, node)

    def look_at_sessions(self) -> None:
        lab = self.lab
        self.page.head("Check the BGP connection status")
        expect_sessions(lab)
        lab.type("node1", "sudo calicoctl node status")
        lab.type("router", "sudo birdc show protocol")

    def look_at_node(self) -> None:
        lab, node = self.lab, self.node
        self.page.head(f"Check the IP routes on {node}")
        learned = "10.10.10.10 via 172.20.34.231 dev eth1 proto bird"
        lab.expect_soon(
            lambda: {self.blackhole, learned} <= set(list_routes(lab, node)),
            "BIRD has told the kernel",
        )
        routes = [route.strip() for route in lab.type(node, "ip route").splitlines()]
        lab.expect(
            self.blackhole in routes, f"{self.blackhole}: the prefix that {node} tells its peers"
        )
        host = re.compile(rf"{self.address} dev veth\w+ proto 85 scope link")
        lab.expect(
            any(host.fullmatch(route) for route in routes),
            f"{self.address} dev veth… scope link: the host route to the nginx pod",
        )
        lab.expect(learned in routes, "10.10.10.10 was learned from the Bird VM")

    def look_at_router(self) -> None:
        self.page.head("Check the IP routes on Bird VM")
        expect_router(self.lab, {self.block: self.node})
        self.lab.type("router", "sudo birdc show route")
        self.lab.expect(
            not any(DEFAULT.supernet_of(prefix) for prefix in read_router(self.lab)),
            "it knows nothing of 100.96.0.0/11",
        )

    def fetch_from_beyond(self) -> None:
        lab = self.lab
        self.page.head("A client beyond the router")
        page = lab.type("client", f"curl -s --max-time 5 http://{self.address}/")
        lab.expect(page.strip() == self.name, "the client reaches nginx")
        done = lab.type("client", f"curl -sS --max-time 2 http://{self.plain}/ || echo no answer")
        lab.expect("no answer" in done, "it does not reach the pod of the default pool")
        node = lab.pods("default")[0]["spec"]["nodeName"]
        lab.expect(lab.fetches(node, self.plain, "plain"), f"which answers its own node, {node}")

    def scale_up(self) -> None:
        lab = self.lab
        self.page.head("One route for each node, however many pods")
        lab.type("node1", f"kubectl scale deployment nginx -n {NAMESPACE} --replicas=6")
        pods = lab.wait_for_pods(6, NAMESPACE, "app=nginx")
        lab.type("node1", f"kubectl get pods -n {NAMESPACE} -o wide")
        found = {block_of(pod["status"]["podIP"]): pod["spec"]["nodeName"] for pod in pods}
        lab.expect(sorted(found.values()) == list(NODES), "each node has one /29 of the pool")
        expect_router(lab, found)
        lab.type("router", "sudo birdc show route")
        for pod in pods:
            address, name = pod["status"]["podIP"], pod["metadata"]["name"]
            lab.expect_soon(
                lambda a=address, n=name: lab.fetches("client", a, n), f"{name} answers the client"
            )

    def borrow(self) -> None:
        lab = self.lab
        self.page.head("A borrowed address")
        self.page.say(
            "A pod on node1 wants an address by name, one of node2's block. Its packets would go "
            "to node2; so node1 tells its peers of this address by itself."
        )
        routes = read_router(lab)
        [theirs] = [prefix for prefix, nodes in routes.items() if nodes == ["node2"]]
        used = {pod["status"]["podIP"] for pod in lab.pods(NAMESPACE)}
        wanted = next(str(address) for address in theirs if str(address) not in used)
        self.run_at("node1", "borrower", wanted)
        lab.expect(lab.wait_for_pod(NAMESPACE, "borrower") == [wanted], f"it gets {wanted}")
        whole = {prefix: nodes[0] for prefix, nodes in routes.items()}
        expect_router(lab, whole | {ipaddress.IPv4Network(wanted): "node1"})
        lab.type("router", "sudo birdc show route")
        lab.expect_soon(
            lambda: lab.fetches("client", wanted, "borrower"), "the client reaches the borrower"
        )
        lab.expect_soon(lambda: lab.fetches("node2", wanted, "borrower"), "and so does node2")
        lab.type("node1", f"kubectl delete pod borrower -n {NAMESPACE}")
        expect_router(lab, whole)

    def lose_node(self) -> None:
        lab = self.lab
        self.page.head("node2 is dead, and does not come back")
        self.page.say(
            "Its pods' addresses and its blocks stay recorded, as nobody knows whether it returns. "
            "The operator does, and says so; only then another node may have the block."
        )
        lost = [pod for pod in lab.pods(NAMESPACE) if pod["spec"]["nodeName"] == "node2"]
        address = lost[0]["status"]["podIP"]
        block = block_of(address)
        with watched(lab) as seen:
            lab.power_off("node2")
            lab.expect_soon(
                lambda: block not in read_router(lab), "the router has noticed, by BGP's hold time"
            )
            lab.type(
                "node1",
                "kubectl delete pods --all-namespaces --force --grace-period=0 "
                "--field-selector=spec.nodeName=node2",
            )
            lab.type("node1", "ipamctl ipam release --node node2")
            lab.type("node1", "kubectl delete node node2")
            lab.type("node1", "calicoctl delete node node2")
            lab.expect_soon(
                lambda: "172_20_50_50" not in lab.ask("node1", "birdc show protocols"),
                "node1 has no session with node2 any more",
            )
            shown = lab.type("node1", "ipamctl ipam show --show-blocks")
            lab.expect(f" {block} " not in shown, f"{block} is nobody's")
            self.take_over(address)
            expect_router(lab, {block: "node1"}, among={block})
            lab.expect_soon(
                lambda: lab.fetches("client", address, "heir"), "the client reaches its pod"
            )
        lab.expect(
            len(seen) > LOOKS
            and all(len(nodes) == 1 for routes in seen for nodes in routes.values()),
            f"at no moment ({len(seen)} looks) two nodes told the router of the same prefix",
        )

    def get_node_back(self) -> None:
        lab = self.lab
        self.page.head("A new machine becomes node2")
        lab.power_on("node2")
        lab.ask("router", "ip link set eth2 master lan")
        self.choose_owner("node2")
        lab.type("node1", "calicoctl apply -f cluster.yaml")
        lab.type("node2", f"ipamctl routes bird-config >{CONFIG}")
        start_bird(lab, "node2")
        start_watch(lab, "node2")
        expect_sessions(lab)
        routes = read_router(lab)
        self.run_at("node2", "newcomer")
        [address] = lab.wait_for_pod(NAMESPACE, "newcomer")
        lab.expect(block_of(address) not in routes, f"its first pod gets {address}, of a new block")
        whole = {prefix: nodes[0] for prefix, nodes in routes.items()}
        expect_router(lab, whole | {block_of(address): "node2"})
        lab.expect_soon(
            lambda: lab.fetches("client", address, "newcomer"), "the client reaches that pod"
        )

    def run_at(self, node: str, name: str, address: str = "") -> None:
        """Make a pod on a node, which wants an address by name."""
        place = json.dumps({"spec": {"nodeName": node}})
        wish = f" --annotations='cni.projectcalico.org/ipAddrs=[\"{address}\"]'"
        command = f"kubectl run {name} -n {NAMESPACE} --image=nginx --overrides='{place}'"
        self.lab.type("node1", command + (wish if address else ""))

    def take_over(self, address: str) -> None:
        """A pod on node1 gets the address of one that was on node2."""
        self.run_at("node1", "heir", address)
        given = self.lab.wait_for_pod(NAMESPACE, "heir")
        self.lab.expect(given == [address], f"node1 takes the block over: a pod gets {address}")

    def end_last_pod(self) -> None:
        lab = self.lab
        self.page.head("The last pod goes")
        self.page.say(
            "The pool is for none of the nodes, so a node keeps no block of it that has no pod: "
            "with its last pod there it gives the block back, and the route is withdrawn."
        )
        lab.type("node1", f"kubectl scale deployment nginx -n {NAMESPACE} --replicas=0")
        lab.type("node1", f"kubectl delete pod heir newcomer -n {NAMESPACE}")
        lab.wait_for_pods(0, NAMESPACE)
        expect_router(lab, {})
        lab.type("router", "sudo birdc show route")
        lab.expect_soon(
            lambda: not any("198.19." in route for route in list_routes(lab, "node1")),
            "node1 has no route of the pool any more",
        )
        lab.type("node1", "ip route")
        lab.type("node1", "ipamctl ipam check")


def block_of(address: str) -> ipaddress.IPv4Network:
    """The block of external-pool that has an address."""
    return ipaddress.IPv4Network(f"{address}/29", strict=False)
