"""BIRD's configuration from the records, and the file that it is written to."""

from __future__ import annotations

import errno
import json
import os
import stat
from types import SimpleNamespace

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import PENDING
from cni_ipam.ctl.bird import KeptBird, describe_change, write_file
from cni_ipam.ctl.bird_socket import BirdDown
from cni_ipam.ctl.networks import NodeSettings
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Entry, Write
from cni_ipam.errors import OperatorError
from tests.ctl.bird_records import (
    OURS,
    OWN,
    config,
    give,
    make_world,
    neighbors,
    resource,
    write_network,
)


@pytest.fixture
def world(operator):
    """Two nodes with addresses, a hidden and an exported pool, a block of each on node1."""
    return make_world(operator)


# The configuration


def test_peers_hear_the_own_blocks_of_exported_pools(world):
    """Not those of another node, and none of a hidden pool."""
    give(world, resource("BGPPeer", "router", peerIP="172.20.34.231", asNumber=64513))
    text = config(world).out
    assert f"  if net ~ [ {OWN} ] then accept;  # own blocks\n" in text
    assert "  if net ~ [ 100.96.0.0/11+ ] then reject;  # disableBGPExport\n" in text
    assert "198.19.24.192" not in text
    assert "neighbor 172.20.34.231 as 64513;" in text
    assert "protocol bgp Mesh_172_20_58_2 from peer4" in text


def test_a_pending_block_is_told_to_nobody(world):
    """Pending is absent."""
    key = keys.affinity_key("node1", keys.parse_cidr("198.19.24.200/29"))
    world.write(Write(key, json.dumps({"state": PENDING, "deleted": False}), ABSENT))
    assert "198.19.24.200" not in config(world).out


def test_the_networks_decide_who_owns_the_blackholes(world):
    """With `routes.blackhole` false BIRD has them as static routes."""
    assert "blackhole;" not in config(world).out
    write_network(world, blackhole=False)
    assert f"  route {OWN} blackhole;\n" in world.types("routes", "bird-config").out


def test_over_a_bridges_pods_bird_puts_no_blackhole(world):
    """Its network makes none either, and peers hear of the blocks all the same."""
    write_network(world, kind="bridge")
    text = world.types("routes", "bird-config").out
    assert f"  route {OWN} blackhole;\n" in text
    assert "    export where source = RTS_BGP;\n" in text


def test_beside_a_bridge_bird_holds_the_blocks_of_other_networks_pods(world):
    """Neither one with a pod of the bridge nor an empty one, whose next pod may be."""
    write_network(world, blackhole=False)
    write_network(world, "bridged", kind="bridge")
    for network, block in (("net", "198.19.24.200/29"), ("bridged", "198.19.24.208/29")):
        world.claim(block, count=1, handle=f"{network}.c1", node="node1", network=network)
    text = world.types("routes", "bird-config").out
    assert 4 == text.count(" blackhole;")
    assert (
        "    export where source = RTS_BGP || (source = RTS_STATIC && "
        f"!(net ~ [ 100.106.133.192/26, {OWN}, 198.19.24.208/29 ]));\n"
    ) in text


def test_routes_where_bird_does_not_read_them_are_named(world):
    """It reads and fills one table."""
    write_network(world, table=100)
    assert (
        "left out: routes.table 100: peers hear of no route in it, as BIRD reads table 254 alone: "
        "leave routes.table out\n"
    ) == world.types("routes", "bird-config").err


def test_nothing_is_said_of_the_table_that_bird_reads(world):
    """Not even if it is set."""
    write_network(world, table=254)
    assert "" == world.types("routes", "bird-config").err


