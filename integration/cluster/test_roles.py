"""conf/rbac.yaml: what it grants is enough, and nothing of it can be left out.

Everything runs as the accounts that the file makes. Each verb of each rule is taken away by itself;
then the API server itself must be seen to refuse it, in the answer to some call.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
import yaml

from integration.cluster.node import (
    ACCOUNT,
    CONF,
    ApiNode,
    clear_records,
    create,
    custom_resources,
    put,
    put_pool,
    read_records,
    second_node,
    wait_allowed,
)
from integration.network import BUNDLE, becomes_true
from integration.program import inside, run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from integration.cluster.cluster import Cluster
    from integration.program import Answer

    Json = dict[str, Any]

ROLES = {
    document["metadata"]["name"]: document
    for file in ("rbac.yaml", "rbac-default-pools.yaml")
    for document in yaml.safe_load_all((CONF / file).read_text())
    if document["kind"] == "ClusterRole"
}
COLLECTOR = "system:serviceaccount:kube-system:cni-ipam-gc"
AGENT = "system:serviceaccount:kube-system:cni-ipam-agent"
FIRST = "/apis/crd.projectcalico.org/v1/ippools/first"
RBAC = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
RACERS = ("racer1", "racer2", "racer3", "racer4")
POD = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod"


def list_verbs(role: str) -> list[tuple[str, str]]:
    """Each resource of a role with each of its verbs."""
    rules = ROLES[role]["rules"]
    return [(rule["resources"][0], verb) for rule in rules for verb in rule["verbs"]]


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    with custom_resources(cluster, "rbac-default-pools.yaml"):
        yield cluster


@pytest.fixture
def ready(prepared: Cluster) -> Iterator[Cluster]:
    """A pool, a pod that nobody runs, and what only some clusters have."""
    asks = {"namespaceSelector": "all()", "allowedUses": ["Workload"]}
    put_pool(prepared, "first", "10.77.0.0/28", blockSize=29, **asks)
    put(prepared, "clusterinformations", "default", {"datastoreReady": True})
    body = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "pod"},
        "spec": {"nodeName": "elsewhere", "containers": [{"name": "main", "image": "none"}]},
    }
    create(prepared, "/api/v1/namespaces/default/pods", body)
    yield prepared
    prepared.request("DELETE", "/api/v1/namespaces/default/pods/pod?gracePeriodSeconds=0")
    clear_records(prepared)


@contextlib.contextmanager
def without(cluster: Cluster, role: str, resource: str, verb: str, account: str) -> Iterator[None]:
    """Within the block the role does not grant the verb."""
    less = deepcopy(ROLES[role])
    (rule,) = [rule for rule in less["rules"] if rule["resources"] == [resource]]
    rule["verbs"].remove(verb)
    less["rules"] = [rule for rule in less["rules"] if rule["verbs"]]
    name = (rule.get("resourceNames") or [""])[0]
    asked = {"group": rule["apiGroups"][0], "resource": resource, "verb": verb, "name": name}
    put_role(cluster, less, asked, account, is_granted=False)
    try:
        yield
    finally:
        put_role(cluster, ROLES[role], asked, account, is_granted=True)


def put_role(cluster, role, asked, account, *, is_granted):
    """Replace a role; the API server heeds it afterwards."""
    status, answer = cluster.request("PUT", f"{RBAC}/{role['metadata']['name']}", role)
    assert http.client.OK == status, answer
    wait_allowed(cluster, account, asked, is_granted=is_granted)


def select_no_node(cluster: Cluster) -> None:
    """The first pool no longer serves any node."""
    pool = cluster.get(FIRST)
    pool["spec"]["nodeSelector"] = "has(no-such-label)"
    status, answer = cluster.request("PUT", FIRST, pool)
    assert http.client.OK == status, answer


def make_every_call(cluster: Cluster, node: ApiNode) -> list[Answer]:
    """Two pods' lives in a block that the node claims; when the second one goes, the pool no longer
    selects the node, so the block goes with it, and the next pod needs one of another pool."""
    living = [{"containerID": "c1", "ifname": "eth0"}]
    some = node.netconf(**{"cni.dev/valid-attachments": living})
    answers = [node.call("ADD", "c1", CNI_ARGS=POD), node.call("ADD", "c2", CNI_ARGS=POD)]
    answers += [node.call("DEL", "c2"), node.call("GC", "", some), node.call("STATUS", "")]
    select_no_node(cluster)
    put_pool(cluster, "second", "10.78.0.0/28", blockSize=29)
    answers += [node.call("DEL", "c1"), node.call("ADD", "c3", CNI_ARGS=POD)]
    return [*answers, node.call("DEL", "c3")]


def test_the_plugin_can_do_everything(ready, tmp_path):
    """With its own role, and no other."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT))
    answers = make_every_call(ready, node)
    assert [0] * len(answers) == [answer.status for answer in answers], answers
    records = read_records(ready)
    assert ({}, [], []) == (records.allocations, records.handles, records.findings)
    assert ["10.78.0.0/29"] == [str(block.cidr) for block in records.blocks]


