"""What peers of other ages wrote: read for what it means, rewritten without a loss.

Each value is read and written back as it is, and again after an update of the block, which is
what happens to it in a cluster where such a peer and ours work on the same blocks.
"""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.reservation import Reservations
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import CorruptRecord
from cni_ipam.lean.record import replace

NOW = 1_800_000_000_000_000_000
KEY = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
AFFINITY = "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-30"
OURS = Attribute("net.c9", {"node": "node1"})
VM = {"node": "node1", "vmi-name": "vm", "vmi-uid": "u1", "vm-uid": "u2"}
FULL = {
    "cidr": "10.0.0.0/30",
    "affinity": "host:node1",
    "affinity_claim_time": "2026-01-02T03:04:05Z",
    "allocations": [0, 1, None, None],
    "unallocated": [2, 3],
    "attributes": [
        {
            "handle_id": "net.vmi.ns.vm",
            "secondary": VM,
            "alternateOwnerAttrs": {"node": "node2", "vmim-uid": "u3"},
        },
        {"releasedAt": "2027-01-15T07:59:55Z"},
    ],
    "sequenceNumber": 1_767_323_045_000_000_678,
    "sequenceNumberForAllocation": {"0": 1_767_323_045_000_000_671, "1": 2**64 - 2},
    "deleted": False,
    "hostAffinity": "node7",
}


def read(fields):
    """The block whose value has these fields."""
    return codec.decode_block(Entry(KEY, json.dumps(fields), 1))


def written(block):
    """The fields of what is stored of a block."""
    return json.loads(codec.encode_block(block))


def changed(**fields):
    return FULL | fields


def without(*names):
    return {name: value for name, value in FULL.items() if name not in names}


def assigned(block):
    """The block with one more address given, as our next ADD does it."""
    return block.collect(NOW, 60).assign(1, OURS, Reservations())[0]


def test_every_defined_field_is_written_back():
    """Facts 3.9: those that we do not use too, in Go's order."""
    text = codec.encode_block(read(FULL))
    assert FULL == json.loads(text)
    assert list(FULL) == list(json.loads(text))


def test_an_assignment_beside_them_leaves_every_other_field_alone():
    """Only the queue, the allocations and their numbers move."""
    after = written(assigned(read(FULL)))
    moved = {"allocations", "unallocated", "attributes", "sequenceNumber"}
    moved.add("sequenceNumberForAllocation")
    assert {k: v for k, v in FULL.items() if k not in moved} == {
        k: v for k, v in after.items() if k not in moved
    }
    assert [0, 1, 2, None] == after["allocations"]
    assert FULL["attributes"] == after["attributes"][:2]
    numbers = {**FULL["sequenceNumberForAllocation"], "2": FULL["sequenceNumber"]}
    assert numbers == after["sequenceNumberForAllocation"]


def test_a_release_beside_them_leaves_every_other_attribute_alone():
    """Alternate owner and cooling mark survive; what is compacted is an index, not an attribute."""
    block = assigned(read(FULL)).release([2], NOW, 60)
    assert [*FULL["attributes"], {"releasedAt": "2027-01-15T08:00:00Z"}] == (
        written(block)["attributes"]
    )
    left = written(block.release([0], NOW, 0))
    assert [None] * 4 == left["allocations"]
    assert [] == left["attributes"]


@pytest.mark.parametrize("affinity", [None, ""])
def test_a_block_that_says_that_nobody_owns_it_is_nobodys(affinity):
    """Calico today does not read `hostAffinity`: whoever released the affinity left the old field
    behind, and reading it would give the block back to a host that has lost it."""
    block = read(changed(affinity=affinity, hostAffinity="node7"))
    assert block.affinity is None
    assert (None, "node7") == (written(block)["affinity"], written(block)["hostAffinity"])


def test_a_block_from_before_the_field_affinity_is_its_hosts():
    """As Calico's own conversion of such data: `hostAffinity` is the owner's name alone."""
    block = read(without("affinity", "affinity_claim_time"))
    assert "host:node7" == block.affinity
    after = written(block)
    assert ("host:node7", "node7") == (after["affinity"], after["hostAffinity"])


def test_a_block_taken_from_its_host_stays_taken():
    """Not even the obsolete field gives it back."""
    left = written(read(without("affinity")).disown())
    assert left["affinity"] is None
    assert read(left).affinity is None
    assert written(read(FULL).disown())["hostAffinity"] == "node7"


def test_a_host_affinity_of_null_or_nothing_is_none():
    """Go's nil pointer."""
    assert read(without("affinity", "hostAffinity")).affinity is None
    assert read(without("affinity") | {"hostAffinity": None}).affinity is None


@pytest.mark.parametrize("owner", ["virtual:load-balancer", "rack:r1", "nonsense"])
def test_owners_of_other_kinds_are_kept_as_they_are(owner):
    """Facts 1.2; a kind of a later release is none of our business."""
    block = read(changed(affinity=owner))
    assert owner == block.affinity
    assert owner == written(assigned(block))["affinity"]


def test_the_claim_time_lasts_as_long_as_the_claim():
    """It survives updates, and ends with the affinity (facts 2.15)."""
    assert FULL["affinity_claim_time"] == written(assigned(read(FULL)))["affinity_claim_time"]
    assert "affinity_claim_time" not in written(read(FULL).disown())


