"""JSON as Go's encoding/json reads and writes it, straight on the C code that `json` wraps.

Saves 7 ms of start-up: a process that imports this ran 7.7 ms (median 8.7), one that imports
`json`, with re, enum and functools, 14.1 (15.8), an empty one 7.0 (7.8).

Where Go and Python differ, this is Go: output is compact with `<`, `>`, `&`, U+2028 and U+2029
escaped, NaN and infinities are refused, half a surrogate pair becomes U+FFFD. Stricter than Go:
invalid UTF-8 is refused, and so is what is nested deeper than MAX_DEPTH. Floats, which no record
of Calico's holds, are printed as Python spells them (`1.0` where Go has `1`).

The scanner of `_json` takes the class of its errors from `json.decoder`: where that is not loaded,
3.11 raises a bare SystemError and later versions import it (and a bundle may not have it). So a
text that fails is read once more with a stand-in for that module, which yields the position.
"""

from __future__ import annotations

import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

MAX_DEPTH = 200
_WHITESPACE = " \t\n\r"


class _Refused(ValueError):
    """A word that JSON, or we, do not take as a number."""

    def __init__(self, what: str, word: str) -> None:
        super().__init__(what)
        self.what = what
        self.word = word


class _DecodeError(ValueError):
    """What the C scanner raises: it finds this class by the name `json.decoder.JSONDecodeError`."""

    def __init__(self, msg: str, _doc: str, pos: int) -> None:
        super().__init__(msg)
        self.msg = msg
        self.pos = pos


def _refuse_constant(word: str) -> None:
    raise _Refused(f"{word} is not JSON", word)


def _parse_float(word: str) -> float:
    value = float(word)
    if value - value != 0:
        raise _Refused("number too large", word)
    return value


def _parse_int(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise _Refused("number has too many digits", word) from None


def _refuse_value(value: object) -> None:
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


class _Reading:
    """What the scanner is to do with strings and numbers."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_parse_float)
    parse_int: Any = int
    parse_constant = staticmethod(_refuse_constant)


class _Explaining(_Reading):
    parse_int = staticmethod(_parse_int)


try:
    from _json import (
        encode_basestring,
        encode_basestring_ascii,
        make_encoder,
        make_scanner,
        scanstring,
    )

    _scan: Any = make_scanner(_Reading)  # type: ignore[arg-type]
    _scan_again: Any = make_scanner(_Explaining)  # type: ignore[arg-type]
    _encode: Any = make_encoder(
        None, _refuse_value, encode_basestring, None, ":", ",", False, False, False
    )
except ImportError:
    from json import JSONDecoder, JSONEncoder
    from json.decoder import scanstring  # type: ignore[attr-defined,no-redef]
    from json.encoder import encode_basestring, encode_basestring_ascii

    def _make_scanner(parse_int: Any) -> Any:
        decoder: Any = JSONDecoder(
            parse_float=_parse_float, parse_int=parse_int, parse_constant=_refuse_constant
        )
        return decoder.scan_once

    _scan = _make_scanner(int)
    _scan_again = _make_scanner(_parse_int)
    _encoder = JSONEncoder(
        ensure_ascii=False,
        check_circular=False,
        allow_nan=False,
        separators=(",", ":"),
        default=_refuse_value,
    )

    def _encode(value: Any, _level: int) -> Any:
        return _encoder.iterencode(value)


def loads(text: str | bytes) -> Any:
    """The value of one JSON text. Raises ValueError, which says what is wrong and where."""
    text = _decode(text)
    start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = _scan(text, start)
    except (StopIteration, RecursionError, SystemError, ImportError, ValueError):
        raise _explain(text, start) from None
    if end != len(text):
        rest = text[end:].lstrip(_WHITESPACE)
        if rest:
            raise _error("more after the end of the value", text, len(text) - len(rest))
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise _error(f"nested deeper than {MAX_DEPTH}", text, start)
    if "\\ud" in text or "\\uD" in text:
        return _without_surrogates(value)
    return value


def dumps(value: Any) -> str:
    """One line as Go's json.Marshal writes it, keys in the order of the dict.

    Raises ValueError for NaN, infinities and what holds itself, TypeError for other types."""
    try:
        return _escape("".join(_encode(value, 0)))
    except RecursionError:
        raise ValueError("nested too deep for JSON, or holds itself") from None


def dumps_indented(value: Any) -> str:
    """As `dumps`, laid out as Go's json.MarshalIndent does with four spaces."""
    try:
        return _escape(_indent(value, "\n"))
    except RecursionError:
        raise ValueError("nested too deep for JSON, or holds itself") from None


def quote_ascii(text: str) -> str:
    """`text` as a JSON string of printable ASCII characters."""
    return encode_basestring_ascii(text)


def _decode(text: str | bytes) -> str:
    """The text, with nothing in it that is not UTF-8."""
    try:
        if isinstance(text, str):
            if not text.isascii():
                text.encode()
            return text
        return text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"not UTF-8 at character {error.start}") from None


