"""What is printed: results in the shape of each version, passed-on results, and errors."""

from __future__ import annotations

import json

import pytest

from cni_ipam.cni.result import (
    AssignedAddress,
    PrevResult,
    add_result,
    error_document,
    parse_prev_result,
    pass_through,
    print_result,
)
from cni_ipam.core.address import parse_address
from cni_ipam.errors import EnvironmentInvalid, NetconfError, PoolExhausted

V4 = AssignedAddress(parse_address("10.0.0.5"), 26)
V6 = AssignedAddress(parse_address("fd00::5"), 122)
V4_ROUTED = AssignedAddress(parse_address("10.0.0.5"), 24, parse_address("10.0.0.1"))
V6_ROUTED = AssignedAddress(parse_address("fd00::5"), 64, parse_address("fd00::1"))

CALICO_1_0_0 = """{
    "cniVersion": "1.0.0",
    "ips": [
        {
            "address": "10.0.0.5/26"
        },
        {
            "address": "fd00::5/122"
        }
    ],
    "routes": [
        {
            "dst": "10.0.0.5/26"
        },
        {
            "dst": "fd00::5/122"
        }
    ]
}"""

CALICO_0_4_0 = """{
    "cniVersion": "0.4.0",
    "ips": [
        {
            "version": "4",
            "address": "10.0.0.5/26"
        }
    ],
    "routes": [
        {
            "dst": "10.0.0.5/26"
        }
    ],
    "dns": {}
}"""

ROUTED_0_2_0 = """{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.0.0.5/24",
        "gateway": "10.0.0.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            }
        ]
    },
    "ip6": {
        "ip": "fd00::5/64",
        "gateway": "fd00::1",
        "routes": [
            {
                "dst": "::/0"
            }
        ]
    },
    "dns": {}
}"""


@pytest.mark.parametrize(
    ("version", "assigned", "expected"),
    [
        ("1.0.0", [V4, V6], CALICO_1_0_0),
        ("1.1.0", [V6, V4], CALICO_1_0_0.replace("1.0.0", "1.1.0")),
        ("0.4.0", [V4], CALICO_0_4_0),
        ("0.3.1", [V4], CALICO_0_4_0.replace("0.4.0", "0.3.1")),
        ("0.3.0", [V4], CALICO_0_4_0.replace("0.4.0", "0.3.0")),
        ("0.2.0", [V4_ROUTED, V6_ROUTED], ROUTED_0_2_0),
        ("0.1.0", [V6_ROUTED, V4_ROUTED], ROUTED_0_2_0.replace("0.2.0", "0.1.0")),
        ("", [V4_ROUTED, V6_ROUTED], ROUTED_0_2_0.replace("0.2.0", "0.1.0")),
    ],
)
def test_a_result_is_printed_as_the_go_library_does(version, assigned, expected):
    """To the byte, IPv4 first, without a line end (cni-081 to cni-087)."""
    assert expected == print_result(add_result(version, assigned))


def test_a_gateway_brings_one_default_route_of_each_family():
    """The route has no gateway of its own: the reader takes the address's."""
    second = AssignedAddress(parse_address("10.0.0.6"), 24, parse_address("10.0.0.1"))
    expected = {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.0.0.5/24", "gateway": "10.0.0.1"},
            {"address": "10.0.0.6/24", "gateway": "10.0.0.1"},
            {"address": "fd00::5/64", "gateway": "fd00::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    assert expected == add_result("1.1.0", [V4_ROUTED, second, V6_ROUTED])


def test_the_key_order_at_0_4_0_with_a_gateway():
    """The version comes first, the gateway last."""
    result = add_result("0.4.0", [V4_ROUTED])
    assert ["version", "address", "gateway"] == list(result["ips"][0])


def test_only_one_address_of_a_family_fits_before_0_3_0():
    """The library drops the others, too."""
    second = AssignedAddress(parse_address("10.0.0.6"), 26)
    assert "10.0.0.5/26" == add_result("0.2.0", [V4, second])["ip4"]["ip"]


def test_a_chained_result_drops_nothing():
    """Unknown fields, empty ones and nulls are handed on; the version is the configuration's."""
    prev_result = {"interfaces": [], "future": {"x": None}, "cniVersion": "1.0.0", "dns": {}}
    passed = pass_through(prev_result, "1.1.0")
    assert {**prev_result, "cniVersion": "1.1.0"} == passed
    assert "cniVersion" == next(iter(passed))


def test_a_chained_result_gets_a_version():
    """Before 1.0.0 it may have none."""
    assert {"cniVersion": "0.4.0", "ips": []} == pass_through({"ips": []}, "0.4.0")


def test_a_previous_result_of_today_is_read():
    """Addresses with their interface, interfaces with their sandbox."""
    prev_result = {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "veth1", "mac": "x"},
            {"name": "eth0", "sandbox": "/run/netns/x", "mtu": 1500},
        ],
        "ips": [
            {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"interface": 0, "address": "fd00::2/64"},
        ],
    }
    expected = PrevResult(
        ((parse_address("10.0.0.2"), 1), (parse_address("fd00::2"), 0)),
        (("veth1", ""), ("eth0", "/run/netns/x")),
    )
    assert expected == parse_prev_result(prev_result)


