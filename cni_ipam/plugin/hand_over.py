"""The lean program lets the full one serve a call in its place, in the same process.

The full program lies beside it in the bundle. Under the plugin's name it runs the same verbs, and
reads kubeconfigs with the `kubernetes` package: so it does not hand over again.
"""

from __future__ import annotations

import posix
import sys

from cni_ipam.errors import InputOutputError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

FULL_PROGRAM = "ipamctl"
OWN_PROGRAM = "/proc/self/exe"
_FROM_START = 0


def hand_over(why: str, stdin: bytes, name: str, environ: Mapping[bytes, bytes]) -> NoReturn:
    """Replace this program by the full one, called `name`, with the same input.

    Returns only by raising: UnsupportedError where there is no full program beside this one,
    InputOutputError where it cannot be executed.
    """
    own = posix.readlink(OWN_PROGRAM)
    program = f"{own.rpartition('/')[0]}/{FULL_PROGRAM}"
    # An interpreter that runs our source lies beside programs that are not ours.
    if not getattr(sys, "frozen", False) or own == program or not _is_program(program):
        message = f"{why}: for that the full program is needed, which is not there"
        hint = f"{FULL_PROGRAM} of the bundle belongs beside {own}"
        raise UnsupportedError(message, f"{hint}; or use a token, a tokenFile or a certificate")
    try:
        _lend_stdin(stdin)
        posix.execve(program, [name], environ)
    except OSError as error:
        raise InputOutputError(f"{why}: cannot execute {program}: {error.strerror}") from error


def _is_program(path: str) -> bool:
    return posix.access(path, posix.X_OK)


def _lend_stdin(stdin: bytes) -> None:
    """Let descriptor 0 hold what has been read from it."""
    descriptor = posix.memfd_create("netconf", 0)
    while stdin:
        stdin = stdin[posix.write(descriptor, stdin) :]
    posix.lseek(descriptor, 0, _FROM_START)
    posix.dup2(descriptor, 0)
    if descriptor:
        posix.close(descriptor)
