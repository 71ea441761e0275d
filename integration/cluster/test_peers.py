"""Calico's own calico-ipam and calicoctl beside ours on the API server: the same objects, at once
and in turn."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.check import LEFTOVER
from integration.cluster.calico import PASSING, ApiHerd, Mixed, list_objects, set_ready
from integration.cluster.node import (
    GROUP,
    ApiNode,
    clear_records,
    custom_resources,
    put_pool,
    read_records,
    second_node,
)
from integration.cluster.proxy import ApiProxy
from integration.etcd.calico import resource, with_calico
from integration.etcd.test_calico_race import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from integration.cluster.proxy import ApiExchange

    Json = dict[str, Any]

pytestmark = with_calico

# Until swaps were lost and addresses changed over, but no longer.
SECONDS, WINDOWS = 5.0, 20
BOTH = {"assign_ipv4": "true", "assign_ipv6": "true"}
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID=x"
WAYS = pytest.mark.parametrize(("first", "second"), [("ours", "theirs"), ("theirs", "ours")])
METADATA = "projectcalico.org/metadata"


@pytest.fixture(scope="module")
def resources(cluster):
    """The API server with Calico's resources."""
    with custom_resources(cluster):
        yield


@pytest.fixture
def mixed(cluster, resources, tmp_path) -> Iterator[Mixed]:
    set_ready(cluster, True)
    yield Mixed(cluster, tmp_path)
    clear_records(cluster)


def test_calicos_nodes_and_ours_share_a_small_pool(mixed):
    """Each address has one pod, nothing that was acknowledged is lost, nothing is unsound, and in
    the end each plugin releases what the other assigned.

    A handle may also count an address in a block that another was faster to: Calico's DEL leaves
    that, ours takes it away."""
    put_pool(mixed.cluster, "pool", POOL, blockSize=29)
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(ApiProxy(mixed.cluster))
        # So long between our reading and writing that Calico's plugin comes in between.
        proxy.delay(0.03)
        herd = ApiHerd(mixed, proxy, nodes=4, pods=6)
        for node in herd.nodes:
            if node.node != "node1":
                stack.enter_context(second_node(mixed.cluster, node.node))
        for window in range(WINDOWS):
            herd.run(herd.come_and_go(random.Random(window), len(herd.pods)), SECONDS)
            if herd.tally.lost and {True, False} in herd.givers.values():
                break
        herd.tell(f"{window + 1} times {SECONDS} seconds")
        records = read_records(mixed.cluster)
        assert [] == herd.complaints
        assert herd.book == records.allocations
        assert [] == [found for found in records.findings if not found.startswith(LEFTOVER)]
        assert herd.tally.lost > 0
        assert {True, False} in herd.givers.values()

        herd.swap()
        herd.run((herd.delete, pod) for pod in herd.pods)
        left = read_records(mixed.cluster)
        assert {} == left.allocations
        for node in herd.nodes:
            herd.hand_over(node, to_calico=False)
        handles = {handle.id for handle in left.handles}
        herd.run((herd.delete, pod) for pod in herd.pods if pod.handle in handles)
    left = read_records(mixed.cluster)
    assert [] == herd.complaints
    assert ([], []) == (left.handles, left.findings)


# The objects, field by field


STEPS = [
    ("ADD", "c1", {}),
    ("ADD", "c2", {"CNI_ARGS": POD.format("web")}),
    ("ADD", "c3", {"CNI_ARGS": "IP=10.48.1.6"}),
    ("ADD", "c4", {"CNI_ARGS": "IP=fd00:48::9"}),
    ("DEL", "c1", {}),
    ("ADD", "c5", {}),
    ("DEL", "c3", {}),
    ("DEL", "c2", {"CNI_ARGS": POD.format("web")}),
    ("DEL", "c4", {}),
    ("DEL", "c5", {}),
]


def test_every_object_is_the_same_as_calicos(mixed):
    """After each call, of both families: names, labels, annotations, spec; but for times, and the
    two attributes that only ours have."""
    histories = {}
    for whose in ("theirs", "ours"):
        put_pool(mixed.cluster, "four", "10.48.1.0/29", blockSize=29)
        put_pool(mixed.cluster, "six", "fd00:48::/122")
        histories[whose] = [*follow(mixed, getattr(mixed, whose)())]
        clear_records(mixed.cluster)
    for (verb, container, _), theirs, ours in zip(STEPS, *histories.values(), strict=True):
        assert theirs == ours, f"{verb} {container}"
    assert {"blockaffinities", "ipamblocks", "ipamhandles"} == kinds_of(histories["ours"][1])
    assert {"blockaffinities", "ipamblocks"} == kinds_of(histories["ours"][-1])


