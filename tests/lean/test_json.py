"""Our JSON against the standard module on random input, and against Go where the two differ."""

from __future__ import annotations

import contextlib
import importlib.util
import json as standard
import math
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.lean import json
from cni_ipam.lean.json import MAX_DEPTH, dumps, dumps_indented, loads, quote_ascii

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20
)
# Texts that are nearly JSON: every kind of mistake comes up.
NEARLY = st.text(st.sampled_from('[]{}",:0129.eE+-truefalsn\\ud8\x01 \n\u00e9'), max_size=12)
INDENTED = standard.JSONEncoder(ensure_ascii=False, indent=4)


def as_go(text: str) -> str:
    """What Go's encoder escapes beyond what Python's does."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class TestLoads:
    """Reading."""

    @given(VALUES)
    def test_reads_what_the_standard_module_writes(self, value: object) -> None:
        """Escaped or raw, as text or as bytes, with white space around it."""
        for text in (standard.dumps(value), standard.dumps(value, ensure_ascii=False, indent=1)):
            assert value == loads(text) == loads(f" \t\r\n{text} \n".encode())

    @given(NEARLY)
    def test_accepts_what_the_standard_module_accepts(self, text: str) -> None:
        """But for numbers that are none in JSON; and whatever else is wrong is a ValueError."""
        try:
            expected = standard.loads(text)
            standard.dumps(expected, allow_nan=False)
        except ValueError:
            with pytest.raises(ValueError, match=r" at line \d+, column \d+$"):
                loads(text)
        else:
            assert standard.dumps(expected) == standard.dumps(loads(text)) or "\\ud" in text

    @given(st.binary(max_size=20))
    def test_bytes_are_read_or_refused(self, data: bytes) -> None:
        """No other exception than ValueError."""
        with contextlib.suppress(ValueError):
            loads(data)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "the text ends too early at line 1, column 1"),
            (" \n ", "the text ends too early at line 2, column 2"),
            ("{} {}", "more after the end of the value at line 1, column 4"),
            ("{}\0", "more after the end of the value at line 1, column 3"),
            ("\ufeff{}", "a byte order mark is not JSON at line 1, column 1"),
            ('{"a":\n  nope}', "a value is expected at line 2, column 3"),
            ('["NaN", NaN]', "NaN is not JSON at line 1, column 9"),
            ("[-Infinity]", "-Infinity is not JSON at line 1, column 2"),
            ("[1e999]", "number too large at line 1, column 2"),
            ("[-1e999]", "number too large at line 1, column 2"),
            ("1" * 5000, "number has too many digits at line 1, column 1"),
            ('["a\nb"]', "Invalid control character at line 1, column 4"),
            ('["a\0b"]', "Invalid control character at line 1, column 4"),
            ('["\\x"]', r"Invalid \escape at line 1, column 3"),
            ('["abc', "Unterminated string starting at line 1, column 2"),
            ('{"a" 1}', "Expecting ':' delimiter at line 1, column 6"),
            ("[1", "Expecting ',' delimiter at line 1, column 3"),
            ("\ud800", "not UTF-8 at character 0"),
            (b'"\xff"', "not UTF-8 at byte 1"),
            (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
            ("[" * 10_000 + "]" * 10_000, "nested deeper than 200 at line 1, column 1"),
            ("[" * 100_000, "nested deeper than 200 at line 1, column 1"),
            ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested deeper than 200 at line 1, column 1"),
        ],
    )
    def test_says_what_is_wrong_and_where(self, text: str | bytes, problem: str) -> None:
        """One line for each kind of mistake."""
        with pytest.raises(ValueError, match=r".") as caught:
            loads(text)
        assert problem == str(caught.value)
        assert "json.decoder" in sys.modules

    @pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
    def test_nesting_has_a_limit(self, brackets: str) -> None:
        """MAX_DEPTH levels are read and can be written again, one more is refused."""
        opening, closing = brackets[:-1], brackets[-1]
        text = opening * MAX_DEPTH + "0" * (opening != "[") + closing * MAX_DEPTH
        assert text == dumps(loads(text))
        with pytest.raises(ValueError, match="nested deeper than 200"):
            loads(opening + text + closing)

    def test_many_brackets_side_by_side_are_no_nesting(self) -> None:
        """Width is not depth."""
        assert [[]] * 1000 == loads("[" + ",".join(["[]"] * 1000) + "]")

    def test_integers_are_exact(self) -> None:
        """Sequence numbers of Calico's are beyond what a float holds."""
        assert 18446744073709551615 == loads("18446744073709551615")

    def test_the_last_of_equal_keys_counts(self) -> None:
        """As in Go."""
        assert {"a": 2} == loads('{"a":1,"a":2}')

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('"\\ud800"', "\ufffd"),
            ('"x\\uDC00y"', "x\ufffdy"),
            ('"\\ud800\\ud800"', "\ufffd\ufffd"),
            ('"\\ud83d\\ude00"', "\U0001f600"),
            ('{"\\ud800":["\\udfff",1]}', {"\ufffd": ["\ufffd", 1]}),
            ('"\\\\ud800"', "\\ud800"),
        ],
    )
    def test_half_a_surrogate_pair_is_replaced(self, text: str, expected: object) -> None:
        """By U+FFFD, as in Go; whole pairs are what they stand for."""
        assert expected == loads(text)