def _explain(text: str, start: int) -> ValueError:
    """What is wrong with `text`, which the scanner refused."""
    if text.startswith("\ufeff"):
        return _error("a byte order mark is not JSON", text, 0)
    lent = _lend_error_class()
    try:
        _scan_again(text, start)
    except StopIteration as stop:
        what = "a value is expected" if stop.value < len(text) else "the text ends too early"
        return _error(what, text, stop.value)
    except RecursionError:
        return _error(f"nested deeper than {MAX_DEPTH}", text, start)
    except _Refused as refused:
        return _error(refused.what, text, _find_outside_strings(text, refused.word))
    except ValueError as error:
        what = getattr(error, "msg", str(error)).removesuffix(" at")
        return _error(what, text, getattr(error, "pos", start))
    finally:
        if lent is not None and sys.modules.get("json.decoder") is lent:
            del sys.modules["json.decoder"]
    return _error("not JSON", text, start)


def _lend_error_class() -> ModuleType | None:
    """Let the scanner find an error class; returns the stand-in, if one was needed."""
    if "json.decoder" in sys.modules:
        return None
    if _thread._count():
        # Another thread could meet the stand-in in the middle of its own `import json`.
        import json.decoder  # noqa: F401

        return None
    lent = type(sys)("json.decoder")
    lent.JSONDecodeError = _DecodeError  # type: ignore[attr-defined]
    sys.modules["json.decoder"] = lent
    return lent


def _error(what: str, text: str, position: int) -> ValueError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return ValueError(f"{what} at line {line}, column {column}")


def _find_outside_strings(text: str, word: str) -> int:
    """Where `word` stands first; every string before it is known to be sound."""
    end = 0
    while True:
        quote = text.find('"', end)
        place = text.find(word, end)
        if quote < 0 or place < quote:
            return place
        end = scanstring(text, quote + 1)[1]


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside.extend(item.values())
            elif isinstance(item, list):
                inside.extend(item)
        level = inside
    return any(isinstance(item, (dict, list)) for item in level)


def _without_surrogates(value: Any) -> Any:
    """A copy of `value` with U+FFFD for every half of a surrogate pair, as Go reads it."""
    if isinstance(value, str):
        return value if _is_unicode(value) else _replace_surrogates(value, "\ufffd")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(value[key]) for key in value}
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replace_surrogates(text: str, substitute: str) -> str:
    return "".join([substitute if "\ud800" <= c <= "\udfff" else c for c in text])


def _escape(text: str) -> str:
    """Go's escapes: none of these characters can stand outside of a string."""
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    if text.isascii():
        return text
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text if _is_unicode(text) else _replace_surrogates(text, "\\ufffd")


def _indent(value: Any, newline: str) -> str:
    inner = newline + "    "
    if value and isinstance(value, dict):
        members = [
            f"{inner}{encode_basestring(key)}: {_indent(item, inner)}"
            for key, item in value.items()
        ]
        return "{" + ",".join(members) + newline + "}"
    if value and isinstance(value, (list, tuple)):
        return "[" + ",".join([inner + _indent(item, inner) for item in value]) + newline + "]"
    return "".join(_encode(value, 0))
