"""The runner itself: it must see what is wrong, and must not pass what it does not understand."""

from __future__ import annotations

import json
import stat
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from . import cni_protocol, ippool_validation, ipreservation_validation, selectors
from .__main__ import main
from .cni_expectations import Answer, Trial, check, codes_of_project
from .departures import adapt, find_skip
from .runner import Result, run_folder, run_row, show

HERE = Path(__file__).resolve().parent
CNI = "cni-protocol.json"


def table() -> dict[str, dict[str, Any]]:
    """The rows of the project's copy of cni-protocol.json by id."""
    rows = json.loads((HERE / "tables" / CNI).read_text(encoding="utf-8"))
    return {row["id"]: row for row in rows}


def complaints_of(stdout: object, expect: dict[str, Any], **changes: Any) -> list[str]:
    """What `expect` has to say of an answer with this document and exit code 0."""
    text = stdout if isinstance(stdout, str) else json.dumps(stdout)
    trial = Trial(Answer(0, text, "a note"), **{"before": 0, "after": 0, "after_del": 0, **changes})
    return check(trial, expect)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in takes the place of the built program."""
    path = tmp_path / "calico-ipam"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} "{HERE}/fake_program.py"\n', "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CNI_IPAM_PROGRAM", str(path))


@pytest.mark.parametrize(
    "name",
    [
        *("cni-001", "cni-009", "cni-014", "cni-035", "cni-037", "cni-046", "cni-059", "cni-062"),
        *("cni-063", "cni-070", "cni-077", "cni-086", "cni-087", "cni-090", "cni-098"),
    ],
)
def test_right_answer_passes(name: str, program: None) -> None:
    """A program that does what the row says passes it, at 1.1.0 too."""
    assert [] == cni_protocol.run_row(table()[name])


@pytest.mark.parametrize("name", ["cni-003", "cni-020", "cni-045", "cni-055", "cni-080", "cni-083"])
def test_wrong_answer_fails(name: str, program: None) -> None:
    """A program that does something else than the row says fails it."""
    assert cni_protocol.run_row(table()[name])


def test_missing_program_fails_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program is not built, the complaint says how to build it."""
    monkeypatch.setenv("CNI_IPAM_PROGRAM", "/nowhere/calico-ipam")
    (complaint,) = cni_protocol.run_row(table()["cni-001"])
    assert complaint.startswith("/nowhere/calico-ipam is not there: `make build`")


def test_unknown_expectation_fails() -> None:
    """An expect key without a check is a complaint."""
    assert "an expectation that the runner does not know: smell" in complaints_of(
        {}, {"smell": "none"}
    )


def test_unknown_special_stdin_fails(program: None) -> None:
    """A special stdin that the runner cannot make is a complaint, not an input."""
    row = {**table()["cni-014"], "stdin": "<on fire>"}
    assert ["a special stdin that the runner does not know: <on fire>"] == cni_protocol.run_row(row)


def test_unknown_given_state_fails(program: None) -> None:
    """A state that the runner cannot make is a complaint."""
    result = run_row(CNI, {**table()["cni-014"], "given": {"moon": "full"}})
    assert "failed" == result.status


def test_unknown_row_key_fails(program: None) -> None:
    """A key of the row that the runner does not know is a complaint, in every table."""
    for runner, row in (
        (cni_protocol.run_row, table()["cni-014"]),
        (selectors.run_row, {"selector": "", "valid": True}),
        (ippool_validation.run_row, {"stage": "validator", "object": {}, "valid": False}),
        (ipreservation_validation.run_row, {"stage": "read", "reserved": [], "effective": []}),
    ):
        assert runner({**row, "colour": "red"}) != []


