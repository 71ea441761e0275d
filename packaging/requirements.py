"""Prints what pip is to install for working on the project: its dependencies and all groups."""

import tomllib
from pathlib import Path

with (Path(__file__).resolve().parent.parent / "pyproject.toml").open("rb") as file:
    project = tomllib.load(file)
wanted = set(project["project"]["dependencies"])
print("\n".join(sorted(wanted.union(*project["dependency-groups"].values()))))
