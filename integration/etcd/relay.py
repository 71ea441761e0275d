"""One client's connection through the proxy: HTTP/1.1 in both directions, message by message."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.etcd.exchange import Exchange
    from integration.etcd.proxy import Fault, Proxy

    Piece = tuple[bytes, bytes, bool]

PIECE_BYTES = 262_144
# Enough for the head of any answer, which says whether a transaction succeeded, and for errors.
KEPT_ANSWER_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)


def is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    try:
        poll.register(sock, select.POLLIN)
    except ValueError:
        return False  # it is closed
    return bool(poll.poll(0))


class _Closed(OSError):
    """A side ended the connection in good order."""


class _Cut(OSError):
    """A fault ends the connection."""


class _Peer:
    """One side of a connection: a socket, and what was read of it too early.

    While there is a `companion`, its end ends the waiting for this side, too."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.buffer = b""
        self.companion: socket.socket | None = None
        self._is_waiting = False

    @property
    def is_quiet(self) -> bool:
        """Whether all that came was taken, and more is waited for."""
        # In this order: it is set back before anything is taken.
        return self._is_waiting and not is_readable(self.socket) and self._is_waiting

    def receive(self) -> bytes:
        """What is there, at least a byte. Raises _Closed at the end."""
        if not self.buffer:
            self._wait()
        piece, self.buffer = self.buffer or self.socket.recv(PIECE_BYTES), b""
        if not piece:
            raise _Closed
        return piece

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if self.companion is not None:
            poll.register(self.companion, select.POLLIN)
        self._is_waiting = True
        ready = [number for number, _ in poll.poll()]
        self._is_waiting = False
        if self.companion is None or self.socket.fileno() in ready:
            return
        if not self.companion.recv(1, socket.MSG_PEEK):
            raise _Closed
        # It talks out of turn: that can wait, but would be ready for ever.
        self.companion = None

    def receive_until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        data = self.receive()
        while (end := data.find(mark)) < 0:
            data += self.receive()
        end += len(mark)
        data, self.buffer = data[:end], data[end:]
        return data

    def receive_exactly(self, length: int) -> Iterator[bytes]:
        """`length` bytes, as they come."""
        while length:
            piece = self.receive()
            piece, self.buffer = piece[:length], piece[length:]
            length -= len(piece)
            yield piece

    def receive_body(self, head: bytes, *, is_answer: bool) -> Iterator[Piece]:
        """The body after `head` in pieces: as on the wire, what it means, whether it is the last;
        there is always a last one."""
        headers = head.lower()
        if re.search(rb"\r\ntransfer-encoding:[^\r]*chunked", headers):
            yield from self._receive_chunks()
        elif found := re.search(rb"\r\ncontent-length:\s*(\d+)", headers):
            length = int(found[1])
            for piece in self.receive_exactly(length):
                length -= len(piece)
                yield piece, piece, not length
            if not int(found[1]):
                yield b"", b"", True
        else:
            if is_answer and headers.split(b" ", 2)[1] not in (b"204", b"304"):
                with contextlib.suppress(_Closed):
                    while piece := self.receive():
                        yield piece, piece, False
            yield b"", b"", True

    def _receive_chunks(self) -> Iterator[Piece]:
        while True:
            line = self.receive_until(b"\r\n")
            data = b"".join(self.receive_exactly(int(line.partition(b";")[0], 16)))
            if not data:
                while (trailer := self.receive_until(b"\r\n")) != b"\r\n":
                    line += trailer
                yield line + trailer, b"", True
                return
            yield line + data + self.receive_until(b"\r\n"), data, False


class Relay(threading.Thread):
    """Serves a client's connection until either side ends it or a fault does."""

    def __init__(
        self, proxy: Proxy, number: int, client: socket.socket, forget: Callable[[Relay], None]
    ) -> None:
        super().__init__(daemon=True, name=f"proxy connection {number}")
        self._proxy = proxy
        self._number = number
        self._client = _Peer(client)
        self._server: _Peer | None = None
        self._forget = forget
        self._is_client_gone = False
        self._exchange: Exchange | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is on its way here; what is held and streams do not count."""
        exchange = self._exchange
        if exchange is not None and (exchange.is_held or exchange.is_stream):
            return True
        return self._client.is_quiet

    def run(self) -> None:
        """Serve, then close the client's side as the server's was: in good order, or not."""
        is_reset = True
        try:
            self._client = _Peer(self._proxy.take(self._client.socket))
            self._server = _Peer(self._proxy.connect())
            self._server.socket.settimeout(None)
            self._client.companion = self._server.socket
            while True:
                self._serve(self._server)
        except _Closed:
            is_reset = False
        except (OSError, ValueError):
            pass  # the reset tells the client
        finally:
            self._close(is_reset=is_reset)
            self._forget(self)

    def abandon(self) -> None:
        """From another thread: wake this one, which then resets the client."""
        with contextlib.suppress(OSError):
            self._client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        for peer in (self._server, self._client):
            if peer is not None:
                with contextlib.suppress(OSError):
                    peer.socket.shutdown(socket.SHUT_RDWR)

    def _serve(self, server: _Peer) -> None:
        head = self._client.receive_until(b"\r\n\r\n")
        pieces = list(self._client.receive_body(head, is_answer=False))
        body = b"".join([meaning for _, meaning, _ in pieces])
        exchange, fault = self._proxy.register(self._number, head, body)
        self._exchange = exchange
        try:
            if self._proxy.delay_seconds:
                time.sleep(self._proxy.delay_seconds)
            if fault and fault.stage == "request" and not fault.strike(exchange):
                exchange.outcome = "not forwarded"
                raise _Cut
            server.companion = self._client.socket if exchange.is_stream else None
            server.socket.sendall(head + b"".join([raw for raw, _, _ in pieces]))
            self._answer(exchange, fault, self._receive_answer(server, exchange))
        finally:
            if exchange.outcome == "pending":
                exchange.outcome = "lost"
            self._exchange = None

    def _answer(self, exchange: Exchange, fault: Fault | None, pieces: Iterator[bytes]) -> None:
        """Pass the answer on. Raises _Closed if the client has gone, _Cut for a fault."""
        if fault and fault.stage == "answer":
            held = next(pieces) if exchange.is_stream else b"".join(pieces)
            if not fault.strike(exchange):
                raise _Cut
            self._pass_on(held)
        for piece in pieces:
            self._pass_on(piece)
            if self._is_client_gone and exchange.is_stream:
                raise _Closed
        if self._is_client_gone:
            raise _Closed

    def _receive_answer(self, server: _Peer, exchange: Exchange) -> Iterator[bytes]:
        """The server's answer in pieces. The exchange is complete before the last one is given
        out, so that a client that has its answer finds what it wrote in the proxy's record."""
        while (head := server.receive_until(b"\r\n\r\n")).split(b" ", 2)[1].startswith(b"1"):
            yield head
        exchange.status = int(head.split(b" ", 2)[1])
        for raw, meaning, is_last in server.receive_body(head, is_answer=True):
            if len(exchange.answer) < KEPT_ANSWER_BYTES:
                exchange.answer += meaning[:KEPT_ANSWER_BYTES]
            if is_last:
                exchange.outcome = "answered"
            yield head + raw
            head = b""

    def _pass_on(self, piece: bytes) -> None:
        if not self._is_client_gone:
            try:
                self._client.socket.sendall(piece)
            except OSError:
                self._is_client_gone = True

    def _close(self, *, is_reset: bool) -> None:
        with contextlib.suppress(OSError):
            if is_reset:
                self._client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._client.socket.close()
        if self._server is not None:
            self._server.socket.close()
