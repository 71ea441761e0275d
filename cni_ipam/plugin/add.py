"""ADD: who asks → which addresses → recorded → routed → answered."""

from __future__ import annotations

from cni_ipam.cni.result import AssignedAddress, add_result, pass_through, print_result
from cni_ipam.core.gateway import gateway_of, prefix_of
from cni_ipam.core.moment import go_time
from cni_ipam.errors import AllocationError, NetconfError, RouteError
from cni_ipam.ipam.assign import assign
from cni_ipam.lean import log
from cni_ipam.plugin.recorded import hold_blocks, holds_blocks
from cni_ipam.plugin.wish import find_asked, make_wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Address
    from cni_ipam.core.block import Attribute
    from cni_ipam.ipam.wish import Assigned, Outcome, Wish
    from cni_ipam.plugin.context import Context


def add(context: Context) -> str:
    """The result for stdout; all addresses are recorded and routed, or none is.

    A repeated ADD of an attachment answers with the addresses that it has. Of what pools or
    annotations forbid the pod gets an event."""
    try:
        return _add(context)
    except (AllocationError, NetconfError) as error:
        from cni_ipam.plugin.event import tell

        tell(context, error)
        raise


def _add(context: Context) -> str:
    if context.netconf.chained:
        from cni_ipam.plugin.chain import add_routes

        return print_result(pass_through(add_routes(context), context.netconf.cni_version))
    asked = find_asked(context)
    if asked.without_ipam:
        return _answer_without_ipam(context, asked.without_ipam)
    with context.lock():
        wish = make_wish(context, asked)
        outcome = assign(context.store(), wish)
        route(context, wish, outcome)
    for fault in outcome.faults:
        log.error("record.passed_over", key=fault.key, msg=fault.msg)
    for one in outcome.assigned:
        log.info("assigned", address=one.address, block=one.block, handle=wish.handle)
    answer = [_answer(context, one) for one in outcome.assigned]
    return print_result(add_result(context.netconf.cni_version, answer))


def route(context: Context, wish: Wish, outcome: Outcome) -> None:
    """Make sure that each own block of the answer has its blackhole route.

    Raises RouteError; then what this call assigned is given back."""
    if not holds_blocks(context):
        return
    try:
        hold_blocks(context, [one.block for one in outcome.assigned if one.is_affine])
    except RouteError:
        _give_back(context, wish)
        raise


def _give_back(context: Context, wish: Wish) -> None:
    """Release what this call assigned, and nothing that the attachment had before."""
    from cni_ipam.ipam.release import release

    stamp = go_time(wish.now)

    def is_of_this_call(owner: Attribute) -> bool:
        return wish.is_mine(owner) and owner.get("timestamp") == stamp

    release(context.store(), wish.host, {wish.handle: is_of_this_call}, wish.now)


def _answer_without_ipam(context: Context, addresses: tuple[Address, ...]) -> str:
    """The result for a pod that brings its addresses along (`ipAddrsNoIpam`): nothing is recorded,
    so DEL will find nothing and succeed."""
    for address in addresses:
        log.info("answered_without_ipam", address=address)
    answer = [AssignedAddress(address, address.host_cidr.prefix) for address in addresses]
    return print_result(add_result(context.netconf.cni_version, answer))


def _answer(context: Context, one: Assigned) -> AssignedAddress:
    pool = one.pool.cidr if one.pool else None
    return AssignedAddress(
        address=one.address,
        prefix=prefix_of(pool, one.block, context.netconf.mask, fixed=one.is_fixed),
        gateway=gateway_of(pool, context.netconf.gateway) if pool else None,
    )
