"""What the fault tests share: a state to come back to, pods that come and go, one who watches.

with Traffic(cluster, tmp_path) as traffic:
    traffic.go_on()
    cluster.kill(cluster.leader())
    traffic.go_on()
assert [] == traffic.failures
traffic.assert_sound()
traffic.assert_nothing_remains()
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import Entry, Range
from cni_ipam.lean.http import parse_endpoint
from cni_ipam.lean.record import record
from integration.etcd.node import EtcdNode, put_node, put_pool, read_records
from integration.netns import enter
from integration.network import becomes_true
from integration.program import NETWORK, inside, run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Self

    from integration.etcd.servers import Cluster
    from integration.network import Records
    from integration.program import Answer

    Json = dict[str, Any]

IPAM_RECORDS = "/calico/ipam/v2/"
EVERYTHING = {"key": "AA==", "range_end": "AA=="}
NODES = 4
AT_ONCE = 8
CONTAINERS_EACH = 4
BUDGET_SECONDS = 90.0
WATCH_SECONDS = 30.0


def assert_sound(records: Records, held: dict[str, str]) -> None:
    """Nothing is unsound or left over, and each acknowledged address is recorded under its
    handle, which has no other of that family."""
    allocations = records.allocations
    assert [] == records.findings
    assert {} == {a: h for a, h in held.items() if allocations.get(a) != h}
    families = Counter((handle, ":" in address) for address, handle in allocations.items())
    assert [] == [owner for owner, number in families.items() if number > 1]


class Snapshot:
    """Every key of an etcd of one member, to come back to."""

    def __init__(self, etcd: Cluster) -> None:
        self._etcd = etcd
        found = etcd.post("/v3/kv/range", EVERYTHING)
        self._puts = [
            {"request_put": {"key": kv["key"], "value": kv["value"]}} for kv in found["kvs"]
        ]

    def restore(self) -> None:
        """The keys and values are as they were; their revisions are new."""
        self._etcd.post("/v3/kv/deleterange", EVERYTHING)
        self._etcd.post("/v3/kv/txn", {"success": self._puts})


@record
class Done:
    """A call of the plugin that has ended."""

    verb: str
    container: str
    ended_at: float
    seconds: float
    answer: Answer


class Traffic:
    """ADDs and DELs on several nodes of `cluster`, eight processes at any time, until `stop`; and
    one who watches them until the end of the block.

    `held` is what was acknowledged, each address with its handle; `calls` what has ended."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        assert cluster.lan is not None, "the members have to be in namespaces"
        self.cluster = cluster
        put_pool(cluster, "pool", "10.77.0.0/24", blockSize=29)
        names = [f"node{number}" for number in range(NODES)]
        for name in names:
            put_node(cluster, name)
        wrapper = inside(cluster.lan)
        self.nodes = [EtcdNode(folder, cluster.endpoints, n, wrapper=wrapper) for n in names]
        self.watcher = Watcher(cluster)
        self.held: dict[str, str] = {}
        self.calls: list[Done] = []
        self.complaints: list[str] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(AT_ONCE)
        ]

    def __enter__(self) -> Self:
        self.watcher.begin()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.watcher.end()

    def stop(self) -> None:
        """Let the calls under way be the last ones."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, calls: int = 24) -> None:
        """Wait until so many further calls have ended."""
        wanted = len(self.calls) + calls
        enough = becomes_true(lambda: len(self.calls) >= wanted, BUDGET_SECONDS)
        assert [] == self.complaints
        assert enough, f"{wanted - len(self.calls)} of {calls} calls have not ended"

    @property
    def failures(self) -> list[Done]:
        """The calls that failed."""
        return [done for done in self.calls if done.answer.status != 0]

    @property
    def slowest_seconds(self) -> float:
        """How long the slowest call took."""
        return max(done.seconds for done in self.calls)

    def assert_sound(self) -> None:
        """See `assert_sound`; without failures nothing but what was acknowledged is recorded, and
        what was told last of every key is what is stored."""
        assert [] == self.complaints
        records = read_records(self.cluster)
        assert_sound(records, self.held)
        if not self.failures:
            assert self.held == records.allocations
        self.watcher.assert_complete()

    def assert_nothing_remains(self) -> None:
        """After the runtime's DEL of every container, and GC, all of which succeed."""
        deletions = [
            self._node_of(number).start("DEL", container)
            for number in range(AT_ONCE)
            for container in _containers_of(number)
        ]
        statuses = [answer.status for answer in run_at_once(deletions)]
        assert [0] * len(deletions) == statuses
        assert [0] * NODES == [node.collect([]).status for node in self.nodes]
        records = read_records(self.cluster)
        assert ({}, [], []) == (records.allocations, records.handles, records.findings)
        self.watcher.assert_complete()

    def _node_of(self, number: int) -> EtcdNode:
        return self.nodes[number % NODES]

    def _work(self, number: int) -> None:
        """What one thread does; a call that failed is followed by DEL, as runtimes do."""
        chance = random.Random(number)
        states: dict[str, str] = {}
        try:
            while not self._is_over.is_set():
                container = chance.choice(_containers_of(number))
                state = states.get(container, "")
                if state == "failed" or (state and chance.random() < 0.7):
                    states[container] = self._delete(number, container)
                else:
                    states[container] = self._add(number, container, state)
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            self.complaints.append(repr(error))

    def _add(self, number: int, container: str, known: str) -> str:
        answer = self._call(number, "ADD", container)
        if answer.status != 0:
            return "failed"
        handle = f"{NETWORK}.{container}"
        with self._lock:
            other = self.held.setdefault(answer.address, handle)
        assert other == handle, f"{answer.address} for {handle}, but {other} has it"
        assert known in {"", answer.address}, f"{answer.address} for {handle}, which has {known}"
        return answer.address

    def _delete(self, number: int, container: str) -> str:
        handle = f"{NETWORK}.{container}"
        with self._lock:
            self.held = {a: h for a, h in self.held.items() if h != handle}
        return "" if self._call(number, "DEL", container).status == 0 else "failed"

    def _call(self, number: int, verb: str, container: str) -> Answer:
        started = time.monotonic()
        answer = self._node_of(number).call(verb, container)
        ended = time.monotonic()
        with self._lock:
            self.calls.append(Done(verb, container, ended, ended - started, answer))
        return answer


