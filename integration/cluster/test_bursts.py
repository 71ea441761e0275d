"""Pods by the dozen on the real kubelet, all at once, while parts of the cluster are killed.

No address is given twice, none stays behind, and those that are recorded are those that pods have.
"""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from integration.cluster.node import ApiNode, put_pool, read_records
from integration.cluster.own_network import becomes_empty, granted, read_network, ready
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.cluster.cluster import Cluster

__all__ = ["granted", "ready"]

NODE_FULL = 100
SOME = 30
PODS = "/api/v1/namespaces/default/pods"
PATIENCE_SECONDS = 300.0
LOOK_SECONDS = 0.1
AT_ONCE = 8


@pytest.fixture
def stocked(ready: Cluster) -> Cluster:
    """A pool for all of them, in several blocks."""
    put_pool(ready, "pool", "10.77.0.0/24", blockSize=27)
    return ready


def start_pods(cluster: Cluster, number: int) -> None:
    """Create so many pods; nobody waits for them."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(cluster.start_pod, [f"pod-{each}" for each in range(number)]))


def wait_for(what: str, question: Callable[[], bool]) -> float:
    """Wait until the answer is yes; how long that was."""
    started = time.monotonic()
    while not question():
        assert time.monotonic() - started < PATIENCE_SECONDS, f"{what}: not in time"
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - started


def count_ready(cluster: Cluster) -> int:
    """How many pods run."""
    conditions = [pod["status"].get("conditions", []) for pod in cluster.list_pods("default")]
    return sum(
        any(found["type"] == "Ready" and found["status"] == "True" for found in each)
        for each in conditions
    )


def assert_agreed(cluster: Cluster, number: int) -> None:
    """So many pods have so many addresses, and these are recorded, and no others once the runtime
    has cleared away what it tried in vain."""
    addresses = [pod["status"]["podIP"] for pod in cluster.list_pods("default")]
    assert number == len(set(addresses)) == len(addresses)
    becomes_true(lambda: sorted(addresses) == sorted(read_records(cluster).allocations))
    records = read_records(cluster)
    assert sorted(addresses) == sorted(records.allocations)
    assert [] == records.findings


def collect_abandoned(cluster: Cluster, folder: Path) -> None:
    """GC as of a runtime that knows what it lost: a containerd that is killed forgets the sandboxes
    that it was making, and no DEL ever comes for those whose ADD had succeeded."""
    node = ApiNode(folder, cluster, cluster.kubeconfig())
    living = cluster.ctr("containers", "list", "--quiet").stdout.split()
    assert 0 == node.collect(living, read_network()["name"]).status


def delete_all(cluster: Cluster) -> float:
    """Delete all pods with one request; how long it took until the node has nothing of them."""
    started = time.monotonic()
    assert http.client.OK == cluster.request("DELETE", PODS)[0]
    wait_for("pods stay", lambda: not cluster.list_pods("default"))
    cluster.wait_unplugged()
    assert becomes_empty(lambda: read_records(cluster)), read_records(cluster).findings
    return time.monotonic() - started


def test_a_node_full_of_pods_at_once(stocked, record_property):
    """They all come, and when they all go nothing is left."""
    start_pods(stocked, NODE_FULL)
    seconds = wait_for("the pods run", lambda: count_ready(stocked) == NODE_FULL)
    record_property("seconds until all run", seconds)
    assert_agreed(stocked, NODE_FULL)
    record_property("seconds until all are gone", delete_all(stocked))


@pytest.mark.parametrize("part", ["kubelet", "apiserver", "containerd"])
def test_a_part_is_killed_while_pods_come_and_while_they_go(stocked, part, tmp_path):
    """It comes back at once; what was under way is done again, and GC finds what nobody has."""
    restart = getattr(stocked, f"restart_{part}")
    start_pods(stocked, SOME)
    wait_for("the first run", lambda: count_ready(stocked) > 0)
    assert count_ready(stocked) < SOME, "too late"
    restart()
    wait_for("the pods run", lambda: count_ready(stocked) == SOME)
    collect_abandoned(stocked, tmp_path)
    assert_agreed(stocked, SOME)
    assert http.client.OK == stocked.request("DELETE", PODS)[0]
    wait_for("the first go", lambda: len(read_records(stocked).allocations) < SOME)
    restart()
    delete_all(stocked)
