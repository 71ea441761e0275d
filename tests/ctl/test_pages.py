"""README and docs/: the commands of ipamctl that they name exist, with these options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cni_ipam.ctl.main import run

ROOT = Path(__file__).parents[2]
GROUPS = ("ipam", "datastore", "routes", "node")
# What is typed or named: in a line of its own, or between two backquotes.
COMMAND = re.compile(r"(?:^\$ |^|`)(?:sudo )?ipamctl ([a-z][^`\n]*)", re.MULTILINE)


def find_commands() -> list[tuple[str, ...]]:
    """Each command with the long options that follow it somewhere."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = set()
    for page in pages:
        for line in COMMAND.findall(page.read_text()):
            words = line.partition(" #")[0].split()
            command = words[: 2 if words[0] in GROUPS else 1]
            options = re.findall(r"--[a-z][a-z-]*", " ".join(words))
            found.add((" ".join(command), *sorted(options)))
    return sorted(found)


@pytest.mark.parametrize("named", find_commands(), ids=" ".join)
def test_a_command_of_the_pages_exists(named, capsys):
    """Its help has the options that the pages use."""
    command, *options = named
    assert 0 == run([*command.split(), "--help"], {})
    shown = capsys.readouterr().out
    assert [] == [option for option in options if option not in shown]
