"""Collection: what no living attachment of this network has on this node, and nothing else."""

from __future__ import annotations

import pytest

from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import CorruptRecord
from tests.ipam.world import (
    NOW,
    add,
    add_as_calico,
    collect_all,
    entries,
    find,
    findings,
    holders,
    put,
    put_config,
    put_pool,
    release_block,
    remove,
    spoil,
    survey,
    the_block,
)


def test_the_dead_go_and_the_living_stay(store):
    """With their handles."""
    dead, living = add(store, "dead"), add(store, "living")
    assert (dead, []) == collect_all(store, ("living", "eth0"))
    assert set(living) == set(holders(store))
    assert [keys.handle_key("net.living")] == [e.key for e in entries(store, keys.HANDLES)]
    assert [] == findings(store)


def test_nothing_dead_is_nothing_written(store):
    """GC runs often."""
    add(store, "living")
    before = entries(store)
    assert ([], []) == collect_all(store, ("living", "eth0"))
    assert before == entries(store)


def test_an_empty_list_releases_all_of_this_network_on_this_node(store):
    """Of both families."""
    put_pool(store, "six", "fd00::/120")
    given = add(store, "c1", counts={4: 1, 6: 1}) + add(store, "c2")
    released, errors = collect_all(store)
    assert (set(given), []) == (set(released), errors)
    assert [] == findings(store)


def test_other_networks_are_left_alone(store):
    """Also one whose name begins like this one's, and one of another plugin's making."""
    for network in ("net2", "ne", "net.a", "other"):
        add(store, "c", network=network)
    add(store, "odd", network="else", owner={"node": "node1", "network": "else"}, handle="net.odd")
    assert ([], []) == collect_all(store)
    assert 5 == len(holders(store))


def test_other_nodes_are_left_alone(store):
    """Also in this node's block."""
    mine = add(store, "c1", "node1", fixed=["10.0.0.5"])
    add(store, "c2", "node2", fixed=["10.0.0.6"])
    assert (mine, []) == collect_all(store)
    assert {"10.0.0.6": "net.c2"} == holders(store)


def test_this_nodes_addresses_in_others_blocks_are_collected(store):
    """Borrowed ones."""
    add(store, "c1", "node2", fixed=["10.0.0.5"])
    mine = add(store, "c2", "node1", fixed=["10.0.0.6"])
    assert (mine, []) == collect_all(store)
    assert [] == findings(store)


def test_a_dead_interface_of_a_living_container_goes(store):
    """Allocations of ours say which interface they are for."""
    add(store, "c1", ifname="eth0")
    eth1 = add(store, "c1", ifname="eth1")
    assert (eth1, []) == collect_all(store, ("c1", "eth0"))
    assert [] == findings(store)


def test_calicos_allocation_of_a_living_container_stays(store):
    """It names no interface, so any of the container's keeps it."""
    add_as_calico(store, "c1")
    dead = add_as_calico(store, "c2")
    assert (dead, []) == collect_all(store, ("c1", "eth7"))
    assert [] == findings(store)


def test_an_ambiguous_handle_is_left_alone(store):
    """`net.a.b` can be b of net.a, or a.b of net; ours say which, Calico's do not."""
    add(store, "a.b", owner={"node": "node1"})
    ours = add(store, "a.c")
    theirs = add(store, "d", network="net.a")
    assert (ours, []) == collect_all(store)
    assert (theirs, []) == collect_all(store, network="net.a")
    assert ["net.a.b"] == list(holders(store).values())


def test_dots_in_a_living_containers_name_are_no_obstacle(store):
    """The handle's rest is compared as a whole."""
    add(store, "a.b")
    assert ([], []) == collect_all(store, ("a.b", "eth0"))


@pytest.mark.parametrize(
    "owner", [{}, {"type": "ipipTunnelAddress"}], ids=["without a node", "a tunnel's"]
)
def test_what_names_no_node_is_left_alone(store, owner):
    """It could be anybody's."""
    add(store, "c1", owner=owner)
    assert ([], []) == collect_all(store)


def test_collection_goes_on_after_a_broken_block(store):
    """And tells every error in the end."""
    add(store, "c1", fixed=["10.0.0.1"])
    other = add(store, "c2", fixed=["10.0.0.9"])
    key = spoil(store, "10.0.0.0/30")
    released, errors = collect_all(store)
    assert other == released
    assert [key] == [error.key for error in errors if isinstance(error, CorruptRecord)]


def test_collection_goes_on_after_a_broken_handle(store):
    """Its block keeps it, the other blocks are collected."""
    add(store, "c1", fixed=["10.0.0.1"])
    other = add(store, "c2", fixed=["10.0.0.9"])
    key = keys.handle_key("net.c1")
    put(store, key, "[]")
    released, errors = collect_all(store)
    assert (other, [key]) == (released, [getattr(error, "key", "") for error in errors])


def test_a_missing_handle_is_no_obstacle(store):
    """The address goes."""
    given = add(store)
    remove(store, keys.handle_key("net.c1"))
    assert (given, []) == collect_all(store)
    assert [] == findings(store)


def test_a_block_without_owner_goes_with_its_last_address(store):
    """As at a release."""
    given = add(store)
    release_block(store, str(the_block(store).cidr))
    assert (given, []) == collect_all(store)
    assert [] == survey(store).blocks


def test_collected_addresses_cool_down(store):
    """And are not collected again."""
    put_config(store, ipCooldownSeconds=60)
    given = add(store)
    assert (given, []) == collect_all(store)
    before = entries(store)
    assert ([], []) == collect_all(store, now=NOW + SECOND)
    assert before == entries(store)
    assert find(store, keys.handle_key("net.c1")) is None
    assert [] == findings(store)


def test_many_dead_of_one_block_are_one_write_of_it(store):
    """Its number grows by one."""
    for number in range(4):
        add(store, f"c{number}")
    before = the_block(store).sequence_number
    collect_all(store)
    assert before + 1 == the_block(store).sequence_number
    assert [] == findings(store)
