"""The command that sets and removes labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl.records import change_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.errors import NotFound, OperatorError, ValidationError

if TYPE_CHECKING:
    from cni_ipam.ctl.resources import Resource
    from cni_ipam.ctl.session import Session


def label(
    context: typer.Context,
    *,
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    wanted: Annotated[str, typer.Argument(metavar="KEY=VALUE|KEY")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also if it has a value.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label KEY.")] = False,
) -> None:
    """Set or remove a label of an object."""
    session: Session = context.obj
    chosen = get_kind(kind)
    key, equals, value = wanted.partition("=")
    if not name:
        raise OperatorError("resource name may not be empty")
    if chosen.is_read_only:
        raise OperatorError(f"operation label is not supported on {chosen.name}")
    if (not remove and not equals) or (remove and overwrite):
        raise OperatorError(f"invalid label {wanted}")
    said: list[str] = []

    def change(stored: Resource) -> Resource:
        labels = dict(stored["metadata"].get("labels") or {})
        if remove:
            said[:] = [_remove(labels, wanted, f"{kind} {name}")]
        else:
            said[:] = [_set(labels, key, value, f"{kind} {name}", overwrite=overwrite)]
        return {**stored, "metadata": {**stored["metadata"], "labels": labels}}

    try:
        change_record(session.store, chosen, name, change)
    except NotFound:
        raise OperatorError(f"{kind} {name} not found") from None
    except ValidationError as error:
        text = f"failed to update {kind} {name}, label not changed"
        raise OperatorError(text, error.msg) from None
    print(said[0])


def _remove(labels: dict[str, str], key: str, whose: str) -> str:
    if key not in labels:
        raise OperatorError(f"cannot remove label of {whose}, key {key} does not exist")
    del labels[key]
    return f"Successfully removed label {key} from {whose}"


def _set(labels: dict[str, str], key: str, value: str, whose: str, *, overwrite: bool) -> str:
    former = labels.get(key)
    if former is not None and former != value and not overwrite:
        raise OperatorError(
            f"failed to update label of {whose}, key {key} is already present. "  # noqa: S608 no SQL
            "please use '--overwrite' to set a new value"
        )
    labels[key] = value
    done = "set" if former is None else "updated"
    return f"Successfully {done} label {key} on {whose}"
