"""Operators' stories on a real cluster, under the plugin's own role: pods choose their pools.

What is typed is what the documents and conf/ have: the pools of integration/kind/pools.yaml (an
administrator's pool for infrastructure, next to the ordinary one), and the annotations of "legacy
firewalls" on pods and namespaces.
"""

from __future__ import annotations

import ipaddress

import pytest

from integration.cluster.node import put_pool, read_records, second_node
from integration.cluster.own_network import (
    KUBECONFIG,
    ask_for,
    becomes_empty,
    find_pod_addresses,
    granted,
    install_network,
    read_network,
    ready,
)
from integration.cluster.pods import NODE
from integration.network import ROOT, Node, pings

__all__ = ["granted", "ready"]

POOLS = ROOT / "integration" / "kind" / "pools.yaml"
DEFAULT = ipaddress.ip_network("10.244.0.0/16")
INFRASTRUCTURE = ipaddress.ip_network("172.16.0.0/16")
RUNNER = ask_for(ipv4pools=["infraestrutura"])
OTHER_NODE, OTHER_ADDRESS, NODE_ADDRESS = "node2", "192.0.2.2", "192.0.2.1"
BOTH_FAMILIES = {"assign_ipv4": "true", "assign_ipv6": "true"}


def lies_in(address, *networks):
    """Whether an address is of one of these networks."""
    found = ipaddress.ip_address(address)
    return any(found in ipaddress.ip_network(network) for network in networks)


@pytest.fixture
def stocked(ready):
    """The two pools of the administrator's story."""
    ready.kubectl("apply", "-f", str(POOLS))
    return ready


@pytest.fixture
def firewalled(ready):
    """Two ranges that a firewall knows, in each family; pods have an address of each family."""
    network = read_network()
    network["plugins"][0]["ipam"] |= BOTH_FAMILIES
    install_network(ready, network)
    for number in (1, 2):
        put_pool(ready, f"pool-{number}", f"10.{number}.0.0/24", blockSize=28)
        put_pool(ready, f"pool-{number}-v6", f"fd00:{number}::/112", blockSize=124)
    return ready


def find_pools(cluster, name, namespace="default"):
    """The number of the pool that each of a pod's addresses is of, IPv4 before IPv6."""
    numbers = [
        next(n for n in (1, 2) if lies_in(address, f"10.{n}.0.0/24", f"fd00:{n}::/112"))
        for address in cluster.pod_ips(name, namespace)
    ]
    assert [4, 6] == [
        ipaddress.ip_address(address).version for address in cluster.pod_ips(name, namespace)
    ]
    return tuple(numbers)


def test_a_pool_for_infrastructure_next_to_the_tenants(stocked):
    """No node takes a block of it by itself; who names it gets an address of it, in blocks of 128,
    and both kinds of pods reach each other. What they had is free when they are gone."""
    first, second = stocked.run_pod("gitlab-runner-1"), stocked.run_pod("gitlab-runner-2")
    assert lies_in(first, DEFAULT)
    assert lies_in(second, DEFAULT)
    assert {26} == {block.cidr.prefix for block in read_records(stocked).blocks}
    stocked.create_namespace("gitlab-runners")
    runner = stocked.run_pod("runner-0", namespace="gitlab-runners", annotations=RUNNER)
    assert lies_in(runner, INFRASTRUCTURE)
    blocks = {block.cidr.prefix for block in read_records(stocked).blocks}
    assert {25, 26} == blocks
    assert sorted([first, second, runner]) == find_pod_addresses(read_records(stocked))
    assert "runner-0" == stocked.fetch("gitlab-runner-1", runner)
    assert "gitlab-runner-2" == stocked.fetch("runner-0", second, "gitlab-runners")
    stocked.delete_pods()
    assert becomes_empty(lambda: read_records(stocked)), read_records(stocked).findings


