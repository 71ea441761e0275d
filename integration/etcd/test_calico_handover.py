"""A node changes over from Calico's plugin to ours and back, under the same name and with the same
lock, while its pods live."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING

import pytest

from integration.etcd.calico import IPAM_KEYS, Gate, Mixed, with_calico
from integration.etcd.node import put_node, put_pool
from integration.etcd.proxy import Proxy
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = with_calico

WAYS = pytest.mark.parametrize(("first", "second"), [("ours", "theirs"), ("theirs", "ours")])
BLOCK = "assignment/ipv4/block/10.51.0.0-29"
BOTH = {"assign_ipv4": "true", "assign_ipv6": "true"}


@pytest.fixture
def mixed(etcd34, tmp_path) -> Iterator[Mixed]:
    """One block of each family."""
    put_pool(etcd34, "four", "10.51.0.0/29", blockSize=29)
    put_pool(etcd34, "six", "fd00:51::/122")
    put_node(etcd34, "node1")
    with Proxy(etcd34.endpoints[0]) as proxy:
        yield Mixed(etcd34, proxy, tmp_path)


@WAYS
def test_one_deletes_what_the_other_added(mixed, first, second):
    """Of both families, and on request; nothing is left but the node's empty blocks."""
    one, other = getattr(mixed, first)(), getattr(mixed, second)()
    netconf = one.netconf(ipam=BOTH)
    assert 2 == len(one.call("ADD", "c1", netconf).addresses)
    assert "10.51.0.5" == one.call("ADD", "c2", CNI_ARGS="IP=10.51.0.5").address
    for container in ("c1", "c2", "c2"):
        assert 0 == other.call("DEL", container, other.netconf(ipam=BOTH)).status
    records = mixed.records()
    assert ({}, [], []) == (records.allocations, records.handles, records.findings)
    assert ["host:node1"] * 2 == [str(block.affinity) for block in records.blocks]


@WAYS
def test_one_goes_on_in_the_block_of_the_other(mixed, first, second):
    """Address by address in the order of the block, without a block of its own."""
    nodes = [getattr(mixed, first)(), getattr(mixed, second)()]
    given = [nodes[n % 2].call("ADD", f"c{n}").address for n in range(8)]
    assert [f"10.51.0.{n}" for n in range(8)] == given
    records = mixed.records()
    assert {address: f"net.c{n}" for n, address in enumerate(given)} == records.allocations
    assert [] == records.findings


def test_a_repeated_add_has_the_address_that_calico_gave(mixed):
    """Calico's allocations name no interface."""
    address = mixed.theirs().call("ADD", "c1").address
    assert address == mixed.ours().call("ADD", "c1").address
    assert {address: "net.c1"} == mixed.records().allocations


def test_check_is_fine_for_a_pod_of_calicos(mixed):
    """With the result that Calico's plugin gave; not with another one."""
    added = mixed.theirs().call("ADD", "c1").document
    node = mixed.ours()
    assert 0 == node.call("CHECK", "c1", node.netconf(prevResult=added)).status
    wrong = added | {"ips": [{"address": "10.51.0.7/29"}]}
    assert 108 == node.call("CHECK", "c1", node.netconf(prevResult=wrong)).document["code"]


def test_gc_collects_calicos_dead_pods_and_leaves_what_it_cannot_tell_apart(mixed):
    """A handle with one more dot could be another network's."""
    theirs, ours = mixed.theirs(), mixed.ours()
    kept = {theirs.call("ADD", name).address: f"net.{name}" for name in ("living", "dot.ted")}
    kept |= {theirs.call("ADD", "dead", theirs.netconf("net2")).address: "net2.dead"}
    theirs.call("ADD", "dead")
    living = [{"containerID": "living", "ifname": "eth0"}]
    netconf = ours.netconf(cniVersion="1.1.0", **{"cni.dev/valid-attachments": living})
    assert 0 == ours.call("GC", "", netconf).status
    assert kept == mixed.records().allocations
    assert [] == mixed.records().findings


def test_the_node_goes_back_to_calico_with_pods_of_both(mixed):
    """Calico's plugin gives new addresses and ends every pod of ours."""
    ours, theirs = mixed.ours(), mixed.theirs()
    theirs.call("ADD", "c0")
    for n in range(1, 4):
        ours.call("ADD", f"c{n}", ours.netconf(ipam=BOTH))
    assert "10.51.0.4" == theirs.call("ADD", "c4").address
    for n in range(5):
        assert 0 == theirs.call("DEL", f"c{n}").status
    records = mixed.records()
    assert ({}, [], []) == (records.allocations, records.handles, records.findings)


def test_ours_goes_on_when_calico_has_dropped_what_it_does_not_know(mixed):
    """v3.28 writes a block back without the time of its claim; our attributes stay."""
    ours, theirs = mixed.ours(), mixed.theirs()
    addresses = [ours.call("ADD", "c0").address]
    assert "affinity_claim_time" in read(mixed, BLOCK)
    addresses.append(theirs.call("ADD", "c1").address)
    assert "affinity_claim_time" not in read(mixed, BLOCK)
    owner = read(mixed, BLOCK)["attributes"][0]["secondary"]
    assert ("net", "eth0", "node1") == (owner["network"], owner["ifname"], owner["node"])

    assert addresses == [ours.call("ADD", f"c{n}").address for n in range(2)]
    assert 0 == ours.call("CHECK", "c0").status
    addresses.append(ours.call("ADD", "c2").address)
    assert 3 == len(set(addresses))
    assert [] == mixed.records().findings
    for n in range(3):
        assert 0 == ours.call("DEL", f"c{n}").status
    mixed.ipamctl.say("delete", "node", "node1")
    assert [] == mixed.list_keys()


