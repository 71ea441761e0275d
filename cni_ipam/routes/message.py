"""The messages of rtnetlink(7) that the lean adapter speaks: bytes from values and back.

A message is a header, a fixed part, and attributes, each aligned to four bytes. Numbers are in the
machine's order, addresses in the network's. Pure: no socket here.
"""

from __future__ import annotations

import errno
import posix
from _socket import AF_INET, AF_INET6
from _struct import Struct

from cni_ipam.core.address import BITS, Cidr
from cni_ipam.routes.plan import FoundLink, FoundRoute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILIES = {4: AF_INET, 6: AF_INET6}
VERSIONS = {AF_INET: 4, AF_INET6: 6}

# linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x2, 0x4, 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x100, 0x200, 0x400, 0x300
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLMSGERR_ATTR_MSG = 1
# linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h
RTM_GETLINK, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTM_GETNSID = 18, 24, 25, 26, 90
RTA_DST, RTA_OIF, RTA_TABLE = 1, 4, 15
IFLA_IFNAME, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_EXT_MASK = 3, 5, 10, 18, 29
IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID, IFLA_INFO_KIND = 37, 46, 1
RTEXT_FILTER_SKIP_STATS = 8
NETNSA_NSID, NETNSA_FD = 1, 3

HEADER = Struct("=IHHII")
ATTRIBUTE = Struct("=HH")
ROUTE = Struct("=8BI")
LINK = Struct("=BxHiII")
INT32 = Struct("=i")


def encode_attribute(kind: int, value: int | bytes) -> bytes:
    """One attribute, padded; an int is 32 bits wide in the machine's order."""
    if isinstance(value, int):
        value = INT32.pack(value)
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def encode_message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message around `body`."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def encode_route(
    cidr: Cidr, kind: int, proto: int, table: int, *, scope: int, device: int = 0
) -> bytes:
    """The body of a route request; `device` 0 names none."""
    family = FAMILIES[cidr.version]
    head = ROUTE.pack(family, cidr.prefix, 0, 0, 0, proto, scope, kind, 0)
    base = cidr.base.to_bytes(BITS[cidr.version] // 8, "big")
    body = head + encode_attribute(RTA_DST, base) + encode_attribute(RTA_TABLE, table)
    return body + encode_attribute(RTA_OIF, device) if device else body


def encode_route_filter(version: int, kind: int, proto: int, table: int) -> bytes:
    """The body of a dump of one family's routes; a `proto` of 0 stands for any."""
    head = ROUTE.pack(FAMILIES[version], 0, 0, 0, 0, proto, 0, kind, 0)
    return head + encode_attribute(RTA_TABLE, table)


def encode_link(index: int = 0, name: str = "", namespace: int | None = None) -> bytes:
    """The body of a request for the interface of that index or name, in that namespace."""
    body = LINK.pack(0, 0, index, 0, 0) + encode_attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    if name:
        body += encode_attribute(IFLA_IFNAME, name.encode() + b"\0")
    if namespace is not None:
        body += encode_attribute(IFLA_TARGET_NETNSID, namespace)
    return body


def decode_messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence and body of each message of a datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            raise OSError(errno.EBADMSG, "malformed netlink message")
        yield kind, flags, sequence, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def decode_attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """The attributes that begin at `offset`, by their kind."""
    found = {}
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if not ATTRIBUTE.size <= length <= len(data) - offset:
            raise OSError(errno.EBADMSG, "malformed netlink attribute")
        found[kind & 0x3FFF] = data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def decode_route(body: bytes) -> FoundRoute | None:
    """The route of a message; None for a family that is neither IPv4 nor IPv6."""
    family, prefix, _, _, table, proto, _, kind, _ = ROUTE.unpack_from(body)
    if family not in VERSIONS:
        return None
    attributes = decode_attributes(body, ROUTE.size)
    base = int.from_bytes(attributes.get(RTA_DST, b""), "big")
    if RTA_TABLE in attributes:
        table = INT32.unpack(attributes[RTA_TABLE])[0]
    device = INT32.unpack(attributes[RTA_OIF])[0] if RTA_OIF in attributes else 0
    return FoundRoute(Cidr(VERSIONS[family], base, prefix), kind, proto, table, device)


def decode_link(body: bytes) -> FoundLink:
    """The interface of a message."""
    index = LINK.unpack_from(body)[2]
    attributes = decode_attributes(body, LINK.size)
    info = decode_attributes(attributes.get(IFLA_LINKINFO, b""), 0)
    numbers = {
        kind: INT32.unpack(attributes[kind])[0]
        for kind in (IFLA_LINK, IFLA_LINK_NETNSID, IFLA_MASTER)
        if kind in attributes
    }
    return FoundLink(
        index=index,
        name=_text(attributes.get(IFLA_IFNAME, b"")),
        kind=_text(info.get(IFLA_INFO_KIND, b"")),
        peer=numbers.get(IFLA_LINK, 0),
        peer_namespace=numbers.get(IFLA_LINK_NETNSID),
        master=numbers.get(IFLA_MASTER, 0),
    )


def decode_error(flags: int, body: bytes, kind: int) -> OSError | None:
    """What an NLMSG_ERROR or NLMSG_DONE reports, with the kernel's own words; None for success."""
    number = -INT32.unpack_from(body)[0] if len(body) >= INT32.size else 0
    if number <= 0:
        return None
    reason = posix.strerror(number)
    if flags & NLM_F_ACK_TLVS:
        words = decode_attributes(body, _words_offset(flags, body, kind)).get(NLMSGERR_ATTR_MSG)
        if words:
            reason += f" ({_text(words)})"
    return OSError(number, reason)


def _words_offset(flags: int, body: bytes, kind: int) -> int:
    """Where the extended part begins: after the refused request, of which the header may be all."""
    if kind == NLMSG_DONE:
        return INT32.size
    if flags & NLM_F_CAPPED:
        return INT32.size + HEADER.size
    length: int = HEADER.unpack_from(body, INT32.size)[0]
    return INT32.size + ((length + 3) & ~3)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
