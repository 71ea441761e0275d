"""The chained role: routes to a pod that an interface plugin has just connected.

It stands in a network list behind an interface plugin whose IPAM we are. The
interface is there by now, so the pod's host route can go to it; and as reference plugins do not
forward GC to their IPAM, this is where GC arrives.
"""

from __future__ import annotations

from cni_ipam.cni.result import parse_prev_result
from cni_ipam.errors import CheckFailed, NetconfError, RouteError
from cni_ipam.lean import log
from cni_ipam.plugin.recorded import find_recorded, hold_blocks, holds_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.cni.fields import Json
    from cni_ipam.core.address import Address
    from cni_ipam.plugin.context import Context


def add_routes(context: Context) -> Json:
    """Route the pod's addresses to its host-side interface, then hold their blocks; the
    prevResult, unchanged. Raises NetconfError without a prevResult, CorruptRecord, RouteError."""
    addresses = _addresses(context)
    device = _host_device(context)
    if device is not None:
        for address in addresses:
            context.routes().replace_host_route(address, device)
            log.info("host_route.replaced", address=address, device=device)
    if holds_blocks(context):
        with context.lock():
            hold_blocks(context, find_recorded(context).own_blocks)
    return context.netconf.prev_result or {}


def remove_host_routes(context: Context) -> None:
    """Take away the host routes of the pod's addresses, as far as prevResult tells them.

    Without one the delegate's DEL, which knows them from the datastore, does it."""
    if context.netconf.routes.host and context.netconf.prev_result is not None:
        for address in _addresses(context):
            context.routes().remove_host_route(address)


def check_host_routes(context: Context) -> None:
    """Raises CheckFailed if a host route of the pod is missing or leads elsewhere."""
    addresses = _addresses(context)
    device = _host_device(context)
    if device is None:
        return
    found = context.routes().list_host_routes()
    for address in addresses:
        if (address, device) not in found:
            raise CheckFailed(
                f"the host route of {address} to {device} is missing",
                f"`ip route show {address.host_cidr}` shows what is there instead",
            )


def _addresses(context: Context) -> list[Address]:
    """The addresses of prevResult on the interface that is being added."""
    if context.netconf.prev_result is None:
        raise NetconfError(
            "Required prevResult missing",
            "as a plugin of its own, cni-ipam stands behind an interface plugin in the list",
        )
    result = parse_prev_result(context.netconf.prev_result)
    ours = {i for i, (name, _) in enumerate(result.interfaces) if name == context.request.ifname}
    return [address for address, index in result.addresses if index is None or index in ours]


def _host_device(context: Context) -> str | None:
    """The pod's host-side interface; None if host routes are off."""
    if not context.netconf.routes.host:
        return None
    netns, ifname = context.request.netns, context.request.ifname
    device = context.routes().find_host_device(netns, ifname)
    if device is None:
        raise RouteError(
            f"the host's side of {ifname} in {netns} was not found",
            "the pod's network namespace is gone, or its interface has no peer on the host "
            '(macvlan, ipvlan): then set "routes": {"host": false}',
        )
    return device
