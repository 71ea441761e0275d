"""What passed the proxy: a request to etcd's JSON gateway, decoded when somebody asks."""

from __future__ import annotations

import base64
import json
import re
import time
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


class Compare(NamedTuple):
    """One condition of a transaction: `target` MOD, VERSION, CREATE or VALUE."""

    key: str
    target: str
    result: str
    value: int | str


class Operation(NamedTuple):
    """One step of a transaction, or a request by itself: `kind` is range, put or delete."""

    kind: str
    key: str
    range_end: str | None = None
    value: str | None = None


class Written(NamedTuple):
    """A value that lay under `key` since `revision`; None if the key was deleted then."""

    key: str
    value: str | None
    revision: int


class Exchange:
    """A request, and what became of it.

    `outcome` is "pending", "answered" (the server's answer was read in full, whether or not the
    client got it), "not forwarded", or "lost" (the server closed before its answer ended).
    """

    def __init__(self, number: int, connection: int, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        self.number = number
        self.connection = connection
        self.method = method
        self.path = path
        self.body = body
        self.started_at = time.monotonic()
        self.outcome = "pending"
        self.is_held = False
        self.status = 0
        self.answer = b""

    def __repr__(self) -> str:
        place = f"{self.connection}.{self.number}"
        return f"<{place} {self.method} {self.path} {self.status} {self.outcome}>"

    @property
    def is_stream(self) -> bool:
        """Whether the answer goes on until somebody closes."""
        return self.path == "/v3/watch"

    @cached_property
    def document(self) -> Json:
        """The request's JSON as it was sent, keys and values in base64."""
        document: Json = json.loads(self.body or b"{}")
        return document

    @property
    def compares(self) -> list[Compare]:
        """The conditions of a transaction."""
        return [_compare(found) for found in self.document.get("compare", [])]

    @property
    def operations(self) -> list[Operation]:
        """What is done; in a transaction, if its conditions hold."""
        if self.path == "/v3/kv/txn":
            return [_operation(found) for found in self.document.get("success", [])]
        kind = _KINDS.get(self.path.removeprefix("/v3/kv/"))
        return [_step(kind, self.document)] if kind else []

    @property
    def alternatives(self) -> list[Operation]:
        """What a transaction does if its conditions do not hold."""
        return [_operation(found) for found in self.document.get("failure", [])]

    @property
    def succeeded(self) -> bool | None:
        """Whether the server did it (a transaction: its conditions held); None if nobody knows."""
        if self.outcome != "answered":
            return False if self.outcome == "not forwarded" else None
        if self.status != 200 or self.path != "/v3/kv/txn":
            return self.status == 200
        return b'"succeeded":true' in self.answer.partition(b'"responses"')[0]

    @property
    def revision(self) -> int:
        """The store's revision after it, as the answer's header says."""
        found = re.search(rb'"revision":"(\d+)"', self.answer.partition(b"}")[0])
        return int(found[1]) if found else 0

    @property
    def writes(self) -> list[Written]:
        """What it is known to have written; a deletion of a whole range names the range's key."""
        if self.outcome != "answered" or self.status != 200:
            return []
        if b"ut" not in self.body and b"elete" not in self.body and "/kv/txn" in self.path:
            return []  # neither requestPut nor requestDeleteRange: not worth decoding
        done = self.operations if self.succeeded else self.alternatives
        return [Written(o.key, o.value, self.revision) for o in done if o.kind != "range"]


_KINDS = {"range": "range", "put": "put", "deleterange": "delete"}
_STEPS = (("Range", "range"), ("Put", "put"), ("DeleteRange", "delete"))


def _text(fields: Json, name: str) -> str:
    return base64.b64decode(fields.get(name) or "").decode("utf-8", "surrogateescape")


def _get(fields: Json, camel: str) -> Any:
    """A field, which the gateway takes in either spelling."""
    snake = re.sub("[A-Z]", lambda found: "_" + found[0].lower(), camel)
    return fields.get(camel, fields.get(snake))


def _compare(found: Json) -> Compare:
    target, result = found.get("target", "VERSION"), found.get("result", "EQUAL")
    if target == "VALUE":
        return Compare(_text(found, "key"), target, result, _text(found, "value"))
    name = "version" if target == "VERSION" else f"{target.lower()}Revision"
    return Compare(_text(found, "key"), target, result, int(_get(found, name) or 0))


def _operation(found: Json) -> Operation:
    for name, kind in _STEPS:
        fields = _get(found, f"request{name}")
        if fields is not None:
            return _step(kind, fields)
    raise ValueError(f"not an operation that is known here: {list(found)}")


def _step(kind: str, fields: Json) -> Operation:
    end = _get(fields, "rangeEnd")
    range_end = base64.b64decode(end).decode("utf-8", "surrogateescape") if end else None
    value = _text(fields, "value") if kind == "put" else None
    return Operation(kind, _text(fields, "key"), range_end, value)
