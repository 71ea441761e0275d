"""`ipam configure`: the cluster-wide settings of IPAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.core.config import NO_BLOCK_FOR_ANYBODY, PERSISTENCE, find_config_problems
from cni_ipam.ctl.kinds import show_value
from cni_ipam.errors import OperatorError, ValidationError
from cni_ipam.ipam.settings import change_config

if TYPE_CHECKING:
    from cni_ipam.core.config import IpamConfig
    from cni_ipam.ctl.session import Session

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_NAMES = {
    "strict_affinity": "StrictAffinity",
    "max_blocks_per_host": "MaxBlocksPerHost",
    "vm_persistence": "KubeVirtVMAddressPersistence",
    "cooldown_seconds": "IPCooldownSeconds",
}

_HINTS = {
    NO_BLOCK_FOR_ANYBODY: "no node can claim a block, as a record that leaves autoAllocateBlocks "
    "out means false: `ipamctl apply` an IPAMConfiguration with autoAllocateBlocks: true",
}


def configure(
    context: typer.Context,
    strictaffinity: Annotated[
        str | None,
        typer.Option("--strictaffinity", help="true: no node borrows from another's blocks."),
    ] = None,
    max_blocks: Annotated[
        str | None,
        typer.Option(
            "--max-blocks-per-host",
            help="How many blocks a node may own, 0 for 20; needs strict affinity.",
        ),
    ] = None,
    persistence: Annotated[
        str | None,
        typer.Option(
            "--kubevirt-ip-persistence",
            help="Enabled or Disabled: whether virtual machines keep their addresses.",
        ),
    ] = None,
    cooldown: Annotated[
        str | None,
        typer.Option(
            "--ip-cooldown-seconds",
            help="How long a released address rests, 0 to 1200. Calico up to 3.32 never frees an "
            "address that rests: leave it at 0 while such a version runs in the cluster.",
        ),
    ] = None,
) -> None:
    """Change settings for the whole cluster; those that are not named stay."""
    given = {
        "strict_affinity": None if strictaffinity is None else _parse_bool(strictaffinity),
        "max_blocks_per_host": None if max_blocks is None else _parse_limit(max_blocks),
        "vm_persistence": None if persistence is None else _parse_persistence(persistence),
        "cooldown_seconds": None if cooldown is None else _parse_cooldown(cooldown),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise OperatorError("at least one configuration option must be specified")
    session: Session = context.obj
    try:
        change_config(session.store, **changes)
    except ValidationError as error:
        raise ValidationError(f"error: {error}") from None
    for name, value in changes.items():
        print(f"Successfully set {_NAMES[name]} to: {show_value(value)}")


def describe_problems(config: IpamConfig) -> list[str]:
    """The rules that the settings in force break, each with the command that mends it."""
    return [
        f"{problem}; {_HINTS.get(problem, 'see `ipamctl ipam configure`')}"
        for problem in find_config_problems(config)
    ]


def _parse_bool(text: str) -> bool:
    """As Go's ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise OperatorError("invalid value. Use true or false to set strictaffinity")


def _parse_limit(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OperatorError("invalid value for maxblockhost. Use a valid number") from None


def _parse_persistence(text: str) -> str:
    if text in PERSISTENCE:
        return text
    raise OperatorError(
        f"invalid value '{text}' for kubevirt-ip-persistence. Use Enabled or Disabled"
    )


def _parse_cooldown(text: str) -> int | None:
    """-1 stands for no change, as in calicoctl."""
    try:
        seconds = int(text)
    except ValueError:
        raise OperatorError(
            f"invalid value '{text}' for ip-cooldown-seconds. Use a number from 0 to 1200"
        ) from None
    return None if seconds == -1 else seconds
