"""What importing the rooms of `lean` brings into a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT_IN = {
    "__future__",  # each module of ours names it; it imports nothing itself
    "_json",
    "_signal",
    "_socket",
    "_sqlite3",
    "_ssl",
    "_thread",
    "errno",
    "fcntl",
    "posix",
    "time",
}


@pytest.mark.parametrize(
    "room", ["folder", "http", "json", "lock", "log", "record", "sqlite", "tls"]
)
def test_imports_only_c_modules_and_our_own(room: str) -> None:
    """Nothing of the standard library that is written in Python."""
    program = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {str(ROOT)!r})\n"
        f"import cni_ipam.lean.{room}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    foreign = {name for name in done.stdout.split() if not name.startswith("cni_ipam")}
    assert set() == foreign - BUILT_IN
