"""Handles count what an owner has in each block."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.handle import Handle, handle_id

BLOCKS = [parse_cidr(text) for text in ("10.0.0.0/29", "10.0.0.8/29", "fd00::/122")]


@given(st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(0, 4))))
def test_a_handle_holds_the_last_count_of_each_block(counts):
    """A count of 0 drops the block; no other block is touched."""
    handle = Handle("net.c1", {}, {"new": 1})
    for cidr, count in counts:
        handle = handle.with_count(cidr, count)
    expected = {cidr: count for cidr, count in dict(counts).items() if count}
    assert expected == handle.blocks
    assert (not expected) == handle.is_empty
    assert ("net.c1", {"new": 1}) == (handle.id, handle.extra)


def test_with_count_leaves_the_former_alone():
    """Handles are values."""
    handle = Handle("net.c1", {BLOCKS[0]: 1})
    handle.with_count(BLOCKS[0], 0)
    assert Handle("net.c1", {BLOCKS[0]: 1}) == handle


def test_handle_id_is_calicos():
    """The network's name, a dot, the container's ID (facts 1.5)."""
    assert "k8s-pod-network.c1" == handle_id("k8s-pod-network", "c1")
