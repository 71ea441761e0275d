"""The event at a pod whose ADD failed: what it says, how often, and that nothing hangs on it."""

from __future__ import annotations

import json
import time

import pytest

from cni_ipam.plugin import event
from cni_ipam.plugin.context import Context
from cni_ipam.plugin.main import serve
from tests.lean.servers import HANG_UP, SILENCE, ScriptedServer, answer

POD_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u1"
POOLS_ANNOTATION = "cni.projectcalico.org/ipv4pools"
NO_ADDRESSES = "cni.projectcalico.org/ipAddrsNoIpam"
# With the families the pod says all, so that no namespace is read.
IPV4 = {"cni.projectcalico.org/ipFamilies": '["IPv4"]'}
UNKNOWN_POOL = {**IPV4, POOLS_ANNOTATION: '["nosuch"]'}
CREATED = answer(b'{"kind":"Event"}', "201 Created")
EXISTS = answer(b'{"reason":"AlreadyExists","message":"it exists"}', "409 Conflict")
FORBIDDEN = answer(b'{"reason":"Forbidden","message":"no role"}', "403 Forbidden")
BUSY = answer(b'{"message":"too many requests"}', "429 Too Many Requests", "Retry-After: 30")
# A second is allowed, the rest is for a machine that has much to do.
PATIENCE_SECONDS = 5
LIMIT_SECONDS = event.LIMIT_SECONDS
NOW = 1_795_000_000 * 10**9


class Node:
    """The plugin on a file of its own, without routes, as it needs no root then."""

    def __init__(self, folder):
        self.folder = folder
        self.server = None

    def call(self, verb="ADD", *, container="c1", annotations=UNKNOWN_POOL, args=POD_ARGS, **extra):
        conf = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "ptp",
            "ipam": {"type": "cni-ipam"},
            "nodename": "node1",
            "datastore_type": "sqlite",
            "sqlite_path": str(self.folder / "ipam.db"),
            "default_pools": [{"name": "pool", "spec": {"cidr": "10.77.0.0/29", "blockSize": 29}}],
            "routes": {"host": False, "blackhole": False},
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
            "feature_control": {"ip_addrs_no_ipam": True},
            **extra,
        }
        if self.server:
            conf["kubernetes"] = {"k8s_api_root": str(self.server.endpoint)}
        variables = {"COMMAND": verb, "CONTAINERID": container, "IFNAME": "eth0", "ARGS": args}
        environ = {f"CNI_{key}".encode(): text.encode() for key, text in variables.items()}
        environ |= {b"CNI_NETNS": b"/nowhere", b"CNI_PATH": b"/nowhere"}
        text, status = serve(environ, "cni-ipam", lambda: json.dumps(conf).encode())
        return json.loads(text) if text else None, status


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(Context, "now", NOW)
    monkeypatch.setattr(event, "LIMIT_SECONDS", 30.0)  # a machine may have much to do
    return Node(tmp_path)


def serving(node, *script):
    """An API server for the node, which is asked for events alone."""
    node.server = ScriptedServer(script)
    return node.server


def read_event(server):
    """The event that the server was asked to make, and where."""
    head, _, body = server.requests[-1].partition(b"\r\n\r\n")
    return json.loads(body), head.split(b" HTTP")[0].decode()


def test_the_event_has_the_words_of_the_answer(node):
    """At the pod, which is known by its UID; from us on this node."""
    with serving(node, CREATED) as server:
        document, status = node.call()
    made, request = read_event(server)
    assert (1, 100) == (status, document["code"])
    assert "POST /api/v1/namespaces/shop/events" == request
    assert f"{document['msg']}; {document['details']}" == made["message"]
    assert {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web",
        "uid": "u1",
    } == made["involvedObject"]
    assert {"component": "cni-ipam", "host": "node1"} == made["source"]
    assert ("Warning", "IPAMFailed", 1) == (made["type"], made["reason"], made["count"])
    assert "2026-11-18T11:06:40Z" == made["firstTimestamp"] == made["lastTimestamp"]


def test_a_malformed_annotation_is_told(node):
    """It is the pod's owner who can mend it."""
    with serving(node, CREATED) as server:
        node.call(annotations={POOLS_ANNOTATION: "pool"})
    assert f'cannot read annotation "{POOLS_ANNOTATION}"' in read_event(server)[0]["message"]


@pytest.mark.parametrize(
    ("wanted", "code", "advice"),
    [
        ([f"pool{number}" for number in range(15)], 101, "free addresses, or name another pool"),
        (["off"], 100, """`ipamctl patch ippool off -p '{"spec":{"disabled":false}}'`"""),
        (["10.79.0.0/24"], 100, "name another pool, or create one"),
        (["nosuch"], 100, "name another pool, or create one"),
    ],
)
def test_what_to_do_is_not_cut_off(node, wanted, code, advice):
    """However many pools there are to tell of."""
    off = {"name": "off", "spec": {"cidr": "10.78.0.0/24", "disabled": True}}
    pools = [
        {"name": f"pool{number}", "spec": {"cidr": f"10.77.{number}.0/30", "blockSize": 30}}
        for number in range(15)
    ]
    keys = {"default_pools": [off, *pools], "gateway": "auto"}
    for number in range(15):
        assert 0 == node.call(container=f"c{number}", annotations=IPV4, **keys)[1]
    annotations = {**IPV4, POOLS_ANNOTATION: json.dumps(wanted)}
    with serving(node, CREATED) as server:
        document, _ = node.call(container="more", annotations=annotations, **keys)
    assert code == document["code"]
    assert advice in read_event(server)[0]["message"]


