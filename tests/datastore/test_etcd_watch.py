"""A watch that etcd ends is begun again with what there is, if we still may."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni_ipam.datastore import etcd_client
from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import Unauthorized
from tests.lean.servers import ScriptedServer, answer

HEADER = {"header": {"revision": "7"}}
# "/a", "1" and "2" in base64
OURS = {"kvs": [{"key": "L2E=", "value": "MQ==", "mod_revision": "7"}]}
NEWER = {"key": "L2E=", "value": "Mg==", "mod_revision": "8"}
CANCELED = {"created": True, "canceled": True, "cancel_reason": "rpc error: code = Unknown"}


def last(document: dict[str, Any], status: str = "200 OK") -> bytes:
    """An answer that ends its connection, since the server has only one at a time."""
    return answer(json.dumps(document).encode() + b"\n", status, "Connection: close")


def look(response: dict[str, Any]) -> bytes:
    return last({**HEADER, "responses": [{"response_range": response}]})


EXPIRED = {"error": {"code": 16, "message": "etcdserver: invalid auth token"}}


@pytest.mark.parametrize("ending", [{"result": CANCELED}, EXPIRED])
def test_what_changed_meanwhile_is_told_first(ending: dict[str, Any]) -> None:
    """As when the token has expired, in either way of saying so: the read has had a new one."""
    event = {"result": {"events": [{"kv": NEWER}]}}
    token = last({**HEADER, "token": "t"})
    script = [token, look({}), last(ending), look(OURS), last(event)]
    with ScriptedServer(script) as server:
        store = EtcdDatastore([server.endpoint], None, "calico", "secret")
        changes = store.watch("/")
        assert [Entry("/a", "1", 7), Entry("/a", "2", 8)] == [next(changes), next(changes)]
        store.close()
    assert b'"start_revision":"8"' in server.requests[4]


def test_a_lost_permission_ends_it() -> None:
    """The read is refused, and says so."""
    denied = {"error": "etcdserver: permission denied", "code": 7}
    script = [look({}), last({"result": CANCELED})]
    with ScriptedServer([*script, last(denied, "403 Forbidden")]) as server:
        store = EtcdDatastore([server.endpoint])
        with pytest.raises(Unauthorized, match="permission denied"):
            next(store.watch("/"))
        store.close()


def test_a_long_outage_does_not_end_it() -> None:
    """Also where etcd has to be read or logged in to first."""
    event = {"result": {"events": [{"kv": NEWER}]}}
    unavailable = last({"error": "no leader", "code": 14}, "503 Service Unavailable")
    script = [look({}), last({"result": CANCELED}), *[unavailable] * 3]
    with ScriptedServer([*script, look(OURS), last(event)]) as server:
        store = EtcdDatastore([server.endpoint])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(etcd_client, "RETRY_SECONDS", 0.0)
            assert Entry("/a", "1", 7) == next(store.watch("/"))
        store.close()
