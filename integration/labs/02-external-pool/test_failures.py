"""What fails in lab 02: BIRD, the kernel's routes, etcd, the plugin; by either owner of the
blackholes. The client fetches nginx's page meanwhile."""

import importlib
import threading
import time
from pathlib import Path

import pytest

from integration.labs.bgp import (
    end_watch,
    expect_router,
    expect_sessions,
    is_watched,
    list_routes,
    start_bird,
    start_watch,
)
from integration.labs.lab import Lab, find_lab_obstacle
from integration.network import PATIENCE_SECONDS, becomes_true
from integration.page import Page

OBSTACLE = find_lab_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

story = importlib.import_module("integration.labs.02-external-pool.story")

NAMESPACE = story.NAMESPACE
PLUGIN = "/opt/cni/bin/cni-ipam"
DOWN_SECONDS = 20
# A thread that the signal has not reached yet goes on, and may answer.
STOP_ETCD = """kill -STOP $(pidof etcd)
while grep -h ^State: /proc/$(pidof etcd)/task/*/status | grep -qv stopped; do sleep 0.05; done"""
# With /run/slow an ADD pauses before each socket that it opens: to Kubernetes, to etcd, and last,
# when the address is recorded, to the kernel's routes.
SLOW_PLUGIN = """#!/bin/bash
[ "$CNI_COMMAND" = ADD ] && [ -e /run/slow ] || exec {plugin}
exec strace -f -qq -o /dev/null -e trace=socket -e inject=socket:delay_enter=1500000 {plugin}
"""


@pytest.fixture(scope="module", params=story.OWNERS)
def begun(request):
    """The story up to where the client reaches nginx."""
    with Lab(Path(__file__).parent, Page()) as lab:
        begun = story.Story(lab, request.param)
        begun.begin()
        yield begun


@pytest.fixture
def told(begun):
    """The same, and afterwards only nginx runs, with BIRD and `routes watch` beside it."""
    yield begun
    for pod in begun.lab.pods(NAMESPACE):
        if pod["metadata"]["name"] != begun.name:
            begun.lab.delete_pod(NAMESPACE, pod["metadata"]["name"])
    if not is_watched(begun.lab, begun.node):
        start_watch(begun.lab, begun.node)
    assert is_sound(begun)
    assert becomes_true(begun.is_served)


class Fetching:
    """The client fetches nginx's page, again and again within the `with` block."""

    def __init__(self, told):
        self._told = told
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.answers = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _work(self):
        while not self._ended.wait(0.1):
            self.answers.append(self._told.is_served())


def flush(told):
    """Take the node's own routes away, whoever made them."""
    told.lab.ask(told.node, "ip route flush proto 85; ip route flush type blackhole")


def runs_soon(lab, name):
    """Wait for a pod, whatever was said against it so far; its address."""
    assert becomes_true(lambda: lab.pod_addresses(NAMESPACE, name) != [])
    [address] = lab.pod_addresses(NAMESPACE, name)
    return address


def is_sound(told):
    """Whether the records agree with each other, and the node's routes with the records."""
    lab = told.lab
    return 0 == lab.attempt("node1", "ipamctl ipam check").returncode and becomes_true(
        lambda: 0 == lab.attempt(told.node, "ipamctl routes check").returncode
    )


def install_slow_plugin(machine):
    """Put it in the place of the plugin, which stays beside it under another name."""
    place = machine.path(PLUGIN)
    plugin = place.readlink()
    machine.path(f"{PLUGIN}.real").symlink_to(plugin)
    place.unlink()
    place.write_text(SLOW_PLUGIN.format(plugin=plugin))
    place.chmod(0o755)


def test_bird_killed_and_restarted_is_not_noticed_by_the_client(told):
    """The kernel forwards as before, and the router keeps the route for a graceful restart."""
    lab, node = told.lab, told.node
    whole = list_routes(lab, node)
    with Fetching(told) as fetching:
        lab.ask(node, "kill -KILL $(cat /run/bird/bird.pid)")
        session = f"birdc show protocols {node}"
        assert becomes_true(lambda: "Established" not in lab.ask("router", session))
        count = len(fetching.answers) + 20
        assert becomes_true(lambda: len(fetching.answers) > count)
        assert whole == list_routes(lab, node)
        start_bird(lab, node)
        expect_sessions(lab)
        expect_router(lab, {told.block: node})
    assert [] == [answer for answer in fetching.answers if not answer]
    assert becomes_true(lambda: whole == list_routes(lab, node))


