"""A TCP proxy in front of one etcd endpoint, which records what passes and fails where it is told.

    with Proxy("http://127.0.0.1:2379") as proxy:
        fault = proxy.hold_answer(3)
        call = start_a_plugin_on(proxy.endpoint)
        fault.wait()
        call.kill()
        fault.drop()
        proxy.settle()
        assert proxy.count() == 3

It reads HTTP/1.1 as etcd's JSON gateway speaks it. Each client connection has one of its own to the
server, and one thread. A request is forwarded when it is there in full, an answer piece by piece.
The server's answer is read to its end even if the client has gone, so that no write is missed.
Bodies are decoded only when somebody asks.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from integration.etcd.exchange import Exchange, Written
from integration.etcd.relay import Relay, is_readable

if TYPE_CHECKING:
    from typing import Self

PATIENCE_SECONDS = 30.0
CONNECT_SECONDS = 5.0
RUN: list[Written] = []
"""What all the run's proxies saw written."""


class Fault:
    """What happens to the `number`-th request from now on, at its `stage`, "request" or "answer".

    Without `holds` the connection is reset there; with it, the message is kept in hand."""

    def __init__(self, stage: str, number: int, *, holds: bool) -> None:
        self.stage = stage
        self.holds = holds
        self.remaining = number
        self.reached = threading.Event()
        self.exchange: Exchange | None = None
        self._released = threading.Event()
        self._forwards = False

    def wait(self, seconds: float = PATIENCE_SECONDS) -> Exchange:
        """Wait until the point is reached. Raises AssertionError if it is not, in that time."""
        assert self.reached.wait(seconds), f"no {self.stage} came to the fault in {seconds} s"
        assert self.exchange is not None
        return self.exchange

    def forward(self) -> None:
        """Let go of what is held: it is forwarded, whether or not the other side is still there."""
        self._forwards = True
        self._let_go()

    def drop(self) -> None:
        """Let go of what is held: it is lost and the connection reset."""
        self._let_go()

    def _let_go(self) -> None:
        if self.exchange is not None:
            # Here, not in the connection's thread: whoever settles next must wait for it.
            self.exchange.is_held = False
        self._released.set()

    def strike(self, exchange: Exchange) -> bool:
        """In the connection's thread: the point is reached. Whether to go on."""
        exchange.is_held = self.holds
        self.exchange = exchange
        self.reached.set()
        if self.holds:
            self._released.wait()
            exchange.is_held = False
        return self._forwards


