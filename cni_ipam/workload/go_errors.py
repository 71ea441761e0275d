"""Why a text is no JSON list of strings, in the words of Go's encoding/json.

People know Calico's errors about annotations by these words. Only a text that was refused comes
here, so what is read is thrown away.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_WHITESPACE = b" \t\r\n"
_DIGITS = b"0123456789"
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_ESCAPES = b'bfnrt\\/"'
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_SPELLINGS = {
    *(("'", "\\'"), ('"', '"'), ("\\", "\\\\"), ("\a", "\\a"), ("\b", "\\b")),
    *(("\f", "\\f"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\v", "\\v")),
}


class _Refused(Exception):
    """Go's scanner stops here, with this text."""


def find_syntax_error(text: str) -> str | None:
    """Go's error for a text that is not JSON; None if Go would take it."""
    try:
        _Scanner(text.encode("utf-8", "replace")).skip_document()
    except _Refused as refused:
        return str(refused)
    except RecursionError:
        return "exceeded max depth"
    return None


def describe_wrong_type(value: object) -> str:
    """Go's error for a value that is not a list of strings."""
    wrong, wanted = value, "[]string"
    for item in value if isinstance(value, list) else ():
        if item is not None and not isinstance(item, str):
            wrong, wanted = item, "string"
            break
    return f"json: cannot unmarshal {_kind_of(wrong)} into Go value of type {wanted}"


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


class _Scanner:
    """A walk over a text as Go's scanner does it, byte by byte."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def skip_document(self) -> None:
        """Raises _Refused where Go does."""
        self._skip_value()
        self._skip_space()
        if self.at < len(self.data):
            self._refuse("after top-level value")

    def _skip_value(self) -> None:
        self._skip_space()
        here = self._peek()
        if here == b"[":
            self._skip_array()
        elif here == b"{":
            self._skip_object()
        elif here == b'"':
            self._skip_string()
        elif here in _LITERALS:
            self._skip_literal(_LITERALS[here])
        elif here == b"-" or here in _DIGITS:
            self._skip_number()
        else:
            self._refuse("looking for beginning of value")

    def _skip_array(self) -> None:
        self.at += 1
        self._skip_space()
        if self._take(b"]"):
            return
        while True:
            self._skip_value()
            if self._ends_with(b"]", "after array element"):
                return

    def _skip_object(self) -> None:
        self.at += 1
        self._skip_space()
        if self._take(b"}"):
            return
        while True:
            self._skip_space()
            if self._peek() != b'"':
                self._refuse("looking for beginning of object key string")
            self._skip_string()
            self._skip_space()
            self._peek()
            self._require(b":", "after object key")
            self._skip_value()
            if self._ends_with(b"}", "after object key:value pair"):
                return

    def _skip_string(self) -> None:
        self.at += 1
        while not self._take(b'"'):
            if self._take(b"\\"):
                self._skip_escape()
            elif self._peek() < b" ":
                self._refuse("in string literal")
            else:
                self.at += 1

    def _skip_escape(self) -> None:
        if self._take(b"u"):
            for _ in range(4):
                self._require(_HEX_DIGITS, "in \\u hexadecimal character escape")
        else:
            self._require(_ESCAPES, "in string escape code")

    def _skip_literal(self, literal: bytes) -> None:
        self.at += 1
        for index in range(1, len(literal)):
            wanted = literal[index : index + 1]
            self._require(
                wanted, f"in literal {literal.decode()} (expecting {_quote(wanted.decode())})"
            )

    def _skip_number(self) -> None:
        self._take(b"-")
        if not self._take(b"0"):
            self._require(_DIGITS, "in numeric literal")
            self._skip_digits()
        if self._take(b"."):
            self._require(_DIGITS, "after decimal point in numeric literal")
            self._skip_digits()
        if self._take(b"eE"):
            self._take(b"+-")
            self._require(_DIGITS, "in exponent of numeric literal")
            self._skip_digits()

    def _skip_digits(self) -> None:
        while self._take(_DIGITS):
            pass

    def _skip_space(self) -> None:
        while self._take(_WHITESPACE):
            pass

    def _peek(self) -> bytes:
        """The byte here. Raises _Refused at the end."""
        if self.at == len(self.data):
            raise _Refused("unexpected end of JSON input")
        return self.data[self.at : self.at + 1]

    def _take(self, allowed: bytes) -> bool:
        """Step over the byte here if it is one of `allowed`; there is none at the end of a number
        or of the whole."""
        found = self.data[self.at : self.at + 1]
        if not found or found not in allowed:
            return False
        self.at += 1
        return True

    def _ends_with(self, end: bytes, place: str) -> bool:
        """Step over what follows on a value: the end of the whole, or a comma."""
        self._skip_space()
        self._peek()
        if self._take(end):
            return True
        self._require(b",", place)
        return False

    def _require(self, allowed: bytes, place: str) -> None:
        if not self._take(allowed):
            self._refuse(place)

    def _refuse(self, place: str) -> NoReturn:
        """Raises _Refused for the byte here; Go reads a space behind the last one."""
        here = self.data[self.at : self.at + 1] or b" "
        raise _Refused(f"invalid character {_quote(chr(here[0]))} {place}")


def _quote(character: str) -> str:
    """A byte as Go quotes it, as if it were a character of its own."""
    spelled = dict(_SPELLINGS).get(character)
    if spelled is None:
        code = ord(character)
        hexadecimal = f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
        spelled = character if character.isprintable() else hexadecimal
    return f"'{spelled}'"
