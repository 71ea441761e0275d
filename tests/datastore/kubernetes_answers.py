"""An API server's answers for scripts, and what a client does with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni_ipam.cni.kubernetes_settings import ApiServer, KubernetesSettings
from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes import KubernetesDatastore
from cni_ipam.datastore.kubernetes_client import KubernetesClient
from cni_ipam.datastore.port import ABSENT, Entry, Range, Write
from cni_ipam.errors import (
    CniIpamError,
    Conflict,
)
from tests.lean.servers import ScriptedServer, answer

GROUP = "crd.projectcalico.org/v1"
PATH = f"/apis/{GROUP}/ipamhandles"
NAMED = f"{PATH}/net.c1"
KEY = keys.HANDLES + "net.c1"
OURS = '{"block":{"10.0.0.0/30":1},"deleted":false}'
THEIRS = '{"block":{"10.0.0.0/30":2},"deleted":false}'
READ = [Range(KEY)]
LISTED = [Range(keys.HANDLES, prefix=True)]
CREATE = Write(KEY, OURS, ABSENT)
UPDATE = Write(KEY, OURS, 5)
REMOVE = Write(KEY, None, 5)
SECRET = "s3cret-token"
PAGE = "<html>\r\n<h1>Welcome</h1>\x1b[31m"


def ok(document: dict[str, Any], status: str = "200 OK") -> bytes:
    return answer(json.dumps(document).encode(), status)


def handle(value: str = OURS, revision: int = 6, handle_id: str = "net.c1", **spec: Any) -> bytes:
    """The object of the handle."""
    metadata = {"name": handle_id.lower(), "uid": "u1", "resourceVersion": str(revision)}
    document = {"kind": "IPAMHandle", "apiVersion": GROUP, "metadata": metadata}
    return ok({**document, "spec": {"handleID": handle_id, **json.loads(value), **spec}})


def status(code: str, reason: str = "", message: str = "no") -> bytes:
    """The answer to what was refused."""
    said = {"kind": "Status", "status": "Failure", "reason": reason, "message": message}
    return ok({**said, "code": int(code[:3])}, code)


def listed(*names: str, following: str = "", revision: int = 9) -> bytes:
    """A page of handles."""
    metadata = {"resourceVersion": str(revision), "continue": following}
    items = [json.loads(handle(handle_id=name).partition(b"\r\n\r\n")[2]) for name in names]
    return ok({"kind": "IPAMHandleList", "metadata": metadata, "items": items})


DONE = ok({"kind": "Status", "status": "Success"})
NOT_FOUND = status("404 Not Found", "NotFound", 'ipamhandles "net.c1" not found')
NO_SUCH_PATH = answer(b"404 page not found\n", "404 Not Found")
TAKEN = status("409 Conflict", "AlreadyExists", "it already exists")
CHANGED = status("409 Conflict", "Conflict", "the object has been modified")
OUTDATED = status("410 Gone", "Expired", "the continue token is too old")
FORBIDDEN = status("403 Forbidden", "Forbidden", 'User "x" cannot get resource')
UNKNOWN = status("401 Unauthorized", "Unauthorized", "Unauthorized")
INVALID = status("422 Unprocessable Entity", "Invalid", "spec.block: Required value")
TIMED_OUT = status("504 Gateway Timeout", "Timeout", "etcdserver: request timed out")
GROUP_LIST = ok({"kind": "APIResourceList", "resources": []})


def busy(seconds: str) -> bytes:
    body = b'{"kind":"Status","message":"too many requests"}'
    return answer(body, "429 Too Many Requests", f"Retry-After: {seconds}")


def open_client(server: ScriptedServer, *, path: str = "", **options: Any) -> KubernetesClient:
    budget = {name: options.pop(name) for name in list(options) if name in BUDGET}
    where = ApiServer("http", server.endpoint.host, server.endpoint.port, path)
    access = KubernetesSettings(where, **{"token": SECRET, "origin": "the test", **options})
    return KubernetesClient(access, **budget)


BUDGET = ("budget_seconds", "is_short_lived")


def open_store(server: ScriptedServer, group: str = "", **options: Any) -> KubernetesDatastore:
    return KubernetesDatastore(open_client(server, **options), group)


def asked(server: ScriptedServer) -> list[str]:
    """Method and path of every request."""
    return [request.decode().partition(" HTTP/")[0] for request in server.requests]


def read(
    *script: bytes, wanted: list[Range] = READ, **options: Any
) -> tuple[list[Entry], list[str]]:
    with ScriptedServer(script) as server:
        store = open_store(server, **options)
        (entries,) = store.read(wanted)
        store.close()
    return entries, asked(server)


def fail_to_read(*script: bytes, wanted: list[Range] = READ, **options: Any) -> CniIpamError:
    with ScriptedServer(script) as server:
        store = open_store(server, **options)
        with pytest.raises(CniIpamError) as caught:
            store.read(wanted)
        store.close()
    return caught.value


def commit(write: Write, *script: bytes) -> list[str]:
    """What a successful commit asks for."""
    with ScriptedServer(script) as server:
        store = open_store(server)
        store.commit([write])
        store.close()
    return asked(server)


def fail_to_commit(write: Write, *script: bytes) -> tuple[Exception, list[str]]:
    with ScriptedServer(script) as server:
        store = open_store(server)
        with pytest.raises((CniIpamError, Conflict)) as caught:
            store.commit([write])
        store.close()
    return caught.value, asked(server)


def event(kind: str, document: bytes) -> bytes:
    return json.dumps(
        {"type": kind, "object": json.loads(document.partition(b"\r\n\r\n")[2])}
    ).encode()


def closing(step: bytes) -> bytes:
    """The same, and the connection ends: the server serves one at a time."""
    return step.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
