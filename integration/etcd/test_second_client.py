"""What we wrote as a client sees it that knows nothing of us, and a race with such a client."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.port import Range
from integration.etcd.herd import Herd
from integration.etcd.node import EtcdNode, open_store, put_node, put_pool, read_records
from integration.etcd.proxy import Proxy
from integration.network import BUNDLE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from integration.etcd.servers import Cluster

PATIENCE_SECONDS = 120
RACE_SECONDS = 10.0
POOL = "10.45.0.0/27"
PEERS = ("calico1", "calico2")
IPAM = "/calico/ipam/v2"
RESOURCES = "/calico/resources/v3/projectcalico.org"
OBJECTS = """
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: four}
spec: {cidr: 10.46.0.0/29, blockSize: 30}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd00:46::/120", blockSize: 124}
---
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: kept}
spec: {reservedCIDRs: [10.46.0.1/32]}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1, labels: {rack: "1"}}
spec: {}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node2}
spec: {}
"""


def start(cluster: Cluster, *words: str) -> subprocess.Popen[str]:
    """The second client at work."""
    module = [sys.executable, "-m", "integration.etcd.second_client"]
    endpoint = cluster.endpoints[0].removeprefix("http://")
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*module, endpoint, *words], cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    )


def dump(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """Every key with its value and mod_revision, as the second client has it."""
    stdout, stderr = start(cluster, "dump").communicate(timeout=PATIENCE_SECONDS)
    assert stdout, stderr
    return {
        key: (base64.b64decode(value).decode(), revision)
        for key, (value, revision) in json.loads(stdout).items()
    }


def operate(proxy: Proxy, *words: str, stdin: str = "") -> None:
    """Run ipamctl on the cluster."""
    done = subprocess.run(
        [str(BUNDLE / "ipamctl"), *words],
        input=stdin,
        env={"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": proxy.endpoint},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def proxy(etcd) -> Iterator[Proxy]:
    with Proxy(etcd.endpoints[0]) as proxy:
        yield proxy


@pytest.fixture
def found(etcd, proxy, tmp_path) -> dict[str, list[str]]:
    """What ipamctl and both names of the plugin write: pools of both families, a reservation, the
    config, nodes, addresses of own blocks and a borrowed one; which these are."""
    operate(proxy, "create", "-f", "-", stdin=OBJECTS)
    operate(proxy, "ipam", "configure", "--ip-cooldown-seconds=60")
    first = EtcdNode(tmp_path, [proxy.endpoint], "node1")
    second = EtcdNode(tmp_path, [proxy.endpoint], "node2", name="calico-ipam")
    both = first.netconf(ipam={"assign_ipv4": "true", "assign_ipv6": "true"})
    found = {"c0": first.call("ADD", "c0", both).addresses}
    found |= {f"c{n}": second.call("ADD", f"c{n}").addresses for n in range(1, 6)}
    return found


def test_another_client_reads_the_same_keys_values_and_revisions(etcd, found):
    """Of all that we wrote, whether it is read at once or page by page."""
    store = open_store(etcd)
    with contextlib.closing(store):
        (entries,) = store.read([Range("", prefix=True)])
        paged = [entry for page in store.pages("/calico/", 3) for entry in page]
    seen = dump(etcd)
    assert seen == {entry.key: (entry.value, entry.revision) for entry in entries}
    calicos = {key: known for key, known in seen.items() if key.startswith("/calico/")}
    assert calicos == {entry.key: (entry.value, entry.revision) for entry in paged}


def test_another_client_finds_each_record_under_calicos_key(etcd, found):
    """No more keys and no fewer; node2 had to borrow the last of its addresses."""
    six = found["c0"][1]
    assert "fd00:46::" == six[: len("fd00:46::")]
    seen = dump(etcd)
    documents = {key: json.loads(value) for key, (value, _) in seen.items()}
    blocks = {key: d for key, d in documents.items() if "/assignment/" in key}
    owners = {d["cidr"]: d["affinity"].removeprefix("host:") for d in blocks.values()}
    assert ["node1", "node1", "node2"] == sorted(owners.values())
    assert {"10.46.0.0/30", "10.46.0.4/30"} == {cidr for cidr in owners if ":" not in cidr}
    expected = {
        *(f"{RESOURCES}/ippools/{name}" for name in ("four", "six")),
        *(f"{RESOURCES}/nodes/{name}" for name in ("node1", "node2")),
        f"{RESOURCES}/ipreservations/kept",
        f"{IPAM}/config",
        *(f"{IPAM}/handle/net.{container}" for container in found),
        *(key_of("assignment", cidr) for cidr in owners),
        *(key_of(f"host/{owner}", cidr) for cidr, owner in owners.items()),
    }
    assert expected == seen.keys()
    assert is_borrowed(found, owners)


def key_of(holder: str, cidr: str) -> str:
    version = 6 if ":" in cidr else 4
    return f"{IPAM}/{holder}/ipv{version}/block/{cidr.replace('/', '-')}"


def is_borrowed(found: dict[str, list[str]], owners: dict[str, str]) -> bool:
    """Whether node2 has an address of the block of node1."""
    (ours,) = [cidr for cidr, owner in owners.items() if owner == "node1" and ":" not in cidr]
    start = int(ours.partition("/")[0].rpartition(".")[2])
    last = {int(a.rpartition(".")[2]) for c, held in found.items() if c != "c0" for a in held}
    return bool(last & set(range(start, start + 4)))


class Peer:
    """The second client as a node of Calico's, until the `with` block ends."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.process = start(cluster, "node", name, POOL, "29")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self) -> None:
        """Let it begin with what comes next: stop; then, release everything."""
        assert self.process.poll() is None, self.process.stderr.read()
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """What it says when it has done that."""
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)


