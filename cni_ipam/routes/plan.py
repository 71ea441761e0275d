"""Which routes a node should have, and what both adapters have in common.

A block that is affine to the node is held by a blackhole route: its live pods have longer prefixes
(/32, /128), so only its unused addresses fall into it, where otherwise they would follow the
default route and come back, round and round. A block of a single address has no unused one, and
its blackhole would be the pod's own prefix, so it gets none (Calico: Felix and confd alike).
"""

from __future__ import annotations

import errno

from cni_ipam.core.address import BITS
from cni_ipam.errors import RouteError
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from cni_ipam.core.address import Address, Cidr
else:
    Protocol = object

UNICAST = 1
BLACKHOLE = 6
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253
SCOPE_NOWHERE = 255
LOOPBACK_INDEX = 1
"""The index of `lo` in every network namespace; the kernel ties IPv6 blackholes to it."""

ABSENT = (errno.ESRCH, errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""How the kernel says that a route, its table, or its whole family is not there."""


MAIN_TABLE = 254
"""The kernel's, and the only one that BIRD reads."""


@record
class RouteSettings:
    """What to install, and the mark by which ours are known: protocol number and table."""

    host: bool
    blackhole: bool
    proto: int = 85
    table: int = MAIN_TABLE


@record
class FoundRoute:
    """A route as the kernel lists it; `device` is an interface index, 0 for none."""

    cidr: Cidr
    kind: int
    proto: int
    table: int
    device: int


@record
class FoundLink:
    """An interface as the kernel lists it; `peer` and `master` are indices, 0 for none.

    `peer_namespace` is the caller's id of the network namespace that the peer lies in.
    """

    index: int
    name: str
    kind: str
    peer: int
    peer_namespace: int | None
    master: int


class Routes(Protocol):
    """What an adapter does, in the caller's network namespace. All raise RouteError."""

    def add_blackhole(self, cidr: Cidr) -> bool:
        """Hold `cidr` by a blackhole of ours. A route of another's that has the place stays.

        Whether a blackhole, ours or another's, holds it now: False if the place is taken by
        something else, such as the kernel's route to a directly connected network.
        """

    def remove_blackhole(self, cidr: Cidr) -> None:
        """Our blackhole for `cidr` is gone afterwards; that it was not there is fine."""

    def has_blackhole(self, cidr: Cidr) -> bool:
        """Whether the table has a blackhole, of any protocol, for exactly `cidr`."""

    def has_route(self, cidr: Cidr) -> bool:
        """Whether the table has a blackhole or an interface's route for exactly `cidr`."""

    def list_blackholes(self) -> list[Cidr]:
        """Our blackholes."""

    def replace_host_route(self, address: Address, device: str) -> None:
        """Route `address` to `device`, in the place of the route that the interface plugin made."""

    def remove_host_route(self, address: Address) -> None:
        """Our route for `address` is gone afterwards; that it was not there is fine."""

    def list_host_routes(self) -> list[tuple[Address, str]]:
        """Our host routes, each with its device."""

    def find_host_device(self, netns_path: str, ifname: str) -> str | None:
        """The interface of the caller's namespace through which the pod's `ifname` is reached.

        It is the pod's peer, or the bridge whose port the peer is: packets for the pod have to
        leave through the bridge. None if the pod's interface has no peer here (macvlan, ipvlan),
        or if `netns_path` or `ifname` is not there (any more): the caller knows if that matters.
        """

    def close(self) -> None:
        """Let go of the socket."""


def wanted_blackholes(blocks: Iterable[Cidr]) -> list[Cidr]:
    """The blocks that a blackhole should hold: each once, those of a single address left out."""
    return list(dict.fromkeys([block for block in blocks if block.prefix < BITS[block.version]]))


def outlives_blackholes(interface_type: str, routes: RouteSettings, *, chained: bool) -> bool:
    """Whether the pods of a network have routes of their own, as far as one of its roles can say:
    the interface plugin of that type, or the chained one.

    A block's blackhole is more specific than a bridge's route, so under `bridge` it cuts off the
    pods that have no host routes, which the chained role makes.
    """
    return routes.host if chained else interface_type != "bridge"


def is_host_device(link: FoundLink, pod_link: FoundLink, namespace: int) -> bool:
    """Whether `link` is the peer of `pod_link`, which lies in the namespace of that id.

    Both ends have to name each other: a macvlan names its parent, which does not answer.
    """
    return (link.peer, link.peer_namespace) == (pod_link.index, namespace)


def name_host_device(link: FoundLink, master: FoundLink | None) -> str:
    """The device for routes to the pod behind `link`: a bridge's port passes nothing by itself."""
    return master.name if master and master.kind == "bridge" else link.name


def refusal(operation: str, number: int | None, reason: str | None) -> RouteError:
    """The error for an `operation` (verb, route, device) that the kernel refused."""
    reason = reason or "no reason given"
    if number == errno.EPERM:
        reason += ": CAP_NET_ADMIN is missing"
    return RouteError(f"cannot {operation}: {reason}", _ADVICE.get(number or 0, _OTHERWISE))


_OTHERWISE = "compare `ip route show table all`; the key `routes` says which routes are installed"
_CAPABILITY = (
    "run with CAP_NET_ADMIN in the host's network namespace, "
    'or turn the routes off: "routes": {"host": false, "blackhole": false}'
)
_ADVICE = {
    errno.EPERM: _CAPABILITY,
    errno.EACCES: _CAPABILITY + "; an interface with disable_ipv6=1 also refuses IPv6 routes",
    errno.ENODEV: "the interface is gone: call again once the pod has its interface",
    errno.ENETDOWN: "the interface is down: set it up",
    errno.EAFNOSUPPORT: "the kernel runs without this family: use pools of the other one",
    errno.EOPNOTSUPP: "the kernel runs without this family: use pools of the other one",
}
