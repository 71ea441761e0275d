"""Nodes that tell each other their blocks, without any router: the node-to-node mesh."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from integration.bird import with_bird
from integration.network import becomes_true, find_obstacle, pings
from integration.routes.bgp import Network, give_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OBSTACLE = find_obstacle()
pytestmark = [with_bird, pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")]

BLOCK, ADDRESS, LENT = "198.19.24.184/29", "198.19.24.186", "198.19.24.187"
OTHER_BLOCK, OTHER = "198.19.24.200/29", "198.19.24.202"


@pytest.fixture(params=[True, False], ids=["birds", "ours"])
def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    """Two nodes with a link between them, on which they speak BGP to each other alone."""
    with Network(tmp_path, bird_owns=request.param) as made:
        first, second = made.nodes
        made.lab.veth(first.space, "eth1", second.space, "eth1")
        for number, node in enumerate(made.nodes, 1):
            addresses = (f"10.9.0.{number}/24", f"fd00:9::{number}/64")
            give_address(node.space, "eth1", *addresses)
            bgp = {"ipv4Address": addresses[0], "ipv6Address": addresses[1]}
            patch = json.dumps({"spec": {"bgp": bgp}})
            first.ipamctl("patch", "node", node.name, "-p", patch)
        first.ipamctl("delete", "bgppeer", "1-4", "1-6", "2-4", "2-6")
        first.ipamctl("delete", "bgpconfig", "default")
        for node in made.nodes:
            node.start_watch()
            node.bird.start()
        for node in made.nodes:
            node.bird.wait_established()
        yield made


def routes(node, prefix: str) -> list[tuple[str, str]]:
    """Where a node sends what is for a prefix, and who says so."""
    found = node.space.routes(6 if ":" in prefix else 4, "exact", prefix)
    return [(route.get("gateway", ""), route["protocol"]) for route in found]


def test_pods_of_two_nodes_reach_each_other(mesh):
    """By way of the other node, in both families, with the block as the only route."""
    first, second = mesh.nodes
    pods = [mesh.pod(), mesh.pod()]
    first.add(pods[0], ADDRESS, "fd00:198::45")
    second.add(pods[1], OTHER, "fd00:198::85")
    assert becomes_true(lambda: [("10.9.0.2", "bird")] == routes(first, OTHER_BLOCK))
    assert becomes_true(lambda: [("fd00:9::1", "bird")] == routes(second, "fd00:198::40/122"))
    assert becomes_true(lambda: [("10.9.0.1", "bird")] == routes(second, BLOCK))
    assert pings(pods[0], OTHER)
    assert pings(pods[1], "fd00:198::45")


def test_a_lent_address_is_reached_from_its_owners_node(mesh):
    """The borrower's single address goes before the owner's blackhole."""
    owner, borrower = mesh.nodes
    pods = [mesh.pod(), mesh.pod()]
    owner.add(pods[0], ADDRESS)
    borrower.add(pods[1], LENT)
    assert becomes_true(lambda: [("10.9.0.2", "bird")] == routes(owner, LENT))
    assert pings(pods[0], LENT)
    assert pings(pods[1], ADDRESS)


def test_the_sessions_are_called_a_mesh(mesh):
    """In calicoctl's words, in both families."""
    node = mesh.nodes[0]
    shown = node.ipamctl("node", "status", "--bird-socket", str(node.bird.socket))
    assert "| 10.9.0.2     | node-to-node mesh | up    |" in shown
    assert "| fd00:9::2    | node-to-node mesh | up    |" in shown


def test_nobody_takes_a_block_from_its_owner(mesh):
    """A node that still tells a block and a pod that are another's does not draw their traffic."""
    owner, liar = mesh.nodes
    owner.add(mesh.pod(), ADDRESS)
    assert becomes_true(lambda: [("10.9.0.1", "bird")] == routes(liar, BLOCK))
    before = [routes(owner, BLOCK), routes(owner, ADDRESS)]
    liar.watch.kill(signal.SIGTERM)
    liar.bird.kill()
    lies = f"route {BLOCK} blackhole; route {ADDRESS}/32 blackhole;"
    text = liar.bird.config.read_text()
    told = "filter to_peers4 {"
    text = text.replace(told, f'{told}\n  if proto = "lies" then accept;')
    liar.bird.start(f"{text}protocol static lies {{ ipv4; {lies} }}\n")
    assert becomes_true(lambda: {BLOCK, f"{ADDRESS}/32"} == liar.bird.prefixes(4, "lies"))
    owner.bird.wait_established()
    assert becomes_true(lambda: {f"{ADDRESS}/32"} == owner.bird.prefixes(4, "Mesh_10_9_0_2"))
    assert before == [routes(owner, BLOCK), routes(owner, ADDRESS)]
    (chosen,) = [
        line
        for line in owner.bird.birdc("show", "route", "primary").splitlines()
        if line.startswith(f"{ADDRESS}/32")
    ]
    assert "kernel4" in chosen
