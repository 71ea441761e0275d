"""Records that others broke: named in the error where they stand in the way, never touched, and
all others still serve.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore import keys
from integration.etcd.gateway import encode, end_of_prefix
from integration.etcd.node import EtcdNode, put_node, put_pool, read_records
from integration.etcd.proxy import Proxy
from integration.etcd.refusal import assert_refused, unchanged
from integration.network import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from integration.etcd.servers import Cluster
    from integration.program import Answer

    Json = dict[str, Any]

POOL_KEY = keys.POOLS + "pool1"
MEGABYTE = 1_000_000
# What stands under a key is no JSON object of the kind that belongs there.
BROKEN = {
    "cut off": b'{"cidr":"10.0.0.0/29","affin',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "blank": b" ",
    "not UTF-8": b'{"cidr":"10.0.0.0/29","affinity":"host:\xff\xfe"}',
    "binary": b"\x00\x01\x02\xff",
    "UTF-16": '{"cidr":"10.0.0.0/29"}'.encode("utf-16"),
    "NaN": b'{"cidr":NaN}',
    "deep": b"[" * 100_000,
    "huge": b"x" * MEGABYTE,
}
# What must not be in place of each field of a block.
WRONG_FIELDS: list[tuple[str, Any]] = [
    ("cidr", 7),
    ("cidr", "10.0.0.0/33"),
    ("cidr", "10.0.0.64/29"),
    ("affinity", ["host:node1"]),
    ("allocations", {}),
    ("allocations", ["0"] * 8),
    ("allocations", [0, None]),
    ("unallocated", "1"),
    ("unallocated", [True]),
    ("attributes", [7]),
    ("attributes", [{"handle_id": 7, "secondary": None}]),
    ("attributes", [{"handle_id": "net.c0", "secondary": ["node"]}]),
    ("sequenceNumber", "1"),
    ("sequenceNumberForAllocation", []),
]


def make_unsound(block: Json, how: str) -> Json:
    """The block with allocations and queue, or attributes, that disagree."""
    used = next(o for o, index in enumerate(block["allocations"]) if index is not None)
    free = block["unallocated"]
    block["unallocated"] = {
        "in use and free": [used, *free],
        "neither": free[1:],
        "free twice": [*free, free[0]],
        "free beyond the end": [*free, 8],
    }.get(how, free)
    if how == "an owner that is not there":
        block["allocations"][used] = 5
    return block


UNSOUND = (
    "in use and free",
    "neither",
    "free twice",
    "free beyond the end",
    "an owner that is not there",
)


class World:
    """An etcd with a pool and a node that has c0's address, and the plugin there."""

    def __init__(self, etcd: Cluster, proxy: Proxy, node: EtcdNode) -> None:
        self.etcd = etcd
        self.proxy = proxy
        self.node = node
        self.address = node.call("ADD", "c0").address
        (block,) = read_records(etcd).blocks
        self.block = block.cidr
        self.key = keys.block_key(block.cidr)

    def call(self, verb: str, container: str = "c1") -> Answer:
        return self.node.call(verb, container)

    def read(self, key: str) -> bytes:
        """The bytes under a key."""
        (found,) = self.etcd.post("/v3/kv/range", {"key": encode(key)})["kvs"]
        return base64.b64decode(found["value"])

    def spoil(self, key: str, data: bytes) -> None:
        """Put these bytes there."""
        value = base64.b64encode(data).decode()
        self.etcd.post("/v3/kv/put", {"key": encode(key), "value": value})

    def spoil_block(self, change: Callable[[Json], Json]) -> bytes:
        """Change c0's block; its bytes now."""
        data = json.dumps(change(json.loads(self.read(self.key)))).encode()
        self.spoil(self.key, data)
        return data

    def assert_only_that_block_fails(self, data: bytes) -> None:
        """Every verb: who needs the block is told its key, the others are served, and the block is
        what it was to the byte."""
        given = self.call("ADD", "c1")
        assert given.address in self.find_addresses()
        for verb in ("DEL", "CHECK"):
            assert_refused(self.call(verb, "c0"), 111, f"the record {self.key} ", "ipam check")
        assert [0, 0] == [self.call(verb, "c1").status for verb in ("CHECK", "STATUS")]
        assert_refused(self.node.collect([]), 111, f"the record {self.key} ")
        assert given.address not in self.find_addresses()
        assert data == self.read(self.key)

    def find_addresses(self) -> set[str]:
        """Those that are given out by the blocks that can be read."""
        place = {"key": encode(keys.BLOCKS), "range_end": end_of_prefix(keys.BLOCKS)}
        found = set()
        for entry in self.etcd.post("/v3/kv/range", place).get("kvs", []):
            key = base64.b64decode(entry["key"]).decode(errors="replace")
            if key != self.key and keys.find_block(key) is not None:
                found |= set(list_allocated(json.loads(base64.b64decode(entry["value"]))))
        return found


