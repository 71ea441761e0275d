"""The engine's own records as custom resources, written and read."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.kubernetes_objects import (
    GROUPS,
    is_deleted,
    to_deleted,
    to_entry,
    to_object,
)
from cni_ipam.datastore.kubernetes_records import V1, V3, is_labelled
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import CorruptRecord
from tests.datastore.golden import COOLING, FRESH
from tests.datastore.golden_kubernetes import AFFINITY, BLOCK, CONFIG, HANDLE, REAL_UID, stored

BLOCK_KEY = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
AFFINITY_KEY = "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-26"
HANDLE_KEY = "/calico/ipam/v2/handle/k8s-pod-network.c1"


def without(found, *names):
    """An object without some fields of its spec."""
    spec = {name: value for name, value in found["spec"].items() if name not in names}
    return {**found, "spec": spec}


# --- what is written


@pytest.mark.parametrize(
    ("key", "value", "golden"),
    [
        (BLOCK_KEY, FRESH, BLOCK),
        (AFFINITY_KEY, '{"state":"pending","deleted":false}', AFFINITY),
        (HANDLE_KEY, '{"block":{"10.0.0.208/29":1},"deleted":false}', HANDLE),
        (keys.CONFIG, '{"auto_allocate_blocks":true}', CONFIG),
    ],
)
def test_golden_objects_are_reproduced(key, value, golden):
    """Facts 1.2, 1.4, 1.6, 11: to the byte what Calico posts."""
    made = to_object(key, value, V1)
    assert golden == json.dumps(made, separators=(",", ":"))


def test_the_other_group_says_deleted_as_a_boolean_and_wraps_nothing():
    """Facts 1.4, 1.12: labels yes, annotation no."""
    made = to_object(AFFINITY_KEY, '{"state":"confirmed","deleted":false}', V3)
    assert "projectcalico.org/v3" == made["apiVersion"]
    assert made["spec"]["deleted"] is False
    labels = json.loads(AFFINITY)["metadata"]["labels"]
    assert {"name": "node1-10-0-0-0-26", "labels": labels} == made["metadata"]


def test_the_settings_have_another_kind_in_the_other_group():
    """Facts 1.6."""
    made = to_object(keys.CONFIG, '{"maxBlocksPerHost":2,"strict_affinity":true}', V3)
    assert ("IPAMConfiguration", V3) == (made["kind"], made["apiVersion"])
    spec = {"strictAffinity": True, "autoAllocateBlocks": False, "maxBlocksPerHost": 2}
    assert spec == made["spec"]


def test_a_block_without_owner_leaves_affinity_out():
    """Facts 1.2: null is for etcd."""
    key = keys.block_key(parse_cidr("10.0.0.208/29"))
    spec = to_object(key, COOLING, V1)["spec"]
    assert not {"affinity", "affinityClaimTime", "affinity_claim_time"} & set(spec)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("body", [BLOCK, AFFINITY, HANDLE])
def test_an_update_names_what_it_replaces(body, group):
    """Revision and UID of the object that was read; what others attached to it stays; an affinity
    from before labels gets them (facts 1.4)."""
    found = stored({**json.loads(body), "apiVersion": group})
    found["metadata"]["labels"] = {"team": "net"}
    found["metadata"]["annotations"] = {"note": "x"}
    found["metadata"]["finalizers"] = ["a/b"]
    found["metadata"].update(generation=3, managedFields=[{}], creationTimestamp="2026")
    entry = to_entry(found, group)
    made = to_object(entry.key, entry.value, group, existing=found)
    assert not {"generation", "managedFields"} & set(made["metadata"])
    assert (REAL_UID, "7") == (made["metadata"]["uid"], made["metadata"]["resourceVersion"])
    assert ("net", "x", ["a/b"]) == (
        made["metadata"]["labels"]["team"],
        made["metadata"]["annotations"]["note"],
        made["metadata"]["finalizers"],
    )
    assert (body == AFFINITY) == is_labelled(made)
    assert (group == V1) == ("projectcalico.org/metadata" in made["metadata"]["annotations"])


def test_a_rewritten_affinity_is_found_by_labels():
    """An old row's annotation would hide them: Calico reads it over the real ones."""
    old = stored(AFFINITY)
    old["metadata"].pop("labels")
    old["metadata"]["annotations"] = {"projectcalico.org/metadata": '{"creationTimestamp":null}'}
    assert not is_labelled(old)
    made = to_object(AFFINITY_KEY, '{"state":"pending","deleted":false}', V1, existing=old)
    assert json.loads(AFFINITY)["metadata"]["labels"] == made["metadata"]["labels"]
    assert json.loads(AFFINITY)["metadata"]["annotations"] == made["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (BLOCK_KEY, "[]"),
        (BLOCK_KEY, "{"),
        ("/elsewhere", "{}"),
        (BLOCK_KEY, FRESH.replace("10.0.0.0/30", "10.0.0.4/30")),
    ],
)
def test_what_has_no_object_is_refused(key, value):
    """Whoever reads it could not understand it."""
    with pytest.raises(ValueError, match=r"\w"):
        to_object(key, value, V1)


