"""The host's lock: one process at a time, whatever its language, by flock(2) on a file.

`flock` because Calico's plugin takes its lock that way: the two must exclude each other. The file
is never removed, or two processes could hold locks on two files of one name.

Saves 6 ms of start-up: a process that imports this ran 7.9 ms (median 9.1), one that imports `os`,
`fcntl`, `signal` (which makes enums) and `contextlib` 12.7 (15.0), an empty one 7.0 (7.8).

The kernel has no flock with a time limit. Whoever must wait does so in the kernel, where waiters
queue, and an alarm ends the wait; only in threads, which get no signals, is the lock polled.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import posix
import time

from cni_ipam.errors import InputOutputError, LockTimeout
from cni_ipam.lean.folder import make_folder_of

_POLL_SECONDS = 0.01


class _Expired(Exception):
    """The alarm rang while the lock was waited for."""


class HostLock:
    """Held inside of `with`: nobody else holds the lock on `path` then.

    Entering raises LockTimeout if it is not had within `timeout_seconds`, InputOutputError if the
    file cannot be made."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._descriptor = -1
        self._waiting = False

    def __enter__(self) -> HostLock:
        descriptor = self._open()
        try:
            if _try_lock(descriptor) or self._wait(descriptor):
                self._descriptor, descriptor = descriptor, -1
                return self
            raise self._timeout(descriptor)
        finally:
            if descriptor >= 0:
                posix.close(descriptor)

    def __exit__(self, _kind: object, _error: object, _trace: object) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        posix.close(descriptor)

    def _open(self) -> int:
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC
        try:
            try:
                return posix.open(self._path, flags, 0o600)
            except FileNotFoundError:
                make_folder_of(self._path)
                return posix.open(self._path, flags, 0o600)
        except OSError as error:
            raise InputOutputError(
                f"cannot open the lock file {self._path}: {error.strerror}",
                "ipam_lock_file names it; it must lie where root can write",
            ) from error

    def _wait(self, descriptor: int) -> bool:
        """Whether the lock was had in time."""
        if self._timeout_seconds <= 0:
            return False
        try:
            former = _signal.signal(_signal.SIGALRM, self._expire)
        except ValueError:  # not the main thread
            return self._poll(descriptor)
        mask = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGALRM])
        started = time.monotonic()
        self._waiting = True
        outer = _signal.setitimer(_signal.ITIMER_REAL, self._timeout_seconds)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._waiting = False
        except _Expired:
            return False
        finally:
            self._waiting = False
            _restore_timer(outer, time.monotonic() - started)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
            _signal.signal(_signal.SIGALRM, _signal.SIG_DFL if former is None else former)
        return True

    def _expire(self, _number: int, _frame: object) -> None:
        # A late alarm, handled after the lock was had, must not throw it away.
        if self._waiting:
            self._waiting = False
            raise _Expired

    def _poll(self, descriptor: int) -> bool:
        deadline = time.monotonic() + self._timeout_seconds
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            if _try_lock(descriptor):
                return True
        return False

    def _timeout(self, descriptor: int) -> LockTimeout:
        holder = _find_holder(descriptor)
        who = f"process {holder}" if holder else "another process"
        return LockTimeout(
            f"the lock {self._path} was not had in {self._timeout_seconds:g} s: {who} holds it",
            "the call can be repeated; ipam_lock_timeout says how long to wait",
        )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _restore_timer(outer: tuple[float, float], elapsed_seconds: float) -> None:
    """Give a caller's own alarm what is left of its time; one that is overdue rings at once."""
    remaining, interval = outer
    if remaining:
        remaining = max(remaining - elapsed_seconds, 1e-6)
    _signal.setitimer(_signal.ITIMER_REAL, remaining, interval)


def _find_holder(descriptor: int) -> int | None:
    """The process that holds the lock, as far as /proc/locks tells."""
    status = posix.fstat(descriptor)
    major, minor = posix.major(status.st_dev), posix.minor(status.st_dev)
    file = f"{major:02x}:{minor:02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            for line in locks:
                # 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF; waiters have -> after the number
                words = line.split()
                if words[1] == "FLOCK" and words[5] == file and int(words[4]) > 0:
                    return int(words[4])
    except (OSError, IndexError, ValueError):
        return None
    return None
