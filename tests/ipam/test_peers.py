"""Beside what others wrote: tunnels, load balancers, virtual machines, Calico's own resources.

The engine gives addresses next to them, releases around them, and leaves alone what is not its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import Attribute
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import NotFound
from cni_ipam.ipam.affinity import release_host, release_pool
from cni_ipam.ipam.query import addresses_of
from cni_ipam.ipam.release import release_handle
from tests.ipam.peers import fields_of, free, put_block
from tests.ipam.world import (
    NOW,
    add,
    blocks_of,
    collect_all,
    delete,
    entries,
    find,
    furnish,
    holders,
    put,
    put_config,
    put_node,
    put_pool,
    refusal,
    release_block,
    remove,
    texts,
    unsound,
)

if TYPE_CHECKING:
    from cni_ipam.datastore.port import Datastore

LATER = NOW + 120 * SECOND
TUNNELS = {
    "ipip-tunnel-addr-node1": "ipipTunnelAddress",
    "vxlan-tunnel-addr-node1": "vxlanTunnelAddress",
    "vxlan-v6-tunnel-addr-node1": "vxlanV6TunnelAddress",
    "wireguard-tunnel-addr-node1": "wireguardTunnelAddress",
    "wireguard-v6-tunnel-addr-node1": "wireguardV6TunnelAddress",
}
SERVICE = {
    "namespace": "default",
    "service": "web",
    "type": "LoadBalancer",
    "timestamp": "2026-01-02 03:04:05 +0000 UTC",
}
MACHINE = {"node": "node1", "namespace": "ns", "pod": "virt-launcher-vm", "vmi-name": "vm"}


def tunnels() -> list[Attribute]:
    """What calico-node gave to the tunnels of node1."""
    return [Attribute(handle, {"node": "node1", "type": kind}) for handle, kind in TUNNELS.items()]


# What Calico's other programs have in a node's own block.

OTHERS = {
    "tunnels": tunnels(),
    "a service": [Attribute("lb-Ab3x", SERVICE)],
    "a virtual machine": [Attribute("net.vmi.ns.vm", MACHINE, {"node": "node2", "vmim-uid": "u"})],
    "Windows": [Attribute("windows-reserved-ipam-handle", {"note": "windows host rsvd"})],
    "a pod of an old release": [Attribute("0123abcd", None)],
    "nobody that is named": [Attribute(None, {"note": "by hand"})],
    "a pod with a malformed handle": [Attribute("net.old\r\nx", {"node": "node1"})],
}


@pytest.fixture(params=OTHERS)
def others(request: pytest.FixtureRequest, empty: Datastore) -> tuple[Datastore, dict[str, str]]:
    """node1's block with addresses of one kind of owner, and who they are."""
    furnish(empty, "10.0.0.0/28", 29)
    put_block(empty, "10.0.0.0/29", "host:node1", *OTHERS[request.param], claimed=NOW)
    return empty, holders(empty)


def test_addresses_are_given_next_to_others(others):
    """From the same block, never theirs."""
    store, theirs = others
    (address,) = add(store)
    assert address not in theirs
    assert ["10.0.0.0/29"] == blocks_of(store, "node1")
    assert theirs == {a: h for a, h in holders(store).items() if a != address}
    assert [] == unsound(store)


def test_a_release_leaves_others_as_they_were(others):
    """Attributes to the letter, and the sequence numbers of their allocations."""
    store, theirs = others
    before = fields_of(store, "10.0.0.0/29")
    add(store)
    delete(store)
    after = fields_of(store, "10.0.0.0/29")
    assert theirs == holders(store)
    for name in ("attributes", "allocations", "sequenceNumberForAllocation"):
        assert before[name] == after[name]
    assert before["sequenceNumber"] + 2 == after["sequenceNumber"]


@pytest.mark.parametrize("network", ["net", "vxlan-tunnel-addr-node1", "lb-Ab3x"])
def test_a_collection_leaves_others_alone(others, network):
    """None of them is an attachment of a network, not even of one with an unlucky name."""
    store, theirs = others
    if "net.old" in theirs.values():
        # That one is Calico's pod with a handle that was cut; a dead one goes.
        assert (["10.0.0.0"], []) == collect_all(store, network="net")
        return
    assert ([], []) == collect_all(store, network=network)
    assert theirs == holders(store)


def test_a_tunnel_of_a_node_with_dots_is_no_attachment(store):
    """Its handle begins like that of a network whose name is all but the domain."""
    owner = Attribute("vxlan-tunnel-addr-a.b", {"node": "a.b", "type": "vxlanTunnelAddress"})
    put_block(store, "10.0.0.0/30", "host:a.b", owner)
    assert ([], []) == collect_all(store, node="a.b", network="vxlan-tunnel-addr-a")


