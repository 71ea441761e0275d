"""The plugin called by hand on a node whose datastore is the cluster's API server, and what lies
there before it runs.

    with custom_resources(cluster):
        put_pool(cluster, "pool", "10.77.0.0/24", blockSize=29)
        node = ApiNode(tmp_path, cluster, cluster.kubeconfig(ACCOUNT))
        assert "10.77.0" in node.call("ADD", "c1").address
        assert [] == read_records(cluster).findings

Nodes are processes with another node name and another lock, in the machine's network; none of them
makes routes. No pods are needed, nor the kubelet.
"""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING

import yaml

from cni_ipam.cni.kubernetes_settings import KubernetesSettings, parse_api_server
from cni_ipam.datastore.kubernetes import KubernetesDatastore
from cni_ipam.datastore.kubernetes_client import KubernetesClient
from cni_ipam.lean.http import Credentials
from integration.cluster.authority import ADMIN
from integration.network import ROOT, Records, becomes_true
from integration.program import NODE, SharedNode, inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from integration.cluster.cluster import Cluster
    from integration.network import Done

    Json = dict[str, Any]

ACCOUNT = "system:serviceaccount:kube-system:cni-ipam"
CONF = ROOT / "conf"
GROUP = "/apis/crd.projectcalico.org/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RECORDS = ("ipamblocks", "blockaffinities", "ipamhandles")
SET = (
    *("ippools", "ipreservations", "ipamconfigs", "clusterinformations"),
    *("bgppeers", "bgpconfigurations"),
)
# As kubectl knows them.
NAMES = [f"{plural}.crd.projectcalico.org" for plural in (*SET, *RECORDS)]


@contextlib.contextmanager
def custom_resources(cluster: Cluster, *manifests: str) -> Iterator[None]:
    """Within the block the API server has Calico's resources, the roles of conf/rbac.yaml, and
    what else of conf is named."""
    files = [str(CONF / name) for name in ("crds", "rbac.yaml", *manifests)]
    texts = [(CONF / name).read_text() for name in ("rbac.yaml", *manifests)]
    for file in files:
        cluster.kubectl("apply", "-f", file)
    wait_served(cluster)
    wait_heeded(cluster, *texts)
    try:
        yield
    finally:
        for file in reversed(files):
            cluster.kubectl("delete", "-f", file)


def wait_served(cluster: Cluster, names: Iterable[str] = NAMES) -> None:
    """Wait until the API server serves these resources, and kubectl knows them, both of which come
    a moment after their definitions are established."""
    done: list[Done] = []

    def look() -> bool:
        done[:] = [cluster.kubectl("get", ",".join(names), check=False)]
        return done[0].returncode == 0

    assert becomes_true(look), done[0].stderr


def wait_heeded(cluster: Cluster, *manifests: str) -> None:
    """Wait until the API server goes by the roles of these manifests and their bindings, which it
    does a moment after it has taken them."""
    found = [one for text in manifests for one in yaml.safe_load_all(text)]
    rules = {
        (one["kind"], one["metadata"]["name"]): one["rules"] for one in found if "rules" in one
    }
    for binding in (one for one in found if "roleRef" in one):
        (subject,) = binding["subjects"]
        account = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
        for rule in rules[binding["roleRef"]["kind"], binding["roleRef"]["name"]]:
            resource, _, subresource = rule["resources"][0].partition("/")
            asked = {
                "namespace": binding["metadata"].get("namespace", ""),
                "group": rule["apiGroups"][0],
                "resource": resource,
                "subresource": subresource,
                "verb": rule["verbs"][-1],
                "name": rule.get("resourceNames", [""])[0],
            }
            wait_allowed(cluster, account, asked)


def wait_allowed(cluster: Cluster, account: str, asked: Json, *, is_granted: bool = True) -> None:
    """Wait until the API server allows an account what is asked, or no longer does."""
    review = {
        "kind": "SubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"user": account, "resourceAttributes": asked},
    }

    def is_heeded() -> bool:
        return is_granted == create(cluster, REVIEWS, review)["status"]["allowed"]

    assert becomes_true(is_heeded), f"{account} is granted {asked}: not {is_granted}"


