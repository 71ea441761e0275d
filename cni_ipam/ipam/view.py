"""What there is: the records that a decision needs, from one read of the datastore."""

from __future__ import annotations

from cni_ipam.core.reservation import Reservations
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CorruptRecord, NotFound
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.affinity import Affinity
    from cni_ipam.core.block import Block
    from cni_ipam.core.config import IpamConfig
    from cni_ipam.core.handle import Handle
    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore, Entry


PAGE_SIZE = 256
"""How many blocks are read at a time where all may have to be looked at."""


@record
class View:
    """The records at one moment. `affinities` are the host's own, with their revisions;
    `handles` holds those that were asked for; `faults` are records that could not be understood."""

    pools: list[Pool]
    reservations: Reservations
    reservation_names: frozenset[str]
    config: IpamConfig
    node_labels: dict[str, str] | None
    is_ready: bool
    made_default_pools: frozenset[str]
    affinities: dict[Cidr, tuple[Affinity, int]]
    handles: dict[str, tuple[Handle, int]]
    faults: list[CorruptRecord]

    def require(self, *needed: str) -> None:
        """Raises CorruptRecord if the record under one of these keys could not be understood."""
        for fault in self.faults:
            if fault.key in needed:
                raise fault


def read_view(
    store: Datastore,
    host: str,
    versions: Iterable[int],
    handle_ids: Sequence[str],
    kind: str = "host",
    default_pools: Iterable[str] = (),
) -> View:
    """Everything but the blocks, in one request; of the `default_pools`, by name, whether they were
    made. Without any only Calico's own keys are read: its etcd user may have no others."""
    marker_ranges = [Range(keys.DEFAULT_POOLS_MADE + name) for name in default_pools]
    affinity_ranges = [Range(keys.affinities_prefix(host, v, kind), prefix=True) for v in versions]
    handle_ranges = [Range(keys.handle_key(handle_id)) for handle_id in handle_ids]
    pools, reservations, config, node, cluster, *others = store.read(
        [
            Range(keys.POOLS, prefix=True),
            Range(keys.RESERVATIONS, prefix=True),
            Range(keys.CONFIG),
            Range(keys.NODES + host),
            Range(keys.CLUSTER_INFORMATION),
            *affinity_ranges,
            *handle_ranges,
            *marker_ranges,
        ]
    )
    faults: list[CorruptRecord] = []
    affinities = [e for entries in others[: len(affinity_ranges)] for e in entries]
    others = others[len(affinity_ranges) :]
    handles = [e for entries in others[: len(handle_ranges)] for e in entries]
    made = [e for entries in others[len(handle_ranges) :] for e in entries]
    reserved = Reservations().plus(
        [
            c
            for cidrs in codec.decode_all(codec.decode_reservation, reservations, faults)
            for c in cidrs
        ]
    )
    labels = codec.decode_all(codec.decode_labels, node, faults)
    return View(
        pools=codec.decode_all(codec.decode_pool, pools, faults),
        reservations=reserved,
        reservation_names=frozenset([keys.last_part(entry.key) for entry in reservations]),
        config=codec.decode_found_config(config),
        node_labels=labels[0] if labels else None,
        is_ready=all(codec.decode_all(codec.is_ready, cluster, faults)),
        made_default_pools=frozenset([keys.last_part(entry.key) for entry in made]),
        affinities={
            affinity.cidr: (affinity, entry.revision)
            for entry in affinities
            for affinity in codec.decode_all(codec.decode_affinity, [entry], faults)
        },
        handles={
            handle.id: (handle, entry.revision)
            for entry in handles
            for handle in codec.decode_all(codec.decode_handle, [entry], faults)
        },
        faults=faults,
    )


def find_overlapping(store: Datastore, cidr: Cidr) -> list[Cidr]:
    """The blocks of other sizes that share addresses with `cidr`; one list of keys.

    A pool that was made anew with another blockSize may have some. They serve as they are, and
    no block may ever be claimed on top of them."""
    prefix = keys.blocks_prefix(cidr.version)
    entries = store.read([Range(prefix, prefix=True, keys_only=True)])[0]
    return pick_overlapping(entries, cidr, cidr.prefix)


def pick_overlapping(entries: Iterable[Entry], cidr: Cidr, usual_prefix: int) -> list[Cidr]:
    """The blocks under these keys that share addresses with `cidr`, without those of the usual
    size, which are known by their keys."""
    usual = f"-{usual_prefix}"
    found = [keys.find_block(entry.key) for entry in entries if not entry.key.endswith(usual)]
    return [other for other in found if other is not None and other.overlaps(cidr)]


def missing_handle(handle_id: str) -> NotFound:
    """Calico's error for a handle that is not there."""
    return NotFound(f"resource does not exist: IPAMHandle({handle_id}) with error: <nil>")


def read_blocks(
    store: Datastore, cidrs: Iterable[Cidr], faults: list[CorruptRecord]
) -> dict[Cidr, tuple[Block, int]]:
    """Those of the blocks that exist, with their revisions, in one request. A block that cannot
    be understood is added to `faults` and left out: the others still serve."""
    ranges = [Range(keys.block_key(cidr)) for cidr in dict.fromkeys(cidrs)]
    found = [entries[0] for entries in store.read(ranges) if entries] if ranges else []
    return {
        block.cidr: (block, entry.revision)
        for entry in found
        for block in codec.decode_all(codec.decode_block, [entry], faults)
    }
