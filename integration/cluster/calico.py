"""Calico's own programs (build/peers) on the cluster's API server, beside ours and above it.

    with custom_resources(cluster):
        set_ready(cluster, True)
        mixed = Mixed(cluster, tmp_path)
        assert mixed.theirs().call("ADD", "c1").status == 0
        assert mixed.ours().call("DEL", "c1").status == 0
        assert "found 0 problems" in mixed.calicoctl.say("ipam", "check")

        put_plugin(cluster, "calico", CALICO_IPAM)
        cluster.install(calico_network(mixed.kubeconfig))
        cluster.run_pod("a")

Calico's main plugin and its calico-ipam are one program, which looks at its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.cluster.node import GROUP, RECORDS, ApiNode, put
from integration.cluster.proxy import WRITING
from integration.etcd.calico import CALICO_IPAM, PEERS, Operator, is_calicos
from integration.etcd.herd import Herd, Pod, Tally
from integration.etcd.test_calico_race import POOL, MixedHerd
from integration.network import BUNDLE

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from integration.cluster.cluster import Cluster
    from integration.cluster.proxy import ApiProxy

    Json = dict[str, Any]

NETWORK = "k8s-pod-network"
NODENAME_FILE = "/var/lib/calico/nodename"
READY = f"{GROUP}/clusterinformations/default"
CONFLICT = 409
# What differs from one run to the next, and what says by whom and when an object was written.
PASSING = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


class Mixed:
    """What runs on the API server, as its administrator: Calico's programs, and ours. Nodes of one
    name, theirs and ours, have one lock."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.kubeconfig = cluster.kubeconfig()
        settings = {"DATASTORE_TYPE": "kubernetes", "KUBECONFIG": str(self.kubeconfig)}
        entrance = cluster.machine.entrance("--net")
        self.calicoctl = Operator(PEERS / "calicoctl", settings, entrance)
        self.ipamctl = Operator(BUNDLE / "ipamctl", settings, entrance)

    def ours(self, node: str = "node1") -> ApiNode:
        """Our plugin on a node, called as Calico's is, under its main plugin."""
        return ApiNode(
            self.folder, self.cluster, self.kubeconfig, node, name="calico-ipam", type="calico"
        )

    def theirs(self, node: str = "node1") -> ApiNode:
        """Calico's plugin on a node."""
        made = self.ours(node)
        made.path = str(CALICO_IPAM)
        return made


class ApiTally(Tally):
    """What the proxy in front of the API server counted."""

    def take(self) -> None:
        """See Tally."""
        self.proxy.settle()
        for exchanges in self.proxy.by_connection().values():
            swaps = [exchange for exchange in exchanges if exchange.method in WRITING]
            lost = sum(swap.status == CONFLICT for swap in swaps)
            self.requests += len(exchanges)
            self.swaps += len(swaps)
            self.lost += lost
            self.most_lost = max(self.most_lost, lost)
        self.proxy.clear()


class ApiHerd(MixedHerd):
    """Calico's plugin on every other node, ours through a proxy on the others."""

    def __init__(self, mixed: Mixed, proxy: ApiProxy, *, nodes: int, pods: int) -> None:
        Herd.__init__(self, proxy, mixed.folder, POOL, nodes=0, pods=0, at_once=4, may_be_full=True)
        kubeconfig = mixed.cluster.kubeconfig(server=proxy.endpoint)
        self.kubeconfigs = {True: mixed.kubeconfig, False: kubeconfig}
        self.givers = {}
        self.nodes = [mixed.ours(f"node{number}") for number in range(nodes)]
        self.pods = [Pod(node, f"{node.node}-c{n}") for n in range(pods) for node in self.nodes]
        self.tally = ApiTally(proxy)
        for number, node in enumerate(self.nodes):
            self.hand_over(node, to_calico=number % 2 == 0)

    def hand_over(self, node: ApiNode, *, to_calico: bool) -> None:
        """From now on the one or the other does the work on a node."""
        node.path = str(CALICO_IPAM if to_calico else BUNDLE / "calico-ipam")
        node.settings["kubernetes"] = {"kubeconfig": str(self.kubeconfigs[to_calico])}

    def swap(self) -> None:
        """See MixedHerd."""
        for node in self.nodes:
            self.hand_over(node, to_calico=not is_calicos(node))


def calico_network(kubeconfig: Path | str, **ipam: Any) -> Json:
    """The network list as Calico's installer writes it, with Calico's main plugin."""
    plugin = {
        "type": "calico",
        "log_level": "info",
        "datastore_type": "kubernetes",
        "nodename": "node1",
        "mtu": 0,
        "ipam": {"type": "calico-ipam", **ipam},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": str(kubeconfig)},
    }
    return {"name": NETWORK, "cniVersion": "0.3.1", "plugins": [plugin]}


def put_plugin(cluster: Cluster, name: str, program: Path) -> None:
    """The machine's /opt/cni/bin has `program` under `name`, from now on and in one step."""
    place = cluster.plugin_folder / name
    new = place.with_name(f"{name}.new")
    new.symlink_to(program)
    new.rename(place)


def set_ready(cluster: Cluster, is_ready: bool) -> None:
    """Calico's datastore is ready, or locked, as its node's first process and calicoctl say."""
    status, found = cluster.request("GET", READY)
    if status == 200:
        found["spec"]["datastoreReady"] = is_ready
        status, answer = cluster.request("PUT", READY, found)
        assert status == 200, answer
    else:
        put(cluster, "clusterinformations", "default", {"datastoreReady": is_ready})


def list_objects(cluster: Cluster) -> dict[str, Json]:
    """Every object of the allocations by `plural/name`, but for what is passing."""
    found = {}
    for plural in RECORDS:
        for item in cluster.get(f"{GROUP}/{plural}")["items"]:
            metadata = {k: v for k, v in item["metadata"].items() if k not in PASSING}
            found[f"{plural}/{metadata['name']}"] = item | {"metadata": metadata}
    return found
