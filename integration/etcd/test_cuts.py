"""A call that is cut off from etcd at each of its requests and answers in turn, or killed there.

Whatever the moment: the store is sound, nobody else's address is touched or given again, an
acknowledged address stays recorded, and the runtime's DEL and GC leave nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.lean.http import parse_endpoint
from integration.etcd.faults import IPAM_RECORDS, assert_sound
from integration.etcd.node import put
from integration.etcd.proxy import PATIENCE_SECONDS, Proxy
from integration.etcd.scene import CONTAINER, FIXED, FIXED_ADDRESS, HANDLE, OPERATIONS, Scene
from integration.etcd.users import CALICO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.etcd.exchange import Exchange
    from integration.etcd.servers import Cluster

# For what etcd has no part in: how a call that was killed is followed by others.
ONE_VERSION = pytest.mark.parametrize("etcd", ["3.5"], indirect=True)


@pytest.fixture
def proxy(etcd: Cluster) -> Iterator[Proxy]:
    with Proxy(etcd.endpoints[0]) as made:
        yield made


@pytest.fixture(params=OPERATIONS)
def scene(request: pytest.FixtureRequest, etcd: Cluster, tmp_path: Path, proxy: Proxy) -> Scene:
    return Scene(etcd, tmp_path, proxy, request.param)


def make_scene(etcd: Cluster, folder: Path, proxy: Proxy, operation: str) -> Scene:
    made = Scene(etcd, folder, proxy, operation)
    made.restore()
    return made


def find_write(requests: list[Exchange]) -> int:
    """The number, from 1, of the only request that writes: block, handle, affinity in one."""
    (number,) = [n for n, request in enumerate(requests, 1) if request.writes]
    return number


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_call_that_lives_succeeds(scene, lost):
    """The k-th request is lost, or its answer; asked again, the same call says the same."""
    cut = scene.proxy.cut_request if lost == "request" else scene.proxy.cut_answer
    for number in range(1, len(scene.list_requests()) + 1):
        scene.restore()
        fault = cut(number)
        first = scene.run()
        assert 0 == first.status, f"{lost} {number}: {first.stdout!r}"
        assert fault.reached.is_set()
        assert_sound(scene.read(), scene.held)
        assert first.stdout == scene.run().stdout
        scene.assert_others_are_served()
        scene.assert_nothing_remains()


@ONE_VERSION
@pytest.mark.parametrize("moment", ["request lost", "request late", "answer"])
def test_a_call_that_is_killed_leaves_nothing_behind(scene, moment):
    """With the k-th request under way, which reaches etcd or does not; before the k-th answer."""
    for number in range(1, len(scene.list_requests()) + 1):
        scene.restore()
        hold = scene.proxy.hold_answer if moment == "answer" else scene.proxy.hold_request
        fault = hold(number)
        scene.run_until(fault)
        if moment == "request late":
            fault.forward()
        else:
            fault.drop()
        scene.proxy.settle()
        assert_sound(scene.read(), scene.held)
        scene.assert_others_are_served()
        scene.assert_nothing_remains()


ADDS = [name for name, wanted in OPERATIONS.items() if wanted["verb"] == "ADD"]
REMOVALS = [name for name in OPERATIONS if name not in ADDS]


@ONE_VERSION
@pytest.mark.parametrize("operation", ADDS)
def test_an_add_that_died_before_its_answer_is_taken_up(etcd, tmp_path, proxy, operation):
    """The same ADD answers with what the first one recorded, and takes nothing more."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    fault = proxy.hold_answer(find_write(scene.list_requests()))
    scene.run_until(fault)
    fault.drop()
    recorded = {a for a, h in scene.read().allocations.items() if h == HANDLE}
    assert recorded == set(scene.acknowledge(scene.start().answer(), CONTAINER))
    assert scene.held == scene.read().allocations


@ONE_VERSION
@pytest.mark.parametrize("operation", ADDS)
def test_an_add_that_died_is_collected(etcd, tmp_path, proxy, operation):
    """A runtime that never asks DEL for it loses nothing: GC alone takes the address back."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    fault = proxy.hold_answer(find_write(scene.list_requests()))
    scene.run_until(fault)
    fault.drop()
    assert set(scene.held) < set(scene.read().allocations)
    assert 0 == scene.node.collect(scene.living).status
    records = scene.read()
    assert (scene.held, []) == (records.allocations, records.findings)


# Where Calico's own plugin fails (facts 9.32 and 9.33)


@pytest.mark.parametrize("operation", ADDS)
def test_a_lost_answer_to_the_write_costs_no_address(etcd, tmp_path, proxy, operation):
    """It is read back and not written again; the handle counts what it has, and DEL finds it."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    number = find_write(scene.list_requests())
    proxy.cut_answer(number)
    assert 0 == scene.run().status
    sent = proxy.requests
    assert number == find_write(sent)
    assert ["range"] == sorted({step.kind for step in sent[number].operations})
    assert scene.held == scene.read().allocations
    scene.assert_nothing_remains()