@pytest.mark.parametrize(
    ("expect", "document"),
    [
        ({"exit": 0}, {}),
        ({"stdout": "text"}, "text"),
        ({"stdout_json": {"code": 4, "msg": "m"}}, {"code": 4, "msg": "m", "details": "d"}),
        ({"stdout_json": {"msg_contains": "am"}}, {"msg": "ham"}),
        ({"msg_contains": "am"}, {"msg": "ham"}),
        ({"stdout_json": {"code": 999}}, {"code": 101}),
        ({"stdout_json_keys_include": ["ip4"]}, {"ip4": {}}),
        ({"stdout_is_single_json": True}, {"code": 4}),
        ({"stdout_contains": "code"}, {"code": 4}),
        ({"stderr_contains": ["note"]}, {}),
        ({"ips": 1}, {"ips": [{"address": "10.0.0.1/26"}]}),
        ({"ips": ["10.0.0.1/26"]}, {"ips": [{"address": "10.0.0.1/26"}]}),
        ({"ips": ["10.0.0.1/26"]}, {"ip4": {"ip": "10.0.0.1/26"}}),
        ({"routes": 1}, {"ip4": {"ip": "10.0.0.1/26", "routes": [{}]}}),
        ({"routes": 1}, {"ips": [], "routes": [{}]}),
        ({"no_keys": ["interfaces"]}, {"ips": []}),
        ({"ips_entries_lack": ["gateway"]}, {"ips": [{"address": "10.0.0.1/26"}]}),
        ({"ips_entries_have_version_field": True}, {"ips": [{"version": "4"}]}),
        ({"not_ip": "10.0.0.2"}, {"ips": [{"address": "10.0.0.1/26"}]}),
        ({"called": None}, {}),
        ({"after_del_allocated": 0}, {}),
        ({"note": "anything"}, {}),
    ],
)
def test_met_expectation_is_silent(expect: dict[str, Any], document: object) -> None:
    """Each check accepts what it asks for."""
    assert [] == complaints_of(document, expect)


@pytest.mark.parametrize(
    ("expect", "document", "changes"),
    [
        ({"exit": 1}, {}, {}),
        ({"exit": "nonzero"}, {}, {}),
        ({"stdout": ""}, "text", {}),
        ({"stdout_json": {"code": 4}}, {"code": 7}, {}),
        ({"stdout_json": {"code": 4}}, "not JSON", {}),
        ({"stdout_json": {"code": 999}}, {"code": 999}, {}),
        ({"stdout_json": {"code": 1}}, {"code": True}, {}),
        ({"stdout_json": {"msg_contains": "spam"}}, {"msg": "ham"}, {}),
        ({"msg_contains": "spam"}, {}, {}),
        ({"stdout_json_keys_include": ["ip4"]}, {"ips": []}, {}),
        ({"stdout_is_single_json": True}, "{}{}", {}),
        ({"stdout_contains": "spam"}, {}, {}),
        ({"stderr_contains": "spam"}, {}, {}),
        ({"ips": 1}, {"ips": []}, {}),
        ({"ips": ["10.0.0.1/26"]}, {"ips": [{"address": "10.0.0.2/26"}]}, {}),
        ({"routes": 1}, {"ips": []}, {}),
        ({"no_keys": ["interfaces"]}, {"interfaces": []}, {}),
        ({"ips_entries_lack": ["gateway"]}, {"ips": [{"gateway": "10.0.0.1"}]}, {}),
        ({"ips_entries_have_version_field": False}, {"ips": [{"version": "4"}]}, {}),
        ({"not_ip": "10.0.0.1"}, {"ips": [{"address": "10.0.0.1/26"}]}, {}),
        ({"called": None}, {}, {"after": 1}),
        ({"called": "ADD"}, {"ips": [{}]}, {}),
        ({"called": "DEL"}, {}, {"before": 1, "after": 1}),
        ({"called": "NOPE"}, {}, {}),
        ({"after_del_allocated": 0}, {}, {"after_del": 1}),
        ({"codes": [1, 2]}, {}, {}),
    ],
)
def test_broken_expectation_is_told(
    expect: dict[str, Any], document: object, changes: dict[str, int]
) -> None:
    """Each check refuses what it does not ask for."""
    assert complaints_of(document, expect, **changes)


def test_codes_are_those_of_the_design() -> None:
    """999 stands for any of these, and is none of them."""
    codes = codes_of_project()
    assert {1, 2, 4, 5, 6, 7, 11, 50, 51, 100, 101, 120} <= codes
    assert 999 not in codes
    assert 3 not in codes


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"quirk": True}, "oddity"),
        ({"fault": "handler raises"}, "fault"),
        ({"applies_to": "host-local only"}, "another program"),
        ({"expect": {"note": "client-side rule"}}, "client"),
        ({"env": {"CNI_COMMAND": "CHECK"}, "expect": {"exit": 0, "stdout": ""}}, "CHECK"),
        ({"what": "DEL ignores CNI_IFNAME", "expect": {"after_del_allocated": 0}}, "interface"),
        ({"what": "A second ADD gives another address", "expect": {"ips": 1}}, "repeated ADD"),
    ],
)
def test_departures_are_skipped_with_a_reason(row: dict[str, Any], part: str) -> None:
    """Rows that are not ours to meet are known by what they say, whatever their id."""
    assert part in (find_skip(CNI, row) or "")


