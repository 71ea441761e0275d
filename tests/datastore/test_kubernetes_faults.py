"""The key under which an object that is no record is told."""

from __future__ import annotations

from typing import Any

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes_faults import name_key
from cni_ipam.datastore.kubernetes_records import LABEL_TYPE, affinity_name, block_name

IPV4, IPV6 = parse_cidr("10.0.0.0/26"), parse_cidr("fd00:10:244::40/122")
CIDRS = [
    IPV4,
    IPV6,
    parse_cidr("fd00:1:2:3:4:5:6:40/122"),
    parse_cidr("::/122"),
    parse_cidr("1.2.3.4/32"),
]


def broken(name: str, spec: Any = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "spec": spec}


@pytest.mark.parametrize("cidr", CIDRS, ids=str)
@pytest.mark.parametrize("spec", [None, [], {"cidr": 7}, {"cidr": "10.9.9.0/26"}], ids=str)
def test_a_block_is_told_by_its_name(cidr, spec) -> None:
    """Whatever it says of itself."""
    found = broken(block_name(cidr), spec)
    assert keys.block_key(cidr) == name_key(found, "ipamblocks", keys.BLOCKS)


@pytest.mark.parametrize("name", ["x", "10-0-0-0", "10-0-0-0-33", "10-0-0-256-26", "a-b-c-26"])
def test_a_block_that_is_named_after_none_is_told_by_that_name(name) -> None:
    """Under the prefix that was asked for."""
    assert keys.BLOCKS + name == name_key(broken(name), "ipamblocks", keys.BLOCKS)


@pytest.mark.parametrize("cidr", CIDRS, ids=str)
@pytest.mark.parametrize("host", ["node1", "node-1", "a.b-10", "n-10-0-0-0-26"])
def test_an_affinity_is_told_by_its_name_and_node(cidr, host) -> None:
    """Nodes' names hold dashes; what the spec says agrees with the name."""
    found = broken(affinity_name(host, cidr), {"node": host, "cidr": "bad"})
    wanted = keys.affinity_key(host, cidr)
    assert wanted == name_key(found, "blockaffinities", keys.HOST_AFFINITIES)


@pytest.mark.parametrize("node", [None, 7, "other"])
def test_an_affinity_of_an_unknown_node_is_told_by_its_name(node) -> None:
    """As far as that can be taken apart."""
    found = broken(affinity_name("node-1", IPV4), {"node": node})
    wanted = keys.affinity_key("node-1", IPV4)
    assert wanted == name_key(found, "blockaffinities", keys.HOST_AFFINITIES)


@pytest.mark.parametrize(
    ("spec", "labels"), [({"type": "virtual"}, {}), (None, {LABEL_TYPE: "virtual"})]
)
def test_a_virtual_affinity_is_told_as_one(spec, labels) -> None:
    """By its spec or its label."""
    found = broken(affinity_name("lb", IPV4), spec, labels=labels)
    wanted = keys.affinity_key("lb", IPV4, "virtual")
    assert wanted == name_key(found, "blockaffinities", keys.VIRTUAL_AFFINITIES)


def test_an_affinity_that_is_named_after_none_is_told_by_that_name() -> None:
    """Also where it names a node."""
    found = broken("junk", {"node": "node1"})
    assert keys.HOST_AFFINITIES + "junk" == name_key(found, "blockaffinities", keys.HOST_AFFINITIES)


@pytest.mark.parametrize(
    ("spec", "handle"),
    [
        ({"handleID": "net.ABC"}, "net.ABC"),
        ({"handleID": "net.other"}, "net.abc"),
        ({"handleID": 7}, "net.abc"),
        (None, "net.abc"),
    ],
)
def test_a_handle_is_told_by_its_name(spec, handle) -> None:
    """In the case of its spec, if that is the same name."""
    found = broken("net.abc", spec)
    assert keys.HANDLES + handle == name_key(found, "ipamhandles", keys.HANDLES)


def test_a_resource_is_told_by_its_name() -> None:
    """A pool, for example."""
    assert f"{keys.POOLS}pool1" == name_key(broken("pool1"), "ippools", keys.POOLS)
