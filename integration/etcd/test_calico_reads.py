"""What our plugin wrote as calicoctl shows, checks and releases it, and the other way round."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.etcd.calico import Mixed, resource, with_calico
from integration.etcd.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = with_calico

RESOURCES = [
    resource("IPPool", "four", {"cidr": "10.50.0.0/29", "blockSize": 30}),
    resource("IPPool", "six", {"cidr": "fd00:50::/122"}),
    *(resource("Node", name, {}) for name in ("node1", "node2")),
]
BOTH = {"assign_ipv4": "true", "assign_ipv6": "true"}
SIX = {"assign_ipv4": "false", "assign_ipv6": "true"}


@pytest.fixture
def mixed(etcd34, tmp_path) -> Iterator[Mixed]:
    with Proxy(etcd34.endpoints[0]) as proxy:
        mixed = Mixed(etcd34, proxy, tmp_path)
        mixed.calicoctl.give("apply", *RESOURCES)
        yield mixed


class Pods:
    """Pods that a plugin serves on two nodes: p0 has an address of each family, p1 one on request,
    p2 to p5 one each, the last of which node2 borrows from node1."""

    def __init__(self, mixed: Mixed, maker: str) -> None:
        self.mixed = mixed
        self.node1, self.node2 = (getattr(mixed, maker)(name) for name in ("node1", "node2"))
        self.held = {"p0": self._add(self.node1, 0, ipam=BOTH)}
        (self.first,) = [a for a in self.held["p0"] if ":" not in a]
        self.start = int(self.first.rpartition(".")[2]) & 4
        self.held["p1"] = self._add(self.node1, 1, f";IP=10.50.0.{self.start + 3}")
        self.held |= {f"p{n}": self._add(self.node2, n) for n in range(2, 7)}

    def _add(self, node, number, more="", **keys) -> list[str]:
        names = f"IgnoreUnknown=1;K8S_POD_NAME=p{number};K8S_POD_NAMESPACE=default{more}"
        return node.call("ADD", f"c{number}", node.netconf(**keys), CNI_ARGS=names).addresses

    def put_endpoints(self) -> None:
        """What Calico's main plugin writes of each pod."""
        self.mixed.calicoctl.give("apply", *(self._endpoint(pod) for pod in self.held))

    def _endpoint(self, pod):
        node, container = self.node_of(pod).node, pod.replace("p", "c")
        spec = {
            "node": node,
            "orchestrator": "k8s",
            "pod": pod,
            "endpoint": "eth0",
            "containerID": container,
            "interfaceName": f"cali{pod}",
            "ipNetworks": [f"{a}/{128 if ':' in a else 32}" for a in self.held[pod]],
        }
        name = f"{node}-k8s-{pod}-eth0"
        return resource("WorkloadEndpoint", name, spec, namespace="default")

    def node_of(self, pod):
        return self.node1 if pod in {"p0", "p1"} else self.node2


def test_calicoctl_counts_what_we_assigned(mixed):
    """Eight addresses of both pools, in the blocks that they are in."""
    pods = Pods(mixed, "ours")
    blocks = [["Block", "10.50.0.0/30", "4"], ["Block", "10.50.0.4/30", "4"]]
    used = {pods.start: ["3 (75%)", "1 (25%)"], 4 - pods.start: ["4 (100%)", "0 (0%)"]}
    assert [
        ["IP Pool", "10.50.0.0/29", "8", "7 (88%)", "1 (12%)"],
        [*blocks[0], *used[0]],
        [*blocks[1], *used[4]],
        ["IP Pool", "fd00:50::/122", "64", "1 (2%)", "63 (98%)"],
        ["Block", "fd00:50::/122", "64", "1 (2%)", "63 (98%)"],
    ] == mixed.calicoctl.table("ipam", "show", "--show-blocks")


def test_calicoctl_knows_which_address_was_borrowed(mixed):
    """By whom, of which block, for which pod."""
    pods = Pods(mixed, "ours")
    block = f"10.50.0.{pods.start}/30"
    row = [pods.held["p6"][0], "node2", block, "node1", "pod", "default/p6"]
    assert [row] == mixed.calicoctl.table("ipam", "show", "--show-borrowed")


