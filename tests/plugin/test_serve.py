"""The process edge without a process: environment and stdin in, text and status out."""

from __future__ import annotations

import json
import re

import pytest

from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.plugin.main import serve

POOL = {"name": "pool", "spec": {"cidr": "10.77.0.0/24", "blockSize": 29}}


class Node:
    """The plugin on a store of its own, without routes, as it needs no root then."""

    def __init__(self, folder) -> None:
        self.path = folder / "store" / "ipam.db"

    def call(self, command, container="c1", called_as="cni-ipam", args="", **keys_of_ipam):
        ipam = {
            "type": called_as,
            "datastore_type": "sqlite",
            "sqlite_path": str(self.path),
            "nodename": "node1",
            "default_pools": [POOL],
            "routes": {"host": False, "blackhole": False},
            **keys_of_ipam,
        }
        netconf = {"cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipam": ipam}
        environ = {
            b"CNI_COMMAND": command.encode(),
            b"CNI_CONTAINERID": container.encode(),
            b"CNI_IFNAME": b"eth0",
            b"CNI_NETNS": b"/nowhere",
            b"CNI_PATH": b"/nowhere",
            b"CNI_ARGS": args.encode(),
        }
        text, status = serve(environ, called_as, lambda: json.dumps(netconf).encode())
        return (json.loads(text) if text else None), status

    def owners(self):
        store = SqliteDatastore(str(self.path))
        entries = store.read([Range(keys.BLOCKS, prefix=True)])[0]
        store.close()
        return [owner for e in entries for _, owner in codec.decode_block(e).allocated()]


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_an_address_is_recorded_with_calicos_attributes_and_two_of_ours(node):
    """Node, pod, namespace and Go's timestamp, by which Calico's collector knows it."""
    assert 0 == node.call("ADD", args="IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web")[1]
    (owner,) = node.owners()
    stamp = owner.secondary.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})? \+0000 UTC", stamp)
    assert "net.c1" == owner.handle
    expected = {
        "ifname": "eth0",
        "namespace": "ns",
        "network": "net",
        "node": "node1",
        "pod": "web",
    }
    assert expected == owner.secondary


def test_a_pod_without_a_name_leaves_no_trace_of_one(node):
    """Both of its arguments, or neither (Calico's orchestrator `cni`)."""
    node.call("ADD", args="K8S_POD_NAME=web")
    (owner,) = node.owners()
    assert not {"pod", "namespace"} & set(owner.secondary)


def test_a_repeated_add_answers_with_the_same_result(node):
    """The same network, container and interface."""
    first = node.call("ADD")
    assert 0 == first[1]
    assert first == node.call("ADD")
    assert 1 == len(node.owners())


def test_what_is_given_back_can_be_given_again(node):
    """DEL says nothing, twice."""
    node.call("ADD")
    assert [(None, 0)] * 2 == [node.call("DEL"), node.call("DEL")]
    assert [] == node.owners()


@pytest.mark.parametrize(("gateway", "code"), [("auto", 106), ("none", None)])
def test_the_gateway_address_on_request(node, gateway, code):
    """Refused where the pool has a gateway, given where it has none."""
    result, status = node.call("ADD", args="IP=10.77.0.1", gateway=gateway)
    assert (code, int(code is not None)) == (result.get("code"), status)


def test_an_error_of_ours_is_still_an_answer(node, monkeypatch):
    """One document with code 999; the stack trace goes to the log alone."""
    monkeypatch.setattr("cni_ipam.plugin.add.assign", lambda *_: 1 / 0)
    result, status = node.call("ADD")
    assert (999, 1) == (result["code"], status)
    assert "internal error: ZeroDivisionError: division by zero" == result["msg"]
    assert "Traceback" not in json.dumps(result)


def test_what_was_asked_is_logged_at_debug(node, tmp_path):
    """Into a file that nobody else may read, and without what stdin holds."""
    path = tmp_path / "log" / "plugin.log"
    keys_of_log = {"log_level": "debug", "log_file_path": str(path)}
    node.call("ADD", policy={"k8s_auth_token": "secret"}, **keys_of_log)
    call, *_ = path.read_text().splitlines()
    expected = "call command=ADD network=net container=c1 ifname=eth0 netns=/nowhere node=node1"
    assert call.endswith(expected)
    assert "secret" not in path.read_text()
    assert 0o600 == path.stat().st_mode & 0o777
