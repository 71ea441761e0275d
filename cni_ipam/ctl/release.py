"""`ipam release`: give one address back, whoever has it, or all that a dead node has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl.show import read_address
from cni_ipam.ctl.survey import survey
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import OperatorError
from cni_ipam.ipam.departure import release_node
from cni_ipam.ipam.free import ReleaseRequest, release_addresses

if TYPE_CHECKING:
    from cni_ipam.core.address import Address
    from cni_ipam.ctl.session import Session
    from cni_ipam.datastore.port import Datastore


def release(
    context: typer.Context,
    ip: Annotated[str | None, typer.Option("--ip", help="The address to release.")] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            help="Release all addresses and blocks of this node, which must be dead: what its pods "
            "still use may be given to others at once.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also a node that Kubernetes still knows.")
    ] = False,
) -> None:
    """Release an address, or a node's, whose owner is gone; one that lives goes on using it."""
    session: Session = context.obj
    if ip is not None and node is not None:
        raise OperatorError("--ip and --node exclude each other: name an address or a node")
    if ip is not None:
        _release_address(session, read_address(ip))
    if node is not None:
        if not force:
            _refuse_living(session, node)
        _release_node(session, node)


def _release_address(session: Session, address: Address) -> None:
    freed = release_addresses(session.store, [ReleaseRequest(address)], session.now)
    for error in freed.errors:
        raise error
    if not freed.released:
        raise OperatorError(f"IP address {address} is not assigned")
    print(f"Successfully released IP address {address}")


def _refuse_living(session: Session, node: str) -> None:
    """Raises OperatorError for a node of Kubernetes: its pods may run, and others would get their
    addresses. Elsewhere a Node is a mere record, which says nothing about that."""
    is_kubernetes = session.place.datastore.kind == "kubernetes"
    if is_kubernetes and session.store.read([Range(keys.NODES + node)])[0]:
        raise OperatorError(
            f"Node({node}) is still there: its pods may be running, and others would get their "
            "addresses",
            f"if it is dead, `kubectl delete node {node}` first; --force goes before this",
        )


def _release_node(session: Session, node: str) -> None:
    departed = release_node(session.store, node, session.now)
    for address in departed.addresses:
        print(f"Released IP address {address}")
    for block in departed.blocks:
        print(f"Released block {block}")
    for block in departed.begun:
        print(f"A claim on block {block} was begun and stays; it keeps nobody from the block")
    # What cannot be read is in the way of the addresses, and of the block again.
    errors = {error.msg: error for error in departed.errors}
    for message in [*errors][1:]:
        print(message, file=sys.stderr)
    for error in errors.values():
        raise error
    if not (departed.addresses or departed.blocks or departed.begun):
        raise OperatorError(f"nothing is recorded for node {node}", _name_nodes(session.store))
    counts = f"IP addresses: {len(departed.addresses)}, blocks: {len(departed.blocks)}"
    print(f"Successfully released node {node} ({counts})")


def _name_nodes(store: Datastore) -> str:
    """Which nodes hold something, for somebody who mistyped one."""
    found = survey(store)
    hosts = {affinity.host for affinity in found.affinities if affinity.kind == "host"}
    nodes = {owner.get("node") or "" for block in found.blocks for _, owner in block.allocated()}
    return f"nodes that hold something: {', '.join(sorted(hosts | nodes - {''})) or 'none'}"
