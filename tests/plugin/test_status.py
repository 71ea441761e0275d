"""STATUS: what is told of a network with which no ADD can succeed."""

from __future__ import annotations

import json

import pytest

from cni_ipam.datastore import port
from cni_ipam.datastore.keys import CONFIG
from cni_ipam.datastore.port import Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.plugin.main import serve
from tests.lean.servers import ScriptedServer, answer

EMPTY = answer(b'{"items": []}')
ABSENT = answer(b'{"reason": "NotFound", "message": "not found"}', "404 Not Found")


def call(verb="STATUS", *, type="ptp", ipam=None, **keys):  # noqa: A002 - the netconf's word
    """What one call of the plugin prints, and its exit status."""
    netconf = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": type,
        "ipam": {"type": "cni-ipam"} if ipam is None else ipam,
        "nodename": "node1",
        "routes": {"host": False, "blackhole": False},
        **keys,
    }
    variables = {"COMMAND": verb, "CONTAINERID": "c1", "IFNAME": "eth0", "NETNS": "/nowhere"}
    environ = {f"CNI_{key}".encode(): text.encode() for key, text in variables.items()}
    text, status = serve(
        environ | {b"CNI_PATH": b"/nowhere"}, "cni-ipam", lambda: json.dumps(netconf).encode()
    )
    return (json.loads(text) if text else {}), status


def on_kubernetes(server):
    """The keys of a netconf whose records this API server keeps."""
    return {"datastore_type": "kubernetes", "kubernetes": {"k8s_api_root": str(server.endpoint)}}


@pytest.mark.parametrize("name", ["my_net", "net-", "net."])
def test_a_network_that_kubernetes_can_have_no_handles_of_is_told(name):
    """Every ADD would be refused for its name, so nobody has to be asked."""
    with ScriptedServer([]) as server:
        document, _ = call(name=name, **on_kubernetes(server))
    assert (50, []) == (document["code"], server.requests)
    assert f"in Kubernetes no IPAMHandle can be named {name}.status" in document["msg"]


@pytest.mark.parametrize("name", ["net", "Net", "net.one", "net-1"])
def test_other_networks_are_served(name):
    """Upper case letters, too: an object's name has them in lower case."""
    with ScriptedServer([EMPTY, EMPTY, ABSENT, ABSENT, ABSENT]) as server:
        assert ({}, 0) == call(name=name, **on_kubernetes(server))


def test_the_chained_role_makes_no_handles():
    """Another's IPAM may have served the pod."""
    with ScriptedServer([EMPTY, EMPTY, ABSENT, ABSENT, ABSENT]) as server:
        keys = on_kubernetes(server)
        assert ({}, 0) == call(type="cni-ipam", ipam={}, name="my_net", **keys)


def test_other_datastores_take_every_name(tmp_path):
    """In a file a handle is a text like any other."""
    pool = {"name": "pool", "spec": {"cidr": "10.77.0.0/29", "blockSize": 29}}
    path = str(tmp_path / "ipam.db")
    keys = {"datastore_type": "sqlite", "sqlite_path": path, "default_pools": [pool]}
    assert 0 == call("ADD", name="my_net", **keys)[1]
    assert ({}, 0) == call(name="my_net", **keys)


@pytest.mark.parametrize(("pools", "verb"), [({}, "create"), ({"ipv4_pools": ["pool"]}, "name")])
def test_full_pools_are_told_with_what_to_do(tmp_path, pools, verb):
    """Where that is asked for, in the words of an ADD."""
    pool = {"name": "pool", "spec": {"cidr": "10.77.0.0/30", "blockSize": 30}}
    keys = {
        "datastore_type": "sqlite",
        "sqlite_path": str(tmp_path / "ipam.db"),
        "default_pools": [pool],
        "status_when_exhausted": True,
        "ipam": {"type": "cni-ipam", **pools},
    }
    assert 0 == call("ADD", **keys)[1]
    document, _ = call(**keys)
    numbers = "10.77.0.0/30: 4 addresses, 1 in use, 3 reserved, 0 cooling, 0 free"
    assert f"free addresses, or {verb} another pool; {numbers}" == document["details"]


@pytest.mark.parametrize(("is_told", "expected"), [(False, (None, 0)), (True, (50, 1))])
def test_a_config_that_cannot_be_read_is_told_where_that_is_asked_for(tmp_path, is_told, expected):
    """An ADD would not guess what the operator wanted."""
    pool = {"name": "pool", "spec": {"cidr": "10.77.0.0/29", "blockSize": 29}}
    path = str(tmp_path / "ipam.db")
    keys = {"datastore_type": "sqlite", "sqlite_path": path, "default_pools": [pool]}
    assert 0 == call("ADD", **keys)[1]
    store = SqliteDatastore(path)
    store.commit([Write(CONFIG, "{", port.ABSENT)])
    store.close()
    document, status = call(status_when_unreachable=is_told, **keys)
    assert expected == (document.get("code"), status)
