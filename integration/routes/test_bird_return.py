"""docs/routes.md, "A node that is dead": it comes back with its old disk, by which its BIRD would
still tell a block that is another node's by now.

Both ways: BIRD owns the blackholes, or we own them and BIRD learns them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.bird import with_bird
from integration.network import becomes_true, find_obstacle
from integration.routes.bgp import Network, bgp, resource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.routes.bgp import Speaker

OBSTACLE = find_obstacle()
pytestmark = [with_bird, pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")]

BLOCK, ADDRESS = "198.19.24.184/29", "198.19.24.186"
NEXT_BLOCK, NEXT = "198.19.24.200/29", "198.19.24.202"
NODE2 = resource("Node", "node2", {"bgp": bgp(2)})
SILENT = "left out: all sessions: Node(node2) cannot speak BGP: there is no such Node; "


@pytest.fixture(params=[True, False], ids=["birds", "ours"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    """node2 has died with a block, was given up, and node1 has the block."""
    with Network(tmp_path, bird_owns=request.param) as made:
        made.start()
        first, second = made.nodes
        second.add(made.pod(), ADDRESS)
        assert made.hears(2, {BLOCK})
        die(second)
        first.ipamctl("ipam", "release", "--node", "node2")
        first.ipamctl("delete", "node", "node2")
        first.add(made.pod(), ADDRESS)
        assert made.hears(1, {BLOCK})
        made.router.birdc("restart", "node2")  # instead of waiting for the end of its grace
        assert becomes_true(lambda: {"node1"} == made.find_tellers(BLOCK))
        yield made


def die(node: Speaker) -> None:
    """Its disk stays, what the kernel knew does not."""
    node.watch.kill()
    node.bird.kill()
    for protocol in ("bird", "85"):
        node.space.ip("route", "flush", "proto", protocol)
    assert BLOCK in node.bird.config.read_text()


def blackholes(node: Speaker) -> list[str]:
    """The block of each, as `ip` sees them."""
    return [route["dst"] for route in node.space.routes(4, "type", "blackhole")]


def test_by_the_steps_of_the_page_the_router_never_hears_what_is_lost(network):
    """The Node, the routes, the file, and then BIRD."""
    node = network.nodes[1]
    node.apply(NODE2)
    assert "nothing to change\n" == node.ipamctl("routes", "repair")
    node.ipamctl("routes", "bird-config", "-o", str(node.bird.config))
    node.bird.start()
    network.router.wait_established("node2")
    assert ({BLOCK}, set()) == (network.told_by(1), network.told_by(2))
    assert [] == blackholes(node)
    assert network.reaches(ADDRESS)
    node.add(network.pod(), NEXT)
    node.ipamctl("routes", "bird-config", "-o", str(node.bird.config))
    node.bird.birdc("configure")
    assert network.hears(2, {NEXT_BLOCK})


def test_without_its_node_the_file_has_no_sessions(network):
    """That is told, with what to do; BIRD takes it, and takes its own blackholes out."""
    node = network.nodes[1]
    node.space.ip("route", "add", "blackhole", BLOCK, "proto", "bird")
    done = node.node.ipamctl("routes", "bird-config", "-o", str(node.bird.config))
    assert (0, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(f"{SILENT}say its address with `echo '{{apiVersion: ")
    node.bird.start()
    assert becomes_true(lambda: [] == blackholes(node))
    assert [] == [name for name, found in node.bird.protocols().items() if found.kind == "BGP"]
    assert {"node1"} == network.find_tellers(BLOCK)


def test_the_watch_takes_back_what_an_old_file_tells(network):
    """BIRD was started by itself, before there is a Node; once there is, the session is back."""
    node = network.nodes[1]
    node.bird.start()
    network.router.wait_established("node2")
    if network.bird_owns:
        assert network.hears(2, {BLOCK})
    node.start_watch()
    assert becomes_true(lambda: {"node1"} == network.find_tellers(BLOCK)), node.watch.read_tail()
    assert becomes_true(lambda: not network.router.is_established("node2"))
    assert becomes_true(lambda: [] == blackholes(node))
    assert network.reaches(ADDRESS)
    node.apply(NODE2)
    network.router.wait_established("node2")
    assert ({BLOCK}, set()) == (network.told_by(1), network.told_by(2))
    assert 1 == node.watch.log.read_text().count(SILENT)
    node.add(network.pod(), NEXT)
    assert network.hears(2, {NEXT_BLOCK})
