"""Deletion of objects, and what goes with a pool and with a node.

A pool is disabled first, so that nothing new comes from it; then every host gives up its blocks
there, empty ones vanish, the others live on without owner until their last address is released;
then the pool goes. A failure in between leaves a disabled pool, and the same command finishes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.gateway import is_reservation_of, reservation_name
from cni_ipam.core.handle import TUNNEL_HANDLES
from cni_ipam.core.reservation import parse_reserved
from cni_ipam.ctl.records import get_entry, missing, refuse_outdated
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import Range, Write
from cni_ipam.errors import CorruptRecord, OperatorError
from cni_ipam.ipam.affinity import release_pool, remove_host
from cni_ipam.ipam.release import release
from cni_ipam.ipam.retry import retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.core.address import Cidr
    from cni_ipam.ctl.resources import Kind, Resource
    from cni_ipam.datastore.port import Datastore, Entry

SETTLE_SECONDS = 0.5
"""How long after a pool is disabled an ADD may still act on what it had read before (Calico's)."""


def delete_record(
    store: Datastore, kind: Kind, resource: Resource, now: int, wait: Callable[[float], None]
) -> list[Cidr]:
    """The object is gone afterwards; returns the blocks that hosts lost thereby.

    Raises NotFound, OperatorError if its resourceVersion is not the latest, CorruptRecord."""
    if kind.is_read_only:
        raise OperatorError(f"operation delete is not supported on {kind.name}")
    name, version = resource["metadata"]["name"], resource["metadata"].get("resourceVersion")
    if kind.name == "IPPool":
        return _delete_pool(store, kind, resource, now, wait)
    lost: list[Cidr] = []
    if kind.name == "Node":
        _require(store, kind, name, version)
        lost = _leave_host(store, name, now)
    retry(lambda: store.commit([_removal(_require(store, kind, name, version))]))
    return lost


def _leave_host(store: Datastore, host: str, now: int) -> list[Cidr]:
    """The host has no blocks any more, and its tunnels no addresses, as after `calicoctl delete
    node`; its pods keep theirs until they go."""
    tunnels = {f"{prefix}{host}": lambda _: True for prefix in TUNNEL_HANDLES}
    released = release(store, host, tunnels, now)
    return [*released.blocks, *remove_host(store, host, now)]


def _delete_pool(
    store: Datastore, kind: Kind, resource: Resource, now: int, wait: Callable[[float], None]
) -> list[Cidr]:
    name, version = resource["metadata"]["name"], resource["metadata"].get("resourceVersion")
    entry = _require(store, kind, name, version)
    lost: list[Cidr] = []
    try:
        cidr = parse_cidr(str(kind.decode(entry)["spec"].get("cidr")))
    except (CorruptRecord, ValueError):
        # What cannot be understood holds no address; it must be possible to be rid of it.
        retry(lambda: store.commit([_removal(get_entry(store, kind, name))]))
        return lost
    _disable(store, kind, name, version)
    wait(SETTLE_SECONDS)
    lost = release_pool(store, cidr, now)
    retry(lambda: store.commit(_pool_removal(store, kind, name, cidr)))
    return lost


def _disable(store: Datastore, kind: Kind, name: str, version: str | None) -> None:
    """The pool is disabled afterwards; whatever rule it breaks does not matter any more."""

    def step() -> None:
        entry = _require(store, kind, name, version)
        pool = kind.decode(entry)
        if not pool["spec"].get("disabled"):
            disabled = {**pool, "spec": {**pool["spec"], "disabled": True}}
            store.commit([Write(entry.key, kind.encode(disabled), entry.revision)])

    retry(step)


def _pool_removal(store: Datastore, kind: Kind, name: str, cidr: Cidr) -> list[Write]:
    """The pool, and the reservations that were made for it unless somebody changed them since."""
    pools, reservations = store.read([Range(kind.key(name)), Range(keys.RESERVATIONS, prefix=True)])
    if not pools:
        raise missing(kind, name)
    named = [e for e in reservations if is_reservation_of(keys.last_part(e.key), name)]
    ours = [entry for entry in named if _is_ours(entry, name, cidr)]
    return [_removal(entry) for entry in (*pools, *ours)]


def _is_ours(entry: Entry, pool_name: str, cidr: Cidr) -> bool:
    """Whether a reservation is still what was made for a pool: its base, its broadcast if it is of
    IPv4, and at most one address more, the gateway; in a further one, some of these alone."""
    try:
        resource = get_kind("ipreservation").decode(entry)
        texts = resource["spec"].get("reservedCIDRs") or ()
        held = {parse_reserved(str(text)) for text in texts}
    except (CorruptRecord, TypeError):
        return False
    edges = {cidr.address(0).host_cidr}
    if cidr.version == 4:
        edges.add(cidr.address(cidr.size - 1).host_cidr)
    if resource["metadata"].keys() & {"labels", "annotations"} or len(held - edges) > 1:
        return False
    if keys.last_part(entry.key) == reservation_name(pool_name):
        return edges <= held
    return all(one is not None and one.size == 1 and cidr.covers(one) for one in held)


def _require(store: Datastore, kind: Kind, name: str, version: str | None) -> Entry:
    entry = get_entry(store, kind, name)
    stored = {"metadata": {"name": name, "resourceVersion": str(entry.revision)}}
    refuse_outdated(kind, stored, version)
    return entry


def _removal(entry: Entry) -> Write:
    return Write(entry.key, None, entry.revision)
