"""How the lean adapter bears answers that are late, in pieces, or not whole."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.errors import RouteError
from cni_ipam.routes import message, netlink
from cni_ipam.routes.netlink import Connection, NetlinkRoutes
from cni_ipam.routes.plan import BLACKHOLE, RouteSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    Datagram = tuple[bytes, int] | OSError

BLOCK = parse_cidr("10.9.0.64/26")
OTHER = parse_cidr("10.9.1.0/26")
MULTI = message.NLM_F_MULTI
OURS = RouteSettings(host=True, blackhole=True)
TRUNCATED = 0x20


class Kernel:
    """Stands for the netlink socket: each request is answered by the next of its scripts."""

    def __init__(self, *scripts: Callable[[int], list[Datagram]]) -> None:
        self.scripts = list(scripts)
        self.pending: list[Datagram] = []
        self.opened = 0
        self.closed = 0
        self.sizes: list[int] = []

    def open(self) -> Kernel:
        """In the place of a new socket."""
        self.opened += 1
        return self

    def send(self, request: bytes) -> None:
        """Take a request, whose answer is then pending."""
        sequence = message.HEADER.unpack_from(request)[3]
        self.pending = self.scripts.pop(0)(sequence)

    def recvmsg(self, size: int) -> tuple[bytes, list[object], int, None]:
        """The next datagram of the answer."""
        self.sizes.append(size)
        datagram = self.pending.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        return datagram[0], [], datagram[1], None

    def close(self) -> None:
        """Count only."""
        self.closed += 1


def route(sequence: int, block: object = BLOCK, flags: int = 0) -> bytes:
    """A listed blackhole."""
    body = message.encode_route(block, BLACKHOLE, 85, 254, scope=0)  # type: ignore[arg-type]
    return message.encode_message(message.RTM_NEWROUTE, MULTI | flags, sequence, body)


def done(sequence: int, number: int = 0, flags: int = 0) -> bytes:
    """The end of a dump."""
    body = struct.pack("=i", -number)
    return message.encode_message(message.NLMSG_DONE, MULTI | flags, sequence, body)


def acknowledge(sequence: int, number: int = 0) -> list[Datagram]:
    """The answer to a change."""
    body = struct.pack("=i", -number) + bytes(16)
    return [(message.encode_message(message.NLMSG_ERROR, 0, sequence, body), 0)]


def whole(sequence: int) -> list[Datagram]:
    """A dump of one route."""
    return [(route(sequence) + done(sequence), 0)]


def connect(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A connection with `kernel` at its other end."""
    monkeypatch.setattr(netlink, "_open_socket", kernel.open)
    return Connection()


def dump(connection: Connection) -> list[object]:
    """The destinations that a dump lists."""
    bodies = connection.ask(message.RTM_GETROUTE, message.NLM_F_DUMP, b"")
    return [found.cidr for found in map(message.decode_route, bodies) if found]


def test_dump_is_read_over_several_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the kernel says that it is done."""
    kernel = Kernel(
        lambda sequence: [(route(sequence), 0), (route(sequence, OTHER), 0), (done(sequence), 0)]
    )

    assert [BLOCK, OTHER] == dump(connect(kernel, monkeypatch))


def test_answers_to_an_earlier_request_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have its sequence number."""
    kernel = Kernel(
        lambda sequence: [(route(sequence + 1, OTHER) + done(sequence + 1), 0), *whole(sequence)]
    )

    assert [BLOCK] == dump(connect(kernel, monkeypatch))


def test_interrupted_dump_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table changed during the first: it may lack a route."""
    kernel = Kernel(
        lambda sequence: [(route(sequence, OTHER, message.NLM_F_DUMP_INTR) + done(sequence), 0)],
        whole,
    )

    assert [BLOCK] == dump(connect(kernel, monkeypatch))


def test_dump_interrupted_at_its_end_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark may be on the last message alone."""
    kernel = Kernel(
        lambda sequence: [(done(sequence, flags=message.NLM_F_DUMP_INTR), 0)],
        whole,
    )

    assert [BLOCK] == dump(connect(kernel, monkeypatch))


