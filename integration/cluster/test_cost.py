"""How many requests to the API server a call takes, counted by a proxy between the two.

What each of them is for stands in docs/kubernetes.md, whose tables these tests hold to be true.
"""

from __future__ import annotations

import re

import pytest

from integration.cluster.node import (
    ACCOUNT,
    ApiNode,
    clear_records,
    custom_resources,
    put_pool,
)
from integration.cluster.proxy import ApiProxy
from integration.network import ROOT

PAGE = ROOT / "docs" / "kubernetes.md"
ROW = re.compile(r"\| `([A-Z]+ [a-z]+)` \|.*\| (yes|no|) ?\|")
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c"
PASSED = {"io.kubernetes.cri.pod-annotations": {}}


@pytest.fixture(scope="module")
def granted(cluster):
    with custom_resources(cluster):
        yield cluster


@pytest.fixture
def pod(granted):
    """A pod that nobody runs, and one pool."""
    granted.start_pod("p", nodeName=None, schedulerName="nobody")
    put_pool(granted, "pool", "10.77.0.0/24", blockSize=29)
    yield granted
    clear_records(granted)


@pytest.fixture
def make_node(pod, tmp_path):
    """Makes a node whose block has room, behind a proxy of its own."""
    with ApiProxy(pod) as proxy:

        def make(name="cni-ipam", **settings):
            token = pod.token(ACCOUNT)
            kubeconfig = pod.kubeconfig("plugin", token=token, server=proxy.endpoint)
            node = ApiNode(tmp_path, pod, kubeconfig, name=name, **settings)
            node.proxy = proxy
            assert 0 == node.call("ADD", "c0", CNI_ARGS=POD).status
            return node

        yield make


@pytest.fixture
def node(make_node):
    return make_node()


def ask(node, verb, container="c1", stdin=None):
    """What a call asks for."""
    node.proxy.clear()
    answer = node.call(verb, container, stdin, CNI_ARGS=POD)
    assert 0 == answer.status, answer.stdout
    assert 1 == len({exchange.connection for exchange in node.proxy.seen})
    return [describe(exchange) for exchange in node.proxy.seen]


def describe(exchange):
    """The verb and the resource: "GET pods"."""
    words = exchange.path.partition("?")[0].split("/")
    resource = next((word for word in words if word == "pods"), "")
    return f"{exchange.method} {resource or words[4 if words[1] == 'apis' else 3]}"


def read_table(verb):
    """The requests of a verb in the page's table, each with whether it is made under Calico."""
    section = PAGE.read_text().partition("## Requests\n")[2].partition("\n## ")[0]
    table = section.partition(f"| {verb} asks")[2].partition("\n\n")[0]
    return [(found[1], found[2] == "yes") for found in ROW.finditer(table)]


def test_an_add_asks_what_the_page_says(node):
    """Ten requests with pod and namespace, over one connection, and none for groups."""
    requests = ask(node, "ADD")
    assert [request for request, _ in read_table("ADD")] == requests
    assert 10 == len(requests)


def test_a_pool_with_a_gateway_costs_no_request_more(make_node):
    """Its reservation is among those that are listed anyway."""
    node = make_node(gateway="auto")
    assert [request for request, _ in read_table("ADD")] == ask(node, "ADD")


def test_an_add_under_calicos_main_plugin_asks_less(make_node):
    """That has read pod and namespace already, and looked whether the datastore is ready."""
    node = make_node("calico-ipam", type="calico")
    requests = ask(node, "ADD")
    assert [request for request, is_made in read_table("ADD") if is_made] == requests
    assert 7 == len(requests)


def test_annotations_that_the_runtime_passes_save_the_pod(node):
    """One request less."""
    passed = node.netconf(runtimeConfig=PASSED)
    assert [request for request, _ in read_table("ADD")][1:] == ask(node, "ADD", stdin=passed)


def test_annotations_that_leave_nothing_open_save_the_namespace(node):
    """Pools of both families and the families themselves: one request less again."""
    texts = {"ipv4pools": '["pool"]', "ipv6pools": "[]", "ipFamilies": '["IPv4"]'}
    said = {f"cni.projectcalico.org/{kind}": text for kind, text in texts.items()}
    passed = node.netconf(runtimeConfig={"io.kubernetes.cri.pod-annotations": said})
    assert [request for request, _ in read_table("ADD")][2:] == ask(node, "ADD", stdin=passed)


def test_a_pool_that_looks_at_labels_costs_the_node(granted, node):
    """One request more."""
    put_pool(granted, "other", "10.78.0.0/24", nodeSelector="!has(other)")
    assert ["GET nodes"] == [
        request for request in ask(node, "ADD") if request not in dict(read_table("ADD"))
    ]


def test_a_repeated_add_writes_nothing(node):
    """It has its address already."""
    ask(node, "ADD")
    assert [request for request, _ in read_table("ADD")][:8] == ask(node, "ADD")


def test_a_claim_takes_five_requests_more(node):
    """A node's first address of a block: the node, the blocks, the affinity twice; what is
    created is not read before."""
    for number in range(1, 8):
        node.call("ADD", f"full{number}", CNI_ARGS=POD)
    requests = ask(node, "ADD")
    assert [
        "POST blockaffinities",
        "POST ipamhandles",
        "POST ipamblocks",
        "PUT blockaffinities",
    ] == [request for request in requests if not request.startswith("GET")]
    assert len(requests) <= 15


def test_a_del_asks_what_the_page_says(node):
    """Eight requests, two of them for the two steps of the handle's removal."""
    ask(node, "ADD")
    requests = ask(node, "DEL")
    assert [request for request, _ in read_table("DEL")] == requests
    assert 8 == len(requests)


def test_a_del_under_calicos_main_plugin_asks_the_same(make_node):
    """Nothing of it is known from elsewhere."""
    node = make_node("calico-ipam", type="calico")
    ask(node, "ADD")
    assert [request for request, is_made in read_table("DEL") if is_made] == ask(node, "DEL")


def test_a_repeated_del_takes_four_requests(node):
    """No handle, nothing to look at."""
    ask(node, "ADD")
    ask(node, "DEL")
    assert [request for request, _ in read_table("DEL")][:4] == ask(node, "DEL")
