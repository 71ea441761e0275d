"""IP addresses and CIDRs of both families as integers.

`ipaddress` costs 7 ms of start-up and does not spell as Go does; this room holds only what the
project needs, and its texts are Go's: lower case, the longest run of zero groups as `::`.
"""

from __future__ import annotations

from cni_ipam.lean.record import record

BITS = {4: 32, 6: 128}


@record
class Address:
    """One address: `version` 4 or 6 and its value."""

    version: int
    value: int

    def __str__(self) -> str:
        return _format(self.version, self.value)

    @property
    def host_cidr(self) -> Cidr:
        """The /32 or /128 that holds just this address."""
        return Cidr(self.version, self.value, BITS[self.version])


@record
class Cidr:
    """A network: `base` has no host bits set."""

    version: int
    base: int
    prefix: int

    def __str__(self) -> str:
        return f"{_format(self.version, self.base)}/{self.prefix}"

    @property
    def size(self) -> int:
        """How many addresses it holds."""
        return 1 << (BITS[self.version] - self.prefix)

    @property
    def last(self) -> int:
        """The value of its last address."""
        return self.base + self.size - 1

    def address(self, ordinal: int) -> Address:
        """The address at `ordinal`, counted from 0."""
        return Address(self.version, self.base + ordinal)

    def contains(self, address: Address) -> bool:
        """Whether `address` lies in it."""
        return address.version == self.version and self.base <= address.value <= self.last

    def covers(self, other: Cidr) -> bool:
        """Whether every address of `other` lies in it."""
        return (
            other.version == self.version
            and self.prefix <= other.prefix
            and self.base <= other.base <= self.last
        )

    def overlaps(self, other: Cidr) -> bool:
        """Whether they share an address."""
        return self.covers(other) or other.covers(self)


def parse_address(text: str) -> Address:
    """An address from its text; an IPv4-mapped IPv6 one is IPv4, as in Go. Raises ValueError."""
    try:
        address = _parse(text)
    except ValueError:
        raise ValueError(f"invalid IP address: {text}") from None
    if address.version == 6 and address.value >> 32 == 0xFFFF:
        return Address(4, address.value & 0xFFFFFFFF)
    return address


def parse_network(text: str) -> tuple[Address, Cidr]:
    """The address as written and its network, as Go's `net.ParseCIDR`. Raises ValueError."""
    head, slash, length = text.partition("/")
    try:
        address = _parse(head)
        prefix = _decimal(length, 3) if slash else 999
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None
    if prefix > BITS[address.version]:
        raise ValueError(f"invalid CIDR address: {text}")
    return address, network_of(address, prefix)


def parse_cidr(text: str) -> Cidr:
    """The network that `text` names, host bits masked away. Raises ValueError."""
    return parse_network(text)[1]


def network_of(address: Address, prefix: int) -> Cidr:
    """The network of `prefix` bits that holds `address`."""
    shift = BITS[address.version] - prefix
    return Cidr(address.version, address.value >> shift << shift, prefix)


def _parse(text: str) -> Address:
    if ":" in text:
        return Address(6, _parse_v6(text))
    return Address(4, _parse_v4(text))


def _parse_v4(text: str) -> int:
    parts = text.split(".")
    if len(parts) != 4:
        raise ValueError
    value = 0
    for part in parts:
        octet = _decimal(part, 3)
        if octet > 255:
            raise ValueError
        value = value << 8 | octet
    return value


def _decimal(text: str, longest: int) -> int:
    """Plain ASCII digits without a leading zero (Go refuses `010`, which C reads as octal)."""
    if not (text.isascii() and text.isdigit()) or len(text) > longest:
        raise ValueError
    if text[0] == "0" and len(text) > 1:
        raise ValueError
    return int(text)


def _parse_v6(text: str) -> int:
    if "." in text:
        head, _, tail = text.rpartition(":")
        v4 = _parse_v4(tail)
        text = f"{head}:{v4 >> 16:x}:{v4 & 0xFFFF:x}"
    left, gap, right = text.partition("::")
    before = left.split(":") if left else []
    after = right.split(":") if right else []
    missing = 8 - len(before) - len(after)
    if (gap and missing < 1) or (not gap and missing):
        raise ValueError
    value = 0
    for group in before + ["0"] * missing + after:
        if not 1 <= len(group) <= 4 or group.strip("0123456789abcdefABCDEF"):
            raise ValueError
        value = value << 16 | int(group, 16)
    return value


def _format(version: int, value: int) -> str:
    if version == 4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    groups = [value >> shift & 0xFFFF for shift in range(112, -16, -16)]
    start, length = _longest_zero_run(groups)
    texts = [f"{group:x}" for group in groups]
    if length < 2:
        return ":".join(texts)
    return ":".join(texts[:start]) + "::" + ":".join(texts[start + length :])


def _longest_zero_run(groups: list[int]) -> tuple[int, int]:
    best = (0, 0)
    start = 0
    while start < len(groups):
        end = start
        while end < len(groups) and groups[end] == 0:
            end += 1
        if end - start > best[1]:
            best = (start, end - start)
        start = end + 1
    return best
