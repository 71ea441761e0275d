"""BIRD beside a bridge without the chained role: pods lie behind the bridge's own route, which a
blackhole of their block would hide; routers hear of the block all the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.bird import PATIENCE_SECONDS, Bird, with_bird
from integration.network import becomes_true, find_obstacle, pings
from integration.routes.bgp import give_address, resource
from integration.routes.keeping import BRIDGE, NODE, POOL, KeptNode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Lab, Namespace

OBSTACLE = find_obstacle()
pytestmark = [with_bird, pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")]

ROUTER_CONFIG = """
router id 192.0.2.254;
protocol device {}
protocol direct { ipv4; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol bgp node1 {
  local as 64513; neighbor 192.0.2.1 as 64512; passive; multihop;
  ipv4 { import all; export none; };
}
"""


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> KeptNode:
    """A node whose one network is a bridge, with the usual settings of routes."""
    return KeptNode(lab, tmp_path, BRIDGE, chained=False)


@pytest.fixture
def router(lab: Lab, node: KeptNode, tmp_path: Path) -> Iterator[Bird]:
    """A router with a BIRD that waits for the node's."""
    space = lab.namespace("router")
    lab.veth(node.namespace, "eth0", space, "eth0")
    give_address(node.namespace, "eth0", "192.0.2.1/24")
    give_address(space, "eth0", "192.0.2.254/24")
    node.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    with Bird("router", space, tmp_path) as made:
        made.start(ROUTER_CONFIG)
        yield made


def add(node: KeptNode, network: str) -> tuple[Namespace, str, str]:
    """A pod, its address, and its block."""
    pod = node.lab.namespace("pod")
    address = node.add(network, pod)["ips"][0]["address"].partition("/")[0]
    head, _, last = address.rpartition(".")
    return pod, address, f"{head}.{int(last) & ~7}/29"


def start_bird(node: KeptNode, bird: Bird) -> None:
    """The node's BIRD, with the configuration that ipamctl makes for it."""
    peer = resource("BGPPeer", "router", {"peerIP": "192.0.2.254", "asNumber": 64513})
    speaker = resource("Node", NODE, {"bgp": {"ipv4Address": "192.0.2.1/24"}})
    path = node.var_lib / "resources.json"
    path.write_text(json.dumps([peer, speaker]))
    for words in (("apply", "-f", str(path)), ("routes", "bird-config", "-o", str(bird.config))):
        done = node.ipamctl(*words)
        assert 0 == done.returncode, done.stderr
    bird.start()


def blackholes(node: KeptNode) -> list[str]:
    """The lines of `ip route` about blackholes."""
    lines = [line.strip() for line in node.ip("route").splitlines()]
    return sorted(line for line in lines if line.startswith("blackhole"))


def test_the_pods_of_a_bridge_stay_reachable(node, router, tmp_path):
    """From the node and from the router, which hears of their block; nobody makes a blackhole."""
    pod, address, block = add(node, "net")
    assert pings(node.namespace, address)
    with Bird(NODE, node.namespace, tmp_path) as bird:
        start_bird(node, bird)
        assert becomes_true(lambda: {block} == router.prefixes(4, "node1"), PATIENCE_SECONDS)
        assert [] == blackholes(node)
        assert pings(node.namespace, address)
        assert pings(router.namespace, address)
        assert pings(pod, "10.9.0.1")


def test_beside_birds_blackholes_a_bridge_gets_none(node, router, tmp_path):
    """The other network's block has BIRD's; routers hear of both."""
    node.make_network("held", routes={"blackhole": False})
    node.make_network("net", BRIDGE, POOL, chained=False, routes={"blackhole": False})
    (_, address, block), (_, other, held) = add(node, "net"), add(node, "held")
    with Bird(NODE, node.namespace, tmp_path) as bird:
        start_bird(node, bird)
        assert becomes_true(lambda: {block, held} == router.prefixes(4, "node1"), PATIENCE_SECONDS)
        assert becomes_true(lambda: [f"blackhole {held} proto bird"] == blackholes(node))
        assert pings(router.namespace, address)
        assert pings(router.namespace, other)
