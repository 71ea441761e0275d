"""`ipam show`: who has an address, how full pools are, what is borrowed, the settings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.core.address import Cidr, parse_address
from cni_ipam.core.utilization import measure
from cni_ipam.ctl.configure import describe_problems
from cni_ipam.ctl.kinds import show_value
from cni_ipam.ctl.output import format_box
from cni_ipam.ctl.survey import survey
from cni_ipam.errors import NotFound
from cni_ipam.ipam.query import find_owner
from cni_ipam.ipam.settings import find_unheeded, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_ipam.core.address import Address
    from cni_ipam.core.block import Attribute, Block
    from cni_ipam.core.pool import Pool
    from cni_ipam.core.reservation import Reservations
    from cni_ipam.ctl.session import Session
    from cni_ipam.ctl.survey import Survey
    from cni_ipam.datastore.port import Datastore

_USAGE = ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS RESERVED", "IPS FREE")
_BORROWED = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")


def show(
    context: typer.Context,
    ip: Annotated[str | None, typer.Option("--ip", help="Who has this address.")] = None,
    show_blocks: Annotated[bool, typer.Option("--show-blocks", help="Blocks as well.")] = False,
    show_borrowed: Annotated[
        bool, typer.Option("--show-borrowed", help="Addresses that nodes have in others' blocks.")
    ] = False,
    show_configuration: Annotated[
        bool, typer.Option("--show-configuration", help="The settings of IPAM.")
    ] = False,
) -> None:
    """Show how full the pools are, or who has an address."""
    session: Session = context.obj
    if ip is not None:
        address = read_address(ip)
        sys.stdout.write(describe_address(session.store, address, session.now))
    elif show_configuration and not (show_blocks or show_borrowed):
        sys.stdout.write(_describe_configuration(session))
    else:
        found = survey(session.store)
        for fault in found.faults:
            print(fault, file=sys.stderr)
        if show_borrowed and not show_blocks:
            sys.stdout.write(describe_borrowed(found))
        else:
            sys.stdout.write(describe_usage(found, show_blocks=show_blocks))


def read_address(text: str) -> Address:
    """An address of the command line. Says what is wrong on stdout, as calicoctl, and exits 1."""
    try:
        return parse_address(text)
    except ValueError:
        print(f"Error executing command: invalid IP address specified: {text}")
        raise typer.Exit(1) from None


def describe_address(store: Datastore, address: Address, now: int) -> str:
    """Who has an address of an enabled pool. Raises CoolingDown for one that is cooling, and
    CorruptRecord if its block cannot be understood."""
    try:
        owner = find_owner(store, address, now)
    except NotFound as error:
        return f"{error}\n"
    lines = [f"IP {address} is in use", f"Handle ID: {owner.handle_id or '<none>'}"]
    if owner.secondary:
        lines += ["Active Owner Attributes:", *_pairs(owner.secondary)]
    else:
        lines.append("No Active Owner attributes defined")
    if owner.alternate:
        lines += ["Alternate Owner Attributes:", *_pairs(owner.alternate)]
    return "\n".join(lines) + "\n"


def describe_usage(found: Survey, *, show_blocks: bool) -> str:
    """The table of pools, each with its blocks if wished; blocks of no pool stand at the end."""
    rows: list[list[str]] = []
    pools = sorted(found.pools, key=lambda pool: pool.name)
    blocks_of: dict[str | None, list[Block]] = {}
    for block in found.blocks:
        blocks_of.setdefault(_find_pool_name(pools, block), []).append(block)
    for name, cidr in [*((pool.name, pool.cidr) for pool in pools), (None, None)]:
        blocks = blocks_of.get(name, [])
        if cidr is not None:
            rows.append(_usage("IP Pool", cidr, blocks, found.reservations))
        if show_blocks:
            rows += [_usage("Block", b.cidr, [b], found.reservations) for b in blocks]
    return format_box(_USAGE, rows, numbers=4)


def describe_borrowed(found: Survey) -> str:
    """The table of addresses whose node is not the owner of their block."""
    rows: list[list[str]] = []
    without_node = 0
    for block in found.blocks:
        for ordinal, owner in block.allocated():
            node = owner.get("node")
            if node is None:
                without_node += 1
            elif node != _host(block):
                address = str(block.cidr.address(ordinal))
                rows.append([address, node, str(block.cidr), _host(block), *_holder(owner)])
    text = format_box(_BORROWED, rows)
    if without_node:
        text += (
            f"\nNote: found {without_node} IP allocations without an explicit node association. "
            "Unable to determine if they are borrowed.\n"
        )
    return text


def _pairs(attributes: dict[str, str]) -> Iterator[str]:
    return (f"  {key}: {value}" for key, value in sorted(attributes.items()))


def _find_pool_name(pools: list[Pool], block: Block) -> str | None:
    return next((pool.name for pool in pools if pool.cidr.overlaps(block.cidr)), None)


def _usage(grouping: str, cidr: Cidr, blocks: list[Block], reservations: Reservations) -> list[str]:
    usage = measure(cidr, blocks, reservations)
    counts = (usage.in_use, usage.reserved, usage.free)
    shares = [f"{n:.5g} ({100 * n / usage.capacity:.0f}%)" for n in map(float, counts)]
    return [grouping, str(cidr), f"{float(usage.capacity):.5g}", *shares]


def _host(block: Block) -> str:
    return (block.affinity or "").rpartition(":")[2]


def _holder(owner: Attribute) -> tuple[str, str]:
    """What kind of thing has an address, and its name."""
    for kind, attribute in (("vmi", "vmi-name"), ("pod", "pod")):
        name = owner.get(attribute)
        if name is not None:
            return kind, f"{owner.get('namespace') or ''}/{name}"
    return owner.get("type") or "", ""


def _describe_configuration(session: Session) -> str:
    config = read_config(session.store)
    for problem in describe_problems(config):
        print(f"these settings break a rule: {problem}", file=sys.stderr)
    unheeded = find_unheeded(session.store, config)
    if unheeded is not None:
        print(unheeded, file=sys.stderr)
    values = (
        ("StrictAffinity", config.strict_affinity),
        ("AutoAllocateBlocks", config.auto_allocate_blocks),
        ("MaxBlocksPerHost", config.max_blocks_per_host),
        ("KubeVirtVMAddressPersistence", config.vm_persistence or "Enabled"),
        ("IPCooldownSeconds", config.cooldown_seconds),
    )
    return format_box(("PROPERTY", "VALUE"), [[name, show_value(value)] for name, value in values])
