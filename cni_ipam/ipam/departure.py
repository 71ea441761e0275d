"""Departure: give back everything that a dead node holds, so that others may have it.

First its addresses, in whosesoever block, with their handles; then its affinities, whereby its
empty blocks go, too. A call that died in between is repeated and goes on. Nothing names the node
of a handle that it left counting too much, so all handles are compared with their blocks.
"""

from __future__ import annotations

from cni_ipam.core.address import BITS
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import CniIpamError, Conflict
from cni_ipam.ipam.affinity import list_affinities, remove_host
from cni_ipam.ipam.collect import release_meant
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.release import count_of
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Block
    from cni_ipam.core.handle import Handle
    from cni_ipam.datastore.port import Datastore, Write


@record
class Departed:
    """What a node gave back, its claims that were begun and stay (they own nothing), and what went
    wrong."""

    addresses: tuple[Address, ...]
    blocks: tuple[Cidr, ...]
    begun: tuple[Cidr, ...]
    errors: tuple[CniIpamError, ...]


def release_node(store: Datastore, node: str, now: int) -> Departed:
    """Give back what `node`, which has to be dead, holds. Goes on after an error and returns them
    all; raises what reading raises.

    Of an affinity whose block was never made only its maker knows whether it still will be, so it
    is left: another host may claim the block all the same."""
    held = _list_blocks(store, node)
    freed, errors = release_meant(store, lambda owner: owner.get("node") == node, node, now)
    _lower_left_over(store)
    try:
        remove_host(store, node, now)
    except CniIpamError as error:
        errors.append(error)
    left = _list_blocks(store, node)
    gone = [cidr for cidr in held if cidr not in left]
    return Departed(freed.addresses, tuple(gone), _find_begun(store, left), tuple(errors))


def _list_blocks(store: Datastore, node: str) -> list[Cidr]:
    prefixes = [keys.affinities_prefix(node, version) for version in BITS]
    return [affinity.cidr for affinity in list_affinities(store, prefixes)]


def _find_begun(store: Datastore, blocks: list[Cidr]) -> tuple[Cidr, ...]:
    """Those that were never made; one that is there is left because it cannot be read."""
    made = store.read([Range(keys.block_key(cidr), keys_only=True) for cidr in blocks])
    return tuple([cidr for cidr, entries in zip(blocks, made, strict=True) if not entries])


def _lower_left_over(store: Datastore) -> None:
    """Make handles count what their blocks hold, but for those that somebody is about to use.

    An ADD writes its claim, then its handle, then its block: so a block that is not there and that
    nobody claims will not be made by it, and one that is there is touched, for its swap to fail."""
    handles, hosts, virtual, found = store.read(
        [
            Range(keys.HANDLES, prefix=True),
            Range(keys.HOST_AFFINITIES, prefix=True, keys_only=True),
            Range(keys.VIRTUAL_AFFINITIES, prefix=True, keys_only=True),
            Range(keys.BLOCKS, prefix=True),
        ]
    )
    # A block that is claimed, or cannot be read, may hold anything.
    named = [keys.find_affinity(entry.key) for entry in (*hosts, *virtual)]
    open_ones = {affinity[2] for affinity in named if affinity is not None}
    open_ones |= {cidr for entry in found if (cidr := keys.find_block(entry.key)) is not None}
    blocks = {
        block.cidr: (block, entry.revision)
        for entry in found
        for block in codec.decode_all(codec.decode_block, [entry], [])
    }
    for entry in handles:
        for handle in codec.decode_all(codec.decode_handle, [entry], []):
            writes = _draft_lowering(handle, entry.revision, blocks, open_ones).writes()
            if writes:
                _try_commit(store, writes)


def _try_commit(store: Datastore, writes: list[Write]) -> None:
    """A handle whose swap is lost is in use, so it is not one that was left over."""
    try:
        store.commit(writes)
    except Conflict:
        return


def _draft_lowering(
    handle: Handle, revision: int, blocks: dict[Cidr, tuple[Block, int]], open_ones: set[Cidr]
) -> Draft:
    draft = Draft()
    lowered = handle
    for cidr, count in handle.blocks.items():
        if cidr in blocks:
            block, block_revision = blocks[cidr]
            really = count_of(block, handle.id)
            if really < count:
                draft.put_block(block.touch(), block_revision)
                lowered = lowered.with_count(cidr, really)
        elif cidr not in open_ones:
            lowered = lowered.with_count(cidr, 0)
    if lowered != handle:
        draft.lower_handle(lowered, revision)
    return draft
