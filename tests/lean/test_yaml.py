"""YAML: what is accepted means what PyYAML makes of it; all else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cni_ipam.lean.yaml import MAX_DEPTH, NotPlain, loads

FOLDER = Path(__file__).parent / "kubeconfigs"
KUBECONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "gke")

PLAIN = """\
# written by an installer
---
apiVersion: v1
kind: Config      # a comment
preferences: {}
empty:
none: null
tilde: ~
clusters:
- cluster:
    server: https://10.0.0.1:6443
    insecure-skip-tls-verify: true
  name: local
-   name: "with \\"quotes\\" and # no comment"
    cluster:
        server: 'it''s https://[fd00::1]:6443'

users:
  - name: a#b
    user: {}
  -
    name: kubernetes-admin@kubernetes
    user:
      exec:
        args:
        - --region
        - "eu-west-1"   # there
        - 7
        env: []
current-context: local
"""


def yaml_of(text):
    return yaml.safe_load(text)


def is_refused(text):
    try:
        loads(text)
    except NotPlain:
        return True
    return False


def test_what_installers_write_is_understood():
    """Mappings, sequences, scalars and comments, as they indent them."""
    assert yaml_of(PLAIN) == loads(PLAIN)


@pytest.mark.parametrize("path", KUBECONFIGS, ids=lambda path: path.stem)
def test_a_real_kubeconfig_is_read_as_pyyaml_reads_it(path):
    """Those of kubeadm, kubelet, Calico, kind, k3s and EKS."""
    text = path.read_text()
    assert yaml_of(text) == loads(text)


def test_a_hint_over_two_lines_is_left_to_the_full_program():
    """Which is asked in any case, as there is a plugin to be asked."""
    assert is_refused((FOLDER / "gke.yaml").read_text())


@pytest.mark.parametrize("path", KUBECONFIGS, ids=lambda path: path.stem)
def test_a_kubeconfig_in_json_is_read_as_well(path):
    """As kubectl prints it with -o json."""
    document = yaml_of(path.read_text())
    assert document == loads(json.dumps(document, indent=2))
    assert document == loads(json.dumps(document))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "---\n# nothing"])
def test_an_empty_document_is_none(text):
    """Comments say nothing."""
    assert (None, None) == (yaml_of(text), loads(text))


@pytest.mark.parametrize(
    "value",
    [
        *("1.5", "1e3", "0777", "0x1f", "0o17", "0b1", "1_000", "12:30:45", "12:30", "+1", "-1"),
        *("2021-01-01", "2021-01-01T10:00:00Z", ".5", "5.", ".inf", "-.INF", ".nan", "1" * 19),
        *("yes", "No", "on", "OFF", "y", "N", "=", "<<", "a: b", "a:", "- a", "-", "? a", "?a"),
        *("&a b", "*a", "!t a", "!!str a", "|", ">", "|-", "@a", "`a", "%a", "{a: b}", "[a]"),
        *("{", "]", ",a", '"a', "'a", '"a" b', "'a'b", '"a"# b', '"\\x41"', '"\\u0041"', '"\\'),
        *("a\tb", "a\x07b", "a\u0085b", "a\u2028b", "a\u00a0b", "\ufeffa", "\ue000"),
    ],
)
def test_a_value_that_can_be_misread_is_refused(value):
    """YAML's versions differ on it, or it is more than a scalar on one line."""
    assert is_refused(f"key: {value}")
    assert is_refused(f"a:\n- key: {value}")


@pytest.mark.parametrize(
    "text",
    [
        "a: b\n  c",
        "a: b\n  c: d",
        "a:\n    b: c\n  d: e",
        "a: b\n c: d",
        "- a\n  b",
        "- a: b\n  - c",
        "- a\nb: c",
        "a: b\n- c",
        "- - a",
        "a: b\na: c",
        "a:b",
        "a",
        '"a": b',
        "a b: c",
        "7: c",
        "yes: c",
        "null: c",
        "<<: c",
        "a\n: b",
        "a: b\n---\nc: d",
        "---\n---\n",
        "a: b\n...\n",
        "%YAML 1.1\n---\na: b",
        "--- a",
        " ---\na: b",
        "a: b\r\nc: d",
        "a:\n\tb: c",
        "'a': b",
        "-\n  a: b\n  - c",
        "\ufeffa: b",
        '{"a": 1.5}',
        '{"a": "\\ud83d\\ude00"}',
        '{"a": 1} x',
        "{a: b}",
        "[",
    ],
)
def test_a_document_beyond_the_plain_part_is_refused(text):
    """Whether it is YAML or not."""
    assert is_refused(text)


def test_a_refusal_names_the_line():
    """Of the text, comments and empty lines counted."""
    with pytest.raises(NotPlain) as raised:
        loads("a: b\n\n# comment\nc: &d e\n")
    assert 4 == raised.value.line


@pytest.mark.parametrize("line", ["{}a:\n", "{}-\n"])
def test_what_is_nested_too_deep_is_refused(line):
    """Whatever it is nested of, no stack is exhausted by it."""
    text = "".join(line.format("  " * depth) for depth in range(5000))
    assert is_refused(text)
    assert not is_refused("".join(line.format("  " * depth) for depth in range(MAX_DEPTH)))


WORDS = st.text(
    alphabet="abeonxyzTNF0123456789.:-_/+~#'\"{}[]&*!|>%@`,=\\ ", min_size=0, max_size=12
)
KEYS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_./-]{0,8}", fullmatch=True)
SCALARS = st.one_of(WORDS, st.integers(), st.booleans(), st.none(), st.text(max_size=6))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.booleans(), st.sampled_from([2, 4, 7]))
def test_what_pyyaml_writes_is_read_the_same_or_refused(value, flow, indent):
    """In its own styles."""
    text = yaml.safe_dump(value, default_flow_style=flow, indent=indent, width=10_000)
    if not is_refused(text):
        assert value == loads(text)


@given(st.dictionaries(KEYS, st.text("abc ", max_size=5) | st.lists(KEYS, max_size=2), max_size=4))
def test_plain_documents_are_not_refused(document):
    """Texts in quotes, as every writer of YAML can put them."""
    lines = []
    for key, value in document.items():
        if key.lower() in {"y", "n", "yes", "no", "on", "off", "null", "true", "false"}:
            continue
        if isinstance(value, list):
            lines += [f"{key}:", *[f"- '{item}'" for item in value]]
        else:
            lines.append(f'{key}: "{value}"')
    text = "\n".join(lines)
    assert yaml_of(text) == loads(text)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), KEYS | st.just(""), WORDS), max_size=7))
@example([(0, False, "a", ""), (0, True, "b", "c"), (2, False, "d", "e")])
def test_lines_at_random_are_read_as_pyyaml_does_or_refused(lines):
    """Most of them are not YAML at all: then they are refused."""
    text = "\n".join(
        " " * indent + ("- " if is_item else "") + (f"{key}: " if key else "") + word
        for indent, is_item, key, word in lines
    )
    if not is_refused(text):
        assert yaml_of(text) == loads(text)


@given(WORDS)
def test_a_word_is_read_as_pyyaml_does_or_refused(word):
    """Numbers, dates and truths among them."""
    for text in (f"key: {word}", f"- {word}", f"{word}: a", f"key: '{word}'", f'key: "{word}"'):
        if not is_refused(text):
            assert yaml_of(text) == loads(text)


@given(st.text(max_size=40))
def test_any_text_is_read_as_pyyaml_does_or_refused(text):
    """With whatever characters."""
    if not is_refused(text):
        assert yaml_of(text) == loads(text)
