"""CHECK: what is recorded for the attachment is what its result says, and is routed."""

from __future__ import annotations

from cni_ipam.cni.result import parse_prev_result
from cni_ipam.core.affinity import owner_of
from cni_ipam.errors import CheckFailed, CorruptRecord
from cni_ipam.ipam.view import read_blocks, read_view
from cni_ipam.plugin import chain
from cni_ipam.routes.plan import wanted_blackholes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.plugin.context import Context


def check(context: Context) -> str:
    """Nothing for stdout. Raises CheckFailed, CorruptRecord.

    Other plugins may have added addresses: ours must be among those of prevResult, no more."""
    if context.netconf.chained:
        chain.check_host_routes(context)
        return ""
    addresses, blocks = _recorded(context)
    if not addresses:
        raise CheckFailed(
            f"no address is recorded for {context.request.ifname} of {context.handle}",
            "the allocation was released behind the pod's back; the pod must be made again",
        )
    if context.netconf.prev_result is not None:
        _compare(context, addresses)
    if context.netconf.routes.blackhole:
        for cidr in wanted_blackholes(blocks):
            if not context.routes().has_blackhole(cidr):
                raise CheckFailed(
                    f"the blackhole route of block {cidr} is missing",
                    "the next ADD on this node makes it again",
                )
    return ""


def _recorded(context: Context) -> tuple[list[Address], list[Cidr]]:
    """The attachment's addresses, and those of their blocks that are the node's own."""
    host = context.netconf.node_name
    view = read_view(context.store(), host, (), [context.handle])
    faults: list[CorruptRecord] = []
    handles = [handle for handle, _ in view.handles.values()]
    cidrs = [cidr for handle in handles for cidr in handle.blocks]
    addresses, own = [], []
    for block, _ in read_blocks(context.store(), cidrs, faults).values():
        mine = block.find_ordinals(
            lambda owner: owner.handle == context.handle and context.is_mine(owner)
        )
        addresses += [block.cidr.address(ordinal) for ordinal in mine]
        if mine and block.affinity == owner_of(host):
            own.append(block.cidr)
    if faults:
        raise faults[0]
    return addresses, own


def _compare(context: Context, addresses: list[Address]) -> None:
    result = parse_prev_result(context.netconf.prev_result or {})
    reported = [address for address, _ in result.addresses]
    for address in addresses:
        if address not in reported:
            raise CheckFailed(
                f"{address} is recorded for {context.handle}, but prevResult does not have it",
                f"prevResult has {', '.join(map(str, reported)) or 'no address'}",
            )
