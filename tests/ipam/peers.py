"""Records as peers of ours leave them, and looks at what became of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.handle import Handle
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Write
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from tests.ipam.world import NOW, find, put, texts

if TYPE_CHECKING:
    from cni_ipam.datastore.port import Datastore


def put_block(
    store: Datastore,
    cidr: str,
    owner: str | None = "host:node1",
    *given: Attribute,
    claimed: int = NOW - 600 * SECOND,
    state: str | None = "confirmed",
) -> None:
    """A block as a peer left it, each of `given` having one address; handles and affinity too."""
    block = new_block(parse_cidr(cidr), owner, claimed)
    writes = []
    for ordinal, attribute in enumerate(given):
        block = block.assign_ordinal(ordinal, attribute)
        if attribute.handle:
            value = codec.encode_handle(Handle(attribute.handle, {block.cidr: 1}))
            writes.append(Write(keys.handle_key(attribute.handle), value, ABSENT))
    writes.append(Write(keys.block_key(block.cidr), codec.encode_block(block), ABSENT))
    if owner is not None and state is not None:
        kind, _, host = owner.partition(":")
        value = codec.encode_affinity(Affinity(kind, host, block.cidr, state))
        writes.append(Write(keys.affinity_key(host, block.cidr, kind), value, ABSENT))
    store.commit(writes)


def fields_of(store: Datastore, cidr: str) -> dict[str, Any]:
    """The stored fields of a block."""
    entry = find(store, keys.block_key(parse_cidr(cidr)))
    assert entry is not None
    fields: dict[str, Any] = json.loads(entry.value)
    return fields


def change_block(store: Datastore, cidr: str, *dropped: str, **changes: Any) -> None:
    """Edit a block's value as only a peer of another age would write it."""
    kept = {k: v for k, v in fields_of(store, cidr).items() if k not in dropped}
    put(store, keys.block_key(parse_cidr(cidr)), kept | changes)


def free(store: Datastore, *addresses: str, now: int = NOW) -> tuple[list[str], list[str]]:
    """What a release by address gave back, and what was not allocated."""
    requests = [ReleaseRequest(parse_address(text)) for text in addresses]
    freed = release_addresses(store, requests, now)
    assert () == freed.errors
    return texts(freed.released), texts(freed.unallocated)