@pytest.mark.parametrize(
    "attribute",
    [
        {"handle_id": None, "secondary": None},
        {"handle_id": "net.c1", "secondary": None},
        {"handle_id": None, "secondary": {"node": "node1"}},
        {"handle_id": "net.c1", "secondary": {}},
        {},
    ],
)
def test_nulls_of_old_releases_mean_absent(attribute):
    """Facts 1.3: up to v3.31 both fields are always there, and perhaps null."""
    block = read(changed(attributes=[attribute, FULL["attributes"][1]]))
    rewritten = written(assigned(block))["attributes"][0]
    assert {name: value for name, value in attribute.items() if value} == rewritten


def test_a_handle_with_a_carriage_return_keeps_it():
    """Facts 1.3: it is cut before comparing, never in the record."""
    malformed = {"handle_id": "net.c1\r\nx", "secondary": {"node": "node1"}}
    block = read(changed(attributes=[malformed, FULL["attributes"][1]]))
    assert [0] == block.find_ordinals(lambda owner: owner.handle == "net.c1")
    assert malformed == written(assigned(block))["attributes"][0]


def test_numbers_of_freed_ordinals_do_no_harm():
    """Facts 3.11: left by v3.32 and older; the next holder has its own number."""
    stale = {"0": 7, "1": 8, "2": 5, "3": 6, "77": 9}
    block = read(changed(sequenceNumberForAllocation=stale))
    assert {0: 7, 1: 8} == block.allocation_sequence
    after = written(assigned(block))["sequenceNumberForAllocation"]
    assert {"0": 7, "1": 8, "2": FULL["sequenceNumber"]} == after


@pytest.mark.parametrize("number", [2**53 - 1, 2**53, 2**53 + 1, 2**63, 2**64 - 3])
def test_numbers_beyond_a_floats_are_exact(number):
    """The update's is one more, the allocation's the one before the update."""
    after = written(assigned(read(changed(sequenceNumber=number))))
    assert number + 1 == after["sequenceNumber"]
    assert number == after["sequenceNumberForAllocation"]["2"]


def test_a_block_from_before_sequence_numbers_gets_them():
    """Facts 1.2: from 0 on, and only for what is given from now on."""
    old = read(without("sequenceNumber", "sequenceNumberForAllocation"))
    after = written(assigned(old))
    assert (1, {"2": 0}) == (after["sequenceNumber"], after["sequenceNumberForAllocation"])


UPDATES = {
    "assignment": lambda block: block.assign(1, OURS, Reservations())[0],
    "assignment of one address": lambda block: block.assign_ordinal(3, OURS),
    "release": lambda block: block.release([0], NOW, 0),
    "release with cooldown": lambda block: block.release([0], NOW, 60),
    "loss of the owner": lambda block: block.disown(),
    "rewriting as it is": lambda block: block.touch(),
    "change of an address's owner": lambda block: block.with_owner(0, OURS),
}


@pytest.mark.parametrize("update", UPDATES)
def test_every_update_raises_the_sequence_number_by_one(update):
    """Facts 3.6: affinity changes and rewriting without a change too."""
    block = read(FULL)
    assert block.sequence_number + 1 == UPDATES[update](block).sequence_number


def test_making_a_block_does_not_raise_its_number():
    """Facts 3.6: it begins with the clock's nanoseconds."""
    assert NOW == new_block(parse_cidr("10.0.0.0/30"), "host:node1", NOW).sequence_number


@pytest.mark.parametrize(
    "fields",
    [
        {"unallocated": None, "allocations": [0, 1, 0, 1]},
        {"sequenceNumberForAllocation": None},
        {"affinity_claim_time": None},
        {"deleted": None},
        {"deleted": True},
        {"strictAffinity": False},
        {"deleting": False},
        {"later": {"a": [1, {"b": None}]}},
    ],
)
def test_gos_nulls_and_fields_of_other_releases_are_no_obstacle(fields):
    """A nil slice, map or pointer is null in JSON; what nobody here knows is carried along."""
    block = read(changed(**fields))
    again = written(block.touch())
    assert read(again) == block.touch()
    if "later" in fields:
        assert fields["later"] == again["later"]


@pytest.mark.parametrize(
    "value",
    ["", "{}", '{"state":""}', '{"state":null}', '{"deleted":false}', '{"state":"","x":1}'],
)
def test_an_affinity_without_state_owns_its_block(value):
    """Facts 1.4."""
    affinity = codec.decode_affinity(Entry(AFFINITY, value, 1))
    assert affinity.is_confirmed
    confirmed = json.loads(codec.encode_affinity(replace(affinity, state="confirmed")))
    assert ("confirmed", False) == (confirmed["state"], confirmed["deleted"])


def test_a_virtual_affinity_is_read_by_its_key():
    """Facts 1.4: the value of a load balancer's is the same."""
    key = "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.0.0.0-30"
    affinity = codec.decode_affinity(Entry(key, '{"state":"confirmed","deleted":false}', 1))
    assert "virtual:load-balancer" == affinity.owner
    assert key == keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)


def test_a_pool_with_fields_of_long_ago_is_read():
    """Facts 1.7: v1 leftovers, and no spec field but the CIDR."""
    fields = {
        "metadata": {"name": "p", "uid": "u", "annotations": {"a": "b"}, "labels": None},
        "spec": {"cidr": "10.0.0.0/24", "ipip": {"enabled": True}, "nat-outgoing": True},
    }
    pool = codec.decode_pool(Entry(keys.POOLS + "p", json.dumps(fields), 1))
    assert ("p", 26, True) == (pool.name, pool.block_size, pool.is_enabled)


def test_what_contradicts_itself_is_refused_all_the_same():
    """Respect for what others wrote is not believing anything."""
    with pytest.raises(CorruptRecord):
        read(changed(unallocated=None))
    with pytest.raises(CorruptRecord):
        read(changed(attributes=None))
