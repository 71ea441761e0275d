"""conf/20-etcd.conflist as it stands: two nodes, three members of etcd with TLS, a real runtime.

Only the places are put in: the members' URLs, and where the certificates lie. The lock is given a
place too, since both nodes run on one machine. The nodes' names come from where calico-node leaves
them, and the routes between the nodes are made here, as a routing daemon does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean.record import record
from integration.etcd.node import read_records
from integration.etcd.servers import Cluster
from integration.netns import Lab
from integration.network import ROOT, Node, find_obstacle, pings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from integration.etcd.certificates import Certificates
    from integration.netns import Namespace
    from integration.network import Done, Json, Records

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

LIST = ROOT / "conf" / "20-etcd.conflist"
NETWORK = "cni-ipam-etcd"
MEMBERS = "https://10.0.0.11:2379,https://10.0.0.12:2379,https://10.0.0.13:2379"
NODES = {"node1": "192.0.2.51", "node2": "192.0.2.52"}


@record
class Sight:
    """What one node shows."""

    host_routes: list[tuple[str, str, str, str]]
    blackholes: list[str]
    links: list[str]


@record
class Story:
    """A pod on each of two nodes comes, is looked at, and goes."""

    statuses: list[Done]
    results: list[Json]
    during: list[Sight]
    records: Records
    silent: list[str]
    checks: list[Done]
    with_lost: Records
    collection: Done
    after_collection: Records
    deletes: list[Done]
    after: list[Sight]
    records_after: Records

    @property
    def addresses(self) -> list[str]:
        """The address of each pod, without its mask."""
        return [result["ips"][0]["address"].partition("/")[0] for result in self.results]


def fill_in(endpoints: list[str], tls: Certificates, lock: Path) -> Json:
    """The list with this cluster's places in it."""
    text = LIST.read_text()
    places = {
        MEMBERS: ",".join(endpoints),
        "/etc/cni-ipam/ca.pem": str(tls.ca),
        "/etc/cni-ipam/node.pem": str(tls.client.cert),
        "/etc/cni-ipam/node-key.pem": str(tls.client.key),
    }
    for place, ours in places.items():
        assert text.count(f'"{place}"') == 2, f"both plugins need {place}"
        text = text.replace(place, ours)
    conflist: Json = json.loads(text)
    conflist["plugins"][0]["ipam"]["ipam_lock_file"] = str(lock)
    conflist["plugins"][1]["ipam_lock_file"] = str(lock)
    return conflist


def make_node(lab: Lab, folder: Path, cluster: Cluster, name: str, tls: Certificates) -> Node:
    """A node that reaches etcd, and whose Node resource its own tool has made."""
    node = Node(lab, folder, name)
    cluster.connect(node.namespace, NODES[name])
    node.write_network(fill_in(cluster.endpoints, tls, folder / f"{name}.lock"))
    (node.var_lib / "calico").mkdir()
    (node.var_lib / "calico" / "nodename").write_text(name)
    resource = {"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": name}}
    (folder / f"{name}.json").write_text(json.dumps(resource))
    done = node.ipamctl("create", "-f", str(folder / f"{name}.json"))
    assert done.returncode == 0, done.stderr + done.stdout
    return node


def look(node: Node) -> Sight:
    return Sight(node.host_routes(4), node.blackholes(4), node.links())


def connect_blocks(nodes: list[Node], sights: list[Sight]) -> None:
    """What a routing daemon does: each node's blocks are reached through the node."""
    for node, others in ((nodes[0], sights[1]), (nodes[1], sights[0])):
        way = [a for name, a in NODES.items() if node.namespace.name.rpartition("-")[2] != name]
        for block in others.blackholes:
            node.namespace.ip("route", "add", block, "via", way[0])


def find_silent(nodes: list[Node], pods: list[Namespace], addresses: list[str]) -> list[str]:
    """The pings without an answer: host to pod, pod to gateway, pod to pod across the nodes."""
    roads = [
        *((node.namespace, address) for node, address in zip(nodes, addresses, strict=True)),
        *((pod, "10.244.0.1") for pod in pods),
        *zip(pods, reversed(addresses), strict=True),
    ]
    return [
        f"{source.name} to {address}" for source, address in roads if not pings(source, address)
    ]


def collect(node: Node, cluster: Cluster, living: list[str | None]) -> dict[str, Any]:
    """A pod whose DEL never came, and the GC that a runtime sends to each plugin of the list."""
    conflist = json.loads((node.networks / f"{NETWORK}.conflist").read_text())
    head = {"name": NETWORK, "cniVersion": conflist["cniVersions"][-1]}
    interface, ours = (head | plugin for plugin in conflist["plugins"])
    lost = node.call_plugin("ADD", interface, container="lost")
    assert lost.returncode == 0, lost.stdout
    with_lost = read_records(cluster)
    alive = [
        {"containerID": str(handle).removeprefix(f"{NETWORK}."), "ifname": "eth0"}
        for handle in living
    ]
    return {
        "with_lost": with_lost,
        "collection": node.call_plugin("GC", ours | {"cni.dev/valid-attachments": alive}),
        "after_collection": read_records(cluster),
    }