def follow(mixed: Mixed, node: ApiNode) -> Iterator[Json]:
    """What there is after each step."""
    for verb, container, variables in STEPS:
        done = node.call(verb, container, node.netconf(ipam=BOTH), **variables)
        assert 0 == done.status, (done.stdout, done.stderr)
        yield {name: mask(found) for name, found in list_objects(mixed.cluster).items()}


def kinds_of(objects: Json) -> set[str]:
    return {name.partition("/")[0] for name in objects}


def mask(found: Json) -> Json:
    """An object without its times, numbers that begin anywhere, our two attributes, and what
    Calico writes only since v3.31."""
    metadata, spec = found["metadata"], dict(found["spec"])
    if metadata.pop("labels", None):
        assert "host" == spec.pop("type")
        del metadata["annotations"][METADATA]
    elif found["kind"] == "BlockAffinity":
        assert {} == mask_annotation(metadata["annotations"].pop(METADATA))
    if METADATA in metadata.get("annotations", {}):
        metadata["annotations"][METADATA] = mask_annotation(metadata["annotations"][METADATA])
    spec.pop("affinityClaimTime", None)  # v3.28 does not know it
    if "sequenceNumber" in spec:
        first = spec.pop("sequenceNumber")
        numbers = spec.get("sequenceNumberForAllocation", {})
        assert all(number <= first for number in numbers.values())
        # v3.28 keeps the numbers of released addresses, later versions don't.
        used = [str(n) for n, found in enumerate(spec["allocations"]) if found is not None]
        spec["sequenceNumberForAllocation"] = [n for n in used if n in numbers]
    for attribute in spec.get("attributes", []):
        owner = attribute["secondary"]
        if "ifname" in owner:
            assert ("eth0", "net") == (owner.pop("ifname"), owner.pop("network"))
        assert owner.pop("timestamp").endswith(" UTC")
    return found | {"metadata": metadata, "spec": spec}


@pytest.mark.parametrize("plural", ["blockaffinities", "ipamhandles"])
def test_the_steps_to_an_object_and_away_are_calicos(mixed, plural):
    """What is asked of the API server: pending before confirmed, marked as deleted before removed,
    which is for just that object. Calico says some of it twice."""
    histories = {}
    for whose in ("theirs", "ours"):
        put_pool(mixed.cluster, "pool", POOL, blockSize=29)
        with ApiProxy(mixed.cluster) as proxy:
            node = getattr(mixed, whose)()
            kubeconfig = mixed.cluster.kubeconfig(server=proxy.endpoint)
            node.settings["kubernetes"] = {"kubeconfig": str(kubeconfig)}
            for verb in ("ADD", "DEL"):
                assert 0 == node.call(verb, "c1").status
            writes = [seen for seen in proxy.seen if seen.is_write and plural in seen.path]
            histories[whose] = leave_out_repetitions([read_step(seen) for seen in writes])
        clear_records(mixed.cluster)
    assert histories["theirs"] == histories["ours"]
    assert {"blockaffinities": 2, "ipamhandles": 3}[plural] == len(histories["ours"])


def read_step(exchange: ApiExchange) -> tuple[str, str, Json]:
    """What a request asks for, but for what is passing."""
    body = json.loads(exchange.body)
    if "metadata" in body:
        body["metadata"] = {k: v for k, v in body["metadata"].items() if k not in PASSING}
        body = mask(body)
    else:
        assert ["uid"] == list(body.pop("preconditions"))
        assert "DeleteOptions" == body.pop("kind")
        del body["apiVersion"]  # which the API server does not look at
    return exchange.method, exchange.path, body


def leave_out_repetitions(steps: list[tuple[str, str, Json]]) -> list[tuple[str, str, Json]]:
    """Without what says the same as the step before it."""
    return [next(group) for _, group in itertools.groupby(steps, key=lambda step: step[2])]


def mask_annotation(text: str) -> Json:
    """Older versions of Kubernetes' libraries wrote a time that is not known as null."""
    wrapped: Json = json.loads(text)
    assert wrapped.pop("creationTimestamp", None) is None
    return wrapped


def test_affinities_have_the_labels_of_newer_versions(mixed):
    """Those of v3.31 and later list by them; what v3.28 does not know of a node's name, ours adds
    when it first looks for the node's blocks, and takes none of its own."""
    put_pool(mixed.cluster, "pool", POOL, blockSize=29)
    mixed.theirs().call("ADD", "c1")
    assert [{}] == list_labels(mixed)
    mixed.ours().call("ADD", "c2")
    labels = {
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/hostname-hash": "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A",
        "projectcalico.org/ip-version": "4",
    }
    assert [labels] == list_labels(mixed)


def list_labels(mixed: Mixed) -> list[Json]:
    items = mixed.cluster.get(f"{GROUP}/blockaffinities")["items"]
    return [item["metadata"].get("labels", {}) for item in items]


# The operators


