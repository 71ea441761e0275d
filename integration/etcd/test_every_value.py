"""Every value that the plugin or ipamctl wrote to etcd in this run, checked against the schema."""

from __future__ import annotations

import os
import subprocess

import pytest

from integration.etcd.node import EtcdNode, put_node, put_pool
from integration.etcd.proxy import RUN, Proxy
from integration.etcd.schema import check_all
from integration.network import BUNDLE

OBJECTS = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node9, labels: {zone: "1", rack: "2"}}
spec: {bgp: {ipv4Address: 192.0.2.1/24, asNumber: 64512}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {natOutgoing: true, cidr: "fd00::/112"}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: some}
spec: {reservedCIDRs: [10.77.0.0/30]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: uplink}
spec: {peerIP: 10.0.0.1, asNumber: 64513}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: true}
"""
COMMANDS = (
    "datastore lock",
    "datastore unlock",
    "ipam configure --strictaffinity=true",
    "ipam configure --max-blocks-per-host=3",
    "ipam configure --max-blocks-per-host=0",
    "ipam configure --strictaffinity=false",
    "label nodes node9 row=3",
    "delete ippool six",
)
KINDS = {
    *("block", "affinity", "handle", "config", "pool", "reservation", "node", "cluster", "marker"),
    *("peer", "bgp", "deletions"),
}


def operate(proxy, words, stdin=""):
    """Run ipamctl."""
    settings = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": proxy.endpoint}
    subprocess.run(
        [str(BUNDLE / "ipamctl"), *words.split()],
        env=settings | {"PATH": os.environ["PATH"]},
        input=stdin,
        text=True,
        check=True,
        capture_output=True,
    )


def write_each_kind(proxy, tmp_path):
    """A life in short, so that every kind is there also where this is the only test."""
    node = EtcdNode(tmp_path, [proxy.endpoint])
    pool = {"name": "made", "spec": {"natOutgoing": False, "cidr": "10.88.0.0/24"}}
    made = node.netconf(create_default_pools=True, default_pools=[pool], gateway="auto")
    operate(proxy, "create -f -", OBJECTS)
    for words in COMMANDS:
        operate(proxy, words)
    for number in range(3):
        assert 0 == node.call("ADD", f"c{number}", made).status
    for number in range(3):
        assert 0 == node.call("DEL", f"c{number}", made).status


@pytest.mark.last
def test_every_value_of_the_run_keeps_the_schema(etcd34, tmp_path):
    """To the byte, as Calico's own programs write; and values of every kind were looked at."""
    put_pool(etcd34, "pool", "10.77.0.0/24", blockSize=29)
    put_node(etcd34, "node1")
    with Proxy(etcd34.endpoints[0]) as proxy:
        write_each_kind(proxy, tmp_path)
    counts = check_all(RUN)
    assert {kind for kind, count in counts.items() if count} == KINDS
