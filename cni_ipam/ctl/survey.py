"""All of the records that concern addresses, as they were at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cni_ipam.core.config import IpamConfig
from cni_ipam.core.gateway import RESERVATION_PREFIX
from cni_ipam.core.reservation import Reservations
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CorruptRecord

if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr
    from cni_ipam.core.affinity import Affinity
    from cni_ipam.core.block import Block
    from cni_ipam.core.handle import Handle
    from cni_ipam.core.pool import Pool
    from cni_ipam.datastore.port import Datastore

T = TypeVar("T")


@dataclass
class Survey:
    """The records; `kept_back` is what pools with a gateway never give, as far as our reservations
    tell, by the reservation's name; `faults` are the records that could not be understood."""

    pools: list[Pool]
    blocks: list[Block]
    reservations: Reservations
    affinities: list[Affinity]
    handles: list[Handle]
    config: IpamConfig
    kept_back: dict[str, list[Cidr]]
    faults: list[CorruptRecord] = field(default_factory=list)


def survey(store: Datastore) -> Survey:
    """Read everything in one request."""
    pools, blocks, reservations, hosts, virtual, handles, config = store.read(
        [
            Range(keys.POOLS, prefix=True),
            Range(keys.BLOCKS, prefix=True),
            Range(keys.RESERVATIONS, prefix=True),
            Range(keys.HOST_AFFINITIES, prefix=True),
            Range(keys.VIRTUAL_AFFINITIES, prefix=True),
            Range(keys.HANDLES, prefix=True),
            Range(keys.CONFIG),
        ]
    )
    faults: list[CorruptRecord] = []
    # Under the hosts lie also markers of long ago, which name no block.
    affinities = [entry for entry in (*hosts, *virtual) if keys.find_affinity(entry.key)]
    reserved = codec.decode_all(codec.decode_reservation, reservations, faults)
    configs = codec.decode_all(codec.decode_config, config, faults)
    return Survey(
        pools=codec.decode_all(codec.decode_pool, pools, faults),
        blocks=codec.decode_all(codec.decode_block, blocks, faults),
        reservations=Reservations().plus([cidr for cidrs in reserved for cidr in cidrs]),
        kept_back={
            name: cidrs
            for entry in reservations
            if (name := keys.last_part(entry.key)).startswith(RESERVATION_PREFIX)
            for cidrs in codec.decode_all(codec.decode_reservation, [entry], [])
        },
        affinities=codec.decode_all(codec.decode_affinity, affinities, faults),
        handles=codec.decode_all(codec.decode_handle, handles, faults),
        config=configs[0] if configs else IpamConfig(),
        faults=faults,
    )
