"""A plain HTTP client of etcd's JSON gateway, whose connection lasts and can be cut."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

from integration.etcd.gateway import decode, encode

if TYPE_CHECKING:
    from typing import Any

    from integration.etcd.servers import Cluster

    Json = dict[str, Any]

SECONDS = 30
RANGE = "/v3/kv/range"
TXN = "/v3/kv/txn"


class Client(http.client.HTTPConnection):
    """A connection that speaks to the JSON gateway."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint.removeprefix("http://"), timeout=SECONDS)

    def send_request(self, path: str, document: Json) -> None:
        self.request("POST", path, json.dumps(document))

    def call(self, path: str, document: Json) -> Json:
        self.send_request(path, document)
        answer: Json = json.loads(self.getresponse().read())
        return answer

    def put(self, key: str, value: str) -> None:
        self.call("/v3/kv/put", {"key": encode(key), "value": encode(value)})

    def get(self, key: str) -> str | None:
        found = self.call(RANGE, {"key": encode(key)}).get("kvs", [])
        return decode(found[0].get("value", "")) if found else None


def create(key: str, value: str) -> Json:
    """A transaction that makes a key which must not exist."""
    return {
        "compare": [{"key": encode(key), "target": "MOD", "result": "EQUAL", "modRevision": "0"}],
        "success": [{"requestPut": {"key": encode(key), "value": encode(value)}}],
        "failure": [{"requestRange": {"key": encode(key)}}],
    }


def read_past(etcd: Cluster, key: str) -> str | None:
    """The value that etcd itself has."""
    client = Client(etcd.endpoints[0])
    try:
        return client.get(key)
    finally:
        client.close()
