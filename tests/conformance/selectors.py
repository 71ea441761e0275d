"""selectors.json: what is refused, what matches, and the canonical text."""

from __future__ import annotations

from typing import Any

from cni_ipam.core.selector import parse_selector, unique_id

KEYS = {"id", "what", "source", "origin", "note", "why", "selector", "valid"}
CHECKED = {"labels", "match", "canonical", "unique_id"}


def run_row(row: dict[str, Any]) -> list[str]:
    """Parse the row's selector, and compare all that the row says about it."""
    unknown = row.keys() - KEYS - CHECKED
    if unknown:
        return [f"keys that the runner does not know: {sorted(unknown)}"]
    try:
        selector = parse_selector(row["selector"])
    except ValueError as error:
        return [f"refused: {error}"] if row["valid"] else []
    if not row["valid"]:
        return [f"accepted as {selector}"]
    found: dict[str, Any] = {"canonical": str(selector), "unique_id": unique_id(selector)}
    if "match" in row:
        found["match"] = selector.matches(row["labels"])
    return [
        f"{key} is {value!r}, not {row[key]!r}"
        for key, value in found.items()
        if key in row and row[key] != value
    ]
