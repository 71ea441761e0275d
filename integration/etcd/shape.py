"""What a JSON text has to look like: Go's spelling, and fields with their types, in their order.

A check is called with a value, its path (`metadata.uid`, `allocations[3]`) and the findings, to
which it adds what is wrong.
"""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    type_of_check = Callable[[Any, str, "Findings"], None]
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WORDS = {bool: "a boolean", int: "an integer", str: "a string", list: "a list", dict: "an object"}
# Go's escapes beyond those of every JSON encoder.
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Findings:
    """What is wrong with one value; fields named in `foreign` are some newer peer's and fine."""

    def __init__(self, foreign: Collection[str] = ()) -> None:
        self.foreign = frozenset(foreign)
        self.problems: list[str] = []

    def add(self, path: str, what: str) -> None:
        """Note a problem."""
        self.problems.append(f"{path}: {what}")


class Field(NamedTuple):
    """A field of an object."""

    name: str
    check: type_of_check
    is_required: bool = True


def parse(text: str, findings: Findings) -> Any:
    """The value of a JSON text, which must be spelled as Go spells it; None if it is no JSON."""
    try:
        text.encode()
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        expected = spell(value)
        expected.encode()
    except ValueError as error:
        findings.add("value", f"is not JSON: {error}")
        return None
    if text != expected:
        pairs = enumerate(zip(text, expected, strict=False))
        ends = min(len(text), len(expected))
        place = next((place for place, (found, right) in pairs if found != right), ends)
        found, right = text[place : place + 20], expected[place : place + 20]
        findings.add("value", f"spelling: {found!r} at character {place}, Go writes {right!r}")
    return value


def spell(value: Any) -> str:
    """`value` as Go's json.Marshal spells it, fields in the order of the dict."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"a field comes twice among {names}")
    return dict(pairs)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")


def is_a(kind: type, value: Any, path: str, findings: Findings) -> bool:
    """Whether `value` has exactly that JSON type: true is no integer, and 1.0 is none either."""
    if type(value) is kind:
        return True
    findings.add(path, f"is {value!r:.60}, not {WORDS[kind]}")
    return False


def fields(*expected: Field) -> type_of_check:
    """An object of these fields, in this order, and no others."""
    order = {field.name: place for place, field in enumerate(expected)}

    def check(value: Any, path: str, findings: Findings) -> None:
        if not is_a(dict, value, path or "value", findings):
            return
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in order and name not in findings.foreign:
                findings.add(prefix + name, "is a field that does not belong here")
        for field in expected:
            if field.name in value:
                field.check(value[field.name], prefix + field.name, findings)
            elif field.is_required:
                findings.add(prefix + field.name, "is missing")
        present = [name for name in value if name in order]
        ranked = sorted(present, key=order.__getitem__)
        for name, right in zip(present, ranked, strict=True):
            if name != right:
                findings.add(prefix + name, f"stands where {right} belongs")

    return check


def exactly(expected: Any) -> type_of_check:
    """This value and no other."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if type(value) is not type(expected) or value != expected:
            findings.add(path, f"is {value!r:.60}, not {expected!r}")

    return check


def one_of(*choices: str) -> type_of_check:
    """One of these texts."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if is_a(str, value, path, findings) and value not in choices:
            findings.add(path, f"is {value!r:.60}, not one of {choices}")

    return check


def text(pattern: str = r".+", what: str = "a text that is not empty") -> type_of_check:
    """A text that the whole pattern matches."""
    right = re.compile(pattern, re.DOTALL)

    def check(value: Any, path: str, findings: Findings) -> None:
        if is_a(str, value, path, findings) and not right.fullmatch(value):
            findings.add(path, f"is {value!r:.60}, not {what}")

    return check


def integer(least: int, most: int) -> type_of_check:
    """An integer of this range."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if is_a(int, value, path, findings) and not least <= value <= most:
            findings.add(path, f"is {value}, not {least} to {most}")

    return check


def boolean(value: Any, path: str, findings: Findings) -> None:
    """True or false."""
    is_a(bool, value, path, findings)


def or_null(inner: type_of_check) -> type_of_check:
    """Null, or what `inner` says."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if value is not None:
            inner(value, path, findings)

    return check


def list_of(item: type_of_check, least: int = 0) -> type_of_check:
    """A list of such items."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if is_a(list, value, path, findings):
            if len(value) < least:
                findings.add(path, f"has {len(value)} entries, not {least} or more")
            for place, entry in enumerate(value):
                item(entry, f"{path}[{place}]", findings)

    return check


def map_of(key: type_of_check, item: type_of_check, least: int = 0) -> type_of_check:
    """A map from such keys, sorted as Go sorts them (by their bytes), to such items."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if not is_a(dict, value, path, findings):
            return
        if len(value) < least:
            findings.add(path, f"has {len(value)} entries, not {least} or more")
        if list(value) != sorted(value, key=lambda name: name.encode()):
            findings.add(path, f"has keys that are not sorted: {list(value)}")
        for name, entry in value.items():
            key(name, f"{path}.{name}", findings)
            item(entry, f"{path}.{name}", findings)

    return check


def find_network(value: str) -> Network | None:
    """The network that a text names in its canonical spelling, without host bits; else None."""
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        return None
    return network if str(network) == value else None


def cidr(value: Any, path: str, findings: Findings) -> None:
    """A CIDR without host bits in its canonical spelling."""
    if is_a(str, value, path, findings) and find_network(value) is None:
        findings.add(path, f"is {value!r:.60}, not a CIDR as Go spells it, without host bits")


def unmasked_cidr(value: Any, path: str, findings: Findings) -> None:
    """A CIDR, with or without host bits; not an address alone."""
    if is_a(str, value, path, findings):
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            value = ""
        if not re.search(r"/\d+\Z", value):
            findings.add(path, "is not a CIDR")


def parsed_by(parse: Callable[[str], object], otherwise: str) -> type_of_check:
    """A string that `parse` takes, which raises ValueError `otherwise`."""

    def check(value: Any, path: str, findings: Findings) -> None:
        if is_a(str, value, path, findings):
            try:
                parse(value)
            except ValueError:
                findings.add(path, f"is {value!r:.60}, {otherwise}")

    return check


address = parsed_by(ipaddress.ip_address, "not an address")
address_or_cidr = parsed_by(ipaddress.ip_interface, "neither an address nor a CIDR")


def _is_moment(*parts: int) -> bool:
    try:
        datetime(*parts, tzinfo=UTC)
    except ValueError:
        return False
    return True


def _moment(pattern: str, what: str) -> type_of_check:
    right = re.compile(pattern, re.ASCII)

    def check(value: Any, path: str, findings: Findings) -> None:
        if not is_a(str, value, path, findings):
            return
        found = right.fullmatch(value)
        if found is None or not _is_moment(*map(int, found.groups())):
            findings.add(path, f"is {value!r:.60}, not a moment like {what}")

    return check


_DATE = r"(\d{4})-(\d\d)-(\d\d)"
_CLOCK = r"(\d\d):(\d\d):(\d\d)"
rfc3339 = _moment(f"{_DATE}T{_CLOCK}Z", "2026-01-02T03:04:05Z")
go_time = _moment(
    rf"{_DATE} {_CLOCK}(?:\.\d{{0,8}}[1-9])? \+0000 UTC", "2026-01-02 03:04:05.06 +0000 UTC"
)
