"""CHECK: what is recorded for the attachment is what its result says, and is routed."""

from __future__ import annotations

from cni_ipam.cni.result import parse_prev_result
from cni_ipam.errors import CheckFailed
from cni_ipam.plugin.recorded import find_recorded, holds_blocks
from cni_ipam.routes.plan import wanted_blackholes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Address
    from cni_ipam.plugin.context import Context
    from cni_ipam.plugin.recorded import Recorded


def check(context: Context) -> str:
    """Nothing for stdout. Raises CheckFailed, CorruptRecord, RouteError."""
    recorded = find_recorded(context)
    if context.netconf.chained:
        from cni_ipam.plugin.chain import check_host_routes

        check_host_routes(context)
    else:
        _check_addresses(context, recorded)
    if holds_blocks(context):
        for cidr in wanted_blackholes(recorded.own_blocks):
            if not context.routes().has_route(cidr):
                raise CheckFailed(
                    f"the blackhole route of block {cidr} is missing",
                    "the next ADD on this node makes it again",
                )
    return ""


def _check_addresses(context: Context, recorded: Recorded) -> None:
    """Other plugins may have added addresses: ours must be among those of prevResult, no more."""
    expected = recorded.addresses or _find_without_ipam(context)
    if not expected:
        raise CheckFailed(
            f"no address is recorded for {context.request.ifname} of {context.handle}",
            "the allocation was released behind the pod's back; the pod must be made again",
        )
    if context.netconf.prev_result is None:
        return
    reported = [a for a, _ in parse_prev_result(context.netconf.prev_result).addresses]
    for address in expected:
        if address not in reported:
            how = "recorded" if recorded.addresses else "asked for (ipAddrsNoIpam)"
            raise CheckFailed(
                f"{address} is {how} for {context.handle}, but prevResult does not have it",
                f"prevResult has {', '.join(map(str, reported)) or 'no address'}",
            )


def _find_without_ipam(context: Context) -> tuple[Address, ...]:
    """The addresses that ADD answered with and recorded nowhere, as far as the runtime tells: an
    API server is not asked by CHECK."""
    texts = context.netconf.pod_annotations
    if not texts or not context.netconf.ip_addrs_no_ipam or not context.netconf.heeds_annotations:
        return ()
    from cni_ipam.workload.annotations import Annotations, parse_pod

    said = parse_pod(
        Annotations("the pod", texts),
        ip_addrs_no_ipam=True,
        floating_ips=context.netconf.floating_ips,
    )
    return said.without_ipam