class ApiNode(SharedNode):
    """The plugin `name` on the node `node`, which reaches the API server by `kubeconfig`.

    `settings` are further keys of its netconfs."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        kubeconfig: Path | str,
        node: str = NODE,
        *,
        name: str = "cni-ipam",
        **settings: Any,
    ) -> None:
        settings = {
            "datastore_type": "kubernetes",
            "kubernetes": {"kubeconfig": str(kubeconfig)},
            **settings,
        }
        wrapper = inside(cluster.machine.namespace)
        super().__init__(folder, node, settings, wrapper=wrapper, name=name)


def put_pool(cluster: Cluster, name: str, cidr: str, **spec: Any) -> None:
    """A pool that gives addresses to pods; `spec` goes over the defaults."""
    defaults = {"cidr": cidr, "blockSize": 122 if ":" in cidr else 26, "nodeSelector": "all()"}
    put(cluster, "ippools", name, defaults | spec)


@contextlib.contextmanager
def second_node(cluster: Cluster, name: str, **labels: str) -> Iterator[None]:
    """Within the block there is a Node that no kubelet serves."""
    body = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}
    create(cluster, "/api/v1/nodes", body)
    try:
        yield
    finally:
        cluster.request("DELETE", f"/api/v1/nodes/{name}")


def put(cluster: Cluster, plural: str, name: str, spec: Json) -> None:
    """One of Calico's resources, which was not there."""
    kinds = {
        "ippools": "IPPool",
        "ipreservations": "IPReservation",
        "ipamconfigs": "IPAMConfig",
        "clusterinformations": "ClusterInformation",
        "bgppeers": "BGPPeer",
    }
    body = {"kind": kinds[plural], "metadata": {"name": name}, "spec": spec}
    create(cluster, f"{GROUP}/{plural}", body | {"apiVersion": GROUP.removeprefix("/apis/")})


def create(cluster: Cluster, path: str, body: Json) -> Json:
    """Any object, as the API server has it then."""
    status, answer = cluster.request("POST", path, body)
    assert status == http.client.CREATED, answer
    return answer


def serves(cluster: Cluster, token: str) -> bool:
    """Whether the API server lets the token's account read pools."""
    return cluster.request("GET", f"{GROUP}/ippools", token=token)[0] == http.client.OK


def wait_until_expired(cluster: Cluster, token: str) -> None:
    """The API server refuses the token afterwards."""
    assert becomes_true(lambda: not serves(cluster, token), 90), "the token does not expire"


def clear_records(cluster: Cluster) -> None:
    """Neither pools nor records are left, nor anything else of Calico's."""
    for plural in (*SET, *RECORDS):
        status, answer = cluster.request("DELETE", f"{GROUP}/{plural}")
        assert status in {http.client.OK, http.client.NOT_FOUND}, answer


def open_store(cluster: Cluster) -> KubernetesDatastore:
    """A client of the product's, as the administrator; the caller closes it, and uses it in the
    machine's network."""
    settings = KubernetesSettings(
        parse_api_server(cluster.server),
        Credentials(ca_file=str(cluster.ca)),
        cluster.token(ADMIN),
        origin="the test",
    )
    return KubernetesDatastore(KubernetesClient(settings))


def read_records(cluster: Cluster) -> Records:
    """Every record, as the product reads it."""
    with cluster.machine.network(), contextlib.closing(open_store(cluster)) as store:
        return Records(store)


class Snapshot:
    """Every record of the allocations, to come back to."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._wanted = self._list()
        self._versions = {path: _version(found) for path, found in self._wanted.items()}

    def restore(self) -> None:
        """The records are as they were; their revisions may be new."""
        kept = set()
        for path, found in self._list().items():
            if self._versions.get(path) == _version(found):
                kept.add(path)
            else:
                self._cluster.request("DELETE", path)
        for path in self._wanted.keys() - kept:
            found = self._wanted[path]
            names = ("name", "labels", "annotations")
            metadata = {name: found["metadata"].get(name) for name in names}
            made = create(self._cluster, path.rpartition("/")[0], found | {"metadata": metadata})
            self._versions[path] = _version(made)

    def _list(self) -> dict[str, Json]:
        found = {}
        for plural in RECORDS:
            listed = self._cluster.get(f"{GROUP}/{plural}")
            about = {
                "kind": listed["kind"].removesuffix("List"),
                "apiVersion": listed["apiVersion"],
            }
            for item in listed["items"]:
                found[f"{GROUP}/{plural}/{item['metadata']['name']}"] = item | about
        return found


def _version(found: Json) -> str:
    version: str = found["metadata"]["resourceVersion"]
    return version
