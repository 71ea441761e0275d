"""The order in which a host looks for a block."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import network_of, parse_address, parse_cidr
from cni_ipam.core.pool import Pool
from cni_ipam.core.walk import fnv1, walk_blocks


def pool_of(cidr, block_size):
    return Pool("p", parse_cidr(cidr), block_size)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("node1", 3957252814), ("worker-0", 2999756864), ("ip-10-0-0-1.ec2.internal", 1440555195)],
)
def test_fnv1_gives_calicos_numbers(host, expected):
    """FNV-1 and not FNV-1a (facts 2.6.2)."""
    assert expected == fnv1(host)


@given(st.sampled_from(["10.7.0.0/24", "fd00:7::/120"]), st.integers(0, 8), st.text(max_size=8))
def test_every_block_comes_exactly_once(cidr, bits, host):
    """All of the pool, nothing outside, each of the pool's block size, wrapping at the end."""
    pool = pool_of(cidr, parse_cidr(cidr).prefix + bits)
    walked = list(walk_blocks(pool, host))
    size = pool.cidr.size >> bits
    expected = [
        network_of(pool.cidr.address(number * size), pool.block_size) for number in range(1 << bits)
    ]
    assert expected == sorted(walked, key=lambda block: block.base)
    start = expected.index(walked[0])
    assert expected[start:] + expected[:start] == walked


def test_hosts_begin_at_different_places():
    """That keeps them out of each other's way."""
    pool = pool_of("10.0.0.0/16", 26)
    starts = {next(walk_blocks(pool, f"node{number}")) for number in range(20)}
    assert len(starts) > 15


def test_a_huge_pool_is_walked_lazily():
    """2^58 blocks are not counted out to give the first few."""
    pool = pool_of("fd00::/64", 122)
    first = list(itertools.islice(walk_blocks(pool, "node1"), 3))
    assert 3 == len({str(block) for block in first})


def test_a_pool_of_one_block_gives_that_block():
    """A block as large as its pool."""
    pool = pool_of("10.0.0.64/26", 26)
    assert [parse_cidr("10.0.0.64/26")] == list(walk_blocks(pool, "node1"))
    assert pool.block_of(parse_address("10.0.0.100")) == parse_cidr("10.0.0.64/26")