def test_the_settings_reach_the_text(world):
    """Everybody's AS number and port, no mesh, a node's own port and interfaces."""
    give(
        world,
        resource("BGPConfiguration", "default", asNumber=64500, nodeToNodeMeshEnabled=False),
        resource(
            "BGPConfiguration",
            "node.node1",
            listenPort=1179,
            bindMode="NodeIP",
            ignoredInterfaces=["dummy0"],
        ),
        resource("BGPPeer", "two", peerSelector="all()", maxRestartTime="10s", ttlSecurity=2),
    )
    text = config(world).out
    assert "Mesh" not in text
    assert "  local 172.20.58.1 port 1179 as 64500;\n  neighbor 172.20.58.2 as 64500;\n" in text
    assert "  strict bind;\n" in text
    assert '-"dummy0"' in text
    assert "  multihop 2;\n  ttl security on;\n" in text
    assert "  graceful restart time 10;\n" in text
    assert "  neighbor 172.20.58.1 port 1179 as 64500;\n" in config(world, "node2").out


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (
            {"peerIP": "10.0.0.1", "asNumber": 1, "password": {"secretKeyRef": {"key": "k"}}},
            "password is not supported: BIRD's file would have to hold it",
        ),
        (
            {"peerIP": "10.0.0.1", "asNumber": 1, "filters": ["f"]},
            "filters is not supported: there are no BGPFilters here",
        ),
        (
            {"peerIP": "10.0.0.1", "asNumber": 1, "reachableBy": "10.0.0.2"},
            "reachableBy is not supported: give the node a route to the peer instead",
        ),
        ({"peerIP": "10.0.0.1"}, "asNumber is missing"),
        ({"asNumber": 1}, "it has neither peerIP nor peerSelector"),
    ],
)
def test_a_peer_that_bird_cannot_have_is_left_out_and_named(world, spec, reason):
    """The others, and the blocks, work: a mistyped peer must not stop a withdrawal."""
    give(world, resource("BGPPeer", "bad", **spec))
    result = config(world)
    assert (0, f"left out: BGPPeer(bad): {reason}\n") == (result.status, result.err)
    assert "10.0.0.1" not in result.out
    assert "Mesh_172_20_58_2" in result.out


def test_records_that_break_their_rules_are_left_out_and_named(world):
    """Whoever wrote them."""
    bad = resource("BGPPeer", "bad", peerIP="10.0.0", asNumber=1)
    world.write(
        Write(keys.BGP_PEERS + "bad", json.dumps(bad), ABSENT),
        Write(keys.BGP_PEERS + "worse", "{", ABSENT),
    )
    result = config(world)
    assert "left out: BGPPeer(bad): PeerIP = '10.0.0' (" in result.err
    assert "bgppeers/worse" in result.err
    assert "Mesh_172_20_58_2" in result.out


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"asNumber": "x"}, "spec.asNumber = 'x' (invalid AS Number format (x))"),
        ({"asNumber": True}, "spec.asNumber = 'True' (invalid AS Number format (True))"),
        (
            {"ignoredInterfaces": [100]},
            "spec.ignoredInterfaces[0] = '100' (must be a string)",
        ),
    ],
)
def test_settings_that_break_their_rules_are_refused(world, spec, reason):
    """As a whole: without them each session might have another AS number."""
    bad = resource("BGPConfiguration", "default", **spec)
    world.write(Write(keys.BGP_CONFIGURATIONS + "default", json.dumps(bad), ABSENT))
    result = config(world)
    assert (1, "") == (result.status, result.out)
    assert f"BGPConfiguration(default): {reason}\n" == result.err


def test_of_a_pool_only_its_range_matters(world):
    """One that breaks other rules is told all the same, as its pods are there."""
    odd = {"cidr": "10.1.0.0/24", "blockSize": 99, "nodeSelector": "all("}
    world.write(
        Write(keys.POOLS + "odd", json.dumps(resource("IPPool", "odd", **odd)), ABSENT),
        Write(keys.POOLS + "bad", json.dumps(resource("IPPool", "bad", cidr="x")), ABSENT),
    )
    result = config(world)
    assert "10.1.0.0/24+" in result.out
    assert "left out: IPPool(bad): spec.cidr (invalid CIDR address: x)\n" == result.err


def test_of_a_node_only_its_bgp_settings_matter(world):
    """One that breaks them is no peer."""
    bad = resource("Node", "node5", bgp={"ipv4Address": "10.0.0"})
    world.write(Write(keys.NODES + "node5", json.dumps(bad), ABSENT))
    result = config(world)
    assert "left out: Node(node5): IPv4Address = '10.0.0' (" in result.err
    assert "Mesh_172_20_58_2" in result.out


@pytest.mark.parametrize("address", ["::", "fe80::1", "[fe80::1]:179", "224.0.0.1"])
def test_a_peer_whose_address_bird_cannot_use_is_left_out_and_named(world, address):
    """BIRD would refuse the whole file."""
    bad = resource("BGPPeer", "bad", peerIP=address, asNumber=1)
    world.write(Write(keys.BGP_PEERS + "bad", json.dumps(bad), ABSENT))
    result = config(world)
    assert f"left out: BGPPeer(bad): PeerIP = '{address}' (" in result.err
    assert ["172.20.58.2"] == neighbors(result.out)


