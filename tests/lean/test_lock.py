"""The host's lock excludes threads, processes and other programs, and gives up in time."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_ipam.errors import InputOutputError, LockTimeout
from cni_ipam.lean import lock
from cni_ipam.lean.lock import HostLock

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "calico" / "ipam.lock"


@pytest.fixture
def held(path: Path) -> Iterator[int]:
    """The lock, held by another open file; its descriptor."""
    path.parent.mkdir(parents=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


def is_free(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_is_held_inside_and_free_outside(path: Path) -> None:
    """Other programs see it by flock; the file stays when it is let go."""
    with HostLock(str(path), 1):
        assert not is_free(path)
    assert is_free(path)


def test_is_let_go_after_an_error(path: Path) -> None:
    """Whatever happens inside."""
    with pytest.raises(KeyError), HostLock(str(path), 1):
        raise KeyError
    assert is_free(path)


def test_makes_its_file_for_the_owner_alone(path: Path) -> None:
    """Empty, 0600, in folders of 0700."""
    with HostLock(str(path), 1):
        pass
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)]
    assert [0o600, 0o700, 0o700] == modes
    assert b"" == path.read_bytes()


def test_can_be_taken_again(path: Path) -> None:
    """The same object, one time after the other."""
    host_lock = HostLock(str(path), 1)
    for _ in range(2):
        with host_lock:
            assert not is_free(path)
    assert is_free(path)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("timeout_seconds", [0, 0.01])
def test_gives_up_in_time(path: Path, timeout_seconds: float) -> None:
    """Code 11; the message names the file, the time and the process that holds it."""
    with pytest.raises(LockTimeout) as caught, HostLock(str(path), timeout_seconds):
        pass
    assert (
        f"the lock {path} was not had in {timeout_seconds:g} s: process {os.getpid()} holds it"
    ) == caught.value.msg
    assert 11 == caught.value.code


@pytest.mark.usefixtures("held")
def test_leaves_no_descriptor_behind(path: Path) -> None:
    """A wait in vain closes what it has opened."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LockTimeout), HostLock(str(path), 0.001):
        pass
    assert before == len(os.listdir("/proc/self/fd"))


def test_waits_its_turn(path: Path, held: int) -> None:
    """A lock that is let go in time is had, long before the time is over."""
    threading.Timer(0.02, fcntl.flock, [held, fcntl.LOCK_UN]).start()
    started = time.monotonic()
    with HostLock(str(path), 60):
        assert not is_free(path)
    assert time.monotonic() - started < 30


def test_waits_in_threads_as_well(path: Path, held: int) -> None:
    """Threads get no alarms: they are served, or give up in time, all the same."""
    outcomes: list[object] = []

    def take(timeout_seconds: float) -> None:
        try:
            with HostLock(str(path), timeout_seconds):
                outcomes.append(is_free(path))
        except LockTimeout as error:
            outcomes.append(error.code)

    for timeout_seconds in (0.02, 60):
        thread = threading.Thread(target=take, args=(timeout_seconds,))
        thread.start()
        if timeout_seconds == 60:
            fcntl.flock(held, fcntl.LOCK_UN)
        thread.join()
    assert [11, False] == outcomes


@pytest.mark.usefixtures("held")
def test_leaves_signals_as_they_were(path: Path) -> None:
    """Handler and mask of SIGALRM are those of before, and no alarm is pending."""
    former = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        mine = signal.getsignal(signal.SIGALRM)
        with pytest.raises(LockTimeout), HostLock(str(path), 0.01):
            pass
        assert mine is signal.getsignal(signal.SIGALRM)
        assert signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert (0, 0) == signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.signal(signal.SIGALRM, former)


@pytest.mark.usefixtures("held")
def test_gives_the_callers_alarm_back(path: Path) -> None:
    """A timer that the caller had set goes on with what is left of its time."""
    former = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with pytest.raises(LockTimeout), HostLock(str(path), 0.05):
            pass
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, former)
    assert 90 < left < 99.96


def test_a_late_alarm_does_not_lose_the_lock(path: Path) -> None:
    """An alarm that is handled after the lock was had means nothing."""
    host_lock = HostLock(str(path), 1)
    with host_lock:
        host_lock._expire(signal.SIGALRM, None)
        assert not is_free(path)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("content", [None, "", "nonsense\n", "1: FLOCK ADVISORY WRITE x y 0 EOF\n"])
def test_does_without_the_holder(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """Where /proc tells nothing, the message does without it."""
    locks = tmp_path / "locks"
    if content is not None:
        locks.write_text(content)
    monkeypatch.setattr(lock, "open", lambda _, **how: locks.open(**how), raising=False)
    with pytest.raises(LockTimeout, match="another process holds it"), HostLock(str(path), 0):
        pass


def test_says_why_the_file_cannot_be_made(tmp_path: Path) -> None:
    """Error 5, with the path and the cause."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "ipam.lock"
    with (
        pytest.raises(InputOutputError, match=f"lock file {path}: Not a directory"),
        HostLock(str(path), 1),
    ):
        pass


def test_is_not_inherited(path: Path) -> None:
    """A program that is started inside does not keep the lock."""
    with HostLock(str(path), 1):
        cat = subprocess.Popen(
            ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, close_fds=False
        )
        cat.stdin.write(b"x")
        assert b"x" == cat.stdout.read(1)  # it runs, so the kernel has closed what it closes
    assert is_free(path)
    cat.communicate()


def test_processes_exclude_each_other(path: Path, tmp_path: Path) -> None:
    """16 processes add one to a number in a file, 10 times each: none is lost."""
    number = tmp_path / "number"
    number.write_text("0")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from cni_ipam.lean.lock import HostLock\n"
        "path, number = sys.argv[1:]\n"
        "for _ in range(10):\n"
        "    with HostLock(path, 60):\n"
        "        with open(number) as file: value = int(file.read())\n"
        "        with open(number, 'w') as file: file.write(str(value + 1))\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(path), str(number)]
    children = [subprocess.Popen(command) for _ in range(16)]
    assert [0] * 16 == [child.wait() for child in children]
    assert "160" == number.read_text()