def test_a_previous_result_of_old_is_read():
    """One object for each family, no interfaces."""
    prev_result = {"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64"}, "dns": {}}
    expected = ((parse_address("10.0.0.2"), None), (parse_address("fd00::2"), None))
    assert PrevResult(expected, ()) == parse_prev_result(prev_result)


@pytest.mark.parametrize("index", [None, -1, 1, 7])
def test_an_index_may_point_nowhere(index):
    """Some plugins leave it out or write -1."""
    item = {"address": "10.0.0.2/24", **({} if index is None else {"interface": index})}
    prev_result = {"interfaces": [{"name": "eth0"}], "ips": [item]}
    expected = ((parse_address("10.0.0.2"), None),)
    assert expected == parse_prev_result(prev_result).addresses


@pytest.mark.parametrize("prev_result", [{}, {"ips": None, "interfaces": None, "ip4": None}])
def test_a_previous_result_may_hold_nothing(prev_result):
    """Loopback's, for one."""
    assert PrevResult((), ()) == parse_prev_result(prev_result)


@pytest.mark.parametrize(
    "prev_result",
    [
        {"ips": {}},
        {"ips": ["10.0.0.2/24"]},
        {"ips": [{}]},
        {"ips": [{"address": "x"}]},
        {"ips": [{"address": "10.0.0.2/99"}]},
        {"ips": [{"address": 5}]},
        {"ips": [{"address": "10.0.0.2/24", "interface": "0"}]},
        {"ips": [{"address": "10.0.0.2/24", "interface": 0.5}]},
        {"interfaces": "eth0"},
        {"interfaces": [None]},
        {"interfaces": [{"name": 5}]},
        {"ip4": []},
        {"ip6": {}},
    ],
)
def test_a_malformed_previous_result_is_refused(prev_result):
    """An earlier plugin's fault, said as such."""
    with pytest.raises(NetconfError, match="could not parse prevResult"):
        parse_prev_result(prev_result)


def test_an_error_is_one_document():
    """Code, message, details, and the version that the specification wants."""
    error = PoolExhausted("no address", "10.0.0.0/24: 256 of 256 in use")
    expected = {
        "cniVersion": "1.0.0",
        "code": 101,
        "msg": "no address",
        "details": "10.0.0.0/24: 256 of 256 in use",
    }
    text = error_document(error, "1.0.0")
    assert list(expected.items()) == list(json.loads(text).items())
    assert text.startswith('{\n    "cniVersion"')


def test_an_error_without_details_has_no_such_key():
    """As the library omits it."""
    assert "details" not in json.loads(error_document(EnvironmentInvalid("x")))


def test_an_error_is_escaped_as_in_go():
    """Calico's `<nil>` looks like this."""
    assert r'"msg": "\u003cnil\u003e \u0026"' in error_document(EnvironmentInvalid("<nil> &"))


def test_an_error_is_utf_8_whatever_it_quotes():
    """The environment's bytes may not be."""
    assert "\ufffd" == json.loads(error_document(EnvironmentInvalid("\udcff")))["msg"]
