"""etcd that is away, full, without a leader, or something else: what is told, by which code, how
soon; and which member is asked when one does not serve.

Most of what may still pass is tried for ten seconds, so all those cases run at the same time.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import Range
from cni_ipam.lean.http import parse_endpoint
from integration.etcd.member import find_free_ports
from integration.etcd.node import EtcdNode, put, put_node, put_pool, read_records
from integration.etcd.proxy import Proxy
from integration.etcd.refusal import assert_refused, at_once, unchanged
from integration.etcd.servers import Cluster
from integration.netns import Lab
from integration.network import find_obstacle
from integration.program import inside, run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Namespace
    from integration.program import Answer, Call

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

VERBS = ("ADD", "DEL", "CHECK", "GC")
# Ten seconds of trying, the last of which may wait ten more for an answer; twice where one call
# waits for another's lock. A runtime would wait for 90.
ENDS_WITHIN_SECONDS = 45
STATUS_SECONDS = 2.0
STARTING_SECONDS = 1.5
NOT_ETCD = "not the JSON gateway of etcd 3.4 or newer"
KUBERNETES = (
    b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    b'"message":"forbidden","reason":"Forbidden","details":{},"code":403}'
)


def http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Impostor:
    """A server that is no etcd: says the same to everybody, or nothing."""

    def __init__(self, says: bytes) -> None:
        self._says = says
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                data += client.recv(65_536)
            client.sendall(self._says)
            client.shutdown(socket.SHUT_WR)
            client.recv(65_536)

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Place:
    """Where an etcd should be, what is told of each endpoint, and from which namespace."""

    def __init__(self, endpoints: list[str], *phrases: str, wrapper: tuple[str, ...] = ()) -> None:
        self.endpoints = endpoints
        self.phrases = phrases
        self.wrapper = wrapper


NAMES = (
    "refused",
    "unresolvable",
    "black hole",
    "full queue",
    "hung",
    "no leader",
    "ssh",
    "html",
    "kubernetes",
    "bad gateway",
    "half an answer",
)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Iterator[dict[str, Place]]:
    """Every place where no etcd serves."""
    folder = tmp_path_factory.mktemp("places")
    with contextlib.ExitStack() as stack:
        hole = make_black_hole(stack.enter_context(Lab()))
        hung = stack.enter_context(Cluster("3.5", folder / "hung"))
        hung.kill(hung.members[0], signal.SIGSTOP)
        left = stack.enter_context(Cluster("3.4", folder / "left", members=3))
        alone, *others = left.members
        for member in others:
            left.kill(member)
        closed = [f"http://127.0.0.1:{port}" for port in find_free_ports("127.0.0.1", 2)]
        queue = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # A queue of none has room for one.
        stack.enter_context(socket.create_connection(queue.getsockname()))
        full = f"http://127.0.0.1:{queue.getsockname()[1]}"
        talkers = {
            "ssh": (b"SSH-2.0-OpenSSH_9.2p1\r\n", "closed the connection"),
            "html": (http("404 Not Found", b"<html>Not here</html>"), "(HTTP 404: <html>"),
            "kubernetes": (http("403 Forbidden", KUBERNETES), NOT_ETCD),
            "bad gateway": (http("502 Bad Gateway", b"<html>"), "(HTTP 502: <html>"),
            "half an answer": (http("200 OK", b"x" * 99)[:-9], "closed the connection"),
        }
        made = {
            "refused": Place(closed, *[f"{url}: Connection refused" for url in closed]),
            "unresolvable": Place(
                ["http://no-such-host.invalid:2379"], "cannot resolve no-such-host.invalid"
            ),
            "black hole": Place(
                ["http://192.0.2.99:2379"], "no answer in time", wrapper=inside(hole)
            ),
            "full queue": Place([full], f"{full}: no answer in time"),
            "hung": Place(hung.endpoints, f"{hung.endpoints[0]}: no answer in time"),
            "no leader": Place([alone.url], f"{alone.url}: "),
        }
        for name, (says, phrase) in talkers.items():
            impostor = Impostor(says)
            stack.callback(impostor.close)
            made[name] = Place([impostor.endpoint], f"{impostor.endpoint}: ", phrase)
        yield made


def make_black_hole(lab: Lab) -> Namespace:
    """A namespace in which whatever goes to 192.0.2.99 is never heard of again."""
    hole, beyond = lab.namespace("hole"), lab.namespace("beyond")
    lab.veth(hole, "hole0", beyond, "beyond0")
    hole.ip("address", "add", "192.0.2.1/24", "dev", "hole0")
    someone = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
    hole.ip("neighbour", "add", "192.0.2.99", *someone, "dev", "hole0")
    return hole


def start(place: Place, folder: Path, verb: str, node: str, **keys: object) -> Call:
    """A call whose lock is its node's."""
    caller = EtcdNode(folder, place.endpoints, node, wrapper=place.wrapper, **keys)
    netconf = caller.netconf(**{"cni.dev/valid-attachments": []})
    return caller.start(verb, "c1", netconf)


@pytest.fixture(scope="module")
def outcomes(places, tmp_path_factory) -> dict[tuple[str, str], Answer]:
    """Each verb's answer from each place, all called at the same time; and "again", an ADD that
    had to wait for another's lock."""
    folder = tmp_path_factory.mktemp("calls")
    asked = [(name, verb) for name in NAMES for verb in VERBS]
    calls = [start(places[n], folder, v, f"{n} {v}".replace(" ", "-")) for n, v in asked]
    asked += [("refused", "again")]
    calls += [start(places["refused"], folder, "ADD", "refused-ADD")]
    started = time.monotonic()
    answers = run_at_once(calls)
    assert time.monotonic() - started < ENDS_WITHIN_SECONDS
    return dict(zip(asked, answers, strict=True))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NAMES)
