"""The Go `calico-ipam` as a contestant: what it needs in its etcd, by etcd's JSON gateway."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import urllib.request
from typing import TYPE_CHECKING

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import codec, keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]

NODE = "cni-ipam-bench"
POOL = "cni-ipam-bench"
PATIENCE_SECONDS = 5


@contextlib.contextmanager
def prepared_etcd(endpoints: str, cidr: str, network: str) -> Iterator[None]:
    """A node and a pool of the bench's own are in etcd inside; afterwards nothing of it is.

    Raises OSError where no etcd answers."""
    gateway = endpoints.partition(",")[0].rstrip("/")
    if not _call(gateway, "range", key=keys.CLUSTER_INFORMATION).get("kvs"):
        _put(gateway, keys.CLUSTER_INFORMATION, "ClusterInformation", {"datastoreReady": True})
    _put(gateway, keys.NODES + NODE, "Node", {})
    _put(gateway, keys.POOLS + POOL, "IPPool", {"cidr": cidr, "ipipMode": "Never"})
    try:
        yield
    finally:
        first = str(parse_cidr(cidr)).rpartition(".0.0/")[0]
        for prefix in (
            keys.POOLS + POOL,
            keys.NODES + NODE,
            f"{keys.HOST_AFFINITIES}{NODE}/",
            f"{keys.HANDLES}{network}.",
            f"{keys.blocks_prefix(4)}{first}.",
        ):
            _call(
                gateway, "deleterange", key=prefix, range_end=prefix[:-1] + chr(ord(prefix[-1]) + 1)
            )


def _put(gateway: str, key: str, kind: str, spec: Json) -> None:
    value = codec.new_resource(kind, keys.last_part(key), spec, time.time_ns(), bytes(16))
    _call(gateway, "put", key=key, value=value)


def _call(gateway: str, verb: str, **texts: str) -> Json:
    fields = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    request = urllib.request.Request(f"{gateway}/v3/kv/{verb}", json.dumps(fields).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        answer: Json = json.load(response)
    return answer
