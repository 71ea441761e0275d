"""Files of objects: YAML or JSON, several documents, lists, folders, standard input.

Read strictly: what no kind has is refused, and so is a key that stands twice. YAML's guesses are
limited to JSON's types, so a date stays text and `10:20` is not a number to the base 60.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from cni_ipam.core.names import API_VERSION
from cni_ipam.ctl.resources import find_kind
from cni_ipam.errors import OperatorError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cni_ipam.ctl.resources import Kind, Resource

MOST_BYTES = 64 * 1024 * 1024
NOT_RECOGNIZED = "field in document is not recognized or is in the wrong location: "
_ENDINGS = (".yaml", ".yml", ".json")
_MERGE = "tag:yaml.org,2002:merge"


class DocumentError(OperatorError):
    """A file cannot be read, or is not what it should be."""


class UnknownField(ValidationError):
    """A field that its kind does not have; the message is shown by itself, as calicoctl does."""


@dataclass(frozen=True)
class Document:
    """One object of a file, its fields known to be ones of its kind."""

    kind: Kind
    resource: Resource

    @property
    def name(self) -> str:
        """The object's name, empty if it has none."""
        return self.resource["metadata"].get("name") or ""


def read_documents(path: str, *, recursive: bool, skip_empty: bool) -> list[Document]:
    """Every object of a file, of the files of a folder, or of standard input (`-`).

    Raises DocumentError, UnknownField."""
    documents = []
    for file in _files(path, recursive=recursive):
        found = parse_documents(_read(file))
        if not found and not skip_empty:
            raise OperatorError(f"no resources specified in file {file}")
        documents += found
    if not documents and not skip_empty:
        raise OperatorError(f"no resources specified in directory {path}")
    return documents


def parse_documents(text: str) -> list[Document]:
    """The objects of a text. Raises DocumentError, UnknownField."""
    try:
        return [document for value in _parse(text) for document in _flatten(value)]
    except RecursionError:
        raise DocumentError("nested too deeply") from None


def check_document(value: Any) -> Document:
    """One object, if it is one of a kind that is known. Raises DocumentError, UnknownField."""
    if not isinstance(value, dict):
        raise DocumentError(f"an object is a map with kind and apiVersion, not {_brief(value)}")
    kind = find_kind(str(value.get("kind")))
    version = value.get("apiVersion")
    if kind is None or version != API_VERSION:
        names = f"({value.get('kind') or ''}) and/or version ({version or ''})"
        right = f": write apiVersion: {API_VERSION}" if kind and version else ""
        raise DocumentError(f"unknown resource type {names}{right}")
    resource = {**value, "metadata": value.get("metadata"), "spec": value.get("spec")}
    for part in ("metadata", "spec"):
        resource[part] = {} if resource[part] is None else resource[part]
        if not isinstance(resource[part], dict):
            raise DocumentError(f"{part} of {kind.name} must be a map, not {_brief(value[part])}")
    resource["metadata"] = _with_texts(resource["metadata"])
    for error in kind.check(resource):
        if error.reason.startswith(NOT_RECOGNIZED):
            raise UnknownField(error.reason)
    return Document(kind, resource)


def _files(path: str, *, recursive: bool) -> Iterator[str]:
    if path == "-" or not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        if not recursive:
            folders.clear()
        for name in sorted(names):
            if name.lower().endswith(_ENDINGS):
                yield os.path.join(folder, name)


def _read(path: str) -> str:
    try:
        if path == "-":
            if sys.stdin is None:
                raise DocumentError("- is standard input, which is closed: name a file")
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > MOST_BYTES:
        raise DocumentError(f"{path} is longer than {MOST_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path} is not UTF-8: byte {error.start}") from error


def _parse(text: str) -> Iterator[Any]:
    """The documents of a text; a JSON text may have tabs, which YAML forbids."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text, object_pairs_hook=_without_duplicates)
        except ValueError:
            pass  # not JSON, but it may be YAML in flow style
        else:
            yield value
            return
    try:
        for value in yaml.load_all(text, Loader=_Loader):
            if value is not None:
                yield value
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"error converting YAML to JSON: yaml: {_explain(error)}") from None


def _flatten(value: Any) -> Iterator[Document]:
    """The objects of a document: itself, the entries of an array, the items of a list."""
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
    elif isinstance(value, dict) and isinstance(value.get("items"), list):
        kind = str(value.get("kind"))
        if find_kind(kind.removesuffix("List")) is None or value.get("apiVersion") != API_VERSION:
            check_document(value)
        for item in value["items"]:
            yield from _flatten(item)
    else:
        yield check_document(value)


def _with_texts(metadata: Resource) -> Resource:
    """Numbers and truth values where only texts can be are taken as they are written."""
    metadata = dict(metadata)
    if "name" in metadata:
        metadata["name"] = _as_text(metadata["name"])
    for key in ("labels", "annotations"):
        values = metadata.get(key)
        if isinstance(values, dict):
            metadata[key] = {_as_text(name): _as_text(value) for name, value in values.items()}
    return metadata


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _explain(error: yaml.YAMLError | ValueError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else problem


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f'key "{twice}" already set in map')
    return fields


class _Loader(yaml.SafeLoader):
    """YAML with JSON's types and without keys that stand twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what `<<` merges into a map; its own keys go before merged ones of the same name."""
        own = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_key(key_node)
            if key in own:
                raise DocumentError(f'key "{key}" already set in map')
            own.add(key)
        super().flatten_mapping(node)
        # Merged keys stand first, so the own ones remain; the map may be merged into others, too.
        pairs = {self.construct_key(key_node): (key_node, value) for key_node, value in node.value}
        node.value = list(pairs.values())

    def construct_key(self, node: yaml.Node) -> str | int | float | bool:
        """A key that JSON can have, too."""
        key = self.construct_object(node, deep=True)
        if not isinstance(key, (str, int, float, bool)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a text")
        return key


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
    fields: dict[Any, Any] = {}
    yield fields
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        fields[loader.construct_key(key_node)] = loader.construct_object(value_node, deep=True)


def _refuse_tag(loader: _Loader, rest: str, node: yaml.Node) -> None:
    """A selector such as `!all()` that lacks its quotes. Calico drops the tag, and an empty
    selector is all nodes: the opposite of what stands there."""
    del loader
    problem = f"without quotes !{rest} is a YAML tag and no text: write '!{rest}'"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    (
        "bool",
        r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$",
        "yYnNtTfFoO",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_multi_constructor("!", _refuse_tag)
