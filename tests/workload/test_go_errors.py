"""Go's words for what is wrong with a JSON text; each expectation was printed by Go 1.26."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.workload.go_errors import describe_wrong_type, find_syntax_error

END = "unexpected end of JSON input"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("172.16.0.0/16", "invalid character '.' after top-level value"),
        ("10.0.0.0/8", "invalid character '.' after top-level value"),
        ("pool1", "invalid character 'p' looking for beginning of value"),
        ("IPv4", "invalid character 'I' looking for beginning of value"),
        ("['a']", "invalid character '\\'' looking for beginning of value"),
        ('["a",]', "invalid character ']' looking for beginning of value"),
        ('["a" "b"]', "invalid character '\"' after array element"),
        ('["a"]]', "invalid character ']' after top-level value"),
        ('["a"', END),
        ('["a', END),
        (" ", END),
        ("[", END),
        ('["\n"]', "invalid character '\\n' in string literal"),
        ('["\x01"]', "invalid character '\\x01' in string literal"),
        ('["\\x"]', "invalid character 'x' in string escape code"),
        ('["\\u00g0"]', "invalid character 'g' in \\u hexadecimal character escape"),
        ("[é]", "invalid character 'Ã' looking for beginning of value"),
        ("[tru]", "invalid character ']' in literal true (expecting 'e')"),
        ("nul", "invalid character ' ' in literal null (expecting 'l')"),
        ("-", "invalid character ' ' in numeric literal"),
        ("01", "invalid character '1' after top-level value"),
        ("1.", "invalid character ' ' after decimal point in numeric literal"),
        ("1e+", "invalid character ' ' in exponent of numeric literal"),
        ("{1:2}", "invalid character '1' looking for beginning of object key string"),
        ('{"a"}', "invalid character '}' after object key"),
        ('{"a":1]', "invalid character ']' after object key:value pair"),
    ],
)
def test_a_broken_text_is_explained_as_by_go(text, expected):
    """Where Go's scanner stops, and what it expected there."""
    assert expected == find_syntax_error(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "json: cannot unmarshal string into Go value of type []string"),
        (1, "json: cannot unmarshal number into Go value of type []string"),
        (True, "json: cannot unmarshal bool into Go value of type []string"),
        ({}, "json: cannot unmarshal object into Go value of type []string"),
        ([1], "json: cannot unmarshal number into Go value of type string"),
        (["a", None, False], "json: cannot unmarshal bool into Go value of type string"),
        ([["a"]], "json: cannot unmarshal array into Go value of type string"),
    ],
)
def test_a_wrong_type_is_explained_as_by_go(value, expected):
    """The first item that is wrong, or the value itself."""
    assert expected == describe_wrong_type(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_sound_json_has_no_error(value):
    """However it is spelled."""
    assert find_syntax_error(json.dumps(value, indent=1)) is None


@given(st.text('[]{}",:\\ 01.e-truefalsn'))
def test_what_python_takes_has_no_error(text):
    """And only that, in this alphabet."""
    try:
        json.loads(text)
    except ValueError:
        assert find_syntax_error(text)
    else:
        assert find_syntax_error(text) is None


def test_endless_nesting_is_an_error_too():
    """Go gives up at ten thousand levels."""
    assert "exceeded max depth" == find_syntax_error("[" * 100_000)
