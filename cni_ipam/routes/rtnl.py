"""Routes by pyroute2: the adapter of long-lived processes, and the reference for the lean one.

Importing pyroute2 costs a quarter of a second, so the plugin never does. Its IPRoute runs an event
loop of its own: inside a running asyncio loop call this adapter from a thread.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink import NLM_F_DUMP_INTR, nlmsg  # type: ignore[import-untyped]

from cni_ipam.core.address import BITS, Cidr
from cni_ipam.routes.plan import (
    ABSENT,
    BLACKHOLE,
    LOOPBACK_INDEX,
    SCOPE_LINK,
    SCOPE_NOWHERE,
    SCOPE_UNIVERSE,
    UNICAST,
    FoundLink,
    FoundRoute,
    is_host_device,
    name_host_device,
    refusal,
)

if TYPE_CHECKING:
    from typing import Any

    from cni_ipam.core.address import Address
    from cni_ipam.errors import RouteError
    from cni_ipam.routes.plan import RouteSettings

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ATTEMPTS = 8


class RtnlRoutes:
    """The verbs of `plan.Routes` on one IPRoute. Not for several threads at once."""

    def __init__(self, settings: RouteSettings) -> None:
        self._settings = settings
        self._kernel = IPRoute(ext_ack=True, strict_check=True)

    def add_blackhole(self, cidr: Cidr) -> bool:
        """See Routes. pyroute2's `add` is exclusive."""
        try:
            self._kernel.route("add", **self._route(cidr, BLACKHOLE, SCOPE_UNIVERSE))
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return self.has_blackhole(cidr)
            raise self._refusal(f"add blackhole route {cidr}", error) from error
        return True

    def remove_blackhole(self, cidr: Cidr) -> None:
        """See Routes."""
        device = LOOPBACK_INDEX if cidr.version == 6 else 0
        self._remove(f"remove blackhole route {cidr}", cidr, BLACKHOLE, device)

    def has_blackhole(self, cidr: Cidr) -> bool:
        """See Routes."""
        return any(route.cidr == cidr for route in self._list(cidr.version, BLACKHOLE, 0))

    def has_route(self, cidr: Cidr) -> bool:
        """See Routes."""
        found = [*self._list(cidr.version, BLACKHOLE, 0), *self._list(cidr.version, UNICAST, 0)]
        return any(route.cidr == cidr for route in found)

    def list_blackholes(self) -> list[Cidr]:
        """See Routes."""
        proto = self._settings.proto
        return [route.cidr for version in BITS for route in self._list(version, BLACKHOLE, proto)]

    def replace_host_route(self, address: Address, device: str) -> None:
        """See Routes."""
        cidr = address.host_cidr
        operation = f"replace host route {cidr} dev {device}"
        try:
            index = socket.if_nametoindex(device)
        except OSError as error:
            raise refusal(operation, errno.ENODEV, os.strerror(errno.ENODEV)) from error
        try:
            self._kernel.route("replace", **self._route(cidr, UNICAST, SCOPE_LINK, index))
        except NetlinkError as error:
            raise self._refusal(operation, error) from error

    def remove_host_route(self, address: Address) -> None:
        """See Routes."""
        self._remove(f"remove host route {address.host_cidr}", address.host_cidr, UNICAST, 0)

    def list_host_routes(self) -> list[tuple[Address, str]]:
        """See Routes."""
        names = dict(socket.if_nameindex())
        proto = self._settings.proto
        return [
            (route.cidr.address(0), names[route.device])
            for version, bits in BITS.items()
            for route in self._list(version, UNICAST, proto)
            if route.cidr.prefix == bits and route.device in names
        ]

    def find_host_device(self, netns_path: str, ifname: str) -> str | None:
        """See Routes."""
        try:
            namespace = self._find_namespace(netns_path)
            if namespace is None:
                return None
            # The older name of IFLA_TARGET_NETNSID; pyroute2 drops words that it does not know.
            pod_link = self._find_link(ifname=ifname, if_netnsid=namespace)
            link = self._find_link(index=pod_link.peer) if pod_link else None
            if not (pod_link and link and is_host_device(link, pod_link, namespace)):
                return None
            master = self._find_link(index=link.master) if link.master else None
        except (OSError, NetlinkError) as error:
            operation = f"find the host side of {ifname} in {netns_path}"
            raise refusal(operation, *cause_of(error)) from error
        return name_host_device(link, master)

    def close(self) -> None:
        """See Routes."""
        self._kernel.close()

    def _route(self, cidr: Cidr, kind: int, scope: int, device: int = 0) -> dict[str, Any]:
        """A route of ours in pyroute2's words."""
        words: dict[str, Any] = {
            "family": FAMILIES[cidr.version],
            "dst": str(cidr),
            "type": kind,
            "proto": self._settings.proto,
            "table": self._settings.table,
            "scope": scope,
        }
        if device:
            words["oif"] = device
        return words

    def _remove(self, operation: str, cidr: Cidr, kind: int, device: int) -> None:
        """Remove every route of ours for `cidr`, of whatever metric."""
        try:
            while True:
                self._kernel.route("del", **self._route(cidr, kind, SCOPE_NOWHERE, device))
        except NetlinkError as error:
            if error.code not in ABSENT:
                raise self._refusal(operation, error) from error

    def _list(self, version: int, kind: int, proto: int) -> list[FoundRoute]:
        """The routes of our table; a `proto` of 0 stands for any."""
        table = self._settings.table
        wanted = {"family": FAMILIES[version], "table": table, "type": kind}
        try:
            found = dump_routes(self._kernel, wanted | ({"proto": proto} if proto else {}))
        except NetlinkError as error:
            if error.code in ABSENT:
                return []
            raise self._refusal(f"list IPv{version} routes", error) from error
        return [
            route
            for route in map(_found_route, found)
            if (route.cidr.version, route.kind, route.table) == (version, kind, table)
            and proto in (0, route.proto)
        ]

    def _find_namespace(self, path: str) -> int | None:
        """Our id of the network namespace at `path`; None if no interface of ours has a peer there.

        The kernel gives a namespace its id when a link that leads into it is listed.
        """
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            number = self._get_namespace_id(handle)
            if number < 0:
                list(self._kernel.link("dump"))
                number = self._get_namespace_id(handle)
        finally:
            os.close(handle)
        return number if number >= 0 else None

    def _get_namespace_id(self, handle: int) -> int:
        """The id, negative if there is none."""
        try:
            number = self._kernel.get_netnsid(fd=handle)["nsid"]
        except NetlinkError as error:
            if error.code == errno.EINVAL:  # what `ip netns del` may leave: a plain file
                return -1
            raise
        return -1 if number == 0xFFFFFFFF else int(number)

    def _find_link(self, **wanted: int | str) -> FoundLink | None:
        try:
            return found_link(self._kernel.link("get", **wanted)[0])
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    def _refusal(self, operation: str, error: NetlinkError) -> RouteError:
        """The error of a route in our table."""
        return refusal(f"{operation} in table {self._settings.table}", *cause_of(error))