class Proxy:
    """The proxy in front of `endpoint`, an http URL. What was written goes to `archive` when
    the proxy is cleared or stopped: by default to that of the run, which a last test checks.

    All its sockets are made in the network namespace of the thread that starts it (or that calls
    `accept`); `host` is the address there on which it listens. A subclass can speak another
    `scheme`: by `take`, `connect`, `read_request`."""

    scheme = "http"

    def __init__(
        self, endpoint: str, archive: list[Written] | None = None, host: str = "127.0.0.1"
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme != self.scheme or not parts.hostname or not parts.port:
            raise ValueError(f"an endpoint is {self.scheme}://host:port here, not {endpoint}")
        self.server = (parts.hostname, parts.port)
        self.delay_seconds = 0.0
        self._archive = RUN if archive is None else archive
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._faults: list[Fault] = []
        self._relays: set[Relay] = set()
        self._made = 0
        self._listener: socket.socket | None = None
        self._is_listening = False
        self._host = host
        self._port = 0

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        return f"{self.scheme}://{self._host}:{self._port}"

    # What passed

    @property
    def requests(self) -> list[Exchange]:
        """Every request since the last `clear`, in the order in which they came."""
        with self._lock:
            return list(self._exchanges)

    def count(self, path: str = "") -> int:
        """How many requests came since the last `clear`; with `path`, how many for it."""
        return len([e for e in self.requests if path in ("", e.path)])

    def by_connection(self) -> dict[int, list[Exchange]]:
        """The requests of each connection that had any."""
        found: dict[int, list[Exchange]] = {}
        for exchange in self.requests:
            found.setdefault(exchange.connection, []).append(exchange)
        return found

    @property
    def writes(self) -> list[Written]:
        """Everything that is known to be written since the last `clear`, by revision."""
        written = [write for exchange in self.requests for write in exchange.writes]
        return sorted(written, key=lambda write: write.revision)

    def settle(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until nothing is on its way, also of clients that were killed; what is held and
        streams do not count. Raises AssertionError if the time is not enough."""
        deadline = time.monotonic() + seconds
        while busy := self._find_busy():
            assert time.monotonic() < deadline, f"still on their way after {seconds} s: {busy}"
            time.sleep(0.005)

    def _find_busy(self) -> list[object]:
        listener = self._listener
        # In this order: it is set back before a connection is taken.
        if listener is not None and not (
            self._is_listening and not is_readable(listener) and self._is_listening
        ):
            return ["a connection that is not yet taken"]
        with self._lock:
            relays = list(self._relays)
        return [relay for relay in relays if not relay.is_settled]

    def clear(self) -> None:
        """Settle, then forget the requests so far."""
        self.settle()
        self._archive.extend(self.writes)
        with self._lock:
            self._exchanges = [e for e in self._exchanges if e.is_held]

    # What goes wrong

    def cut_request(self, number: int) -> Fault:
        """Reset the connection of the `number`-th request from now on (1: the next) before the
        server sees any of it."""
        return self._arm(Fault("request", number, holds=False))

    def cut_answer(self, number: int) -> Fault:
        """Reset the connection of the `number`-th request when the server has answered in full."""
        return self._arm(Fault("answer", number, holds=False))

    def hold_request(self, number: int) -> Fault:
        """Keep the `number`-th request in hand until the fault's `forward` or `drop`."""
        return self._arm(Fault("request", number, holds=True))

    def hold_answer(self, number: int) -> Fault:
        """Keep the server's answer to the `number`-th request until `forward` or `drop`."""
        return self._arm(Fault("answer", number, holds=True))

    def disarm(self) -> None:
        """Forget the faults that were not reached, and drop what is held."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.drop()

    def delay(self, seconds: float) -> None:
        """Forward each request so much later; 0 for at once."""
        self.delay_seconds = seconds

    def refuse(self) -> None:
        """Refuse new connections, as if nobody listened; those that are there stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def accept(self) -> None:
        """Take connections, on the same port as before."""
        if self._listener is None:
            self._listener = socket.create_server((self._host, self._port), backlog=512)
            self._port = self._listener.getsockname()[1]
            threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    def reset_all(self) -> None:
        """Reset every connection that is there."""
        with self._lock:
            relays = list(self._relays)
        for relay in relays:
            relay.abandon()

    def stop(self) -> None:
        """Refuse and reset everything, drop what is held; the record stays."""
        self.refuse()
        self.disarm()
        self.reset_all()
        with self._lock:
            relays = list(self._relays)
        for relay in relays:
            relay.join(PATIENCE_SECONDS)
        self._archive.extend(self.writes)

    # For the connections

    def take(self, client: socket.socket) -> socket.socket:
        """A client's connection as its messages are read from it. Raises OSError."""
        return client

    def connect(self) -> socket.socket:
        """A connection to the server. Raises OSError."""
        return socket.create_connection(self.server, CONNECT_SECONDS)

    def read_request(self, number: int, connection: int, head: bytes, body: bytes) -> Exchange:
        """A request as it is recorded."""
        return Exchange(number, connection, head, body)

    def register(self, connection: int, head: bytes, body: bytes) -> tuple[Exchange, Fault | None]:
        """Record a request; with the fault that it meets."""
        with self._lock:
            exchange = self.read_request(len(self._exchanges) + 1, connection, head, body)
            self._exchanges.append(exchange)
            met = None
            for fault in self._faults:
                fault.remaining -= 1
                if fault.remaining == 0:
                    met = fault
        return exchange, met

    def _arm(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def _listen(self, listener: socket.socket) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while True:
            self._is_listening = True
            poll.poll()
            self._is_listening = False
            try:
                client = listener.accept()[0]
            except OSError:
                return
            with self._lock:
                self._made += 1
                relay = Relay(self, self._made, client, self._forget)
                self._relays.add(relay)
            relay.start()

    def _forget(self, relay: Relay) -> None:
        with self._lock:
            self._relays.discard(relay)
