"""Which routes a node should have, and what a refusal says."""

from __future__ import annotations

import errno

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.routes.plan import (
    FoundLink,
    RouteSettings,
    is_host_device,
    name_host_device,
    refusal,
    wanted_blackholes,
)

BLOCKS = [parse_cidr(text) for text in ("10.0.0.0/26", "10.0.0.64/26", "fd00::/122")]


def test_every_block_is_wanted_as_a_blackhole() -> None:
    """Both families, in the order given."""
    assert BLOCKS == wanted_blackholes(iter(BLOCKS))


def test_block_of_a_single_address_is_not_wanted() -> None:
    """Its blackhole would be the pod's own prefix."""
    single = [parse_cidr("10.0.0.7/32"), parse_cidr("fd00::7/128")]

    assert [] == wanted_blackholes(single)


def test_prefix_of_32_bits_is_wanted_for_ipv6() -> None:
    """A /32 is a single address in IPv4 only."""
    wide = parse_cidr("fd00:1::/32")

    assert [wide] == wanted_blackholes([wide])


def test_block_given_twice_is_wanted_once() -> None:
    """Two affinities may name it during a transfer."""
    assert BLOCKS[:1] == wanted_blackholes([BLOCKS[0], BLOCKS[0]])


def test_routes_are_marked_with_protocol_85_in_the_main_table() -> None:
    """Felix owns 80, BIRD 12, the kernel and the administrator 2 to 4."""
    settings = RouteSettings(host=True, blackhole=True)

    assert (85, 254) == (settings.proto, settings.table)


def _link(index: int, peer: int, peer_namespace: int | None) -> FoundLink:
    return FoundLink(index, "veth0", "veth", peer, peer_namespace, 0)


def test_links_that_name_each_other_are_a_pair() -> None:
    """Index and namespace of the pod's end agree."""
    assert is_host_device(_link(7, 2, 5), _link(2, 7, None), 5)


@pytest.mark.parametrize(
    "link",
    [_link(7, 3, 5), _link(7, 2, 6), _link(7, 2, None), _link(7, 0, None)],
    ids=["another index", "another namespace", "our namespace", "no peer"],
)
def test_link_that_leads_elsewhere_is_no_pair(link: FoundLink) -> None:
    """The pod's interface names it, as a macvlan names its parent; it does not answer."""
    assert not is_host_device(link, _link(2, 7, None), 5)


@pytest.mark.parametrize(
    ("kind", "expected"), [("bridge", "cni0"), ("vrf", "veth0"), ("", "veth0")]
)
def test_only_a_bridge_stands_for_its_port(kind: str, expected: str) -> None:
    """A port of anything else is a device that routes can name."""
    master = FoundLink(4, "cni0", kind, 0, None, 0)

    assert expected == name_host_device(_link(7, 2, 5), master)


def test_link_without_a_master_stands_for_itself() -> None:
    """As under ptp."""
    assert "veth0" == name_host_device(_link(7, 2, 5), None)


def test_refusal_names_operation_and_reason() -> None:
    """With the code of route errors."""
    error = refusal("add blackhole route 10.0.0.0/26", errno.EINVAL, "Invalid argument")

    assert "cannot add blackhole route 10.0.0.0/26: Invalid argument" == error.msg
    assert 120 == error.code


def test_refused_permission_names_the_capability() -> None:
    """In the message, since people search for it, and in what to do."""
    error = refusal("add blackhole route 10.0.0.0/26", errno.EPERM, "Operation not permitted")

    assert error.msg.endswith("Operation not permitted: CAP_NET_ADMIN is missing")
    assert error.details.startswith("run with CAP_NET_ADMIN")


@pytest.mark.parametrize("number", [*errno.errorcode, None])
def test_every_refusal_says_what_to_do(number: int | None) -> None:
    """Also for an errno that nobody has thought of."""
    assert refusal("list IPv4 routes", number, None).details
