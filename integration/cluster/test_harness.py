"""The cluster itself: with the reference plugins first, so that what fails later is ours."""

from __future__ import annotations

import http.client
import ipaddress
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.cluster.cluster import REFERENCE_NETWORK, Cluster, find_cluster_obstacle
from integration.cluster.machine import PREFIX, Machine, find_cgroups
from integration.cluster.pods import NODE
from integration.network import ROOT, becomes_true, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBNET = ipaddress.ip_network("10.99.0.0/24")
POOL = ipaddress.ip_network("10.244.0.0/16")
OURS = {
    "cniVersion": "1.1.0",
    "name": "ours",
    "plugins": [
        {
            "type": "ptp",
            "ipam": {
                "type": "cni-ipam",
                "default_pools": [{"name": "default", "spec": {"cidr": str(POOL)}}],
            },
        },
        {"type": "cni-ipam"},
    ],
}
READER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-reader}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-reader}
subjects:
- {kind: User, name: plugin, apiGroup: rbac.authorization.k8s.io}
- {kind: ServiceAccount, name: default, namespace: default}
"""
USER_NAME = "jsonpath={.status.userInfo.username}"
ACCOUNT = "system:serviceaccount:default:default"
PODS = "/api/v1/namespaces/default/pods"
DAEMON_SET = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: "cni-ipam.test/busybox:1", imagePullPolicy: Never}]
"""
LASTING_MACHINE = """
import sys, time
from pathlib import Path
from integration.cluster.machine import Machine
with Machine("doomed", Path(sys.argv[1])) as machine:
    print(machine.start("sleep", ["sleep", "1000"]).pid, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def reader(cluster: Cluster) -> Iterator[None]:
    """The user `plugin`, and the default service account, may read pods and nothing else."""
    cluster.create(READER)
    token = cluster.token(ACCOUNT)
    assert becomes_true(lambda: cluster.request("GET", PODS, token=token)[0] == http.client.OK)
    yield
    cluster.kubectl("delete", "-f", "-", stdin=READER)


def read_version(server: str, ca: Path, seconds: float = 10) -> str:
    context = ssl.create_default_context(cafile=str(ca))
    with urllib.request.urlopen(f"{server}/version", context=context, timeout=seconds) as answer:
        return answer.read().decode()


def list_traces(cluster: Cluster) -> list[str]:
    """What pods leave while they are there: interfaces, namespaces, plugins' results, tasks."""
    links = (link["ifname"] for link in cluster.machine.namespace.ip_json("link"))
    namespaces = cluster.machine.path("/run/netns").iterdir()
    results = cluster.machine.path("/var/lib/cni").glob("results/*")
    addresses = cluster.machine.path("/var/lib/cni").glob("networks/reference/10.*")
    tasks = cluster.ctr("tasks", "list", "--quiet").stdout.split()
    return [
        *(link for link in links if link not in {"lo", "lan0"}),
        *(path.name for path in (*namespaces, *results, *addresses)),
        *tasks,
    ]


def wait_for_no_trace(cluster: Cluster) -> None:
    """Wait until nothing is left of the test before: a namespace's end takes its interfaces a
    moment later."""
    assert becomes_true(lambda: [] == list_traces(cluster)), list_traces(cluster)


def test_a_pod_runs_with_an_address_of_its_network(cluster):
    """kubelet, containerd, ptp, host-local: the status says what host-local gave."""
    address = cluster.run_pod("a")
    assert ipaddress.ip_address(address) in SUBNET
    assert [address] == cluster.pod_ips("a")
    assert address in cluster.exec("a", "ip", "-4", "address", "show", "eth0").stdout


def test_pods_reach_each_other(cluster):
    """By ping, and by HTTP: each says its own name."""
    first, second = cluster.run_pod("first"), cluster.run_pod("second")
    assert cluster.pings("first", second)
    assert "second" == cluster.fetch("first", second)
    assert "first" == cluster.fetch("second", first)


def test_a_deleted_pod_leaves_no_trace(cluster):
    """When the object is gone, so are interface, namespace, address, results and containers."""
    wait_for_no_trace(cluster)
    cluster.run_pod("a")
    assert list_traces(cluster)
    cluster.delete("pod", "a")
    assert [] == list_traces(cluster)