def list_allocated(block: Json) -> list[str]:
    """The addresses that a block as it lies in etcd gives out."""
    (first, *_) = ipaddress.ip_network(block["cidr"])
    taken = enumerate(block["allocations"])
    return [str(first + ordinal) for ordinal, index in taken if index is not None]


@pytest.fixture
def world(etcd34, tmp_path) -> Iterator[World]:
    """What is broken is so by any version."""
    put_pool(etcd34, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(etcd34, "node1")
    with Proxy(etcd34.endpoints[0], archive=[]) as proxy:
        yield World(etcd34, proxy, EtcdNode(tmp_path, [proxy.endpoint]))


# A block.


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_block_stands_in_nobody_elses_way(world, data):
    """Whatever is there."""
    world.spoil(world.key, data)
    world.assert_only_that_block_fails(data)


@pytest.mark.parametrize(("field", "value"), WRONG_FIELDS)
def test_a_block_with_a_wrong_field_stands_in_nobody_elses_way(world, field, value):
    """Each field that decides anything."""
    data = world.spoil_block(lambda block: block | {field: value})
    world.assert_only_that_block_fails(data)


@pytest.mark.parametrize("how", UNSOUND)
def test_a_block_that_disagrees_with_itself_is_refused_and_not_repaired(world, how):
    """Nobody can tell which half of it is right."""
    data = world.spoil_block(lambda block: make_unsound(block, how))
    world.assert_only_that_block_fails(data)


@pytest.mark.parametrize("field", ["cidr", "allocations", "unallocated"])
def test_a_block_without_a_field_is_refused(world, field):
    """There is no default for it."""
    data = world.spoil_block(lambda block: {k: v for k, v in block.items() if k != field})
    world.assert_only_that_block_fails(data)


def test_a_block_that_is_healed_serves_again(world):
    """The address was never lost."""
    good = world.read(world.key)
    world.spoil(world.key, b"[]")
    assert_refused(world.call("DEL", "c0"), 111, world.key)
    world.spoil(world.key, good)
    assert 0 == world.call("DEL", "c0").status
    assert ({}, []) == (read_records(world.etcd).allocations, read_records(world.etcd).findings)


def test_a_field_that_nobody_knows_is_no_fault(world):
    """A newer peer's, of half a megabyte; it is kept."""
    world.spoil_block(lambda block: block | {"future": "x" * (MEGABYTE // 2)})
    address = world.call("ADD", "c1").address
    block = json.loads(world.read(world.key))
    assert "x" * (MEGABYTE // 2) == block["future"]
    assert {address, world.address} == set(list_allocated(block))


# Other records.


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize(
    "key",
    [keys.NODES + "node1", keys.CONFIG, keys.CLUSTER_INFORMATION, keys.handle_key("net.c1")],
    ids=["node", "config", "lock", "handle"],
)
def test_a_record_that_decides_is_named(world, key, data):
    """An ADD does not guess what stood there, and changes nothing."""
    world.spoil(key, data)
    with unchanged(world.etcd):
        answer = world.call("ADD", "c1")
    assert_refused(answer, 111, f"the record {key} ")
    assert len(answer.stdout) < 2000


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_records_that_a_release_does_not_need_do_not_matter(world, data):
    """*DEL never fails for what is gone*, nor for what it does not need."""
    for key in (keys.NODES + "node1", keys.CLUSTER_INFORMATION, keys.CONFIG, POOL_KEY):
        world.spoil(key, data)
    assert 0 == world.call("DEL", "c0").status
    assert [] == list_allocated(json.loads(world.read(world.key)))


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_pool_leaves_the_others(world, data):
    """And it is named where it was the only one."""
    put_pool(world.etcd, "pool2", "10.1.0.0/24", blockSize=29)
    world.spoil(POOL_KEY, data)
    assert world.call("ADD", "c1").address.startswith("10.1.0.")
    world.spoil(keys.POOLS + "pool2", data)
    assert_refused(world.call("ADD", "c2"), 111, "the record ", keys.POOLS)


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize(
    "key",
    [
        keys.RESERVATIONS + "mine",
        "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.8-29",
        keys.handle_key("net.other"),
        "/calico/resources/v3/projectcalico.org/nodes/node2",
    ],
    ids=["reservation", "affinity", "another's handle", "another node"],
)
def test_a_record_that_others_need_stands_in_nobodys_way(world, key, data):
    """It is passed over, and stays what it is."""
    world.spoil(key, data)
    assert [0, 0, 0] == [world.call(verb, "c1").status for verb in ("ADD", "CHECK", "DEL")]
    assert data == world.read(key)


def test_a_broken_handle_of_ones_own_is_named(world):
    """By DEL, CHECK and a GC that needs it; one that does not takes back what it can."""
    key = keys.handle_key("net.c0")
    given = world.call("ADD", "c1").address
    world.spoil(key, b"[]")
    for verb in ("DEL", "CHECK"):
        assert_refused(world.call(verb, "c0"), 111, f"the record {key} ")
    assert 0 == world.node.collect(["c0"]).status
    assert_refused(world.node.collect([]), 111, f"the record {key} ")
    assert b"[]" == world.read(key)
    assert given not in list_allocated(json.loads(world.read(world.key)))


# Keys that are not ours.


STRANGE = (
    b"/calico/ipam/v2/garbage",
    b"/calico/ipam/v2/assignment/ipv4/block/garbage",
    b"/calico/ipam/v2/assignment/ipv4/block/",
    b"/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
    b"/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-33",
    b"/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-29/more",
    b"/calico/ipam/v2/assignment/ipv4/block/\xff\xfe",
    b"/calico/ipam/v2/host/node1/ipv4/block/garbage",
    b"/calico/ipam/v2/host/node1/ipv4/block/\xff",
    b"/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-29/more",
    b"/calico/ipam/v2/host/node1",
    b"/calico/ipam/v2/handle/",
    b"/calico/ipam/v2/handle/a/b",
    b"/cni-ipam/v1/default-pools/garbage",
    b"/cni-ipam/garbage",
    b"/calico",
)


@pytest.mark.parametrize("value", [b"", b"garbage", b"{}", b"\xff"])
def test_strange_keys_beside_ours_are_passed_over(world, value):
    """Every verb does its work, also one that looks at all blocks, and the keys stay."""
    for key in STRANGE:
        key_text, data = (base64.b64encode(part).decode() for part in (key, value))
        world.etcd.post("/v3/kv/put", {"key": key_text, "value": data})
    _, kept, *more = [world.call("ADD", f"c{i}").address for i in range(1, 12)]
    assert 9 == len(set(more))
    assert [0, 0, 0] == [world.call(verb, "c1").status for verb in ("CHECK", "DEL", "STATUS")]
    assert 0 == world.node.collect(["c2"]).status
    world.key = ""
    assert {kept} == world.find_addresses()
    for key in STRANGE:
        found = world.etcd.post("/v3/kv/range", {"key": base64.b64encode(key).decode()})["kvs"]
        assert value == base64.b64decode(found[0].get("value", ""))


# The operator.


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_the_check_lists_what_is_broken(world, tmp_path, data):
    """Each by its key, without a trace, and without repeating a megabyte."""
    world.spoil(world.key, data)
    world.spoil(keys.handle_key("net.other"), data)
    done = subprocess.run(
        [str(BUNDLE / "ipamctl"), "ipam", "check"],
        env={
            "PATH": os.environ["PATH"],
            "COLUMNS": "200",
            "CNI_NETCONF_DIR": str(tmp_path),
            "ETCD_ENDPOINTS": world.proxy.endpoint,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in said
    assert world.key in said
    assert keys.handle_key("net.other") in said
    assert len(said) < 10_000