FOUR = resource(
    "IPPool",
    "four",
    {"cidr": "10.49.0.0/28", "blockSize": 29, "natOutgoing": True, "nodeSelector": "rack == '1'"},
    labels={"team": "a"},
    annotations={"example.org/note": "a<b"},
)
SIX = resource("IPPool", "six", {"cidr": "fd00:49::/64", "allowedUses": ["Workload"]})
KEPT = resource("IPReservation", "kept", {"reservedCIDRs": ["10.49.0.0/30", "10.49.0.8/30"]})
NEWER = "    assignmentMode: Automatic\n"
OPERATORS = pytest.mark.parametrize(
    ("first", "second"), [("calicoctl", "ipamctl"), ("ipamctl", "calicoctl")]
)


@OPERATORS
def test_both_operators_show_the_same_in_the_same_words(mixed, first, second):
    """Every resource that one of them applied, to the byte, with everything that was in it."""
    getattr(mixed, first).give("apply", FOUR, SIX, KEPT)
    for kind, written in {"ippool": [FOUR, SIX], "ipreservation": [KEPT]}.items():
        theirs = mixed.calicoctl.say("get", kind, "-o", "yaml")
        ours = mixed.ipamctl.say("get", kind, "-o", "yaml")
        assert without_own_metadata(theirs) == without_own_metadata(ours.replace(NEWER, ""))
        found = json.loads(getattr(mixed, second).say("get", kind, "-o", "json"))["items"]
        for sought, seen in zip(written, found, strict=True):
            assert sought["spec"].items() <= seen["spec"].items()
            assert sought["metadata"].items() <= seen["metadata"].items()


def without_own_metadata(text: str) -> str:
    """A list but for its own revision: with Calico the store's, with ours the items' latest."""
    return text.rpartition("\nmetadata:\n")[0]


@OPERATORS
def test_what_one_creates_the_other_changes_and_the_first_deletes(mixed, first, second):
    """By patch and replace; identity stays through all of it."""
    one, other = getattr(mixed, first), getattr(mixed, second)
    one.give("create", FOUR, KEPT)
    born = one.get("ippool", "four")["metadata"]["uid"]
    stale = one.get("ipreservation", "kept")

    other.say("patch", "ippool", "four", "-p", '{"spec": {"natOutgoing": false}}')
    kept = other.get("ipreservation", "kept")
    kept["spec"]["reservedCIDRs"] = ["10.49.0.4/32"]
    other.give("replace", kept)

    pool = one.get("ippool", "four")
    assert "natOutgoing" not in pool["spec"]
    assert (born, {"team": "a"}) == (pool["metadata"]["uid"], pool["metadata"]["labels"])
    assert kept["spec"] == one.get("ipreservation", "kept")["spec"]
    assert 1 == one.run("replace", "-f", "-", stdin=json.dumps(stale)).returncode
    one.give("delete", FOUR, KEPT)
    assert [] == json.loads(other.say("get", "ippool", "-o", "json"))["items"]


@OPERATORS
def test_one_locks_and_the_other_unlocks(mixed, first, second):
    """In between our plugin under Calico's name gives addresses, as Calico's does: there its main
    plugin asks."""
    one, other = getattr(mixed, first), getattr(mixed, second)
    one.give("apply", SIX)
    node = mixed.ours()
    both = node.netconf(ipam={"assign_ipv4": "false", "assign_ipv6": "true"})
    one.say("datastore", "migrate", "lock")
    assert not other.get("clusterinformation", "default")["spec"]["datastoreReady"]
    assert 0 == node.call("ADD", "c1", both).status
    assert 0 == mixed.theirs().call("DEL", "c1", both).status
    other.say("datastore", "migrate", "unlock")
    assert mixed.calicoctl.get("clusterinformation", "default")["spec"]["datastoreReady"]


@WAYS
def test_calicoctl_has_no_complaint_about_what_either_wrote(mixed, first, second):
    """Addresses, blocks and handles of both, and what the one left that the other released."""
    put_pool(mixed.cluster, "pool", POOL, blockSize=29)
    one, other = getattr(mixed, first)(), getattr(mixed, second)()
    for number in range(9):
        (one, other)[number % 2].call("ADD", f"c{number}")
    assert 2 == len(read_records(mixed.cluster).blocks)
    said = mixed.calicoctl.say("ipam", "check")
    for line in (
        "IPAM blocks record 9 allocations.",
        "Found 0 handles with no matching IPs (and 9 handles with matches).",
        "Found 0 handles mentioned in blocks with no matching handle resource.",
        # No pods have them.
        "Found 9 IPs that are allocated in IPAM but not actually in use.",
        "Check complete; found 9 problems.",
    ):
        assert line in said
    for number in range(9):
        assert 0 == (other, one)[number % 2].call("DEL", f"c{number}").status
    assert "Check complete; found 0 problems." in mixed.calicoctl.say("ipam", "check")
