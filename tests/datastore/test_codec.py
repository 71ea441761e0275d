"""Records as Calico writes them, to the byte, and those of its older releases."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.config import IpamConfig
from cni_ipam.core.handle import Handle
from cni_ipam.core.pool import Pool
from cni_ipam.core.reservation import Reservations
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import CorruptRecord
from cni_ipam.lean.record import replace
from tests.datastore.golden import (
    AFFINITY_KEY,
    ALLOCATED,
    CLUSTER,
    COOLING,
    FRESH,
    FULL_CONFIG,
    NODE,
    POOL,
    RESERVATION,
)

NOW = 1_767_323_045_000_000_678


def block_entry(value):
    """The entry of a block, under the key that its own CIDR asks for."""
    fields = value if isinstance(value, dict) else json.loads(value)
    text = json.dumps(value) if isinstance(value, dict) else value
    return Entry(keys.block_key(parse_cidr(fields["cidr"])), text, 1)


def changed(text, **fields):
    """The document `text` with some fields changed."""
    return json.loads(text) | fields


def without(text, *names):
    """The document `text` without some fields."""
    return {name: value for name, value in json.loads(text).items() if name not in names}


@pytest.mark.parametrize("text", [ALLOCATED, COOLING])
def test_golden_blocks_are_written_back_to_the_byte(text):
    """Facts 1.2, 2.13."""
    assert text == codec.encode_block(codec.decode_block(block_entry(text)))


def test_the_golden_fresh_block_is_ours():
    """Facts 1.2: `attributes` is null only in a block that was never allocated from."""
    block = new_block(parse_cidr("10.0.0.0/30"), "host:node1", NOW)
    assert block == codec.decode_block(block_entry(FRESH))
    assert FRESH.replace('"attributes":null', '"attributes":[]') == codec.encode_block(block)


def test_the_golden_allocation_is_reproduced():
    """Facts 1.2: what our own first assignment writes is Calico's to the byte."""
    now = 1_795_256_819_949_442_451
    secondary = {
        "timestamp": "2026-11-21 10:26:59.938437476 +0000 UTC",
        "pod": "p1",
        "node": "node1",
        "namespace": "default",
    }
    block = new_block(parse_cidr("10.0.0.208/29"), "host:node1", now)
    block, _ = block.assign(1, Attribute("k8s-pod-network.c1", secondary), Reservations())
    assert ALLOCATED == codec.encode_block(block)


def test_the_golden_transcript_is_reproduced():
    """Facts 10.1 to 10.4: three ADDs, one DEL."""
    block = new_block(parse_cidr("10.0.0.208/29"), "host:node1", 1_795_256_819_000_000_000)
    for number in (1, 2, 3):
        block, _ = block.assign(1, Attribute(f"k8s-pod-network.c{number}"), Reservations())
    fields = json.loads(codec.encode_block(block.release([0], block.sequence_number, 0)))
    assert [None, 0, 1, None, None, None, None, None] == fields["allocations"]
    assert [3, 4, 5, 6, 7, 0] == fields["unallocated"]
    assert {"1", "2"} == set(fields["sequenceNumberForAllocation"])


def test_sequence_numbers_are_keyed_in_gos_order():
    """Facts 3.4: decimal texts, sorted as texts."""
    block = new_block(parse_cidr("10.0.0.0/28"), "host:node1", 5)
    block, _ = block.assign(12, Attribute("net.c1"), Reservations())
    assert (
        '"sequenceNumberForAllocation":{"0":5,"1":5,"10":5,"11":5,"2":5,"3":5,"4":5,"5":5,"6":5,'
        '"7":5,"8":5,"9":5}'
    ) in codec.encode_block(block)


def test_markup_is_escaped_as_go_does():
    """Facts 1.1."""
    block = new_block(parse_cidr("10.0.0.0/31"), None, 5)
    block, _ = block.assign(1, Attribute("net.c1", {"pod": "<&>"}), Reservations())
    text = codec.encode_block(block)
    assert r'"pod":"\u003c\u0026\u003e"' in text
    assert block == codec.decode_block(block_entry(text))


