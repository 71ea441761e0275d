"""Two operators at once: nobody's change is lost, and nobody is told a wrong thing."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.reservation import Reservations
from cni_ipam.ctl.records import create_record, patch_record, update_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import AlreadyExists, OperatorError
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from tests.ctl.conftest import NOW

KEY = keys.POOLS + "pool1"
KIND = get_kind("ippool")
POOL = {"metadata": {"name": "pool1"}, "spec": {"cidr": "10.0.0.0/24"}}


class CrowdedDatastore(MemoryDatastore):
    """Somebody else commits just before the next commit."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[list[Write]] = []

    def commit(self, writes) -> None:
        if self.others:
            super().commit(self.others.pop(0))
        super().commit(writes)


def revision(store, key: str) -> int:
    return store.read([Range(key)])[0][0].revision


def test_a_create_that_comes_second_finds_the_first():
    """It is told that the object exists, and changes nothing."""
    store = CrowdedDatastore()
    store.others.append([Write(KEY, '{"first":true}', ABSENT)])
    with pytest.raises(AlreadyExists) as caught:
        create_record(store, KIND, POOL, NOW, bytes(16))
    assert "resource already exists: IPPool(pool1) with error: <nil>" == str(caught.value)
    assert '{"first":true}' == store.read([Range(KEY)])[0][0].value


def test_a_patch_that_lost_is_made_anew():
    """On what the other left."""
    store = CrowdedDatastore()
    create_record(store, KIND, POOL, NOW, bytes(16))
    other = json.loads(store.read([Range(KEY)])[0][0].value)
    other["spec"]["natOutgoing"] = True
    store.others.append([Write(KEY, json.dumps(other), revision(store, KEY))])
    patch_record(store, KIND, "pool1", '{"spec":{"disabled":true}}')
    spec = json.loads(store.read([Range(KEY)])[0][0].value)["spec"]
    assert (True, True) == (spec["natOutgoing"], spec["disabled"])


def test_an_update_of_one_version_does_not_fall_upon_another():
    """The other's change stands, and the conflict is told."""
    store = CrowdedDatastore()
    create_record(store, KIND, POOL, NOW, bytes(16))
    first = revision(store, KEY)
    value = store.read([Range(KEY)])[0][0].value
    store.others.append([Write(KEY, value.replace("Never", "Always", 1), first)])
    wanted = {**POOL, "metadata": {"name": "pool1", "resourceVersion": str(first)}}
    with pytest.raises(OperatorError, match=f"resource version '{first}' is out of date"):
        update_record(store, KIND, wanted)
    assert "Always" in store.read([Range(KEY)])[0][0].value


def test_a_release_that_lost_looks_again():
    """Somebody else released the address first: then it is not assigned."""
    store = CrowdedDatastore()
    block, _ = new_block(parse_cidr("10.0.0.0/30"), None, NOW).assign(
        2, Attribute("h"), Reservations()
    )
    key = keys.block_key(block.cidr)
    store.commit([Write(key, codec.encode_block(block), ABSENT)])
    freed = codec.encode_block(block.release([0], NOW, 0))
    store.others.append([Write(key, freed, revision(store, key))])
    request = ReleaseRequest(parse_address("10.0.0.0"))
    assert () == release_addresses(store, [request], NOW).released
    assert freed == store.read([Range(key)])[0][0].value
