"""Our network on a cluster, with what conf/daemonset.yaml leaves on a node, but without it.

    install_network(cluster)                       # conf/30-kubernetes.conflist, as it stands
    put_pool(cluster, "pool", "10.77.0.0/24")
    cluster.run_pod("a")
    assert [cluster.pod_ip("a")] == find_pod_addresses(read_records(cluster))

The plugin is the service account of conf/rbac.yaml. Fixtures, for the modules that import them:
`granted`, a cluster with custom resources and roles, and `ready`, which has our network and no
records afterwards.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.cluster.node import ACCOUNT, CONF, clear_records, custom_resources
from integration.cluster.pods import NODE
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from integration.cluster.cluster import Cluster
    from integration.network import Records

    Json = dict[str, Any]

KUBECONFIG = "/etc/cni/net.d/cni-ipam-kubeconfig"
NODENAME_FILE = "/var/lib/cni-ipam/nodename"
ANNOTATION = "cni.projectcalico.org/"


@pytest.fixture(scope="module")
def granted(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the custom resources and the roles."""
    with custom_resources(cluster):
        yield cluster


@pytest.fixture
def ready(granted: Cluster) -> Iterator[Cluster]:
    """The same with our network; neither pods nor records are left of the test."""
    install_network(granted)
    yield granted
    granted.delete_pods()
    granted.wait_unplugged()
    clear_records(granted)


def read_network() -> Json:
    """The network list of conf/."""
    found: Json = json.loads((CONF / "30-kubernetes.conflist").read_text())
    return found


def install_network(cluster: Cluster, network: Json | None = None) -> None:
    """Make `network` the node's, by default that of conf/, with the files that it names."""
    cluster.install(network or read_network())
    file = cluster.machine.path(NODENAME_FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(NODE)
    kubeconfig = cluster.kubeconfig("cni-ipam", token=cluster.token(ACCOUNT))
    cluster.machine.path(KUBECONFIG).write_bytes(kubeconfig.read_bytes())


def ask_for(**annotations: list[str]) -> dict[str, str]:
    """Annotations as an operator writes them."""
    return {ANNOTATION + kind: json.dumps(names) for kind, names in annotations.items()}


def find_pod_addresses(records: Records) -> list[str]:
    """The addresses that pods have."""
    return sorted(records.allocations)


def becomes_empty(read: Callable[[], Records]) -> bool:
    """Whether all that pods had is given back, and the records agree with each other."""

    def is_empty() -> bool:
        found = read()
        return not found.handles and not found.allocations and not found.findings

    return becomes_true(is_empty)