def test_we_and_a_client_that_plays_calico_never_undo_each_other(etcd, proxy, tmp_path):
    """Two nodes of Calico's and four of ours, eight calls at once, on four blocks; then all of
    them release what they have at the same time."""
    put_pool(etcd, "pool", POOL, blockSize=29)
    for name in (*PEERS, *(f"node{n}" for n in range(4))):
        put_node(etcd, name)
    herd = Herd(proxy, tmp_path, POOL, nodes=4, pods=6, at_once=8, may_be_full=True)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(etcd, name)) for name in PEERS]
        for peer in peers:
            peer.hear()
        rate = herd.run(herd.come_and_go(random.Random(7), len(herd.pods)), RACE_SECONDS)
        for peer in peers:
            peer.tell()
        ends = [peer.hear() for peer in peers]
        herd.tell(f"{rate:.0f} calls per second; peers: {[end['counts'] for end in ends]}")
        assert min(end["counts"]["written"] for end in ends) > 20
        assert herd.tally.lost + sum(end["counts"]["late"] for end in ends) > 0
        check_race(etcd, herd, [end["held"] for end in ends])

        for peer in peers:
            peer.tell()
        herd.run((herd.delete, pod) for pod in herd.pods)
        for peer in peers:
            peer.hear()
    assert [] == herd.complaints
    for node in herd.nodes:
        operate(proxy, "delete", "node", node.node)
    assert [] == [key for key in dump(etcd) if key.startswith(f"{IPAM}/")]


def check_race(cluster: Cluster, herd: Herd, held: list[dict[str, str]]) -> None:
    """What each side was told that it has is recorded, nothing else, and everything is sound."""
    books = [herd.book, *held]
    together = {address: handle for book in books for address, handle in book.items()}
    records = read_records(cluster)
    assert [] == herd.complaints
    assert sum(len(book) for book in books) == len(together)
    assert together == records.allocations
    assert sorted(together.values()) == sorted(handle.id for handle in records.handles)
    assert [] == records.findings
