"""A shell into which the documents' commands are typed, with an operator's tool as `calicoctl`.

shell = Shell(folder, BUNDLE / "ipamctl", {"ETCD_ENDPOINTS": …})
shell.types("calicoctl get ippools")
shell.types("cat << EOF | calicoctl apply -f -", manifest)
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

from integration.network import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from integration.network import Done

COMMANDS = ROOT / "integration" / "documents" / "commands.yaml"
DOCUMENTS = ROOT.parent / "shared" / "seeds"
PATIENCE_SECONDS = 60
_FILE = re.compile(r"-f (\S+\.yml)")
_FENCED = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_OBJECT = re.compile(r"^ *apiVersion: (\S+)$", re.MULTILINE)
_NOT_YAML = re.compile(r"^ *(?:EOF|\$ .*)\n", re.MULTILINE)


class Shell:
    """A folder of its own, and a PATH on which `name` is `program`; `settings` are the variables
    that say where the datastore is."""

    def __init__(
        self, folder: Path, program: Path, settings: dict[str, str], name: str = "calicoctl"
    ) -> None:
        self._folder = folder
        self.name = name
        commands = folder / "bin"
        commands.mkdir(parents=True)
        (commands / name).symlink_to(program)
        self._environment = {"PATH": f"{commands}:{os.environ['PATH']}", **settings}

    def tries(self, command: str, manifest: str = "") -> Done:
        """What becomes of a command as a document has it; of `manifest` see commands.yaml."""
        line = command.removeprefix("sudo ").replace("calicoctl", self.name)
        if named := _FILE.search(command):
            (self._folder / named[1]).write_text(manifest)
            manifest = ""
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail\n{line}\n{manifest}"],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def types(self, command: str, manifest: str = "") -> str:
        """What a command prints. Raises AssertionError with its words if it fails."""
        done = self.tries(command, manifest)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def gives(self, verb: str, manifest: str) -> Done:
        """What becomes of `manifest` when it is created or applied."""
        return self.tries(f"calicoctl {verb} -f - <<'EOF'", f"{manifest}EOF\n")


def lines_of(text: str) -> list[str]:
    """The lines of a table or message, without what is blank at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def rows_of(text: str, headings: list[str] | None = None) -> list[dict[str, str]]:
    """The rows of a table by its headings, or by those of them that are asked for."""
    first, *others = (re.split(r"\s{2,}", line) for line in lines_of(text))
    rows = [dict(zip(first, cells, strict=True)) for cells in others]
    return [{heading: row[heading] for heading in headings or first} for row in rows]


def find_commands(text: str) -> list[str]:
    """The calicoctl commands in the fenced parts of a document, in their order."""
    return [
        line.strip().removeprefix("$ ")
        for block in _FENCED.findall(text)
        for line in block.splitlines()
        if "calicoctl " in line
    ]


def find_objects(text: str, *, of_calico: bool) -> list[str]:
    """The fenced parts of a document that are objects, of Calico's API or of Kubernetes's."""
    return [
        bare(block)
        for block in _FENCED.findall(text)
        if (version := _OBJECT.search(block)) and ("projectcalico.org/" in version[1]) == of_calico
    ]


def bare(manifest: str) -> str:
    """A manifest without indentation and without the shell's words around it."""
    lines = _NOT_YAML.sub("", manifest).rstrip().splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:].rstrip() for line in lines)


def write_network(folder: Path) -> dict[str, str]:
    """The variables that lead to a node's own datastore, a file below `folder`."""
    networks = folder / "net.d"
    networks.mkdir()
    ipam = {"type": "cni-ipam", "sqlite_path": str(folder / "ipam.db"), "nodename": "node1"}
    network = {"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "ptp", "ipam": ipam}]}
    (networks / "net.conflist").write_text(json.dumps(network))
    return {"CNI_NETCONF_DIR": str(networks)}
