"""ipreservation-validation.json: what a reservation may be, and what it reserves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.pool_rules import check_reservation, format_errors
from cni_ipam.core.reservation import Reservations, parse_reserved

if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr

Row = dict[str, Any]

KEYS = {"id", "what", "source", "origin", "note", "why", "kind", "stage", "valid", "valid_crd"}
STAGE_KEYS = {
    "validator": {"object"},
    "read": {"reserved", "effective"},
    "match": {"reserved", "ip", "cidr", "reserved_match", "wholly_reserved"},
    "dedupe": {"reserved", "effective"},
}


def run_row(row: Row) -> list[str]:
    """Validate, read or ask the row's reservation, as its stage says."""
    stage = row["stage"]
    if stage not in STAGE_KEYS:
        return [f"a stage that the runner does not know: {stage}"]
    unknown = row.keys() - KEYS - STAGE_KEYS[stage]
    if unknown:
        return [f"keys that the runner does not know: {sorted(unknown)}"]
    if stage == "validator":
        return _validate(row)
    cidrs = [cidr for cidr in map(parse_reserved, row["reserved"]) if cidr]
    if stage == "match":
        return _match(row, Reservations().plus(cidrs))
    return _compare_effective(row, cidrs)


def _validate(row: Row) -> list[str]:
    errors = check_reservation(row["object"])
    if row["valid"]:
        return [f"refused: {format_errors(errors)}"] if errors else []
    return [] if errors else ["accepted"]


def _match(row: Row, reservations: Reservations) -> list[str]:
    complaints = []
    if "reserved_match" in row:
        found = reservations.contains(parse_address(row["ip"]))
        if found != row["reserved_match"]:
            complaints.append(f"{row['ip']} reserved: {found}")
    if "wholly_reserved" in row:
        found = reservations.covers(parse_cidr(row["cidr"]))
        if found != row["wholly_reserved"]:
            complaints.append(f"{row['cidr']} wholly reserved: {found}")
    return complaints


def _compare_effective(row: Row, cidrs: list[Cidr]) -> list[str]:
    """Reservations are kept as merged spans, so only what they cover is compared."""
    effective = Reservations().plus([parse_cidr(text) for text in row["effective"]])
    found = Reservations().plus(cidrs)
    return [] if found == effective else [f"reserves {found}, not {effective}"]
