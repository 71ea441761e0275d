"""Questions: who has an address, which addresses a handle or a host has, how full the pools are.

Nothing is written. A block is looked at as it is now: what has rested long enough is free.
"""

from __future__ import annotations

from cni_ipam.core.address import BITS
from cni_ipam.core.config import IpamConfig
from cni_ipam.core.host import gather
from cni_ipam.core.pool import find_pool
from cni_ipam.core.reservation import Reservations
from cni_ipam.core.utilization import measure_pools
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CoolingDown, NotFound
from cni_ipam.ipam.view import find_overlapping, missing_handle, read_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Attribute, Block
    from cni_ipam.core.host import HostRecords
    from cni_ipam.core.utilization import PoolUtilization
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.errors import CorruptRecord


def find_owner(store: Datastore, address: Address, now: int) -> Attribute:
    """Who has an address of an enabled pool (as Calico, which does not look at others).

    Raises NotFound if nobody has it, CoolingDown, and CorruptRecord if that cannot be said."""
    found = find_block(store, address, now, only_enabled=True)
    return get_owner(found[0] if found else None, address)


def find_block(
    store: Datastore, address: Address, now: int, *, only_enabled: bool = False
) -> tuple[Block, int] | None:
    """The block of `address` as it is now, and its revision; None if there is no pool or block.

    Raises CorruptRecord if the block, or perhaps its pool, cannot be understood."""
    pools, config = store.read([Range(keys.POOLS, prefix=True), Range(keys.CONFIG)])
    faults: list[CorruptRecord] = []
    known = codec.decode_all(codec.decode_pool, pools, faults)
    pool = find_pool([pool for pool in known if pool.is_enabled or not only_enabled], address)
    if pool is None and faults:
        raise faults[0]
    if pool is None:
        return None
    entries = store.read([Range(keys.block_key(pool.block_of(address)))])[0]
    if not entries:
        others = find_overlapping(store, address.host_cidr)
        entries = store.read([Range(keys.block_key(others[0]))])[0] if others else []
    if not entries:
        return None
    configs = codec.decode_all(codec.decode_config, config, []) or [IpamConfig()]
    block = codec.decode_block(entries[0]).collect(now, configs[0].cooldown_seconds)
    return block, entries[0].revision


def get_owner(block: Block | None, address: Address) -> Attribute:
    """Who has an address of `block`. Raises NotFound, CoolingDown."""
    owner = None if block is None else block.attribute_of(block.ordinal_of(address))
    if owner is None:
        raise NotFound(f"{address} is not assigned")
    if owner.released_at is not None:
        raise CoolingDown(f"address {address} is in cooldown")
    return owner


def addresses_of(store: Datastore, handle_id: str) -> list[Address]:
    """The addresses that a handle has, in the order of the blocks' keys; IPv4 comes first.

    Raises NotFound if there is no such handle, CorruptRecord if it or a block of it is broken."""
    entries = store.read([Range(keys.handle_key(handle_id))])[0]
    if not entries:
        raise missing_handle(handle_id)
    faults: list[CorruptRecord] = []
    cidrs = sorted(codec.decode_handle(entries[0]).blocks, key=keys.block_key)
    blocks = read_blocks(store, cidrs, faults)
    if faults:
        raise faults[0]
    return [
        block.cidr.address(ordinal)
        for block, _ in blocks.values()
        for ordinal in block.find_ordinals(lambda owner: owner.handle == handle_id)
    ]


def read_host(store: Datastore, host: str) -> HostRecords:
    """The part of `host` in the records, all from one moment where the store can; one request.

    Every block is looked at: a host may have an address of any."""
    ranges = [Range(keys.affinities_prefix(host, version), prefix=True) for version in BITS]
    *claims, blocks = store.read([*ranges, Range(keys.BLOCKS, prefix=True)])
    faults: list[CorruptRecord] = []
    affinities = [
        affinity
        for entries in claims
        for affinity in codec.decode_all(codec.decode_affinity, entries, faults)
    ]
    known = codec.decode_all(codec.decode_block, blocks, faults)
    unclear = [_find_cidr(fault.key) for fault in faults]
    return gather(host, affinities, known, [cidr for cidr in unclear if cidr is not None])


def _find_cidr(key: str) -> Cidr | None:
    """The block that a key, its own or an affinity's, is about."""
    affinity = keys.find_affinity(key)
    return keys.find_block(key) if affinity is None else affinity[2]


def read_utilization(store: Datastore, wanted: Collection[str] = ()) -> list[PoolUtilization]:
    """How full the pools are whose names or CIDRs are `wanted` (none: all), in one request.

    Raises CorruptRecord if a record cannot be understood: the numbers would be wrong."""
    pools, blocks, reservations = store.read(
        [
            Range(keys.POOLS, prefix=True),
            Range(keys.BLOCKS, prefix=True),
            Range(keys.RESERVATIONS, prefix=True),
        ]
    )
    known = [codec.decode_pool(entry) for entry in pools]
    reserved = [cidr for entry in reservations for cidr in codec.decode_reservation(entry)]
    return measure_pools(
        [p for p in known if not wanted or p.name in wanted or str(p.cidr) in wanted],
        [codec.decode_block(entry) for entry in blocks],
        Reservations().plus(reserved),
    )
