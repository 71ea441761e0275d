"""Which BGP sessions a node has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_ipam.core.address import parse_address
from cni_ipam.routes.peers import (
    BgpNode,
    BgpSettings,
    Options,
    Peering,
    choose_sessions,
    find_unheeded,
)


def node(number: int, *, six: bool = False, **fields) -> BgpNode:
    """node1 has 192.0.2.1, and with `six` fd00::1."""
    addresses = {4: parse_address(f"192.0.2.{number}")}
    if six:
        addresses[6] = parse_address(f"fd00::{number}")
    return BgpNode(f"node{number}", addresses, **fields)


NODES = [node(1), node(2), node(3, labels={"rack": "1"})]
ALONE = BgpSettings(has_mesh=False)
ROUTER = parse_address("192.0.2.200")
UPLINK = Peering("uplink", address=ROUTER, as_number=64513)
EVERY_OPTION = (
    "sourceAddress, keepOriginalNextHop, maxRestartTime, numAllowedLocalASNumbers, ttlSecurity"
)
TWO_THINGS = "asNumber 5, ttlSecurity"


def names(own: BgpNode, peerings=(), settings=ALONE, nodes=NODES) -> list[str]:
    """What the sessions of a node are called."""
    return [session.name for session in choose_sessions(own, nodes, peerings, settings)]


def test_nodes_form_a_mesh():
    """Unless it is switched off."""
    assert ["Mesh_192_0_2_2", "Mesh_192_0_2_3"] == names(NODES[0], settings=BgpSettings())
    assert [] == names(NODES[0], settings=ALONE)


def test_of_two_nodes_in_a_mesh_one_waits_for_the_other():
    """Else both would abort the other's graceful restart. Texts are compared, as Calico does."""
    nodes = [node(9), node(10)]
    waits = {
        own.name: choose_sessions(own, nodes, (), BgpSettings())[0].is_passive for own in nodes
    }
    assert {"node9": False, "node10": True} == waits


def test_a_mesh_is_made_in_the_families_that_both_have():
    """A node without IPv6 has no session of it."""
    nodes = [node(1, six=True), node(2, six=True), node(3)]
    expected = ["Mesh_192_0_2_2", "Mesh_192_0_2_3", "Mesh_fd00__2"]
    assert expected == names(nodes[0], settings=BgpSettings(), nodes=nodes)


def test_a_reflector_is_in_no_mesh():
    """Neither from its own side nor from the others'."""
    nodes = [node(1, cluster_id="1.0.0.1"), node(2), node(3)]
    assert [] == names(nodes[0], settings=BgpSettings(), nodes=nodes)
    assert ["Mesh_192_0_2_3"] == names(nodes[1], settings=BgpSettings(), nodes=nodes)


def test_a_nodes_as_number_goes_before_everybodys():
    """In the mesh, where it makes the session an external one."""
    nodes = [node(1), node(2, as_number=64999), node(3)]
    found = choose_sessions(nodes[0], nodes, (), BgpSettings(as_number=64500))
    assert [64999, 64500] == [session.as_number for session in found]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["node1", "node2", "node3"]),
        ({"node": "node2"}, ["node2"]),
        ({"node_selector": "rack == '1'"}, ["node3"]),
        ({"node_selector": "rack == '2'"}, []),
    ],
)
def test_a_peering_is_for_the_nodes_on_its_local_side(fields, expected):
    """All, one by name, or those that a selector matches."""
    peering = replace(UPLINK, **fields)
    assert expected == [own.name for own in NODES if names(own, [peering])]


def test_the_name_of_a_session_tells_its_kind():
    """It is where calicoctl reads it; a port is in it, too."""
    special = replace(UPLINK, name="special", node="node1", port=1790)
    assert ["Global_192_0_2_200", "Node_192_0_2_200_port_1790"] == names(
        NODES[0], [special, UPLINK]
    )


def test_a_peering_of_every_node_goes_before_one_of_some():
    """Whatever they are called."""
    special = replace(UPLINK, name="a", node="node1", as_number=64999)
    (found,) = choose_sessions(NODES[0], NODES, [special, UPLINK], ALONE)
    assert ("Global_192_0_2_200", 64513) == (found.name, found.as_number)


@pytest.mark.parametrize(
    ("name", "fields", "loser", "lost", "winner"),
    [
        ("z", {"as_number": 64999}, "z", "asNumber 64999", "uplink"),
        ("a", {"as_number": 64999}, "uplink", "asNumber 64513", "a"),
        ("a", {"as_number": 64999, "node": "node1"}, "a", "asNumber 64999", "uplink"),
        ("z", {"options": Options(False, True, 1, 2, 3)}, "z", EVERY_OPTION, "uplink"),
        ("z", {"as_number": 5, "options": Options(ttl_hops=2)}, "z", TWO_THINGS, "uplink"),
    ],
)
def test_a_peering_that_another_goes_before_is_named(name, fields, loser, lost, winner):
    """With what is lost of it, and which one it is."""
    other = replace(UPLINK, name=name, **fields)
    reason = f"BGPPeer({winner}) goes first and says otherwise"
    expected = f"BGPPeer({loser}): not heeded for 192.0.2.200: {lost}: {reason}"
    assert [expected] == find_unheeded(NODES[0], NODES, [other, UPLINK], ALONE)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"node": "node1"},
        {"node": "node2", "as_number": 64999},
        {"port": 1790, "as_number": 64999},
        {"address": parse_address("192.0.2.201"), "as_number": 64999},
    ],
)
def test_peerings_that_agree_or_do_not_meet_are_no_matter(fields):
    """They say the same, or are for another node, port or address."""
    other = replace(UPLINK, name="z", **fields)
    assert [] == find_unheeded(NODES[0], NODES, [other, UPLINK], ALONE)


