from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean import http
from cni_ipam.lean.http import MAX_HEADER_BYTES, Answer, Connection, Endpoint, Failed, Request
from tests.lean.servers import HANG_UP, RESET, SILENCE, ScriptedServer, answer, chunked

if TYPE_CHECKING:
    from collections.abc import Iterator


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def post(connection: Connection, body: bytes = b"{}", deadline: float | None = None) -> Answer:
    request = Request("POST", "/p", "", body)
    return connection.ask(request, 5.0, soon() if deadline is None else deadline)


def fail(*script: bytes, seconds: float = 20.0) -> Failed:
    """How the last request of a script fails."""
    with ScriptedServer(script) as server:
        connection = Connection(server.endpoint)
        for _ in script[:-1]:
            post(connection)
        with pytest.raises(Failed) as caught:
            post(connection, deadline=soon(seconds))
        connection.close()
    return caught.value


def test_a_request_is_answered() -> None:
    """Method, path, host, further headers and length are sent; status and body come back."""
    with ScriptedServer([answer(b"hello", "404 Not Found")]) as server:
        connection = Connection(server.endpoint)
        request = Request("POST", "/v3/x", "Authorization: t\r\n", b"body")
        got = connection.ask(request, 5.0, soon())
        connection.close()
    host = f"127.0.0.1:{server.endpoint.port}"
    expected = (
        f"POST /v3/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: t\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert Answer(404, b"hello", {"content-length": "5"}) == got
    assert [expected.encode()] == server.requests


def test_a_connection_is_kept() -> None:
    """Requests one after another share a connection."""
    with ScriptedServer([answer(b"1"), chunked(b"2"), answer(b"")]) as server:
        connection = Connection(server.endpoint)
        bodies = [post(connection).body for _ in range(3)]
        connection.close()
    assert ([b"1", b"2", b""], 1) == (bodies, server.connections)


def test_a_connection_that_the_server_ends_is_made_anew() -> None:
    """`Connection: close` is heeded: the next request opens another one."""
    with ScriptedServer([answer(b"1", "200 OK", "Connection: close"), answer(b"2")]) as server:
        connection = Connection(server.endpoint)
        assert [b"1", b"2"] == [post(connection).body for _ in range(2)]
        connection.close()
    assert 2 == server.connections


def test_chunks_and_their_trailer_are_read() -> None:
    """Chunks are put together, and what follows them does not spoil the next answer."""
    first = chunked(b"ab", b"c" * 70_000, trailer="Grpc-Trailer: x\r\nOther: y\r\n")
    with ScriptedServer([first, answer(b"next")]) as server:
        connection = Connection(server.endpoint)
        assert b"ab" + b"c" * 70_000 == post(connection).body
        assert b"next" == post(connection).body
        connection.close()


def test_an_answer_may_come_byte_by_byte() -> None:
    """No boundary of packets matters."""
    whole = chunked(b"abc", b"d", trailer="T: t\r\n")

    class Trickling(ScriptedServer):
        def _answer(self, connection: socket.socket, step: bytes) -> bool:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(step)):
                connection.sendall(step[i : i + 1])
            return True

    with Trickling([whole]) as server:
        connection = Connection(server.endpoint)
        assert b"abcd" == post(connection).body
        connection.close()


def test_a_large_body_is_sent_and_received() -> None:
    """Megabytes in both directions."""
    big = b"x" * 5_000_000
    with ScriptedServer([answer(big)]) as server:
        connection = Connection(server.endpoint)
        assert big == post(connection, big).body
        connection.close()
    assert server.requests[0].endswith(big)


