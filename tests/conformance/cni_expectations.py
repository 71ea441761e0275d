"""What a row of cni-protocol.json may expect of a call, one check for each key.

A key without a check is a complaint: nothing that a row asks for passes unlooked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cni_ipam import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANY_OF_OURS = 999
FIRST_CODE_OF_PLUGINS = 100


@dataclass(frozen=True)
class Answer:
    """What the program left: its exit code and both texts."""

    exit: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Trial:
    """A call, and how many addresses are allocated: before it, after it, after a DEL behind it.

    `kept` is how many a DEL or a GC would leave if it does what the row's input says.
    """

    answer: Answer
    before: int
    after: int
    after_del: int
    kept: int = 0

    @cached_property
    def document(self) -> dict[str, Any]:
        """The one JSON object on stdout; empty if there is something else."""
        try:
            document = json.loads(self.answer.stdout)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The addresses of the result, in the shape of 0.3.0 and later."""
        if "ips" in self.document:
            return list(self.document["ips"])
        old = [self.document[key] for key in ("ip4", "ip6") if key in self.document]
        return [{"address": entry["ip"], **entry} for entry in old]

    @property
    def routes(self) -> list[dict[str, Any]]:
        """The routes of the result, wherever its version puts them."""
        found = list(self.document.get("routes", []))
        if "ips" not in self.document:
            for entry in self.entries:
                found.extend(entry.get("routes", []))
        return found


def check(trial: Trial, expect: dict[str, Any]) -> list[str]:
    """Every way in which the trial is not what was expected."""
    complaints: list[str] = []
    for key, wanted in expect.items():
        if key in CHECKS:
            complaints.extend(CHECKS[key](trial, wanted))
        else:
            complaints.append(f"an expectation that the runner does not know: {key}")
    if complaints:
        answer = trial.answer
        complaints.append(f"exit {answer.exit}, stdout {answer.stdout!r}, stderr {answer.stderr!r}")
    return complaints


def codes_of_project() -> set[int]:
    """Every code that the program may answer."""
    found = {errors.NotAvailable.code + 1}
    classes = [errors.CniIpamError]
    while classes:
        kind = classes.pop()
        classes.extend(kind.__subclasses__())
        found.add(kind.code)
    return found - {errors.CniIpamError.code}


def _check_exit(trial: Trial, wanted: object) -> Iterator[str]:
    code = trial.answer.exit
    if code != wanted and not (wanted == "nonzero" and code != 0):
        yield f"exit is {code}, not {wanted}"


def _check_stdout(trial: Trial, wanted: str) -> Iterator[str]:
    if trial.answer.stdout != wanted:
        yield f"stdout is not {wanted!r}"


def _check_contains(stream: str) -> Callable[[Trial, Any], Iterator[str]]:
    def check_contains(trial: Trial, wanted: str | list[str]) -> Iterator[str]:
        text = getattr(trial.answer, stream)
        for part in [wanted] if isinstance(wanted, str) else wanted:
            if part not in text:
                yield f"{stream} lacks {part!r}"

    return check_contains


def _check_json(trial: Trial, wanted: dict[str, Any]) -> Iterator[str]:
    """The named keys of the document; `…_contains` looks for a part of a text."""
    for key, value in wanted.items():
        name = key.removesuffix("_contains")
        found = trial.document.get(name)
        if name != key:
            if not isinstance(found, str) or value not in found:
                yield f"{name} is {found!r}, which lacks {value!r}"
        elif key == "code" and value == ANY_OF_OURS:
            if found not in codes_of_project():
                yield f"code is {found}, none of the project's"
        elif found != value or isinstance(found, bool) != isinstance(value, bool):
            yield f"{key} is {found!r}, not {value!r}"


def _check_message(trial: Trial, wanted: str) -> Iterator[str]:
    yield from _check_json(trial, {"msg_contains": wanted})


def _check_keys(trial: Trial, wanted: list[str]) -> Iterator[str]:
    for key in wanted:
        if key not in trial.document:
            yield f"the document lacks the key {key}"


def _check_no_keys(trial: Trial, unwanted: list[str]) -> Iterator[str]:
    for key in unwanted:
        if key in trial.document:
            yield f"the document has the key {key}"


def _check_single_json(trial: Trial, wanted: bool) -> Iterator[str]:
    if bool(trial.document) != wanted:
        yield "stdout is not one JSON object"


def _check_addresses(trial: Trial, wanted: int | list[str]) -> Iterator[str]:
    found = [entry.get("address") for entry in trial.entries]
    if found != wanted and len(found) != wanted:
        yield f"addresses are {found}, not {wanted}"


def _check_routes(trial: Trial, wanted: int) -> Iterator[str]:
    if len(trial.routes) != wanted:
        yield f"routes are {trial.routes}, not {wanted} of them"


def _check_entries_lack(trial: Trial, unwanted: list[str]) -> Iterator[str]:
    for key in unwanted:
        if not trial.entries or any(key in entry for entry in trial.entries):
            yield f"an address has the key {key}, or there is none"


def _check_version_field(trial: Trial, wanted: bool) -> Iterator[str]:
    if not trial.entries or any(("version" in entry) != wanted for entry in trial.entries):
        yield f"having the key version is not {wanted} of every address"


def _check_not_address(trial: Trial, unwanted: str) -> Iterator[str]:
    if unwanted in [entry["address"].partition("/")[0] for entry in trial.entries]:
        yield f"the address is {unwanted}"


def _check_called(trial: Trial, wanted: str | None) -> Iterator[str]:
    """Whether the verb reached its handler, as what is allocated shows."""
    given = trial.after - trial.before
    if wanted in (None, "CHECK", "STATUS"):
        right = given == 0
    elif wanted == "ADD":
        right = given == len(trial.entries) and (trial.answer.exit != 0 or given > 0)
    elif wanted in ("DEL", "GC"):
        right = trial.after == trial.kept
    else:
        right = False
    if not right:
        yield f"called {wanted}: {trial.before} allocated before, {trial.after} after"


def _check_after_del(trial: Trial, wanted: int) -> Iterator[str]:
    if trial.after_del != wanted:
        yield f"{trial.after_del} allocated after DEL, not {wanted}"


def _check_codes(_: Trial, wanted: list[int]) -> Iterator[str]:
    """The codes that are not the plugin's own are well-known ones."""
    unknown = {code for code in codes_of_project() if code < FIRST_CODE_OF_PLUGINS} - set(wanted)
    if unknown:
        yield f"not well-known: {sorted(unknown)}"


def _check_nothing(_: Trial, __: object) -> Iterator[str]:
    yield from ()


CHECKS: dict[str, Callable[[Trial, Any], Iterator[str]]] = {
    "after_del_allocated": _check_after_del,
    "called": _check_called,
    "codes": _check_codes,
    "exit": _check_exit,
    "ips": _check_addresses,
    "ips_entries_have_version_field": _check_version_field,
    "ips_entries_lack": _check_entries_lack,
    "msg_contains": _check_message,
    "no_keys": _check_no_keys,
    "not_ip": _check_not_address,
    "note": _check_nothing,
    "routes": _check_routes,
    "stderr_contains": _check_contains("stderr"),
    "stdout": _check_stdout,
    "stdout_contains": _check_contains("stdout"),
    "stdout_is_single_json": _check_single_json,
    "stdout_json": _check_json,
    "stdout_json_keys_include": _check_keys,
}
