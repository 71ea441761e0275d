"""GC: give back what no living attachment of this network has on this node."""

from __future__ import annotations

from cni_ipam.errors import NetconfError
from cni_ipam.ipam.collect import Living, collect
from cni_ipam.lean import log
from cni_ipam.plugin.delete import remove_routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.plugin.context import Context


def gc(context: Context) -> str:
    """Nothing for stdout. Goes on after an error and raises the first one at the end.

    Raises NetconfError, and releases nothing, if the runtime did not say what is alive."""
    netconf = context.netconf
    if netconf.attachments is None:
        raise NetconfError(
            '"cni.dev/valid-attachments" is missing',
            "it must list what is alive; an empty list releases all of the network on this node",
        )
    living = Living(netconf.name, netconf.node_name, frozenset(netconf.attachments))
    with context.lock():
        released, errors = collect(context.store(), living, context.now)
        remove_routes(context, released)
    for address in released.addresses:
        log.info("collected", address=address, network=netconf.name)
    for error in errors:
        log.error("collect.failed", msg=error.msg, details=error.details)
    if errors:
        raise errors[0]
    return ""