def test_truncated_datagram_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a larger buffer, on a new socket: the rest of the old answer is not to come up."""
    kernel = Kernel(lambda sequence: [(route(sequence)[:20], TRUNCATED)], whole)

    assert [BLOCK] == dump(connect(kernel, monkeypatch))
    assert (2, 1) == (kernel.opened, kernel.closed)
    assert kernel.sizes[0] < kernel.sizes[1]


def test_overrun_socket_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOBUFS: part of the answer is lost."""
    kernel = Kernel(lambda _: [OSError(errno.ENOBUFS, "No buffer space available")], whole)

    assert [BLOCK] == dump(connect(kernel, monkeypatch))
    assert (2, 1) == (kernel.opened, kernel.closed)


def test_dump_that_is_always_interrupted_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than for ever."""
    interrupted = [(lambda sequence: [(done(sequence, flags=message.NLM_F_DUMP_INTR), 0)])]
    kernel = Kernel(*interrupted * netlink.ATTEMPTS)

    with pytest.raises(OSError, match="interrupted 8 times"):
        dump(connect(kernel, monkeypatch))


def test_kernel_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late answer dies with the socket."""
    kernel = Kernel(lambda _: [TimeoutError("timed out")])

    with pytest.raises(TimeoutError, match="Connection timed out"):
        dump(connect(kernel, monkeypatch))
    assert (1, 1) == (kernel.opened, kernel.closed)


def test_malformed_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A length that leads beyond the datagram."""
    kernel = Kernel(lambda sequence: [(route(sequence)[:-4], 0)])

    with pytest.raises(OSError, match="malformed netlink message"):
        dump(connect(kernel, monkeypatch))


def test_failed_dump_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so at its end."""
    kernel = Kernel(lambda sequence: [(done(sequence, errno.EINVAL), 0)])

    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        dump(connect(kernel, monkeypatch))


def test_added_blackhole_whose_answer_was_lost_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repeated request finds the route there, and that it is a blackhole."""
    kernel = Kernel(
        lambda _: [OSError(errno.ENOBUFS, "No buffer space available")],
        lambda sequence: acknowledge(sequence, errno.EEXIST),
        whole,
    )
    monkeypatch.setattr(netlink, "_open_socket", kernel.open)

    assert NetlinkRoutes(OURS).add_blackhole(BLOCK) is True


def test_routes_are_removed_until_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request takes one route, and there may be several metrics."""
    kernel = Kernel(acknowledge, acknowledge, lambda sequence: acknowledge(sequence, errno.ESRCH))
    monkeypatch.setattr(netlink, "_open_socket", kernel.open)

    NetlinkRoutes(OURS).remove_blackhole(BLOCK)

    assert [] == kernel.scripts


def test_other_routes_that_the_kernel_lists_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel without IPv6 answers with what it has instead."""
    kernel = Kernel(whole)
    monkeypatch.setattr(netlink, "_open_socket", kernel.open)

    assert NetlinkRoutes(OURS).has_blackhole(parse_cidr("fd00::/122")) is False


def test_failed_list_is_a_route_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what was asked for."""
    kernel = Kernel(lambda sequence: [(done(sequence, errno.EINVAL), 0)])
    monkeypatch.setattr(netlink, "_open_socket", kernel.open)

    with pytest.raises(RouteError, match="cannot list IPv4 routes in table 254"):
        NetlinkRoutes(OURS).has_blackhole(BLOCK)


def test_socket_is_opened_by_the_first_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And closed once."""
    kernel = Kernel(whole, whole)
    connection = connect(kernel, monkeypatch)

    dump(connection)
    dump(connection)
    connection.close()
    connection.close()

    assert (1, 1) == (kernel.opened, kernel.closed)
