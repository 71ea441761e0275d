"""ipam release --node: what a dead node held is free again, and told."""

from __future__ import annotations

from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Range, Write

POD = {"namespace": "default", "pod": "web-1", "network": "net"}


def test_addresses_and_blocks_are_released_and_told(pool):
    """Its own block, and an address of another's."""
    pool.claim("10.0.0.8/29", "node1", count=2, handle="net.c1", node="node1", **POD)
    pool.claim("10.0.0.16/29", "node2", count=1, handle="net.c2", node="node1", **POD)
    expected = """\
Released IP address 10.0.0.16
Released IP address 10.0.0.8
Released IP address 10.0.0.9
Released block 10.0.0.8/29
Successfully released node node1 (IP addresses: 3, blocks: 1)
"""

    result = pool.types("ipam", "release", "--node", "node1")

    assert (0, expected, "") == (result.status, result.out, result.err)
    assert pool.value(f"{keys.HANDLES}net.c1") is None
    assert "Check complete; found 0 problems." in pool.types("ipam", "check").out


def test_the_second_call_finds_nothing(pool):
    """So it says, with the nodes that hold something."""
    pool.claim("10.0.0.8/29", "node1")
    pool.claim("10.0.0.16/29", "node2", count=1, handle="net.c2", node="node3")
    assert 0 == pool.types("ipam", "release", "--node", "node1").status

    result = pool.types("ipam", "release", "--node", "node1")

    expected = (
        "nothing is recorded for node node1\nnodes that hold something: node2, node3\n"
    )  # fmt: skip
    assert (1, "", expected) == (result.status, result.out, result.err)


def test_a_node_that_nobody_knows_is_refused(pool):
    """Nothing is written."""
    result = pool.types("ipam", "release", "--node", "nodd1")

    expected = "nothing is recorded for node nodd1\nnodes that hold something: none\n"
    assert (1, "", expected) == (result.status, result.out, result.err)


def test_a_node_and_an_address_at_once_are_refused(pool):
    """Which of them is meant is not known."""
    pool.claim("10.0.0.8/29", "node1", count=1, node="node1")

    result = pool.types("ipam", "release", "--node", "node1", "--ip", "10.0.0.8")

    expected = "--ip and --node exclude each other: name an address or a node\n"
    assert (1, "", expected) == (result.status, result.out, result.err)
    assert pool.value(f"{keys.HANDLES}net.c1") is not None


def test_a_claim_that_was_begun_is_told(pool):
    """It stays, and does no harm."""
    pool.claim("10.0.0.8/29", "node1")
    key = f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.16-29"
    pool.write(Write(key, '{"state":"pending"}', ABSENT))
    expected = """\
Released block 10.0.0.8/29
A claim on block 10.0.0.16/29 was begun and stays; it keeps nobody from the block
Successfully released node node1 (IP addresses: 0, blocks: 1)
"""

    assert expected == pool.types("ipam", "release", "--node", "node1").out


def test_what_cannot_be_read_is_told_after_the_rest_was_released(pool):
    """And the exit status says so."""
    pool.claim("10.0.0.8/29", "node1", count=1, handle="net.c1", node="node1")
    pool.write(Write(f"{keys.BLOCKS}ipv4/block/10.0.0.16-29", "{", ABSENT))

    result = pool.types("ipam", "release", "--node", "node1")

    assert 1 == result.status
    assert "Released IP address 10.0.0.8\nReleased block 10.0.0.8/29\n" == result.out
    assert "10.0.0.16-29" in result.err


def test_a_block_that_cannot_be_read_is_told_once(pool):
    """And is no claim that was begun."""
    pool.claim("10.0.0.8/29", "node1")
    pool.claim("10.0.0.16/29", "node1")
    store = pool.store()
    (entry,) = store.read([Range(f"{keys.BLOCKS}ipv4/block/10.0.0.16-29")])[0]
    store.commit([Write(entry.key, "{", entry.revision)])
    store.close()

    result = pool.types("ipam", "release", "--node", "node1")

    assert (1, "Released block 10.0.0.8/29\n") == (result.status, result.out)
    assert 1 == result.err.count("10.0.0.16-29"), result.err


def test_the_help_says_that_the_node_must_be_dead(operator):
    """Nobody can see from here whether it is."""
    assert "must be dead" in " ".join(operator.types("ipam", "release", "--help").out.split())
