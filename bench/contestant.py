"""Who takes part: a program, its netconf, and what it has given out so far."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from integration.etcd.node import put_node, put_pool
from integration.network import BUNDLE, TOOLS

if TYPE_CHECKING:
    from typing import Any

    from bench.kubernetes import ApiServer
    from integration.etcd.servers import Cluster

    Json = dict[str, Any]

REFERENCE = "host-local"
PEER = "calico-ipam"


class BenchFailed(Exception):
    """A contestant answered wrongly, so the times mean nothing."""


class Contestant:
    """A program with a folder of its own below `folder`, and the book of its addresses."""

    def __init__(
        self, subject: str, program: Path, netns: str, folder: Path, netconf: Json
    ) -> None:
        self.subject = subject
        self.netns = netns
        self._program = str(program)
        self._held: dict[str, str] = {}
        self._folder = folder / subject.replace("/", "-")
        self._folder.mkdir(parents=True)
        self._stdin = self._folder / "netconf.json"
        self._stdin.write_text(json.dumps(netconf))

    def spawn(self, verb: str, container: str) -> int:
        """Start a call; its process number."""
        variables = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(BUNDLE),
        }
        write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, str(self._stdin), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._answer(container)), write, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        return os.posix_spawn(self._program, [self._program], variables, file_actions=actions)

    def check(self, verb: str, container: str, status: int) -> None:
        """Keep the book. Raises BenchFailed unless the call did what it should."""
        place = self._answer(container)
        text = place.read_text()
        place.unlink()
        if status:
            raise BenchFailed(f"{self.subject}: {verb} {container} ended with {status}: {text}")
        if verb == "ADD":
            address = json.loads(text)["ips"][0]["address"].partition("/")[0]
            ipaddress.ip_address(address)
            if address in self._held.values():
                raise BenchFailed(f"{self.subject}: {address} was given twice")
            self._held[container] = address
        elif verb == "DEL":
            del self._held[container]

    def _answer(self, container: str) -> Path:
        return self._folder / f"{container}.answer"


def make_reference(folder: Path, netns: str) -> Contestant:
    """host-local, with its data below `folder`."""
    ranges = [[{"subnet": "10.98.0.0/16"}]]
    ipam = {"type": REFERENCE, "ranges": ranges, "dataDir": str(folder / REFERENCE / "data")}
    netconf = _netconf("bench-theirs", ipam)
    return Contestant(REFERENCE, TOOLS / REFERENCE, netns, folder, netconf)


def make_embedded(folder: Path, netns: str) -> Contestant:
    """The bundle on a SQLite file below `folder`."""
    pool = {"name": "bench", "spec": {"cidr": "10.99.0.0/16", "blockSize": 26}}
    ipam = {
        "type": "cni-ipam",
        "sqlite_path": str(folder / "cni-ipam" / "ipam.db"),
        "default_pools": [pool],
    }
    return Contestant("cni-ipam", BUNDLE / "cni-ipam", netns, folder, _netconf("bench-ours", ipam))


def make_on_etcd(
    folder: Path, netns: str, cluster: Cluster, subject: str, program: Path, number: int
) -> Contestant:
    """A `calico-ipam`, ours or Go's, as a node of its own with a pool of its own in `cluster`.

    Under this name neither makes routes."""
    name = f"bench{number}"
    put_pool(cluster, name, f"10.{number}.0.0/16", blockSize=26)
    put_node(cluster, name)
    netconf = _netconf(name, {"type": "calico-ipam", "ipv4_pools": [name]}) | {
        "datastore_type": "etcdv3",
        "etcd_endpoints": ",".join(cluster.endpoints),
        "nodename": name,
        "ipam_lock_file": str(folder / f"{name}.lock"),
        "log_level": "error",
    }
    if cluster.tls:
        netconf |= {
            "etcd_ca_cert_file": str(cluster.tls.ca),
            "etcd_cert_file": str(cluster.tls.client.cert),
            "etcd_key_file": str(cluster.tls.client.key),
        }
    return Contestant(subject, program, netns, folder, netconf)


def make_on_kubernetes(
    folder: Path, netns: str, server: ApiServer, subject: str, program: Path, number: int
) -> Contestant:
    """A `calico-ipam`, ours or Go's, as a node of its own with a pool of its own."""
    name = f"bench{number}"
    spec = {
        "cidr": f"10.{number}.0.0/16",
        "blockSize": 26,
        "nodeSelector": "all()",
        "ipipMode": "Never",
        "vxlanMode": "Never",
    }
    for version, kind, fields in (
        ("v1", "Node", {}),
        ("crd.projectcalico.org/v1", "IPPool", {"spec": spec}),
    ):
        server.apply({"apiVersion": version, "kind": kind, "metadata": {"name": name}} | fields)
    netconf = _netconf(name, {"type": "calico-ipam", "ipv4_pools": [name]}) | {
        "datastore_type": "kubernetes",
        "kubernetes": {"kubeconfig": str(server.kubeconfig)},
        "nodename": name,
        "ipam_lock_file": str(folder / f"{name}.lock"),
        "log_level": "error",
    }
    return Contestant(subject, program, netns, folder, netconf)


def make_floor(folder: Path, netns: str) -> list[Contestant]:
    """Programs that do nothing, to show where time goes: one in C, and ours asked for VERSION."""
    conf = {"cniVersion": "1.1.0"}
    return [
        Contestant("/bin/true", Path("/bin/true"), netns, folder, conf),
        Contestant("cni-ipam VERSION", BUNDLE / "cni-ipam", netns, folder, conf),
    ]


def _netconf(network: str, ipam: Json) -> Json:
    return {"cniVersion": "1.0.0", "name": network, "type": "ptp", "ipam": ipam}
