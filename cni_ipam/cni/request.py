"""What the runtime asks: the CNI_… variables and stdin, checked as the reference library does.

A wrong value is told before missing ones, missing ones together and in the order of the table, and
all of that before stdin is read.
"""

from __future__ import annotations

import posix

from cni_ipam.cni.version import SUPPORTED
from cni_ipam.errors import DecodeError, EnvironmentInvalid, InputOutputError
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Environ: TypeAlias = Mapping[bytes, bytes] | Mapping[str, str]

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
ABOUT = (
    "CNI IPAM plugin cni-ipam: addresses from Calico's pools\n"
    f"CNI protocol versions supported: {', '.join(SUPPORTED)}\n"
)
STDIN_LIMIT = 4 * 1024 * 1024
"""The longest network configuration in bytes: a hundred times what a full node's GC sends."""

_IFNAME_LIMIT = 15
_LETTERS_AND_DIGITS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_CHARACTERS = _LETTERS_AND_DIGITS | frozenset("_.-")


@record
class Request:
    """One call of the plugin. Variables that the runtime did not set are empty."""

    command: str
    container_id: str
    netns: str
    ifname: str
    args: str
    path: str
    stdin: bytes


@record
class Variable:
    """One CNI_… variable, the field of Request it fills, and the verbs that cannot do without."""

    name: str
    field: str
    required_for: tuple[str, ...]
    check: Callable[[str], None] | None = None


def read_request(environ: Environ, read_stdin: Callable[[], bytes]) -> Request:
    """The call that `environ` and stdin describe; VERSION leaves stdin alone.

    Raises EnvironmentInvalid, InputOutputError if stdin cannot be read, DecodeError if it is
    longer than STDIN_LIMIT.
    """
    command = read_variable(environ, "CNI_COMMAND")
    values: dict[str, Any] = {}
    missing = []
    for variable in _VARIABLES:
        value = values[variable.field] = read_variable(environ, variable.name)
        if command in variable.required_for or variable.field == "command":
            if not value:
                missing.append(variable.name)
            elif variable.check is not None:
                variable.check(value)
    if missing:
        message = f"required env variables [{','.join(missing)}] missing"
        raise EnvironmentInvalid(message)
    if command not in VERBS:
        message = f"unknown CNI_COMMAND: {command[:80]}"
        raise EnvironmentInvalid(message, f"CNI_COMMAND must be one of {', '.join(VERBS)}")
    return Request(stdin=b"" if command == "VERSION" else _read_all(read_stdin), **values)


def read_variable(environ: Environ, name: str) -> str:
    """The variable's value; "" if it is not set. Bytes that are not UTF-8 become surrogates."""
    values: Mapping[Any, Any] = environ
    value = values.get(name.encode())
    if value is None:
        value = values.get(name, "")
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def read_standard_input() -> bytes:
    """What descriptor 0 holds, at most one byte more than STDIN_LIMIT. Raises OSError."""
    chunks = []
    left = STDIN_LIMIT + 1
    while left > 0:
        chunk = posix.read(0, min(left, 65536))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def is_cni_name(text: str) -> bool:
    """Whether `text` may name a network or a container: a letter or digit, then also `_.-`."""
    return text[:1] in _LETTERS_AND_DIGITS and _NAME_CHARACTERS.issuperset(text)


def _read_all(read_stdin: Callable[[], bytes]) -> bytes:
    try:
        data = read_stdin()
    except OSError as error:
        message = f"error reading from stdin: {error.strerror or error}"
        raise InputOutputError(message) from error
    if len(data) > STDIN_LIMIT:
        message = "error unmarshall network config: stdin is too long"
        raise DecodeError(message, f"at most {STDIN_LIMIT} bytes are read")
    return data


def _check_container_id(value: str) -> None:
    if not is_cni_name(value):
        message = "invalid characters in containerID"
        raise EnvironmentInvalid(
            message,
            f"CNI_CONTAINERID is {_printable(value)}: it must begin with a letter or a digit "
            "and hold only letters, digits, '_', '.' and '-'",
        )


def _check_ifname(value: str) -> None:
    if len(value.encode("utf-8", "surrogateescape")) > _IFNAME_LIMIT:
        message = "interface name is too long"
        raise EnvironmentInvalid(
            message, f"interface name should be less than {_IFNAME_LIMIT + 1} characters"
        )
    if value in (".", ".."):
        raise EnvironmentInvalid("interface name is . or ..")
    if any(letter in "/:" or letter.isspace() for letter in value):
        message = "interface name contains / or : or whitespace characters"
        raise EnvironmentInvalid(message, f"CNI_IFNAME is {_printable(value)}")
    # The datastore's records are JSON: a name outside UTF-8 could not be found again.
    if not _is_utf8(value):
        message = "interface name is not UTF-8"
        raise EnvironmentInvalid(message, f"CNI_IFNAME is {_printable(value)}")


def _is_utf8(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _printable(value: str) -> str:
    return quote_ascii(value if len(value) <= 80 else value[:80] + "...")


_FOR_ATTACHMENTS = ("ADD", "CHECK", "DEL")
_FOR_ALL = (*_FOR_ATTACHMENTS, "GC", "STATUS")

_VARIABLES = (
    Variable("CNI_COMMAND", "command", (*_FOR_ALL, "VERSION")),
    Variable("CNI_CONTAINERID", "container_id", _FOR_ATTACHMENTS, _check_container_id),
    Variable("CNI_NETNS", "netns", ("ADD", "CHECK")),
    Variable("CNI_IFNAME", "ifname", _FOR_ATTACHMENTS, _check_ifname),
    Variable("CNI_ARGS", "args", ()),
    Variable("CNI_PATH", "path", _FOR_ALL),
)
