"""On what older releases wrote, and what rests: legacy values, cooling, sequence numbers."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import Attribute
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import keys
from cni_ipam.errors import PoolExhausted
from cni_ipam.ipam.affinity import claim_blocks
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from tests.ipam.peers import change_block, fields_of, free, put_block
from tests.ipam.world import (
    NOW,
    add,
    delete,
    find,
    findings,
    put,
    put_config,
    put_pool,
    refusal,
    release_block,
    texts,
    unsound,
)

LATER = NOW + 120 * SECOND


@pytest.mark.parametrize("value", ["", "{}", '{"state":"","deleted":false}', '{"state":null}'])
def test_a_legacy_affinity_is_an_own_block(store, value):
    """Nothing is confirmed that was never pending: one swap, of the block alone."""
    put_block(store, "10.0.0.4/30")
    key = keys.affinity_key("node1", parse_cidr("10.0.0.4/30"))
    put(store, key, value)
    assert ["10.0.0.4"] == add(store)
    assert value == find(store, key).value
    assert [] == unsound(store)


def test_a_block_with_hostaffinity_alone_is_its_hosts(store):
    """As data of the time before `affinity`, converted by nobody: affinity value empty, too."""
    put_block(store, "10.0.0.4/30", "host:node1", Attribute("net.old", {"node": "node1"}))
    change_block(
        store,
        "10.0.0.4/30",
        "affinity",
        "affinity_claim_time",
        "sequenceNumber",
        "sequenceNumberForAllocation",
        hostAffinity="node1",
    )
    put(store, keys.affinity_key("node1", parse_cidr("10.0.0.4/30")), "")
    assert ["10.0.0.5"] == add(store)
    after = fields_of(store, "10.0.0.4/30")
    assert ("host:node1", "node1", 1) == (
        after["affinity"],
        after["hostAffinity"],
        after["sequenceNumber"],
    )
    assert {"1": 0} == after["sequenceNumberForAllocation"]
    assert [] == unsound(store)


def test_a_block_that_lost_its_host_is_not_given_back_by_hostaffinity(store):
    """The obsolete field stays behind when Calico, or we, take the block from its host."""
    put_block(store, "10.0.0.4/30", "host:node1", Attribute("net.old", {"node": "node1"}))
    change_block(store, "10.0.0.4/30", hostAffinity="node1")
    release_block(store, "10.0.0.4/30")
    assert (None, "node1") == tuple(
        fields_of(store, "10.0.0.4/30")[name] for name in ("affinity", "hostAffinity")
    )
    assert ["10.0.0.4"] == free(store, "10.0.0.4")[0]
    assert None is find(store, keys.block_key(parse_cidr("10.0.0.4/30")))


def test_an_allocation_without_number_is_released_by_any(store):
    """Nobody could have known one (before v3.23)."""
    put_block(store, "10.0.0.4/30", "host:node1", Attribute("net.old", {"node": "node1"}))
    change_block(store, "10.0.0.4/30", "sequenceNumber", "sequenceNumberForAllocation")
    freed = release_addresses(store, [ReleaseRequest(parse_address("10.0.0.4"), "net.old", 5)], NOW)
    assert ["10.0.0.4"] == texts(freed.released)


def test_a_stale_number_of_a_freed_address_refuses_nobody(store):
    """Facts 3.11: the next holder's own number counts."""
    put_block(store, "10.0.0.4/30")
    change_block(store, "10.0.0.4/30", sequenceNumberForAllocation={"0": 5})
    before = fields_of(store, "10.0.0.4/30")["sequenceNumber"]
    assert ["10.0.0.4"] == add(store)
    request = ReleaseRequest(parse_address("10.0.0.4"), "net.c1", before)
    assert ["10.0.0.4"] == texts(release_addresses(store, [request], NOW).released)


def test_a_pod_with_a_malformed_handle_is_released_by_its_own(store):
    """Facts 1.3: the record has a tail that the runtime's DEL does not."""
    owner = Attribute("net.c1\r\nx", {"node": "node1"})
    put_block(store, "10.0.0.4/30", "host:node1", owner)
    assert ["10.0.0.4"] == add(store)
    assert ["10.0.0.4"] == delete(store)
    assert [] == findings(store)


# Cooling addresses.


def test_addresses_that_a_peer_lets_rest_rest_with_us(store):
    """A second as Calico rounds it; then they come from the queue's tail."""
    put_config(store, ipCooldownSeconds=60)
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    put_block(store, "10.0.0.0/30", "host:node1", Attribute(released_at="2027-01-15T07:59:55Z"))
    given = [add(store, f"c{n}")[0] for n in range(3)]
    assert ["10.0.0.1", "10.0.0.2", "10.0.0.3"] == given
    assert isinstance(refusal(store, "c4"), PoolExhausted)
    assert ["10.0.0.0"] == add(store, "c4", now=NOW + 56 * SECOND)


def test_a_block_without_owner_goes_with_its_last_resting_address(store):
    """Facts 9.11: left behind by a pool's deletion; whoever touches it next takes it away."""
    put_block(
        store,
        "10.0.0.0/30",
        None,
        Attribute("net.c1", {"node": "node1"}),
        Attribute(released_at="2027-01-15T07:59:55Z"),
    )
    assert ["10.0.0.0"] == delete(store)
    assert None is find(store, keys.block_key(parse_cidr("10.0.0.0/30")))


# Sequence numbers.


def test_a_block_taken_back_goes_on_counting(store):
    """Its former owner's clock was ahead: a number must not come twice."""
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    put_block(store, "10.0.0.0/30", "host:node2", claimed=NOW)
    ahead = NOW + 3600 * SECOND
    change_block(store, "10.0.0.0/30", sequenceNumber=ahead)
    put_config(store, strict_affinity=True)
    add(store, now=LATER)
    after = fields_of(store, "10.0.0.0/30")
    assert ahead < after["sequenceNumberForAllocation"]["0"] < after["sequenceNumber"]


def test_affinity_changes_raise_the_number(store):
    """Losing the owner, and confirming what was pending (facts 2.7.2)."""
    put_block(store, "10.0.0.0/30", "host:node1", Attribute("net.c1"), claimed=NOW)
    before = fields_of(store, "10.0.0.0/30")["sequenceNumber"]
    release_block(store, "10.0.0.0/30")
    assert before + 1 == fields_of(store, "10.0.0.0/30")["sequenceNumber"]
    put_block(store, "10.0.0.4/30", "host:node1", state="pending", claimed=NOW)
    claim_blocks(store, "node1", parse_cidr("10.0.0.4/30"), NOW)
    assert NOW + 1 == fields_of(store, "10.0.0.4/30")["sequenceNumber"]


def test_making_a_block_does_not_raise_the_number(store):
    """Nor does a claim without an assignment."""
    claim_blocks(store, "node1", parse_cidr("10.0.0.4/30"), NOW)
    assert NOW == fields_of(store, "10.0.0.4/30")["sequenceNumber"]
