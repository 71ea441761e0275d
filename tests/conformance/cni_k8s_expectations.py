"""What a row of cni-k8s.json may expect, one check for each key.

A key without a check is a complaint: nothing that a row asks for passes unlooked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_ipam.core.address import parse_cidr

from .cni_expectations import Answer
from .cni_k8s_stage import CONTAINER, addresses_of, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cni_expectations import Trial
    from .cni_k8s_stage import Stage

SILENCE = Answer(0, "", "")
FAILURES = {"error", "error_contains"}
AFTER_DEL = {"then_del", "after_del_allocated"}


def check(stage: Stage, expect: dict[str, Any]) -> list[str]:
    """Play the row's ADD, or its sequence, and tell every way in which it is not as expected."""
    unknown = expect.keys() - CHECKS.keys() - AFTER_DEL - {"sequence", "after_each_allocated"}
    if unknown:
        return [f"expectations that the runner does not know: {sorted(unknown)}"]
    complaints = list(_play(stage, expect))
    trial = stage.trials[-1]
    for key in expect.keys() & CHECKS.keys():
        complaints.extend(CHECKS[key](stage, trial, expect[key]))
    complaints.extend(_check_after_del(stage, expect))
    if complaints:
        complaints.append(f"exit {trial.answer.exit}, stdout {trial.answer.stdout!r}")
    return complaints


def _play(stage: Stage, expect: dict[str, Any]) -> Iterator[str]:
    counts = []
    for step in expect.get("sequence", []):
        yield from play(stage, step)
        counts.append(stage.count_allocated())
    if counts != expect.get("after_each_allocated", counts):
        yield f"after each step {counts} are allocated"
    if not expect.get("sequence"):
        status = stage.call("ADD").answer.exit
        if bool(status) != bool(expect.keys() & FAILURES):
            yield f"ADD ends with {status}"


def _check_after_del(stage: Stage, expect: dict[str, Any]) -> Iterator[str]:
    """A sequence has its own DEL; otherwise one is made where the row looks behind it."""
    if not expect.keys() & AFTER_DEL:
        return
    if expect.get("then_del", "ok") != "ok":
        yield f"a DEL that ends with {expect['then_del']}, which the runner does not know"
    if "sequence" not in expect and stage.call("DEL").answer != SILENCE:
        yield f"DEL answers {stage.trials[-1].answer}"
    left = stage.count_allocated()
    if left != expect.get("after_del_allocated", 0):
        yield f"{left} are allocated after DEL"


def _check_count(_: Stage, trial: Trial, wanted: int) -> Iterator[str]:
    if len(trial.entries) != wanted:
        yield f"{len(trial.entries)} addresses, not {wanted}"


def _check_in(_: Stage, trial: Trial, wanted: list[str]) -> Iterator[str]:
    cidrs = [parse_cidr(text) for text in wanted]
    for address in addresses_of(trial):
        if not any(cidr.contains(address) for cidr in cidrs):
            yield f"{address} lies in none of {wanted}"


def _check_exactly(_: Stage, trial: Trial, wanted: list[str]) -> Iterator[str]:
    found = [entry["address"] for entry in trial.entries]
    if found != wanted:
        yield f"addresses are {found}, not {wanted}"


def _check_families(_: Stage, trial: Trial, wanted: list[int]) -> Iterator[str]:
    if sorted(_families(trial)) != sorted(wanted):
        yield f"families are {_families(trial)}, not {wanted}"


def _check_order(_: Stage, trial: Trial, wanted: list[int]) -> Iterator[str]:
    if _families(trial) != wanted:
        yield f"families are {_families(trial)}, not {wanted} in this order"


def _families(trial: Trial) -> list[int]:
    return [address.version for address in addresses_of(trial)]


def _check_prefix(version: int) -> Callable[[Stage, Trial, int], Iterator[str]]:
    def check_prefix(_: Stage, trial: Trial, wanted: int) -> Iterator[str]:
        for entry, family in zip(trial.entries, _families(trial), strict=True):
            if family == version and not entry["address"].endswith(f"/{wanted}"):
                yield f"{entry['address']} has not the prefix length {wanted}"

    return check_prefix


def _check_routes(_: Stage, trial: Trial, wanted: int) -> Iterator[str]:
    if len(trial.routes) != wanted:
        yield f"{len(trial.routes)} routes, not {wanted}"


def _check_error(_: Stage, trial: Trial, wanted: bool) -> Iterator[str]:
    if ("msg" in trial.document) != wanted:
        yield f"being an error is not {wanted}"


def _check_message(_: Stage, trial: Trial, wanted: str) -> Iterator[str]:
    if wanted not in trial.document.get("msg", ""):
        yield f"the message lacks {wanted!r}"


def _check_allocated(stage: Stage, trial: Trial, wanted: bool) -> Iterator[str]:
    """All that was answered is recorded, or nothing is."""
    found = len(stage.owners_of())
    if found != (len(trial.entries) if wanted else 0) or (wanted and not found):
        yield f"{found} addresses are recorded for {len(trial.entries)} answered"


def _check_stdout(_: Stage, trial: Trial, wanted: str) -> Iterator[str]:
    if trial.answer.stdout != wanted:
        yield f"stdout is not {wanted!r}"


def _check_still(stage: Stage, _: Trial, wanted: list[str]) -> Iterator[str]:
    for container in wanted:
        if not stage.owners_of(container):
            yield f"{container} has no address any more"


def _check_node(stage: Stage, _: Trial, wanted: str) -> Iterator[str]:
    found = [owner.get("node") for owner in stage.owners_of(CONTAINER)]
    if found != [wanted]:
        yield f"the addresses are recorded for {found}, not {wanted}"


def _check_differ(stage: Stage, _: Trial, wanted: bool) -> Iterator[str]:
    answers = [trial for trial in stage.trials if trial.entries]
    texts = [str(address) for trial in answers for address in addresses_of(trial)]
    if (len(set(texts)) == len(texts)) != wanted:
        yield f"that the addresses {texts} differ is not {wanted}"


CHECKS: dict[str, Callable[[Stage, Trial, Any], Iterator[str]]] = {
    "addresses_differ": _check_differ,
    "error": _check_error,
    "error_contains": _check_message,
    "exactly": _check_exactly,
    "families": _check_families,
    "families_in_order": _check_order,
    "in": _check_in,
    "ipam_allocated": _check_allocated,
    "n": _check_count,
    "node": _check_node,
    "prefixlen4": _check_prefix(4),
    "prefixlen6": _check_prefix(6),
    "routes": _check_routes,
    "still_allocated": _check_still,
    "stdout": _check_stdout,
}
