"""What an `expect` of autoassign.json says of an answer; a key not known here is a complaint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.errors import (
    AddressInUse,
    AlreadyExists,
    BlockLimit,
    CoolingDown,
    NoQualifiedPool,
    NotFound,
    UpdateConflict,
)

from .autoassign_steps import Answer, Given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .autoassign_world import World

Expect = dict[str, Any]

KINDS: dict[str, tuple[type[Exception], ...]] = {
    "block_limit": (BlockLimit,),
    "no_qualified_pool": (NoQualifiedPool,),
    "already_exists": (AlreadyExists, AddressInUse),
    "not_found": (NotFound,),
    "conflict": (UpdateConflict,),
    "cooldown": (CoolingDown,),
}
TEXTS = {
    "use_required": "must specify the intended use when assigning an IP",
    "not_found": "resource does not exist",
}


def compare(world: World, answer: Answer, expect: Expect) -> list[str]:
    """The complaints about `answer`; without an `error` in `expect` it must have none."""
    complaints = []
    if "error" not in expect and answer.error is not None:
        complaints.append(f"error: {answer.error}")
    for key, wanted in expect.items():
        if key in CHECKS:
            complaint = CHECKS[key](world, answer, wanted)
        elif key in answer.facts:
            complaint = _compare_fact(answer.facts[key], wanted)
        elif answer.error is not None:
            complaint = f"nothing to compare, because of the error: {answer.error}"
        else:
            complaint = "an expectation that the runner does not know"
        if complaint:
            complaints.append(f"{key}: {complaint}")
    return complaints


def _compare_fact(found: Any, wanted: Any) -> str:
    """Maps are compared by the wanted keys alone, everything else as it is."""
    if isinstance(found, dict) and isinstance(wanted, dict) and wanted:
        broken = [f"{k}: {_compare_fact(found.get(k), v)}" for k, v in wanted.items()]
        return "; ".join(text for text in broken if not text.endswith(": "))
    return "" if found == wanted else f"is {found!r}, not {wanted!r}"


def _check_error(_: World, answer: Answer, wanted: bool | str) -> str:
    if wanted is False:
        return f"is {answer.error}" if answer.error is not None else ""
    if answer.error is None:
        return f"there is none, not {wanted!r}"
    text = str(answer.error)
    return "" if wanted is True or wanted in text else f"is {text!r}, without {wanted!r}"


def _check_error_kind(_: World, answer: Answer, wanted: str) -> str:
    if wanted not in KINDS and wanted not in TEXTS:
        return f"a kind of error that the runner does not know: {wanted}"
    if isinstance(answer.error, KINDS.get(wanted, ())):
        return ""
    if wanted in TEXTS and TEXTS[wanted] in str(answer.error):
        return ""
    return f"is {type(answer.error).__name__} ({answer.error}), not {wanted}"


def _check_number(version: int) -> Callable[[World, Answer, int], str]:
    def check(_: World, answer: Answer, wanted: int) -> str:
        found = len(_of(answer, version))
        return "" if found == wanted else f"is {found}, not {wanted}"

    return check


def _check_null(version: int) -> Callable[[World, Answer, bool], str]:
    def check(_: World, answer: Answer, wanted: bool) -> str:
        has_none = version not in answer.answered
        return "" if has_none == wanted else f"is {has_none}, not {wanted}"

    return check


def _check_inside(version: int) -> Callable[[World, Answer, list[str]], str]:
    def check(_: World, answer: Answer, wanted: list[str]) -> str:
        given = _of(answer, version)
        outside = [str(g) for g in given if not _is_inside(str(g), wanted)]
        return f"{', '.join(outside[:3])} not in {wanted}" if outside else ""

    return check


def _check_outside(version: int) -> Callable[[World, Answer, list[str]], str]:
    def check(_: World, answer: Answer, wanted: list[str]) -> str:
        given = _of(answer, version)
        inside = [str(g) for g in given if _is_inside(str(g), wanted)]
        return f"{', '.join(inside[:3])} in {wanted}" if inside else ""

    return check


def _check_exactly(version: int) -> Callable[[World, Answer, list[str]], str]:
    def check(_: World, answer: Answer, wanted: list[str]) -> str:
        found = [str(given) for given in _of(answer, version)]
        return "" if found == wanted else f"are {found}, not {wanted}"

    return check


def _check_mask(version: int) -> Callable[[World, Answer, int], str]:
    def check(_: World, answer: Answer, wanted: int) -> str:
        wrong = [str(given) for given in _of(answer, version) if given.prefix != wanted]
        return f"{', '.join(wrong[:3])} not /{wanted}" if wrong else ""

    return check


def _check_messages(version: int) -> Callable[[World, Answer, list[str]], str]:
    def check(_: World, answer: Answer, wanted: list[str]) -> str:
        found = answer.messages.get(version, [])
        return "" if found == wanted else f"are {found}, not {wanted}"

    return check


def _check_partial(version: int) -> Callable[[World, Answer, str], str]:
    def check(_: World, answer: Answer, wanted: str) -> str:
        found = answer.shortfalls.get(version, "")
        return "" if wanted in found else f"is {found!r}, not {wanted!r}"

    return check


def _check_distinct(world: World, answer: Answer, wanted: bool | str) -> str:
    addresses = world.saved[wanted] if isinstance(wanted, str) else answer.saved
    return "" if len(set(addresses)) == len(addresses) else "an address came twice"


def _check_same(world: World, answer: Answer, wanted: str | list[str]) -> str:
    saved = _saved(world, wanted)
    return "" if set(answer.saved) == saved else f"{answer.saved} are not {sorted(saved)}"


def _check_disjoint(world: World, answer: Answer, wanted: str | list[str]) -> str:
    shared = _saved(world, wanted) & set(answer.saved)
    return f"{sorted(shared)} came again" if shared else ""


def _check_subset(world: World, answer: Answer, wanted: str | list[str]) -> str:
    others = set(answer.saved) - _saved(world, wanted)
    return f"{sorted(others)} are others" if others else ""


def _check_unallocated(_: World, answer: Answer, wanted: list[str]) -> str:
    found = sorted(answer.facts.get("unallocated", []))
    return "" if found == sorted(wanted) else f"are {found}, not {wanted}"


def _check_differs(world: World, answer: Answer, wanted: str) -> str:
    return "is the same" if answer.facts["sequence"] == world.sequences[wanted] else ""


def _check_affinity_cidrs(_: World, answer: Answer, wanted: list[str]) -> str:
    outside = [text for text in answer.facts["affinityCIDRs"] if not _is_inside(text, wanted)]
    return f"{', '.join(outside)} not in {wanted}" if outside else ""


def _check_nodes(_: World, answer: Answer, wanted: dict[str, int]) -> str:
    counts = answer.facts["affinitiesByNode"]
    found = {node: counts.get(node, 0) for node in wanted}
    return "" if found == wanted else f"is {found}, not {wanted}"


def _check_blocks(_: World, answer: Answer, wanted: dict[str, Expect | None]) -> str:
    found = answer.facts["blockDetail"]
    complaints = []
    for cidr, fields in wanted.items():
        block = found.get(cidr)
        if block is None or fields is None:
            if block is not fields:
                complaints.append(f"{cidr} is {'not ' if block is None else ''}there")
            continue
        for key, value in fields.items():
            if key not in block:
                complaints.append(f"a field that the runner does not know: {key}")
            elif block[key] != value:
                complaints.append(f"{key} of {cidr} is {block[key]!r}, not {value!r}")
    return "; ".join(complaints)


def _of(answer: Answer, version: int) -> list[Given]:
    return [given for given in answer.given if given.address.version == version]


def _is_inside(text: str, cidrs: Iterable[str]) -> bool:
    address = parse_address(text.partition("/")[0])
    return any(parse_cidr(cidr).contains(address) for cidr in cidrs)


def _saved(world: World, names: str | list[str]) -> set[str]:
    names = [names] if isinstance(names, str) else names
    return {address for name in names for address in world.saved[name]}


CHECKS: dict[str, Callable[[Any, Answer, Any], str]] = {
    "error": _check_error,
    "errorKind": _check_error_kind,
    "distinct": _check_distinct,
    "sameAs": _check_same,
    "disjointFrom": _check_disjoint,
    "subsetOf": _check_subset,
    "unallocated": _check_unallocated,
    "differsFrom": _check_differs,
    "affinityCIDRsIn": _check_affinity_cidrs,
    "affinitiesByNode": _check_nodes,
    "blockDetail": _check_blocks,
}
for _version in (4, 6):
    CHECKS[f"n{_version}"] = _check_number(_version)
    CHECKS[f"null{_version}"] = _check_null(_version)
    CHECKS[f"in{_version}"] = _check_inside(_version)
    CHECKS[f"notIn{_version}"] = _check_outside(_version)
    CHECKS[f"exactly{_version}"] = _check_exactly(_version)
    CHECKS[f"mask{_version}"] = _check_mask(_version)
    CHECKS[f"msgs{_version}"] = _check_messages(_version)
    CHECKS[f"partialError{_version}"] = _check_partial(_version)