def test_an_address_that_bird_cannot_use_is_left_out_of_its_node(world):
    """The node keeps the other one, whoever wrote the record."""
    bgp = {"ipv4Address": "172.20.58.5/19", "ipv6Address": "fe80::5/64"}
    odd = resource("Node", "node5", bgp=bgp)
    world.write(Write(keys.NODES + "node5", json.dumps(odd), ABSENT))
    result = config(world)
    assert (
        "left out: Node(node5): ipv6Address = fe80::5/64: BIRD cannot use a link-local address of "
        "IPv6: it must be a single machine's, global or private\n"
    ) == result.err
    assert ["172.20.58.2", "172.20.58.5"] == neighbors(result.out)


def test_a_reflectors_cluster_has_an_ipv4_address(world):
    """However it is spelled."""
    bgp = {"ipv4Address": "172.20.58.1/19", "routeReflectorClusterID": "::ffff:1.0.0.1"}
    give(
        world,
        resource("Node", "node1", bgp=bgp),
        resource("BGPPeer", "all", peerSelector="all()"),
    )
    assert "  rr cluster id 1.0.0.1;\n" in config(world).out


@pytest.mark.parametrize("text", ["4096s", "2562047h"])
def test_a_restart_time_that_bgp_cannot_tell_is_left_out_of_its_peer(world, text):
    """It has 12 bits there; the session has BIRD's own."""
    give(world, resource("BGPPeer", "slow", peerIP="10.0.0.1", asNumber=1, maxRestartTime=text))
    result = config(world)
    assert (
        f"left out: BGPPeer(slow): maxRestartTime {text} is not heeded: BGP has at most 4095s, and "
        "BIRD's own 120s stand\n"
    ) == result.err
    assert ["10.0.0.1", "172.20.58.2"] == neighbors(result.out)
    assert "graceful restart time" not in result.out


def test_the_longest_restart_time_is_told(world):
    """All of its 12 bits."""
    give(world, resource("BGPConfiguration", "default", nodeMeshMaxRestartTime="4095s"))
    result = config(world)
    assert "" == result.err
    assert "  graceful restart time 4095;\n" in result.out


def test_a_restart_time_that_bgp_cannot_tell_is_left_out_of_the_mesh(world):
    """The mesh itself is there."""
    give(world, resource("BGPConfiguration", "default", nodeMeshMaxRestartTime="2h"))
    result = config(world)
    assert "left out: BGPConfiguration(default): nodeMeshMaxRestartTime 2h is not" in result.err
    assert ["172.20.58.2"] == neighbors(result.out)
    assert "graceful restart time" not in result.out


@pytest.mark.parametrize("kind", ["BGPPeer", "Node"])
def test_a_record_whose_as_number_is_true_is_left_out_and_named(world, kind):
    """As any other that breaks its rules."""
    specs = {
        "BGPPeer": {"peerIP": "10.0.0.1", "asNumber": True},
        "Node": {"bgp": {"ipv4Address": "10.0.0.1", "asNumber": True}},
    }
    prefix = {"BGPPeer": keys.BGP_PEERS, "Node": keys.NODES}[kind]
    world.write(Write(prefix + "odd", json.dumps(resource(kind, "odd", **specs[kind])), ABSENT))
    result = config(world)
    assert f"left out: {kind}(odd): spec.asNumber = 'True' (" in result.err
    assert ["172.20.58.2"] == neighbors(result.out)


def test_settings_that_are_not_heeded_are_named(world):
    """Services and communities; and a mesh whose password nobody here knows is none."""
    give(
        world,
        resource(
            "BGPConfiguration",
            "default",
            serviceClusterIPs=[{"cidr": "10.96.0.0/12"}],
            nodeMeshPassword={"secretKeyRef": {"name": "a", "key": "b"}},
        ),
    )
    result = config(world)
    assert result.err == (
        "left out: BGPConfiguration(default): serviceClusterIPs is not heeded: services are not "
        "advertised\n"
        "left out: BGPConfiguration(default): nodeMeshPassword is not supported, so there is no "
        "mesh\n"
    )
    assert "Mesh" not in result.out


def test_a_pools_tunnels_are_named(world):
    """Its routes lead to the nodes themselves."""
    give(world, resource("IPPool", "tunnels", cidr="10.0.0.0/24", ipipMode="Always"))
    result = config(world)
    assert "left out: IPPool(tunnels): ipipMode is not heeded: there are no tunnels\n" == result.err
    assert "10.0.0.0/24+" in result.out


# The file


def test_the_configuration_can_be_written_to_a_file(world):
    """For everybody to read, as BIRD is not root."""
    path = world.folder / "bird.conf"
    result = config(world, "node1", "-o", str(path))
    assert (0, "") == (result.status, result.out)
    assert config(world).out == path.read_text()
    assert 0o644 == stat.S_IMODE(path.stat().st_mode)