def test_a_peering_that_others_go_before_with_many_nodes_is_named_once():
    """A selector may match hundreds."""
    first, second = Peering("a", peer_selector="all()"), Peering("b", peer_selector="all()")
    second = replace(second, options=Options(restart_seconds=10))
    (line,) = find_unheeded(NODES[0], NODES, [first, second], ALONE)
    assert line.startswith("BGPPeer(b): not heeded for 192.0.2.2: maxRestartTime: BGPPeer(a) ")


def test_a_peering_with_two_nodes_of_one_address_does_not_go_before_itself():
    """Which of them has the session is no matter of peerings."""
    twins = [node(1), node(2), replace(node(2), name="twin", as_number=64999)]
    peering = Peering("all", peer_selector="all()")
    assert [] == find_unheeded(twins[0], twins, [peering], ALONE)


def test_a_peering_of_a_family_that_the_node_lacks_is_not_named():
    """Neither of the two has a session there."""
    first = replace(UPLINK, address=parse_address("fd00::200"))
    second = replace(first, name="z", as_number=64999)
    assert [] == find_unheeded(NODES[0], NODES, [first, second], ALONE)


def test_a_peering_with_a_node_takes_the_place_of_the_mesh():
    """Two sessions of the same two addresses would fight for one connection."""
    peering = Peering("pair", node="node1", address=parse_address("192.0.2.2"), as_number=64512)
    settings = BgpSettings()
    assert ["Mesh_192_0_2_3", "Node_192_0_2_2"] == names(NODES[0], [peering], settings)
    assert ["Mesh_192_0_2_3", "Node_192_0_2_1"] == names(NODES[1], [peering], settings)


def test_a_peering_between_nodes_is_turned_round():
    """Each end has to know of the other."""
    peering = Peering("rr", node="node1", peer_selector="rack == '1'")
    assert ["Node_192_0_2_3"] == names(NODES[0], [peering])
    assert [] == names(NODES[1], [peering])
    assert ["Node_192_0_2_1"] == names(NODES[2], [peering])


def test_a_peering_with_an_address_is_turned_round_if_the_as_number_is_right():
    """Another AS number at that address is somebody else's router."""
    right = Peering("pair", node="node1", address=parse_address("192.0.2.2"), as_number=64512)
    assert ["Node_192_0_2_1"] == names(NODES[1], [right])
    assert [] == names(NODES[1], [replace(right, as_number=64999)])
    assert [] == names(NODES[1], [replace(right, port=1790)])


def test_a_node_is_no_peer_of_itself():
    """Where the peering's address is its own, or its selector matches it, too."""
    itself = Peering("own", address=parse_address("192.0.2.1"), as_number=64512)
    everybody = Peering("all", peer_selector="all()")
    assert ["Node_192_0_2_2", "Node_192_0_2_3"] == names(NODES[0], [itself])
    assert ["Global_192_0_2_2", "Global_192_0_2_3"] == names(NODES[0], [everybody])


def test_a_peer_in_a_family_without_own_address_is_left_out():
    """There is nothing to speak from."""
    assert [] == names(NODES[0], [replace(UPLINK, address=parse_address("fd00::200"))])


def test_a_nodes_port_is_used_where_the_peering_names_none():
    """Its own, else everybody's; of a router nothing is known."""
    nodes = [node(1), node(2, port=1790), node(3)]
    settings = BgpSettings(port=1179)
    mesh = choose_sessions(nodes[0], nodes, (), settings)
    peering = Peering("pair", address=parse_address("192.0.2.2"), as_number=64512)
    pair = choose_sessions(nodes[0], nodes, [peering], ALONE)
    assert [1790, 1179, 1790, None] == [
        *(session.port for session in (*mesh, *pair)),
        choose_sessions(nodes[0], nodes, [UPLINK], replace(settings, has_mesh=False))[0].port,
    ]


def test_of_a_reflector_those_of_its_as_are_clients():
    """But not another reflector of its cluster."""
    own = node(1, cluster_id="1.0.0.1")
    nodes = [own, node(2), node(3, cluster_id="1.0.0.1"), node(4, as_number=64999)]
    found = choose_sessions(own, nodes, [Peering("all", peer_selector="all()")], ALONE)
    assert {2: True, 3: False, 4: False} == {
        session.neighbor.value & 0xFF: session.is_client for session in found
    }


def test_what_a_peering_says_beside_its_ends_is_kept():
    """Also for the mesh, which has a restart time of its own."""
    options = Options(restart_seconds=10, ttl_hops=2)
    (found,) = choose_sessions(NODES[0], NODES, [replace(UPLINK, options=options)], ALONE)
    mesh = choose_sessions(NODES[0], NODES, (), BgpSettings(mesh_restart_seconds=20))
    assert [options, Options(restart_seconds=20)] == [found.options, mesh[0].options]
