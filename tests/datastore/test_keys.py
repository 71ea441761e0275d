"""Keys as Calico has them in etcd, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import Address, network_of, parse_cidr
from cni_ipam.datastore import keys


@pytest.mark.parametrize(
    ("cidr", "expected"),
    [
        ("10.0.0.0/26", "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26"),
        ("fd00:10:244::/122", "/calico/ipam/v2/assignment/ipv6/block/fd00:10:244::-122"),
    ],
)
def test_block_keys_are_calicos(cidr, expected):
    """Facts 1.2: the first slash is a dash."""
    assert expected == keys.block_key(parse_cidr(cidr))


@pytest.mark.parametrize(
    ("kind", "host", "cidr", "expected"),
    [
        ("host", "node1", "10.0.0.0/26", "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-26"),
        (
            "host",
            "node1",
            "fd00:10:244::40/122",
            "/calico/ipam/v2/host/node1/ipv6/block/fd00:10:244::40-122",
        ),
        (
            "virtual",
            "load-balancer",
            "10.9.0.0/26",
            "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.9.0.0-26",
        ),
        ("host", "Node.A", "10.0.0.0/26", "/calico/ipam/v2/host/Node.A/ipv4/block/10.0.0.0-26"),
    ],
)
def test_affinity_keys_are_calicos(kind, host, cidr, expected):
    """Facts 1.4: the host's name verbatim."""
    assert expected == keys.affinity_key(host, parse_cidr(cidr), kind)
    assert (kind, host, parse_cidr(cidr)) == keys.find_affinity(expected)


def test_other_keys_are_calicos():
    """Facts 1.5 to 1.10."""
    assert "/calico/ipam/v2/handle/k8s-pod-network.c1" == keys.handle_key("k8s-pod-network.c1")
    assert "/calico/ipam/v2/config" == keys.CONFIG
    resources = "/calico/resources/v3/projectcalico.org"
    assert (
        f"{resources}/ippools/",
        f"{resources}/ipreservations/",
        f"{resources}/nodes/",
        f"{resources}/clusterinformations/default",
    ) == (keys.POOLS, keys.RESERVATIONS, keys.NODES, keys.CLUSTER_INFORMATION)


@given(st.sampled_from([4, 6]), st.integers(0, 2**128 - 1), st.integers(0, 128))
def test_a_blocks_key_names_it(version, value, prefix):
    """Any block of either family is found again; its key lies under its family's prefix."""
    bits = {4: 32, 6: 128}[version]
    cidr = network_of(Address(version, value >> (128 - bits)), min(prefix, bits))
    assert cidr == keys.find_block(keys.block_key(cidr))
    assert keys.block_key(cidr).startswith(keys.blocks_prefix(version))
    assert keys.blocks_prefix(version).startswith(keys.BLOCKS)
    affinity = keys.affinity_key("node1", cidr)
    assert ("host", "node1", cidr) == keys.find_affinity(affinity)
    assert affinity.startswith(keys.affinities_prefix("node1", version))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/calico/ipam/v2/config",
        "/calico/ipam/v2/assignment/ipv4/block/",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26/more",
        "/calico/ipam/v2/assignment/ipv4/other/10.0.0.0-26",
        "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-26",
    ],
)
def test_other_keys_name_no_block(key):
    """Calico's readers skip what does not match."""
    assert keys.find_block(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/calico/ipam/v2/host/node1",
        "/calico/ipam/v2/host/node1/ipv4/block/nonsense",
        "/calico/ipam/v2/host/node1/ipv4/other/10.0.0.0-26",
        "/calico/ipam/v2/guest/node1/ipv4/block/10.0.0.0-26",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26",
    ],
)
def test_other_keys_name_no_affinity(key):
    """Nor those of a legacy host marker (facts 1.11)."""
    assert keys.find_affinity(key) is None


def test_the_last_part_of_a_key_is_the_name():
    """A pool's, a node's, a handle's."""
    assert "pool1" == keys.last_part(keys.POOLS + "pool1")
    assert "net.c1" == keys.last_part(keys.handle_key("net.c1"))
