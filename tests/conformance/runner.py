"""From a folder of tables to results: which runner a file has, what is skipped, what is printed.

A runner is a function from one row to a list of complaints: an empty one means that the row holds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import (
    autoassign,
    cni_k8s,
    cni_protocol,
    ippool_validation,
    ipreservation_validation,
    selectors,
)
from .departures import find_skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Row = dict[str, Any]

RUNNERS: dict[str, Callable[[Row], list[str]]] = {
    "selectors.json": selectors.run_row,
    "ippool-validation.json": ippool_validation.run_row,
    "ipreservation-validation.json": ipreservation_validation.run_row,
    "autoassign.json": autoassign.run_row,
    "cni-protocol.json": cni_protocol.run_row,
    "cni-k8s.json": cni_k8s.run_row,
}


@dataclass(frozen=True)
class Result:
    """What became of one row: passed, failed or skipped, and why."""

    file: str
    id: str
    status: str
    reason: str = ""


def run_folder(folder: Path) -> list[Result]:
    """Every row of every table of `folder`."""
    results: list[Result] = []
    for path in sorted(folder.glob("*.json")):
        results.extend(run_table(path))
    return results


def run_table(path: Path) -> Iterator[Result]:
    """Every row of one table. A file that is no table is one failed case."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield Result(path.name, "-", "failed", f"not JSON: {error}")
        return
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        yield Result(path.name, "-", "failed", "not a list of objects")
        return
    for row in rows:
        yield run_row(path.name, row)


def run_row(file: str, row: Row) -> Result:
    """One row: skipped if a rule says so, else run. A row that breaks its runner has failed."""
    name = str(row.get("id", "without id"))
    if file not in RUNNERS:
        return Result(file, name, "skipped", "the runner does not know this file yet")
    reason = find_skip(file, row)
    if reason:
        return Result(file, name, "skipped", reason)
    try:
        complaints = RUNNERS[file](row)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        complaints = [f"{type(error).__name__}: {error}"]
    status = "failed" if complaints else "passed"
    return Result(file, name, status, "; ".join(complaints))


def show(results: Iterable[Result]) -> str:
    """One line per failing case, the skipped ones by reason, and the counts at the end."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    skipped: dict[tuple[str, str], list[str]] = defaultdict(list)
    lines = []
    for result in results:
        counts[result.status] += 1
        if result.status == "failed":
            lines.append(f"FAILED {result.file} {result.id}: {' '.join(result.reason.split())}")
        elif result.status == "skipped":
            skipped[result.file, result.reason].append(result.id)
    for (file, reason), ids in skipped.items():
        lines.append(f"skipped {file}: {reason}: {_show_ids(ids)}")
    lines.append(", ".join(f"{number} {status}" for status, number in counts.items()))
    return "\n".join(lines) + "\n"


def _show_ids(ids: list[str]) -> str:
    if len(ids) > 12:
        return f"{len(ids)} rows"
    return " ".join(ids)