def test_who_is_asked_and_why_he_does_not_serve_is_told(places, outcomes, name, verb):
    """By every verb, as something that may pass: the runtime can call again."""
    assert_refused(outcomes[name, verb], 11, "etcd does not serve: ", *places[name].phrases)


def test_a_lock_is_held_no_longer_than_the_call_takes(places, outcomes):
    """Who waits for it gets in, and is told of etcd, not of the lock."""
    assert_refused(outcomes["refused", "again"], 11, *places["refused"].phrases)


@pytest.mark.parametrize("is_told", [False, True])
def test_status_answers_within_two_seconds(places, tmp_path, is_told):
    """From every place; whether as an error is the administrator's choice."""
    keys = {"status_when_unreachable": is_told}
    calls = [start(places[name], tmp_path, "STATUS", "node1", **keys) for name in NAMES]
    started = time.monotonic()
    answers = run_at_once(calls)
    assert time.monotonic() - started < STATUS_SECONDS + STARTING_SECONDS
    for name, answer in zip(NAMES, answers, strict=True):
        if is_told:
            assert_refused(answer, 50, "etcd does not serve: ")
        else:
            assert (0, b"") == (answer.status, answer.stdout), name
            assert "etcd does not serve: " in answer.stderr


@pytest.mark.parametrize("name", ["refused", "unresolvable", "ssh", "html", "kubernetes"])
@pytest.mark.parametrize("order", [1, -1])
def test_another_member_serves_at_once(places, etcd34, tmp_path, name, order):
    """Whichever of them a process begins with."""
    put_pool(etcd34, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(etcd34, "node1")
    with Proxy(etcd34.endpoints[0]) as proxy, at_once():
        endpoints = [*places[name].endpoints, proxy.endpoint][::order]
        node = EtcdNode(tmp_path, endpoints)
        addresses = {node.call("ADD", f"c{i}").address for i in range(3)}
        assert 3 == len(addresses)
        assert [0, 0, 0] == [node.call("DEL", f"c{i}").status for i in range(3)]
    assert ({}, []) == (read_records(etcd34).allocations, read_records(etcd34).findings)


def test_a_member_that_takes_no_connection_costs_half_a_second(places, etcd35, tmp_path):
    """The first round is a quick one, also where a member is beyond a firewall."""
    put_pool(etcd35, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(etcd35, "node1")
    with Proxy(etcd35.endpoints[0]) as proxy, at_once(4):
        node = EtcdNode(tmp_path, [*places["full queue"].endpoints, proxy.endpoint])
        assert 3 == len({node.call("ADD", f"c{i}").address for i in range(3)})


# What etcd itself says.


@pytest.fixture
def node(etcd, tmp_path) -> Iterator[EtcdNode]:
    """With an address, c0, and a second block to claim."""
    put_pool(etcd, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(etcd, "node1")
    with Proxy(etcd.endpoints[0]) as proxy:
        node = EtcdNode(tmp_path, [proxy.endpoint])
        assert 0 == node.call("ADD", "c0").status
        yield node


def test_a_full_etcd_is_told(etcd, node):
    """By who would write; CHECK and STATUS read, which works; afterwards all is well."""
    etcd.arm_no_space()
    with unchanged(etcd), at_once():
        collect = node.netconf(**{"cni.dev/valid-attachments": []})
        for verb, container, netconf in (
            ("ADD", "c1", None),
            ("DEL", "c0", None),
            ("GC", "", collect),
        ):
            answer = node.call(verb, container, netconf)
            assert_refused(answer, 11, "etcd is full: ", "database space exceeded", "alarm disarm")
        assert [0, 0] == [node.call(verb, "c0").status for verb in ("CHECK", "STATUS")]
    etcd.disarm()
    assert 0 == node.call("DEL", "c0").status
    assert [] == read_records(etcd).findings


def test_a_request_that_etcd_finds_too_large_is_told(lasting, tmp_path):
    """In its words; no repetition helps, and nothing is half written."""
    for version in ("3.4", "3.5"):
        cluster = lasting(f"etcd-small-{version}", version, flags=["--max-request-bytes=4096"])
        put_pool(cluster, "pool1", "10.0.0.0/20", blockSize=20)
        put_node(cluster, "node1")
        with Proxy(cluster.endpoints[0]) as proxy, unchanged(cluster), at_once():
            answer = EtcdNode(tmp_path, [proxy.endpoint]).call("ADD", "c1")
        assert_refused(answer, 5, "etcd refuses the request: ", "request is too large")


def test_history_that_is_gone_is_read_anew(etcd):
    """A long read goes on at its own revision; where that is dropped meanwhile it begins again."""
    wanted = [Range(f"/cni-ipam/{i}") for i in range(200)]
    put(etcd, "/cni-ipam/199", "old")
    with Proxy(etcd.endpoints[0]) as proxy, ThreadPoolExecutor(1) as pool:
        store = EtcdDatastore([parse_endpoint(proxy.endpoint)])
        fault = proxy.hold_request(2)
        reading = pool.submit(store.read, wanted)
        fault.wait()
        put(etcd, "/cni-ipam/199", "new")
        etcd.compact()
        fault.forward()
        found = reading.result(20)
        store.close()
    assert ["new"] == [entry.value for entry in found[199]]
    assert 4 == proxy.count()