@pytest.mark.parametrize("pod", ["p0", "p1", "p6"])
def test_calicoctl_names_who_has_an_address_of_ours(mixed, pod):
    """Of each family, on request, and borrowed."""
    pods = Pods(mixed, "ours")
    for address in pods.held[pod]:
        shown = mixed.calicoctl.say("ipam", "show", f"--ip={address}")
        assert f"IP {address} is in use\n" in shown
        owner = {"pod": pod, "namespace": "default", "node": pods.node_of(pod).node}
        for name, value in owner.items():
            assert f"  {name}: {value}\n" in shown
    assert "" == mixed.calicoctl.run("ipam", "show", f"--ip={address}").stderr


def test_calicoctl_finds_nothing_to_complain_about(mixed, tmp_path):
    """Each allocation of ours belongs to its pod, and to its handle."""
    pods = Pods(mixed, "ours")
    pods.put_endpoints()
    report = tmp_path / "report.json"
    said = mixed.calicoctl.say("ipam", "check", "--show-problem-ips", "-o", str(report))
    assert "IPAM blocks record 8 allocations.\n" in said
    assert "Found 0 handles with no matching IPs (and 7 handles with matches).\n" in said
    assert "Found 0 handles mentioned in blocks with no matching handle resource.\n" in said
    assert "Check complete; found 0 problems.\n" in said
    found = json.loads(report.read_text())["allocations"]
    assert pods.held == group_by_pod(found)
    handles = {entry["pod"]: entry["handle"] for (entry,) in found.values()}
    assert {f"p{n}": f"net.c{n}" for n in range(7)} == handles


def group_by_pod(found: dict) -> dict[str, list[str]]:
    """The addresses of each pod, IPv4 before IPv6."""
    pods: dict[str, list[str]] = {}
    for address, (entry,) in sorted(found.items()):
        assert [f"Workload(default/{entry['node']}-k8s-{entry['pod']}-eth0)"] == entry["owners"]
        pods.setdefault(entry["pod"], []).append(address)
    return pods


def test_ipamctl_finds_nothing_to_complain_about_in_what_calico_assigned(mixed):
    """The same pods, served by Calico's plugin."""
    Pods(mixed, "theirs").put_endpoints()
    assert [] == mixed.records().findings
    said = mixed.ipamctl.say("ipam", "check")
    assert "IPAM blocks record 8 allocations.\n" in said
    assert "Check complete; found 0 problems.\n" in said


@pytest.mark.parametrize("maker", ["ours", "theirs"])
def test_both_draw_the_same_table(mixed, maker):
    """Whoever assigned; v3.28 has no column for what is reserved."""
    Pods(mixed, maker)
    theirs = mixed.calicoctl.table("ipam", "show", "--show-blocks")
    ours = mixed.ipamctl.table("ipam", "show", "--show-blocks")
    assert theirs == [row[:4] + row[5:] for row in ours]


@pytest.mark.parametrize(("maker", "operator"), [("ours", "calicoctl"), ("theirs", "ipamctl")])
def test_del_is_fine_when_the_others_tool_has_released_the_address(mixed, maker, operator):
    """Of two addresses the other one is still there until then; then nothing is."""
    node = getattr(mixed, maker)()
    netconf = node.netconf(ipam=BOTH)
    four, six = node.call("ADD", "c1", netconf).addresses

    getattr(mixed, operator).say("ipam", "release", f"--ip={four}")

    records = mixed.records()
    assert {six: "net.c1"} == records.allocations
    assert [] == records.findings
    assert 0 == node.call("DEL", "c1", netconf).status
    assert ({}, []) == (mixed.records().allocations, mixed.records().handles)


@pytest.mark.parametrize(("maker", "operator"), [("ours", "calicoctl"), ("theirs", "ipamctl")])
def test_the_others_tool_releases_the_only_address_with_its_handle(mixed, maker, operator):
    """DEL is fine afterwards, and the address can be given again."""
    node = getattr(mixed, maker)()
    address = node.call("ADD", "c1").address

    getattr(mixed, operator).say("ipam", "release", f"--ip={address}")

    assert [] == mixed.records().handles
    assert 0 == node.call("DEL", "c1").status
    assert [] == mixed.records().findings
    assert address == node.call("ADD", "c2", CNI_ARGS=f"IP={address}").address
