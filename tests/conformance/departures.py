"""Where this project is judged differently from a row, and why: the one list of all such rows.

Rules go by what a row says of itself, not by its id, so that they hold for tables not seen yet.
A skipped row is counted and printed with its reason; an adapted one is run with another
expectation, because the program knows CNI 1.1.0, which calico-ipam does not.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]

NEWEST_VERSION = "1.1.0"
REPEATED_ADD = "departure: a repeated ADD answers with the address that the attachment has"


@dataclass(frozen=True)
class Skip:
    """Rows of `file` (of every file if it is empty) for which `applies` holds are not run."""

    file: str
    applies: Callable[[Row], object]
    reason: str


def find_skip(file: str, row: Row) -> str | None:
    """Why `row` is not run, or None if it is."""
    for skip in SKIPS:
        if skip.file in ("", file) and skip.applies(row):
            return skip.reason
    return None


def adapt(row: Row) -> Row:
    """The row as a program that speaks 1.1.0, with GC and STATUS, must meet it."""
    expect = deepcopy(row.get("expect", {}))
    answer = expect.get("stdout_json")
    if isinstance(answer, dict):
        versions = answer.get("supportedVersions")
        if isinstance(versions, list) and versions and versions[-1] == "1.0.0":
            answer["supportedVersions"] = [*versions, NEWEST_VERSION]
        if answer.get("code") == 1 and _config(row).get("cniVersion") == NEWEST_VERSION:
            expect = _expect_of_newest_version(row)
    return {**row, "expect": expect}


def _expect_of_newest_version(row: Row) -> Row:
    """What a verb at 1.1.0 answers where calico-ipam refuses the version."""
    verb = _verb(row)
    if verb == "ADD":
        return {"exit": 0, "called": "ADD", "stdout_json": {"cniVersion": NEWEST_VERSION}}
    if verb == "STATUS":
        return {"exit": 0, "stdout": "", "called": "STATUS"}
    if verb == "GC" and "cni.dev/valid-attachments" not in _config(row):
        return {"exit": "nonzero", "stdout_json": {"code": 7}, "called": None}
    if verb in ("GC", "DEL"):
        return {"exit": 0, "stdout": "", "called": verb}
    return {"exit": "nonzero", "called": None}


def _config(row: Row) -> Row:
    return row["stdin"] if isinstance(row.get("stdin"), dict) else {}


def _verb(row: Row) -> str:
    return str(row.get("env", {}).get("CNI_COMMAND", ""))


def _says(row: Row, pattern: str) -> bool:
    return re.search(pattern, str(row.get("what", "")), re.IGNORECASE) is not None


def _is_about_another_program(row: Row) -> bool:
    subject = str(row.get("applies_to", NEWEST_VERSION))
    return NEWEST_VERSION not in subject and "calico" not in subject


def _ignores_the_interface(row: Row) -> bool:
    frees = {"after_del_allocated", "then_del"} & row.get("expect", {}).keys()
    return bool(frees) and _says(row, r"interface|ifname")


def _repeats_an_add(row: Row) -> bool:
    expect = row.get("expect", {})
    return bool(expect.get("addresses_differ")) or expect.get("sequence") == ["ADD ok", "ADD error"]


def _is_a_silent_check(row: Row) -> bool:
    return _verb(row) == "CHECK" and row.get("expect", {}).get("exit") == 0


SKIPS = (
    Skip("cni-k8s.json", _repeats_an_add, REPEATED_ADD),
    Skip("", lambda row: row.get("quirk"), "records an oddity of Calico's that is not copied"),
    Skip("", lambda row: row.get("fault"), "needs a fault made inside the program"),
    Skip("", _is_about_another_program, "about another program"),
    Skip(
        "cni-protocol.json",
        lambda row: row.get("expect", {}).keys() <= {"note"},
        "about the client, or for contrast: nothing that a plugin could show",
    ),
    Skip(
        "cni-protocol.json",
        _is_a_silent_check,
        "departure: CHECK looks, and says so when the allocation is not there",
    ),
    Skip(
        "cni-protocol.json",
        _ignores_the_interface,
        "departure: an attachment has an interface, so DEL frees that of its own only",
    ),
    Skip(
        "cni-protocol.json",
        lambda row: _says(row, r"not idempotent|(second|repeated|another) ADD|ADD (again|twice)"),
        REPEATED_ADD,
    ),
)
