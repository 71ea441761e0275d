"""A Docker engine for tests, of what `make setup` got: one process with data, socket and containerd
of its own; nothing stays of it.

    with Engine(folder) as engine:
        subprocess.run(["docker", "info"], env=engine.environment)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from integration.daemon import Daemon
from integration.network import ROOT, becomes_true

if TYPE_CHECKING:
    from typing import Self

PROGRAMS = [
    f"{ROOT}/build/{name}/usr/{folder}"
    for name in ("docker", "containerd")
    for folder in ("bin", "sbin")
]
# Its containers have no network, or a lab's.
NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip-masq=false")


class NoEngine(Exception):
    """It ends as soon as it is started: it needs more than this machine or its kernel allows."""


class Engine(Daemon):
    """See above. Entering raises NoEngine."""

    def __init__(self, folder: Path) -> None:
        super().__init__("dockerd", folder / "dockerd.log")
        # A path to a socket has at most 107 characters, fewer than folders of tests may have.
        self._home = Path(tempfile.mkdtemp(prefix="docker-"))
        path = os.pathsep.join([*PROGRAMS, os.environ.get("PATH", os.defpath)])
        self.environment = {"PATH": path, "DOCKER_HOST": f"unix://{self._home}/docker.sock"}

    def __enter__(self) -> Self:
        files = [
            f"--data-root={self._home}/data",
            f"--exec-root={self._home}/run",
            f"--pidfile={self._home}/pid",
            f"--host={self.environment['DOCKER_HOST']}",
        ]
        # What it mounts goes with it, whatever its end.
        inside = ("unshare", "--mount", "--propagation=slave")
        self.spawn([*inside, "dockerd", *files, *NO_NETWORK], self.environment)
        try:
            assert becomes_true(self._answers), f"{self} does not answer:\n{self.read_tail()}"
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, its containerd and its containers."""
        self.kill(signal.SIGTERM)
        shutil.rmtree(self._home)

    def _answers(self) -> bool:
        if not self.is_running:
            raise NoEngine(self.read_tail().rpartition("\n")[2])
        asked = ["docker", "info"]
        done = subprocess.run(asked, check=False, capture_output=True, env=self.environment)
        return done.returncode == 0