def test_annotations_of_a_pod_and_of_its_namespace(firewalled):
    """The namespace's count for all pods in it, the pod's before them, family by family; dual-stack
    pods reach each other over both families."""
    firewalled.create_namespace("team", ask_for(ipv4pools=["pool-2"], ipv6pools=["pool-2-v6"]))
    own = ask_for(ipv4pools=["pool-1"])
    firewalled.start_pod("of-namespace", namespace="team")
    firewalled.start_pod("of-both", namespace="team", annotations=own)
    own = ask_for(ipv4pools=["pool-1", "pool-2"], ipv6pools=["pool-2-v6"])
    firewalled.start_pod("of-pod", annotations=own)
    for name in ("of-namespace", "of-both"):
        firewalled.wait_running(name, "team")
    firewalled.wait_running("of-pod")
    assert (2, 2) == find_pools(firewalled, "of-namespace", "team")
    assert (1, 2) == find_pools(firewalled, "of-both", "team")
    assert find_pools(firewalled, "of-pod") in {(1, 2), (2, 2)}
    for address in firewalled.pod_ips("of-both", "team"):
        assert "of-both" == firewalled.fetch("of-pod", address)
    for address in firewalled.pod_ips("of-pod"):
        assert "of-pod" == firewalled.fetch("of-namespace", address, "team")
    firewalled.delete_pods()
    assert becomes_empty(lambda: read_records(firewalled)), read_records(firewalled).findings


def test_an_annotation_on_a_pod_that_runs_has_no_effect(stocked):
    """It must be present when the pod is created."""
    address = stocked.run_pod("a")
    stocked.kubectl("annotate", "pod", "a", *(f"{key}={text}" for key, text in RUNNER.items()))
    stocked.restart_kubelet()
    stocked.wait_running("a")
    assert [address] == find_pod_addresses(read_records(stocked))


@pytest.fixture
def elsewhere(stocked):
    """CNI_ARGS of a pod on a node that no kubelet serves."""
    with second_node(stocked, OTHER_NODE):
        stocked.start_pod("there", annotations=RUNNER, nodeName=OTHER_NODE)
        uid = stocked.pod("there")["metadata"]["uid"]
        yield (f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=there;K8S_POD_UID={uid}")
        stocked.kubectl("delete", "pod", "there", "--grace-period=0", "--force")


def test_two_nodes_share_the_pools(stocked, elsewhere, lab, tmp_path):
    """A simulated one beside the real one: blocks of its own, annotations from the API server,
    since its runtime passes none, and pods that reach each other once the blocks are routed."""
    node, pod = Node(lab, tmp_path, OTHER_NODE), lab.namespace("pod")
    stocked.connect(lab, node.namespace, OTHER_ADDRESS)
    node.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    node.write_network(make_network(stocked, tmp_path))
    here = stocked.run_pod("here", annotations=RUNNER)
    result = node.add("cni-ipam", pod, CNI_ARGS=elsewhere)
    there = result["ips"][0]["address"].partition("/")[0]
    blocks = {block.affinity: str(block.cidr) for block in read_records(stocked).blocks}
    mine, others = blocks[f"host:{NODE}"], blocks[f"host:{OTHER_NODE}"]
    assert lies_in(mine.partition("/")[0], INFRASTRUCTURE)
    assert lies_in(others.partition("/")[0], INFRASTRUCTURE)
    assert lies_in(here, mine)
    assert lies_in(there, others)
    node.namespace.ip("route", "add", mine, "via", NODE_ADDRESS)
    stocked.machine.namespace.ip("route", "add", others, "via", OTHER_ADDRESS)
    assert pings(pod, here)
    assert stocked.pings("here", there)
    assert 0 == node.cnitool("del", "cni-ipam", pod, CNI_ARGS=elsewhere).returncode
    assert [here] == find_pod_addresses(read_records(stocked))


def make_network(cluster, folder):
    """The network list of the simulated node: its own name and kubeconfig, without portmap."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_bytes(cluster.machine.path(KUBECONFIG).read_bytes())
    network = read_network()
    network["plugins"].pop()
    for plugin in network["plugins"]:
        plugin |= {"nodename": OTHER_NODE, "kubernetes": {"kubeconfig": str(kubeconfig)}}
    return network
