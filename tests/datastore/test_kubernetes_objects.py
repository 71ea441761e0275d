"""Where the object of a key lies in Kubernetes, and how those under a prefix are listed."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes_objects import (
    Place,
    find_listing,
    find_place,
    to_entry,
    to_object,
)
from cni_ipam.datastore.kubernetes_records import V1, V3, affinity_name, hash_host
from cni_ipam.errors import NetconfError
from tests.datastore.golden_kubernetes import HASH, stored

BLOCK_KEY = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
AFFINITY_KEY = "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-26"
HANDLE_KEY = "/calico/ipam/v2/handle/k8s-pod-network.c1"
TYPE = "projectcalico.org/affinity-type"
HOST = "projectcalico.org/hostname-hash"
VERSION = "projectcalico.org/ip-version"


# --- names


@pytest.mark.parametrize(
    ("key", "resource", "name"),
    [
        (keys.block_key(parse_cidr("10.0.0.0/26")), "ipamblocks", "10-0-0-0-26"),
        (keys.block_key(parse_cidr("fd00:10:244::/122")), "ipamblocks", "fd00-10-244---122"),
        (
            keys.block_key(parse_cidr("fd00:1:2:3:4:5:6:40/122")),
            "ipamblocks",
            "fd00-1-2-3-4-5-6-40-122",
        ),
        (AFFINITY_KEY, "blockaffinities", "node1-10-0-0-0-26"),
        (
            "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.9.0.0-26",
            "blockaffinities",
            "load-balancer-10-9-0-0-26",
        ),
        (HANDLE_KEY, "ipamhandles", "k8s-pod-network.c1"),
        (keys.handle_key("lb-AbC9"), "ipamhandles", "lb-abc9"),
        (keys.CONFIG, "ipamconfigs", "default"),
        (keys.POOLS + "pool1", "ippools", "pool1"),
        (keys.RESERVATIONS + "r", "ipreservations", "r"),
        (keys.CLUSTER_INFORMATION, "clusterinformations", "default"),
        (keys.NODES + "node1", "nodes", "node1"),
        (keys.DEFAULT_POOLS_MADE + "p", "configmaps", "cni-ipam-default-pool-p"),
    ],
)
def test_every_key_has_its_object(key, resource, name):
    """Facts 1.2 to 1.10."""
    assert Place(resource, name, key) == find_place(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "/calico/ipam/v2/host/node1",
        "/calico/ipam/v2/handle/",
        "/calico/ipam/v2/assignment/ipv4/block/nonsense",
        "/calico/resources/v3/projectcalico.org/ipamconfigurations/default",
        "/calico/resources/v3/projectcalico.org/ippools/",
        "/calico/resources/v3/projectcalico.org/ippools/a/b",
    ],
)
def test_other_keys_have_none(key):
    """A host's legacy marker among them (facts 1.11)."""
    assert find_place(key) is None


@pytest.mark.parametrize(
    ("key", "group", "path"),
    [
        (BLOCK_KEY, V1, "/apis/crd.projectcalico.org/v1/ipamblocks/10-0-0-0-30"),
        (BLOCK_KEY, V3, "/apis/projectcalico.org/v3/ipamblocks/10-0-0-0-30"),
        (keys.CONFIG, V1, "/apis/crd.projectcalico.org/v1/ipamconfigs/default"),
        (keys.CONFIG, V3, "/apis/projectcalico.org/v3/ipamconfigurations/default"),
        (keys.NODES + "node1", V3, "/api/v1/nodes/node1"),
        (
            keys.DEFAULT_POOLS_MADE + "p",
            V1,
            "/api/v1/namespaces/kube-system/configmaps/cni-ipam-default-pool-p",
        ),
    ],
)
def test_a_place_knows_its_paths(key, group, path):
    """In either group; what is created is sent to the path without the name."""
    place = find_place(key)
    assert path == place.path(group)
    assert path.rpartition("/")[0] == place.collection(group)


def test_only_the_engines_own_records_are_deleted_in_two_steps():
    """Facts 1.12."""
    two_steps = [BLOCK_KEY, AFFINITY_KEY, HANDLE_KEY]
    one_step = [keys.CONFIG, keys.POOLS + "p", keys.RESERVATIONS + "r"]
    assert [True] * 3 == [find_place(key).is_deleted_in_two_steps for key in two_steps]
    assert [False] * 3 == [find_place(key).is_deleted_in_two_steps for key in one_step]


@pytest.mark.parametrize(("family", "tail"), [("10.0.0.0/26", 11), ("fd00:1:2:3:4:5:6:40/122", 23)])
def test_a_long_affinity_name_is_cut_and_hashed(family, tail):
    """Facts 1.4: from 253 characters on, to 252."""
    cidr = parse_cidr(family)
    cidr_name = str(cidr).translate(str.maketrans("./:", "---"))
    assert tail == len(cidr_name)
    longest = "n" * (251 - tail)
    assert f"{longest}-{cidr_name}" == affinity_name(longest, cidr)
    for longer in (longest + "n", "n" * 250):
        digest = hashlib.sha256(f"{longer}+{cidr_name}".encode()).hexdigest()[:11]
        name = affinity_name(longer, cidr)
        assert f"{'n' * (252 - tail - 13)}-{cidr_name}-{digest}" == name
        assert 252 == len(name)


def test_long_names_are_told_apart():
    """Two hosts that differ only where they are cut."""
    cidr = parse_cidr("10.0.0.0/26")
    assert affinity_name("n" * 249 + "a", cidr) != affinity_name("n" * 249 + "b", cidr)
    key = keys.affinity_key("n" * 249 + "a", cidr)
    found = stored(to_object(key, '{"state":"confirmed","deleted":false}', V1))
    assert key == to_entry(found, V1).key


