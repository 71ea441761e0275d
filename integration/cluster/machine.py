"""A machine of its own on this one: its processes, its mounts, its network, its name.

    with Machine("node1", folder) as machine:
        server = machine.start("etcd", ["etcd", "--data-dir=/var/lib/etcd"])
        machine.run("ip", "address", "show")
        machine.path("/var/lib/etcd")        # the same folder, seen from here

It is a set of namespaces whose first process is `machine.sh`; when that ends, however this process
ends, the kernel ends all others in it, containers too, and the mounts go. The machine sees the
files of the real one, but for /var/lib and /run; what it writes to /etc, /opt, /var and /run stays
in it. Its control groups lie in one of ours, so nothing but that folder and the network's name
(removed at the end, or by the next machine) is left.
Needs root, iproute2, util-linux, and version 1 of the control groups.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from integration.daemon import read_tail, wait_stopped
from integration.netns import Namespace, enter
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Self

PREFIX = "cni-machine"
INIT = Path(__file__).with_name("machine.sh")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
JOIN = (
    'for file; do shift; [ "$file" = -- ] && break; echo 0 >"$file/cgroup.procs"; done; exec "$@"'
)
NAMESPACES = ("--mount", "--net", "--uts", "--ipc", "--cgroup", "--pid")
PATIENCE_SECONDS = 60.0
_numbers = itertools.count(1)


def find_cgroup_obstacle() -> str | None:
    """Why a machine can't have control groups of its own here; None if it can."""
    if not _find_own_cgroups():
        return "the control groups are of version 2 only, the harness has been tried with 1"
    return None


