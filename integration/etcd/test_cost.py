"""How many requests to etcd a call takes, counted by a proxy between the two."""

from __future__ import annotations

import pytest

from integration.etcd.node import EtcdNode, put_node, put_pool
from integration.etcd.proxy import Proxy
from integration.etcd.users import CALICO

TXN = "/v3/kv/txn"
LOGIN = "/v3/auth/authenticate"
USER = {"ETCD_USERNAME": CALICO.name, "ETCD_PASSWORD": CALICO.password}


def fill(cluster):
    """Pools of both families and a node."""
    put_pool(cluster, "pool1", "10.0.0.0/24", blockSize=29)
    put_pool(cluster, "pool2", "fd00:10::/112", blockSize=125)
    put_node(cluster, "node1")


def ask(proxy, node, verb, container="c1", **variables):
    """The paths that a call asks for."""
    proxy.clear()
    answer = node.call(verb, container, **variables)
    assert 0 == answer.status, answer.stdout
    return [exchange.path for exchange in proxy.requests]


@pytest.fixture(params=["cni-ipam", "calico-ipam"])
def node(etcd, tmp_path, request):
    """A node whose block has room, behind a proxy."""
    fill(etcd)
    with Proxy(etcd.endpoints[0]) as proxy:
        node = EtcdNode(tmp_path, [proxy.endpoint], name=request.param)
        node.proxy = proxy
        assert 0 == node.call("ADD", "c0").status
        yield node


def test_an_add_takes_three_requests(node):
    """What there is; the blocks; the commit."""
    assert [TXN, TXN, TXN] == ask(node.proxy, node, "ADD")


def test_an_add_of_both_families_takes_three_requests(node, tmp_path):
    """Two families cost no more than one."""
    both = node.netconf()
    both["ipam"] |= {"assign_ipv4": "true", "assign_ipv6": "true"}
    assert 2 == len(node.call("ADD", "c1", both).addresses)
    node.proxy.clear()
    assert 2 == len(node.call("ADD", "c2", both).addresses)
    assert [TXN, TXN, TXN] == [exchange.path for exchange in node.proxy.requests]


def test_a_repeated_add_takes_two_requests(node):
    """It has its address already: there is nothing to commit."""
    node.call("ADD", "c1")
    assert [TXN, TXN] == ask(node.proxy, node, "ADD")


def test_a_claim_takes_one_request_more(node):
    """The keys of all blocks are listed to find one that nobody has."""
    for number in range(1, 8):
        node.call("ADD", f"full{number}")
    assert [TXN, TXN, TXN, TXN] == ask(node.proxy, node, "ADD")


def test_a_del_takes_three_requests(node):
    """The handles; the blocks; the commit."""
    node.call("ADD", "c1")
    assert [TXN, TXN, TXN] == ask(node.proxy, node, "DEL")


def test_a_repeated_del_takes_one_request(node):
    """No handle, nothing to look at."""
    node.call("ADD", "c1")
    node.call("DEL", "c1")
    assert [TXN] == ask(node.proxy, node, "DEL")


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_user_takes_one_request_more(etcd_auth, tmp_path, verb):
    """A token is had once in the life of a process."""
    fill(etcd_auth)
    with Proxy(etcd_auth.endpoints[0]) as proxy:
        node = EtcdNode(tmp_path, [proxy.endpoint])
        for container in ("c0", "c1") if verb == "DEL" else ("c0",):
            assert 0 == node.call("ADD", container, **USER).status
        assert [LOGIN, TXN, TXN, TXN] == ask(proxy, node, verb, **USER)


def test_a_commit_names_each_key_once_and_compares_it(node):
    """Block and handle go together, each at the revision of the decision."""
    ask(node.proxy, node, "ADD")
    commit = node.proxy.requests[-1]
    compared = [one.key for one in commit.compares]
    written = [write.key for write in commit.writes]
    assert ["/calico/ipam/v2/handle/net.c1"] == [key for key in written if "/handle/" in key]
    assert 1 == len([key for key in written if "/assignment/" in key])
    assert sorted(compared) == sorted(written)
    assert all(one.target == "MOD" for one in commit.compares)
