"""A server of scripted answers, for what a real one does too rarely."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

from cni_ipam.lean.http import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

RESET = b"reset"
HANG_UP = b"hang up"
SILENCE = b"silence"


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """An answer with its length."""
    head = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def chunked(*chunks: bytes, trailer: str = "") -> bytes:
    """An answer in chunks, with a trailer of whole lines."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + body
        + b"0\r\n"
        + (trailer.encode() + b"\r\n")
    )


class ScriptedServer:
    """Gives the next of `script` for each request: bytes to send, or a manner of not answering.

    `requests` has what came in, `connections` how many there were."""

    def __init__(self, script: Iterable[bytes]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connection: socket.socket | None = None
        self._last: object = None
        self.endpoint = Endpoint("http", "127.0.0.1", self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hear everybody who has connected so far, and end."""
        deadline = time.monotonic() + 10
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(self._listener.getsockname())
            while self._thread.is_alive() and time.monotonic() < deadline:
                if self._connection is not None:
                    with contextlib.suppress(OSError):
                        self._connection.shutdown(socket.SHUT_RDWR)
                self._thread.join(0.01)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connection, address = self._listener.accept()
                if address == self._last:
                    self._connection.close()
                    return
                self.connections += 1
                with self._connection, contextlib.suppress(OSError):
                    while request := _receive(self._connection):
                        self.requests.append(request)
                        if not self._answer(self._connection, self._script.pop(0)):
                            break

    def _answer(self, connection: socket.socket, step: bytes) -> bool:
        """Whether the connection lasts."""
        if step == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif step == SILENCE:
            connection.recv(1)
        elif step != HANG_UP:
            connection.sendall(step)
            return True
        return False


def _receive(connection: socket.socket) -> bytes:
    """A request with its body; nothing at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body
