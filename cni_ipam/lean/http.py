"""HTTP/1.1 to one server, kept alive, straight on `_socket` (and on `_ssl`, in `lean/tls`).

Saves 23 ms of start-up: a process that imports this ran 8.0 ms (median 8.8), with `lean.tls` 10.7
(11.6), one that imports `http.client` 31.0 (33.6), an empty one 6.7 (7.4).

One request at a time, each with a deadline that holds for all of it: connecting, the handshake, and
every byte of the answer. A request that fails says whether the server can have seen it (`Failed`
with `is_sent`): who wrote must then read back before writing again.
"""

from __future__ import annotations

import _socket
import time
from errno import ECONNRESET

from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cni_ipam.lean.tls import Tls

NO_CONTENT = 204
MAX_HEADER_BYTES = 65_536
MAX_BODY_BYTES = 1 << 30
_CHUNK_BYTES = 65_536
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
# A server that vanished without a word is noticed within 25 s, also by who only listens.
_KEEPALIVE = (
    (_socket.TCP_KEEPIDLE, 10),
    (_socket.TCP_KEEPINTVL, 5),
    (_socket.TCP_KEEPCNT, 3),
)


class Failed(Exception):
    """A request without an answer; `is_sent` if the server can have seen it all the same,
    `is_untrusted` if a certificate was refused, on either side."""

    def __init__(self, why: str, *, is_sent: bool = False, is_untrusted: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_sent = is_sent
        self.is_untrusted = is_untrusted


@record
class Endpoint:
    """Where a server listens; `host` is a name or an address, IPv6 without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@record
class Credentials:
    """What TLS needs: files, or the PEM texts themselves; empty where there is none."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def __repr__(self) -> str:
        """Without the texts: one of them is secret."""
        return f"Credentials({self.ca_file!r}, {self.cert_file!r}, {self.key_file!r})"


@record
class Request:
    """What is asked: `headers` are further ones, as whole lines."""

    method: str
    path: str
    headers: str = ""
    body: bytes = b""


@record
class Answer:
    """A server's answer; the names of its `fields` are in lower case."""

    status: int
    body: bytes
    fields: dict[str, str]


class Connection:
    """A connection to `endpoint`, made by the first request and again after each failure."""

    def __init__(self, endpoint: Endpoint, tls: Tls | None = None) -> None:
        self.endpoint = endpoint
        self._tls = tls
        self._socket: _socket.socket | None = None
        self._channel: Any = None
        self._buffer = b""
        self._is_interrupted = False

    def ask(self, request: Request, connect_seconds: float, deadline: float) -> Answer:
        """The answer, if it comes before the monotonic clock shows `deadline`; connecting may take
        `connect_seconds` of that. Raises Failed."""
        self._send(request, connect_seconds, deadline)
        try:
            status, fields = self._read_head(deadline)
            body = b"" if status == NO_CONTENT else b"".join(self._read_body(fields, deadline))
            answer = Answer(status, body, fields)
        except OSError as error:
            raise self._fail(error, is_sent=True) from error
        if fields.get("connection", "").lower() == "close":
            self.close()
        return answer

    def stream(
        self, request: Request, connect_seconds: float, deadline: float
    ) -> tuple[int, Iterator[bytes]]:
        """Status and body as of `ask`, the body in pieces as they come, however long that takes."""
        self._send(request, connect_seconds, deadline)
        try:
            status, fields = self._read_head(deadline)
        except OSError as error:
            raise self._fail(error, is_sent=True) from error
        return status, self._read_stream(fields)

    def close(self) -> None:
        """Let go of the connection."""
        sock, self._socket, self._channel, self._buffer = self._socket, None, None, b""
        if sock is not None:
            sock.close()

    def interrupt(self) -> None:
        """Let a `stream` of another thread end with Failed, whether it waits or begins."""
        self._is_interrupted = True
        sock = self._socket
        if sock is not None:
            try:
                sock.shutdown(_socket.SHUT_RDWR)
            except OSError:  # it has ended by itself
                return

    def _send(self, request: Request, connect_seconds: float, deadline: float) -> None:
        host = str(self.endpoint).partition("://")[2]
        fields = f"Host: {host}\r\n{request.headers}Content-Length: {len(request.body)}\r\n"
        head = f"{request.method} {request.path} HTTP/1.1\r\n{fields}\r\n"
        try:
            if self._socket is None:
                self._connect(min(time.monotonic() + connect_seconds, deadline))
        except OSError as error:
            raise self._fail(error, is_sent=False) from error
        try:
            self._write(head.encode() + request.body, deadline)
        except OSError as error:
            raise self._fail(self._find_refusal() or error, is_sent=True) from error

    def _connect(self, deadline: float) -> None:
        sock = self._socket = _open_socket(self.endpoint, deadline)
        if self._is_interrupted:
            raise ConnectionResetError(ECONNRESET, "interrupted")
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(_socket.IPPROTO_TCP, option, value)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        if self._tls is not None:
            sock.settimeout(_left(deadline))
            self._channel = self._tls.shake_hands(sock, self.endpoint.host)

    def _write(self, data: bytes, deadline: float) -> None:
        sock = self._socket
        assert sock is not None
        write = sock.send if self._channel is None else self._channel.write
        while data:
            sock.settimeout(_left(deadline))
            data = data[write(data) :]

    def _find_refusal(self) -> OSError | None:
        """Why the server hung up, if it said so: by TLS 1.3 it refuses a certificate only after
        the handshake, perhaps before the request is written."""
        if self._tls is None or self._channel is None:
            return None
        try:
            self._channel.read(1)
        except OSError as error:
            return error if self._tls.is_refusal(error) else None
        return None

    def _read(self, deadline: float | None) -> bytes:
        """Some bytes. Raises OSError at the end of the connection."""
        sock = self._socket
        if sock is None:
            raise ConnectionResetError(ECONNRESET, "the connection was closed")
        sock.settimeout(None if deadline is None else _left(deadline))
        read = sock.recv if self._channel is None else self._channel.read
        data = bytes(read(_CHUNK_BYTES))
        if not data:
            raise ConnectionResetError(ECONNRESET, "the server closed the connection")
        return data

    def _read_until(self, mark: bytes, deadline: float | None) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise _NotHttp("its header does not end")
            self._buffer += self._read(deadline)
        line, _, self._buffer = self._buffer.partition(mark)
        return line

    def _read_exactly(self, size: int, deadline: float | None) -> bytes:
        pieces = [self._buffer]
        missing = size - len(self._buffer)
        while missing > 0:
            piece = self._read(deadline)
            pieces.append(piece)
            missing -= len(piece)
        data = b"".join(pieces)
        self._buffer = data[size:]
        return data[:size]

    def _read_head(self, deadline: float) -> tuple[int, dict[str, str]]:
        first, *lines = self._read_until(b"\r\n\r\n", deadline).decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if version[:7] != "HTTP/1." or not status[:3].isdigit():
            raise _NotHttp("what answers does not speak HTTP/1.1")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return int(status[:3]), fields

    def _read_body(self, fields: dict[str, str], deadline: float | None) -> Iterator[bytes]:
        if fields.get("transfer-encoding", "").lower() == "chunked":
            yield from self._read_chunks(deadline)
            return
        size = fields.get("content-length", "")
        if not (size.isascii() and size.isdigit()) or int(size) > MAX_BODY_BYTES:
            raise _NotHttp("its answer has no length, or too great a one")
        yield self._read_exactly(int(size), deadline)

    def _read_chunks(self, deadline: float | None) -> Iterator[bytes]:
        """Every chunk; then the trailer, which etcd 3.4 sends after an error, is passed over."""
        total = 0
        while True:
            size = _parse_size(self._read_until(b"\r\n", deadline))
            total += size
            if size == 0:
                while self._read_until(b"\r\n", deadline):
                    continue
                return
            if total > MAX_BODY_BYTES and deadline is not None:
                raise _NotHttp("its answer does not end")
            yield self._read_exactly(size + 2, deadline)[:-2]

    def _read_stream(self, fields: dict[str, str]) -> Iterator[bytes]:
        try:
            yield from self._read_body(fields, None)
        except OSError as error:
            raise self._fail(error, is_sent=True) from error
        finally:
            self.close()

    def _fail(self, error: OSError, *, is_sent: bool) -> Failed:
        self.close()
        if self._tls is not None and self._tls.is_refusal(error):
            return Failed(self._tls.explain(error), is_untrusted=True)
        if isinstance(error, TimeoutError):
            return Failed("no answer in time", is_sent=is_sent)
        return Failed(error.strerror or str(error), is_sent=is_sent)


class _NotHttp(OSError):
    """What answers is no server of ours."""


def _open_socket(endpoint: Endpoint, deadline: float) -> _socket.socket:
    """A socket that is connected to the first of the host's addresses that accepts."""
    failed: OSError = OSError("the host has no address")
    addresses = _find_addresses(endpoint)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = _Socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
        try:
            # One that is silent leaves the others their share of the time.
            sock.settimeout(_left(deadline) / (len(addresses) - tried))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failed = error
        else:
            return sock
    raise failed


def _find_addresses(endpoint: Endpoint) -> list[Any]:
    # As bytes: a text would be put through the codec idna, which takes 10 ms to import.
    try:
        return _socket.getaddrinfo(endpoint.host.encode(), endpoint.port, 0, _socket.SOCK_STREAM)
    except _socket.gaierror as error:
        raise OSError(error.errno, f"cannot resolve {endpoint.host}: {error.strerror}") from error


class _Socket(_socket.socket):
    """`_ssl` refers to its socket weakly, which the class in C does not allow."""

    __slots__ = ("__weakref__",)


def _left(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _parse_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise _NotHttp("its answer is not in chunks, as it says") from None


def split_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The whole lines of a stream."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that a URL like https://10.0.0.1:2379 or http://[fd00::1]:2379 names.

    Raises ValueError, which says what is wrong but does not repeat the text: it may hold a
    password."""
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in ("http", "https"):
        raise ValueError("it does not begin with http:// or https://")
    authority, _, path = rest.partition("/")
    if path or "?" in authority or "#" in authority:
        raise ValueError("it has a path, and should end with the port")
    if "@" in authority:
        raise ValueError("it holds a user; etcd's user and password have settings of their own")
    host, mark, port = authority.rpartition(":")
    if not mark or host.count("[") != host.count("]") or authority.endswith("]"):
        raise ValueError("it names no port")
    if host.startswith("[") and host.endswith("]"):
        # In a URL the % before a zone is itself escaped (RFC 6874).
        host = host[1:-1].replace("%25", "%")
        _require_ipv6(host)
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets: http://[fd00::1]:2379")
    elif not _is_host_name(host):
        raise ValueError("it names no host: neither a name nor an address")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError("its port is not a number from 1 to 65535")
    return Endpoint(scheme, host, int(port))


def _require_ipv6(host: str) -> None:
    address, mark, zone = host.partition("%")
    try:
        _socket.inet_pton(_socket.AF_INET6, address)
    except (OSError, ValueError):
        address = ""
    if not address or (mark and not _is_host_name(zone)):
        raise ValueError("there is no IPv6 address in its brackets")


def _is_host_name(text: str) -> bool:
    """Whether `text` may be a name or an IPv4 address: labels of 1 to 63 characters."""
    labels = text.removesuffix(".").split(".")
    return _HOST_CHARACTERS.issuperset(text) and all(0 < len(label) < 64 for label in labels)
