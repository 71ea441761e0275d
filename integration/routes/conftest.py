"""A node with one of the two route adapters at work in it, and `ip` as the witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.routes.netlink import NetlinkRoutes
from cni_ipam.routes.plan import RouteSettings
from cni_ipam.routes.rtnl import RtnlRoutes
from integration.netns import Lab, drop_net_admin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from integration.netns import Namespace

OURS = RouteSettings(host=True, blackhole=True)


class Node:
    """A namespace with one adapter at work in it."""

    def __init__(self, lab: Lab, adapter: type[NetlinkRoutes | RtnlRoutes]) -> None:
        self.lab = lab
        self.adapter = adapter
        self.host = lab.namespace("node")

    def do(self, verb: str, *arguments: Any, settings: RouteSettings = OURS) -> Any:
        """Call one verb of a fresh adapter inside."""
        return self.host.call(self._do, verb, arguments, settings, True)

    def do_unprivileged(self, verb: str, *arguments: Any) -> Any:
        """The same without CAP_NET_ADMIN."""
        return self.host.call(self._do, verb, arguments, OURS, False)

    def _do(
        self, verb: str, arguments: tuple[Any, ...], settings: RouteSettings, privileged: bool
    ) -> Any:
        if not privileged:
            drop_net_admin()
        routes = self.adapter(settings)
        try:
            return getattr(routes, verb)(*arguments)
        finally:
            routes.close()

    def add_pod(self, device: str = "veth0", ifname: str = "eth0") -> Namespace:
        """A pod behind a veth pair."""
        pod = self.lab.namespace("pod")
        self.lab.veth(self.host, device, pod, ifname)
        return pod

    def add_ptp_route(self, address: object, device: str = "veth0") -> None:
        """The route that the ptp plugin makes: scope host, protocol boot, no metric given."""
        route = (f"{address}", "dev", device, "scope", "host", "proto", "boot")
        self.host.ip("route", "add", *route)

    def blackholes(self, version: int, table: str = "main") -> list[tuple[str, str]]:
        """Destination and protocol of each blackhole, as `ip` sees them."""
        found = self.host.routes(version, "type", "blackhole", "table", table)
        return [(route["dst"], route["protocol"]) for route in found]

    def routes_to(self, version: int, destination: object) -> list[dict[str, Any]]:
        """The routes for exactly that destination, as `ip` sees them."""
        return self.host.routes(version, "exact", f"{destination}")


@pytest.fixture(params=[NetlinkRoutes, RtnlRoutes], ids=["netlink", "rtnl"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Lab() as lab:
        yield Node(lab, request.param)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def version(request: pytest.FixtureRequest) -> int:
    chosen: int = request.param
    return chosen