# --- what is marked as deleted


@pytest.mark.parametrize(
    ("body", "group", "deleted"),
    [
        (BLOCK, V1, True),
        (AFFINITY, V1, "true"),
        (HANDLE, V1, True),
        (BLOCK, V3, True),
        (AFFINITY, V3, True),
        (HANDLE, V3, True),
    ],
)
def test_a_deleted_object_is_gone(body, group, deleted):
    """Facts 1.4, 1.12: the first of the two steps, with the revision and UID that were read."""
    found = stored(body)
    made = to_deleted(found, group)
    assert deleted == made["spec"]["deleted"]
    assert found["metadata"] == made["metadata"]
    assert (True, False) == (is_deleted(made), is_deleted(found))
    assert to_entry(made, group) is None


def test_a_deleted_handle_counts_nothing():
    """Facts 11, to the field."""
    spec = {"handleID": "k8s-pod-network.c1", "block": {}, "deleted": True}
    assert spec == to_deleted(stored(HANDLE), V1)["spec"]


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [
        *[(value, True) for value in (True, "true", "True", "TRUE", "1", "t")],
        *[(value, False) for value in (False, "false", "", "0", None)],
    ],
)
@pytest.mark.parametrize("body", [BLOCK, AFFINITY, HANDLE])
def test_deleted_may_be_a_text_or_a_boolean(body, deleted, expected):
    """Facts 1.4; read as Go's ParseBool does, an empty text as false."""
    assert expected == is_deleted(stored(body, deleted=deleted))


@pytest.mark.parametrize("deleted", ["yes", 1, [], "tRUE"])
def test_deleted_that_is_neither_is_refused(deleted):
    """A guess could revive a record, or lose one."""
    with pytest.raises(ValueError, match="deleted"):
        to_entry(stored(AFFINITY, deleted=deleted), V1)


# --- what is read


@pytest.mark.parametrize(
    ("body", "key", "value"),
    [
        (BLOCK, BLOCK_KEY, FRESH.replace('"attributes":null', '"attributes":[]')),
        (AFFINITY, AFFINITY_KEY, '{"state":"pending","deleted":false}'),
        (HANDLE, HANDLE_KEY, '{"block":{"10.0.0.208/29":1},"deleted":false}'),
        (CONFIG, keys.CONFIG, '{"auto_allocate_blocks":true}'),
    ],
)
def test_golden_objects_are_read(body, key, value):
    """To the byte as in etcd, although the API server sorts the fields."""
    assert Entry(key, value, 7) == to_entry(stored(body), V1)


def test_the_other_group_is_read_the_same_way():
    """Facts 1.4, 1.6: a boolean, another kind, no annotation."""
    affinity = stored(AFFINITY, deleted=False)
    del affinity["metadata"]["annotations"]
    assert AFFINITY_KEY == to_entry(affinity, V3).key
    config = {**stored(CONFIG, strictAffinity=True), "kind": "IPAMConfiguration"}
    value = '{"strict_affinity":true,"auto_allocate_blocks":true}'
    assert Entry(keys.CONFIG, value, 7) == to_entry(config, V3)


@pytest.mark.parametrize(
    "annotations",
    [
        None,
        {},
        {"projectcalico.org/metadata": '{"creationTimestamp":null}'},
        {"projectcalico.org/metadata": "not JSON"},
    ],
)
@pytest.mark.parametrize("body", [BLOCK, AFFINITY, HANDLE, CONFIG])
def test_metadata_of_other_releases_do_not_matter(body, annotations):
    """Facts 1.12: an engine's record has no metadata that anybody sees."""
    found = stored(body)
    found["metadata"]["annotations"] = annotations
    found["metadata"].pop("labels", None)
    assert to_entry(stored(body), V1) == to_entry(found, V1)


def test_old_affinities_are_hosts():
    """Facts 1.4: no type, no state, no labels."""
    for found in (
        without(stored(AFFINITY), "type", "state"),
        stored(AFFINITY, type="", state=None),
    ):
        entry = to_entry(found, V1)
        assert Entry(AFFINITY_KEY, '{"state":"","deleted":false}', 7) == entry
        assert codec.decode_affinity(entry).is_confirmed


