"""A call on a node that shares etcd with another one, and what has to hold after it was cut off or
killed.

    scene = Scene(etcd, tmp_path, proxy, "ADD that borrows")
    for number in range(1, len(scene.list_requests()) + 1):
        scene.restore()
        fault = proxy.hold_request(number)
        scene.run_until(fault)
        fault.drop()
        scene.assert_others_are_served()
        scene.assert_nothing_remains()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.etcd.faults import Snapshot, assert_sound
from integration.etcd.node import EtcdNode, put_node, put_pool, read_records
from integration.program import NETWORK, run_at_once

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from integration.etcd.exchange import Exchange
    from integration.etcd.proxy import Fault, Proxy
    from integration.etcd.servers import Cluster
    from integration.network import Records
    from integration.program import Answer, Call

    Json = dict[str, Any]

KILLED = -9
CONTAINER = "c1"
HANDLE = f"{NETWORK}.{CONTAINER}"
FIXED_ADDRESS = "10.77.0.21"
FIXED = {"CNI_ARGS": f"IP={FIXED_ADDRESS}"}
BOTH = {"ipam": {"type": "cni-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}}
# What each call finds: its verb, the pool and further keys of the netconf, whether the node owns
# a block before, further variables.
OPERATIONS: dict[str, Json] = {
    "ADD that claims a block": {"verb": "ADD"},
    "ADD in the steady state": {"verb": "ADD", "owns": True},
    "ADD that borrows": {"verb": "ADD", "pool": "10.77.0.0/29"},
    "ADD of a fixed address": {"verb": "ADD", "owns": True, "variables": FIXED},
    "ADD of both families": {"verb": "ADD", "settings": BOTH},
    "DEL": {"verb": "DEL", "owns": True},
    "DEL of both families": {"verb": "DEL", "settings": BOTH},
    "GC": {"verb": "GC", "owns": True},
}


class Scene:
    """A node on which the call is made, and another one that has its own address and wants more.

    `held` is what was acknowledged, each address with its handle."""

    def __init__(self, etcd: Cluster, folder: Path, proxy: Proxy, operation: str) -> None:
        wanted = OPERATIONS[operation]
        settings = wanted.get("settings", {})
        self.etcd = etcd
        self.proxy = proxy
        self.verb = wanted["verb"]
        self.node = EtcdNode(folder, [proxy.endpoint], "node1", **settings)
        self.other = EtcdNode(folder, [proxy.endpoint], "node2", **settings)
        self._variables = wanted.get("variables", {})
        self._owns = wanted.get("owns", False)
        put_pool(etcd, "pool", wanted.get("pool", "10.77.0.0/27"), blockSize=29)
        if settings:
            put_pool(etcd, "pool6", "fd00:77::/120", blockSize=125)
        for node in (self.node, self.other):
            put_node(etcd, node.node)
        self.held: dict[str, str] = {}
        self._make_calls_before()
        self._held_before = dict(self.held)
        self._snapshot = Snapshot(etcd)

    def restore(self) -> None:
        """Everything is again as before the call; the proxy counts from here."""
        self._snapshot.restore()
        self.held = dict(self._held_before)
        self.proxy.disarm()
        self.proxy.clear()

    def start(self) -> Call:
        """The call under way."""
        call = self.node.start(self.verb, self._container, self._stdin, **self._variables)
        call.give()
        return call

    def run(self) -> Answer:
        """The call's answer; what it acknowledges is noted."""
        if self.verb != "ADD":
            self._forget(CONTAINER)
        answer = self.start().answer()
        if self.verb == "ADD":
            self.acknowledge(answer, CONTAINER)
        return answer

    def run_until(self, fault: Fault) -> None:
        """Make the call, and kill it when it has come to `fault`."""
        if self.verb != "ADD":
            self._forget(CONTAINER)
        call = self.start()
        fault.wait()
        call.kill()
        assert KILLED == call.answer().status

    def list_requests(self) -> list[Exchange]:
        """Those of the call when nothing goes wrong; the scene is as before afterwards."""
        self.restore()
        assert 0 == self.run().status
        found = self.proxy.requests
        assert len(found) >= 3, f"the loop would be too short: {found}"
        self.restore()
        return found

    def acknowledge(self, answer: Answer, container: str) -> list[str]:
        """The addresses of an ADD's answer, which nobody else may have."""
        handle = f"{NETWORK}.{container}"
        for address in answer.addresses:
            assert handle == self.held.setdefault(address, handle)
        return answer.addresses

    def read(self) -> Records:
        """Every record."""
        return read_records(self.etcd)

    def assert_others_are_served(self) -> None:
        """The other node and this one get addresses that nobody has."""
        calls = {f"late-{node.node}": node for node in (self.node, self.other)}
        answers = run_at_once([node.start("ADD", name) for name, node in calls.items()])
        for container, answer in zip(calls, answers, strict=True):
            self.acknowledge(answer, container)
        assert_sound(self.read(), self.held)

    def assert_nothing_remains(self) -> None:
        """After the runtime's DEL, and GC, both of which succeed, only others' are recorded."""
        assert 0 == self.node.call("DEL", CONTAINER).status
        self._forget(CONTAINER)
        assert 0 == self.node.collect(self.living).status
        records = self.read()
        assert self.held == records.allocations
        assert set(self.held.values()) == {handle.id for handle in records.handles}
        assert [] == records.findings

    @property
    def living(self) -> list[str]:
        """The containers that others have acknowledged addresses for."""
        handles = set(self.held.values()) - {HANDLE}
        return [handle.removeprefix(f"{NETWORK}.") for handle in sorted(handles)]

    @property
    def _container(self) -> str:
        return "" if self.verb == "GC" else CONTAINER

    @property
    def _stdin(self) -> Json:
        attachments = [{"containerID": c, "ifname": "eth0"} for c in self.living]
        return self.node.netconf(**{"cni.dev/valid-attachments": attachments})

    def _make_calls_before(self) -> None:
        self.acknowledge(self.other.call("ADD", "other"), "other")
        if self._owns:
            self.acknowledge(self.node.call("ADD", "own"), "own")
        if self.verb != "ADD":
            self.acknowledge(self.node.call("ADD", CONTAINER), CONTAINER)

    def _forget(self, container: str) -> None:
        handle = f"{NETWORK}.{container}"
        self.held = {a: h for a, h in self.held.items() if h != handle}
