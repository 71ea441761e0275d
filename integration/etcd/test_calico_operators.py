"""calicoctl and ipamctl on one etcd: each reads, changes and deletes what the other wrote."""

from __future__ import annotations

import json

import pytest

from integration.etcd.calico import Mixed, resource, with_calico
from integration.etcd.node import RESOURCES, EtcdNode
from integration.etcd.proxy import Proxy

pytestmark = with_calico

FOUR = resource(
    "IPPool",
    "four",
    {"cidr": "10.49.0.0/28", "blockSize": 29, "natOutgoing": True, "nodeSelector": "rack == '1'"},
)
SIX = resource("IPPool", "six", {"cidr": "fd00:49::/64", "allowedUses": ["Workload"]})
KEPT = resource("IPReservation", "kept", {"reservedCIDRs": ["10.49.0.0/30", "10.49.0.8/30"]})
NODES = [
    resource("Node", "node1", {"bgp": {"ipv4Address": "192.0.2.1/24"}}, labels={"rack": "1"}),
    resource("Node", "node2", {}, labels={"rack": "2"}, annotations={"example.org/note": "a<b"}),
]
EVERYTHING = [FOUR, SIX, KEPT, *NODES]
# What v3.28 does not know; ours has it when it has read it.
NEWER = "    assignmentMode: Automatic\n"
NAMES = {"ippool": "four", "ipreservation": "kept", "node": "node1"}
LASTING = ("name", "uid", "creationTimestamp")
SHOW_SETTINGS = ("ipam", "show", "--show-configuration")
WAYS = pytest.mark.parametrize(
    ("first", "second"), [("calicoctl", "ipamctl"), ("ipamctl", "calicoctl")]
)


@pytest.fixture
def mixed(etcd34, tmp_path):
    with Proxy(etcd34.endpoints[0]) as proxy:
        yield Mixed(etcd34, proxy, tmp_path)


@WAYS
def test_both_show_the_same_in_the_same_words(mixed, first, second):
    """Every resource that one of them applied, to the byte, with everything that was in it."""
    getattr(mixed, first).give("apply", *EVERYTHING)
    for kind in ("ippool", "ipreservation", "node"):
        theirs = mixed.calicoctl.say("get", kind, "-o", "yaml")
        ours = mixed.ipamctl.say("get", kind, "-o", "yaml")
        assert without_own_metadata(theirs) == without_own_metadata(ours.replace(NEWER, ""))
        found = json.loads(getattr(mixed, second).say("get", kind, "-o", "json"))["items"]
        written = [made for made in EVERYTHING if made["kind"].lower() == kind]
        assert len(written) == len(found)
        for sought, seen in zip(written, found, strict=True):
            assert sought["spec"].items() <= seen.get("spec", {}).items()
            assert sought["metadata"].items() <= seen["metadata"].items()
            assert {"uid", "creationTimestamp"} <= seen["metadata"].keys()


def without_own_metadata(text: str) -> str:
    """A list but for its own revision: with Calico the store's, with ours the items' latest."""
    return text.rpartition("\nmetadata:\n")[0]


@WAYS
def test_what_one_creates_the_other_changes_and_the_first_deletes(mixed, first, second):
    """By patch, label and replace; identity and time of creation stay through all of it."""
    one, other = getattr(mixed, first), getattr(mixed, second)
    one.give("create", FOUR, KEPT, NODES[0])
    born = read_metadata(mixed)

    other.say("patch", "ippool", "four", "-p", '{"spec": {"natOutgoing": false}}')
    other.say("label", "nodes", "node1", "zone=b")
    kept = other.get("ipreservation", "kept")
    kept["spec"]["reservedCIDRs"] = ["10.49.0.4/32"]
    other.give("replace", kept)

    pool, node = one.get("ippool", "four"), one.get("node", "node1")
    assert "natOutgoing" not in pool["spec"]
    assert FOUR["spec"].items() <= (pool["spec"] | {"natOutgoing": True}).items()
    assert {"rack": "1", "zone": "b"} == node["metadata"]["labels"]
    assert NODES[0]["spec"] == node["spec"]
    assert kept["spec"] == one.get("ipreservation", "kept")["spec"]
    assert born == read_metadata(mixed)
    one.give("delete", FOUR, KEPT, NODES[0])
    left = mixed.cluster.etcdctl("get", "--prefix", RESOURCES, "--keys-only").stdout.split()
    assert [] == [key for key in left if "/clusterinformations/" not in key]


