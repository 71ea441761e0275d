"""STATUS: whether an ADD could be served now.

Runtimes turn any error here into a node that is not ready, so an outage of the datastore or a full
pool is told only where the network configuration asks for it; otherwise it is logged.
"""

from __future__ import annotations

from cni_ipam.core.gateway import kept_back
from cni_ipam.core.handle import handle_id
from cni_ipam.core.pool import PoolRequest, choose_pools
from cni_ipam.core.utilization import explain_full, measure
from cni_ipam.datastore import codec, keys
from cni_ipam.errors import (
    AllocationError,
    CniIpamError,
    CorruptRecord,
    FileUnreadable,
    InputOutputError,
    NetconfError,
    NotAvailable,
    TryAgainLater,
    Unauthorized,
)
from cni_ipam.ipam.view import PAGE_SIZE, read_view
from cni_ipam.lean import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.block import Block
    from cni_ipam.ipam.view import View
    from cni_ipam.plugin.context import Context

TIME_LIMIT_SECONDS = 1.5


def status(context: Context) -> str:
    """Nothing for stdout. Raises NotAvailable."""
    netconf = context.netconf
    try:
        _require_name(context)
        view = read_view(context.store(TIME_LIMIT_SECONDS), netconf.node_name, (), ())
        view.require(keys.CONFIG)
        if netconf.status_when_exhausted:
            _check_room(context, view)
    except (AllocationError, NetconfError, FileUnreadable) as error:
        raise _unavailable(error) from error
    except (TryAgainLater, InputOutputError, CorruptRecord, Unauthorized) as error:
        if netconf.status_when_unreachable:
            raise _unavailable(error) from error
        log.error("status.datastore", msg=error.msg, details=error.details)
    return ""


def _unavailable(error: CniIpamError) -> NotAvailable:
    return NotAvailable(error.msg, error.details)


def _require_name(context: Context) -> None:
    """Raises NetconfError if Kubernetes can have no handle of this network: then every ADD fails.
    In the chained role none is made."""
    netconf = context.netconf
    if netconf.datastore.kind == "kubernetes" and not netconf.chained:
        from cni_ipam.datastore.kubernetes_objects import find_place

        # Any container will do; reading would not tell, as such a handle is merely absent.
        find_place(keys.handle_key(handle_id(netconf.name, "status")))


def _check_room(context: Context, view: View) -> None:
    """Raises AllocationError unless each wanted family has a free address somewhere."""
    netconf = context.netconf
    for version, wanted, names in (
        (4, netconf.ipv4, netconf.ipv4_pools),
        (6, netconf.ipv6, netconf.ipv6_pools),
    ):
        if wanted:
            node, labels = netconf.node_name, view.node_labels
            request = PoolRequest(version, names, node=node, node_labels=labels)
            pools = choose_pools(view.pools, request)
            blocks = _read_all_blocks(context, version)
            held = [cidr for pool in pools for cidr in kept_back(pool.cidr, netconf.gateway)]
            reserved = view.reservations.plus(held)
            numbers = [measure(pool.cidr, blocks, reserved) for pool in pools]
            if all(number.free <= 0 for number in numbers):
                raise NotAvailable(
                    f"No IPs available in pools: [{' '.join(str(p.cidr) for p in pools)}]",
                    explain_full(numbers, are_named=bool(names)),
                )


def _read_all_blocks(context: Context, version: int) -> list[Block]:
    pages = context.store().pages(keys.blocks_prefix(version), PAGE_SIZE)
    entries = [entry for page in pages for entry in page if keys.find_block(entry.key)]
    return [codec.decode_block(entry) for entry in entries]
