"""Nodes with Calico's plugin and nodes with ours draw from one pool that is too small for all."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from integration.etcd.calico import Mixed, hand_to_calico, hand_to_us, is_calicos, with_calico
from integration.etcd.herd import Herd
from integration.etcd.node import put_node, put_pool
from integration.etcd.proxy import Proxy

if TYPE_CHECKING:
    from typing import Any

    from integration.etcd.herd import Pod

pytestmark = with_calico

POOL = "10.48.0.0/28"
# Until swaps were lost and addresses changed over, but no longer.
SECONDS, WINDOWS = 8.0, 10
FULL = f"No IPs available in pools: [{POOL}]"


class MixedHerd(Herd):
    """Calico's plugin on every other node."""

    def __init__(self, mixed: Mixed, **options: Any) -> None:
        super().__init__(mixed.proxy, mixed.folder, POOL, may_be_full=True, **options)
        self.mixed = mixed
        # Whose plugin gave an address: Calico's, ours, or now one and now the other.
        self.givers: dict[str, set[bool]] = {}
        for node in self.nodes:
            hand_to_us(node, mixed.proxy)
        for node in self.nodes[::2]:
            hand_to_calico(node, mixed.cluster)

    def add(self, pod: Pod) -> None:
        """ADD; not repeated with Calico, which would give a second address."""
        if not is_calicos(pod.node):
            super().add(pod)
        elif pod not in self._addresses:
            self._add_by_calico(pod)
        with self._lock:
            if pod in self._addresses:
                givers = self.givers.setdefault(self._addresses[pod], set())
                givers.add(is_calicos(pod.node))

    def _add_by_calico(self, pod: Pod) -> None:
        answer = self._call("ADD", pod)
        if answer.status and FULL in answer.document["msg"]:
            return
        if answer.status:
            self.complaints.append(f"ADD {pod.container}: {answer.stdout.decode()}{answer.stderr}")
            return
        with self._lock:
            self._addresses[pod] = answer.address
            other = self.book.setdefault(answer.address, pod.handle)
        if other != pod.handle:
            self.complaints.append(f"{answer.address} for {pod.handle}, but {other} has it")

    def swap(self) -> None:
        """Each node changes over to the other's plugin."""
        for node in self.nodes:
            if is_calicos(node):
                hand_to_us(node, self.mixed.proxy)
            else:
                hand_to_calico(node, self.mixed.cluster)


@pytest.fixture
def herd(etcd34, tmp_path):
    """Four nodes that have 24 pods, but 16 addresses in two blocks."""
    put_pool(etcd34, "pool", POOL, blockSize=29)
    with Proxy(etcd34.endpoints[0]) as proxy:
        # So long between our reading and writing that Calico's plugin comes in between.
        proxy.delay(0.03)
        herd = MixedHerd(Mixed(etcd34, proxy, tmp_path), nodes=4, pods=6, at_once=8)
        for node in herd.nodes:
            put_node(etcd34, node.node)
        yield herd


def test_calicos_nodes_and_ours_share_a_small_pool(herd):
    """Each address has one pod, nothing that was acknowledged is lost, everything is sound, and in
    the end each plugin releases what the other assigned, to the last record."""
    mixed = herd.mixed
    for window in range(WINDOWS):
        rate = herd.run(herd.come_and_go(random.Random(window), len(herd.pods)), SECONDS)
        herd.tell(f"{rate:.0f} calls per second")
        if herd.tally.lost and {True, False} in herd.givers.values():
            break
    records = mixed.records()
    assert [] == herd.complaints
    assert herd.book == records.allocations
    assert [] == records.findings
    assert herd.tally.lost > 0
    assert {True, False} in herd.givers.values()

    herd.swap()
    herd.run((herd.delete, pod) for pod in herd.pods)
    assert [] == herd.complaints
    left = mixed.records()
    assert ({}, []) == (left.allocations, left.handles)
    assert [] == left.findings
    for number, node in enumerate(herd.nodes):
        operator = mixed.calicoctl if number < 2 else mixed.ipamctl
        operator.say("delete", "node", node.node)
    assert [] == mixed.list_keys()
