"""The runner of cni-k8s.json: it must see what is wrong, and must not pass what it doesn't know."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from . import cni_k8s
from .departures import find_skip
from .runner import run_row

FILE = "cni-k8s.json"
TABLE = Path(__file__).resolve().parent / "tables" / FILE
ROWS = {row["id"]: row for row in json.loads(TABLE.read_text(encoding="utf-8"))}


def changed(name: str, **changes: Any) -> dict[str, Any]:
    """A row with other expectations, or with other keys where `changes` begin with `row_`."""
    row = deepcopy(ROWS[name])
    for key, value in changes.items():
        if key.startswith("row_"):
            row[key.removeprefix("row_")] = value
        else:
            row["expect"][key] = value
    return row


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("k8s-001", {"n": 2}),
        ("k8s-001", {"in": ["60.70.0.0/28"]}),
        ("k8s-001", {"error": True}),
        ("k8s-001", {"then_del": "error"}),
        ("k8s-001", {"node": "another"}),
        ("k8s-001", {"stdout": ""}),
        ("k8s-003", {"error_contains": "another message"}),
        ("k8s-003", {"after_del_allocated": 1}),
        ("k8s-038", {"families_in_order": [6, 4]}),
        ("k8s-042", {"families": [4]}),
        ("k8s-045", {"exactly": ["20.0.0.111/24"]}),
        ("k8s-045", {"ipam_allocated": False}),
        ("k8s-062", {"ipam_allocated": True}),
        ("k8s-068", {"prefixlen4": 32}),
        ("k8s-068", {"routes": 0}),
        ("k8s-069", {"prefixlen6": 128}),
        ("k8s-078", {"sequence": ["ADD ok", "ADD error"]}),
        ("k8s-080", {"addresses_differ": True}),
        ("k8s-081", {"sequence": ["ADD in 192.169.1.0/24"]}),
        ("k8s-085", {"still_allocated": ["X"]}),
        ("k8s-086", {"after_each_allocated": [1, 2, 1, 1]}),
        ("k8s-089", {"in": ["10.0.0.0/24"]}),
    ],
)
def test_broken_expectation_is_told(name, changes):
    """Each check refuses what it does not ask for."""
    assert cni_k8s.run_row(changed(name, **changes))


@pytest.mark.parametrize(
    "row",
    [
        changed("k8s-001", smell="none"),
        changed("k8s-001", row_colour="red"),
        changed("k8s-001", row_given={"moon": "full"}),
        changed("k8s-078", sequence=["ADD ok", "sing"]),
        changed("k8s-003", row_given={"exhausted_pools": ["10.0.0.0/8"]}),
        changed("k8s-001", row_pools=[{"cidr": "50.60.0.0/28", "colour": "red"}]),
    ],
    ids=["expectation", "key", "state", "step", "exhausted pool", "field of a pool"],
)
def test_unknown_things_fail(row):
    """Nothing that a row says passes unlooked at."""
    assert "failed" == run_row(FILE, row).status


def test_repeated_adds_are_skipped_as_a_departure():
    """With that reason, which comes before the general one for oddities."""
    skipped = {name: find_skip(FILE, row) for name, row in ROWS.items() if find_skip(FILE, row)}
    assert {"k8s-079", "k8s-080"} == skipped.keys()
    assert all("a repeated ADD answers" in str(reason) for reason in skipped.values())


@pytest.mark.parametrize("name", ["k8s-079", "k8s-080"])
def test_repeated_adds_do_what_their_note_allows(name):
    """All calls succeed, and one DEL leaves nothing."""
    row = changed(name, sequence=["ADD ok", "ADD ok", "DEL ok"], after_del_allocated=0)
    row["expect"]["addresses_differ"] = False
    assert [] == cni_k8s.run_row(row)