def test_a_block_of_long_ago_is_read():
    """Facts 1.2: without numbers, with `strictAffinity` true; nobody's, since these objects never
    had a field `hostAffinity`."""
    found = without(stored(BLOCK), "sequenceNumber", "sequenceNumberForAllocation", "affinity")
    found = without(found, "affinityClaimTime", "deleted")
    found["spec"].update(strictAffinity=True, attributes=None, hostAffinity="node1")
    block = codec.decode_block(to_entry(found, V1))
    assert (None, 0, {}) == (block.affinity, block.sequence_number, block.allocation_sequence)
    assert "strictAffinity" not in (block.extra or {})


def test_fields_of_newer_releases_are_carried_along():
    """As the codec does in etcd, in a block's attributes too."""
    attribute = {"zone": "a", "secondary": {"node": "node1"}, "handle_id": "net.c1"}
    found = stored(BLOCK, later=1, attributes=[attribute])
    entry = to_entry(found, V1)
    assert '[{"handle_id":"net.c1","secondary":{"node":"node1"},"zone":"a"}]' in entry.value
    spec = to_object(entry.key, entry.value, V1, existing=found)["spec"]
    assert (1, [attribute]) == (spec["later"], spec["attributes"])


def test_handles_that_differ_only_in_case_are_two():
    """Facts 11: they have one name, so who asks for the one may find the other."""
    found = stored(to_object(keys.handle_key("Net.C1"), '{"block":{}}', V1))
    assert "net.c1" == found["metadata"]["name"]
    assert keys.handle_key("Net.C1") == to_entry(found, V1).key


def test_settings_by_another_name_are_none():
    """Facts 1.6: only `default` counts."""
    found = stored(CONFIG)
    found["metadata"]["name"] = "other"
    assert to_entry(found, V1) is None


@pytest.mark.parametrize(
    ("body", "spec", "problem"),
    [
        (BLOCK, {"cidr": "10.0.0.4/30"}, "10-0-0-4-30"),
        (BLOCK, {"cidr": "nonsense"}, "nonsense"),
        (BLOCK, {"cidr": None}, "cidr"),
        (AFFINITY, {"cidr": "10.0.0.64/26"}, "node1-10-0-0-64-26"),
        (AFFINITY, {"node": "node2"}, "node2-10-0-0-0-26"),
        (AFFINITY, {"node": ""}, "node"),
        (AFFINITY, {"node": "a/b"}, "slash"),
        (AFFINITY, {"type": "rack"}, "rack"),
        (HANDLE, {"handleID": "other.c1"}, "other.c1"),
        (HANDLE, {"handleID": None}, "handleID"),
        (HANDLE, {"handleID": "a/b"}, "slash"),
    ],
)
def test_objects_that_contradict_themselves_are_refused(body, spec, problem):
    """Under a wrong name it could not be found by who looks for it, nor be written back."""
    with pytest.raises(ValueError, match=problem):
        to_entry(stored(body, **spec), V1)


@pytest.mark.parametrize(
    ("body", "spec", "decode"),
    [
        (BLOCK, {"attributes": ["x"]}, codec.decode_block),
        (BLOCK, {"attributes": {}}, codec.decode_block),
        (BLOCK, {"allocations": None}, codec.decode_block),
        (AFFINITY, {"state": "lost"}, codec.decode_affinity),
        (HANDLE, {"block": ["x"]}, codec.decode_handle),
        (CONFIG, {"strictAffinity": "yes"}, codec.decode_config),
    ],
)
def test_wrong_values_are_left_to_the_codec(body, spec, decode):
    """Which names the key and says what is wrong, as for every datastore."""
    entry = to_entry(stored(body, **spec), V1)
    with pytest.raises(CorruptRecord, match=entry.key):
        decode(entry)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": None},
        {"metadata": {"name": "10-0-0-0-30"}},
        {"metadata": {"name": "10-0-0-0-30", "resourceVersion": 7}},
        {"metadata": {"name": "10-0-0-0-30", "resourceVersion": "x7"}},
        {"metadata": {"resourceVersion": "7"}},
        {"spec": None},
        {"spec": []},
        {"kind": "Pod"},
        {"kind": None},
    ],
)
def test_objects_that_are_none_are_refused(change):
    """Told as a ValueError, from which a broken record is made."""
    with pytest.raises(ValueError, match=r"\w"):
        to_entry({**stored(BLOCK), **change}, V1)
