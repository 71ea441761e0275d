"""Our plugin as the IPAM plugin of Calico's own main plugin, with real pods on a real cluster.

The main plugin is alone: no Felix, no BIRD. It makes the pod's interface, the route to it on the
node and the pod's default route by itself, so pods of one node reach each other; what Felix would
add is policy, and routes to other nodes.
"""

from __future__ import annotations

import ipaddress
import shlex
import shutil
from typing import TYPE_CHECKING

import pytest

from integration.cluster.calico import (
    NODENAME_FILE,
    Mixed,
    calico_network,
    put_plugin,
    set_ready,
)
from integration.cluster.cluster import LAN
from integration.cluster.node import clear_records, custom_resources, put_pool, read_records
from integration.etcd.calico import CALICO_IPAM, with_calico
from integration.network import BUNDLE, ROOT, becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.cluster.cluster import Cluster

pytestmark = with_calico

OURS = BUNDLE / "calico-ipam"
POOLS = {"four": "10.60.0.0/26", "six": "fd00:60::/122"}
# Chosen by annotations alone.
CHOSEN = {"chosen-four": "10.61.0.0/28", "chosen-six": "fd00:61::/122"}
NAMED = {"named-four": "10.62.0.0/28"}
ACCOUNT = "without-pods"
NOT_READY = "Calico is currently not ready to process requests"
INSTALL = ROOT / "packaging" / "install.sh"


@pytest.fixture(scope="module")
def resources(cluster):
    """The API server with Calico's resources."""
    with custom_resources(cluster):
        yield


@pytest.fixture
def kubeconfig(cluster):
    """Of the administrator: the main plugin's, and so Calico's own calico-ipam's."""
    return cluster.kubeconfig()


@pytest.fixture
def calico(cluster, resources, kubeconfig) -> Iterator[Cluster]:
    """The cluster's network is Calico's, with both families; Calico's main plugin calls ours."""
    for name, cidr in POOLS.items():
        put_pool(cluster, name, cidr, blockSize=122 if ":" in cidr else 28)
    for name, cidr in (CHOSEN | NAMED).items():
        put_pool(cluster, name, cidr, blockSize=122 if ":" in cidr else 29, nodeSelector="!all()")
    set_ready(cluster, True)
    nodename = cluster.machine.path(NODENAME_FILE)
    nodename.parent.mkdir(parents=True, exist_ok=True)
    nodename.write_text("node1")
    # The node answers for a pod's gateway only if it has a route of its own there.
    cluster.machine.namespace.ip("route", "replace", "default", "via", "192.0.2.254", "dev", LAN)
    put_plugin(cluster, "calico", CALICO_IPAM)  # one program, which looks at its name
    cluster.install(calico_network(kubeconfig, assign_ipv4="true", assign_ipv6="true"))
    yield cluster
    set_ready(cluster, True)
    cluster.delete_pods()
    cluster.wait_unplugged()
    clear_records(cluster)
    (cluster.plugin_folder / "calico").unlink()
    shutil.rmtree(nodename.parent)
    cluster.machine.namespace.ip("route", "delete", "default")


def lies_in(address, cidr):
    """Whether an address is one of these."""
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def given(cluster):
    """Every address that is recorded."""
    return set(read_records(cluster).allocations)


def pods_of_ours(cluster):
    """The pods with addresses that ours gave: Calico's calico-ipam notes no interface."""
    owners = [owner for block in read_records(cluster).blocks for _, owner in block.allocated()]
    return {owner.get("pod") for owner in owners if owner.get("ifname") == "eth0"}


def test_pods_run_and_reach_each_other(calico, tmp_path):
    """With an address of each family, as recorded; neither calicoctl nor we find anything wrong,
    and nothing of ours is among the node's routes."""
    calico.start_pod("b")
    calico.run_pod("a")
    calico.wait_running("b")
    addresses = {name: calico.pod_ips(name) for name in ("a", "b")}
    for four, six in addresses.values():
        assert lies_in(four, POOLS["four"])
        assert lies_in(six, POOLS["six"])
    assert given(calico) == {address for pair in addresses.values() for address in pair}
    assert {"a", "b"} == pods_of_ours(calico)
    for address in addresses["b"]:
        assert calico.pings("a", address)
    assert "a" == calico.fetch("b", addresses["a"][0])

    routes = calico.machine.run("ip", "route", "show").stdout
    assert f"{addresses['a'][0]} dev cali" in routes  # the main plugin's
    assert "proto 85" not in routes
    assert "blackhole" not in routes
    records = read_records(calico)
    assert [] == records.findings
    said = Mixed(calico, tmp_path).calicoctl.say("ipam", "check")
    assert "Check complete; found 0 problems." in said

    calico.delete("pod", "a")
    assert becomes_true(lambda: given(calico) == set(addresses["b"]))