def test_a_full_block_of_others_is_lent_on(others):
    """node2 borrows of node1's block when nothing else is left, and gives it back."""
    store, theirs = others
    put_block(store, "10.0.0.8/29", "host:node3", *[Attribute(f"net.f{n}") for n in range(8)])
    (address,) = add(store, "c1", "node2")
    assert parse_cidr("10.0.0.0/29").contains(parse_address(address))
    assert address not in theirs
    assert [address] == delete(store, "c1", "node2")
    assert theirs == {a: h for a, h in holders(store).items() if a in theirs}


def test_a_block_with_others_in_it_is_not_taken_back(others):
    """However long ago it was claimed; but one that has only Windows' own addresses is empty."""
    store, theirs = others
    put_config(store, strict_affinity=True)
    put_block(store, "10.0.0.8/29", "host:node3", *[Attribute(f"net.f{n}") for n in range(8)])
    if "windows-reserved-ipam-handle" in theirs.values():
        assert 1 == len(add(store, "c1", "node2", now=LATER))
    else:
        refusal(store, "c1", "node2", now=LATER)


def test_losing_the_block_keeps_others_addresses(others):
    """The block lives on without owner; but Windows' own reservations hold nothing."""
    store, theirs = others
    release_block(store, "10.0.0.0/29")
    if "windows-reserved-ipam-handle" in theirs.values():
        assert {} == holders(store)
    else:
        assert theirs == holders(store)
        assert fields_of(store, "10.0.0.0/29")["affinity"] is None


def test_an_address_of_others_can_be_released_by_hand(others):
    """By its address, whoever has it; its handle goes with it."""
    store, theirs = others
    if "windows-reserved-ipam-handle" not in theirs.values():
        assert (list(theirs), []) == free(store, *theirs)
        assert [] == entries(store, keys.HANDLES)


# Load balancers.


@pytest.fixture
def balanced(store):
    """A block of the load balancer's, with one address in use, and one without any."""
    put_block(
        store, "10.0.0.0/30", "virtual:load-balancer", Attribute("lb-1", SERVICE), claimed=NOW
    )
    put_block(store, "10.0.0.4/30", "virtual:load-balancer", claimed=NOW)
    return store


def test_a_load_balancers_block_is_claimed_by_nobody(balanced):
    """A block of theirs is as good as any host's."""
    given = [add(balanced, f"c{n}")[0] for n in range(8)]
    theirs = [parse_cidr("10.0.0.0/30"), parse_cidr("10.0.0.4/30")]
    assert not [a for a in given if any(c.contains(parse_address(a)) for c in theirs)]
    assert [] == [f for f in unsound(balanced) if "node1" in f]


def test_a_load_balancers_block_lends(balanced):
    """When nothing else is left; it stays theirs."""
    for number in range(8):
        add(balanced, f"c{number}")
    (address,) = add(balanced, "c8")
    cidr = "10.0.0.0/30" if parse_cidr("10.0.0.0/30").contains(parse_address(address)) else None
    cidr = cidr or "10.0.0.4/30"
    assert "virtual:load-balancer" == fields_of(balanced, cidr)["affinity"]
    assert [address] == delete(balanced, "c8")
    assert "virtual:load-balancer" == fields_of(balanced, cidr)["affinity"]


def test_an_idle_block_of_a_load_balancer_is_taken_back(balanced):
    """With its virtual affinity, which would otherwise name a block that is another's."""
    for number in range(8):
        add(balanced, f"c{number}")
    add(balanced, "c8", "node2", now=LATER)
    assert ["10.0.0.4/30"] == blocks_of(balanced, "node2")
    left = [entry.key for entry in entries(balanced, keys.VIRTUAL_AFFINITIES)]
    assert ["/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.0.0.0-30"] == left


def test_a_pool_gives_up_virtual_affinities_too(balanced):
    """Facts 9.19: in etcd Calico forgets them."""
    lost = release_pool(balanced, parse_cidr("10.0.0.0/28"), NOW)
    assert ["10.0.0.0/30", "10.0.0.4/30"] == [str(cidr) for cidr in lost]
    assert [] == entries(balanced, keys.VIRTUAL_AFFINITIES)


def test_a_host_gives_up_its_own_affinities_only(balanced):
    """Even if it has the pseudo host's name."""
    assert [] == release_host(balanced, "load-balancer", NOW)
    assert 2 == len(entries(balanced, keys.VIRTUAL_AFFINITIES))


def test_a_block_of_an_unknown_kind_of_owner_is_left_to_it(store):
    """Where its affinity lies nobody here knows, so it cannot be taken back; it lends."""
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    put_block(store, "10.0.0.0/30", "rack:r1", state=None)
    (address,) = add(store, now=LATER)
    assert "rack:r1" == fields_of(store, "10.0.0.0/30")["affinity"]
    assert [address] == delete(store)
    assert "rack:r1" == fields_of(store, "10.0.0.0/30")["affinity"]


