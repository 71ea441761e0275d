"""Which CNI versions are spoken, and which verb at which."""

from __future__ import annotations

import json

import pytest

from cni_ipam.cni.version import SUPPORTED, check_version, parse_version, version_reply
from cni_ipam.errors import CniIpamError, DecodeError, VersionError


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_add_and_del_are_served_at_every_version(version: str, command: str) -> None:
    """No version that VERSION names is refused."""
    check_version(version, command)


@pytest.mark.parametrize("version", ["9.9.9", "1.0", "1.1.0-rc1", "v1.0.0", "adsfsadf", " 1.0.0"])
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_add_and_del_want_exactly_one_of_the_versions(version: str, command: str) -> None:
    """Membership is letter by letter: a garbled version is code 1 there, not 6 (cni-045, 047)."""
    with pytest.raises(VersionError) as raised:
        check_version(version, command)
    assert (1, "incompatible CNI versions") == (raised.value.code, raised.value.msg)


def test_the_details_name_both_sides() -> None:
    """Both are printed as Go prints them."""
    with pytest.raises(VersionError) as raised:
        check_version("9.9.9", "ADD")
    expected = (
        'config is "9.9.9", plugin supports '
        '["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]'
    )
    assert expected == raised.value.details


@pytest.mark.parametrize(
    ("version", "command", "code", "text"),
    [
        ("0.3.1", "CHECK", 1, "config version does not allow CHECK"),
        ("", "CHECK", 1, "config version does not allow CHECK"),
        ("1.0.0", "GC", 1, "config version does not allow GC"),
        ("1.0.0", "STATUS", 1, "config version does not allow STATUS"),
        ("9.9.9", "STATUS", 1, "plugin version does not allow STATUS"),
        ("1.0", "CHECK", 1, "incompatible CNI versions"),
        ("adsfsadf", "CHECK", 6, 'failed to convert major version part "adsfsadf"'),
        ("adsfsadf", "GC", 6, 'failed to convert major version part "adsfsadf"'),
        ("adsfsadf", "STATUS", 6, 'failed to convert major version part "adsfsadf"'),
        ("1.1.0-rc1", "STATUS", 6, 'failed to convert micro version part "0-rc1"'),
        ("1.x.0", "GC", 6, 'failed to convert minor version part "x"'),
        ("1.1.0.0", "GC", 6, 'invalid version "1.1.0.0": too many parts'),
        ("1.1.\u0661", "GC", 6, "failed to convert micro version part"),
    ],
)
def test_check_gc_and_status_compare_numbers_first(
    version: str, command: str, code: int, text: str
) -> None:
    """A version without numbers is not JSON's fault but still code 6 (cni-049 to cni-060)."""
    with pytest.raises(CniIpamError) as raised:
        check_version(version, command)
    assert code == raised.value.code
    assert text in raised.value.msg


@pytest.mark.parametrize(
    ("version", "command"),
    [("0.4.0", "CHECK"), ("1.1.0", "CHECK"), ("1.1.0", "GC"), ("1.1.0", "STATUS"), ("", "ADD")],
)
def test_a_verb_is_served_from_the_version_that_brought_it(version: str, command: str) -> None:
    """The bound itself is included; an empty version is 0.1.0."""
    check_version(version, command)


def test_absent_numbers_of_a_version_are_zero() -> None:
    """As the reference library counts."""
    assert (1, 0, 0) == parse_version("1")


def test_a_number_too_long_for_go_is_refused() -> None:
    """Python would take it."""
    with pytest.raises(DecodeError):
        parse_version("1" * 30)


def test_the_version_reply_is_one_line() -> None:
    """Its own version and the list."""
    reply = version_reply("1.1.0")
    assert reply.index("\n") == len(reply) - 1
    assert {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)} == json.loads(reply)