@ONE_VERSION
@pytest.mark.parametrize("operation", ADDS)
def test_a_read_back_that_is_lost_is_read_again(etcd, tmp_path, proxy, operation):
    """The answer to the write is lost, and that to the reading back as well."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    number = find_write(scene.list_requests())
    faults = [proxy.cut_answer(number), proxy.cut_answer(number + 1)]
    assert 0 == scene.run().status
    assert [True, True] == [fault.reached.is_set() for fault in faults]
    assert number == find_write(proxy.requests)
    assert scene.held == scene.read().allocations


@ONE_VERSION
@pytest.mark.parametrize("operation", REMOVALS)
def test_a_removal_that_is_cut_leaves_no_handle(etcd, tmp_path, proxy, operation):
    """Wherever it dies, without being asked again, a handle is there only with its address."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    for number in range(1, len(scene.list_requests()) + 1):
        for hold in (proxy.hold_request, proxy.hold_answer):
            scene.restore()
            fault = hold(number)
            scene.run_until(fault)
            fault.drop()
            proxy.settle()
            records = scene.read()
            assert set(records.allocations.values()) == {handle.id for handle in records.handles}


# Writes that reach etcd when nobody waits for them any more


def test_a_late_add_does_not_take_what_another_has_got(etcd, tmp_path, proxy):
    """The killed call's transaction comes after DEL and after the next pod's ADD: it fails."""
    scene = make_scene(etcd, tmp_path, proxy, "ADD of a fixed address")
    fault = proxy.hold_request(find_write(scene.list_requests()))
    scene.run_until(fault)
    assert 0 == scene.node.call("DEL", CONTAINER).status
    next_one = scene.node.call("ADD", "next", **FIXED)
    assert [FIXED_ADDRESS] == scene.acknowledge(next_one, "next")
    fault.forward()
    proxy.settle()
    assert fault.exchange.succeeded is False
    assert_sound(scene.read(), scene.held)
    scene.assert_nothing_remains()


@ONE_VERSION
@pytest.mark.parametrize("operation", ADDS)
def test_a_late_add_is_collected(etcd, tmp_path, proxy, operation):
    """Where nobody has touched the block since, not even DEL, which had nothing to take back, the
    late transaction is valid; its address is given to nobody else, and GC takes it back."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    fault = proxy.hold_request(find_write(scene.list_requests()))
    scene.run_until(fault)
    assert 0 == scene.node.call("DEL", CONTAINER).status
    fault.forward()
    proxy.settle()
    assert fault.exchange.succeeded is True
    scene.assert_others_are_served()
    assert 0 == scene.node.collect(scene.living).status
    records = scene.read()
    assert (scene.held, []) == (records.allocations, records.findings)


@pytest.mark.parametrize("operation", ["DEL", "GC"])
def test_a_late_removal_does_not_take_what_another_has_got(etcd, tmp_path, proxy, operation):
    """The killed call's transaction comes when the next pod has the address: it fails."""
    scene = make_scene(etcd, tmp_path, proxy, operation)
    ((address, _),) = [item for item in scene.held.items() if item[1] == HANDLE]
    fault = proxy.hold_request(find_write(scene.list_requests()))
    scene.run_until(fault)
    assert 0 == scene.node.call("DEL", CONTAINER).status
    next_one = scene.node.call("ADD", "next", CNI_ARGS=f"IP={address}")
    assert [address] == scene.acknowledge(next_one, "next")
    fault.forward()
    proxy.settle()
    assert fault.exchange.succeeded is False
    assert_sound(scene.read(), scene.held)
    scene.assert_nothing_remains()


def test_a_late_add_of_a_living_call_is_not_done_twice(etcd, tmp_path, proxy):
    """Its connection breaks while the transaction is under way; it is sent again over another, and
    when the first one arrives after all, it fails."""
    scene = make_scene(etcd, tmp_path, proxy, "ADD in the steady state")
    fault = proxy.hold_request(find_write(scene.list_requests()))
    call = scene.start()
    held = fault.wait()
    proxy.reset_all()
    answer = call.answer()
    scene.acknowledge(answer, CONTAINER)
    fault.forward()
    proxy.settle()
    assert [] == held.writes
    assert scene.held == scene.read().allocations
    scene.assert_nothing_remains()


def test_a_watch_goes_on_when_its_token_has_expired(etcd_auth):
    """Its connection breaks, and etcd no longer knows the token with which it comes back."""
    with Proxy(etcd_auth.endpoints[0]) as proxy:
        endpoint = parse_endpoint(proxy.endpoint)
        store = EtcdDatastore([endpoint], None, CALICO.name, CALICO.password)
        changes = store.watch(IPAM_RECORDS)
        patience = threading.Timer(PATIENCE_SECONDS, store.close)
        patience.start()
        told = []
        for value in "123":
            put(etcd_auth, f"{IPAM_RECORDS}key", value)
            told.append(next(changes).value)
            etcd_auth.expire_tokens(CALICO)
            proxy.reset_all()
        patience.cancel()
        store.close()
    assert ["1", "2", "3"] == told
