"""Under the name calico-ipam the plugin prints Calico's own bytes, and leaves routes to Calico."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.network import find_obstacle

if TYPE_CHECKING:
    from integration.network import Json, Node

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

PLAIN = """\
{
    "cniVersion": "VERSION",
    "ips": [
        {
            "address": "10.90.0.0/26"
        },
        {
            "address": "fd00:90::/122"
        }
    ],
    "routes": [
        {
            "dst": "10.90.0.0/26"
        },
        {
            "dst": "fd00:90::/122"
        }
    ]
}"""
WITH_FAMILY = """\
{
    "cniVersion": "VERSION",
    "ips": [
        {
            "version": "4",
            "address": "10.90.0.0/26"
        },
        {
            "version": "6",
            "address": "fd00:90::/122"
        }
    ],
    "routes": [
        {
            "dst": "10.90.0.0/26"
        },
        {
            "dst": "fd00:90::/122"
        }
    ],
    "dns": {}
}"""
ONE_OF_EACH = """\
{
    "cniVersion": "VERSION",
    "ip4": {
        "ip": "10.90.0.0/26",
        "routes": [
            {
                "dst": "10.90.0.0/26"
            }
        ]
    },
    "ip6": {
        "ip": "fd00:90::/122",
        "routes": [
            {
                "dst": "fd00:90::/122"
            }
        ]
    },
    "dns": {}
}"""
REQUESTED = """\
{
    "cniVersion": "1.0.0",
    "ips": [
        {
            "address": "10.90.0.7/32"
        }
    ],
    "routes": [
        {
            "dst": "10.90.0.7/32"
        }
    ]
}"""


def calicos(version: str) -> Json:
    """What Calico's main plugin hands on, with the embedded datastore."""
    pools = [
        {"name": "four", "spec": {"cidr": "10.90.0.0/26", "blockSize": 26}},
        {"name": "six", "spec": {"cidr": "fd00:90::/122", "blockSize": 122}},
    ]
    ipam = {"type": "calico-ipam", "assign_ipv6": "true", "default_pools": pools}
    named = {"cniVersion": version} if version else {}
    return named | {"name": "net", "type": "calico", "datastore_type": "sqlite", "ipam": ipam}


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("", ONE_OF_EACH),
        ("0.1.0", ONE_OF_EACH),
        ("0.2.0", ONE_OF_EACH),
        ("0.3.0", WITH_FAMILY),
        ("0.3.1", WITH_FAMILY),
        ("0.4.0", WITH_FAMILY),
        ("1.0.0", PLAIN),
        ("1.1.0", PLAIN),
    ],
)
def test_calicos_name_gives_calicos_bytes(node: Node, version: str, text: str) -> None:
    """The block's mask, no gateway, each address as its own route; and no line end."""
    done = node.call_plugin("ADD", calicos(version), name="calico-ipam")

    assert text.replace("VERSION", version or "0.1.0") == done.stdout


def test_calicos_name_gives_calicos_bytes_on_request(node: Node) -> None:
    """The full mask, and the requested address alone."""
    done = node.call_plugin("ADD", calicos("1.0.0"), name="calico-ipam", args="IP=10.90.0.7")

    assert REQUESTED == done.stdout


def test_calicos_name_leaves_routes_to_calico(node: Node) -> None:
    """Felix and BIRD own them."""
    done = node.call_plugin("ADD", calicos("1.0.0"), name="calico-ipam")

    assert 0 == done.returncode
    assert [] == node.namespace.routes(4)
    assert [] == node.namespace.routes(6, "type", "blackhole")