def dump_routes(kernel: IPRoute, wanted: dict[str, int]) -> list[nlmsg]:
    """One whole dump: it is repeated if the table changed in between. Raises NetlinkError."""
    for _ in range(ATTEMPTS):
        found = list(kernel.route("dump", **wanted))
        if not any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in found):
            return found
    raise NetlinkError(errno.EAGAIN, f"interrupted {ATTEMPTS} times")


def table_of(message: nlmsg) -> int:
    """The table of a route's message."""
    return int(message.get_attr("RTA_TABLE") or message["table"])


def destination_of(message: nlmsg) -> Cidr:
    """The destination of a route's message."""
    family, destination = message["family"], message.get_attr("RTA_DST")
    base = int.from_bytes(socket.inet_pton(family, destination)) if destination else 0
    return Cidr(4 if family == socket.AF_INET else 6, base, message["dst_len"])


def _found_route(message: nlmsg) -> FoundRoute:
    device = message.get_attr("RTA_OIF") or 0
    kind, proto = message["type"], message["proto"]
    return FoundRoute(destination_of(message), kind, proto, table_of(message), device)


def found_link(message: nlmsg) -> FoundLink:
    """The interface of a message."""
    info = message.get_attr("IFLA_LINKINFO")
    return FoundLink(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        peer=message.get_attr("IFLA_LINK") or 0,
        peer_namespace=message.get_attr("IFLA_LINK_NETNSID"),
        master=message.get_attr("IFLA_MASTER") or 0,
    )


def cause_of(error: OSError | NetlinkError) -> tuple[int | None, str]:
    """The number of an error, and its reason with the kernel's own words."""
    if isinstance(error, OSError):
        return error.errno, error.strerror or str(error)
    number: int = error.code
    reason, words = os.strerror(number), str(error.args[1])
    return number, reason if words == reason else f"{reason} ({words})"