def test_unknown_fields_survive_a_rewrite():
    """Of a block and of its attributes: a newer peer loses nothing."""
    text = ALLOCATED.replace('"deleted":false}', '"deleted":false,"fromTheFuture":{"a":[1]}}')
    text = text.replace('+0000 UTC"}}]', '+0000 UTC"},"alsoNew":7}]')
    block = codec.decode_block(block_entry(text))
    assert text == codec.encode_block(block)
    rewritten, _ = block.assign(1, Attribute("net.c2"), Reservations())
    fields = json.loads(codec.encode_block(rewritten))
    assert ({"a": [1]}, 7) == (fields["fromTheFuture"], fields["attributes"][0]["alsoNew"])


def test_an_alternate_owner_stands_where_calico_writes_it():
    """Behind the active one, its keys sorted; without attributes it is left out."""
    owner = Attribute("h", {"pod": "a"}, {"pod": "b", "namespace": "n"})
    block = new_block(parse_cidr("10.0.0.0/31"), None, 5).assign_ordinal(0, owner)
    text = codec.encode_block(block)
    expected = '"secondary":{"pod":"a"},"alternateOwnerAttrs":{"namespace":"n","pod":"b"}}]'
    assert expected in text
    assert block == codec.decode_block(block_entry(text))
    assert "alternate" not in codec.encode_block(block.with_owner(0, replace(owner, alternate={})))


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, 2**64 - 1])
def test_big_sequence_numbers_are_exact(number):
    """They pass the 53 bits of a float."""
    text = changed(ALLOCATED, sequenceNumber=number, sequenceNumberForAllocation={"0": number - 1})
    block = codec.decode_block(block_entry(text))
    assert (number, {0: number - 1}) == (block.sequence_number, block.allocation_sequence)
    assert f'"sequenceNumber":{number},' in codec.encode_block(block)


def test_a_sequence_number_begins_anew_after_the_last():
    """As Go's, which has 64 bits."""
    block = codec.decode_block(block_entry(changed(ALLOCATED, sequenceNumber=2**64 - 1))).touch()
    assert '"sequenceNumber":0,' in codec.encode_block(block)


@pytest.mark.parametrize("number", [-1, 2**64, 99999999999999999999])
@pytest.mark.parametrize("field", ["sequenceNumber", "sequenceNumberForAllocation"])
def test_a_sequence_number_that_calico_cannot_read_is_no_record(field, number):
    """It could not use the block any more after we had."""
    value = number if field == "sequenceNumber" else {"0": number}
    with pytest.raises(CorruptRecord, match=f"{number} is no sequence number"):
        codec.decode_block(block_entry(changed(ALLOCATED, **{field: value})))


@pytest.mark.parametrize("names", [["sequenceNumber"], ["sequenceNumberForAllocation"]])
def test_missing_sequence_numbers_are_those_of_an_old_release(names):
    """Facts 1.2: blocks from before v3.23."""
    block = codec.decode_block(block_entry(without(ALLOCATED, *names)))
    if "sequenceNumber" in names:
        assert 0 == block.sequence_number
    else:
        assert {} == block.allocation_sequence


def test_stale_sequence_numbers_of_free_ordinals_are_dropped():
    """Facts 3.11: releases up to v3.32 left them behind."""
    fields = changed(ALLOCATED, sequenceNumberForAllocation={"0": 7, "3": 5, "99": 5, "-1": 5})
    assert {0: 7} == codec.decode_block(block_entry(fields)).allocation_sequence


def test_null_handle_and_secondary_are_those_of_an_old_release():
    """Facts 1.3: up to v3.31 they were written even so."""
    fields = changed(ALLOCATED, attributes=[{"handle_id": None, "secondary": None}])
    assert (Attribute(),) == codec.decode_block(block_entry(fields)).attributes


def test_a_malformed_legacy_handle_is_cut_for_comparing_only():
    """Facts 1.3: it is written back as it was."""
    fields = changed(ALLOCATED, attributes=[{"handle_id": "net.c1\rjunk"}])
    block = codec.decode_block(block_entry(fields))
    assert "net.c1" == block.attributes[0].handle
    assert r'"handle_id":"net.c1\rjunk"' in codec.encode_block(block)


def test_a_block_without_owner_says_null():
    """Facts 10.9: etcd always has the field, and no claim time."""
    block = codec.decode_block(block_entry(ALLOCATED)).disown()
    text = codec.encode_block(block)
    assert '"affinity":null,"allocations"' in text
    assert block == codec.decode_block(block_entry(text))


