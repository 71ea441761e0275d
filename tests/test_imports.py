"""What the plugin imports in a fresh process, verb by verb: a list, since imports are its start-up.

A name that appears here by surprise costs every pod of every node; one that is meant to be there
is added to the list, with a look at what it takes (`python -X importtime`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(PROJECT)!r}); sys.argv[0] = 'cni-ipam'; "
    "from cni_ipam.plugin.main import main; main()"
)
PREFIX = "import time:"

# Modules in C, which load in a tenth of a millisecond, and the one in Python that has no code.
FOREIGN = {"__future__", "_functools", "_json", "_sqlite3", "errno", "fcntl"}

ALWAYS = """
cni.fields cni.netconf cni.request cni.result cni.settings cni.version
core.address core.handle datastore.open errors
lean.folder lean.json lean.lock lean.log lean.record
plugin.context plugin.main routes.plan workload.arguments
"""
WITH_STORE = f"""{ALWAYS}
core.affinity core.block core.check core.config core.moment core.pool core.reservation
datastore.codec datastore.keys datastore.port datastore.sqlite
ipam.view lean.sqlite
"""
ADD = f"""{WITH_STORE}
core.gateway core.walk
ipam.assign ipam.claim ipam.draft ipam.fixed ipam.pools ipam.retry ipam.wish
plugin.add plugin.recorded
"""
DEL = f"""{WITH_STORE}
ipam.draft ipam.release ipam.retry plugin.delete
"""
EXPECTED = {
    "VERSION": ALWAYS,
    # The rules of pools are needed once in a datastore's life.
    "first ADD": f"{ADD} core.names core.pool_rules core.selector",
    "ADD": ADD,
    "CHECK": f"{WITH_STORE} cni.result plugin.check plugin.recorded",
    "DEL": DEL,
    "GC": f"{DEL} ipam.collect plugin.gc",
    "STATUS": f"{WITH_STORE} core.gateway core.utilization plugin.status",
}


def run(command: str, stdin: dict[str, object], folder: Path) -> tuple[str, set[str]]:
    """What one call prints, and every module that its process imports beyond Python's own start."""
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
    return process.stdout.decode(), imported(process.stderr)


def imported(importtime: bytes) -> set[str]:
    """The names in what `-X importtime` prints."""
    lines = [line for line in importtime.decode().splitlines() if line.startswith(PREFIX)]
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The imports of each verb, in the life of one attachment."""
    folder = tmp_path_factory.mktemp("imports")
    conf = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "ptp",
        "ipam": {"type": "cni-ipam"},
        "nodename": "node1",
        "nodename_file": str(folder / "nodename"),
        "sqlite_path": str(folder / "ipam.db"),
        "ipam_lock_file": str(folder / "lock"),
        "log_file_path": str(folder / "log"),
        # Routes need a namespace of the kernel's.
        "routes": {"host": False, "blackhole": False},
        "default_pools": [{"name": "pool1", "spec": {"cidr": "10.0.0.0/24"}}],
    }
    python = [sys.executable, "-I", "-S", "-X", "importtime", "-c", "pass"]
    started = imported(subprocess.run(python, capture_output=True, check=True).stderr)
    found = {}
    answer, found["first ADD"] = run("ADD", conf, folder)
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
        _, found[name] = run(name, conf | extra, folder)
    return {name: names - started for name, names in found.items()}


@pytest.mark.parametrize("verb", EXPECTED)
def test_a_verb_imports_its_list_of_our_modules(verb, imports):
    """No more, and no less, so that the list stays true."""
    found = {name.removeprefix("cni_ipam.") for name in imports[verb] if "cni_ipam." in name}
    folders = {name.rpartition(".")[0] for name in found}
    assert set(EXPECTED[verb].split()) == found - folders


@pytest.mark.parametrize("verb", EXPECTED)
def test_a_verb_imports_nothing_else_but_c(verb, imports):
    """No module of the standard library in Python."""
    foreign = {name for name in imports[verb] if name.partition(".")[0] != "cni_ipam"}
    assert foreign <= FOREIGN
