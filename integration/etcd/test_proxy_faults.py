"""What the recording proxy does to the messages between a plain HTTP client and a real etcd."""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from integration.etcd.client import RANGE, TXN, Client, create, read_past
from integration.etcd.gateway import encode
from integration.etcd.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

RESET = "reset by peer"  # http.client says otherwise of an end in good order


@pytest.fixture
def proxy(etcd) -> Iterator[Proxy]:
    """A proxy in front of a clean etcd."""
    with Proxy(etcd.endpoints[0], archive=[]) as made:
        yield made


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    """A connection through the proxy."""
    made = Client(proxy.endpoint)
    yield made
    made.close()


def test_a_cut_request_never_reaches_the_server(etcd, proxy, client):
    """The second request from now on is reset and not forwarded; the first is served."""
    fault = proxy.cut_request(2)
    client.put("/a", "1")
    with pytest.raises(ConnectionResetError, match=RESET):
        client.put("/a", "2")
    assert fault.reached.is_set()
    assert ["answered", "not forwarded"] == [seen.outcome for seen in proxy.requests]
    assert "1" == read_past(etcd, "/a")


def test_a_cut_answer_comes_after_the_write(etcd, proxy, client):
    """The server has answered, the client is reset, the write is recorded."""
    proxy.cut_answer(1)
    with pytest.raises(ConnectionResetError, match=RESET):
        client.put("/a", "1")
    assert "1" == read_past(etcd, "/a")
    assert ["1"] == [written.value for written in proxy.writes]


def test_after_a_cut_a_new_connection_is_served(proxy, client):
    """A fault strikes once."""
    proxy.cut_request(1)
    with pytest.raises(ConnectionResetError, match=RESET):
        client.get("/a")
    client.close()
    client.put("/a", "1")
    assert "1" == client.get("/a")


def test_a_held_request_is_a_late_write(etcd, proxy, client):
    """Its client dies, and the write comes all the same when the request is let go."""
    fault = proxy.hold_request(1)
    client.send_request("/v3/kv/put", {"key": encode("/a"), "value": encode("1")})
    fault.wait()
    client.close()
    assert read_past(etcd, "/a") is None
    fault.forward()
    proxy.settle()
    assert "1" == read_past(etcd, "/a")
    assert ["1"] == [written.value for written in proxy.writes]


def test_a_held_request_that_is_dropped_never_comes(etcd, proxy, client):
    """It is lost, and the connection reset."""
    fault = proxy.hold_request(1)
    client.send_request("/v3/kv/put", {"key": encode("/a"), "value": encode("1")})
    fault.wait()
    fault.drop()
    with pytest.raises(ConnectionResetError, match=RESET):
        client.getresponse()
    assert read_past(etcd, "/a") is None


def test_a_held_answer_comes_when_it_is_let_go(etcd, proxy, client):
    """The server has done it while the client still waits."""
    fault = proxy.hold_answer(1)
    client.send_request("/v3/kv/put", {"key": encode("/a"), "value": encode("1")})
    assert True is fault.wait().succeeded
    assert "1" == read_past(etcd, "/a")
    fault.forward()
    assert 200 == client.getresponse().status


def test_a_held_answer_that_is_dropped_is_a_reset(proxy, client):
    """As a cut, but at a time of the test's choice."""
    fault = proxy.hold_answer(1)
    client.send_request(RANGE, {"key": encode("/a")})
    fault.wait()
    fault.drop()
    with pytest.raises(ConnectionResetError, match=RESET):
        client.getresponse()


def test_disarmed_faults_do_not_strike(proxy, client):
    """What was armed and not reached is forgotten."""
    fault = proxy.cut_request(1)
    proxy.disarm()
    assert client.get("/a") is None
    assert not fault.reached.is_set()


def test_a_fault_that_is_not_reached_is_told(proxy):
    """Waiting for it ends with an assertion, not never."""
    with pytest.raises(AssertionError, match="no request came"):
        proxy.cut_request(1).wait(0.01)


