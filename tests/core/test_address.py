"""Addresses and CIDRs, with ipaddress as the oracle but where Go spells or refuses otherwise."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cni_ipam.core.address import (
    Address,
    Cidr,
    network_of,
    parse_address,
    parse_cidr,
    parse_network,
)

ADDRESS_LIKE = st.one_of(
    st.text(alphabet="0123456789abcdefABCDEF.:/ +-_x%g٣", max_size=24),
    st.lists(
        st.sampled_from(["", "0", "00", "1", "fe80", "FFFF", "12345", "1.2.3.4"]), max_size=10
    ).map(":".join),
    st.lists(st.sampled_from(["0", "7", "255", "256", "01", ""]), max_size=5).map(".".join),
)
V6_VALUES = st.lists(
    st.sampled_from([0, 0, 0, 1, 0xA, 0xFFFF, 0x2001]), min_size=8, max_size=8
).map(lambda groups: int("".join(f"{group:04x}" for group in groups), 16))


@st.composite
def cidrs(draw, version=None):
    """Any network of either family, host bits masked away."""
    version = version or draw(st.sampled_from([4, 6]))
    bits = {4: 32, 6: 128}[version]
    value = draw(st.integers(0, 2**bits - 1))
    return network_of(Address(version, value), draw(st.integers(0, bits)))


def refused(parse, text):
    """The message with which `parse` refuses `text`, or what it returns."""
    try:
        return parse(text)
    except ValueError as error:
        return str(error)


def expected_address(text):
    """What ipaddress says, with a mapped address turned into IPv4 as Go does."""
    try:
        oracle = ipaddress.ip_address(text if "%" not in text else "no zones here")
    except ValueError:
        return f"invalid IP address: {text}"
    mapped = getattr(oracle, "ipv4_mapped", None) or oracle
    return Address(mapped.version, int(mapped))


@given(ADDRESS_LIKE)
@example("")
@example("1.2.3")
@example("::")
@example("1::2::3")
@example("1:2:3:4:5:6:7::")
@example("1::2:3:4:5:6:7:8")
@example(":1.2.3.4")
@example("1.2.3.256")
@example("::ffff:1.2.3.4")
@example("1:2:3:4:5:6:1.2.3.4")
@example("fe80::1%eth0")
def test_any_text_is_read_or_refused_as_by_ipaddress(text):
    """Both read the same address, or both refuse, whatever the text."""
    assert expected_address(text) == refused(parse_address, text)


@given(st.ip_addresses())
def test_every_address_is_read_back(oracle):
    """The text of any address, exploded or compressed, gives its value."""
    assume(not getattr(oracle, "ipv4_mapped", None))
    expected = Address(oracle.version, int(oracle))
    assert expected == parse_address(str(oracle)) == parse_address(oracle.exploded)


@given(V6_VALUES | st.integers(0, 2**128 - 1))
def test_ipv6_is_spelled_canonically(value):
    """Lower case, the first longest run of two or more zero groups as `::`."""
    assume(value >> 32 != 0xFFFF)
    assert str(ipaddress.IPv6Address(value)) == str(Address(6, value))


@given(st.integers(0, 2**32 - 1))
def test_ipv4_is_spelled_in_dots(value):
    """Four decimal numbers."""
    assert str(ipaddress.IPv4Address(value)) == str(Address(4, value))


@pytest.mark.parametrize("text", ["010.0.0.1", "1.2.3.04", "1.2.3.4 ", "1.2.3.4/32", "1.2.3.٣"])
def test_ambiguous_ipv4_is_refused(text):
    """A leading zero could mean octal; blanks and other scripts' digits are no address."""
    with pytest.raises(ValueError, match=r"^invalid IP address: "):
        parse_address(text)


def test_mapped_address_is_ipv4():
    """Go has one value for 1.2.3.4 and ::ffff:1.2.3.4, so have we."""
    assert parse_address("1.2.3.4") == parse_address("::ffff:102:304")


@given(st.ip_addresses(), st.integers(0, 140))
def test_network_is_masked_as_by_ipaddress(oracle, prefix):
    """The address as written, and the network without host bits."""
    text = f"{oracle}/{prefix}"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        assert f"invalid CIDR address: {text}" == refused(parse_network, text)
        return
    expected = Cidr(network.version, int(network.network_address), network.prefixlen)
    assert (Address(oracle.version, int(oracle)), expected) == parse_network(text)


@pytest.mark.parametrize(
    "text",
    ["", "/", "10.0.0.0", "10.0.0.0/", "/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8",
     "10.0.0.0/255.0.0.0", "10.0.0/8", "::/129", "10.0.0.0/8/8", "10.0.0.0/ 8", "nope",
     "10.0.0.0/1000"],
)  # fmt: skip
def test_malformed_cidr_is_refused_with_gos_message(text):
    """The message is what people search the web for."""
    with pytest.raises(ValueError, match=r"^invalid CIDR address: ") as raised:
        parse_cidr(text)
    assert f"invalid CIDR address: {text}" == str(raised.value)


@given(cidrs())
def test_cidr_is_read_back(cidr):
    """The text of a CIDR names it."""
    assert cidr == parse_cidr(str(cidr))


@given(cidrs(), st.data())
def test_size_last_and_ordinals_agree(cidr, data):
    """An ordinal counts from the base, and the last one is one less than the size."""
    ordinal = data.draw(st.integers(0, cidr.size - 1))
    address = cidr.address(ordinal)
    assert cidr.base + ordinal == address.value
    assert cidr.contains(address)
    assert cidr == network_of(address, cidr.prefix)
    assert cidr.last == cidr.address(cidr.size - 1).value


@given(cidrs(version=4), st.integers(0, 2**32 - 1))
def test_contains_is_that_of_ipaddress(cidr, value):
    """An address lies in a network, or not."""
    expected = ipaddress.IPv4Address(value) in ipaddress.ip_network(str(cidr))
    assert expected == cidr.contains(Address(4, value))


@given(cidrs(version=6), st.integers(-2, 130), st.integers(0, 2**128 - 1))
def test_covers_and_overlaps_are_those_of_ipaddress(cidr, delta, bits):
    """Of networks near each other as of distant ones."""
    prefix = min(max(cidr.prefix + delta, 0), 128)
    value = cidr.base ^ (bits >> cidr.prefix if delta > 0 else bits)
    other = network_of(Address(6, value), prefix)
    mine, others = ipaddress.ip_network(str(cidr)), ipaddress.ip_network(str(other))
    assert others.subnet_of(mine) == cidr.covers(other)
    assert mine.overlaps(others) == cidr.overlaps(other) == other.overlaps(cidr)


def test_families_never_meet():
    """::/0 holds no IPv4 address, and 0.0.0.0/0 no IPv6 one."""
    v4, v6 = parse_cidr("0.0.0.0/0"), parse_cidr("::/0")
    assert not v6.contains(parse_address("1.2.3.4"))
    assert not v4.contains(parse_address("::1"))
    assert not v4.covers(v6)
    assert not v6.overlaps(v4)


def test_host_cidr_holds_one_address():
    """A /32 or a /128."""
    assert "10.0.0.7/32" == str(parse_address("10.0.0.7").host_cidr)
    assert "fd00::7/128" == str(parse_address("fd00::7").host_cidr)
