"""The rule about keys that a commit writes twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, SAME, Range, Write, collapse


def test_one_write_per_key_remains():
    """The first expectation with the last value, in the order of the last."""
    writes = [
        Write("affinity", "pending", ABSENT),
        Write("block", "new", ABSENT),
        Write("affinity", "confirmed", SAME),
    ]
    expected = [Write("block", "new", ABSENT), Write("affinity", "confirmed", ABSENT)]
    assert expected == collapse(writes)


def test_different_keys_stay_as_they_are():
    """Nothing to collapse."""
    writes = [Write("a", "1", 5), Write("b", None, 7)]
    assert writes == collapse(iter(writes))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.text(max_size=2)), max_size=8))
def test_a_collapsed_commit_ends_like_the_whole_one(steps):
    """A store with transactions and one without hold the same in the end."""
    writes, written = [], set()
    for key, value in steps:
        writes.append(Write(key, value, SAME if key in written else ABSENT))
        written.add(key)
    held = []
    for atomic in (True, False):
        store = MemoryDatastore(atomic=atomic)
        store.commit(writes)
        entries = store.read([Range("", prefix=True)])[0]
        held.append([(entry.key, entry.value) for entry in entries])
    assert held[0] == held[1]