class Watcher(threading.Thread):
    """Keeps what a watch of the IPAM records tells, in a thread that is inside the cluster's
    network."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        assert cluster.lan is not None, "the members have to be in namespaces"
        self.cluster = cluster
        self.known: dict[str, Entry] = {}
        self.failure: Exception | None = None
        self._store = _open(cluster.endpoints)
        self._has_begun = threading.Event()

    def begin(self) -> None:
        """What changes from now on is told."""
        self.start()
        assert self._has_begun.wait(WATCH_SECONDS), f"the watch does not begin: {self.failure}"

    def end(self) -> None:
        """The watch ends when its datastore is closed, and has had no other reason to."""
        self._store.close()
        self.join(WATCH_SECONDS)
        assert not self.is_alive()
        assert self.failure is None

    @contextlib.contextmanager
    def keep_away(self) -> Iterator[None]:
        """The watch's connection breaks, and it comes back only after the block."""
        with self._store._lock:
            for stream in list(self._store._client._streams):
                stream.interrupt()
            yield

    def run(self) -> None:
        """What the thread does."""
        assert self.cluster.lan is not None
        enter(self.cluster.lan.path)
        try:
            changes = self._store.watch(IPAM_RECORDS)
            self._has_begun.set()
            for change in changes:
                if isinstance(change, Entry):
                    self.known[change.key] = change
                else:
                    self.known.pop(change, None)
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            self.failure = error

    def assert_complete(self) -> None:
        """What was told last of every key is what is stored, soon."""
        stored = self.cluster.call(_read_all, self.cluster.endpoints)
        assert becomes_true(lambda: stored == self.known, WATCH_SECONDS), (
            f"{self.failure}: {set(stored.values()) ^ set(self.known.values())}"
        )


def _open(endpoints: list[str]) -> EtcdDatastore:
    return EtcdDatastore([parse_endpoint(url) for url in endpoints])


def _read_all(endpoints: list[str]) -> dict[str, Entry]:
    with contextlib.closing(_open(endpoints)) as store:
        return {entry.key: entry for entry in store.read([Range(IPAM_RECORDS, prefix=True)])[0]}


def _containers_of(number: int) -> list[str]:
    return [f"c{number}-{each}" for each in range(CONTAINERS_EACH)]
