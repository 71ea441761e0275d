"""`ipam check`: whether the datastore is sound, by the definition of `core.check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cni_ipam.core.check import LEFTOVER, UNSOUND, Finding, check_block, check_datastore
from cni_ipam.core.gateway import is_reservation_of
from cni_ipam.core.reservation import Reservations
from cni_ipam.ctl.configure import describe_problems
from cni_ipam.ctl.survey import survey
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.ipam.settings import find_unheeded

if TYPE_CHECKING:
    from cni_ipam.core.block import Block
    from cni_ipam.ctl.session import Session
    from cni_ipam.ctl.survey import Survey
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.errors import CorruptRecord

_ADDRESSES = (keys.BLOCKS, keys.HANDLES, keys.HOST_AFFINITIES, keys.VIRTUAL_AFFINITIES)

MOST_SHOWN = 3
"""How many CIDRs of a reservation a finding tells: as many as a pool keeps back."""


def check(
    context: typer.Context,
    *,
    show_all_ips: Annotated[
        bool, typer.Option("--show-all-ips", help="Also tell each address and whose it is.")
    ] = False,
) -> None:
    """Check that blocks, affinities and handles agree; exit 1 if an address is not safe."""
    session: Session = context.obj
    print("Checking IPAM for inconsistencies...\n")
    found = survey(session.store)
    _tell_what_there_is(found, show_all_ips=show_all_ips)
    invalid = find_invalid_blocks(found, session.now)
    print(f"Found {len({finding.where for finding in invalid})} invalid IPAMBlocks.\n")
    findings = [
        *invalid,
        *find_disagreements(found),
        *find_unreadable(session.store),
        *find_pods_on_kept_back(found),
        *find_old_reservations(found),
        *find_wrong_settings(session.store, found),
    ]
    for finding in findings:
        print(f"  {finding}")
    print(f"Check complete; found {len(findings)} problems.")
    if any(finding.severity == UNSOUND for finding in findings):
        raise typer.Exit(1)


def find_invalid_blocks(found: Survey, now: int) -> list[Finding]:
    """What is wrong inside blocks, each for itself."""
    findings = [
        Finding(UNSOUND, str(cidr), fault.msg)
        for fault in found.faults
        if (cidr := keys.find_block(fault.key)) is not None
    ]
    for block in found.blocks:
        findings += [
            Finding(UNSOUND, str(block.cidr), problem) for problem in check_block(block, now)
        ]
    return findings


def find_disagreements(found: Survey) -> list[Finding]:
    """Other records that cannot be understood; and where there is none, a broken block included,
    what the records say against each other."""
    broken = [
        Finding(UNSOUND, fault.key, fault.msg)
        for fault in found.faults
        if keys.find_block(fault.key) is None
    ]
    if any(fault.key.startswith(_ADDRESSES) for fault in found.faults):
        return broken
    return broken + check_datastore(found.blocks, found.affinities, found.handles)


def find_unreadable(store: Datastore) -> list[Finding]:
    """Records beside the addresses that an ADD reads, too, and that cannot be understood: a node
    concerns its own pods, whether the datastore is locked those of every node."""
    nodes, cluster = store.read([Range(keys.NODES, prefix=True), Range(keys.CLUSTER_INFORMATION)])
    faults: list[CorruptRecord] = []
    codec.decode_all(codec.decode_labels, nodes, faults)
    codec.decode_all(codec.is_ready, cluster, faults)
    return [Finding(UNSOUND, fault.key, fault.msg) for fault in faults]


def find_pods_on_kept_back(found: Survey) -> list[Finding]:
    """Who has an address that a pool with a gateway keeps back: a peer gave it before we did.

    Such a pod works, but nothing is routed right for a pod that has its node's gateway address."""
    kept_back = Reservations().plus([cidr for held in found.kept_back.values() for cidr in held])
    findings = []
    for block in found.blocks:
        for ordinal, owner in block.allocated():
            address = block.cidr.address(ordinal)
            if kept_back.contains(address):
                who = f"pod {owner.get('namespace')}/{owner.get('pod')}, handle {owner.handle}"
                text = f"is kept back by its pool, but held by {who}; make the pod anew"
                findings.append(Finding(LEFTOVER, str(address), text))
    return findings


def find_old_reservations(found: Survey) -> list[Finding]:
    """Our reservations that hold addresses of a former pool: whoever deletes a pool without ipamctl
    leaves them, and another pool that has these addresses by now lacks them."""
    findings = []
    unclear = [keys.last_part(f.key) for f in found.faults if f.key.startswith(keys.POOLS)]
    for name, held in found.kept_back.items():
        pools = [pool.cidr for pool in found.pools if is_reservation_of(name, pool.name)]
        outside = [cidr for cidr in held if not any(pool.covers(cidr) for pool in pools)]
        if not outside or any(is_reservation_of(name, pool) for pool in unclear):
            continue
        cidrs = ", ".join(map(str, outside[:MOST_SHOWN])) + (", …" * (len(outside) > MOST_SHOWN))
        remedy = f"remove it: `ipamctl delete ipreservation {name}`"
        if pools:
            why = f" outside of its pool {pools[0]}, left from a former pool of that name"
            remedy += ", and the next ADD reserves again what the pool needs"
        else:
            why = ", but its pool is gone"
        text = f"reserves {cidrs}{why}; {remedy}"
        findings.append(Finding(LEFTOVER, f"IPReservation({name})", text))
    return findings


def find_wrong_settings(store: Datastore, found: Survey) -> list[Finding]:
    """The rules that the settings break, as somebody wrote them past ipamctl and calicoctl; and
    other settings where no assignment looks for them."""
    problems = describe_problems(found.config)
    unheeded = find_unheeded(store, found.config)
    if unheeded is not None:
        problems.append(unheeded)
    return [Finding(LEFTOVER, "IPAMConfiguration(default)", problem) for problem in problems]


def _tell_what_there_is(found: Survey, *, show_all_ips: bool) -> None:
    print("Loading all IPAM blocks...")
    print(f"Found {len(found.blocks)} IPAM blocks.")
    for block in found.blocks:
        print(f" IPAM block {block.cidr} affinity={block.affinity or '<none>'}:")
        if show_all_ips:
            _tell_addresses(block)
    allocations = sum(len(list(block.allocated())) for block in found.blocks)
    print(f"IPAM blocks record {allocations} allocations.\n")
    print("Loading all IPAM pools...")
    active = [pool for pool in found.pools if pool.is_enabled]
    for pool in active:
        print(f"  {pool.cidr}")
    print(f"Found {len(active)} active IP pools.\n")
    print("Validating IPAMBlock structures...")


def _tell_addresses(block: Block) -> None:
    for ordinal, owner in block.allocated():
        state = "allocated" if owner.released_at is None else "in cooldown"
        pairs = sorted((owner.secondary or {}).items())
        attributes = ",".join(f"{name}={value}" for name, value in pairs)
        whose = f"attrs Main:{owner.handle_id or '<none>'} Extra:{attributes}"
        print(f"  {block.cidr.address(ordinal)} {state}; {whose}")