def test_a_pod_that_can_have_no_network_says_why_and_starts_when_it_can(cluster):
    """The event holds the plugin's words; nobody has to help afterwards."""
    broken = {"cniVersion": "1.0.0", "name": "broken", "plugins": [{"type": "no-such-plugin"}]}
    cluster.install(broken)
    cluster.start_pod("a")
    said = becomes_true(lambda: any("no-such-plugin" in event for event in cluster.events("a")))
    assert said, cluster.events("a")
    assert not cluster.is_ready("a")
    cluster.install(REFERENCE_NETWORK)
    cluster.wait_running("a")


@pytest.mark.parametrize("part", ["kubelet", "apiserver", "containerd"])
def test_a_part_that_is_killed_and_started_again_serves_on(cluster, part):
    """Pods that ran run on, others can be started and deleted."""
    address = cluster.run_pod("before")
    pid = getattr(cluster, part).pid
    getattr(cluster, f"restart_{part}")()
    assert pid != getattr(cluster, part).pid
    assert not Path(f"/proc/{pid}").exists()
    cluster.run_pod("after")
    assert "before" == cluster.fetch("after", address)
    cluster.delete("pod", "before")


def test_a_user_may_do_what_its_role_grants_and_no_more(cluster, reader):
    """By kubectl, with the user's token."""
    assert cluster.kubectl("get", "pods", user="plugin").returncode == 0
    refused = cluster.kubectl("get", "nodes", user="plugin", check=False)
    assert refused.returncode == 1
    assert 'User "plugin" cannot list resource "nodes"' in refused.stderr
    assert "forbidden" in cluster.kubectl("get", "pods", user="nobody", check=False).stderr


@pytest.mark.parametrize("how", ["token", "file", "certificate"])
def test_each_way_to_say_who_one_is_makes_one_the_same_user(cluster, tmp_path, how):
    """A token, a file with it, a client certificate."""
    file = tmp_path / "token"
    file.write_text(cluster.token("plugin"))
    options = {"token": {}, "file": {"token_file": file}, "certificate": {"certificate": True}}
    kubeconfig = cluster.kubeconfig("plugin", **options[how])
    done = cluster.kubectl("auth", "whoami", "-o", USER_NAME, f"--kubeconfig={kubeconfig}")
    assert "plugin" == done.stdout


def test_a_service_account_is_known_by_a_bound_token(cluster, reader):
    """A token that the API server made, and one for five minutes of the harness's own."""
    for token in (cluster.token(ACCOUNT), cluster.token(ACCOUNT, seconds=300)):
        assert http.client.OK == cluster.request("GET", PODS, token=token)[0]
        assert http.client.FORBIDDEN == cluster.request("GET", "/api/v1/nodes", token=token)[0]


def test_a_short_token_expires(cluster, reader):
    """First it is taken, and some seconds later it is not."""
    token = cluster.token(ACCOUNT, seconds=20)
    assert http.client.OK == cluster.request("GET", PODS, token=token)[0]
    expired = becomes_true(
        lambda: cluster.request("GET", PODS, token=token)[0] == http.client.UNAUTHORIZED, 60
    )
    assert expired


def test_the_foreign_ca_did_not_sign_the_server(cluster):
    """A kubeconfig with the wrong CA fails for that reason."""
    kubeconfig = cluster.kubeconfig(ca=cluster.authority.foreign_ca)
    done = cluster.kubectl("get", "pods", f"--kubeconfig={kubeconfig}", check=False)
    assert "certificate signed by unknown authority" in done.stderr


def test_a_test_reaches_the_server_from_the_machines_network(cluster):
    """By any client in this process; outside of the block it does not."""
    with cluster.machine.network():
        assert "v1.34.1" in read_version(cluster.server, cluster.ca)
    with pytest.raises(urllib.error.URLError):
        read_version(cluster.server, cluster.ca, seconds=0.2)


def test_another_node_reaches_the_server(cluster, lab):
    """A namespace of the test's, which is connected to the node's network."""
    other = lab.namespace("node2")
    cluster.connect(lab, other, "192.0.2.2")
    assert "v1.34.1" in other.call(read_version, cluster.server, cluster.ca)


def test_a_pod_reaches_the_server_by_the_services_address(cluster):
    """With what in-cluster clients go by: the environment, the account's token and CA."""
    cluster.run_pod("client", automountServiceAccountToken=True, enableServiceLinks=True)
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    done = cluster.exec("client", "sh", "-c", f"echo $KUBERNETES_SERVICE_HOST; ls {folder}")
    assert ["10.96.0.1", "ca.crt", "namespace", "token"] == done.stdout.split()
    assert cluster.exec("client", "nc", "-w", "30", "10.96.0.1", "443", check=False).returncode == 0


