"""DEL: give the attachment's addresses back; *DEL never fails for what is gone*."""

from __future__ import annotations

from cni_ipam.errors import RouteError
from cni_ipam.ipam.release import release
from cni_ipam.lean import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.ipam.release import Released
    from cni_ipam.plugin.context import Context


def delete(context: Context) -> str:
    """Nothing for stdout; the addresses are free afterwards, if they were not before."""
    if context.netconf.chained:
        from cni_ipam.plugin.chain import remove_host_routes

        remove_host_routes(context)
        return ""
    with context.lock():
        released = release(
            context.store(), context.netconf.node_name, context.owners(), context.now
        )
        remove_routes(context, released)
    for address in released.addresses:
        log.info("released", address=address, handle=context.handle)
    return ""


def remove_routes(context: Context, released: Released) -> None:
    """Take away the routes of what was released. The addresses are free whatever the kernel
    says, and a repeated DEL would no longer know them: so a refusal is logged, not raised."""
    settings = context.netconf.routes
    try:
        for address in released.addresses if settings.host else ():
            context.routes().remove_host_route(address)
        for cidr in released.blocks if settings.blackhole else ():
            context.routes().remove_blackhole(cidr)
    except RouteError as error:
        log.error("route.not_removed", msg=error.msg, details=error.details)
