"""The scenarios on every kind of datastore, and the runner itself: it must see what is wrong."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from .autoassign import run_row
from .departures import find_skip
from .runner import run_row as judge

TABLE = Path(__file__).resolve().parent / "tables" / "autoassign.json"
POOL = {"cidr": "10.0.0.0/29", "blockSize": 30}


def rows() -> list[dict[str, Any]]:
    """The scenarios that are not skipped."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return [row for row in table if not find_skip(TABLE.name, row)]


def play(*steps: dict[str, Any], **state: Any) -> list[str]:
    """What the runner complains of in these steps, on two blocks of four addresses."""
    return run_row({"pools": [POOL], "nodes": {"n": {}, "m": {}}, **state, "steps": list(steps)})


def step(op: str, expect: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """One step."""
    return {"op": op, **fields, "expect": expect or {}}


def auto(expect: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A step that asks for addresses, one unless said."""
    return step("auto_assign", expect, **{"node": "n", "num4": 1, **fields})


@pytest.mark.parametrize("kind", ["in-order", "sqlite"])
def test_every_scenario_holds_on(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds on the store in memory, row by row in test_tables, holds on the others."""
    monkeypatch.setenv("CNI_IPAM_STORE", kind)
    assert {} == {row["id"]: found for row in rows() if (found := run_row(row))}


def test_unknown_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt kind of store is a failed row, not a run on another one."""
    monkeypatch.setenv("CNI_IPAM_STORE", "etcd")
    assert "failed" == judge(TABLE.name, rows()[0]).status


def test_unknown_words_fail() -> None:
    """A row, step, setting or expectation that the runner does not understand fails."""
    for row in (
        {"colour": "red", "steps": []},
        {"steps": [step("paint")]},
        {"steps": [auto(colour="red")]},
        {"steps": [auto({"colour": "red"})]},
        {"steps": [step("check_state", {"colour": "red"})]},
        {"steps": [step("check_state", {"blockDetail": {"10.0.0.0/30": {"colour": "red"}}})]},
        {"steps": [step("release_ips", ips=[{"ip": "10.0.0.1", "colour": "red"}])]},
        {"steps": [auto({"error": True, "errorKind": "red"}, pools4=["10.9.0.0/24"])]},
        {"steps": [], "config": {"colour": "red"}},
        {"steps": [], "pools": [{"cidr": "10.0.0.0/29", "colour": "red"}]},
        {"steps": [step("apply_pool", cidr="10.0.0.0/29", colour="red")]},
        {"steps": [step("concurrent", steps=[step("paint")])]},
    ):
        result = judge(TABLE.name, {"id": "x", "pools": [POOL], "nodes": {"n": {}}, **row})
        assert ("failed", row) == (result.status, row)


@pytest.mark.parametrize(
    ("expect", "fields"),
    [
        ({"n4": 2}, {}),
        ({"n6": 1}, {}),
        ({"null4": True}, {}),
        ({"null6": False}, {}),
        ({"in4": ["10.9.0.0/24"]}, {}),
        ({"notIn4": ["10.0.0.0/24"]}, {}),
        ({"exactly4": ["10.9.0.0/30"]}, {}),
        ({"mask4": 26}, {}),
        ({"msgs4": ["a message"]}, {}),
        ({"partialError4": "Assigned 0"}, {}),
        ({"sameAs": "before"}, {}),
        ({"disjointFrom": ["before", "after"]}, {"save": "after"}),
        ({"subsetOf": "before"}, {}),
        ({"distinct": "twice"}, {}),
        ({"error": True}, {}),
        ({"error": "another text"}, {"pools4": ["10.9.0.0/24"]}),
        ({"error": True, "errorKind": "block_limit"}, {"pools4": ["10.9.0.0/24"]}),
        ({}, {"pools4": ["10.9.0.0/24"]}),
    ],
)
def test_broken_expectation_of_an_assignment_is_told(
    expect: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Each check refuses what it does not ask for."""
    before = auto(save="before")
    twice = [step("ips_by_handle", handle="h", saveAppend="twice") for _ in range(2)]
    assert play(before, auto(handle="h"), *twice, auto(expect, **fields))


@pytest.mark.parametrize(
    "broken",
    [
        step("check_state", {"blocks": 2}),
        step("check_state", {"affinities": 0}),
        step("check_state", {"handles": 0}),
        step("check_state", {"affinitiesByNode": {"n": 1, "m": 1}}),
        step("check_state", {"affinityCIDRsIn": ["10.9.0.0/24"]}),
        step("check_state", {"allConfirmed": False}),
        step("check_state", {"affinitiesMatchBlocks": False}),
        step("check_state", {"blockDetail": {"10.9.0.0/30": {}}}),
        step("check_state", {"blockDetail": {"10.0.0.0/30": None}}),
        step("check_state", {"blockDetail": {"10.0.0.0/30": {"affinity": "host:m"}}}),
        step("check_state", {"blockDetail": {"10.0.0.0/30": {"unallocatedOrder": [3, 2, 1]}}}),
        step("utilization", {"numPools": 2}),
        step("utilization", {"pools": {"10.0.0.0/29": {"inUse": 0}}}),
        step("utilization", {"pools": {"10.0.0.0/29": {"blocks": {}}}}),
        step("utilization", {"pools": {"10.9.0.0/29": {"inUse": 0}}}),
        step("get_attributes", {"handle": "other"}, ip="10.0.0.0"),
        step("get_attributes", {"active": {"pod": "p"}}, ip="10.0.0.0"),
        step("release_ips", {"released": 0}, ips=["10.0.0.0"]),
        step("release_ips", {"unallocated": []}, ips=["10.0.0.1"]),
        step("claim_affinity", {"claimed": 0}, node="n", cidr="10.0.0.0/29"),
        step("claim_affinity", {"failed": 0}, node="m", cidr="10.0.0.0/29"),
        step("ips_by_handle", {"n": 2}, handle="h"),
        step("get_config", {"persisted": True}),
        {**step("remember_sequence", {"differsFrom": "s"}, ip="10.0.0.0"), "as": "t"},
    ],
)
def test_broken_expectation_of_another_step_is_told(broken: dict[str, Any]) -> None:
    """Each check refuses what it does not ask for, and passes without it."""
    first = step("assign_ip", ip="10.0.0.0", node="n", handle="h")
    remembered = {**step("remember_sequence", ip="10.0.0.0"), "as": "s"}
    assert [] == play(first, remembered, {**broken, "expect": {}})
    assert play(first, remembered, broken)


def test_complaint_names_its_step() -> None:
    """Rounds and parts are counted."""
    nested = step("repeat", times=2, steps=[step("concurrent", steps=[auto({"n4": 4})])])
    assert [
        "step 1, round 1, step 1, part 1 (auto_assign): n4: is 1, not 4",
        "step 1, round 2, step 1, part 1 (auto_assign): n4: is 1, not 4",
    ] == play(nested)


def test_unsound_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scenario whose expectations hold fails nevertheless if it ends unsound."""
    monkeypatch.setattr("cni_ipam.ipam.draft.Draft.raise_handle", lambda *_: None)
    assert ["at the end: unsound: h: counts 0 of its 1 addresses in 10.0.0.0/30"] == play(
        auto({"n4": 1}, handle="h"), pools=[{"cidr": "10.0.0.0/30", "blockSize": 30}]
    )


def test_rows_stay_as_they_are() -> None:
    """A row can be run again."""
    for row in rows():
        untouched = deepcopy(row)
        run_row(row)
        assert untouched == row
