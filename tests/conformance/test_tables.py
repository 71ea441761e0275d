"""The project's own copy of the tables that need no program, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .departures import find_skip
from .runner import RUNNERS

TABLES = Path(__file__).resolve().parent / "tables"
PURE = (
    "autoassign.json",
    "cni-k8s.json",
    "selectors.json",
    "ippool-validation.json",
    "ipreservation-validation.json",
)


def rows() -> list[Any]:
    """Every row of the pure tables, named by its id."""
    return [
        pytest.param(file, row, id=row["id"])
        for file in PURE
        for row in json.loads((TABLES / file).read_text(encoding="utf-8"))
        if not find_skip(file, row)
    ]


@pytest.mark.parametrize(("file", "row"), rows())
def test_row_holds(file: str, row: dict[str, Any]) -> None:
    """The row has nothing to complain about."""
    assert [] == RUNNERS[file](row)
