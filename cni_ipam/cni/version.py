"""Which CNI versions are spoken, and which verb at which.

The rules and their texts are those of the reference library (`skel`, `version.Reconciler`): ADD and
DEL want the version to be one of the list, letter by letter; CHECK, GC and STATUS first compare its
numbers with the version that brought the verb.
"""

from __future__ import annotations

from cni_ipam.errors import DecodeError, VersionError
from cni_ipam.lean.json import dumps, quote_ascii

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = SUPPORTED[-1]
OLDEST = SUPPORTED[0]

_BROUGHT_BY = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}
_PARTS = ("major", "minor", "micro")


def check_version(config_version: str, command: str) -> None:
    """Return if `command` may be served at `config_version`; an empty one counts as 0.1.0.

    Raises VersionError, or DecodeError for CHECK, GC and STATUS at a version without numbers.
    """
    config_version = config_version or OLDEST
    least = _BROUGHT_BY.get(command)
    if least is not None:
        numbers = parse_version(config_version)
        if numbers < least:
            message = f"config version does not allow {command}"
            raise VersionError(message, f"{command} came with {'.'.join(map(str, least))}")
        if numbers > parse_version(NEWEST):
            message = f"plugin version does not allow {command}"
            raise VersionError(message, _difference(config_version))
    if config_version not in SUPPORTED:
        raise VersionError("incompatible CNI versions", _difference(config_version))


def parse_version(version: str) -> tuple[int, int, int]:
    """The three numbers of `version`; absent ones are 0. Raises DecodeError."""
    parts = version.split(".")
    if len(parts) > len(_PARTS):
        message = f"invalid version {_quote(version)}: too many parts"
        raise DecodeError(message)
    numbers = [_number(part, which) for part, which in zip(parts, _PARTS, strict=False)]
    major, minor, micro = numbers + [0] * (len(_PARTS) - len(numbers))
    return major, minor, micro


def version_reply(cni_version: str = NEWEST) -> str:
    """The answer to VERSION: one line of JSON with its line end."""
    return dumps({"cniVersion": cni_version, "supportedVersions": list(SUPPORTED)}) + "\n"


def _number(part: str, which: str) -> int:
    digits = part[1:] if part[:1] in ("+", "-") else part
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        quoted = _quote(part)
        message = (
            f"failed to convert {which} version part {quoted}: "
            f"strconv.Atoi: parsing {quoted}: invalid syntax"
        )
        raise DecodeError(message)
    return int(part)


def _difference(config_version: str) -> str:
    spoken = " ".join(_quote(version) for version in SUPPORTED)
    return f"config is {_quote(config_version)}, plugin supports [{spoken}]"


def _quote(text: str) -> str:
    return quote_ascii(text if len(text) <= 40 else text[:40] + "...")
