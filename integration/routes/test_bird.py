"""BGP by BIRD 2: what a router hears of a node's blocks, and when it no longer does.

Both ways: BIRD owns the blackholes, or we own them and BIRD learns them."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from cni_ipam.ctl.bird import BirdKeeper
from cni_ipam.errors import OperatorError
from integration.bird import with_bird
from integration.network import becomes_true, find_obstacle
from integration.routes.bgp import Network, resource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OBSTACLE = find_obstacle()
pytestmark = [with_bird, pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")]

BLOCK = "198.19.24.184/29"
ADDRESS, NEIGHBOR = "198.19.24.186", "198.19.24.187"
BLOCK_SIX, ADDRESS_SIX = "fd00:198::40/122", "fd00:198::45"
BY_BIRD = pytest.mark.parametrize("network", [True], indirect=True, ids=["birds"])


@pytest.fixture(params=[True, False], ids=["birds", "ours"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    """Two nodes and a router, BIRD and the watch running; `birds`: BIRD owns the blackholes."""
    with Network(tmp_path, bird_owns=request.param) as made:
        made.start()
        yield made


def test_the_router_hears_one_block_and_none_of_the_hidden_pool(network):
    """However many pods it has; beyond the router it is reached, the other pod is not."""
    node = network.nodes[0]
    pods = [network.pod() for _ in range(3)]
    node.add(pods[0], ADDRESS, ADDRESS_SIX)
    node.add(pods[1], NEIGHBOR)
    (inner,) = node.add(pods[2])
    assert network.hears(1, {BLOCK})
    assert network.hears(1, {BLOCK_SIX}, 6)
    assert (set(), set()) == (network.told_by(2), network.told_by(2, 6))
    assert network.reaches(ADDRESS)
    assert network.reaches(NEIGHBOR)
    assert network.reaches(ADDRESS_SIX)
    ping = ("ping", "-n", "-q", "-c", "1", "-W", "1", inner)
    assert 0 != network.client.run(*ping, check=False).returncode


def test_the_blocks_blackhole_has_its_owners_mark(network):
    """`proto bird` as the document prints it, or our number; never both."""
    node = network.nodes[0]
    node.add(network.pod(), ADDRESS, ADDRESS_SIX)
    owner = "bird" if network.bird_owns else "85"
    four = [f"blackhole {BLOCK} proto {owner}"]
    six = [f"blackhole {BLOCK_SIX} dev lo proto {owner} metric 1024 pref medium"]
    assert becomes_true(lambda: (four, six) == (lines(node, 4), lines(node, 6))), [
        node.space.ip("route"),
        node.space.ip("-6", "route"),
    ]


def lines(node, version: int) -> list[str]:
    """The lines of `ip route` about a blackhole of the external pools."""
    found = node.space.ip(f"-{version}", "route").splitlines()
    return [line.strip() for line in found if "blackhole" in line and "198" in line.split()[1]]


def test_with_the_last_pod_the_block_is_withdrawn(network):
    """The pool selects no node, so its block goes with the last pod: from the router, and the
    blackhole from the node."""
    node, pods = network.nodes[0], [network.pod(), network.pod()]
    node.add(pods[0], ADDRESS)
    node.add(pods[1], NEIGHBOR)
    assert network.hears(1, {BLOCK})
    node.delete(pods[0])
    assert network.reaches(NEIGHBOR)
    assert {BLOCK} == network.told_by(1)
    node.delete(pods[1])
    assert network.hears(1, set())
    assert becomes_true(lambda: [] == lines(node, 4))


def test_a_borrowed_address_is_told_by_itself(network):
    """The owner tells the block, the borrower the address, which is the way to it; it is withdrawn
    with its pod."""
    owner, borrower = network.nodes
    pods = [network.pod(), network.pod()]
    owner.add(pods[0], ADDRESS)
    borrower.add(pods[1], NEIGHBOR)
    assert network.hears(1, {BLOCK})
    assert network.hears(2, {f"{NEIGHBOR}/32"})
    assert network.reaches(NEIGHBOR)
    assert network.reaches(ADDRESS)
    borrower.delete(pods[1])
    assert network.hears(2, set())
    assert {BLOCK} == network.told_by(1)


def test_a_block_that_goes_to_another_node_is_not_told_by_both(network):
    """The first withdraws it before, or within a round after the second has it."""
    first, second = network.nodes
    pods = [network.pod(), network.pod()]
    first.add(pods[0], ADDRESS)
    assert network.hears(1, {BLOCK})
    first.delete(pods[0])
    second.add(pods[1], NEIGHBOR)
    by_both = []

    def has_moved() -> bool:
        tellers = network.find_tellers(BLOCK)
        if len(tellers) == 2:
            by_both.append(time.monotonic())
        return tellers == {"node2"}

    assert becomes_true(has_moved), first.watch.read_tail()
    assert not by_both or by_both[-1] - by_both[0] < 1
    assert network.reaches(NEIGHBOR)


def test_traffic_outlives_the_death_of_bird(network):
    """The router keeps the routes for the time of a restart, the node its blackhole; afterwards the
    session is up again, with a block that came meanwhile."""
    node = network.nodes[0]
    node.add(network.pod(), ADDRESS)
    assert network.hears(1, {BLOCK})
    node.bird.kill()
    assert becomes_true(lambda: not network.router.is_established("node1"))
    assert network.reaches(ADDRESS)
    assert 1 == len(lines(node, 4))
    node.add(network.pod(), "198.19.24.202")
    log = node.watch.log
    assert becomes_true(lambda: "is ready for its start" in log.read_text()), log.read_text()
    node.bird.start()
    network.router.wait_established("node1")
    assert network.hears(1, {BLOCK, "198.19.24.200/29"})
    assert network.reaches("198.19.24.202")
    assert becomes_true(lambda: "works again" in log.read_text())


def test_a_bird_that_is_ended_takes_leave_of_nobodys_pods(network):
    """After SIGTERM the kernel keeps what BIRD put there."""
    node = network.nodes[0]
    node.add(network.pod(), ADDRESS)
    assert network.hears(1, {BLOCK})
    node.bird.kill(signal.SIGTERM)
    assert 1 == len(lines(node, 4))


@BY_BIRD
def test_a_pool_that_is_hidden_later_is_withdrawn(network):
    """By a patch, with running pods untouched."""
    node = network.nodes[0]
    node.add(network.pod(), ADDRESS)
    assert network.hears(1, {BLOCK})
    node.ipamctl("patch", "ippool", "external-pool", "-p", '{"spec": {"disableBGPExport": true}}')
    assert network.hears(1, set())
    assert 1 == len(lines(node, 4))
    node.ipamctl("patch", "ippool", "external-pool", "-p", '{"spec": {"disableBGPExport": false}}')
    assert network.hears(1, {BLOCK})


@BY_BIRD
def test_a_peer_comes_and_goes_with_its_resource(network):
    """And `node status` tells of it."""
    node = network.nodes[0]
    socket = ("--bird-socket", str(node.bird.socket))
    row = "| 192.168.1.1  | node specific | up    |"
    assert becomes_true(lambda: row in node.ipamctl("node", "status", *socket))
    node.ipamctl("delete", "bgppeer", "1-4")
    assert becomes_true(
        lambda: "IPv4 BGP status\nNo IPv4 peers found.\n" in node.ipamctl("node", "status", *socket)
    )
    node.apply(resource("BGPPeer", "1-4", {"peerIP": "192.168.1.1", "asNumber": 64513}))
    row = "| 192.168.1.1  | global    | up    |"
    assert becomes_true(lambda: row in node.ipamctl("node", "status", *socket))


@BY_BIRD
def test_what_bird_refuses_stays_out_of_its_file(network, tmp_path):
    """In its own words, and the session stays up."""
    bird = network.nodes[0].bird
    network.nodes[0].watch.kill(signal.SIGTERM)  # the keeper of the file is ours from now on
    keeper = BirdKeeper(str(bird.config), str(bird.socket))
    bird.wait_established()
    good = bird.config.read_text()
    keeper.update(good)
    with pytest.raises(OperatorError, match=r"refuses .*: .*bird\.conf:1:\d+ syntax error"):
        keeper.update(f"protocol nonsense;\n{good}")
    assert good == bird.config.read_text()
    assert bird.is_established()


@BY_BIRD
def test_a_file_that_bird_does_not_read_is_told(network, tmp_path):
    """Unless the one that it reads includes it."""
    bird = network.nodes[0].bird
    network.nodes[0].watch.kill(signal.SIGTERM)
    text = f"{bird.config.read_text()}protocol static another {{ ipv4; }}\n"
    path = tmp_path / "unread.conf"
    keeper = BirdKeeper(str(path), str(bird.socket))
    told = f"bird: BIRD reads {bird.config}, which does not include {path}"
    assert told == keeper.update(text)[-1]
    bird.config.write_text(f'include "{path}";\n')
    assert 1 == len(keeper.update(f"{text}# included\n"))
    assert "another" in bird.protocols()
