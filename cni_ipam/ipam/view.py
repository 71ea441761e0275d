"""What there is: the records that a decision needs, from one read of the datastore."""

from __future__ import annotations

from cni_ipam.core.config import IpamConfig
from cni_ipam.core.reservation import Reservations
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CorruptRecord, NotFound
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.affinity import Affinity
    from cni_ipam.core.block import Block
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
    node_labels: Mapping[str, str] | None
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
    without: Sequence[str] = (),
) -> View:
    """Everything but the blocks, in one request; of the `default_pools`, by name, whether they were
    made: without any only Calico's own keys are read, as its etcd user may have no others.

    Of "node", "cluster" and "reservations" those in `without` are left out, as if absent."""
    wanted = {
        "pools": [Range(keys.POOLS, prefix=True)],
        "reservations": [Range(keys.RESERVATIONS, prefix=True)],
        "config": [Range(keys.CONFIG)],
        "node": [Range(keys.NODES + host)],
        "cluster": [Range(keys.CLUSTER_INFORMATION)],
        "affinities": [Range(keys.affinities_prefix(host, v, kind), prefix=True) for v in versions],
        "handles": [Range(keys.handle_key(handle_id)) for handle_id in handle_ids],
        "made": [Range(keys.DEFAULT_POOLS_MADE + name) for name in default_pools],
    }
    for name in without:
        wanted[name] = []
    found = _read_named(store, wanted)
    faults: list[CorruptRecord] = []
    reserved = codec.decode_all(codec.decode_reservation, found["reservations"], faults)
    labels = codec.decode_all(codec.decode_labels, found["node"], faults)
    configs = codec.decode_all(codec.decode_config, found["config"], faults)
    return View(
        pools=codec.decode_all(codec.decode_pool, found["pools"], faults),
        reservations=Reservations().plus([cidr for cidrs in reserved for cidr in cidrs]),
        reservation_names=frozenset([keys.last_part(entry.key) for entry in found["reservations"]]),
        config=configs[0] if configs else IpamConfig(),
        node_labels=labels[0] if labels else None,
        is_ready=all(codec.decode_all(codec.is_ready, found["cluster"], faults)),
        made_default_pools=frozenset([keys.last_part(entry.key) for entry in found["made"]]),
        affinities={
            affinity.cidr: (affinity, entry.revision)
            for entry in found["affinities"]
            for affinity in codec.decode_all(codec.decode_affinity, [entry], faults)
        },
        handles={
            handle.id: (handle, entry.revision)
            for entry in found["handles"]
            for handle in codec.decode_all(codec.decode_handle, [entry], faults)
        },
        faults=faults,
    )


def _read_named(store: Datastore, wanted: dict[str, list[Range]]) -> dict[str, list[Entry]]:
    """The entries of all ranges under each name, in one request."""
    answers = iter(store.read([one for ranges in wanted.values() for one in ranges]))
    return {
        name: [entry for _ in ranges for entry in next(answers)] for name, ranges in wanted.items()
    }


def read_labels(store: Datastore, host: str) -> dict[str, str] | None:
    """The labels of a host's Node; None if there is none. Raises CorruptRecord."""
    entries = store.read([Range(keys.NODES + host)])[0]
    return codec.decode_labels(entries[0]) if entries else None


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
