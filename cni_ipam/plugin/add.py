"""ADD: who asks → which addresses → recorded → routed → answered."""

from __future__ import annotations

from cni_ipam.cni.result import AssignedAddress, add_result, pass_through, print_result
from cni_ipam.core.gateway import gateway_of, prefix_of
from cni_ipam.core.moment import go_time
from cni_ipam.errors import NetconfError, RouteError
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.wish import Wish
from cni_ipam.lean import log
from cni_ipam.plugin.context import random_seed
from cni_ipam.plugin.recorded import hold_blocks, holds_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_ipam.core.address import Address
    from cni_ipam.core.block import Attribute
    from cni_ipam.ipam.wish import Assigned, Outcome
    from cni_ipam.plugin.context import Context


def add(context: Context) -> str:
    """The result for stdout; all addresses are recorded and routed, or none is.

    A repeated ADD of an attachment answers with the addresses that it has."""
    if context.netconf.chained:
        from cni_ipam.plugin.chain import add_routes

        return print_result(pass_through(add_routes(context), context.netconf.cni_version))
    with context.lock():
        wish = make_wish(context)
        outcome = assign(context.store(), wish)
        route(context, wish, outcome)
    for fault in outcome.faults:
        log.error("record.passed_over", key=fault.key, msg=fault.msg)
    for one in outcome.assigned:
        log.info("assigned", address=one.address, block=one.block, handle=wish.handle)
    answer = [_answer(context, one) for one in outcome.assigned]
    return print_result(add_result(context.netconf.cni_version, answer))


def make_wish(context: Context) -> Wish:
    """What this call asks for. Raises NetconfError for a family that the network does not have."""
    netconf = context.netconf
    calico = netconf.called_as == "calico-ipam"
    fixed = _fixed_addresses(context)
    families = {4: netconf.ipv4, 6: netconf.ipv6}
    if not fixed and not any(families.values()):
        raise NetconfError(
            "both families are switched off for this network",
            'set ipam.assign_ipv4 or ipam.assign_ipv6 to "true"',
        )
    for address in fixed:
        if not families[address.version] and not calico:
            raise NetconfError(
                f"address {address} is requested, but IPv{address.version} is off for this network",
                f'set ipam.assign_ipv{address.version} to "true"',
            )
    free = {v for v in families if all(address.version != v for address in fixed)}
    # Calico's main plugin asks once for each fixed address, and wants nothing else then.
    wanted = {v: 1 for v, on in families.items() if on and v in free and not (calico and fixed)}
    embedded = netconf.datastore.kind == "sqlite"
    makes_pools = embedded or netconf.create_default_pools
    return Wish(
        host=netconf.node_name,
        handle=context.handle,
        owner={**context.owner(), "timestamp": go_time(context.now)},
        now=context.now,
        seed=random_seed(),
        counts=wanted,
        pools={4: netconf.ipv4_pools, 6: netconf.ipv6_pools},
        fixed=fixed,
        gateway=netconf.gateway,
        default_pools=_default_pools(context) if makes_pools else (),
        makes_node=embedded,
        heeds_ready=not calico,
    )


def _fixed_addresses(context: Context) -> tuple[Address, ...]:
    """The requested addresses: the netconf's, else the `IP=` of CNI_ARGS (CNI's conventions)."""
    if context.netconf.requested:
        return context.netconf.requested
    return () if context.arguments.ip is None else (context.arguments.ip,)


def _default_pools(context: Context) -> tuple[tuple[str, Mapping[str, object]], ...]:
    return tuple((pool.name, pool.spec) for pool in context.netconf.default_pools)


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


def _answer(context: Context, one: Assigned) -> AssignedAddress:
    pool = one.pool.cidr if one.pool else None
    return AssignedAddress(
        address=one.address,
        prefix=prefix_of(pool, one.block, context.netconf.mask, fixed=one.is_fixed),
        gateway=gateway_of(pool, context.netconf.gateway) if pool else None,
    )