def read(mixed: Mixed, key: str) -> dict:
    """A record as it is stored."""
    found = mixed.cluster.etcdctl("get", "--print-value-only", f"{IPAM_KEYS}{key}")
    return json.loads(found.stdout)


def test_ours_waits_while_calico_holds_the_hosts_lock(mixed):
    """Calico's plugin asks etcd with the lock in hand; ours asks nothing before that is over."""
    ours = mixed.ours()
    with Gate(mixed.cluster) as gate:
        first = mixed.theirs(gate=gate).start("ADD", "c1")
        first.give()
        gate.wait()
        while not is_locked(ours.lock_file):
            gate.step()
        second = ours.start("ADD", "c2")
        second.give()
        assert becomes_true(lambda: count_waiters(ours.lock_file) == 1)
        assert 0 == mixed.proxy.count()
        gate.open()
        assert ["10.51.0.0", "10.51.0.1"] == [call.answer().address for call in (first, second)]


def test_calico_waits_while_ours_holds_the_hosts_lock(mixed):
    """Our first request is held on its way; Calico's plugin writes nothing before it arrives."""
    ours, theirs = mixed.ours(), mixed.theirs()
    fault = mixed.proxy.hold_request(1)
    first = ours.start("ADD", "c1")
    first.give()
    try:
        fault.wait()
        second = theirs.start("ADD", "c2")
        second.give()
        assert becomes_true(lambda: count_waiters(ours.lock_file) == 1)
        assert [] == mixed.list_keys()
    finally:
        fault.forward()
    assert ["10.51.0.0", "10.51.0.1"] == [call.answer().address for call in (first, second)]


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def count_waiters(path: Path) -> int:
    """How many processes the kernel has in the lock's queue."""
    inode = f":{path.stat().st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:
        rows = [line.split() for line in locks]
    return sum(row[1] == "->" and row[6].endswith(inode) for row in rows)


def wait_for_its_handle(mixed: Mixed, gate: Gate, container: str) -> None:
    """Let Calico's plugin go on until it has written the handle; next comes the block."""
    gate.wait()
    while f"{IPAM_KEYS}handle/net.{container}" not in mixed.list_keys():
        gate.step()


def test_calico_gives_way_when_ours_was_first(mixed):
    """Its swap is lost; what it wrote before it is in order, too."""
    put_node(mixed.cluster, "node2")
    with Gate(mixed.cluster) as gate:
        call = mixed.theirs(gate=gate).start("ADD", "c1")
        call.give()
        wait_for_its_handle(mixed, gate, "c1")
        assert "10.51.0.0" == mixed.ours("node2").call("ADD", "c2").address
        gate.open()
        assert "10.51.0.1" == call.answer().address
    assert {"10.51.0.0": "net.c2", "10.51.0.1": "net.c1"} == mixed.records().allocations
    assert [] == mixed.records().findings


def test_ours_gives_way_when_calico_was_first(mixed):
    """Ours has read the block and is about to write it; it reads it again."""
    put_node(mixed.cluster, "node2")
    ours, theirs = mixed.ours(), mixed.theirs("node2")
    ours.call("ADD", "c0")
    fault = mixed.proxy.hold_request(3)
    call = ours.start("ADD", "c1")
    call.give()
    fault.wait()
    assert "10.51.0.1" == theirs.call("ADD", "c2").address
    fault.forward()
    assert "10.51.0.2" == call.answer().address
    assert ["net.c0", "net.c1", "net.c2"] == sorted(mixed.records().allocations.values())
    assert [] == mixed.records().findings


def test_ours_mends_the_handle_that_calico_lets_count_too_much(mixed):
    """Calico's plugin counts a requested address again when its block was changed meanwhile, and
    never takes that back. The check names that handle and nothing else."""
    put_node(mixed.cluster, "node2")
    with Gate(mixed.cluster) as gate:
        call = mixed.theirs(gate=gate).start("ADD", "c1", CNI_ARGS="IP=10.51.0.5")
        call.give()
        wait_for_its_handle(mixed, gate, "c1")
        requested = mixed.ours("node2").call("ADD", "c2", CNI_ARGS="IP=10.51.0.6")
        assert "10.51.0.6" == requested.address
        gate.open()
        assert "10.51.0.5" == call.answer().address
    assert {"10.51.0.5": "net.c1", "10.51.0.6": "net.c2"} == mixed.records().allocations
    assert {"10.51.0.0/29": 2} == read(mixed, "handle/net.c1")["block"]
    assert {"10.51.0.0/29": 1} == read(mixed, "handle/net.c2")["block"]
    (finding,) = mixed.records().findings
    assert finding.startswith("leftover: net.c1: ")

    assert 0 == mixed.ours().call("DEL", "c1").status
    assert [] == mixed.records().findings
    assert ["net.c2"] == [handle.id for handle in mixed.records().handles]
