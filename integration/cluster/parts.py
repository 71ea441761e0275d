"""The parts of a cluster: how each is started on the machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from integration.cluster.authority import ISSUER
from integration.cluster.image import POD_IMAGE
from integration.etcd.member import find_programs
from integration.network import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from integration.cluster.authority import Authority

PROGRAMS = ROOT / "build" / "kubernetes"
DEBIAN = ROOT / "build" / "containerd"
# Where each containerd is: 1.6, Debian's, takes network lists up to version 1.0.0 and never asks
# for STATUS; 2.1 takes 1.1.0.
RUNTIMES = {"1.6": DEBIAN / "usr" / "bin", "2.1": PROGRAMS}
RUNC = DEBIAN / "usr" / "sbin"
BUSYBOX = DEBIAN / "bin" / "busybox"

ETCD = "http://127.0.0.1:2379"
NODE_ADDRESS = "192.0.2.1"
# The machine has the service's address itself, so pods reach the API server without kube-proxy.
SERVICE_ADDRESS = "10.96.0.1"
SERVER = f"https://{NODE_ADDRESS}:443"
RUNTIME_SOCKET = "/run/containerd/containerd.sock"
# etcd 3.4.23 is too old for this way to list, as each would find out by itself, and complain.
OLD_ETCD = "--feature-gates=WatchListClient=false"
CONTROLLERS = (
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "garbage-collector-controller",
    "daemonset-controller",
    "deployment-controller",
    "replicaset-controller",
)

CONTAINERD = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{RUNTIME_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{POD_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "containerRuntimeEndpoint": f"unix://{RUNTIME_SOCKET}",
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "clusterDNS": ["10.96.0.10"],
    "clusterDomain": "cluster.local",
    "failSwapOn": False,
    "localStorageCapacityIsolation": False,
    "oomScoreAdj": 0,
    "maxPods": 250,
    "kubeAPIQPS": 200,
    "kubeAPIBurst": 400,
    "eventRecordQPS": 0,
    "nodeStatusUpdateFrequency": "2s",
    "imageGCHighThresholdPercent": 100,
    "evictionHard": {
        "memory.available": "0%",
        "nodefs.available": "0%",
        "nodefs.inodesFree": "0%",
        "imagefs.available": "0%",
    },
}


def etcd_command() -> list[str]:
    """etcd, on the loopback alone."""
    return [
        find_programs("3.4").etcd,
        "--data-dir=/var/lib/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
    ]


def apiserver_command(authority: Authority) -> list[str]:
    """The API server: tokens and client certificates, the node's rights, RBAC."""
    return [
        str(PROGRAMS / "kube-apiserver"),
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={NODE_ADDRESS}",
        "--secure-port=443",
        f"--tls-cert-file={authority.server_cert}",
        f"--tls-private-key-file={authority.server_key}",
        f"--client-ca-file={authority.ca}",
        f"--token-auth-file={authority.tokens}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={authority.account_key}",
        f"--service-account-signing-key-file={authority.account_key}",
        "--authorization-mode=Node,RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
    ]


def controller_manager_command(authority: Authority, kubeconfig: Path) -> list[str]:
    """The controllers that tests need; none that ends nodes or pods by itself."""
    return [
        str(PROGRAMS / "kube-controller-manager"),
        OLD_ETCD,
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={authority.account_key}",
        f"--root-ca-file={authority.ca}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def scheduler_command(kubeconfig: Path) -> list[str]:
    """The scheduler, for what names no node: a DaemonSet's pods, for example."""
    return [
        str(PROGRAMS / "kube-scheduler"),
        OLD_ETCD,
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
    ]


def containerd_command(folder: Path, version: str) -> list[str]:
    """Containerd 1.6 or 2.1, with the usual places of the CNI; `folder` gets its configuration."""
    config = folder / "containerd.toml"
    config.write_text(CONTAINERD)
    return [str(RUNTIMES[version] / "containerd"), f"--config={config}"]


def kubelet_command(folder: Path, kubeconfig: Path, node: str) -> list[str]:
    """The kubelet; `folder` gets its configuration."""
    config = folder / "kubelet.json"
    config.write_text(json.dumps(KUBELET))
    return [
        str(PROGRAMS / "kubelet"),
        OLD_ETCD,
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node}",
        f"--node-ip={NODE_ADDRESS}",
        "--v=2",
    ]
