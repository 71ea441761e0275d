"""A call that is killed, or cut off from the API server, at each of its requests and answers.

Here a call's writes are one after the other, so what it leaves is some prefix of them. Whatever the
moment: nothing is unsound, nobody else's address is touched or given again, an acknowledged address
stays recorded, the same call succeeds when it is repeated, and the runtime's DEL and GC leave
nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.cluster.node import (
    ACCOUNT,
    ApiNode,
    Snapshot,
    clear_records,
    custom_resources,
    put_pool,
    read_records,
    second_node,
)
from integration.cluster.proxy import ApiProxy
from integration.etcd.scene import CONTAINER, HANDLE, OPERATIONS, Scene
from integration.program import run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.cluster.cluster import Cluster
    from integration.network import Records

ADDS = ["ADD that claims a block", "ADD in the steady state", "ADD that borrows"]
REMOVALS = ["DEL", "GC"]
UNSOUND = "unsound"


class ApiScene(Scene):
    """A scene whose datastore is the API server, reached by the plugin's own account."""

    def __init__(self, cluster: Cluster, folder: Path, proxy: ApiProxy, operation: str) -> None:
        wanted = OPERATIONS[operation]
        settings = wanted.get("settings", {})
        self.cluster = cluster
        self.proxy = proxy
        self.verb = wanted["verb"]
        kubeconfig = cluster.kubeconfig(ACCOUNT, server=proxy.endpoint)
        self.node = ApiNode(folder, cluster, kubeconfig, "node1", **settings)
        self.other = ApiNode(folder, cluster, kubeconfig, "node2", **settings)
        self._variables = wanted.get("variables", {})
        self._owns = wanted.get("owns", False)
        put_pool(cluster, "pool", wanted.get("pool", "10.77.0.0/27"), blockSize=29)
        if settings:
            put_pool(cluster, "pool6", "fd00:77::/120", blockSize=125)
        self.held: dict[str, str] = {}
        self._make_calls_before()
        self._held_before = dict(self.held)
        self._snapshot = Snapshot(cluster)

    def read(self) -> Records:
        """Every record."""
        return read_records(self.cluster)

    def assert_safe(self) -> None:
        """What a call left behind when it was cut short harms nobody."""
        records = self.read()
        allocations = records.allocations
        assert [] == [found for found in records.findings if found.startswith(UNSOUND)]
        assert {} == {a: h for a, h in self.held.items() if allocations.get(a) != h}
        families = Counter((handle, ":" in address) for address, handle in allocations.items())
        assert [] == [owner for owner, number in families.items() if number > 1]

    def assert_others_are_served(self) -> None:
        """The other node and this one get addresses that nobody has."""
        calls = {f"late-{node.node}": node for node in (self.node, self.other)}
        answers = run_at_once([node.start("ADD", name) for name, node in calls.items()])
        for container, answer in zip(calls, answers, strict=True):
            self.acknowledge(answer, container)
        self.assert_safe()


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    with custom_resources(cluster), second_node(cluster, "node2"):
        yield cluster


@pytest.fixture
def proxy(prepared: Cluster) -> Iterator[ApiProxy]:
    with ApiProxy(prepared) as made:
        yield made
    clear_records(prepared)


@pytest.fixture(params=[*ADDS, *REMOVALS])
def scene(
    request: pytest.FixtureRequest, prepared: Cluster, tmp_path: Path, proxy: ApiProxy
) -> ApiScene:
    return ApiScene(prepared, tmp_path, proxy, request.param)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_call_that_lives_succeeds(scene, lost):
    """The k-th request is lost, or its answer; asked again, the same call says the same."""
    cut = scene.proxy.cut_request if lost == "request" else scene.proxy.cut_answer
    for number, request in enumerate(scene.list_requests(), 1):
        scene.restore()
        fault = cut(number)
        first = scene.run()
        assert 0 == first.status, f"{lost} {number} {request.what}: {first.stdout!r}"
        assert fault.reached.is_set()
        scene.assert_safe()
        assert first.stdout == scene.run().stdout
        scene.assert_others_are_served()
        scene.assert_nothing_remains()


