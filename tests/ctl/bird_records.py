"""Records for BIRD: what an operator writes, and a world of two nodes and two pools."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from cni_ipam.routes.plan import RouteSettings

if TYPE_CHECKING:
    from tests.ctl.conftest import Operator, Result

API = "projectcalico.org/v3"
POOLS = [
    {"name": "default-ipv4-ippool", "cidr": "100.96.0.0/11", "disableBGPExport": True},
    {"name": "external-pool", "cidr": "198.19.24.0/21", "blockSize": 29},
]
OWN = "198.19.24.184/29"
OURS = RouteSettings(host=True, blackhole=True)


def resource(kind: str, name: str, **spec) -> dict:
    """A resource as an operator writes it."""
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def make_world(operator: Operator) -> Operator:
    """Two nodes with addresses, a hidden and an exported pool, a block of each on node1."""
    nodes = [resource("Node", f"node{n}", bgp={"ipv4Address": f"172.20.58.{n}/19"}) for n in (1, 2)]
    pools = [
        resource("IPPool", pool["name"], **{k: v for k, v in pool.items() if k != "name"})
        for pool in POOLS
    ]
    give(operator, *nodes, *pools)
    operator.claim("100.106.133.192/26")
    operator.claim(OWN)
    operator.claim("198.19.24.192/29", "node2")
    return operator


def give(operator: Operator, *resources: dict) -> None:
    """Apply resources."""
    result = operator.types("apply", "-f", "-", stdin=json.dumps(resources))
    assert result.status == 0, result.err


def config(operator: Operator, node: str = "node1", *words: str) -> Result:
    """The result of `routes bird-config`."""
    return operator.types("routes", "bird-config", "--node", node, *words)


def write_network(operator: Operator, name: str = "net", *, kind: str = "ptp", **routes) -> None:
    """A network of node1 with these settings of its routes."""
    folder = operator.folder / "net.d"
    folder.mkdir(exist_ok=True)
    ipam = {"type": "cni-ipam", "routes": routes, "nodename": "node1"}
    network = {"cniVersion": "1.0.0", "name": name, "type": kind, "ipam": ipam}
    (folder / f"10-{name}.conf").write_text(json.dumps(network))


def neighbors(text: str) -> list[str]:
    """The addresses with which BIRD has sessions."""
    return sorted(re.findall(r"neighbor (\S+)", text))
