"""Wishes for stores where each record is a request: what may not matter is not read."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.errors import NoQualifiedPool
from cni_ipam.ipam.affinity import claim_blocks
from tests.ipam.world import NOW, Overtaken, add, findings, holders, put_node, put_pool


class Counting(Overtaken):
    """The port over a store, which notes what is read."""

    def __init__(self, store):
        super().__init__(store)
        self.keys = []

    def read(self, ranges):
        self.keys += [one.key for one in ranges]
        return super().read(ranges)


def ask(store, container="c1", host="node1"):
    """The addresses of a frugal wish."""
    return add(store, container, host, is_frugal=True)


@pytest.fixture
def counting(store):
    """A host with a block that has room."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)
    put_node(store, "node1")
    add(store, "c0")
    return Counting(store)


def test_neither_node_nor_handle_is_read_in_the_steady_state(counting):
    """Its own block has room, and its pools select every node."""
    assert 1 == len(ask(counting))
    assert [] == [key for key in counting.keys if key.startswith((keys.NODES, keys.HANDLES))]
    assert [] == findings(counting)


def test_a_repeated_wish_has_its_address_already(counting):
    """What lies in the host's own blocks is seen without the handle."""
    assert ask(counting) == ask(counting)
    assert [] == findings(counting)


def test_a_repeated_wish_has_its_borrowed_address_already(store):
    """The creation of the handle is refused; the next attempt reads where it has its address."""
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    put_node(store, "node1")
    put_node(store, "node2")
    claim_blocks(store, "node2", parse_cidr("10.0.0.0/30"), NOW)
    counting = Counting(store)
    first = ask(counting)
    assert 1 == len(first)
    assert first == ask(counting)
    assert {first[0]: "net.c1"} == holders(store)
    assert [] == findings(store)


def test_a_block_is_claimed_only_for_a_node_that_is_there(store):
    """Calico's error for a node without a record."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)
    with pytest.raises(NoQualifiedPool, match=r"resource does not exist: Node\(node9\)"):
        ask(store, host="node9")


def test_labels_are_read_where_a_selector_asks(counting):
    """One request for the Node, however many pools ask."""
    put_pool(counting, "pool2", "10.1.0.0/29", blockSize=30, nodeSelector="rack == '1'")
    put_pool(counting, "pool3", "10.2.0.0/29", blockSize=30, nodeSelector="rack == '2'")
    ask(counting)
    assert [keys.NODES + "node1"] == [key for key in counting.keys if key.startswith(keys.NODES)]