def tell(lab: Lab, cluster: Cluster, folder: Path, tls: Certificates) -> Story:
    nodes = [make_node(lab, folder, cluster, name, tls) for name in NODES]
    pods = [lab.namespace("pod1"), lab.namespace("pod2")]
    pairs = list(zip(nodes, pods, strict=True))

    def call_all(verb: str) -> list[Done]:
        return [node.cnitool(verb, NETWORK, pod) for node, pod in pairs]

    statuses = call_all("status")
    results = [node.add(NETWORK, pod) for node, pod in pairs]
    during = [look(node) for node in nodes]
    records = read_records(cluster)
    connect_blocks(nodes, during)
    addresses = [result["ips"][0]["address"].partition("/")[0] for result in results]
    return Story(
        statuses=statuses,
        results=results,
        during=during,
        records=records,
        silent=find_silent(nodes, pods, addresses),
        checks=call_all("check"),
        **collect(nodes[0], cluster, list(records.allocations.values())),
        deletes=call_all("del"),
        after=[look(node) for node in nodes],
        records_after=read_records(cluster),
    )


@pytest.fixture(scope="module")
def story(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("network-list")
    with Lab() as lab, Cluster("3.4", folder, members=3, tls=certificates, lab=lab) as cluster:
        yield tell(lab, cluster, folder, certificates)


def succeeded(calls: list[Done]) -> list[str]:
    """What failed calls said, one empty text for each that did not fail."""
    return [f"failed: {done.stderr}{done.stdout}" if done.returncode else "" for done in calls]


def test_runtime_takes_the_list(story: Story) -> None:
    """It is valid, and STATUS finds that ADD could be served."""
    assert ["", ""] == succeeded(story.statuses)


def test_default_pool_is_made(story: Story) -> None:
    """Once, for all nodes."""
    assert [("default", "10.244.0.0/16", 26)] == [
        (pool.name, str(pool.cidr), pool.block_size) for pool in story.records.pools
    ]


def test_each_node_has_a_block_and_each_pod_an_address_of_it(story: Story) -> None:
    """What etcd holds is what the runtime was told."""
    owners = {block.affinity: block.cidr for block in story.records.blocks}
    assert {"host:node1", "host:node2"} == owners.keys()
    assert sorted(story.addresses) == sorted(story.records.allocations)
    assert [True, True] == [
        any(
            str(block.cidr.address(ordinal)) == address
            for block in story.records.blocks
            if block.affinity == f"host:{name}"
            for ordinal, _ in block.allocated()
        )
        for name, address in zip(NODES, story.addresses, strict=True)
    ]


def test_everyone_answers(story: Story) -> None:
    """Host to pod, pod to gateway, and pod to pod from node to node."""
    assert [] == story.silent


def test_pods_and_blocks_are_routed(story: Story) -> None:
    """A host route to the pod's interface, and a blackhole for the node's block."""
    blocks = {block.affinity: str(block.cidr) for block in story.records.blocks}
    for name, address, result, sight in zip(
        NODES, story.addresses, story.results, story.during, strict=True
    ):
        device = result["interfaces"][0]["name"]
        assert [(address, device, "85", "link")] == sight.host_routes
        assert [blocks[f"host:{name}"]] == sight.blackholes


def test_check_passes(story: Story) -> None:
    """The records and routes are as the results say."""
    assert ["", ""] == succeeded(story.checks)


def test_collection_reaches_etcd(story: Story) -> None:
    """The plugin of its own, which alone gets GC, frees what the runtime does not name."""
    assert f"{NETWORK}.lost" in story.with_lost.allocations.values()
    assert [""] == succeeded([story.collection])
    assert story.records.allocations == story.after_collection.allocations


def test_deleted_pods_leave_nothing(story: Story) -> None:
    """No address, no handle, no host route, no interface; each node keeps its block."""
    assert ["", ""] == succeeded(story.deletes)
    assert ({}, []) == (story.records_after.allocations, story.records_after.handles)
    assert [([], s.blackholes) for s in story.during] == [
        (s.host_routes, s.blackholes) for s in story.after
    ]
    assert [["etcd0", "lo"]] * 2 == [sorted(sight.links) for sight in story.after]


def test_store_is_sound(story: Story) -> None:
    """With pods and without."""
    assert [[], []] == [story.records.findings, story.records_after.findings]
