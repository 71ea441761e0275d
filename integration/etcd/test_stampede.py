"""Many nodes at once on one pool until it is full, and then for a while at its brim."""

from __future__ import annotations

import ipaddress
import random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.etcd.herd import Herd
from integration.etcd.node import RESOURCES, put, put_node, put_pool, read_records
from integration.etcd.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.etcd.servers import Cluster

AT_ONCE = 16


class Size(NamedTuple):
    """How many nodes with how many pods each, in which pool, how long at its brim."""

    nodes: int
    pods: int
    cidr: str
    seconds: float


SIZES = {
    "3.4": Size(nodes=40, pods=25, cidr="10.44.0.0/22", seconds=60.0),
    "3.5": Size(nodes=8, pods=5, cidr="10.44.0.0/26", seconds=5.0),
}


def find_reserved(cidr: str) -> list[str]:
    """24 addresses: a block (/29) as a whole, one in two halves, and parts of four others."""
    base = ipaddress.ip_network(cidr)[0]
    parts = ((0, 30), (8, 29), (24, 30), (28, 30), (37, 32), (50, 32), (62, 31))
    return [f"{base + offset}/{prefix}" for offset, prefix in parts]


def put_reservation(cluster: Cluster, name: str, cidrs: list[str]) -> None:
    resource = {
        "kind": "IPReservation",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": name,
            "uid": "3c0b8f0e-6f0e-4f0e-8f0e-3c0b8f0e6f0e",
            "creationTimestamp": "2026-11-21T10:26:22Z",
        },
        "spec": {"reservedCIDRs": cidrs},
    }
    put(cluster, f"{RESOURCES}/ipreservations/{name}", resource)


def check_records(cluster: Cluster, herd: Herd) -> None:
    """The datastore holds what the book says, nothing else, and is sound."""
    records = read_records(cluster)
    assert [] == records.findings
    assert herd.book == records.allocations
    assert sorted(herd.book.values()) == sorted(handle.id for handle in records.handles)


@pytest.fixture(params=SIZES)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def etcd(version: str, lasting: Callable[..., Cluster]) -> Cluster:
    """A pool of blocks of eight that borrows, 24 addresses kept back, and the nodes."""
    size = SIZES[version]
    etcd = lasting(f"etcd-{version}", version)
    put_pool(etcd, "pool", size.cidr, blockSize=29)
    put_reservation(etcd, "kept", find_reserved(size.cidr))
    for number in range(size.nodes):
        put_node(etcd, f"node{number}")
    return etcd


@pytest.fixture
def herd(etcd: Cluster, version: str, tmp_path: Path) -> Iterator[Herd]:
    """As many pods as there are addresses to give."""
    size = SIZES[version]
    with Proxy(etcd.endpoints[0]) as proxy:
        yield Herd(
            proxy,
            tmp_path,
            size.cidr,
            nodes=size.nodes,
            pods=size.pods,
            reserved=find_reserved(size.cidr),
            at_once=AT_ONCE,
        )


def test_a_stampede_gives_each_address_once_and_loses_none(etcd, herd, version):
    """All nodes' ADDs until the pool is full, a while at its brim, then everything is deleted."""
    size, chance = SIZES[version], random.Random(5)
    crowd = chance.sample(herd.pods, len(herd.pods))
    rate = herd.run((herd.add, pod) for pod in crowd)
    herd.tell(f"{rate:.0f} ADDs per second")
    assert [] == herd.complaints
    assert herd.find_available() == set(herd.book)
    check_records(etcd, herd)

    refused = herd.nodes[0].call("ADD", "one-too-many").document
    capacity, given = herd.pool.num_addresses, size.nodes * size.pods
    numbers = f"{capacity} addresses, {given} in use, 24 reserved, 0 cooling, 0 free"
    assert 101 == refused["code"]
    advice = "free addresses, or create another pool"
    assert f"{advice}; {size.cidr}: {numbers}" == refused["details"]
    check_records(etcd, herd)

    rate = herd.run(herd.come_and_go(chance, 2 * AT_ONCE), size.seconds)
    herd.tell(f"{rate:.0f} calls per second at the brim")
    assert [] == herd.complaints
    check_records(etcd, herd)

    rate = herd.run((herd.delete, pod) for pod in crowd)
    herd.tell(f"{rate:.0f} DELs per second")
    assert [] == herd.complaints
    assert {} == herd.book
    check_records(etcd, herd)
