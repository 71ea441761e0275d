"""Owners: who an address belongs to now, and to whom it is about to go.

A virtual machine keeps its address when it moves to another pod. Until the move is
over, the target's pod is the alternate owner; then it becomes the active one. Each step
says what it expects to find, so that two who manage a move cannot undo each other's work (facts:
Calico 2.16).
"""

from __future__ import annotations

from cni_ipam.errors import NotFound, UpdateConflict, ValidationError
from cni_ipam.ipam.draft import Draft
from cni_ipam.ipam.query import find_block, get_owner
from cni_ipam.ipam.retry import retry
from cni_ipam.lean.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_ipam.core.address import Address
    from cni_ipam.core.block import Attribute
    from cni_ipam.datastore.port import Datastore


@record
class OwnerUpdates:
    """What becomes of the attributes of the active and of the alternate owner: None leaves them."""

    active: Mapping[str, str] | None = None
    alternate: Mapping[str, str] | None = None
    clear_active: bool = False
    clear_alternate: bool = False


@record
class AttributeOwner:
    """The pod that an owner's attributes name."""

    name: str
    namespace: str


@record
class OwnerPreconditions:
    """What must hold for an update: which pod an owner is, or that there is none."""

    active: AttributeOwner | None = None
    alternate: AttributeOwner | None = None
    active_is_empty: bool = False
    alternate_is_empty: bool = False


def set_owner(
    store: Datastore,
    address: Address,
    handle_id: str,
    updates: OwnerUpdates,
    now: int,
    preconditions: OwnerPreconditions | None = None,
) -> None:
    """Set or clear the owners of an address of `handle_id`, and of those given in the same call.

    Raises ValidationError if what is asked for contradicts itself, NotFound and CoolingDown if
    nobody has the address, UpdateConflict if another handle has it or a precondition does not
    hold, CorruptRecord, TryAgainLater; then nothing has changed."""
    expected = preconditions or OwnerPreconditions()
    _check_request(updates, expected)
    retry(lambda: _set_owner(store, address, handle_id, updates, now, expected))


def _set_owner(
    store: Datastore,
    address: Address,
    handle_id: str,
    updates: OwnerUpdates,
    now: int,
    expected: OwnerPreconditions,
) -> None:
    found = find_block(store, address, now)
    if found is None:
        raise NotFound(f"{address} is not assigned", "it lies in no pool, or in no block of one")
    block, revision = found
    owner = get_owner(block, address)
    if owner.handle != handle_id.partition("\r")[0]:
        details = f"it belongs to handle {owner.handle}"
        raise UpdateConflict(f"IP {address} is not assigned to handle {handle_id}", details)
    _check_preconditions(address, owner, expected)
    changed = _update(owner, updates)
    if changed != owner:
        draft = Draft()
        draft.put_block(block.with_owner(block.ordinal_of(address), changed), revision)
        store.commit(draft.writes())


def _check_request(updates: OwnerUpdates, expected: OwnerPreconditions) -> None:
    contradictions = (
        (updates.active is not None and updates.clear_active, "setting and clearing the active"),
        (
            updates.alternate is not None and updates.clear_alternate,
            "setting and clearing the alternate",
        ),
        (
            expected.active is not None and expected.active_is_empty,
            "expecting an active and no active",
        ),
        (
            expected.alternate is not None and expected.alternate_is_empty,
            "expecting an alternate and no alternate",
        ),
    )
    problems = [f"{what} owner are mutually exclusive" for wrong, what in contradictions if wrong]
    if problems:
        raise ValidationError("\n".join(problems))


def _check_preconditions(address: Address, owner: Attribute, expected: OwnerPreconditions) -> None:
    sides = (
        ("active", owner.secondary, expected.active, expected.active_is_empty),
        ("alternate", owner.alternate, expected.alternate, expected.alternate_is_empty),
    )
    for side, attributes, wanted, must_be_empty in sides:
        there = attributes or {}
        pod = (there.get("pod"), there.get("namespace"))
        if wanted is not None and pod != (wanted.name, wanted.namespace):
            what = f"pod {wanted.namespace}/{wanted.name}"
        elif must_be_empty and there:
            what = "nobody"
        else:
            continue
        raise UpdateConflict(
            f"update conflict: {address}", f"its {side} owner should be {what}, but is {there}"
        )


def _update(owner: Attribute, updates: OwnerUpdates) -> Attribute:
    """An owner without attributes is none."""
    if updates.clear_active or updates.active is not None:
        owner = replace(owner, secondary=dict(updates.active or {}) or None)
    if updates.clear_alternate or updates.alternate is not None:
        owner = replace(owner, alternate=dict(updates.alternate or {}) or None)
    return owner