def read_metadata(mixed: Mixed) -> list[list[str]]:
    """What stays of each of the three, as calicoctl shows it."""
    found = [mixed.calicoctl.get(kind, name)["metadata"] for kind, name in NAMES.items()]
    return [[metadata[field] for field in LASTING] for metadata in found]


@WAYS
def test_a_stale_revision_of_the_other_is_refused(mixed, first, second):
    """What one has read cannot be put back once the other has changed it."""
    one, other = getattr(mixed, first), getattr(mixed, second)
    one.give("create", KEPT)
    stale = one.get("ipreservation", "kept")
    patch = {"spec": {"reservedCIDRs": ["10.49.0.4/32"]}}
    other.say("patch", "ipreservation", "kept", "-p", json.dumps(patch))

    refused = one.run("replace", "-f", "-", stdin=json.dumps(stale))

    assert 1 == refused.returncode
    assert "conflict" in refused.stdout + refused.stderr
    assert patch["spec"] == other.get("ipreservation", "kept")["spec"]


def test_both_configure_and_show_the_same_settings(mixed):
    """Strict affinity by either, and how many blocks a node may have, which v3.28 only shows."""
    mixed.ipamctl.say("ipam", "configure", "--strictaffinity=true", "--max-blocks-per-host=3")
    assert settings("true", "3") == mixed.calicoctl.table(*SHOW_SETTINGS)

    mixed.ipamctl.say("ipam", "configure", "--max-blocks-per-host=0")
    mixed.calicoctl.say("ipam", "configure", "--strictaffinity=false")
    assert settings("false", "0") == mixed.ipamctl.table(*SHOW_SETTINGS)[:3]


def settings(strict: str, cap: str) -> list[list[str]]:
    return [["StrictAffinity", strict], ["AutoAllocateBlocks", "true"], ["MaxBlocksPerHost", cap]]


def test_the_plugin_obeys_what_calicoctl_applied(mixed):
    """Selectors, reservations, strict affinity, and a pool that is disabled."""
    mixed.calicoctl.give("apply", *EVERYTHING)
    mixed.calicoctl.say("ipam", "configure", "--strictaffinity=true")
    node1, node2 = mixed.ours("node1"), mixed.ours("node2")

    not_reserved = {f"10.49.0.{base + n}" for base in (0, 8) for n in range(4, 8)}
    assert not_reserved == {node1.call("ADD", f"c{n}").address for n in range(8)}
    assert 100 == node2.call("ADD", "c8").document["code"]

    mixed.calicoctl.say("label", "nodes", "node2", "rack=1", "--overwrite")
    node1.call("DEL", "c0")
    assert 103 == node2.call("ADD", "c8").document["code"]
    mixed.calicoctl.say("ipam", "configure", "--strictaffinity=false")
    assert 0 == node2.call("ADD", "c8").status
    mixed.calicoctl.say("patch", "ippool", "four", "-p", '{"spec": {"disabled": true}}')
    assert 100 == node2.call("ADD", "c9").document["code"]


@WAYS
def test_addresses_outlive_a_pool_that_the_other_deletes(mixed, first, second):
    """The node's blocks go back at once, each address at its own DEL, with its block."""
    one, other = getattr(mixed, first), getattr(mixed, second)
    one.give("apply", FOUR, NODES[0])
    node = {"calicoctl": mixed.theirs, "ipamctl": mixed.ours}[first]()
    address = node.call("ADD", "c1").address

    other.say("delete", "ippool", "four")

    records = mixed.records()
    assert {address: "net.c1"} == records.allocations
    assert [] == records.affinities
    assert [None] == [block.affinity for block in records.blocks]
    assert 0 == node.call("DEL", "c1").status
    assert [] == mixed.list_keys()


@WAYS
def test_one_locks_and_the_other_unlocks(mixed, first, second):
    """In between no pod gets an address of `cni-ipam`; releases work, and calicoctl says so."""
    one, other = getattr(mixed, first), getattr(mixed, second)
    one.give("apply", SIX, NODES[0])
    node = EtcdNode(mixed.folder, [mixed.proxy.endpoint])
    both = node.netconf(ipam={"assign_ipv4": "false", "assign_ipv6": "true"})
    assert 0 == node.call("ADD", "c1", both).status

    one.say("datastore", "migrate", "lock")
    assert 11 == node.call("ADD", "c2", both).document["code"]
    assert 0 == node.call("DEL", "c1", both).status
    assert not mixed.calicoctl.get("clusterinformation", "default")["spec"]["datastoreReady"]

    other.say("datastore", "migrate", "unlock")
    assert 0 == node.call("ADD", "c2", both).status
    assert mixed.calicoctl.get("clusterinformation", "default")["spec"]["datastoreReady"]