@pytest.mark.parametrize(("resource", "verb"), list_verbs("cni-ipam"))
def test_nothing_of_the_plugins_role_can_be_left_out(ready, tmp_path, resource, verb):
    """Without a verb some call is refused, and says by whom and for what."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT))
    with without(ready, "cni-ipam", resource, verb, ACCOUNT):
        answers = make_every_call(ready, node)
    refused = [answer.document for answer in answers if answer.status]
    assert refused
    assert {110} == {answer["code"] for answer in refused}, refused
    words = f'User "{ACCOUNT}" cannot {verb} resource "{resource}"'
    assert [] == [answer for answer in refused if words not in answer["msg"]]


def collect_by_hand(cluster: Cluster, folder: Path) -> list[str]:
    """What `ipamctl` says as the collector's account when it looks for leftovers and gives the only
    address of a block back, whose pool no longer selects its node."""
    node = ApiNode(folder, cluster, cluster.kubeconfig(ACCOUNT))
    address = node.call("ADD", "c1").address
    select_no_node(cluster)
    kubeconfig = str(cluster.kubeconfig(COLLECTOR))
    return [
        run_ipamctl(cluster, kubeconfig, "ipam", "check"),
        run_ipamctl(cluster, kubeconfig, "ipam", "release", f"--ip={address}"),
    ]


def run_ipamctl(cluster: Cluster, kubeconfig: str, *words: str) -> str:
    """What it says on stderr."""
    environment = {"PATH": os.environ["PATH"], "DATASTORE_TYPE": "kubernetes"}
    command = [*inside(cluster.machine.namespace), str(BUNDLE / "ipamctl"), *words]
    done = subprocess.run(
        command,
        env=environment | {"KUBECONFIG": kubeconfig},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (done.stderr == ""), done
    return done.stderr


def test_the_collector_can_check_and_give_back(ready, tmp_path):
    """With its own role, and no other; nothing is left."""
    assert ["", ""] == collect_by_hand(ready, tmp_path)
    records = read_records(ready)
    assert ([], [], []) == (records.blocks, records.affinities, records.handles)


@pytest.mark.parametrize(("resource", "verb"), list_verbs("cni-ipam-gc"))
def test_nothing_of_the_collectors_role_can_be_left_out(ready, tmp_path, resource, verb):
    """Without a verb something is refused, and says by whom and for what."""
    with without(ready, "cni-ipam-gc", resource, verb, COLLECTOR):
        said = collect_by_hand(ready, tmp_path)
    words = f'User "{COLLECTOR}" cannot {verb} resource "{resource}"'
    assert words in "".join(said), said


def test_the_agent_may_ask_for_the_plugins_token_alone(prepared):
    """Which it does on each node, see test_daemonset."""
    path = "/api/v1/namespaces/kube-system/serviceaccounts/{}/token"
    body = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}}
    token = prepared.token(AGENT)
    answers = {
        name: prepared.request("POST", path.format(name), body, token=token)[0]
        for name in ("cni-ipam", "cni-ipam-gc", "cni-ipam-agent")
    }
    expected = {"cni-ipam": 201, "cni-ipam-gc": 403, "cni-ipam-agent": 403}
    assert expected == answers
    assert 403 == prepared.request("GET", "/api/v1/nodes", token=token)[0]


def test_a_gateway_needs_the_role_of_reservations(ready, tmp_path):
    """Without it an ADD is refused; with it the reservation is there."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT))
    netconf = {key: value for key, value in node.netconf().items() if key != "gateway"}
    role = ("cni-ipam-reservations", "ipreservations", "create")
    with without(ready, *role, ACCOUNT):
        refused = node.call("ADD", "c1", netconf).document
    assert 110 == refused["code"]
    assert f'User "{ACCOUNT}" cannot create resource "ipreservations"' in refused["msg"]
    assert {} == read_records(ready).allocations
    assert 0 == node.call("ADD", "c1", netconf).status
    found = ready.get("/apis/crd.projectcalico.org/v1/ipreservations")["items"]
    assert ["cni-ipam-first"] == [item["metadata"]["name"] for item in found]


