"""The lean adapter's messages, compared with pyroute2's codec."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni_ipam.core.address import BITS, Address, Cidr, network_of, parse_cidr
from cni_ipam.routes import message
from cni_ipam.routes.plan import BLACKHOLE, SCOPE_LINK, UNICAST, FoundLink, FoundRoute

if TYPE_CHECKING:
    from typing import Any


@st.composite
def cidrs(draw: st.DrawFn) -> Cidr:
    """Any network of either family."""
    version = draw(st.sampled_from([4, 6]))
    value = draw(st.integers(0, (1 << BITS[version]) - 1))
    return network_of(Address(version, value), draw(st.integers(0, BITS[version])))


BYTES = st.integers(0, 255)
TABLES = st.integers(0, 0x7FFFFFFF)
DEVICES = st.integers(0, 0x7FFFFFFF)


def decode_by_pyroute2(kind: type[Any], body: bytes) -> Any:
    """What pyroute2 reads from a message around `body`."""
    decoded = kind(message.encode_message(24, 0, 1, body))
    decoded.decode()
    return decoded


@given(cidrs(), st.tuples(BYTES, BYTES, TABLES), BYTES, DEVICES)
def test_encoded_route_is_read_by_pyroute2(
    cidr: Cidr, mark: tuple[int, int, int], scope: int, device: int
) -> None:
    """Every field arrives, whatever its value."""
    kind, proto, table = mark
    body = message.encode_route(cidr, *mark, scope=scope, device=device)

    read = decode_by_pyroute2(rtmsg, body)

    assert f"{read.get_attr('RTA_DST')}/{read['dst_len']}" == _canonical(cidr)
    assert (kind, proto, scope) == (read["type"], read["proto"], read["scope"])
    assert (table, device or None) == (read.get_attr("RTA_TABLE"), read.get_attr("RTA_OIF"))


def _canonical(cidr: Cidr) -> str:
    """As pyroute2 spells it: by inet_ntop, which ends a mapped address in dots."""
    family = message.FAMILIES[cidr.version]
    base = cidr.base.to_bytes(BITS[cidr.version] // 8, "big")
    return f"{socket.inet_ntop(family, base)}/{cidr.prefix}"


@given(cidrs(), BYTES, BYTES, TABLES, DEVICES)
def test_decoded_route_is_the_encoded_one(
    cidr: Cidr, kind: int, proto: int, table: int, device: int
) -> None:
    """There and back."""
    body = message.encode_route(cidr, kind, proto, table, scope=SCOPE_LINK, device=device)

    assert FoundRoute(cidr, kind, proto, table, device) == message.decode_route(body)


def test_default_route_has_no_destination() -> None:
    """The kernel leaves the attribute out; without the table's new field the old one serves."""
    body = struct.pack("=8BI", 2, 0, 0, 0, 254, 3, 0, UNICAST, 0)

    expected = FoundRoute(parse_cidr("0.0.0.0/0"), UNICAST, 3, 254, 0)
    assert expected == message.decode_route(body)


def test_route_of_another_family_is_passed_over() -> None:
    """MPLS, for one, which a kernel without IPv6 may list in its stead."""
    body = struct.pack("=8BI", 28, 20, 0, 0, 254, 3, 0, UNICAST, 0)

    assert message.decode_route(body) is None


def test_filter_asks_for_one_family_table_type_and_protocol() -> None:
    """The kernel sends nothing else."""
    body = message.encode_route_filter(6, BLACKHOLE, 85, 1000)

    read = decode_by_pyroute2(rtmsg, body)
    found = (read["family"], read["type"], read["proto"], read.get_attr("RTA_TABLE"))
    assert (10, BLACKHOLE, 85, 1000) == found
    assert 0 == read["dst_len"]


def test_link_request_names_interface_and_namespace() -> None:
    """By name in another namespace."""
    read = decode_by_pyroute2(ifinfmsg, message.encode_link(name="eth0", namespace=7))

    assert ("eth0", 7, 0) == (
        read.get_attr("IFLA_IFNAME"),
        read.get_attr("IFLA_IF_NETNSID"),
        read["index"],
    )


