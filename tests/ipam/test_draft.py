"""The order of the writes of one operation."""

from __future__ import annotations

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import new_block
from cni_ipam.core.handle import Handle
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, SAME, Write
from cni_ipam.ipam.draft import Draft
from tests.ipam.world import NOW

CIDR = parse_cidr("10.0.0.4/30")
BLOCK = new_block(CIDR, "host:node1", NOW)
AFFINITY = Affinity("host", "node1", CIDR)
AFFINITY_KEY = keys.affinity_key("node1", CIDR)
HANDLE = Handle("net.c1", {CIDR: 1})


def states(writes):
    """Keys in order, and of affinities the state."""
    short = {keys.block_key(CIDR): "block", keys.handle_key("net.c1"): "handle"}
    return [
        (short.get(w.key) or (w.value.split('"')[3] if w.value else "gone"), w.expected)
        for w in writes
    ]


def test_handle_before_block_and_pending_before_both():
    """A claim: whatever survives of it, a confirmed affinity has its block, and that a handle."""
    draft = Draft()
    draft.put_block(BLOCK, ABSENT)
    draft.confirm(AFFINITY, ABSENT)
    draft.raise_handle(HANDLE, 7)
    expected = [("pending", ABSENT), ("handle", 7), ("block", ABSENT), ("confirmed", SAME)]
    assert expected == states(draft.writes())


def test_block_before_handle_on_release():
    """A release: what is allocated stays counted."""
    draft = Draft()
    draft.lower_handle(HANDLE.with_count(CIDR, 0), 7)
    draft.give_up(AFFINITY, 5)
    draft.delete_block(CIDR, 6)
    expected = [("pendingDeletion", 5), ("block", 6), ("handle", 7), ("gone", SAME)]
    assert expected == states(draft.writes())


def test_an_empty_handle_is_removed():
    """It counts nothing any more."""
    draft = Draft()
    draft.lower_handle(HANDLE.with_count(CIDR, 0), 7)
    assert [Write(keys.handle_key("net.c1"), None, 7)] == draft.writes()


def test_records_come_first():
    """What others only read is there before anything refers to it."""
    draft = Draft()
    draft.confirm(AFFINITY, ABSENT)
    draft.create(f"{keys.NODES}node1", "{}")
    assert Write(f"{keys.NODES}node1", "{}", ABSENT) == draft.writes()[0]


def test_a_stale_affinity_goes_last():
    """Once what replaces it is there."""
    draft = Draft()
    draft.drop_stale(AFFINITY, 5)
    draft.put_block(BLOCK, ABSENT)
    assert Write(AFFINITY_KEY, None, 5) == draft.writes()[-1]


def test_a_block_is_written_once():
    """In its last shape."""
    draft = Draft()
    draft.put_block(BLOCK, 6)
    draft.put_block(BLOCK.touch(), 6)
    assert [("block", 6)] == states(draft.writes())
    assert f'"sequenceNumber":{NOW + 1},' in draft.writes()[0].value


def test_nothing_decided_is_nothing_written():
    """An empty draft has no writes."""
    assert [] == Draft().writes()