def test_a_daemon_set_gets_its_pod(cluster):
    """Controller and scheduler are at work."""
    cluster.create(DAEMON_SET)
    try:
        cluster.kubectl("rollout", "status", "daemonset/everywhere", "--timeout=180s")
        (pod,) = cluster.list_pods("default")
        assert NODE == pod["spec"]["nodeName"]
    finally:
        cluster.delete("daemonset", "everywhere")


def test_clear_waits_for_the_network_of_a_pod_that_had_no_grace_period(cluster):
    """The next test gets the same address: it must not find the other one's route."""
    wait_for_no_trace(cluster)
    cluster.run_pod("a", terminationGracePeriodSeconds=0)
    cluster.clear()
    assert [] == list_traces(cluster)


def test_a_namespace_goes_with_its_pods(cluster):
    """What `clear` does for the next test."""
    cluster.create_namespace("team", {"key": "value"})
    cluster.run_pod("a", namespace="team")
    assert {"key": "value"} == cluster.get("/api/v1/namespaces/team")["metadata"]["annotations"]
    cluster.delete_namespaces()
    assert [] == cluster.list_pods()
    assert http.client.NOT_FOUND == cluster.request("GET", "/api/v1/namespaces/team")[0]


def test_our_bundle_gives_a_pod_an_address_of_our_pool(cluster):
    """SQLite, ptp as the delegate's caller, ours also chained; the file is on the machine."""
    wait_for_no_trace(cluster)
    cluster.install(OURS)
    address = cluster.run_pod("a")
    assert ipaddress.ip_address(address) in POOL
    records = read_file(cluster.machine.path("/var/lib/cni-ipam/ipam.db"))
    assert [address] == list(records.allocations)
    assert [] == records.findings
    assert {f"host:{NODE}"} == {block.affinity for block in records.blocks}
    assert "b" == cluster.fetch("a", cluster.run_pod("b"))
    cluster.delete_pods()
    assert {} == read_file(cluster.machine.path("/var/lib/cni-ipam/ipam.db")).allocations
    assert [] == list_traces(cluster)


def test_debians_containerd_takes_version_1_0_0(tmp_path):
    """The same with 1.6, which knows no newer version of the specification."""
    obstacle = find_cluster_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    with Cluster(tmp_path / "old", containerd="1.6") as cluster:
        node = cluster.get(f"/api/v1/nodes/{NODE}")["status"]["nodeInfo"]
        assert "1.6" in node["containerRuntimeVersion"]
        cluster.install(OURS | {"cniVersion": "1.0.0"})
        assert ipaddress.ip_address(cluster.run_pod("a")) in POOL
        cluster.delete("pod", "a")
        assert [] == list_traces(cluster)


def test_nothing_of_the_machine_is_to_be_seen_outside(cluster):
    """No interface, no mount, no file that it wrote; the kernel's variables are as they were."""
    cluster.run_pod("a")
    marks = [f"{place}/cni-test-{os.getpid()}" for place in ("/etc", "/opt", "/var/lib", "/run")]
    cluster.machine.run("touch", *marks)
    assert [] == [mark for mark in marks if Path(mark).exists()]
    assert [] == [name for name in os.listdir("/sys/class/net") if name.startswith(("lan", "veth"))]
    assert str(cluster.folder) not in Path("/proc/self/mounts").read_text()
    assert "10" == cluster.machine.run("cat", "/proc/sys/kernel/panic").stdout.strip()
    assert "10" != Path("/proc/sys/kernel/panic").read_text().strip()


def test_a_machine_ends_with_a_test_run_that_is_killed(tmp_path):
    """Its processes do at once; the next machine removes control groups and the network's name."""
    command = [sys.executable, "-c", LASTING_MACHINE, str(tmp_path / "doomed")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert run.stdout is not None
    pid = int(run.stdout.readline())
    left = f"{PREFIX}-{run.pid}-1-doomed"
    # Before the end: the next machine may as well be that of another test run beside this one.
    assert find_cgroups(left)
    assert Path(f"/run/netns/{left}").exists()
    run.send_signal(signal.SIGKILL)
    run.wait(10)
    run.stdout.close()
    assert becomes_true(lambda: not Path(f"/proc/{pid}").exists())
    with Machine("next", tmp_path / "next"):
        assert not find_cgroups(left)
        assert becomes_true(lambda: not Path(f"/run/netns/{left}").exists())
