"""The same call of Calico's plugin and of ours, on the same records: the same answer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from integration.etcd.calico import Mixed, with_calico
from integration.etcd.node import put_node, put_pool
from integration.etcd.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = with_calico

# Printed since v3.32; older main plugins do not look at it.
ROUTES = re.compile(r',\n    "routes": \[.*?\n    \]', re.DOTALL)
BOTH = {"assign_ipv4": "true", "assign_ipv6": "true"}


@pytest.fixture
def mixed(etcd34, tmp_path) -> Iterator[Mixed]:
    """One block of each family."""
    put_pool(etcd34, "four", "10.52.0.0/30", blockSize=30)
    put_pool(etcd34, "six", "fd00:52::/126", blockSize=126)
    put_node(etcd34, "node1")
    with Proxy(etcd34.endpoints[0]) as proxy:
        yield Mixed(etcd34, proxy, tmp_path)


def drop_records(mixed: Mixed) -> None:
    """Leave only what an operator wrote."""
    mixed.cluster.etcdctl("del", "--prefix", "/calico/ipam/")


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
@pytest.mark.parametrize(
    ("ipam", "args"),
    [
        ({}, ""),
        (BOTH, ""),
        ({}, "IP=10.52.0.2"),
        ({}, "IP=fd00:52::2"),
        (BOTH, "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=default"),
    ],
    ids=["v4", "both", "requested v4", "requested v6", "pod"],
)
def test_the_results_are_the_same_bytes(mixed, version, ipam, args):
    """But for the routes, each of which is an address of the result."""
    answers = []
    for node in (mixed.theirs(), mixed.ours()):
        netconf = node.netconf(ipam=ipam, cniVersion=version)
        answers.append(node.call("ADD", "c1", netconf, CNI_ARGS=args))
        drop_records(mixed)
    theirs, ours = answers
    assert 0 == theirs.status
    assert theirs.stdout.decode() == ROUTES.sub("", ours.stdout.decode())
    result = json.loads(ours.stdout)
    assert [ip["address"] for ip in result["ips"]] == [r["dst"] for r in result["routes"]]


@pytest.mark.parametrize(
    ("ipam", "args"),
    [
        ({}, ""),
        ({"ipv4_pools": ["10.53.0.0/16"]}, ""),
        ({"ipv4_pools": ["nope"]}, ""),
        ({}, "IP=10.52.0.0"),
        ({}, "IP=10.99.0.1"),
        ({}, "IP=nonsense"),
    ],
    ids=["full", "no such pool", "no name", "in use", "outside", "no address"],
)
def test_our_errors_contain_calicos_words(mixed, ipam, args):
    """They are what people search for; nothing changes either way."""
    ours, theirs = mixed.ours(), mixed.theirs()
    for n in range(4):
        assert 0 == ours.call("ADD", f"c{n}").status
    before = mixed.records().allocations
    answers = [
        node.call("ADD", "new", node.netconf(ipam=ipam), CNI_ARGS=args) for node in (theirs, ours)
    ]
    assert [1, 1] == [answer.status for answer in answers]
    said, mine = (answer.document["msg"] for answer in answers)
    assert said.strip() in mine
    assert before == mixed.records().allocations


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_del_and_check_say_nothing(mixed, version):
    """Neither plugin, whether there is something to release or not."""
    for node in (mixed.theirs(), mixed.ours()):
        netconf = node.netconf(cniVersion=version)
        assert 0 == node.call("ADD", "c1", netconf).status
        verbs = ["CHECK", "DEL", "DEL"] if version != "0.3.1" else ["DEL", "DEL"]
        answers = [node.call(verb, "c1", netconf) for verb in verbs]
        assert [(0, b"")] * len(verbs) == [(answer.status, answer.stdout) for answer in answers]
