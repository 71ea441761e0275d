"""`python -m tests.conformance [DIR]`: run a folder of tables, by default the shared one."""

from __future__ import annotations

import sys
from pathlib import Path

from .runner import run_folder, show

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "conformance"


def main(arguments: list[str]) -> int:
    """Run the folder that the arguments name; 1 if a case failed, 2 if there is nothing to run."""
    folder = Path(arguments[0]) if arguments else SHARED if SHARED.is_dir() else HERE / "tables"
    if len(arguments) > 1 or not sorted(folder.glob("*.json")):
        sys.stderr.write(f"usage: python -m tests.conformance [DIR]; no *.json in {folder}\n")
        return 2
    results = run_folder(folder)
    sys.stdout.write(show(results))
    return 1 if any(result.status == "failed" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
