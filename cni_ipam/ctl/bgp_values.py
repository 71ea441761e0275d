"""How BGP's numbers, addresses and durations are written in Calico's resources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni_ipam.core.address import parse_address, parse_cidr, parse_network

if TYPE_CHECKING:
    from cni_ipam.core.address import Address

LARGEST_PORT = 65535
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
# Go counts nanoseconds in 63 bits.
_LONGEST_SECONDS = 2**63 // 10**9
_PORT = re.compile(r"\[(.+)\]:(\d+)|([^:]+):(\d+)")
_LARGEST_AS_NUMBER = 2**32 - 1
_LARGEST_HALF = 2**16 - 1
_UNUSABLE = tuple(
    (parse_cidr(cidr), word)
    for cidr, word in (
        ("0.0.0.0/32", "the unspecified address"),
        ("::/128", "the unspecified address"),
        ("fe80::/10", "a link-local address of IPv6"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
    )
)


def parse_as_number(value: object) -> int:
    """An AS number: a number, its text, or two halves with a dot. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_AS_NUMBER:
        return value
    parts = value.split(".") if isinstance(value, str) else []
    if parts and all(part.isascii() and part.isdigit() for part in parts):
        numbers = [int(part) for part in parts]
        if len(numbers) == 1 and numbers[0] <= _LARGEST_AS_NUMBER:
            return numbers[0]
        if len(numbers) == 2 and max(numbers) <= _LARGEST_HALF:
            return numbers[0] << 16 | numbers[1]
    raise ValueError(f"invalid AS Number format ({value})")


def parse_peer_address(text: str) -> tuple[Address, int | None]:
    """A peer's address and port: `10.0.0.1`, `10.0.0.1:1790`, `[fd00::1]:1790`. Raises
    ValueError."""
    found = _PORT.fullmatch(text)
    if found is None:
        return parse_address(text), None
    host, port = found[1] or found[3], int(found[2] or found[4])
    if not 0 < port <= LARGEST_PORT:
        raise ValueError(f"invalid port: {port}")
    return parse_address(host), port


def parse_seconds(text: str) -> int:
    """The whole seconds of a duration as Go writes it, like `1m30s`. Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'time: invalid duration "{text}"')
    parts = re.findall(r"([\d.]+)(\D+)", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f'time: invalid duration "{text}"')
    return int(seconds)


def parse_node_address(text: str) -> Address:
    """A node's address, with or without the length of its network. Raises ValueError."""
    return parse_network(text)[0] if "/" in text else parse_address(text)


def find_unusable(address: Address) -> str:
    """Why BIRD can have no session with an address or from it, and what would be right; "" if it
    can."""
    for cidr, word in _UNUSABLE:
        if cidr.contains(address):
            return f"BIRD cannot use {word}: it must be a single machine's, global or private"
    return ""
