"""Broken records: CorruptRecord names the key, and nothing else is ever raised."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.check import check_block
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import CorruptRecord
from tests.datastore.golden import (
    AFFINITY_KEY,
    CLUSTER,
    COOLING,
    FRESH,
    FULL_CONFIG,
    NODE,
    POOL,
    RESERVATION,
)

KINDS = {
    "block": (codec.decode_block, keys.block_key(parse_cidr("10.0.0.208/29")), COOLING),
    "affinity": (codec.decode_affinity, AFFINITY_KEY, '{"state":"pending","deleted":false}'),
    "handle": (
        codec.decode_handle,
        keys.handle_key("net.c1"),
        '{"block":{"10.0.0.208/29":1},"deleted":false}',
    ),
    "config": (
        codec.decode_config,
        keys.CONFIG,
        FULL_CONFIG,
    ),
    "pool": (codec.decode_pool, f"{keys.POOLS}pool1", POOL),
    "reservation": (codec.decode_reservation, f"{keys.RESERVATIONS}r", RESERVATION),
    "node": (codec.decode_labels, f"{keys.NODES}node1", NODE),
    "cluster": (codec.is_ready, keys.CLUSTER_INFORMATION, CLUSTER),
}


def corruption(kind, value):
    """The error with which the decoder of `kind` refuses `value`; it names the key."""
    decode, key, _ = KINDS[kind]
    with pytest.raises(CorruptRecord) as raised:
        decode(Entry(key, value, 1))
    assert key == raised.value.key
    assert key in raised.value.msg
    return raised.value.msg


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["{", "nonsense", "[]", "null", "7", '"x"', "\x00", "{} {}"])
def test_what_is_no_json_object_is_corrupt(kind, value):
    """Whatever it should have been."""
    assert "is not" in corruption(kind, value)


WRONG = {
    "block": [
        {"cidr": "10.0.0.208"},
        {"cidr": None},
        {"cidr": 7},
        {"cidr": "10.0.0.0/8"},
        {"cidr": "10.0.0.200/29"},
        {"affinity": 7},
        {"affinity_claim_time": 7},
        {"allocations": None},
        {"allocations": []},
        {"allocations": "nonsense"},
        {"allocations": [None, 0, 7, None, None, None, None, None]},
        {"allocations": [None, 0, -1, None, None, None, None, None]},
        {"allocations": [None, 0, 1.0, None, None, None, None, None]},
        {"allocations": [None, 0, "1", None, None, None, None, None]},
        {"allocations": [None, False, True, None, None, None, None, None]},
        {"unallocated": None},
        {"unallocated": [3, 4, 5, 6, 7]},
        {"unallocated": [3, 4, 5, 6, 7, 8]},
        {"unallocated": [3, 4, 5, 6, 7, 7]},
        {"unallocated": [3, 4, 5, 6, 7, 1]},
        {"unallocated": [3, 4, 5, 6, 7, False]},
        {"attributes": None},
        {"attributes": []},
        {"attributes": {}},
        {"attributes": [7, 8]},
        {"attributes": [None, None]},
        {"attributes": [[], []]},
        {"attributes": ["", ""]},
        {"attributes": [{}, {"handle_id": 7}]},
        {"attributes": [{}, {"secondary": []}]},
        {"attributes": [{}, {"secondary": {"node": 7}}]},
        {"attributes": [{}, {"alternateOwnerAttrs": []}]},
        {"attributes": [{}, {"alternateOwnerAttrs": {"node": 7}}]},
        {"attributes": [{}, {"releasedAt": 7}]},
        {"attributes": [{}, {}, {}]},
        {"sequenceNumber": "1"},
        {"sequenceNumber": 1.5},
        {"sequenceNumber": True},
        {"sequenceNumberForAllocation": []},
        {"sequenceNumberForAllocation": [1]},
        {"sequenceNumberForAllocation": {"one": 1}},
        {"sequenceNumberForAllocation": {"1": "1"}},
    ],
    "affinity": [{"state": "unknown"}, {"state": 7}, {"state": ["pending"]}],
    "handle": [
        {"block": []},
        {"block": [1]},
        {"block": 7},
        {"block": {"nonsense": 1}},
        {"block": {"10.0.0.208/29": "1"}},
        {"block": {"10.0.0.208/29": None}},
        {"block": {"10.0.0.208/29": 1.5}},
    ],
    "config": [
        {"strict_affinity": "false"},
        {"auto_allocate_blocks": 1},
        {"maxBlocksPerHost": "2"},
        {"ipCooldownSeconds": 1.5},
        {"ipCooldownSeconds": []},
        {"kubeVirtVMAddressPersistence": True},
    ],
    "pool": [
        {"metadata": None},
        {"metadata": []},
        {"metadata": {}},
        {"metadata": {"name": 7}},
        {"spec": None},
        {"spec": "x"},
        {"spec": {}},
        {"spec": {"cidr": "10.0.0.0"}},
        {"spec": {"cidr": 7}},
        {"spec": {"cidr": "10.0.0.0/24", "blockSize": "29"}},
        {"spec": {"cidr": "10.0.0.0/24", "disabled": "false"}},
        {"spec": {"cidr": "10.0.0.0/24", "nodeSelector": 7}},
        {"spec": {"cidr": "10.0.0.0/24", "namespaceSelector": ["x"]}},
        {"spec": {"cidr": "10.0.0.0/24", "allowedUses": "Workload"}},
        {"spec": {"cidr": "10.0.0.0/24", "allowedUses": [7]}},
        {"spec": {"cidr": "10.0.0.0/24", "assignmentMode": 7}},
        {"status": []},
        {"status": {"conditions": [7]}},
    ],
    "reservation": [
        {"spec": "x"},
        {"spec": [1]},
        {"spec": {"reservedCIDRs": 7}},
        {"spec": {"reservedCIDRs": "10.0.0.0/30"}},
        {"spec": {"reservedCIDRs": [7]}},
    ],
    "node": [
        {"metadata": "x"},
        {"metadata": [1]},
        {"metadata": {"labels": ["rack"]}},
        {"metadata": {"labels": {"rack": 1}}},
    ],
    "cluster": [{"spec": "x"}, {"spec": [1]}],
}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [pytest.param(kind, f, id=f"{kind}-{f}") for kind, cases in WRONG.items() for f in cases],
)
def test_wrong_fields_are_corrupt(kind, fields):
    """Wrong types, indexes out of range, a queue that disagrees: refused, never repaired."""
    corruption(kind, json.dumps(json.loads(KINDS[kind][2]) | fields))


@pytest.mark.parametrize("field", ["cidr", "allocations", "unallocated", "attributes"])
def test_a_block_that_lacks_a_field_is_corrupt(field):
    """Calico always writes these."""
    document = json.loads(COOLING)
    del document[field]
    assert field in corruption("block", json.dumps(document))


def test_a_block_under_anothers_key_is_corrupt():
    """It would be written back to the wrong place."""
    assert "holds block 10.0.0.0/30" in corruption("block", FRESH)


def test_an_affinity_needs_a_key_that_names_it():
    """Host and block stand nowhere else."""
    key = "/calico/ipam/v2/host/node1/ipv4/block/nonsense"
    with pytest.raises(CorruptRecord, match="is not the key of an affinity"):
        codec.decode_affinity(Entry(key, "", 1))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from([2**64, 1.5, "", "0", "x", "10.0.0.208/29", "pending"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "type", "name", "spec", "node"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def paths_of(value, path=()):
    """The path of everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from paths_of(inner, (*path, key))