def test_decoded_link_is_the_one_that_pyroute2_encodes() -> None:
    """A port of a bridge whose peer lies in another namespace."""
    link = ifinfmsg()
    link["index"] = 9
    link["attrs"] = [
        ("IFLA_IFNAME", "veth0"),
        ("IFLA_LINK", 2),
        ("IFLA_MASTER", 4),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth")]}),
        ("IFLA_LINK_NETNSID", 3),
    ]
    link.encode()

    found = message.decode_link(bytes(link.data)[16:])

    assert FoundLink(9, "veth0", "veth", 2, 3, 4) == found


def test_link_without_peer_and_master_has_none() -> None:
    """Such as `lo`."""
    body = message.encode_link(index=1, name="lo")

    assert FoundLink(1, "lo", "", 0, None, 0) == message.decode_link(body)


@given(st.lists(st.tuples(BYTES, BYTES, st.integers(0, 1 << 31), st.binary(max_size=20))))
def test_messages_of_a_datagram_are_told_apart(parts: list[tuple[int, int, int, bytes]]) -> None:
    """Each begins at the next multiple of four."""
    datagram = b""
    for part in parts:
        datagram += message.encode_message(*part)
        datagram += bytes(-len(datagram) % 4)

    assert parts == list(message.decode_messages(datagram))


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20)))
def test_attributes_are_told_apart(attributes: dict[int, bytes]) -> None:
    """Each begins at the next multiple of four."""
    data = b"".join(message.encode_attribute(*attribute) for attribute in attributes.items())

    assert attributes == message.decode_attributes(b"head" + data, 4)


def test_flag_bits_of_an_attribute_are_no_part_of_its_kind() -> None:
    """NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
    assert {18: b""} == message.decode_attributes(struct.pack("=HH", 4, 18 | 0xC000), 0)


@given(st.binary(max_size=80))
def test_garbage_ends_in_values_or_in_an_error(data: bytes) -> None:
    """Never in an endless loop, or in a read beyond the end."""
    for decode in (message.decode_messages, lambda data: message.decode_attributes(data, 0)):
        with contextlib.suppress(OSError):
            list(decode(data))


def _words(text: str) -> bytes:
    return message.encode_attribute(message.NLMSGERR_ATTR_MSG, text.encode() + b"\0")


def test_acknowledgement_is_no_error() -> None:
    """The kernel says yes by the errno 0; a dump that ends well may carry none at all."""
    done = [message.decode_error(0, body, kind) for body, kind in ((bytes(20), 2), (b"", 3))]

    assert [None, None] == done


def test_error_has_its_errno() -> None:
    """And its class, as everywhere in Python."""
    error = message.decode_error(0, struct.pack("=i", -errno.EPERM) + bytes(16), 2)

    assert isinstance(error, PermissionError)
    assert os.strerror(errno.EPERM) == error.strerror


@pytest.mark.parametrize("capped", [True, False])
def test_error_has_the_kernels_own_words(capped: bool) -> None:
    """Behind the refused request, of which only the header may have come back."""
    request = message.encode_message(24, 5, 1, b"a request")
    body = struct.pack("=i", -errno.EINVAL)
    body += request[:16] if capped else request + bytes(-len(request) % 4)
    flags = message.NLM_F_ACK_TLVS | (message.NLM_F_CAPPED if capped else 0)

    error = message.decode_error(flags, body + _words("Invalid scope"), message.NLMSG_ERROR)

    assert f"{os.strerror(errno.EINVAL)} (Invalid scope)" == (error and error.strerror)


def test_failed_dump_has_the_kernels_own_words() -> None:
    """Right behind the errno: no request comes back."""
    body = struct.pack("=i", -errno.ENOENT) + _words("FIB table does not exist")

    error = message.decode_error(message.NLM_F_ACK_TLVS, body, message.NLMSG_DONE)

    assert f"{os.strerror(errno.ENOENT)} (FIB table does not exist)" == (error and error.strerror)
