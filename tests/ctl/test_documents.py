"""Files of objects: what is read, and what is refused with which text."""

from __future__ import annotations

import pytest

from cni_ipam.ctl.documents import DocumentError, UnknownField, parse_documents
from tests.ctl.conftest import POOL

HEAD = "apiVersion: projectcalico.org/v3\nkind: IPPool\n"


def test_several_documents_and_lists_are_read_in_order():
    """Documents, an array, a list object; empty documents are nothing."""
    text = (
        f"---\n{HEAD}metadata: {{name: a}}\n---\n---\n"
        f"- {{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: b}}}}\n---\n"
        "apiVersion: projectcalico.org/v3\nkind: IPPoolList\nitems:\n"
        "- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: c}}\n"
    )
    found = parse_documents(text)
    assert [("IPPool", "a"), ("Node", "b"), ("IPPool", "c")] == [
        (document.kind.name, document.name) for document in found
    ]


def test_json_may_have_tabs():
    """YAML forbids them, JSON does not."""
    text = '{\n\t"apiVersion": "projectcalico.org/v3",\n\t"kind": "IPPool",\n\t"metadata": {}\n}'
    assert 1 == len(parse_documents(text))


def test_numbers_become_texts_where_only_texts_can_be():
    """A label `rack: 1` is meant as a text; so is a name."""
    document = parse_documents(HEAD + "metadata: {name: 7, labels: {rack: 1, on: yes}}\n")[0]
    assert "7" == document.name
    assert {"rack": "1", "true": "true"} == document.resource["metadata"]["labels"]


def test_dates_and_times_stay_texts():
    """YAML would make a date of the one and 620 of the other."""
    text = HEAD + "metadata: {name: 10:20, creationTimestamp: 2026-11-21T10:26:22Z}\n"
    metadata = parse_documents(text)[0].resource["metadata"]
    assert ("10:20", "2026-11-21T10:26:22Z") == (metadata["name"], metadata["creationTimestamp"])


OF_BASE = {"cidr": "10.0.0.0/24", "blockSize": 29}
BASE = (
    "- apiVersion: projectcalico.org/v3\n  kind: IPPool\n  metadata: {name: a}\n"
    "  spec: &base {cidr: 10.0.0.0/24, blockSize: 29}\n"
    "- apiVersion: projectcalico.org/v3\n  kind: IPPool\n  metadata: {name: b}\n  spec:\n"
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["<<: *base", "blockSize: 30"], {**OF_BASE, "blockSize": 30}),
        (["blockSize: 30", "<<: *base"], {**OF_BASE, "blockSize": 30}),
        (["<<: *base", "disabled: true"], {**OF_BASE, "disabled": True}),
        (["<<: [{blockSize: 28}, *base]"], {**OF_BASE, "blockSize": 28}),
        (["<<: {<<: *base, blockSize: 28}"], {**OF_BASE, "blockSize": 28}),
    ],
)
def test_own_keys_go_before_merged_ones(lines, expected):
    """A merge brings what a map does not say itself, wherever it stands; the nearer one wins."""
    found = parse_documents(BASE + "".join(f"    {line}\n" for line in lines))
    assert [OF_BASE, expected] == [document.resource["spec"] for document in found]


def test_a_merged_map_that_merges_another_can_be_used_again():
    """What was merged into it is no key that stands twice."""
    text = (
        f"{BASE}    <<: &nearer {{<<: *base, blockSize: 28}}\n"
        "- apiVersion: projectcalico.org/v3\n  kind: IPPool\n  spec: *nearer\n"
    )
    expected = {**OF_BASE, "blockSize": 28}
    assert [expected, expected] == [
        document.resource["spec"] for document in parse_documents(text)[1:]
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["<<: *base", "blockSize: 30", "blockSize: 30"],
        ["<<: {blockSize: 30, blockSize: 30}", "cidr: 10.0.0.0/24"],
    ],
)
def test_beside_a_merge_a_key_that_stands_twice_is_refused(lines):
    """Among the own keys, and among those of the merged map."""
    with pytest.raises(DocumentError) as caught:
        parse_documents(BASE + "".join(f"    {line}\n" for line in lines))
    assert 'key "blockSize" already set in map' == str(caught.value)