class Process:
    """One process in a machine, with its log; it can be started again after its end."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._entrance: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    @property
    def is_running(self) -> bool:
        """Whether the process is there, be it stopped or at work."""
        return self._entrance is not None and self._entrance.poll() is None

    @property
    def pid(self) -> int:
        """The process's id, as seen from outside the machine."""
        assert self._entrance is not None, f"{self.name} was never started"
        return find_child(self._entrance.pid)

    def start(self) -> None:
        """Start it, with nothing in its environment but PATH and HOME."""
        with self.log.open("ab") as log:
            self._entrance = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=make_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is for whoever holds the machine
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, and wait until it stands still (SIGSTOP) or has ended; SIGCONT waits for
        nothing."""
        if not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            if number == signal.SIGCONT and self._entrance is not None:
                self._entrance.send_signal(number)  # nsenter stops itself when its child is stopped
        if number == signal.SIGSTOP and self._entrance is not None:
            wait_stopped(self.pid)
            wait_stopped(self._entrance.pid)  # or it might stop itself after a SIGCONT
        elif number != signal.SIGCONT:
            self.wait()

    def wait(self) -> None:
        """Wait for its end; raises TimeoutExpired if that does not come."""
        if self._entrance is not None:
            self._entrance.wait(PATIENCE_SECONDS)

    def read_tail(self) -> str:
        """The last lines of its log."""
        return read_tail(self.log)


class Machine:
    """See above. `programs` are the folders where it finds commands before the usual ones."""

    def __init__(self, name: str, folder: Path, programs: Sequence[Path] = ()) -> None:
        self.name = name
        self.folder = folder
        self.logs = folder / "logs"
        self.processes: list[Process] = []
        self._label = f"{PREFIX}-{os.getpid()}-{next(_numbers)}-{name}"
        self._path = os.pathsep.join([*map(str, programs), make_environment()["PATH"]])
        self._cgroups: list[Path] = []
        self._outside: subprocess.Popen[str] | None = None
        self._pid = 0
        self.namespace = Namespace(self._label)

    def __enter__(self) -> Self:
        assert threading.current_thread() is threading.main_thread(), "would end with the thread"
        remove_leftovers()
        self.logs.mkdir(parents=True)
        (self.folder / "hostname").write_text(self.name)
        try:
            self._cgroups = make_cgroups(self._label)
            self._start_init()
            _run("ip", "netns", "attach", self._label, str(self._pid))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything in it, remove what it held and wrote, but not its logs."""
        if self._outside is not None:
            if self._pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            else:
                self._outside.kill()
            self._outside.wait(PATIENCE_SECONDS)
            assert self._outside.stdout is not None
            self._outside.stdout.close()
            self._outside = None
        for process in self.processes:
            process.wait()
        self.namespace.remove()
        for cgroup in self._cgroups:
            remove_cgroup(cgroup)
        for made in self.folder.iterdir():
            if made != self.logs:
                shutil.rmtree(made) if made.is_dir() else made.unlink()

    # What runs in it

    def start(self, name: str, argv: Sequence[str]) -> Process:
        """Start a process that stays, in the machine's control groups; `logs` has its words."""
        join = ("sh", "-c", JOIN, "sh", *map(str, _list_inner_cgroups()), "--")
        command = [*self.entrance(*NAMESPACES), *join, *argv]
        process = Process(name, command, self.logs / f"{name}.log")
        self.processes.append(process)
        process.start()
        return process

    def run(
        self, *argv: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it; raises CalledProcessError with its words unless `check=False`."""
        return _run(*self.entrance(*NAMESPACES), *argv, check=check, **options)

    def entrance(self, *namespaces: str) -> list[str]:
        """The words that put a command into (some of) the machine's namespaces."""
        return ["nsenter", f"--target={self._pid}", *namespaces, "env", f"PATH={self._path}"]

    def path(self, inside: str) -> Path:
        """Where a file of the machine is to be found from outside, as long as the machine runs;
        of those in /var/lib the path is a plain one, which SQLite needs."""
        if inside.startswith("/var/lib/"):
            return self.folder / "var-lib" / inside.removeprefix("/var/lib/")
        return Path(f"/proc/{self._pid}/root") / inside.removeprefix("/")

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Within the block this thread, and threads and processes that it starts, are in the
        machine's network; sockets stay there also after it."""
        with open("/proc/thread-self/ns/net", "rb") as before:
            enter(self.namespace.path)
            try:
                yield
            finally:
                enter(f"/proc/self/fd/{before.fileno()}")

    def _start_init(self) -> None:
        new = [*NAMESPACES, "--fork", "--kill-child=KILL", "--mount-proc"]
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *new, str(INIT), str(self.folder)]
        join = ("sh", "-c", JOIN, "sh", *map(str, self._cgroups), "--")
        with (self.logs / "machine.log").open("w") as log:
            self._outside = subprocess.Popen(
                [*join, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=make_environment(),
                text=True,
                start_new_session=True,
            )
        assert self._outside.stdout is not None
        word = self._outside.stdout.readline().strip()
        assert word == "ready", f"no machine: {(self.logs / 'machine.log').read_text()}"
        self._pid = find_child(self._outside.pid)


def make_environment() -> Mapping[str, str]:
    """What processes in a machine get of this one's environment."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root"}


def find_child(pid: int) -> int:
    """The only child of a process; waits until it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found: list[int] = []

    def look() -> bool:
        found[:] = map(int, children.read_text().split()) if children.exists() else []
        return bool(found)

    assert becomes_true(look), f"process {pid} has no child"
    return found[0]


def make_cgroups(name: str) -> list[Path]:
    """A control group `name` in each hierarchy, below that of this process."""
    made = []
    for hierarchy, own in _find_own_cgroups():
        parent = hierarchy / own.removeprefix("/")
        cgroup = parent / name
        cgroup.mkdir()
        made.append(cgroup)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # empty at first; nobody may come in then
            if (parent / setting).exists():
                (cgroup / setting).write_text((parent / setting).read_text())
    return made


def find_cgroups(name: str) -> list[Path]:
    """The control groups `name` that there are below those of this process."""
    places = (hierarchy / own.removeprefix("/") / name for hierarchy, own in _find_own_cgroups())
    return [place for place in places if place.exists()]


def remove_cgroup(cgroup: Path) -> None:
    """Remove a control group with all below it; its processes have been ended, or are ending, and
    another test run may be removing it as well."""

    def remove() -> bool:
        with contextlib.suppress(OSError):
            for folder, _, _ in os.walk(cgroup, topdown=False):
                os.rmdir(folder)
        return not cgroup.exists()

    assert becomes_true(remove), f"{cgroup} still has processes"


def remove_leftovers() -> None:
    """Remove what machines left whose test run was killed: control groups, names of networks."""
    for hierarchy, own in _find_own_cgroups():
        for cgroup in (hierarchy / own.removeprefix("/")).glob(f"{PREFIX}-*"):
            if _is_left_over(cgroup.name):
                remove_cgroup(cgroup)
    for path in Path("/run/netns").glob(f"{PREFIX}-*"):
        if _is_left_over(path.name):
            Namespace(path.name).remove()


def _is_left_over(name: str) -> bool:
    found = re.match(rf"{PREFIX}-(\d+)-", name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()


def _find_own_cgroups() -> list[tuple[Path, str]]:
    """Each hierarchy of version 1, and where in it this process is."""
    lines = (line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines())
    named = ((controllers.removeprefix("name="), own) for _, controllers, own in lines)
    return [(CGROUPS / name, own) for name, own in named if name]


def _list_inner_cgroups() -> list[Path]:
    return [hierarchy for hierarchy, _ in _find_own_cgroups()]


def _run(*argv: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"text": True, "capture_output": True, "env": make_environment()} | options
    done = subprocess.run(argv, check=False, **options)
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        error.add_note(f"{done.stdout or ''}{done.stderr or ''}")
        raise error
    return done