def test_annotations_come_by_the_main_plugin(calico, heard):
    """Pools of the pod over pools of the namespace over the network's; fixed addresses of both
    families by CNI_ARGS. Our account may read neither pods nor namespaces, so ours has not."""
    calico.create_namespace("ns", annotate(ipv4pools='["named-four"]'))
    both = annotate(ipv4pools='["chosen-four"]', ipv6pools=f'["{CHOSEN["chosen-six"]}"]')
    calico.start_pod("pod", namespace="ns", annotations=both)
    calico.start_pod("plain", namespace="ns")
    fixed = ["10.60.0.33", "fd00:60::33"]
    calico.start_pod("fixed", annotations=annotate(ipAddrs='["10.60.0.33", "fd00:60::33"]'))
    for name, namespace in (("pod", "ns"), ("plain", "ns"), ("fixed", "default")):
        calico.wait_running(name, namespace)
    four, six = calico.pod_ips("pod", "ns")
    assert lies_in(four, CHOSEN["chosen-four"])
    assert lies_in(six, CHOSEN["chosen-six"])
    four, six = calico.pod_ips("plain", "ns")
    assert lies_in(four, NAMED["named-four"])
    assert lies_in(six, POOLS["six"])
    assert fixed == calico.pod_ips("fixed")
    assert calico.pings("fixed", four)
    assert '"ipv4_pools":["chosen-four"]' in heard.read_text()
    assert [] == read_records(calico).findings


def annotate(**wishes):
    return {f"cni.projectcalico.org/{name}": value for name, value in wishes.items()}


def role_without_pods(cluster):
    """An account with the role of conf/rbac.yaml, but for pods and namespaces."""
    role = cluster.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/cni-ipam")
    denied = {"pods", "namespaces"}
    rules = [rule for rule in role["rules"] if not denied & set(rule["resources"])]
    assert len(role["rules"]) == len(rules) + len(denied)
    group = "rbac.authorization.k8s.io"
    account = {"name": ACCOUNT, "namespace": "kube-system"}
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": ACCOUNT}
    described = {"apiVersion": f"{group}/v1", "metadata": {"name": ACCOUNT}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {**described, "kind": "ClusterRole", "rules": rules},
        {
            **described,
            "kind": "ClusterRoleBinding",
            "roleRef": reference,
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    ]


@pytest.fixture
def heard(calico) -> Iterator[Path]:
    """Ours is handed the main plugin's netconf with another account's kubeconfig, which may read
    neither pods nor namespaces; the file that has what it was handed."""
    documents = role_without_pods(calico)
    for document in documents:
        calico.create(document)
    kubeconfig = calico.kubeconfig(f"system:serviceaccount:kube-system:{ACCOUNT}")
    heard = calico.machine.path("/var/lib/calico/heard")
    script = calico.plugin_folder / "calico-ipam.sh"
    edit = shlex.quote(f's#"kubeconfig":"[^"]*"#"kubeconfig":"{kubeconfig}"#')
    script.write_text(f"#!/bin/sh\nsed {edit} | tee -a /var/lib/calico/heard | {OURS}\n")
    script.chmod(0o755)
    put_plugin(calico, "calico-ipam", "calico-ipam.sh")
    yield heard
    calico.delete_pods()
    calico.wait_unplugged()
    script.unlink()
    for document in documents:
        metadata = document["metadata"]
        calico.delete(document["kind"], metadata["name"], metadata.get("namespace", "default"))
    assert str(kubeconfig) in heard.read_text()


def test_a_node_changes_over_in_place_and_back(calico, tmp_path):
    """With install.sh, as the installation does: pods that Calico's calico-ipam gave addresses live
    on and are deleted under ours, and the other way round; nothing is left over."""
    # As Calico's installer leaves it: a file.
    place = calico.plugin_folder / "calico-ipam"
    place.unlink()
    shutil.copy(CALICO_IPAM, place)
    theirs = calico.run_pod("theirs")

    calico.machine.run("bash", str(INSTALL), "install-drop-in")
    assert place.is_symlink()
    ours = calico.run_pod("ours")
    assert calico.pings("ours", theirs)
    assert {"ours"} == pods_of_ours(calico)
    assert 1 == len([block for block in read_records(calico).blocks if block.cidr.version == 4])
    left = set(calico.pod_ips("ours"))
    calico.delete("pod", "theirs")
    assert becomes_true(lambda: given(calico) == left)

    calico.machine.run("bash", str(INSTALL), "uninstall")
    assert CALICO_IPAM.read_bytes() == place.read_bytes()
    calico.run_pod("again")
    assert calico.pings("again", ours)
    assert {"ours"} == pods_of_ours(calico)
    calico.delete("pod", "ours")
    assert becomes_true(lambda: given(calico) == set(calico.pod_ips("again")))
    records = read_records(calico)
    assert [] == records.findings
    said = Mixed(calico, tmp_path).calicoctl.say("ipam", "check")
    assert "Check complete; found 0 problems." in said


def test_no_pod_starts_while_the_datastore_is_locked(calico):
    """The main plugin says so, before it asks ours; once unlocked, the pod starts by itself."""
    set_ready(calico, False)
    calico.start_pod("waits")
    assert becomes_true(lambda: any(NOT_READY in event for event in calico.events("waits")))
    assert set() == given(calico)
    set_ready(calico, True)
    calico.wait_running("waits")
    assert set(calico.pod_ips("waits")) == given(calico)