def test_everything_else_is_run() -> None:
    """A row about 1.1.0, a refused CHECK or a DEL that frees is run."""
    skipped = {name for name, row in table().items() if find_skip(CNI, row)}
    assert skipped == {"cni-038", "cni-051", "cni-064", "cni-065"} | {
        f"cni-{number:03}" for number in range(92, 98)
    }


@pytest.mark.parametrize(
    ("verb", "extra", "expect"),
    [
        ("ADD", {}, {"exit": 0, "called": "ADD", "stdout_json": {"cniVersion": "1.1.0"}}),
        ("DEL", {}, {"exit": 0, "stdout": "", "called": "DEL"}),
        ("STATUS", {}, {"exit": 0, "stdout": "", "called": "STATUS"}),
        ("GC", {}, {"exit": "nonzero", "stdout_json": {"code": 7}, "called": None}),
        ("GC", {"cni.dev/valid-attachments": []}, {"exit": 0, "stdout": "", "called": "GC"}),
        ("CHECK", {}, {"exit": "nonzero", "called": None}),
    ],
)
def test_rows_at_1_1_0_are_adapted(
    verb: str, extra: dict[str, Any], expect: dict[str, Any]
) -> None:
    """Where calico-ipam refuses 1.1.0, the verb must do its work."""
    row = {
        "env": {"CNI_COMMAND": verb},
        "stdin": {"cniVersion": "1.1.0", **extra},
        "expect": {"exit": "nonzero", "stdout_json": {"code": 1}, "called": None},
    }
    untouched = deepcopy(row)
    assert expect == adapt(row)["expect"]
    assert untouched == row


def test_version_list_is_adapted() -> None:
    """The list of versions has 1.1.0 at its end."""
    expect = adapt(table()["cni-037"])["expect"]
    assert "1.1.0" == expect["stdout_json"]["supportedVersions"][-1]


def test_gc_that_lists_the_attachment_keeps_it() -> None:
    """A GC reached its handler if it left what its input lists."""
    stdin = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    assert cni_protocol._is_listed(cni_protocol.ATTACHMENT, stdin)
    assert [] == complaints_of("", {"called": "GC"}, before=1, after=1, kept=1)


def test_output_ends_with_the_counts() -> None:
    """Failing cases first, one a line; skipped ones by reason; the counts alone on a line."""
    results = [
        Result("a.json", "1", "passed"),
        Result("a.json", "2", "failed", "is\nred"),
        Result("a.json", "3", "skipped", "why"),
        Result("a.json", "4", "skipped", "why"),
    ]
    assert show(results) == (
        "FAILED a.json 2: is red\nskipped a.json: why: 3 4\n1 passed, 1 failed, 2 skipped\n"
    )


def test_unknown_file_is_skipped_and_said(tmp_path: Path) -> None:
    """Each row of a table that the runner does not know counts as skipped."""
    (tmp_path / "weather.json").write_text('[{"id": "w1"}, {"id": "w2"}]', "utf-8")
    assert show(run_folder(tmp_path)) == (
        "skipped weather.json: the runner does not know this file yet: w1 w2\n"
        "0 passed, 0 failed, 2 skipped\n"
    )


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_broken_table_fails(tmp_path: Path, text: str) -> None:
    """A file that is no table is a failed case."""
    (tmp_path / "selectors.json").write_text(text, "utf-8")
    assert ["failed"] == [result.status for result in run_folder(tmp_path)]


def test_row_that_lacks_what_it_needs_fails(tmp_path: Path) -> None:
    """A malformed row is a failed case, and the run goes on."""
    rows = [{"id": "s1", "valid": True}, {"id": "s2", "selector": "all()", "valid": True}]
    (tmp_path / "selectors.json").write_text(json.dumps(rows), "utf-8")
    assert ["failed", "passed"] == [result.status for result in run_folder(tmp_path)]


@pytest.mark.parametrize(
    ("rows", "code"),
    [([{"id": "s1", "selector": "", "valid": True}], 0), ([{"id": "s1", "valid": True}], 1)],
)
def test_exit_code_tells_of_failures(
    tmp_path: Path, rows: list[dict[str, Any]], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 if a case failed, else 0."""
    (tmp_path / "selectors.json").write_text(json.dumps(rows), "utf-8")
    assert code == main([str(tmp_path)])
    assert capsys.readouterr().out.endswith(" 0 skipped\n")


def test_folder_without_tables_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Running nothing must not look like success."""
    assert 2 == main([str(tmp_path)])
    assert "no *.json" in capsys.readouterr().err
