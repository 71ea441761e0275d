"""`ipam release`: give one address back, whoever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl.show import read_address
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import OperatorError
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.release import count_of
from cni_ipam.ipam.retry import retry

if TYPE_CHECKING:
    from cni_ipam.core.address import Address
    from cni_ipam.core.block import Block
    from cni_ipam.ctl.session import Session
    from cni_ipam.datastore.port import Datastore


def release(
    context: typer.Context,
    ip: Annotated[str | None, typer.Option("--ip", help="The address to release.")] = None,
) -> None:
    """Release an address whose owner is gone; an owner that lives goes on using it."""
    session: Session = context.obj
    if ip is None:
        return
    address = read_address(ip)
    if not release_address(session.store, address, session.now):
        raise OperatorError(f"IP address {address} is not assigned")
    print(f"Successfully released IP address {address}")


def release_address(store: Datastore, address: Address, now: int) -> bool:
    """The address is free or cooling afterwards; whether somebody had it.

    Raises CorruptRecord, TryAgainLater."""
    return retry(lambda: _release(store, address, now))


def _release(store: Datastore, address: Address, now: int) -> bool:
    family = Range(keys.blocks_prefix(address.version), prefix=True, keys_only=True)
    listed = store.read([family])[0]
    cidrs = (keys.find_block(entry.key) for entry in listed)
    cidr = next((cidr for cidr in cidrs if cidr is not None and cidr.contains(address)), None)
    if cidr is None:
        return False
    entries, config = store.read([Range(keys.block_key(cidr)), Range(keys.CONFIG)])
    if not entries:
        return False
    block = codec.decode_block(entries[0])
    ordinal = block.ordinal_of(address)
    owner = block.attribute_of(ordinal)
    if owner is None or owner.released_at is not None:
        return False
    cooldown = codec.decode_config(config[0] if config else None).cooldown_seconds
    left = block.release([ordinal], now, cooldown)
    draft = Draft()
    if left.is_empty and left.affinity is None:
        draft.delete_block(cidr, entries[0].revision)
    else:
        draft.put_block(left, entries[0].revision)
    if owner.handle:
        _lower_handle(store, draft, left, owner.handle)
    store.commit(draft.writes())
    return True


def _lower_handle(store: Datastore, draft: Draft, left: Block, handle_id: str) -> None:
    """Make the handle count what the block really holds then."""
    entries = store.read([Range(keys.handle_key(handle_id))])[0]
    if entries:
        handle = codec.decode_handle(entries[0])
        lowered = handle.with_count(left.cidr, count_of(left, handle_id))
        draft.lower_handle(lowered, entries[0].revision)