def understood(kind, text):
    """What the decoder of `kind` makes of a value; None if it refuses it by the name of its key."""
    decode, key, _ = KINDS[kind]
    try:
        return decode(Entry(key, text, 1))
    except CorruptRecord as error:
        named = error.key
    assert key == named
    return None


@st.composite
def mutated_documents(draw):
    """A golden document of some kind, some of whose places hold something else, or nothing."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    document = copy.deepcopy(json.loads(KINDS[kind][2]))
    for _ in range(draw(st.integers(1, 3))):
        paths = list(paths_of(document))
        if not paths:
            break
        *way, last = draw(st.sampled_from(paths))
        place = document
        for step in way:
            place = place[step]
        if draw(st.booleans()):
            place[last] = draw(JSON_VALUES)
        else:
            del place[last]
    return kind, json.dumps(document)


@settings(max_examples=300)
@given(mutated_documents())
def test_no_mutation_gets_through_in_any_other_way(mutated):
    """A mutated document is understood and sound, or CorruptRecord names its key."""
    kind, text = mutated
    _, key, _ = KINDS[kind]
    found = understood(kind, text)
    if found is None:
        return
    if kind == "block":
        assert [] == check_block(found)
        text = codec.encode_block(found)
        assert text == codec.encode_block(codec.decode_block(Entry(key, text, 1)))
    elif kind == "handle":
        assert found == codec.decode_handle(Entry(key, codec.encode_handle(found), 1))
    elif kind == "pool":
        assert isinstance(found.why_not_enabled(), str)


@given(st.sampled_from(sorted(KINDS)), st.text(max_size=40))
def test_no_text_gets_through_in_any_other_way(kind, text):
    """Nor any other value."""
    understood(kind, text)
