"""What the plugin imports in a fresh process, verb by verb, in the life of one attachment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

PROJECT = Path(__file__).parent.parent
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(PROJECT)!r}); sys.argv[0] = 'cni-ipam'; "
    "from cni_ipam.plugin.main import main; main()"
)
PREFIX = "import time:"


def find_imports(conf: Json, folder: Path) -> dict[str, set[str]]:
    """The modules beyond Python's own start that each verb imports with the settings `conf`."""
    whole = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "ptp",
        "ipam": {"type": "cni-ipam"},
        "nodename": "node1",
        "nodename_file": str(folder / "nodename"),
        "ipam_lock_file": str(folder / "lock"),
        "log_file_path": str(folder / "log"),
        # Routes need a namespace of the kernel's.
        "routes": {"host": False, "blackhole": False},
    } | conf
    python = [sys.executable, "-I", "-S", "-X", "importtime", "-c", "pass"]
    started = _imported(subprocess.run(python, capture_output=True, check=True).stderr)
    found = {}
    answer, found["first ADD"] = _run("ADD", whole, folder)
    result = {"prevResult": json.loads(answer)}
    living = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    for name, extra in (
        ("ADD", {}),
        ("VERSION", {}),
        ("STATUS", {}),
        ("CHECK", result),
        ("GC", living),
        ("DEL", {}),
    ):
        _, found[name] = _run(name, whole | extra, folder)
    return {name: names - started for name, names in found.items()}


def own(names: set[str]) -> set[str]:
    """Our modules among `names`, without the package's name and without packages."""
    found = {name.removeprefix("cni_ipam.") for name in names if "cni_ipam." in name}
    return found - {name.rpartition(".")[0] for name in found}


def foreign(names: set[str]) -> set[str]:
    """What is not ours among `names`."""
    return {name for name in names if name.partition(".")[0] != "cni_ipam"}


def _run(command: str, stdin: Json, folder: Path) -> tuple[str, set[str]]:
    """What one call prints, and every module that its process imports."""
    environ = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": str(folder / "netns"),
        "CNI_PATH": str(folder),
    }
    process = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", "-c", PROGRAM],
        env=environ,
        input=json.dumps(stdin).encode(),
        capture_output=True,
        check=False,
    )
    assert 0 == process.returncode, process.stdout.decode() + process.stderr.decode()
    return process.stdout.decode(), _imported(process.stderr)


def _imported(importtime: bytes) -> set[str]:
    """The names in what `-X importtime` prints."""
    lines = [line for line in importtime.decode().splitlines() if line.startswith(PREFIX)]
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}
