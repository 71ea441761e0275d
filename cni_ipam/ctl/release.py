"""`ipam release`: give one address back, whoever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl.show import read_address
from cni_ipam.errors import OperatorError
from cni_ipam.ipam.free import ReleaseRequest, release_addresses

if TYPE_CHECKING:
    from cni_ipam.ctl.session import Session


def release(
    context: typer.Context,
    ip: Annotated[str | None, typer.Option("--ip", help="The address to release.")] = None,
) -> None:
    """Release an address whose owner is gone; an owner that lives goes on using it."""
    session: Session = context.obj
    if ip is None:
        return
    address = read_address(ip)
    freed = release_addresses(session.store, [ReleaseRequest(address)], session.now)
    for error in freed.errors:
        raise error
    if not freed.released:
        raise OperatorError(f"IP address {address} is not assigned")
    print(f"Successfully released IP address {address}")
