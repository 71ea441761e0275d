"""Objects that are no records, as somebody wrote them past all programs: named where they stand in
the way, never touched, and all others still serve.

The API server takes them, since a definition can only tell the types of fields.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes_records import affinity_labels
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import Conflict
from integration.cluster.authority import ADMIN
from integration.cluster.node import (
    ACCOUNT,
    GROUP,
    ApiNode,
    clear_records,
    create,
    custom_resources,
    open_store,
    put_pool,
    read_records,
)
from integration.network import BUNDLE
from integration.program import inside

BLOCK = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-29"
OWN = "/calico/ipam/v2/host/node1/ipv4/block/"
AFFINITY = f"{OWN}10.0.0.0-29"
HANDLE = keys.HANDLES + "net.c1"
NULLS = ",".join(["null"] * 8)
VALUES = {
    BLOCK: f'{{"cidr":"10.0.0.0/29","affinity":null,"allocations":[{NULLS}],'
    '"unallocated":[0,1,2,3,4,5,6,7],"attributes":[],"deleted":false}',
    AFFINITY: '{"state":"confirmed","deleted":false}',
    HANDLE: '{"block":{"10.0.0.0/29":1},"deleted":false}',
}
LABELS = affinity_labels("host", "node1", 4)
NO_BLOCK = {"allocations": [], "attributes": [], "strictAffinity": False, "unallocated": []}
# What the object of each key says in the place of what it should.
BROKEN = {
    BLOCK: ("IPAMBlock", "10-0-0-0-29", {**NO_BLOCK, "cidr": "10.9.9.0/29"}),
    AFFINITY: (
        "BlockAffinity",
        "node1-10-0-0-0-29",
        {"cidr": "bad", "node": "node1", "state": "", "deleted": "false"},
    ),
    HANDLE: ("IPAMHandle", "net.c1", {"handleID": "net.other", "block": {}}),
}
PLURALS = {
    "IPAMBlock": "ipamblocks",
    "BlockAffinity": "blockaffinities",
    "IPAMHandle": "ipamhandles",
}


@pytest.fixture(scope="module")
def granted(cluster):
    with custom_resources(cluster):
        yield cluster


@pytest.fixture
def defined(granted):
    """Without records, afterwards too; a pool of four blocks."""
    put_pool(granted, "pool", "10.0.0.0/27", blockSize=29)
    yield granted
    clear_records(granted)


@pytest.fixture
def node(defined, tmp_path):
    return ApiNode(tmp_path, defined, defined.kubeconfig("plugin", token=defined.token(ACCOUNT)))


@pytest.fixture
def store(defined):
    with defined.machine.network(), contextlib.closing(open_store(defined)) as store:
        yield store


def spoil(cluster, key):
    """Make the object of a key one that says something else."""
    kind, name, spec = BROKEN[key]
    labels = LABELS if key == AFFINITY else {}
    path = f"{GROUP}/{PLURALS[kind]}"
    body = {"kind": kind, "apiVersion": GROUP.removeprefix("/apis/"), "spec": spec}
    create(cluster, path, body | {"metadata": {"name": name, "labels": labels}})


def find_object(cluster, key):
    kind, name, _ = BROKEN[key]
    return cluster.get(f"{GROUP}/{PLURALS[kind]}/{name}")


@pytest.mark.parametrize("key", BROKEN)
@pytest.mark.parametrize("prefix", [False, True])
def test_it_is_read_under_its_key_as_no_json(defined, store, key, prefix):
    """So the codec refuses it and names it, where it is asked for."""
    spoil(defined, key)
    (found,) = store.read([Range(key, prefix=prefix)])[0]
    assert (key, "not a record: ", ABSENT) == (found.key, found.value[:14], found.revision)


@pytest.mark.parametrize("key", BROKEN)
def test_others_are_listed_with_it(defined, store, key):
    """Each under its own key."""
    spoil(defined, key)
    sound = {
        BLOCK: (
            BLOCK.replace("10.0.0.0", "10.0.0.8"),
            VALUES[BLOCK].replace("10.0.0.0", "10.0.0.8"),
        ),
        AFFINITY: (AFFINITY.replace("10.0.0.0", "10.0.0.8"), VALUES[AFFINITY]),
        HANDLE: (f"{HANDLE}0", VALUES[HANDLE]),
    }[key]
    store.commit([Write(*sound, ABSENT)])
    found = store.read([Range(key.rpartition("/")[0] + "/", prefix=True)])[0]
    assert [key, sound[0]] == [entry.key for entry in found]


@pytest.mark.parametrize("key", BROKEN)
def test_it_is_not_written_over(defined, store, key):
    """Its creation is a conflict, upon which it is read."""
    spoil(defined, key)
    before = find_object(defined, key)
    with pytest.raises(Conflict):
        store.commit([Write(key, VALUES[key], ABSENT)])
    assert before == find_object(defined, key)


@pytest.mark.parametrize("key", BROKEN)
def test_ipamctl_names_it(defined, key):
    """`ipam check` finds it and ends with 1."""
    spoil(defined, key)
    command = [*inside(defined.machine.namespace), str(BUNDLE / "ipamctl"), "ipam", "check"]
    environ = {
        "PATH": os.environ["PATH"],
        "DATASTORE_TYPE": "kubernetes",
        "KUBECONFIG": str(defined.kubeconfig(ADMIN)),
    }
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert 1 == done.returncode, done.stdout + done.stderr
    assert (key in done.stdout) or ("10.0.0.0/29" in done.stdout and key == BLOCK), done.stdout


@pytest.mark.parametrize("key", [BLOCK, AFFINITY])
def test_other_blocks_serve(defined, node, key):
    """Until none is left: three blocks of eight addresses, and the broken one never."""
    spoil(defined, key)
    before = find_object(defined, key)
    addresses = [node.call("ADD", f"c{number}").address for number in range(10)]
    assert 10 == len(set(addresses))
    assert not set(addresses) & {f"10.0.0.{ordinal}" for ordinal in range(8)}
    assert before == find_object(defined, key)


def test_an_own_handle_that_is_broken_is_named(defined, node):
    """By ADD, which gives nothing then, and by DEL, which cannot know what to give back."""
    spoil(defined, HANDLE)
    for verb in ("ADD", "DEL"):
        answer = node.call(verb, "c1")
        assert 111 == answer.document["code"], answer.stdout
        assert HANDLE in answer.document["msg"]
    blocks = defined.get(f"{GROUP}/ipamblocks")["items"]
    assert all(index is None for block in blocks for index in block["spec"]["allocations"])


def test_an_own_block_that_is_broken_is_named_by_del(defined, node):
    """What it holds cannot be known; once it is mended the address goes."""
    assert 0 == node.call("ADD", "c1").status
    (block,) = defined.get(f"{GROUP}/ipamblocks")["items"]
    path = f"{GROUP}/ipamblocks/{block['metadata']['name']}"
    sound = block["spec"]["unallocated"]
    patch(defined, path, sound[1:])
    answer = node.call("DEL", "c1")
    assert 111 == answer.document["code"]
    assert block["spec"]["cidr"].replace("/", "-") in answer.document["msg"]
    patch(defined, path, sound)
    assert 0 == node.call("DEL", "c1").status
    assert {} == read_records(defined).allocations


def patch(cluster, path, unallocated):
    body = {"spec": {"unallocated": unallocated}}
    content_type = "application/merge-patch+json"
    status, answer = cluster.request("PATCH", path, body, content_type=content_type)
    assert 200 == status, answer
