"""News of the kernel's routes and interfaces, from its multicast groups."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from cni_ipam.routes.message import RTM_DELROUTE, RTM_NEWROUTE, decode_messages, decode_route

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.routes.plan import FoundRoute

# linux/rtnetlink.h
RTMGRP_LINK, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE = 0x1, 0x40, 0x400
BUFFER_BYTES = 1 << 16


class RouteEvents:
    """What happens in the network namespace of the caller, from now on.

    An interface always matters (with one that goes down its IPv4 routes go, and the kernel tells
    of none of them), a route if `matters` says so."""

    def __init__(self, matters: Callable[[FoundRoute], bool]) -> None:
        self._matters = matters
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE))

    def fileno(self) -> int:
        """What can be read when there is news."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Take all news; whether any of it matters."""
        found = False
        while True:
            try:
                data = self._socket.recv(BUFFER_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # There was more than the kernel keeps; whatever it was, it may matter.
                found = True
                continue
            found = found or self._has_matter(data)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def _has_matter(self, data: bytes) -> bool:
        for kind, _, _, body in decode_messages(data):
            if kind not in (RTM_NEWROUTE, RTM_DELROUTE):
                return True
            route = decode_route(body)
            if route is not None and self._matters(route):
                return True
        return False
