"""Fixed addresses: just this one, or an error that says who has it.

A fixed address ignores selectors, reservations and the block limit (as Calico's AssignIP does),
but not whether its pool is enabled, what the pool is for, and what a gateway keeps back.
"""

from __future__ import annotations

from cni_ipam.core.gateway import kept_back
from cni_ipam.core.pool import find_pool
from cni_ipam.datastore import keys
from cni_ipam.errors import AddressInUse, AddressReserved, NotInPool, StrictAffinity
from cni_ipam.ipam.claim import claim_empty
from cni_ipam.ipam.view import find_overlapping, read_blocks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Attribute, Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.ipam.assign import Attempt


def blocks_of(attempt: Attempt) -> list[Cidr]:
    """The blocks that the wish's fixed addresses lie in. Raises as `assign_fixed`."""
    return [_pool_of(attempt, a).block_of(a) for a in attempt.wish.fixed]


def assign_fixed(attempt: Attempt, address: Address) -> None:
    """Put the assignment of `address` into the draft, unless the attachment has it already.

    Raises NotInPool, AddressReserved, AddressInUse, StrictAffinity, CorruptRecord."""
    pool = _pool_of(attempt, address)
    cidr = pool.block_of(address)
    if cidr not in attempt.blocks:
        cidr = _find_or_claim(attempt, cidr, address)
    block, revision = attempt.blocks[cidr]
    block = block.collect(attempt.wish.now, attempt.view.config.cooldown_seconds)
    ordinal = block.ordinal_of(address)
    owner = block.attribute_of(ordinal)
    if owner is None:
        _check_affinity(attempt, block)
        if attempt.wish.max_per_handle:
            from cni_ipam.ipam.handle_limit import require_room

            require_room(attempt, address.version)
        block = block.assign_ordinal(ordinal, attempt.owner)
        attempt.put(block, revision)
    elif owner.released_at is not None or not attempt.wish.allows_again(owner):
        raise _in_use(address, owner)
    attempt.answer(block, ordinal, is_fixed=True)


def _find_or_claim(attempt: Attempt, cidr: Cidr, address: Address) -> Cidr:
    """The block that has `address` where the pool's `cidr` is not there: one of another size, else
    that one, claimed. Raises NotInPool if it would lie on top of others, CorruptRecord."""
    wish = attempt.wish
    affinity_key = keys.affinity_key(wish.host, cidr, wish.kind)
    attempt.view.require(keys.block_key(cidr), affinity_key)
    others = find_overlapping(attempt.store, cidr)
    for other in others:
        if not other.contains(address):
            continue
        if other not in attempt.blocks:
            attempt.blocks |= read_blocks(attempt.store, [other], attempt.view.faults)
            attempt.view.require(keys.block_key(other))
        if other in attempt.blocks:
            return other
    if others:
        raise NotInPool(
            f"IP address {address} lies in no block, and none can be claimed for it",
            f"its block {cidr} would overlap with {', '.join(map(str, others))}, made for another "
            "blockSize; release what is in use there, or request another address",
        )
    claim_empty(attempt, cidr)
    return cidr


def _pool_of(attempt: Attempt, address: Address) -> Pool:
    pool = find_pool([p for p in attempt.view.pools if p.is_enabled], address)
    if pool is None:
        raise NotInPool(
            "The provided IP address is not in a configured pool\n",
            f"{address} lies in none of: {_pool_list(attempt, address.version)}",
        )
    if attempt.wish.use and attempt.wish.use not in pool.allowed_uses:
        raise NotInPool(
            f'IP address {address} is in IP pool "{pool.name}", which is not allowed for use '
            f'"{attempt.wish.use}" (allowedUses: [{" ".join(pool.allowed_uses)}])',
            "request an address of a pool whose allowedUses has it",
        )
    for cidr in kept_back(pool.cidr, attempt.wish.gateway):
        if cidr.contains(address):
            raise AddressReserved(
                f"IP address {address} is kept back in pool {pool.name} ({pool.cidr})",
                "a pool with a gateway never gives its first address, its gateway and its "
                "broadcast to a pod; request another one",
            )
    return pool


def _pool_list(attempt: Attempt, version: int) -> str:
    listed = [
        f"{pool.cidr}{'' if pool.is_enabled else f' ({pool.why_not_enabled()})'}"
        for pool in attempt.view.pools
        if pool.cidr.version == version
    ]
    return ", ".join(listed) or f"(no IPv{version} pool)"


def _check_affinity(attempt: Attempt, block: Block) -> None:
    if not attempt.view.config.strict_affinity or block.affinity == attempt.wish.affinity:
        return
    if block.affinity is None:
        raise StrictAffinity(
            f"Attempt to assign from block {block.cidr} with no affinity",
            "nobody owns the block, and strictAffinity forbids to use it",
        )
    raise StrictAffinity(
        "Block host affinity does not match",
        f"block {block.cidr} belongs to {block.affinity}, and strictAffinity forbids to borrow",
    )


def _in_use(address: Address, owner: Attribute) -> AddressInUse:
    if owner.released_at is not None:
        who = f"released at {owner.released_at} and cooling down"
    elif owner.get("pod"):
        who = f"held by pod {owner.get('namespace')}/{owner.get('pod')} on {owner.get('node')}"
    else:
        who = f"held by handle {owner.handle} on node {owner.get('node')}"
    return AddressInUse(
        f"resource already exists: {address} with error: Address already assigned in block",
        f"{address} is {who}",
    )
