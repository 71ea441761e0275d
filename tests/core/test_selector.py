"""The selector language, beyond what the tables of tests/conformance show."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.selector import DEEPEST_NESTING, EVERYTHING, parse_selector, unique_id

LABELS = st.sampled_from(["a", "b", "in", "not", "has", "k8s.io/x-y_z", "contains"])
TEXTS = st.text(alphabet="ab'é \n", max_size=3)
QUOTED = TEXTS.map(lambda text: f'"{text}"')
SETS = st.lists(QUOTED, max_size=3).map(lambda texts: "{" + ", ".join(texts) + "}")
COMPARISONS = st.one_of(
    st.just("all()"),
    st.just("global( )"),
    LABELS.map(lambda label: f"has({label})"),
    st.tuples(
        LABELS, st.sampled_from(["==", "!=", "contains", "starts with", "endswith"]), QUOTED
    ).map(" ".join),
    st.tuples(LABELS, st.sampled_from(["in", "not in", "notin"]), SETS).map(" ".join),
)
SELECTORS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map(lambda text: f"!{text}"),
        inner.map(lambda text: f"({text})"),
        st.tuples(inner, st.sampled_from([" && ", "||"]), inner).map("".join),
    ),
    max_leaves=8,
)
LABEL_SETS = st.dictionaries(LABELS, TEXTS, max_size=4)
PIECES = st.sampled_from(
    [
        *("a", "has(", "all(", "global(", ")", "(", "!", "=", "==", "!=", "&&", "||", "|", "in"),
        *("starts", "with", "ends", "contains", "{", "}", ",", "'x'", '"', " ", "\t", "\n", "é"),
        *("not", "9"),
    ]
)


@given(SELECTORS, LABEL_SETS)
def test_canonical_text_means_the_same(text, labels):
    """A selector and its canonical text select the same."""
    selector = parse_selector(text)
    assert selector.matches(labels) == parse_selector(str(selector)).matches(labels)


@given(SELECTORS)
def test_canonical_text_is_a_fixed_point(text):
    """The canonical text of a canonical text is itself, once `!(!x)` has become `!!x`, then `x`."""
    canonical = str(parse_selector(str(parse_selector(text))))
    assert canonical == str(parse_selector(canonical))


@given(st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=30)))
def test_garbage_raises_nothing_but_value_error(text):
    """Whatever the text, it is either a selector or refused with a message."""
    try:
        selector = parse_selector(text)
    except ValueError:
        pass
    else:
        assert selector.matches({}) in (True, False)
        assert unique_id(selector).startswith("s:")


@given(SELECTORS)
def test_spelling_does_not_change_the_value(text):
    """Two spellings of one selector are equal, and print as the same."""
    spaced = text.replace(" && ", "\t&&  ").replace("||", " || ")
    if '"' not in text:
        assert parse_selector(text) == parse_selector(spaced)


@pytest.mark.parametrize("text", ["", " ", "\t", "all()", " all( ) "])
def test_empty_selector_is_everything(text):
    """No selector selects everything."""
    assert parse_selector(text) == EVERYTHING
    assert str(parse_selector(text)) == "all()"


def test_fast_path_does_not_parse():
    """The two texts that nearly every pool has cost nothing: no new value is made."""
    assert parse_selector("") is EVERYTHING
    assert parse_selector("all()") is EVERYTHING


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a ==", "expected string"),
        ("a = 'b'", "expected =="),
        ("a == 'b' & b == 'c'", "expected &&"),
        ("a == 'b' | b == 'c'", "expected ||"),
        ("(a == 'b'", "expected )"),
        ("a in {'b'", "expected }"),
        ("a in {'b' 'c'}", "expected }"),
        ("a in 'b'", "expected set literal"),
        ("a == 'b", "unterminated string"),
        ("a == 'b'\n", "expected identifier"),
        ("has()", "expected identifier"),
        ("a b", 'expected operator after label "a"'),
        ("a infoo {'b'}", 'expected operator after label "a"'),
        ("has(a b)", "no closing ')' after has("),
        ("all(a)", "no closing ')' after all("),
        ("global(", "no closing ')' after global("),
        ("a", "unexpected end of string looking for op"),
        ("a == 'b' &&", "unexpected token: TokEOF()"),
        ("(a)", "expected == or != not: TokRParen()"),
        (
            "a == 'b' c == 'd'",
            (
                "unexpected content at end of selector "
                "[TokLabel(c) TokEq() TokStringLiteral(d) TokEOF()]"
            ),
        ),
    ],
)
def test_refusal_has_calico_s_words(text, message):
    """People search the web for the message."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        parse_selector(text)
    assert message == str(refusal.value)


def test_label_of_512_characters_is_the_longest():
    """One character more is refused, in has() too."""
    assert parse_selector("a" * 512 + " == 'x'").matches({"a" * 512: "x"})
    for text in ("a" * 513 + " == 'x'", f"has({'a' * 513})"):
        with pytest.raises(ValueError, match="label too long: aaa"):
            parse_selector(text)


def test_operator_words_are_labels_elsewhere():
    """A word is an operator only right after a label."""
    assert parse_selector("not in {'x'}").matches({"not": "x"})
    assert parse_selector("in in {'in'}").matches({"in": "in"})
    assert parse_selector("has == 'x' && all == 'y'").matches({"has": "x", "all": "y"})


def test_unique_id_is_calico_s_hash():
    """The value that Calico has for all()."""
    assert "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug" == unique_id(EVERYTHING)


def test_nesting_has_a_limit():
    """As many parentheses as are allowed work all the way; one more is refused, not a crash."""
    inside = "a == 'x'"
    for _ in range(DEEPEST_NESTING):
        inside = f"!(b == 'y' || c == 'z' && {inside})"
    selector = parse_selector(inside)
    assert selector.matches({"a": "x", "c": "z"})
    assert selector == parse_selector(inside)
    assert str(selector).endswith(")" * DEEPEST_NESTING)
    with pytest.raises(ValueError, match="nested deeper than 100 parentheses"):
        parse_selector(f"({inside})")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "!" * 100_000,
        "has(" * 100_000,
        "all() &&" * 50_000,
        "a in {" + "'x'," * 50_000,
        "!(" * 100_000 + "all()" + ")" * 100_000,
    ],
    ids=lambda text: text[:8],
)
def test_endless_input_is_refused(text):
    """Hostile input exhausts neither the stack nor the clock."""
    with pytest.raises(ValueError, match=r"expected|unexpected|nested|no closing"):
        parse_selector(text)


def test_long_flat_selectors_are_fine():
    """Chains and repeated negations are loops: their length costs no stack."""
    depth = sys.getrecursionlimit() * 3
    assert parse_selector(" && ".join(["has(a)"] * depth)).matches({"a": ""})
    assert parse_selector(" || ".join(["has(a)"] * depth + ["has(b)"])).matches({"b": ""})
    assert parse_selector("!" * (2 * depth) + "has(a)").matches({"a": ""})