@pytest.mark.parametrize("moment", ["request lost", "request late", "answer"])
def test_a_call_that_is_killed_leaves_nothing_behind(scene, moment):
    """With the k-th request under way, which is served or not; before the k-th answer."""
    for number in range(1, len(scene.list_requests()) + 1):
        scene.restore()
        kill(scene, moment, number)
        scene.assert_safe()
        scene.assert_others_are_served()
        scene.assert_nothing_remains()


@pytest.mark.parametrize("moment", ["request lost", "answer"])
def test_a_call_that_was_killed_can_be_repeated(scene, moment):
    """It succeeds, and what an ADD had recorded before it died is what it gets; that its claim is
    not confirmed is mended by the node's next ADD. A handle that a GC has not come to is left to
    the container's DEL: who collects looks at blocks alone."""
    for number in range(1, len(scene.list_requests()) + 1):
        scene.restore()
        kill(scene, moment, number)
        recorded = {a for a, h in scene.read().allocations.items() if h == HANDLE}
        answer = scene.run()
        assert 0 == answer.status, answer.stdout
        scene.assert_safe()
        if scene.verb == "ADD":
            assert recorded <= set(answer.addresses)
        assert scene.held == scene.read().allocations
        scene.assert_others_are_served()
        if scene.verb != "GC":
            assert [] == scene.read().findings
        scene.assert_nothing_remains()


@pytest.mark.parametrize("operation", ["ADD of both families", "DEL of both families"])
def test_a_call_for_both_families_can_be_repeated(prepared, tmp_path, proxy, operation):
    """Killed before any answer, perhaps with one family recorded and the other not."""
    scene = ApiScene(prepared, tmp_path, proxy, operation)
    for number in range(1, len(scene.list_requests()) + 1):
        scene.restore()
        kill(scene, "answer", number)
        scene.assert_safe()
        answer = scene.run()
        assert 0 == answer.status, answer.stdout
        assert scene.held == scene.read().allocations
        scene.assert_others_are_served()
        assert [] == scene.read().findings
        scene.assert_nothing_remains()


@pytest.mark.parametrize("operation", ["ADD that claims a block", "ADD in the steady state", "DEL"])
def test_a_late_write_takes_nothing_from_others(prepared, tmp_path, proxy, operation):
    """It reaches the API server when its caller was killed long ago, the runtime's DEL is done, and
    the addresses and the handle are in use again."""
    scene = ApiScene(prepared, tmp_path, proxy, operation)
    sent = scene.list_requests()
    writes = [number for number, request in enumerate(sent, 1) if request.is_write]
    assert writes
    for number in writes:
        scene.restore()
        fault = proxy.hold_request(number)
        scene.run_until(fault)
        assert 0 == scene.node.call("DEL", CONTAINER).status
        scene.assert_others_are_served()
        scene.acknowledge(scene.node.call("ADD", CONTAINER), CONTAINER)
        fault.forward()
        proxy.settle()
        scene.assert_safe()
        scene.assert_nothing_remains()


def kill(scene: ApiScene, moment: str, number: int) -> None:
    """Make the call, and kill it at its `number`-th request or answer."""
    hold = scene.proxy.hold_answer if moment == "answer" else scene.proxy.hold_request
    fault = hold(number)
    scene.run_until(fault)
    if moment == "request late":
        fault.forward()
    else:
        fault.drop()
    scene.proxy.settle()


def test_the_steady_state_takes_few_requests(prepared, tmp_path, proxy):
    """Those of an ADD and of a DEL that nothing disturbs; a pod and its namespace are two more."""
    for operation, most in (("ADD in the steady state", 8), ("DEL", 8)):
        scene = ApiScene(prepared, tmp_path, proxy, operation)
        sent = [request.what for request in scene.list_requests()]
        assert len(sent) <= most, sent
        clear_records(prepared)