class TestDumps:
    """Writing."""

    @given(VALUES)
    def test_writes_as_the_standard_module_with_gos_escapes(self, value: object) -> None:
        """Compact, keys in their order, other characters raw."""
        plain = standard.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert as_go(plain) == dumps(value)

    @given(VALUES)
    def test_indents_as_the_standard_module_with_gos_escapes(self, value: object) -> None:
        """Four spaces a level, empty lists and objects on one line."""
        assert as_go(INDENTED.encode(value)) == dumps_indented(value)

    @given(VALUES)
    def test_is_read_back_the_same(self, value: object) -> None:
        """By us and by the standard module."""
        for text in (dumps(value), dumps_indented(value)):
            assert value == loads(text) == standard.loads(text)

    def test_is_gos_to_the_byte(self) -> None:
        """What Go's json.Marshal gives for this value."""
        value = {"z": 'a<b>&\u2028\u2029\x7f\x01\b\f\n\r\t"\\/é', "a": [None, True, -1, {}, []]}
        assert (
            '{"z":"a\\u003cb\\u003e\\u0026\\u2028\\u2029\x7f\\u0001\\b\\f\\n\\r\\t\\"\\\\/é",'
            '"a":[null,true,-1,{},[]]}'
        ) == dumps(value)

    def test_tuples_are_lists(self) -> None:
        """In both layouts."""
        assert ("[1,[]]", "[\n    1,\n    []\n]") == (dumps((1, ())), dumps_indented((1, ())))

    def test_half_a_surrogate_pair_is_written_as_gos_replacement(self) -> None:
        """Text can always be encoded afterwards."""
        assert b'["\\ufffd"]' == dumps(["\ud800"]).encode()

    @pytest.mark.parametrize("write", [dumps, dumps_indented])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_refuses_what_is_no_number(self, write: object, value: float) -> None:
        """NaN and infinities are not JSON."""
        with pytest.raises(ValueError, match="JSON"):
            write([value])

    @pytest.mark.parametrize("write", [dumps, dumps_indented])
    def test_refuses_what_holds_itself(self, write: object) -> None:
        """A ValueError, not a full stack."""
        value: list[object] = []
        value.append(value)
        with pytest.raises(ValueError, match="holds itself"):
            write(value)

    @pytest.mark.parametrize("write", [dumps, dumps_indented])
    def test_refuses_other_types(self, write: object) -> None:
        """A set is a mistake of the program."""
        with pytest.raises(TypeError, match="set cannot be written as JSON"):
            write([{1}])

    @given(st.text())
    def test_quotes_in_ascii(self, text: str) -> None:
        """One printable line, whatever the text."""
        quoted = quote_ascii(text)
        assert quoted.isascii()
        assert quoted.isprintable()
        assert text == standard.loads(quoted)


class TestWithoutTheStandardModule:
    """What the process of a plugin meets, in which nothing else has imported `json`."""

    @pytest.fixture
    def unloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("json", "json.decoder", "json.encoder", "json.scanner"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    @pytest.mark.usefixtures("unloaded")
    def test_mistakes_are_told_as_well(self) -> None:
        """With their position, and without a trace of the stand-in."""
        with pytest.raises(ValueError, match=r"^Expecting ',' delimiter at line 1, column 3$"):
            loads("[1")
        assert getattr(sys.modules.get("json.decoder"), "JSONDecoder", None) or (
            "json.decoder" not in sys.modules
        )

    @pytest.mark.usefixtures("unloaded")
    def test_other_threads_never_meet_the_stand_in(self) -> None:
        """With more than one thread the real module is taken."""
        problems = []

        def read() -> None:
            try:
                loads("[1")
            except ValueError as error:
                problems.append(str(error))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert ["Expecting ',' delimiter at line 1, column 3"] == problems
        assert hasattr(sys.modules["json.decoder"], "JSONDecoder")


@pytest.fixture(scope="module")
def slow() -> object:
    """The module as it is where `_json` cannot be imported."""
    kept = sys.modules.pop("_json")
    sys.modules["_json"] = None  # type: ignore[assignment]
    try:
        spec = importlib.util.spec_from_file_location("slow_json", json.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.modules["_json"] = kept
    return module


class TestWithoutTheCModule:
    """An interpreter that has no `_json`, or another one."""

    @given(value=VALUES)
    def test_writes_and_reads_the_same(self, slow: object, value: object) -> None:
        """Only slower."""
        assert dumps(value) == slow.dumps(value)
        assert dumps_indented(value) == slow.dumps_indented(value)
        assert value == slow.loads(dumps(value))

    @given(text=NEARLY)
    def test_refuses_the_same(self, slow: object, text: str) -> None:
        """With the same message."""
        outcomes = []
        for module in (json, slow):
            try:
                outcomes.append(repr(module.loads(text)))
            except ValueError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
