"""What our codec writes, through objects of Kubernetes and back: the same to the byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import Address, network_of, parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import Attribute, Block
from cni_ipam.core.config import IpamConfig
from cni_ipam.core.handle import Handle
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.kubernetes_objects import GROUPS, to_entry, to_object
from cni_ipam.datastore.kubernetes_records import V1
from cni_ipam.datastore.port import Entry
from tests.datastore.golden import ALLOCATED, COOLING, FRESH
from tests.datastore.golden_kubernetes import stored

BLOCK_KEY = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
# No block may begin with `::`: Kubernetes has no name for it.
ADDRESSES = st.builds(Address, st.just(4), st.integers(0, 2**32 - 1)) | st.builds(
    Address, st.just(6), st.integers(2**112, 2**128 - 1)
)
TEXTS = st.text("aZ09<>&é\u2028 ", max_size=5)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=3)
NUMBERS = st.integers(0, 2**64 - 1)
HOSTS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,6}[a-z0-9])?(\.[a-z0-9]{1,4})?", fullmatch=True)
# Sorted, as the API server sorts what it keeps.
EXTRAS = st.none() | st.just({"later": {"a": True, "b": [1, None]}})
ATTRIBUTES = st.builds(
    Attribute,
    handle_id=st.none() | TEXTS,
    secondary=st.none() | MAPS.filter(bool),
    alternate=st.none() | MAPS.filter(bool),
    released_at=st.none() | st.just("2026-11-21T10:27:55Z"),
    extra=EXTRAS,
)


@st.composite
def cidrs(draw):
    """A block of either family with at most sixteen addresses."""
    address = draw(ADDRESSES)
    bits = {4: 32, 6: 128}[address.version]
    return network_of(address, bits - draw(st.integers(0, 4)))


@st.composite
def blocks(draw):
    """Any block that the codec can write, sound or not."""
    cidr = draw(cidrs())
    owner = draw(st.none() | HOSTS.map("host:{}".format) | st.just("virtual:load-balancer"))
    taken = draw(st.lists(st.none() | st.integers(0, 3), min_size=cidr.size, max_size=cidr.size))
    return Block(
        cidr=cidr,
        affinity=owner,
        claim_time=draw(st.none() | st.just("2026-01-02T03:04:05Z")),
        allocations=tuple(taken),
        unallocated=tuple(draw(st.permutations(range(cidr.size)))),
        attributes=tuple(draw(st.lists(ATTRIBUTES, max_size=3))),
        sequence_number=draw(NUMBERS),
        allocation_sequence=draw(st.dictionaries(st.integers(0, 15), NUMBERS, max_size=4)),
        extra=draw(EXTRAS),
    )


def through_the_api_server(key, value, group):
    """The value that is read after this one was written."""
    found = stored(to_object(key, value, group))
    assert (group == V1) == ("annotations" in found["metadata"])
    return to_entry(json.loads(json.dumps(found)), group)


@given(blocks(), st.sampled_from(GROUPS))
def test_every_block_comes_back_to_the_byte(block, group):
    """All that our codec writes, numbers beyond a float's precision among it."""
    entry = Entry(keys.block_key(block.cidr), codec.encode_block(block), 7)
    assert entry == through_the_api_server(entry.key, entry.value, group)


@given(
    st.builds(
        Affinity,
        kind=st.sampled_from(["host", "virtual"]),
        host=HOSTS,
        cidr=cidrs(),
        state=st.sampled_from(["pending", "confirmed", "pendingDeletion", ""]),
        extra=EXTRAS,
    ),
    st.sampled_from(GROUPS),
)
def test_every_affinity_comes_back_to_the_byte(affinity, group):
    """Host, kind and CIDR, which in etcd are the key's, too: hosts' names may have dashes."""
    key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
    entry = Entry(key, codec.encode_affinity(affinity), 7)
    assert entry == through_the_api_server(entry.key, entry.value, group)


@given(
    st.builds(
        Handle,
        id=st.from_regex(r"[A-Za-z0-9]{1,5}\.[A-Za-z0-9]{1,5}", fullmatch=True),
        blocks=st.dictionaries(cidrs(), st.integers(0, 300), max_size=3),
        extra=EXTRAS,
    ),
    st.sampled_from(GROUPS),
)
def test_every_handle_comes_back_to_the_byte(handle, group):
    """In its own case, which its object's name has lost."""
    entry = Entry(keys.handle_key(handle.id), codec.encode_handle(handle), 7)
    assert entry == through_the_api_server(entry.key, entry.value, group)


@given(
    st.builds(
        IpamConfig,
        strict_affinity=st.booleans(),
        auto_allocate_blocks=st.booleans(),
        max_blocks_per_host=st.integers(0, 2**31 - 1),
        cooldown_seconds=st.integers(0, 1200),
        vm_persistence=st.sampled_from(["", "Enabled", "Disabled"]),
        extra=EXTRAS,
    ),
    st.sampled_from(GROUPS),
)
def test_all_settings_come_back_to_the_byte(config, group):
    """What is false, 0 or empty is left out in etcd; here the first two are always said."""
    entry = Entry(keys.CONFIG, codec.encode_config(config), 7)
    assert entry == through_the_api_server(entry.key, entry.value, group)
    spec = to_object(entry.key, entry.value, group)["spec"]
    assert {"strictAffinity", "autoAllocateBlocks"} <= set(spec)


@pytest.mark.parametrize("number", [2**53 + 1, 1795256819949442451, 2**63 - 1, 2**64 - 1])
def test_sequence_numbers_are_exact(number):
    """Facts 1.2: never through a float."""
    value = FRESH.replace("1767323045000000678", str(number)).replace('null,"seq', '[],"seq')
    assert value == through_the_api_server(BLOCK_KEY, value, V1).value


@pytest.mark.parametrize("value", [ALLOCATED, COOLING])
def test_golden_blocks_of_etcd_come_back(value):
    """Facts 1.2, 2.13."""
    key = keys.block_key(parse_cidr("10.0.0.208/29"))
    assert value == through_the_api_server(key, value, V1).value