@pytest.mark.parametrize(
    ("value", "state"),
    [
        ('{"state":"confirmed","deleted":false}', "confirmed"),
        ('{"state":"pending","deleted":false}', "pending"),
        ('{"state":"pendingDeletion","deleted":false}', "pendingDeletion"),
        ('{"state":"","deleted":false}', ""),
    ],
)
def test_affinities_are_written_back_to_the_byte(value, state):
    """Facts 1.4."""
    affinity = codec.decode_affinity(Entry(AFFINITY_KEY, value, 1))
    assert Affinity("host", "node1", parse_cidr("10.0.0.208/29"), state) == affinity
    assert value == codec.encode_affinity(affinity)


@pytest.mark.parametrize("value", ["", "{}", '{"deleted":false}'])
def test_an_empty_affinity_is_a_confirmed_one(value):
    """Facts 1.4: legacy."""
    assert codec.decode_affinity(Entry(AFFINITY_KEY, value, 1)).is_confirmed


def test_unknown_fields_of_an_affinity_survive():
    """As everywhere."""
    value = '{"state":"confirmed","deleted":false,"new":1}'
    assert value == codec.encode_affinity(codec.decode_affinity(Entry(AFFINITY_KEY, value, 1)))


def test_the_golden_handle_is_written_back_to_the_byte():
    """Facts 1.5: the ID stands in the key alone."""
    value = '{"block":{"10.0.0.208/29":1,"fd00::/122":2},"deleted":false,"new":[]}'
    entry = Entry(keys.handle_key("k8s-pod-network.c1"), value, 1)
    handle = codec.decode_handle(entry)
    blocks = {parse_cidr("10.0.0.208/29"): 1, parse_cidr("fd00::/122"): 2}
    assert Handle("k8s-pod-network.c1", blocks, {"new": []}) == handle
    assert value == codec.encode_handle(handle)


def test_blocks_of_a_handle_are_in_gos_order():
    """Map keys are sorted."""
    handle = Handle("net.c1", {parse_cidr("fd00::/122"): 1, parse_cidr("10.0.0.208/29"): 1})
    expected = '{"block":{"10.0.0.208/29":1,"fd00::/122":1},"deleted":false}'
    assert expected == codec.encode_handle(handle)


@pytest.mark.parametrize("value", ["", "{}", '{"block":null,"deleted":false}'])
def test_an_empty_handle_counts_nothing(value):
    """A nil map of Go's is null."""
    assert codec.decode_handle(Entry(keys.handle_key("h"), value, 1)).is_empty


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, IpamConfig()),
        ("{}", IpamConfig(auto_allocate_blocks=False)),
        ("", IpamConfig(auto_allocate_blocks=False)),
        (
            FULL_CONFIG,
            IpamConfig(
                strict_affinity=True,
                auto_allocate_blocks=True,
                max_blocks_per_host=2,
                cooldown_seconds=60,
                vm_persistence="Enabled",
            ),
        ),
        (
            '{"auto_allocate_blocks":true,"ofANewerPeer":{"a":1}}',
            IpamConfig(extra={"ofANewerPeer": {"a": 1}}),
        ),
        (
            '{"auto_allocate_blocks":true,"maxBlocksPerHost":null,"ipCooldownSeconds":null}',
            IpamConfig(),
        ),
    ],
)
def test_config_is_read_as_calico_reads_it(value, expected):
    """Facts 1.6: absent means defaults, an empty object means no new blocks."""
    entry = None if value is None else Entry(keys.CONFIG, value, 1)
    assert expected == codec.decode_config(entry)


@pytest.mark.parametrize(
    "value",
    [
        "{}",
        FULL_CONFIG,
        '{"strict_affinity":true}',
        '{"auto_allocate_blocks":true}',
        '{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Disabled","later":[]}',
    ],
)
def test_config_is_written_as_calico_writes_it(value):
    """To the byte, unknown fields last."""
    assert value == codec.encode_config(codec.decode_config(Entry(keys.CONFIG, value, 1)))


def pool_entry(text):
    return Entry(f"{keys.POOLS}pool1", text, 1)


def test_the_golden_pool_is_read():
    """Facts 1.7."""
    expected = Pool("pool1", parse_cidr("10.0.0.0/24"), 29)
    assert expected == codec.decode_pool(pool_entry(POOL))