def test_a_pod_without_uid_has_the_one_with_which_it_was_read(node):
    """By it kubectl describe finds the event."""
    uids = {
        "u7": {"annotations": UNKNOWN_POOL},
        "static": {"annotations": {**UNKNOWN_POOL, "kubernetes.io/config.mirror": "static"}},
    }
    found = []
    for metadata in uids.values():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"uid": "u7", **metadata}}
        # The event comes by another connection, and the server serves one at a time.
        read = answer(json.dumps(pod).encode(), "200 OK", "Connection: close")
        with serving(node, read, CREATED) as server:
            document, _ = node.call(args=POD_ARGS.rpartition(";")[0], runtimeConfig={})
        assert 100 == document["code"]
        found.append(read_event(server)[0]["involvedObject"]["uid"])
    assert list(uids) == found


def find_name(node, **options):
    with serving(node, CREATED) as server:
        node.call(**options)
    return read_event(server)[0]["metadata"]["name"]


def test_the_same_words_have_the_same_name_for_a_while(node, monkeypatch):
    """So that the API server refuses what the kubelet's repetitions would add."""
    start = NOW // 10**9 // event.PERIOD_SECONDS * event.PERIOD_SECONDS
    names = []
    for seconds in (0, event.PERIOD_SECONDS - 1, event.PERIOD_SECONDS):
        monkeypatch.setattr(Context, "now", (start + seconds) * 10**9)
        names.append(find_name(node))
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_other_words_and_another_pod_of_the_name_have_another_name(node):
    """Each is news to who looks at the pod."""
    other_uid = POD_ARGS.replace("u1", "u2")
    names = [
        find_name(node),
        find_name(node, annotations={**IPV4, POOLS_ANNOTATION: '["other"]'}),
        find_name(node, args=other_uid),
    ]
    assert 3 == len(set(names))


def test_a_long_name_leaves_room_for_the_rest(node):
    """Names of objects have at most 253 characters, and no two dots in a row."""
    name = "a" * 229 + "." + "b" * 23
    args = POD_ARGS.replace("web", name)
    found = find_name(node, args=args)
    assert found.startswith("a" * 229 + ".")
    assert ".." not in found
    assert len(found) <= 253


def test_a_long_message_is_cut(node):
    """events.k8s.io takes 1024 bytes; letters stay whole."""
    annotations = {**IPV4, POOLS_ANNOTATION: json.dumps(["ä" * 2000], ensure_ascii=False)}
    with serving(node, CREATED) as server:
        document, _ = node.call(annotations=annotations)
    message = read_event(server)[0]["message"]
    assert message.endswith("ä...")
    assert 1022 <= len(message.encode()) <= 1024
    assert f"{document['msg']}; {document['details']}".startswith(message[:-3])


@pytest.mark.parametrize(
    "step", [EXISTS, FORBIDDEN, BUSY, HANG_UP, SILENCE, answer(b"[", "500 No")]
)
def test_whatever_becomes_of_it_the_answer_is_the_same(node, capfd, monkeypatch, step):
    """Nothing is logged but at debug, and the call takes a moment more at most."""
    monkeypatch.setattr(event, "LIMIT_SECONDS", LIMIT_SECONDS)
    expected = node.call()
    before = capfd.readouterr().err.count("\n")
    started = time.monotonic()
    with serving(node, step) as server:
        found = node.call()
    assert expected == found
    assert 1 == len(server.requests)
    assert before == capfd.readouterr().err.count("\n")
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_a_failure_is_told_at_debug(node, capfd):
    """For who wonders where the events are."""
    with serving(node, FORBIDDEN):
        node.call(log_level="debug")
    assert "event.not_made pod=shop/web" in capfd.readouterr().err


@pytest.mark.parametrize("args", ["", "IgnoreUnknown=1;K8S_POD_NAME=web"])
def test_without_a_pod_there_is_no_event(node, args):
    """Nothing to put it at."""
    with serving(node) as server:
        assert 1 == node.call(args=args)[1]
    assert [] == server.requests


def test_an_add_that_succeeds_makes_none(node):
    """The API server is not asked at all."""
    annotations = {**IPV4, POOLS_ANNOTATION: '["pool"]'}
    with serving(node) as server:
        assert 0 == node.call(annotations=annotations)[1]
    assert [] == server.requests


def test_what_is_no_fault_of_pools_makes_none(node, tmp_path):
    """The runtime repeats the call, and tells of it by itself."""
    (tmp_path / "ipam.db").write_bytes(b"no database" * 1000)
    with serving(node) as server:
        assert 111 == node.call()[0]["code"]
    assert [] == server.requests


def without_ipam(node):
    """The result of an ADD that brought its addresses along, and how to ask for a CHECK of it."""
    said = {"annotations": {NO_ADDRESSES: '["203.0.113.9"]'}}
    result, _ = node.call(**said)
    return result, said


def test_a_check_knows_addresses_without_ipam(node):
    """Nothing is recorded, and nothing has to be."""
    result, said = without_ipam(node)
    assert (None, 0) == node.call("CHECK", prevResult=result, **said)


def test_a_check_misses_addresses_without_ipam_in_the_result(node):
    """They are what the pod has to have."""
    result, said = without_ipam(node)
    result["ips"][0]["address"] = "203.0.113.10/32"
    document, _ = node.call("CHECK", prevResult=result, **said)
    assert 108 == document["code"]
    assert "203.0.113.9 is asked for (ipAddrsNoIpam)" in document["msg"]


@pytest.mark.parametrize(
    "other",
    [{"annotations": {}}, {"feature_control": {}}, {"policy": {"type": "none"}}],
)
def test_a_check_misses_the_record_where_the_annotation_does_not_count(node, other):
    """Then the addresses were to be recorded."""
    result, said = without_ipam(node)
    document, _ = node.call("CHECK", prevResult=result, **{**said, **other})
    assert 108 == document["code"]
    assert "no address is recorded" in document["msg"]
