"""What the datastore holds of this attachment, and the routes that its blocks need."""

from __future__ import annotations

from cni_ipam.core.affinity import owner_of
from cni_ipam.datastore import keys
from cni_ipam.ipam.view import read_blocks, read_view
from cni_ipam.lean import log
from cni_ipam.lean.record import record
from cni_ipam.routes.plan import outlives_blackholes, wanted_blackholes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.errors import CorruptRecord
    from cni_ipam.plugin.context import Context


@record
class Recorded:
    """An attachment's addresses, and those of their blocks that are the node's own."""

    addresses: tuple[Address, ...]
    own_blocks: tuple[Cidr, ...]


def find_recorded(context: Context) -> Recorded:
    """What is recorded under the attachment's handle. Raises CorruptRecord."""
    host = context.netconf.node_name
    unneeded = ("node", "cluster", "reservations")
    view = read_view(context.store(), host, (), [context.handle], without=unneeded)
    view.require(keys.handle_key(context.handle))
    faults: list[CorruptRecord] = []
    cidrs = [cidr for handle, _ in view.handles.values() for cidr in handle.blocks]
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
    return Recorded(tuple(addresses), tuple(own))


def holds_blocks(context: Context) -> bool:
    """Whether this call looks after blackhole routes."""
    netconf = context.netconf
    return netconf.routes.blackhole and outlives_blackholes(
        netconf.type, netconf.routes, chained=netconf.chained
    )


def hold_blocks(context: Context, blocks: Iterable[Cidr]) -> None:
    """Make sure that each block has its blackhole route. Raises RouteError.

    A place that another's route has is left to it: then the whole block is routed elsewhere,
    which somebody wanted so (a bridge whose subnet is the block)."""
    for cidr in wanted_blackholes(blocks):
        if not context.routes().has_blackhole(cidr):
            held = context.routes().add_blackhole(cidr)
            log.info("blackhole.added" if held else "blackhole.place_taken", block=cidr)
