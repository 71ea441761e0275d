"""The README says what the program does: its commands, codes and keys are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cni_ipam import errors
from cni_ipam.cni.version import SUPPORTED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
KEYS = """
datastore_type sqlite_path default_pools create_default_pools gateway mask routes agent
status_when_unreachable status_when_exhausted ipam_lock_timeout
"""


def codes_of_errors() -> set[int]:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return {kind.code for kind in found if issubclass(kind, errors.CniIpamError)} - {999}


def test_every_code_has_a_row():
    """The table of errors has the codes that can be on the wire, and no others."""
    table = README.split("## Errors")[1].split("## ")[0]
    assert codes_of_errors() == {int(number) for number in re.findall(r"\| (\d+) \|", table)}


@pytest.mark.parametrize("key", KEYS.split())
def test_every_key_of_ours_has_a_row(key):
    """The table of the network configuration names it, and the code reads it."""
    sources = "".join(path.read_text() for path in (ROOT / "cni_ipam" / "cni").glob("*.py"))
    assert f"`{key}`" in README
    assert f'"{key}"' in sources


def test_every_version_is_named():
    """The VERSION row lists what the plugin speaks, in order."""
    assert ", ".join(SUPPORTED) in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"[`$] ?make ([a-z-]+)", README))))
def test_every_make_target_exists(target):
    """What the README tells to type is there."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
