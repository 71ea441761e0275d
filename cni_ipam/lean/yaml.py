"""The plain part of YAML that programs write into kubeconfigs; anything else is refused.

Saves 20 ms of start-up beside `yaml`, which the lean program does not have at all.

Understood are block mappings and sequences, scalars on one line (plain or in quotes), `{}` and
`[]`, comments, one `---` at the top, and a whole document in JSON. What is accepted means exactly
what PyYAML's safe loader makes of it. What is valid YAML beyond that (anchors, tags, block and flow
styles, several lines, words and numbers on which YAML's versions differ) raises NotPlain, as does
what is not YAML: this reader does not tell one from the other, and never guesses.
"""

from __future__ import annotations

from cni_ipam.lean.json import loads as load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 32

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_KEY_CHARACTERS = _LETTERS | frozenset("0123456789_-./")
_DIGITS = frozenset("0123456789")
# What numbers and moments consist of, but for those with a prefix.
_NUMBER_CHARACTERS = _DIGITS | frozenset("_.:+-eEtTzZ ")
# A plain scalar does not begin with these, or what begins so is no scalar.
_INDICATORS = frozenset("!&*|>%@`{}[],?:#\"'=<~")
_WORDS = {
    **dict.fromkeys(("null", "Null", "NULL", "~"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Truth in YAML 1.1, mere words in 1.2; and .inf and .nan, which are no settings.
_DISPUTED = frozenset(("y", "n", "yes", "no", "on", "off", ".inf", "+.inf", "-.inf", ".nan"))
_ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "/": "/"}


class NotPlain(ValueError):
    """The text is not of the part that is understood; `line` counts from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def loads(text: str) -> Any:
    """The value of a document; None for an empty one. Raises NotPlain."""
    if text.lstrip(" \n")[:1] in ("{", "["):
        return _load_json(text)
    return _Reader(text).read()


def _load_json(text: str) -> Any:
    """The value of a document in JSON, unless JSON and YAML differ on how something is spelt."""
    try:
        value = load_json(text)
    except ValueError:
        raise NotPlain(1) from None
    # YAML 1.1 has no pairs of surrogates, and takes 1e3 for a word.
    if "\\u" in text or not _is_printable(text) or _has_float(value):
        raise NotPlain(1)
    return value


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_float(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_float(item) for item in value)
    return isinstance(value, float)


class _Reader:
    """The lines of one document that say something: (number, indent, text)."""

    def __init__(self, text: str) -> None:
        self._lines: list[tuple[int, int, str]] = []
        self._place = 0
        for number, line in enumerate(text.split("\n"), start=1):
            if not _is_printable(line):
                raise NotPlain(number)
            content = line.strip(" ")
            if content == "---" and line[0] == "-" and not self._lines:
                # A second one would be a second document, or an empty one before it.
                self._lines.append((number, -1, content))
            elif content and content[0] != "#":
                self._lines.append((number, len(line) - len(line.lstrip(" ")), content))
        if self._lines and self._lines[0][1] < 0:
            del self._lines[0]

    def read(self) -> Any:
        if not self._lines:
            return None
        value = self._read_block(self._lines[0][1], 0)
        if self._place < len(self._lines):
            # Nobody's indent: a scalar goes on there, or it is no YAML.
            raise self._refusal()
        return value

    def _refusal(self) -> NotPlain:
        place = min(self._place, len(self._lines) - 1)
        return NotPlain(self._lines[place][0])

    def _indent(self) -> int:
        """Of the line that is next; less than any after the last one."""
        return self._lines[self._place][1] if self._place < len(self._lines) else -1

    def _text(self) -> str:
        return self._lines[self._place][2]

    def _read_block(self, indent: int, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._refusal()
        if _is_item(self._text()):
            return self._read_sequence(indent, depth)
        return self._read_mapping(indent, depth)

    def _read_sequence(self, indent: int, depth: int) -> list[Any]:
        items = []
        while self._indent() == indent and _is_item(self._text()):
            number, _, text = self._lines[self._place]
            rest = text[1:].lstrip(" ")
            if _is_item(rest):
                raise self._refusal()
            if not rest or rest[0] == "#":
                self._place += 1
                items.append(self._read_inner(indent, depth, may_be_item=False))
            elif _find_key(rest):
                # A mapping that begins behind the dash: its other keys stand below the first.
                inner = indent + len(text) - len(rest)
                self._lines[self._place] = (number, inner, rest)
                items.append(self._read_mapping(inner, depth + 1))
            else:
                items.append(self._read_scalar(rest))
        return items

    def _read_mapping(self, indent: int, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        while self._indent() == indent and not _is_item(self._text()):
            text = self._text()
            key = _find_key(text)
            if not key or key in members:
                raise self._refusal()
            rest = text[len(key) + 1 :].lstrip(" ")
            if not rest or rest[0] == "#":
                self._place += 1
                members[key] = self._read_inner(indent, depth, may_be_item=True)
            else:
                members[key] = self._read_scalar(rest)
        return members

    def _read_inner(self, indent: int, depth: int, *, may_be_item: bool) -> Any:
        """What stands below a key or a dash; a key's sequence need not be indented."""
        inner = self._indent()
        if inner > indent:
            return self._read_block(inner, depth + 1)
        if may_be_item and inner == indent and _is_item(self._text()):
            return self._read_sequence(indent, depth + 1)
        return None

    def _read_scalar(self, text: str) -> Any:
        try:
            value = _parse_scalar(text)
        except ValueError:
            raise self._refusal() from None
        self._place += 1
        return value


def _is_printable(text: str) -> bool:
    """Without tabs, other line ends and what PyYAML refuses; JSON may have tabs and line ends."""
    return text.replace("\n", "").isprintable() and all(letter < "\ue000" for letter in text)


def _is_item(text: str) -> bool:
    return text[:2] == "- " or text == "-"


def _find_key(text: str) -> str:
    """The key with which the line begins; "" if there is none, or none that is plain."""
    key, mark, rest = text.partition(":")
    if not mark or rest[:1] not in ("", " ") or key[:1] not in _LETTERS:
        return ""
    if not _KEY_CHARACTERS.issuperset(key) or key in _WORDS or key.lower() in _DISPUTED:
        return ""
    return key


def _parse_scalar(text: str) -> Any:
    """The value of what stands on one line, comment and all. Raises ValueError."""
    if text[0] in "\"'":
        return _parse_quoted(text)
    plain = text.partition(" #")[0].rstrip(" ")
    if plain in ("{}", "[]"):
        return {} if plain == "{}" else []
    if plain in _WORDS:
        return _WORDS[plain]
    if plain[0] in _INDICATORS or plain == "-" or plain[:2] == "- ":
        raise ValueError
    if ": " in plain or plain[-1] == ":" or plain.lower() in _DISPUTED:
        raise ValueError
    return _parse_plain(plain)


def _parse_plain(text: str) -> str | int:
    """A word, or a whole number as everybody writes it. Raises ValueError."""
    if _DIGITS.issuperset(text) and len(text) < 19 and (text[0] != "0" or text == "0"):
        return int(text)
    number = text.lstrip("+-").lower()
    if number[:2] in ("0x", "0o", "0b"):
        raise ValueError
    # An IPv4 address is none, and neither is a version: numbers have one dot at most.
    if _NUMBER_CHARACTERS.issuperset(text) and (text.count(".") < 2 or ":" in text):
        raise ValueError
    return text


def _parse_quoted(text: str) -> str:
    """What stands between the quotes; behind them may only be a comment. Raises ValueError."""
    quote, pieces, place = text[0], [], 1
    while True:
        letter = text[place : place + 1]
        follower = text[place + 1 : place + 2]
        if quote == "'" and letter == follower == "'":
            pieces.append(letter)
            place += 1
        elif quote == '"' and letter == "\\":
            if follower not in _ESCAPES:
                raise ValueError
            pieces.append(_ESCAPES[follower])
            place += 1
        elif letter == quote:
            break
        elif letter:
            pieces.append(letter)
        else:
            raise ValueError
        place += 1
    rest = text[place + 1 :]
    if rest.strip(" ") and not (rest[0] == " " and rest.lstrip(" ")[0] == "#"):
        raise ValueError
    return "".join(pieces)
