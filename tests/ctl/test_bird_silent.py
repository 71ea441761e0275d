"""BIRD on a node that cannot speak BGP, as it has no Node or no address: it is silent, and does not
go on with what was right when it could."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from cni_ipam.ctl.bird import KeptBird
from cni_ipam.ctl.bird_socket import BirdDown
from cni_ipam.ctl.networks import NodeSettings
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Range, Write
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


def delete_record(world, key: str) -> None:
    """As other programs do, which leave the rest as it is."""
    store = world.store()
    ((entry,),) = store.read([Range(key)])
    store.commit([Write(key, None, entry.revision)])
    store.close()


@pytest.mark.parametrize(
    ("node", "reason", "command"),
    [
        (
            "node3",
            "its spec.bgp has no address",
            'ipamctl patch node node3 -p \'{"spec": {"bgp": {"ipv4Address": "192.0.2.1/24"}}}\'',
        ),
        (
            "node4",
            "there is no such Node",
            (
                "echo '{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node4}, "
                "spec: {bgp: {ipv4Address: 192.0.2.1/24}}}' | ipamctl apply -f -"
            ),
        ),
    ],
)
def test_a_node_without_an_address_has_no_sessions_and_is_told_how_to_say_it(
    world, node, reason, command
):
    """By the command that does it."""
    give(world, resource("Node", "node3"), resource("BGPPeer", "r", peerIP="10.0.0.1", asNumber=1))
    result = config(world, node)
    assert (0, []) == (result.status, neighbors(result.out))
    assert (
        f"left out: all sessions: Node({node}) cannot speak BGP: {reason}; say its address with "
        f"`{command}`, or in Kubernetes with "
        f"`kubectl annotate node {node} projectcalico.org/IPv4Address=192.0.2.1/24`\n"
    ) == result.err


def test_the_advice_for_a_node_that_is_missing_works(world):
    """As it is told."""
    (told,) = re.findall("echo '(.*)' [|] ipamctl apply -f -", config(world, "node4").err)
    assert 0 == world.types("apply", "-f", "-", stdin=told).status
    assert ["172.20.58.1", "172.20.58.2"] == neighbors(config(world, "node4").out)


def test_a_file_without_sessions_has_the_blocks_that_are_still_the_nodes(world):
    """Until they are given up; what BIRD has put into the kernel goes with them."""
    write_network(world, blackhole=False)
    path = world.folder / "bird.conf"
    delete_record(world, keys.NODES + "node1")
    world.types("routes", "bird-config", "-o", str(path))
    assert f"  route {OWN} blackhole;\n" in path.read_text()
    assert 0 == world.types("ipam", "release", "--node", "node1").status
    world.types("routes", "bird-config", "-o", str(path))
    assert ([], 0) == (neighbors(path.read_text()), path.read_text().count(" blackhole;"))
    kernels = re.findall(r"protocol kernel (\w+)", path.read_text())
    assert ["kernel4", "kernel6"] == kernels


def test_a_broken_record_of_the_node_itself_leaves_the_file_as_it_is(world):
    """Nobody knows whether it should be silent."""
    path = world.folder / "bird.conf"
    path.write_text("old")
    world.write(Write(keys.NODES + "node5", "{", ABSENT))
    result = config(world, "node5", "-o", str(path))
    assert (1, "old") == (result.status, path.read_text())
    assert "whether Node(node5) speaks BGP cannot be told: the record " in result.err


def test_a_datastore_with_no_nodes_and_no_blocks_leaves_the_file_as_it_is(operator):
    """It may be the wrong one, or not be there at all."""
    path = operator.folder / "bird.conf"
    path.write_text("old")
    result = config(operator, "node1", "-o", str(path))
    assert (1, "old") == (result.status, path.read_text())
    assert "Node(node1) cannot speak BGP: there is no Node at all, and no block\n" in result.err


def test_a_node_whose_only_address_bird_cannot_use_is_told_why(world):
    """Instead of that it has none."""
    odd = resource("Node", "node5", bgp={"ipv6Address": "fe80::5/64"})
    world.write(Write(keys.NODES + "node5", json.dumps(odd), ABSENT))
    result = config(world, "node5")
    assert (0, []) == (result.status, neighbors(result.out))
    assert "Node(node5) cannot speak BGP: BIRD can use no address of its spec.bgp;" in result.err
    assert "left out: Node(node5): ipv6Address = fe80::5/64: BIRD cannot use" in result.err


def test_a_node_whose_bgp_settings_are_empty_has_no_address(world):
    """They can be read, though nobody may write them so."""
    odd = resource("Node", "node5", bgp={"ipv4Address": ""})
    world.write(Write(keys.NODES + "node5", json.dumps(odd), ABSENT))
    result = config(world, "node5")
    assert (0, []) == (result.status, neighbors(result.out))
    assert "Node(node5) cannot speak BGP: its spec.bgp has no address;" in result.err


def test_a_node_that_is_deleted_takes_the_sessions_out_of_the_file(world, capsys):
    """That is told once, however often BIRD is tried again."""
    path, store = world.folder / "bird.conf", world.store()
    node = NodeSettings("node1", "", 0.0, OURS, None, frozenset())
    session = SimpleNamespace(store=store)
    kept = KeptBird(lambda: node, session, str(path), str(world.folder / "bird.ctl"))
    with pytest.raises(BirdDown):
        kept.follow()
    assert ["172.20.58.2"] == neighbors(path.read_text())
    world.types("delete", "node", "node1")
    capsys.readouterr()
    for _ in range(2):
        kept.note_change()
        with pytest.raises(BirdDown, match="is ready for its start"):
            kept.follow()
    told = capsys.readouterr().err.splitlines()
    assert ([], 1) == (neighbors(path.read_text()), len(told))
    assert told[0].startswith("left out: all sessions: Node(node1) cannot speak BGP: there is no")
    store.close()