@pytest.mark.parametrize("part", ["", "metadata:\n  ", "spec:\n  "])
def test_an_unknown_field_is_refused(part):
    """Wherever it stands; the text is calicoctl's."""
    expected = "field in document is not recognized or is in the wrong location: foo"
    with pytest.raises(UnknownField) as caught:
        parse_documents(f"{HEAD}{part}foo: 1\n")
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "error converting YAML to JSON: yaml: line "),
        ("just text", "an object is a map with kind and apiVersion, not 'just text'"),
        (
            "apiVersion: v1\nkind: IPPool\n",
            "unknown resource type (IPPool) and/or version (v1): write apiVersion: ",
        ),
        (
            "apiVersion: projectcalico.org/v3\nkind: Foo\n",
            "unknown resource type (Foo) and/or version (projectcalico.org/v3)",
        ),
        (HEAD + "kind: Node\n", 'key "kind" already set in map'),
        ('{"a": 1, "a": 2}', 'key "a" already set in map'),
        (HEAD + "spec: 7\n", "spec of IPPool must be a map, not 7"),
        (HEAD + "? [1]\n: 2\n", "error converting YAML to JSON: yaml: "),
        (HEAD + "metadata: !!python/name:os.system x\n", "error converting YAML to JSON: yaml: "),
        ("[" * 100_000, "nested too deeply"),
        ("a: " + "9" * 5000, "error converting YAML to JSON: yaml: "),
    ],
)
def test_what_is_no_object_is_refused(text, expected):
    """With a reason, and never a trace."""
    with pytest.raises(DocumentError) as caught:
        parse_documents(text)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("selector", ["!all()", "!has(rack)"])
def test_a_selector_that_lacks_its_quotes_is_refused(selector):
    """It would be a YAML tag on nothing, so the pool would be for all nodes; the fix is told."""
    expected = (
        "error converting YAML to JSON: yaml: line 4: "
        f"without quotes {selector} is a YAML tag and no text: write '{selector}'"
    )
    with pytest.raises(DocumentError) as caught:
        parse_documents(f"{HEAD}spec:\n  nodeSelector: {selector}\n")
    assert expected == str(caught.value)


def test_a_wrong_type_is_named(operator):
    """By the rules of its kind."""
    result = operator.types("create", "-f", "-", stdin=POOL.replace("29", "many"))
    expected = "error with field spec.blockSize = 'many' (must be an integer)"
    assert f"failed to create 'IPPool' resource: [{expected}]\n" == result.err


def test_an_unknown_field_is_told_by_itself(operator):
    """Without what calicoctl says before other errors of a file."""
    result = operator.types("create", "-f", "-", stdin=POOL + "  foo: 1\n")
    expected = "field in document is not recognized or is in the wrong location: foo\n"
    assert (1, expected) == (result.status, result.err)


def test_a_file_that_is_not_there(operator):
    """Named with its path."""
    path = str(operator.folder / "none.yaml")
    result = operator.types("create", "-f", path)
    expected = f"failed to execute command: open {path}: no such file or directory\n"
    assert (1, expected) == (result.status, result.err)


def test_a_file_that_is_not_utf8(operator):
    """Told, without a trace."""
    result = operator.types("create", "-f", "-", stdin=b"\xff\xfe\x00")
    assert (1, "failed to execute command: - is not UTF-8: byte 0\n") == (result.status, result.err)


def test_an_empty_file_is_an_error_unless_skipped(operator):
    """With --skip-empty nothing is to be done, and that is fine."""
    strict = operator.types("create", "-f", "-")
    lenient = operator.types("create", "-f", "-", "--skip-empty")
    assert (1, "no resources specified in file -\n") == (strict.status, strict.err)
    assert (0, "No resources specified\n") == (lenient.status, lenient.out)


def test_create_without_a_file(operator):
    """There is nothing to create."""
    assert operator.types("create").err.startswith("no resources specified\n")


def test_a_folder_is_read_file_by_file(operator):
    """By name, only YAML and JSON, folders in it only if wished."""
    inner = operator.folder / "objects" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "a.yaml").write_text(POOL)
    (inner.parent / "notes.txt").write_text("not an object")
    (inner / "b.yml").write_text(POOL.replace("pool1", "pool2").replace("10.0.0", "10.2.0"))
    flat = operator.types("create", "-f", str(inner.parent))
    deep = operator.types("apply", "-R", "-f", str(inner.parent))
    assert "Successfully created 1 'IPPool' resource(s)\n" == flat.out
    assert "Successfully applied 2 'IPPool' resource(s)\n" == deep.out


def test_a_folder_without_objects(operator):
    """It is named."""
    (operator.folder / "objects").mkdir()
    result = operator.types("create", "-f", str(operator.folder / "objects"))
    expected = f"no resources specified in directory {operator.folder}/objects\n"
    assert (1, expected) == (result.status, result.err)