# Records of others in the way.


def test_a_broken_affinity_of_an_idle_block_is_passed_over(empty):
    """That block is not taken back, the next one is."""
    furnish(empty, "10.0.0.0/29", 30)
    put_config(empty, strict_affinity=True)
    put_block(empty, "10.0.0.0/30", "host:node2")
    put_block(empty, "10.0.0.4/30", "host:node3")
    put(empty, keys.affinity_key("node2", parse_cidr("10.0.0.0/30")), "{")
    assert ["10.0.0.4"] == add(empty, now=LATER)
    assert "host:node2" == fields_of(empty, "10.0.0.0/30")["affinity"]


def test_a_broken_affinity_of_the_only_idle_block_is_the_error(empty):
    """As nothing else would have served."""
    furnish(empty, "10.0.0.0/30", 30)
    put_config(empty, strict_affinity=True)
    put_block(empty, "10.0.0.0/30", "host:node2")
    key = keys.affinity_key("node2", parse_cidr("10.0.0.0/30"))
    put(empty, key, "{")
    assert key == refusal(empty, now=LATER).key


def test_a_legacy_marker_of_a_host_is_no_affinity(store):
    """Facts 1.11."""
    put(store, "/calico/ipam/v2/host/node1", "{}")
    assert 1 == len(add(store))
    assert "{}" == find(store, "/calico/ipam/v2/host/node1").value


# Calico's resources.

CALICOS_NODE = (
    '{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"%s","uid":"u1",'
    '"creationTimestamp":"2026-11-21T10:26:22Z","labels":{"rack":"1"}},"spec":{"bgp":{'
    '"ipv4Address":"192.168.0.1/24","ipv4IPIPTunnelAddr":"10.0.0.0"},"orchRefs":[{'
    '"nodeName":"%s","orchestrator":"k8s"}]},"status":{}}'
)


def test_labels_come_from_calicos_node(store):
    """As calico-node writes it; it is read only, even by who would make its own."""
    put(store, f"{keys.NODES}node1", CALICOS_NODE % ("node1", "node1"))
    put_node(store, "node2", rack="2")
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, nodeSelector="rack == '1'")
    assert 1 == len(add(store, makes_node=True))
    assert CALICOS_NODE % ("node1", "node1") == find(store, f"{keys.NODES}node1").value
    refusal(store, "c2", "node2")


def test_a_node_that_went_meanwhile_is_missed(store):
    """Calico's words (facts 1.9), and what to do; a repeated ADD and a DEL need no Node."""
    given = add(store)
    remove(store, f"{keys.NODES}node1")
    error = refusal(store, "c2")
    assert "resource does not exist: Node(node1) with error: <nil>" == error.msg
    assert "create the Node" in error.details
    assert given == add(store)
    assert given == delete(store)


def test_default_pools_are_stored_as_calicoctl_would(store):
    """Fields in Go's order, without those that its `omitempty` leaves out (facts 1.7)."""
    spec = {"disabled": False, "blockSize": 28, "natOutgoing": True, "cidr": "10.7.0.0/20"}
    add(store, default_pools=(("four", spec),))
    text = find(store, f"{keys.POOLS}four").value
    assert text.endswith(
        '"spec":{"cidr":"10.7.0.0/20","vxlanMode":"Never","ipipMode":"Never","natOutgoing":true,'
        '"blockSize":28,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],'
        '"assignmentMode":"Automatic"}}'
    )


def test_a_node_that_we_make_is_shaped_as_calicos(store):
    """Go writes `status` even if there is none (facts 1.9)."""
    add(store, host="alone", makes_node=True)
    fields = json.loads(find(store, f"{keys.NODES}alone").value)
    assert ["kind", "apiVersion", "metadata", "spec", "status"] == list(fields)
    assert ({}, {}) == (fields["spec"], fields["status"])
    assert ["name", "uid", "creationTimestamp"] == list(fields["metadata"])


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: addresses_of(store, "net.gone"),
        lambda store: release_handle(store, "net.gone", NOW),
    ],
)
def test_a_missing_handle_has_one_name(store, ask):
    """Whether it is asked about or released."""
    with pytest.raises(NotFound) as raised:
        ask(store)
    assert "resource does not exist: IPAMHandle(net.gone) with error: <nil>" == raised.value.msg


def test_a_handle_is_released_with_its_own_blocks_and_no_other(store):
    """On every node, and on one reading of the handle."""
    add(store, "c1", "node1")
    add(store, "c1", "node2", repeats=False)
    kept = add(store, "c2")
    released = texts(release_handle(store, "net.c1", NOW).addresses)
    assert 2 == len(released)
    assert {kept[0]: "net.c2"} == holders(store)
