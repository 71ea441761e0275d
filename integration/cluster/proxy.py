"""The proxy of integration/etcd in front of the API server, with TLS on both sides.

    with ApiProxy(cluster) as proxy:
        fault = proxy.hold_answer(3)
        call = start_a_plugin_on(proxy.endpoint)
        fault.wait()

It shows the API server's own certificate, so clients trust it who trust that server. Who a client
is must be said by a token: certificates of clients do not get through.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from integration.etcd.exchange import Exchange
from integration.etcd.proxy import Proxy

if TYPE_CHECKING:
    from typing import Any, Self

    from integration.cluster.cluster import Cluster
    from integration.etcd.exchange import Written

ALERT = b"\x15"
WRITING = ("POST", "PUT", "DELETE")


class _TlsSocket(ssl.SSLSocket):
    """A socket that is waited for as a plain one.

    That is right as far as nothing but a client's or a server's words makes it readable: up to
    TLS 1.2, and with reads as long as a record."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """With MSG_PEEK only whether there is anything; nothing comes after an alert."""
        if not flags & socket.MSG_PEEK:
            return super().recv(buflen, flags)
        seen = socket.socket.recv(self, 1, flags)
        return b"" if seen == ALERT else seen

    def shutdown(self, how: int) -> None:
        """From any thread: what reads is woken, and finds the end."""
        socket.socket.shutdown(self, how)


class ApiExchange(Exchange):
    """A request to the API server, and what became of it."""

    @property
    def is_stream(self) -> bool:
        """Whether the answer goes on until somebody closes."""
        return "watch=1" in self.path

    @property
    def succeeded(self) -> bool | None:
        """Whether the server did it; None if nobody knows."""
        if self.outcome != "answered":
            return False if self.outcome == "not forwarded" else None
        return 200 <= self.status < 300

    @property
    def is_write(self) -> bool:
        """Whether it changed something, as far as is known."""
        return self.method in WRITING and self.succeeded is True

    @property
    def what(self) -> str:
        """The verb and the resource, without groups: "PUT ipamblocks"."""
        words = self.path.partition("?")[0].split("/")
        return f"{self.method} {words[4] if words[1] == 'apis' else words[3]}"

    @property
    def writes(self) -> list[Written]:
        """Nothing of etcd's kind; see `is_write`."""
        return []


class ApiProxy(Proxy):
    """The proxy in front of a cluster's API server, in the network of its machine."""

    scheme = "https"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.server, archive=[])
        self._machine = cluster.machine
        self._inward = _make_context(ssl.PROTOCOL_TLS_SERVER)
        self._inward.load_cert_chain(cluster.authority.server_cert, cluster.authority.server_key)
        self._outward = _make_context(ssl.PROTOCOL_TLS_CLIENT)
        self._outward.load_verify_locations(cluster.ca)

    def __enter__(self) -> Self:
        with self._machine.network():
            return super().__enter__()

    def take(self, client: socket.socket) -> socket.socket:
        """See Proxy."""
        return self._inward.wrap_socket(client, server_side=True)

    def connect(self) -> socket.socket:
        """See Proxy."""
        return self._outward.wrap_socket(super().connect(), server_hostname=self.server[0])

    def read_request(self, number: int, connection: int, head: bytes, body: bytes) -> ApiExchange:
        """See Proxy."""
        return ApiExchange(number, connection, head, body)

    @property
    def seen(self) -> list[ApiExchange]:
        """Every request since the last `clear`, as those of an API server."""
        return [exchange for exchange in self.requests if isinstance(exchange, ApiExchange)]


def _make_context(protocol: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslsocket_class = _TlsSocket
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
