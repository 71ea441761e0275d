"""ippool-validation.json: what a pool may be, what is filled in, and what may change."""

from __future__ import annotations

from typing import Any

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.pool_rules import (
    check_pool,
    check_pool_creation,
    check_pool_update,
    format_errors,
    same_cidr,
    with_pool_defaults,
)

Row = dict[str, Any]

KEYS = {"id", "what", "source", "origin", "note", "why", "kind", "stage", "valid"}
STAGE_KEYS = {
    "validator": {"object"},
    "crd": {"object"},
    "default": {"object", "expect_spec"},
    "create": {"object", "existing", "existing_blocks"},
    "update": {"old", "new", "scope"},
}


def run_row(row: Row) -> list[str]:
    """Ask for the rules that the row's pool breaks at the row's stage."""
    stage = row["stage"]
    if stage not in STAGE_KEYS:
        return [f"a stage that the runner does not know: {stage}"]
    unknown = row.keys() - KEYS - STAGE_KEYS[stage]
    if unknown:
        return [f"keys that the runner does not know: {sorted(unknown)}"]
    refusal = _find_refusal(row)
    if row["valid"] and refusal:
        return [f"refused: {refusal}"]
    if not row["valid"] and not refusal:
        return ["accepted"]
    return _compare_defaults(row) if stage == "default" else []


def _find_refusal(row: Row) -> str:
    """Why the row's pool is refused; empty if it is not."""
    if row["stage"] == "update":
        if row.get("scope") == "cidr-compare-function":
            same = same_cidr(row["old"]["cidr"], row["new"]["cidr"])
            return "" if same else "the CIDR changes"
        errors = check_pool_update(_pool("pool", row["old"]), _pool("pool", row["new"]))
    elif row["stage"] == "validator" or row["stage"] == "crd":
        errors = check_pool(row["object"])
    else:
        existing = [
            _pool(pool["name"], {key: value for key, value in pool.items() if key != "name"})
            for pool in row.get("existing", [])
        ]
        blocks = [parse_cidr(block["cidr"]) for block in row.get("existing_blocks", [])]
        errors = check_pool_creation(row["object"], existing, blocks)
        name = row["object"]["metadata"]["name"]
        if name in [pool["metadata"]["name"] for pool in existing]:
            return f"resource already exists: IPPool({name})"
    return format_errors(errors) if errors else ""


def _compare_defaults(row: Row) -> list[str]:
    spec = with_pool_defaults(row["object"])["spec"]
    return [
        f"{key} is {spec.get(key)!r}, not {wanted!r}"
        for key, wanted in row["expect_spec"].items()
        if spec.get(key) != wanted
    ]


def _pool(name: str, spec: Row) -> Row:
    return {"kind": "IPPool", "metadata": {"name": name}, "spec": spec}
