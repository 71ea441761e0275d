"""BIRD 2 in a network namespace: one process, its configuration, its control socket, its log.

    with Lab() as lab, Bird("router", lab.namespace("router"), folder) as bird:
        bird.start("router id 10.0.0.1; …")
        bird.wait_established("node1")
        bird.prefixes(protocol="node1")          # {"198.19.24.184/29"}

A `Machine` has its namespace in the attribute `namespace`. All paths are those of the real machine,
and whoever shares /tmp with it finds the control socket there: `bird.socket`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.daemon import Daemon
from integration.network import ROOT, becomes_true, find_missing

if TYPE_CHECKING:
    from typing import Self

    from integration.netns import Namespace

PROGRAMS = ROOT / "build" / "bird" / "usr" / "sbin"
# A session comes up some 5 s after its BIRDs, the connect delay; a lost attempt costs more.
PATIENCE_SECONDS = 120.0
_ROUTE = re.compile(r"^(\S+/\d+)\s", re.MULTILINE)
MISSING = find_missing("bird")
with_bird = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


class Protocol(NamedTuple):
    """One line of `birdc show protocols`."""

    kind: str
    state: str
    info: str


class Bird(Daemon):
    """See above."""

    def __init__(self, name: str, namespace: Namespace, folder: Path) -> None:
        super().__init__(name, folder / f"{name}-bird.log", namespace)
        self.config = folder / f"{name}-bird.conf"
        # A path to a socket has at most 107 characters, fewer than folders of tests may have.
        self._home = Path(tempfile.mkdtemp(prefix="bird-"))
        self.socket = self._home / "bird.ctl"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._home)

    def start(self, config: str | None = None) -> None:
        """Start it, with this configuration or the file as it is; waits until it answers."""
        if config is not None:
            self.config.write_text(config)
        files = ("-c", str(self.config), "-s", str(self.socket))
        self.spawn((str(PROGRAMS / "bird"), "-f", *files))
        answers = becomes_true(lambda: self._ask("show", "status").returncode == 0)
        assert answers, f"{self.name} does not answer: {self.read_tail()}"

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    # What it says

    def birdc(self, *words: str) -> str:
        """What birdc prints; raises AssertionError with its words if it fails."""
        done = self._ask(*words)
        assert done.returncode == 0, f"birdc {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def configure(self, config: str) -> None:
        """Give it another configuration."""
        self.config.write_text(config)
        said = self.birdc("configure")
        assert "Reconfigur" in said, said

    def protocols(self) -> dict[str, Protocol]:
        """Kind, state and last words (`Established`) of each of its protocols."""
        lines = self.birdc("show", "protocols").splitlines()[2:]
        found = [line.split(maxsplit=5) for line in lines if line.strip()]
        return {
            parts[0]: Protocol(parts[1], parts[3], parts[5].strip() if len(parts) > 5 else "")
            for parts in found
        }

    def is_established(self, *names: str) -> bool:
        """Whether these BGP sessions are up; without a name, all there are, but at least one."""
        sessions = {k: found for k, found in self.protocols().items() if found.kind == "BGP"}
        wanted = names or tuple(sessions)
        return bool(wanted) and all(
            name in sessions and sessions[name].info == "Established" for name in wanted
        )

    def wait_established(self, *names: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until these BGP sessions are up; without a name, all there are."""
        assert becomes_true(lambda: self.is_established(*names), seconds), (
            f"{self.name}: {self.birdc('show', 'protocols')}{self.read_tail()}"
        )

    def prefixes(self, version: int = 4, protocol: str = "") -> set[str]:
        """The prefixes that it has routes for, be it from one protocol alone."""
        source = ("protocol", protocol) if protocol else ()
        said = self.birdc("show", "route", "table", f"master{version}", *source)
        return set(_ROUTE.findall(said))

    def _ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(PROGRAMS / "birdc"), "-s", str(self.socket), *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