@pytest.mark.parametrize(
    ("key", "field", "named"),
    [
        (keys.handle_key("my_net.c1"), "name", "my_net.c1"),
        (keys.handle_key("net.c1-"), "name", "net.c1-"),
        (keys.handle_key("net..c1"), "name", "net..c1"),
        (keys.handle_key("n" * 254), "name", "n" * 254),
        (keys.handle_key("é.c1"), "name", "é.c1"),
        (keys.affinity_key("Node1", parse_cidr("10.0.0.0/26")), "nodename", "Node1-10-0-0-0-26"),
        (keys.NODES + "Node1", "nodename", "Node1"),
        (keys.block_key(parse_cidr("::/122")), "ipv6_pools", "---122"),
        (keys.POOLS + "Pool", "default_pools", "Pool"),
    ],
)
def test_names_that_the_api_server_refuses_are_told(key, field, named):
    """Facts 9.29, 11: Calico hangs in retries. Nothing can lie there, so a reader finds nothing."""
    with pytest.raises(NetconfError) as caught:
        find_place(key)
    assert (7, True) == (caught.value.code, caught.value.msg.startswith(f"{field}: "))
    assert named in caught.value.msg
    with pytest.raises(NetconfError):
        to_object(key, "{}", V1)
    assert find_place(key, to_read=True) is None


@given(st.text("aZ0-._é", min_size=1, max_size=8))
def test_names_are_judged_as_everywhere_else(name):
    """One rule, although it stands in two places."""
    from cni_ipam.core.names import is_subdomain

    place = find_place(keys.POOLS + name, to_read=True)
    assert is_subdomain(name) == (place is not None)


# --- lists


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("node1", HASH),
        ("worker-0", "X7BR7XCJKI7BG5JQPGCRAEH5U2OJJEBXJHJOT5IPI72SS4JOEUTA"),
        ("ip-10-0-0-1.ec2.internal", "NPOH4TXXWABNDACH6GUCD3OGLUKARAAB6FF5L75VWAWUC2DY7CCA"),
    ],
)
def test_a_hosts_label_is_calicos(host, label):
    """Facts 1.4, its vectors."""
    assert label == hash_host(host)


@given(st.text(max_size=70))
def test_a_hosts_label_is_base32_of_sha3(host):
    """Of any name, against the standard library."""
    digest = hashlib.sha3_256(host.encode()).digest()
    assert base64.b32encode(digest).decode().rstrip("=") == hash_host(host)


@pytest.mark.parametrize(
    ("prefix", "resource", "selector"),
    [
        (
            keys.affinities_prefix("node1", 4),
            "blockaffinities",
            f"{TYPE}=host,{HOST}={HASH},{VERSION}=4",
        ),
        (
            keys.affinities_prefix("node1", 6, "virtual"),
            "blockaffinities",
            f"{TYPE}=virtual,{HOST}={HASH},{VERSION}=6",
        ),
        (
            keys.HOST_AFFINITIES + "node1/",
            "blockaffinities",
            f"{TYPE}=host,{HOST}={HASH}",
        ),
        # An unfinished name, and all: a selector would miss what has no labels yet.
        (keys.HOST_AFFINITIES + "node1", "blockaffinities", ""),
        (keys.HOST_AFFINITIES, "blockaffinities", ""),
        (keys.VIRTUAL_AFFINITIES, "blockaffinities", ""),
        (keys.BLOCKS, "ipamblocks", ""),
        (keys.blocks_prefix(6), "ipamblocks", ""),
        (keys.HANDLES, "ipamhandles", ""),
        (keys.POOLS, "ippools", ""),
        (keys.RESERVATIONS, "ipreservations", ""),
        (keys.NODES, "nodes", ""),
        (keys.CONFIG, "ipamconfigs", ""),
        (keys.CLUSTER_INFORMATION.removesuffix("default"), "clusterinformations", ""),
    ],
)
def test_every_prefix_is_listed(prefix, resource, selector):
    """A host's affinities by label, as Calico lists them (facts 11); else the whole resource."""
    listing = find_listing(prefix)
    assert (resource, selector) == (listing.resource, listing.selector)


@pytest.mark.parametrize("prefix", ["", "/calico/", "/calico/ipam/v2/", keys.DEFAULT_POOLS_MADE])
def test_other_prefixes_are_not_listed(prefix):
    """Rather than listed in part."""
    assert find_listing(prefix) is None


@given(st.sampled_from(["host", "virtual"]), st.sampled_from(["n", "n1"]), st.sampled_from([4, 6]))
def test_a_list_covers_what_lies_under_its_prefix(kind, host, version):
    """Labels may be wrong, and a list of a whole resource has more than was asked for."""
    cidr = {4: parse_cidr("10.0.0.0/26"), 6: parse_cidr("fd00::/122")}[version]
    listing = find_listing(keys.affinities_prefix("n", 4))
    wanted = (kind, host, version) == ("host", "n", 4)
    assert wanted == listing.covers(keys.affinity_key(host, cidr, kind))


def test_a_list_has_a_path_and_says_its_kind():
    """Items of a list of nodes don't say it."""
    listing = find_listing(keys.NODES)
    assert ("/api/v1/nodes", "Node") == (listing.path(V1), listing.kind)
    assert "/apis/projectcalico.org/v3/ippools" == find_listing(keys.POOLS).path(V3)