def test_a_refused_connection_was_not_sent() -> None:
    """Nobody listens: the server cannot have seen the request."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # without listening, so that nobody else gets the port
        connection = Connection(Endpoint("http", "127.0.0.1", nobody.getsockname()[1]))
        with pytest.raises(Failed) as caught:
            post(connection)
    assert ("Connection refused", False) == (caught.value.why, caught.value.is_sent)


def test_an_unknown_host_was_not_sent() -> None:
    """The message names the host that has no address."""
    with pytest.raises(Failed) as caught:
        post(Connection(Endpoint("http", "no-such-host.invalid", 1)))
    assert "cannot resolve no-such-host.invalid" in caught.value.why
    assert not caught.value.is_sent


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (RESET, "Connection reset by peer"),
        (HANG_UP, "the server closed the connection"),
        (answer(b"hello")[:-2], "no answer in time"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "what answers does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "its answer has no length, or too great a one"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "its answer has no length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", "too great a one"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "its answer is not in chunks, as it says",
        ),
        (b"x" * (MAX_HEADER_BYTES + 2), "its header does not end"),
        (SILENCE, "no answer in time"),
    ],
)
def test_a_broken_answer_may_have_been_acted_on(step: bytes, why: str) -> None:
    """Once the request was sent, a failure says that the server can have seen it."""
    failed = fail(answer(b"fine"), step, seconds=0.5 if why == "no answer in time" else 20.0)
    assert why in failed.why
    assert failed.is_sent


def test_the_deadline_holds_for_an_answer_that_trickles() -> None:
    """Each byte resets nothing: the whole answer has one deadline."""
    stop = threading.Event()

    class Endless(ScriptedServer):
        def _answer(self, connection: socket.socket, step: bytes) -> bool:
            while not stop.wait(0.01):
                connection.sendall(step)
            return False

    with Endless([b"x"]) as server:
        connection = Connection(server.endpoint)
        started = time.monotonic()
        with pytest.raises(Failed, match="no answer in time"):
            post(connection, deadline=soon(0.3))
        took = time.monotonic() - started
        stop.set()
    assert took < 5


def test_after_a_failure_the_connection_is_made_anew() -> None:
    """A lost connection does not spoil the next request."""
    with ScriptedServer([RESET, answer(b"again")]) as server:
        connection = Connection(server.endpoint)
        with pytest.raises(Failed):
            post(connection)
        assert b"again" == post(connection).body
        connection.close()


@pytest.fixture
def streaming() -> Iterator[Iterator[bytes]]:
    """A stream that has told one piece, and waits."""
    with ScriptedServer([chunked(b"one")[:-5]]) as server:
        connection = Connection(server.endpoint)
        status, pieces = connection.stream(Request("POST", "/w"), 5.0, soon())
        assert (200, b"one") == (status, next(pieces))
        yield connection, pieces
        connection.close()


def test_a_stream_can_be_interrupted(streaming) -> None:
    """Its pieces are had as they come; another thread ends it while it waits for the next."""
    connection, pieces = streaming
    timer = threading.Timer(0.05, connection.interrupt)
    timer.start()
    with pytest.raises(Failed):
        next(pieces)
    timer.join()


def test_a_stream_interrupted_before_it_begins_does_not_begin() -> None:
    """No moment is too early for an interruption."""
    with ScriptedServer([]) as server:
        connection = Connection(server.endpoint)
        connection.interrupt()
        with pytest.raises(Failed, match="interrupted"):
            connection.stream(Request("POST", "/w"), 5.0, soon())


def test_an_address_that_is_silent_leaves_time_for_the_next(monkeypatch) -> None:
    """A name may have several, of which one is a machine that is down."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = fill(silent)
    with ScriptedServer([answer(b"hello")]) as server:
        places = [silent.getsockname(), ("127.0.0.1", server.endpoint.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(http, "_find_addresses", lambda _: found)
        connection = Connection(server.endpoint)
        request = Request("POST", "/p", "", b"{}")
        got = connection.ask(request, 1.0, soon())
        connection.close()
    for filler in fillers:
        filler.close()
    silent.close()
    assert b"hello" == got.body


def fill(server: socket.socket) -> list[socket.socket]:
    """Sockets that fill the backlog of a server which accepts nobody: further ones wait for it."""
    made = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
        made.append(sock)
    return made
