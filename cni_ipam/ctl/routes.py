"""`routes`: which routes this node should have, which it has, and what to do about it."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.ctl.bird import BirdSocketPath, KeptBird
from cni_ipam.ctl.bird_socket import DEFAULT_SOCKET
from cni_ipam.ctl.keeper import Keeper, KeptRoutes, list_changes
from cni_ipam.ctl.output import format_table
from cni_ipam.ctl.session import LiveNode
from cni_ipam.ctl.watch import Watch
from cni_ipam.errors import OperatorError
from cni_ipam.routes.judgement import OK, name_protocol
from cni_ipam.routes.plan import BLACKHOLE

if TYPE_CHECKING:
    from cni_ipam.ctl.keeper import Mended
    from cni_ipam.ctl.session import Session
    from cni_ipam.ctl.watch import Follower
    from cni_ipam.routes.judgement import Judgement

PATIENCE_SECONDS = 5.0
"""How long the watch waits for a datastore or a lock before it tells so and tries again."""
HEADINGS = ("ROUTE", "TYPE", "DEVICE", "PROTO", "STATE")
NodeName = Annotated[
    str | None, typer.Option("--node", help="This node's name, if no network list tells it.")
]


def show(context: typer.Context, node: NodeName = None) -> None:
    """Show the routes that this node should have or has of us, each with its state."""
    judged = _look(context.obj, node)
    sys.stdout.write(format_table(HEADINGS, [_row(one) for one in judged]))


def check(context: typer.Context, node: NodeName = None) -> None:
    """Check this node's routes; exit 1 if one is not as it should be."""
    findings = [one for one in _look(context.obj, node) if one.state != OK]
    for one in findings:
        print(f"{one.state}: {one.text}")
    mendable = sum(one.can_be_mended for one in findings)
    print(f"Check complete; found {len(findings)} problems, {mendable} of which repair can mend.")
    if findings:
        raise typer.Exit(1)


def repair(
    context: typer.Context,
    node: NodeName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be changed.")
    ] = False,
    keep_on: Annotated[
        bool, typer.Option("--watch", help="Go on with it, as `routes watch` does.")
    ] = False,
) -> None:
    """Make this node's routes as they should be; exit 1 if that was not possible."""
    session: Session = context.obj
    if keep_on and dry_run:
        raise OperatorError("--watch and --dry-run exclude each other")
    if keep_on:
        watch(context, node)
    elif dry_run:
        changes = list_changes(_look(session, node))
        print("\n".join([f"would {change}" for change in changes]) or "nothing to change")
    else:
        with Keeper(LiveNode(session, node).get, session) as keeper:
            _tell(keeper.mend())


def watch(
    context: typer.Context,
    node: NodeName = None,
    bird: Annotated[
        str | None,
        typer.Option("--bird", metavar="FILE", help="Keep BIRD and its configuration right, too."),
    ] = None,
    bird_socket: BirdSocketPath = DEFAULT_SOCKET,
) -> None:
    """Keep this node's routes as they should be, until SIGTERM or SIGINT."""
    session: Session = context.obj
    live = LiveNode(session, node, lock_timeout_seconds=PATIENCE_SECONDS)
    session.limit_seconds = PATIENCE_SECONDS
    with Keeper(live.get, session) as keeper, closing(KeptRoutes(keeper)) as kept:
        followers: list[Follower] = [kept]
        if bird is not None:
            followers.append(KeptBird(live.get, session, bird, bird_socket))
        loop = Watch(session.open_another, followers, _say, renew=session.forget)
        live.when_changed = loop.reopen
        loop.run()


def _look(session: Session, node: str | None) -> list[Judgement]:
    with Keeper(LiveNode(session, node).get, session) as keeper:
        return keeper.look(keeper.read_records())


def _tell(mended: Mended) -> None:
    """What was done, and what remains for the operator. Raises the first refusal, and Exit if
    something remains."""
    for change in mended.done:
        print(change.when_done)
    if not mended.done and not mended.errors:
        print("nothing to change")
    remaining = [one for one in mended.judgements if one.state != OK and not one.can_be_mended]
    for one in remaining:
        print(f"{one.state}: {one.text}", file=sys.stderr)
    for error in mended.errors[1:]:
        print(error.msg, file=sys.stderr)
    for error in mended.errors:
        raise error
    if remaining:
        raise typer.Exit(1)


def _row(one: Judgement) -> list[str]:
    route = one.route
    kind = "blackhole" if route.kind == BLACKHOLE else "host"
    device = "" if route.device is None or route.kind == BLACKHOLE else route.device.name
    proto = name_protocol(route.proto) if route.proto else ""
    return [str(route.cidr), kind, device or "-", proto or "-", one.state]


def _say(line: str) -> None:
    print(line, flush=True)