@pytest.mark.parametrize(("cidr", "block_size"), [("10.0.0.0/16", 26), ("fd00::/64", 122)])
def test_a_pool_has_calicos_defaults(cidr, block_size):
    """Facts 1.7: they are applied whenever a pool is read."""
    text = json.dumps({"metadata": {"name": "p"}, "spec": {"cidr": cidr}})
    pool = codec.decode_pool(pool_entry(text))
    assert Pool("p", parse_cidr(cidr), block_size) == pool
    assert pool.is_enabled
    assert ("all()", "", ("Workload", "Tunnel"), "Automatic") == (
        pool.node_selector,
        pool.namespace_selector,
        pool.allowed_uses,
        pool.assignment_mode,
    )


@pytest.mark.parametrize(
    ("part", "fields", "reason"),
    [
        ("spec", {"disabled": True}, "disabled"),
        ("metadata", {"deletionTimestamp": "2026-11-21T10:26:22Z"}, "being deleted"),
        (
            "status",
            {"conditions": [{"type": "Allocatable", "status": "False"}]},
            "not allocatable (condition Allocatable is False)",
        ),
        ("status", {"conditions": [{"type": "Allocatable", "status": "True"}]}, ""),
        ("status", {"conditions": [{"type": "Other", "status": "False"}]}, ""),
        ("status", {"conditions": None}, ""),
    ],
)
def test_a_pool_that_is_off_says_why(part, fields, reason):
    """Facts 2.1."""
    document = json.loads(POOL)
    document[part] = document.get(part, {}) | fields
    pool = codec.decode_pool(pool_entry(json.dumps(document)))
    assert (reason, not reason) == (pool.why_not_enabled(), pool.is_enabled)


def test_reservations_skip_what_calico_skips():
    """Facts 1.8."""
    expected = [parse_cidr("10.0.0.0/30"), parse_address("10.0.0.9").host_cidr]
    assert expected == codec.decode_reservation(Entry(f"{keys.RESERVATIONS}r", RESERVATION, 1))


@pytest.mark.parametrize("value", ["", "{}", '{"spec":null}', '{"spec":{"reservedCIDRs":null}}'])
def test_an_empty_reservation_reserves_nothing(value):
    """Go's empty values."""
    assert [] == codec.decode_reservation(Entry(f"{keys.RESERVATIONS}r", value, 1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NODE, {"rack": "1"}),
        ("{}", {}),
        ('{"metadata":null}', {}),
        ('{"metadata":{"labels":null}}', {}),
    ],
)
def test_a_nodes_labels_are_read(value, expected):
    """Facts 1.9."""
    assert expected == codec.decode_labels(Entry(f"{keys.NODES}node1", value, 1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, True),
        ("{}", True),
        ('{"spec":null}', True),
        ('{"spec":{"datastoreReady":true}}', True),
        ('{"spec":{"datastoreReady":null}}', True),
        (CLUSTER, False),
    ],
)
def test_only_false_locks_the_datastore(value, expected):
    """Facts 1.10."""
    entry = None if value is None else Entry(keys.CLUSTER_INFORMATION, value, 1)
    assert expected == codec.is_ready(entry)


def test_a_new_resource_is_one_that_calicoctl_could_update():
    """Facts 11: kind, version, UID v4 and creation time."""
    seed = bytes(range(16))
    text = codec.new_resource("IPPool", "p", {"cidr": "10.0.0.0/24"}, NOW, seed)
    assert text.startswith('{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{')
    fields = json.loads(text)
    assert {"cidr": "10.0.0.0/24"} == fields["spec"]
    assert ("p", "2026-01-02T03:04:05Z") == (
        fields["metadata"]["name"],
        fields["metadata"]["creationTimestamp"],
    )


def test_uids_are_v4_and_differ():
    """One seed serves for several resources of one commit."""
    names = [("IPPool", "a"), ("IPPool", "b"), ("IPReservation", "a"), ("Node", "a")]
    seed = bytes(16)
    uids = [codec.new_metadata(kind, name, NOW, seed)["uid"] for kind, name in names]
    assert 4 == len(set(uids))
    for uid in uids:
        assert [8, 4, 4, 4, 12] == [len(part) for part in uid.split("-")]
        assert "4" == uid[14]
        assert uid[19] in "89ab"
