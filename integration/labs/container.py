"""A lab's machine as a container of a Docker engine, instead of bare namespaces.

    with Lab(folder, page, machine=Container) as lab: …

The containers are made of this machine's own /usr and a copy of its /etc, so no registry is asked;
Docker gives them no network. Commands enter them as they enter any other machine. The image stays
with the engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cluster.machine import (
    NAMESPACES,
    Machine,
    Process,
    make_environment,
    remove_cgroup,
)
from integration.network import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = "cni-ipam-lab-of-this-machine"
# On a merged system those of the root folder are links to /usr.
COPIED = ("bin", "etc", "lib", "lib32", "lib64", "sbin")
EMPTY = ("opt", "proc", "root", "run", "sys", "tmp", "var", "var/lib", "var/log")


def find_docker_obstacle() -> str | None:
    """Why there can't be containers here; None if there can."""
    if shutil.which("docker") is None:
        return "there is no docker"
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no Docker engine answers: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    return None


class Container(Machine):
    """See above."""

    def start(self, name: str, argv: Sequence[str]) -> Process:
        """Start a process that stays; `logs` has its words."""
        command = [*self.entrance(*NAMESPACES), *argv]
        process = Process(name, command, self.logs / f"{name}.log")
        self.processes.append(process)
        process.start()
        return process

    def path(self, inside: str) -> Path:
        """Where a file of the machine is to be found from outside, as long as it runs."""
        return Path(f"/proc/{self._pid}/root") / inside.removeprefix("/")

    def stop(self) -> None:
        """End everything in it, and remove what it held, but not its logs."""
        docker("rm", "--force", "--volumes", self._label)
        for process in self.processes:
            process.wait()
        self.namespace.remove()
        for cgroup in self._cgroups:
            remove_cgroup(cgroup)

    def _start_init(self) -> None:
        make_image()
        seen = (
            Path("/usr"),
            ROOT,
            (ROOT / "build" / "tools").resolve().parents[1],
            self.folder.parent,
        )
        volumes = [f"--volume={place}:{place}:ro" for place in dict.fromkeys(seen)]
        docker(
            *("run", "--detach", "--network=none", "--tmpfs=/run:exec"),
            *(f"--name={self._label}", f"--hostname={self.name}"),
            *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
            *volumes,
            *(IMAGE, "bash", "-c", "sleep infinity & wait"),  # a shell also takes orphans in
        )
        self._pid = int(docker("inspect", "--format={{.State.Pid}}", self._label))
        self.run("mount", "-o", "remount,rw", "/proc/sys")
        self.run("mkdir", "-p", "/run/lock", "/run/netns")
        self.run("ip", "link", "set", "lo", "up")


def make_image() -> None:
    """Make the image, if it is not there."""
    if docker("images", "--quiet", IMAGE):
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/image.tar"
        present = [name for name in COPIED if os.path.lexists(f"/{name}")]
        pack = ["tar", "-C", "/", "-cf", archive, *present, "--no-recursion", *EMPTY]
        subprocess.run(pack, check=True)
        docker("import", archive, IMAGE)


def docker(*words: str) -> str:
    """What docker prints; raises CalledProcessError, with its words, if it fails."""
    environment = {**make_environment(), **_find_engine()}
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
        error.add_note(done.stderr)
        raise error
    return done.stdout.strip()


def _find_engine() -> dict[str, str]:
    """What says which engine is meant."""
    return {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
