"""How objects and numbers are printed: calicoctl's tables, JSON and YAML, to the byte."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import yaml

from cni_ipam.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from cni_ipam.ctl.resources import Kind, Resource

    Shown = tuple[Kind, Resource]
    Printer = Callable[[Sequence[Shown]], str]

# As Go's encoding/json does; these characters stand in texts only, so the whole may be searched.
_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def get_printer(wanted: str) -> Printer:
    """What turns objects and lists into the format of that name. Raises OperatorError."""
    printers: dict[str, Printer] = {
        "ps": lambda shown: _tables(shown, lambda kind: kind.narrow),
        "wide": lambda shown: _tables(shown, lambda kind: kind.wide),
        "yaml": format_yaml,
        "yml": format_yaml,
        "json": format_json,
        "name": format_names,
    }
    name, _, columns = wanted.partition("=")
    if wanted in printers:
        return printers[wanted]
    if name == "custom-columns" and columns:
        headings = tuple(columns.split(","))
        return lambda shown: _tables(shown, lambda _: headings)
    if name == "custom-columns":
        raise OperatorError("need to specify at least one column")
    if name in ("go-template", "go-template-file"):
        raise OperatorError(f"output format '{name}' is not supported: use json and a JSON tool")
    raise OperatorError(f"unrecognized output format '{wanted}'")


def format_json(shown: Sequence[Shown]) -> str:
    """JSON as Go indents it, without a newline at its end; an array unless there is one object."""
    return json.dumps(_bare(shown), indent=2, ensure_ascii=False).translate(_ESCAPED)


def format_yaml(shown: Sequence[Shown]) -> str:
    """YAML with sorted keys; a list unless there is one object."""
    text: str = yaml.dump(
        _bare(shown),
        Dumper=_Dumper,
        sort_keys=True,
        default_flow_style=False,
        allow_unicode=True,
        width=sys.maxsize,
    )
    return text


def format_names(shown: Sequence[Shown]) -> str:
    """One line of kind and name for each object, as other commands take them."""
    return "".join(
        f"{kind.aliases[0]}/{item['metadata'].get('name', '')}\n"
        for kind, resource in shown
        for item in items_of(resource)
    )


def items_of(resource: Resource) -> list[Resource]:
    """The objects of a list, or the object itself."""
    found: list[Resource] = resource.get("items", [resource])
    return found


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell and three blanks more, at least five; the last too."""
    lines = [headings, *rows]
    widths = [max(5, *(len(cell) + 3 for cell in column)) for column in zip(*lines, strict=True)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + "\n"
        for line in lines
    )


def format_box(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: int = 0,
    is_centered: bool = False,
) -> str:
    """A table with a frame; the last `numbers` columns are to the right, but for their headings,
    which can stand in the middle."""
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"
    texts = len(headings) - numbers

    def line(cells: Sequence[str], left: int) -> str:
        padded = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |\n"

    if is_centered:
        headings = [
            " " * ((width - len(heading)) // 2) + heading
            for heading, width in zip(headings, widths, strict=True)
        ]
    body = "".join(line(row, texts) for row in rows)
    return rule + line(headings, len(headings)) + rule + body + (rule if rows else "")


def _tables(shown: Sequence[Shown], choose: Callable[[Kind], tuple[str, ...]]) -> str:
    """A table for each object or list, each with an empty line after it."""
    texts = []
    for kind, resource in shown:
        headings = choose(kind)
        for heading in headings:
            if heading not in kind.columns:
                known = ", ".join(kind.columns)
                raise OperatorError(f"unknown heading {heading}, valid values are: {known}")
        rows = [
            [kind.columns[heading](item) for heading in headings] for item in items_of(resource)
        ]
        texts.append(format_table(headings, rows) + "\n")
    return "".join(texts)


def _bare(shown: Sequence[Shown]) -> Any:
    resources = [resource for _, resource in shown]
    return resources[0] if len(resources) == 1 else resources


class _Dumper(yaml.SafeDumper):
    """YAML as Go's library writes it."""

    def ignore_aliases(self, data: Any) -> bool:
        """An object that is shown twice is written twice."""
        del data
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Texts that a reader could take for something else stand in double quotes."""
    style = None
    if "\n" in text:
        style = "|"
    elif text in _ALSO_TRUTH or _tag_when_plain(dumper, text) != _TEXT:
        style = '"'
    return dumper.represent_scalar(_TEXT, text, style)


def _tag_when_plain(dumper: _Dumper, text: str) -> str:
    tag: str = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag


_ALSO_TRUTH = ("y", "Y", "n", "N")
_TEXT = "tag:yaml.org,2002:str"
_Dumper.add_representer(str, _represent_text)
