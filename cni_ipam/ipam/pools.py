"""Records about pools that an ADD may have to make: default pools, and reservations of what a
pool with a gateway keeps back."""

from __future__ import annotations

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.gateway import further_reservation_name, kept_back, reservation_name
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import NetconfError, NoQualifiedPool
from cni_ipam.ipam.view import read_labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.ipam.assign import Attempt
    from cni_ipam.ipam.view import View
    from cni_ipam.ipam.wish import Wish


def missing_node(host: str) -> NoQualifiedPool:
    """Calico's error for a node without a Node record."""
    return NoQualifiedPool(
        f"resource does not exist: Node({host}) with error: <nil>",
        "a pool is chosen by the node's labels; create the Node, or set `nodename` to its name",
    )


def get_labels(store: Datastore, host: str) -> dict[str, str]:
    """The labels of this node. Raises NoQualifiedPool if it has no Node record."""
    labels = read_labels(store, host)
    if labels is None:
        raise missing_node(host)
    return labels


def make_default_pools(store: Datastore, wish: Wish, view: View) -> bool:
    """Create those default pools that were never created; whether there were any.

    Each comes with a marker, in one commit, so that a pool deleted later stays deleted.
    Raises NetconfError if one of them breaks the rules of pools (then none is created),
    Conflict if another process was at it."""
    missing = [(n, s) for n, s in wish.default_pools if n not in view.made_default_pools]
    if not missing:
        return False
    entries, blocks = store.read(
        [
            Range(keys.POOLS, prefix=True),
            Range(keys.BLOCKS, prefix=True, keys_only=True),
        ]
    )
    existing = [codec.decode_document(entry) for entry in entries]
    cidrs = [c for c in (keys.find_block(entry.key) for entry in blocks) if c is not None]
    writes = []
    for name, spec in missing:
        if all(keys.last_part(entry.key) != name for entry in entries):
            resource = _checked(name, spec, existing, cidrs)
            existing.append(resource)
            writes.extend(_pool_writes(name, resource["spec"], wish, view))
        # Last: a crash that leaves the marker alone would leave the pool unmade for ever.
        writes.append(Write(keys.DEFAULT_POOLS_MADE + name, "{}", ABSENT))
    if wish.lacks_node(view):
        writes.append(new_node(wish))
    store.commit(writes)
    return True


def new_node(wish: Wish) -> Write:
    """The record of this node, without labels, for a datastore that nobody else makes one for."""
    value = codec.new_resource("Node", wish.host, {}, wish.now, wish.seed)
    return Write(keys.NODES + wish.host, value, ABSENT)


def _checked(
    name: str,
    spec: Mapping[str, object],
    existing: list[codec.Document],
    blocks: list[Cidr],
) -> codec.Document:
    # The rules are needed once in a datastore's life; importing them on each ADD would cost.
    from cni_ipam.core.pool_rules import check_pool_creation, format_errors, with_pool_defaults

    resource = {
        "kind": "IPPool",
        "apiVersion": codec.API_VERSION,
        "metadata": {"name": name},
        "spec": dict(spec),
    }
    errors = check_pool_creation(resource, existing, blocks)
    if errors:
        raise NetconfError(
            f"default_pools: pool {name}: {format_errors(errors)}",
            "correct default_pools in the network configuration",
        )
    return with_pool_defaults(resource)


def _pool_writes(name: str, spec: Mapping[str, object], wish: Wish, view: View) -> list[Write]:
    # In Go's order, and without what it leaves out as empty.
    fields = {field: spec[field] for field in codec.POOL_FIELDS if spec.get(field)}
    pool = codec.new_resource("IPPool", name, fields, wish.now, wish.seed)
    writes = [Write(keys.POOLS + name, pool, ABSENT)]
    reservation = _find_reservation(name, parse_cidr(str(spec["cidr"])), wish, view)
    return writes if reservation is None else [reservation, *writes]


def _find_reservation(pool_name: str, pool: Cidr, wish: Wish, view: View) -> Write | None:
    """The reservation to make for what a pool keeps back; None if it is reserved already.

    The pool's first one holds everything. Where one of that name holds something else, a further
    one holds the rest: two nodes that make it at once choose the same name."""
    held = kept_back(pool, wish.gateway)
    missing = [cidr for cidr in held if not view.reservations.covers(cidr)]
    if not missing:
        return None
    contents = {reservation_name(pool_name): held}
    # An operator may have emptied a further one: then its address is missing, and its name taken.
    contents |= {further_reservation_name(pool_name, cidr): missing for cidr in missing}
    for name, cidrs in contents.items():
        if name not in view.reservation_names:
            spec = {"reservedCIDRs": [str(cidr) for cidr in cidrs]}
            value = codec.new_resource("IPReservation", name, spec, wish.now, wish.seed)
            return Write(keys.RESERVATIONS + name, value, ABSENT)
    return None


def reserve_kept_back(attempt: Attempt, chosen: Sequence[Pool]) -> None:
    """Make the reservations that keep Calico's own nodes off what the pools keep back."""
    for pool in chosen:
        write = _find_reservation(pool.name, pool.cidr, attempt.wish, attempt.view)
        if write is not None:
            attempt.draft.create(write.key, str(write.value))