def test_a_file_keeps_its_mode_and_a_link_its_place(tmp_path):
    """And nothing else is left in the folder."""
    real = tmp_path / "real.conf"
    real.write_text("old")
    real.chmod(0o640)
    (tmp_path / "bird.conf").symlink_to(real)
    write_file(str(tmp_path / "bird.conf"), "new")
    assert ("new", 0o640) == (real.read_text(), stat.S_IMODE(real.stat().st_mode))
    assert ["bird.conf", "real.conf"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    """With the system's reason."""
    path = tmp_path / "none" / "bird.conf"
    with pytest.raises(OperatorError, match=f"{path} cannot be written: No such file or directory"):
        write_file(str(path), "new")


def test_a_change_is_told_by_its_blocks_and_peers():
    """What is new and what is gone."""
    before = "route 198.19.24.184/29 blackhole; protocol bgp Mesh_10_0_0_1 from"
    after = "route 198.19.24.192/29 blackhole; protocol bgp Mesh_10_0_0_1 from"
    assert "with 198.19.24.192/29; without 198.19.24.184/29" == describe_change(before, after)
    assert "other settings" == describe_change(before, before + " x")


def test_a_change_names_the_pools_that_are_hidden_or_exported_again(world):
    """Their blocks are named as before."""

    def text(*, is_hidden: bool) -> str:
        spec = {"cidr": "198.19.24.0/21", "blockSize": 29, "disableBGPExport": is_hidden}
        give(world, resource("IPPool", "external-pool", **spec))
        return config(world).out

    write_network(world, blackhole=False)
    before, after = text(is_hidden=False), text(is_hidden=True)
    assert describe_change(before, after).endswith("no longer exported: 198.19.24.0/21")
    assert describe_change(after, before).endswith("exported again: 198.19.24.0/21")


def test_a_file_that_is_a_mount_point_is_written_in_place(tmp_path, monkeypatch):
    """As nothing can be renamed to it; the draft is gone."""

    def refuse(_old: str, _new: str) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "bird.conf"
    path.write_text("a longer old text")
    inode = path.stat().st_ino
    write_file(str(path), "new")
    assert ("new", inode) == (path.read_text(), path.stat().st_ino)
    assert [path] == list(tmp_path.iterdir())


# The watch


@pytest.mark.parametrize(("unheld", "expected"), [(["bridged"], True), ([], False)])
def test_whose_pods_are_in_a_block_matters_only_beside_a_bridge(world, unheld, expected):
    """Then BIRD's blackhole has to go before a pod of the bridge is hidden by it."""
    node = NodeSettings("node1", "", 0.0, OURS, None, frozenset(unheld))
    kept = KeptBird(lambda: node, SimpleNamespace(store=None), "bird.conf", "bird.ctl")
    theirs, ours = [
        Entry(keys.block_key(parse_cidr(block)), f'{{"affinity": "host:{host}"}}', 1)
        for host, block in (("node2", "198.19.24.192/29"), ("node1", OWN))
    ]
    assert (expected, False) == (kept.concerns(ours), kept.concerns(theirs))


def test_records_are_read_again_when_a_change_is_told(world):
    """Not each time that BIRD, which is away, is tried again."""
    path, store = world.folder / "bird.conf", world.store()
    node = NodeSettings("node1", "", 0.0, OURS, None, frozenset())
    session = SimpleNamespace(store=store)
    kept = KeptBird(lambda: node, session, str(path), str(world.folder / "bird.ctl"))

    def follow() -> str:
        with pytest.raises(BirdDown):
            kept.follow()
        return path.read_text()

    before = follow()
    world.claim("198.19.24.200/29")
    assert before == follow()
    kept.note_change()
    assert f"[ {OWN}, 198.19.24.200/29 ]" in follow()
    store.close()


def test_settings_that_changed_make_another_configuration(world):
    """By records that are read for them."""
    path, store = world.folder / "bird.conf", world.store()
    nodes = [NodeSettings(name, "", 0.0, OURS, None, frozenset()) for name in ("node2", "node1")]
    session = SimpleNamespace(store=store)
    kept = KeptBird(lambda: nodes[-1], session, str(path), str(world.folder / "bird.ctl"))
    with pytest.raises(BirdDown):
        kept.follow()
    assert OWN in path.read_text()

    nodes.pop()

    with pytest.raises(BirdDown, match="is ready for its start"):
        kept.follow()
    assert OWN not in path.read_text()
    store.close()