def race_for_reservations(cluster: Cluster, folder: Path, rounds: int) -> Iterator[list[Json]]:
    """The errors of the first ADDs of four nodes at once, pool after pool."""
    for number in range(rounds):
        name = f"new{number}"
        put_pool(cluster, name, f"10.80.{number}.0/24", blockSize=29)
        nodes = [ApiNode(folder, cluster, cluster.kubeconfig(ACCOUNT), node) for node in RACERS]
        calls = [
            one.start("ADD", f"c{number}-{one.node}", one.netconf(gateway="auto", ipam=named(name)))
            for one in nodes
        ]
        yield [answer.document for answer in run_at_once(calls) if answer.status]


def named(pool: str) -> dict[str, Any]:
    """The IPAM of a network whose addresses are of that pool."""
    return {"type": "cni-ipam", "ipv4_pools": [pool]}


def test_nodes_that_race_for_a_reservation_need_to_read_it(ready, tmp_path):
    """Without that who was slower is refused, which is seldom anybody where four nodes have to
    take turns; with it nobody is."""
    with contextlib.ExitStack() as nodes:
        for name in RACERS:
            nodes.enter_context(second_node(ready, name))
        role = ("cni-ipam-reservations", "ipreservations", "get")
        with without(ready, *role, ACCOUNT):
            races = race_for_reservations(ready, tmp_path, rounds=100)
            refused = next((errors for errors in races if errors), [])
        words = f'User "{ACCOUNT}" cannot get resource "ipreservations"'
        assert refused
        assert [] == [error for error in refused if words not in error["msg"]]
        clear_records(ready)
        races = [*race_for_reservations(ready, tmp_path, rounds=10)]
    assert [] == [errors for errors in races if errors]


def test_default_pools_need_their_role(ready, tmp_path):
    """Without it an ADD is refused; with it the pool is there."""
    own = {"name": "own", "spec": {"cidr": "10.79.0.0/24", "blockSize": 26}}
    settings = {"create_default_pools": True, "default_pools": [own]}
    ready.request("DELETE", FIRST)
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT))
    netconf = node.netconf() | settings
    role = ("cni-ipam-default-pools", "ippools", "create")
    with without(ready, *role, ACCOUNT):
        refused = node.call("ADD", "c1", netconf).document
    assert 110 == refused["code"]
    assert f'User "{ACCOUNT}" cannot create resource "ippools"' in refused["msg"]
    assert node.call("ADD", "c1", netconf).address.startswith("10.79.0.")


def test_an_event_needs_its_role_and_nothing_else_does(ready, tmp_path):
    """The runtime's answer is the same without; with it the pod has an event in its words."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT))
    netconf = node.netconf(ipam={"type": "cni-ipam", "ipv4_pools": ["10.99.0.0/24"]})
    with without(ready, "cni-ipam-events", "events", "create", ACCOUNT):
        silent = node.call("ADD", "c1", netconf, CNI_ARGS=POD)
    assert [] == ready.events("pod")

    def is_told() -> bool:
        """A plugin that cannot tell within a second goes on without; the next call tries again."""
        assert silent.document == node.call("ADD", "c1", netconf, CNI_ARGS=POD).document
        return ready.events("pod") != []

    assert becomes_true(is_told)
    (event,) = ready.events("pod")
    assert event.startswith(f"IPAMFailed: {silent.document['msg']}")