def test_flushed_routes_are_mended_by_repair(told):
    """`routes check` says what is missing, and then that nothing is."""
    lab, node = told.lab, told.node
    whole = list_routes(lab, node)
    end_watch(lab, node)
    flush(told)
    assert not told.is_served()

    done = lab.attempt(node, "ipamctl routes check")
    lab.ask(node, "ipamctl routes repair")

    assert (1, True) == (done.returncode, f"missing: {told.address}" in done.stdout)
    assert is_sound(told)
    assert becomes_true(lambda: whole == list_routes(lab, node))
    assert becomes_true(told.is_served)


def test_flushed_routes_are_mended_by_watch(told):
    """At once, and nobody has to do anything."""
    whole = list_routes(told.lab, told.node)

    flush(told)

    assert becomes_true(lambda: whole == list_routes(told.lab, told.node))
    assert becomes_true(told.is_served)


def test_a_flushed_blackhole_is_made_again_by_the_next_add(told):
    """By the ADD itself, or by BIRD's next look at the kernel's routes."""
    lab, node = told.lab, told.node
    end_watch(lab, node)
    flush(told)

    lab.run_pod(node, NAMESPACE, "next")

    assert becomes_true(lambda: told.blackhole in list_routes(lab, node))


def test_etcd_down_stops_no_traffic_and_an_add_says_what_is_wrong(told):
    """Stopped for 20 s: the pods stay reachable; a new one is refused, clearly, and comes later."""
    lab = told.lab
    with Fetching(told) as fetching:
        lab.ask("etcd", STOP_ETCD)
        try:
            lab.make_pod(told.node, NAMESPACE, "late")
            end = time.monotonic() + DOWN_SECONDS
            refused = becomes_true(
                lambda: (
                    time.monotonic() > end
                    and len(fetching.answers) > DOWN_SECONDS
                    and lab.refusals(NAMESPACE, "late") != []
                ),
                DOWN_SECONDS + PATIENCE_SECONDS,
            )
        finally:
            lab.ask("etcd", "kill -CONT $(pidof etcd)")
        address = runs_soon(lab, "late")
    assert refused
    reason = "etcd does not serve: http://172.20.20.11:2379"
    assert any(reason in said for said in lab.refusals(NAMESPACE, "late"))
    assert [] == [answer for answer in fetching.answers if not answer]
    assert becomes_true(lambda: lab.fetches("client", address, "late"))


def test_plugin_killed_between_the_record_and_the_route_is_healed(told):
    """By the runtime's DEL and its next ADD; nothing is left of the first."""
    lab, node = told.lab, told.node
    machine = lab.machines[node]
    install_slow_plugin(machine)
    records = "etcdctl get --prefix --keys-only /calico/ipam/v2/handle/"
    before = lab.ask("etcd", records)
    machine.path("/run/slow").touch()

    lab.make_pod(node, NAMESPACE, "twice")
    recorded = becomes_true(lambda: before != lab.ask("etcd", records))
    # Where BIRD has the blackholes the first process may have ended; the chained one comes then.
    lab.ask(node, "timeout 20 sh -c 'until pkill -KILL -x cni-ipam; do sleep 0.02; done'")
    machine.path("/run/slow").unlink()
    address = runs_soon(lab, "twice")

    lab.ask(node, f"ln -sf $(readlink -f {PLUGIN}.real) {PLUGIN}")
    assert recorded
    assert 1 == len(lab.refusals(NAMESPACE, "twice"))
    assert becomes_true(lambda: lab.fetches("client", address, "twice"))
    used = [line for line in lab.ask(node, "ip route").splitlines() if "scope link" in line]
    assert 2 == len([line for line in used if line.startswith("198.19.")])