def test_new_connections_are_refused_and_taken_again(proxy, client):
    """As if nobody listened; then on the same port as before."""
    client.get("/a")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        Client(proxy.endpoint).get("/a")
    assert client.get("/a") is None
    proxy.accept()
    other = Client(proxy.endpoint)
    assert other.get("/a") is None
    other.close()


def test_every_connection_is_reset(proxy, client):
    """As when a server dies; the next connection is served."""
    client.get("/a")
    proxy.reset_all()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.get("/a")
    client.close()
    assert client.get("/a") is None


def test_a_delay_makes_each_request_slower(proxy, client):
    """The request waits in the proxy."""
    client.get("/a")
    proxy.delay(0.2)
    started = time.monotonic()
    client.get("/a")
    assert time.monotonic() - started >= 0.2


def test_a_server_that_is_not_there_is_a_reset():
    """The proxy takes the connection and cannot serve it."""
    with socket.socket() as silent:
        # It never listens, and nobody else can there.
        silent.bind(("127.0.0.1", 0))
        with (
            Proxy(f"http://127.0.0.1:{silent.getsockname()[1]}") as proxy,
            # The reset may come while the client still sends, and then it keeps its socket.
            closing(Client(proxy.endpoint)) as client,
            pytest.raises(OSError, match=RESET),
        ):
            client.get("/a")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_request_whose_answer_does_not_end_is_lost(answer):
    """Nobody knows whether the server did it, and the client has no whole answer either."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy:
        client = Client(proxy.endpoint)
        client.send_request("/v3/kv/put", {"key": encode("/a"), "value": encode("1")})
        server = listener.accept()[0]
        server.recv(65536)
        server.sendall(answer)
        server.close()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            client.getresponse().read()
        client.close()
        proxy.settle()
        (seen,) = proxy.requests
        assert ("lost", None, []) == (seen.outcome, seen.succeeded, seen.writes)


def test_an_idle_connection_ends_when_the_server_ends_it():
    """In good order, as the server did."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy:
        client = Client(proxy.endpoint)
        client.connect()
        listener.accept()[0].close()
        assert b"" == client.sock.recv(1)
        client.close()


@pytest.mark.parametrize("sent", [b"", b"POST /v3/kv/ra", b"POST /x HTTP/1.1\r\n\r\n", b"\x16\x03"])
def test_clients_that_are_killed_do_no_harm(proxy, client, sent):
    """Whatever was sent before the end, others are served."""
    host, _, port = proxy.endpoint.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as killed:
        killed.sendall(sent)
    assert client.get("/a") is None


def test_a_client_that_is_killed_while_the_answer_comes_does_no_harm(proxy, client):
    """The server's answer is read to its end, and what it wrote is recorded."""
    fault = proxy.hold_answer(1)
    killed = Client(proxy.endpoint)
    killed.send_request(TXN, create("/a", "1"))
    fault.wait()
    killed.close()
    fault.forward()
    proxy.settle()
    assert ["1"] == [written.value for written in proxy.writes]
    assert "1" == client.get("/a")


def test_what_a_killed_client_has_sent_is_settled(etcd, proxy):
    """The last write of a process that died is done and recorded when the proxy has settled."""
    for number in range(50):
        killed = Client(proxy.endpoint)
        killed.send_request("/v3/kv/put", {"key": encode("/a"), "value": encode(str(number))})
        killed.close()
        proxy.settle()
        assert str(number) == proxy.writes[-1].value
        assert number + 1 == len(proxy.writes)


def test_a_request_that_is_on_its_way_is_not_settled(proxy, client):
    """Waiting for it ends with an assertion, not never."""
    proxy.delay(2.0)
    client.send_request(RANGE, {"key": encode("/a")})
    with pytest.raises(AssertionError, match="still on their way"):
        proxy.settle(0.05)
    assert 200 == client.getresponse().status


def test_what_is_held_and_watches_are_settled(proxy, client):
    """They stay as long as the test wants."""
    fault = proxy.hold_request(2)
    watcher = Client(proxy.endpoint)
    watcher.send_request("/v3/watch", {"create_request": {"key": encode("/a")}})
    watcher.getresponse().readline()
    client.send_request(RANGE, {"key": encode("/a")})
    fault.wait()
    proxy.settle()
    watcher.close()
