"""The plugin on one node of a cluster that shares etcd, and what lies in etcd before it runs.

    put_pool(etcd, "pool", "10.77.0.0/24", blockSize=26)
    put_node(etcd, "node1")
    node = EtcdNode(tmp_path, etcd.endpoints)
    assert "10.77.0" in node.call("ADD", "c1").address
    assert [] == read_records(etcd).findings

Nodes are processes with another node name and another lock; none of them makes routes.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.lean.http import Credentials, parse_endpoint
from integration.etcd.servers import encode
from integration.network import Records
from integration.program import NODE, SharedNode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from integration.etcd.servers import Cluster

    Json = dict[str, Any]

RESOURCES = "/calico/resources/v3/projectcalico.org"


class EtcdNode(SharedNode):
    """The plugin `name` on the node `node`, which reaches etcd at `endpoints`.

    `settings` are further keys of its netconfs, such as those of certificates."""

    def __init__(
        self,
        folder: Path,
        endpoints: Sequence[str],
        node: str = NODE,
        *,
        name: str = "cni-ipam",
        wrapper: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        settings = {"etcd_endpoints": ",".join(endpoints), **settings}
        super().__init__(folder, node, settings, wrapper=wrapper, name=name)


def put(cluster: Cluster, key: str, value: Json | str) -> None:
    """Store a value as it is, or an object as compact JSON, without the product."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    cluster.administer("/v3/kv/put", {"key": encode(key), "value": encode(text)})


def put_pool(cluster: Cluster, name: str, cidr: str, **spec: Any) -> None:
    """An IPPool as calicoctl writes it; `spec` goes over the defaults."""
    defaults = {
        "cidr": cidr,
        "vxlanMode": "Never",
        "ipipMode": "Always",
        "natOutgoing": True,
        "blockSize": 122 if ":" in cidr else 26,
        "nodeSelector": "all()",
        "allowedUses": ["Workload", "Tunnel"],
        "assignmentMode": "Automatic",
    }
    put(cluster, f"{RESOURCES}/ippools/{name}", _resource("IPPool", name, defaults | spec))


def put_node(cluster: Cluster, name: str, **labels: str) -> None:
    """A Node as calicoctl writes it."""
    node = _resource("Node", name, {})
    if labels:
        node["metadata"]["labels"] = labels
    put(cluster, f"{RESOURCES}/nodes/{name}", node | {"status": {}})


def open_store(cluster: Cluster) -> EtcdDatastore:
    """A client of the product's, as root if users are on; the caller closes it."""
    tls = cluster.tls
    credentials = (
        Credentials(str(tls.ca), str(tls.client.cert), str(tls.client.key))
        if tls
        else Credentials()
    )
    user = cluster.root or ("", "")
    return EtcdDatastore(
        [parse_endpoint(url) for url in cluster.endpoints], credentials, user[0], user[1]
    )


def read_records(cluster: Cluster) -> Records:
    """Every record, as the product reads it where the members can be reached."""

    def read() -> Records:
        store = open_store(cluster)
        try:
            return Records(store)
        finally:
            store.close()

    return cluster.call(read)


def _resource(kind: str, name: str, spec: Json) -> Json:
    return {
        "kind": kind,
        "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": name,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": "2026-11-21T10:26:22Z",
        },
        "spec": spec,
    }
