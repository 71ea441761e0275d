"""Collection: give back what no living attachment of a network has on this node.

Scope is strictly this network on this node. An allocation of ours says which (`network`, `node`,
`ifname`); one that Calico made says less, and where its handle could also be read as another
network's (dots are legal in network names and in container IDs) it is left alone.
"""

from __future__ import annotations

from cni_ipam.core.affinity import owner_of
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CniIpamError, CorruptRecord
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.release import Released, lower_handles, put_released
from cni_ipam.ipam.retry import retry
from cni_ipam.ipam.view import PAGE_SIZE
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Attribute
    from cni_ipam.datastore.port import Datastore


@record
class Living:
    """The attachments of one network on one node that are still alive."""

    network: str
    node: str
    attachments: frozenset[tuple[str, str]]

    def is_dead(self, owner: Attribute) -> bool:
        """Whether an allocation belongs to this network and node and to no living attachment."""
        prefix = f"{self.network}."
        handle = owner.handle or ""
        if owner.get("node") != self.node or not handle.startswith(prefix):
            return False
        if owner.get("type") is not None:
            # A tunnel's or a load balancer's, whatever its handle looks like.
            return False
        network = owner.get("network")
        if network not in (None, self.network) or (network is None and handle.count(".") > 1):
            return False
        container_id, ifname = handle[len(prefix) :], owner.get("ifname")
        if ifname is None:
            return all(container_id != living for living, _ in self.attachments)
        return (container_id, ifname) not in self.attachments


def collect(store: Datastore, living: Living, now: int) -> tuple[Released, list[CniIpamError]]:
    """Release every dead allocation; goes on after an error and returns them all."""
    return release_meant(store, living.is_dead, living.node, now)


def release_meant(
    store: Datastore, is_meant: Callable[[Attribute], bool], host: str, now: int
) -> tuple[Released, list[CniIpamError]]:
    """Release every allocation that is meant, in any block; of the blocks that are lost thereby
    those of `host` are told. Goes on after an error and returns them all."""
    addresses: list[Address] = []
    lost: list[Cidr] = []
    errors: list[CniIpamError] = []
    for cidr in _candidates(store, is_meant, errors):
        try:
            released = _release_from(store, is_meant, host, cidr, now)
        except CniIpamError as error:
            errors.append(error)
        else:
            addresses += released.addresses
            lost += released.blocks
    return Released(tuple(addresses), tuple(lost)), errors


def _candidates(
    store: Datastore, is_meant: Callable[[Attribute], bool], errors: list[CniIpamError]
) -> Iterable[Cidr]:
    found = []
    for page in store.pages(keys.BLOCKS, PAGE_SIZE):
        for entry in page:
            if keys.find_block(entry.key) is None:
                continue
            try:
                block = codec.decode_block(entry)
            except CorruptRecord as error:
                errors.append(error)
                continue
            if block.find_ordinals(is_meant):
                found.append(block.cidr)
    return found


def _release_from(
    store: Datastore, is_meant: Callable[[Attribute], bool], host: str, cidr: Cidr, now: int
) -> Released:
    return retry(lambda: _try_release(store, is_meant, host, cidr, now))


def _try_release(
    store: Datastore, is_meant: Callable[[Attribute], bool], host: str, cidr: Cidr, now: int
) -> Released:
    entries, config, stored = store.read(
        [Range(keys.block_key(cidr)), Range(keys.CONFIG), Range(keys.POOLS, prefix=True)]
    )
    if not entries:
        return Released()
    block = codec.decode_block(entries[0])
    ordinals = block.find_ordinals(is_meant)
    if not ordinals:
        return Released()
    cooldown = codec.decode_found_config(config).cooldown_seconds
    left = block.release(ordinals, now, cooldown)
    draft = Draft()
    pools = codec.decode_all(codec.decode_pool, stored, [])
    ending = put_released(store, draft, pools, left, entries[0].revision)
    lower_handles(store, draft, block, left, ordinals)
    store.commit(draft.writes())
    mine = ending.is_lost and left.affinity == owner_of(host)
    return Released(tuple([cidr.address(o) for o in ordinals]), (cidr,) if mine else ())
