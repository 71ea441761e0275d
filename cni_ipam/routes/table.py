"""The kernel's side of a reconciliation: our table with one dump, each change with one message.

The routes of both families come with one request by pyroute2. It does not pass the table on where
both are asked for, so other tables' routes are left out here. Which interface leads to a pod is
asked only for pods: one dump of the interfaces, and for each namespace that one of them leads into
a dump of its addresses, without entering it. pyroute2 spells that request's namespace as a text,
which the kernel refuses, so it goes by the lean connection.
"""

from __future__ import annotations

import errno
import socket
from struct import Struct
from typing import TYPE_CHECKING

from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]

from cni_ipam.core.address import Address
from cni_ipam.routes.judgement import ADD, REMOVE, Device, KernelRoute
from cni_ipam.routes.message import (
    NLM_F_DUMP,
    RTEXT_FILTER_SKIP_STATS,
    VERSIONS,
    decode_attributes,
    encode_attribute,
)
from cni_ipam.routes.netlink import Connection
from cni_ipam.routes.plan import ABSENT, SCOPE_NOWHERE, name_host_device, refusal
from cni_ipam.routes.rtnl import (
    FAMILIES,
    cause_of,
    destination_of,
    dump_routes,
    found_link,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pyroute2.netlink import nlmsg  # type: ignore[import-untyped]

    from cni_ipam.routes.judgement import Change
    from cni_ipam.routes.plan import FoundLink, RouteSettings

# linux/rtnetlink.h, linux/if_addr.h
RTM_GETADDR = 22
IFA_ADDRESS, IFA_LOCAL, IFA_TARGET_NETNSID = 1, 2, 10
ADDRESS = Struct("=4Bi")
PAIRED = ("veth", "netkit")


class RouteTable:
    """Our table, in the caller's network namespace. Not for several threads at once."""

    def __init__(self, settings: RouteSettings) -> None:
        self._settings = settings
        self._kernel = IPRoute(ext_ack=True, strict_check=True)
        self._connection = Connection()

    def read(self) -> list[KernelRoute]:
        """All routes of the table, of both families. Raises RouteError."""
        table = self._settings.table
        try:
            found = dump_routes(self._kernel, {"family": socket.AF_UNSPEC, "table": table})
        except NetlinkError as error:
            raise refusal(f"list the routes of table {table}", *cause_of(error)) from error
        # Other families answer such a request, too, and know no tables.
        ours = [m for m in found if m["family"] in VERSIONS and table_of(m) == table]
        names: dict[int, str] = {}
        return [_kernel_route(message, names) for message in ours]

    def apply(self, change: Change) -> None:
        """Make one change. What is to be removed and is gone is fine; somebody's route that came
        into the place of one to be added is not. Raises RouteError."""
        route = change.route
        words = {
            "family": FAMILIES[route.cidr.version],
            "dst": str(route.cidr),
            "type": route.kind,
            "proto": route.proto,
            "table": self._settings.table,
            "scope": SCOPE_NOWHERE if change.verb == REMOVE else route.scope,
        }
        if route.device is not None:
            words["oif"] = route.device.index
        if route.metric:
            words["priority"] = route.metric
        verb = {REMOVE: "del", ADD: "add"}.get(change.verb, "replace")
        try:
            self._kernel.route(verb, **words)
        except NetlinkError as error:
            if change.verb != REMOVE or error.code not in ABSENT:
                raise refusal(f"{change} in table {words['table']}", *cause_of(error)) from error

    def find_devices(self, wanted: Collection[Address]) -> dict[Address, list[Device]]:
        """The interfaces that lead to these addresses; under a bridge that is the bridge.

        Raises RouteError."""
        try:
            links = {link.index: link for link in map(found_link, self._dump_links())}
        except NetlinkError as error:
            raise refusal("list the interfaces", *cause_of(error)) from error
        peers = {
            (link.peer_namespace, link.peer): link
            for link in links.values()
            if link.kind in PAIRED and link.peer_namespace is not None
        }
        devices: dict[Address, list[Device]] = {}
        for namespace in {namespace for namespace, _ in peers if namespace is not None}:
            for index, address in self._list_addresses(namespace):
                link = peers.get((namespace, index))
                if link is not None and address in wanted:
                    device = _host_device(link, links)
                    devices.setdefault(address, []).append(device)
        return devices

    def close(self) -> None:
        """Let go of the sockets."""
        self._kernel.close()
        self._connection.close()

    def _dump_links(self) -> list[nlmsg]:
        return list(self._kernel.link("dump", ext_mask=RTEXT_FILTER_SKIP_STATS))

    def _list_addresses(self, namespace: int) -> Iterator[tuple[int, Address]]:
        """The addresses in a namespace with the indices of their interfaces there."""
        body = ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        body += encode_attribute(IFA_TARGET_NETNSID, namespace)
        try:
            found = self._connection.ask(RTM_GETADDR, NLM_F_DUMP, body)
        except OSError as error:
            if error.errno == errno.EINVAL:  # it went with the pod meanwhile
                return
            operation = f"list the addresses in network namespace {namespace}"
            raise refusal(operation, error.errno, error.strerror) from error
        for message in found:
            family, _, _, _, index = ADDRESS.unpack_from(message)
            attributes = decode_attributes(message, ADDRESS.size)
            value = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
            if family in VERSIONS and value is not None:
                yield index, Address(VERSIONS[family], int.from_bytes(value, "big"))


def _host_device(link: FoundLink, links: dict[int, FoundLink]) -> Device:
    master = links.get(link.master)
    name = name_host_device(link, master)
    index = master.index if master is not None and name == master.name else link.index
    return Device(index, name)


def _kernel_route(message: nlmsg, names: dict[int, str]) -> KernelRoute:
    """A route; the names of interfaces are kept in `names`."""
    gateways = ("RTA_GATEWAY", "RTA_VIA", "RTA_MULTIPATH", "RTA_NH_ID")
    index = message.get_attr("RTA_OIF")
    if index and index not in names:
        names[index] = _find_name(index)
    return KernelRoute(
        cidr=destination_of(message),
        kind=message["type"],
        proto=message["proto"],
        metric=message.get_attr("RTA_PRIORITY") or 0,
        scope=message["scope"],
        device=Device(index, names[index]) if index else None,
        has_gateway=any(message.get_attr(name) is not None for name in gateways),
    )


def _find_name(index: int) -> str:
    """An interface's name, "" if it is gone; asked by ioctl, which is no message."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
