"""What both route adapters do to a real kernel; `ip` is the witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.errors import RouteError
from cni_ipam.routes.plan import RouteSettings

if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr
    from integration.routes.conftest import Node

ELSEWHERE = RouteSettings(host=True, blackhole=True, proto=85, table=1000)
BLOCKS = {4: parse_cidr("10.9.0.64/26"), 6: parse_cidr("fd00:9::40/122")}
PODS = {4: parse_address("10.9.0.65"), 6: parse_address("fd00:9::41")}


# Blackholes


def test_added_blackhole_is_in_the_kernel(node: Node, version: int) -> None:
    """It has our protocol, is in the main table, and is of the type blackhole."""
    held = node.do("add_blackhole", BLOCKS[version])

    assert held is True
    assert [(str(BLOCKS[version]), "85")] == node.blackholes(version)


def test_blackhole_may_be_added_twice(node: Node, version: int) -> None:
    """The second time changes nothing and is no error."""
    node.do("add_blackhole", BLOCKS[version])

    held = node.do("add_blackhole", BLOCKS[version])

    assert held is True
    assert [(str(BLOCKS[version]), "85")] == node.blackholes(version)


def test_missing_blackhole_is_not_there(node: Node, version: int) -> None:
    """Neither in an empty table nor among routes of other prefixes."""
    before = node.do("has_blackhole", BLOCKS[version])
    node.do("add_blackhole", parse_cidr({4: "10.9.0.64/27", 6: "fd00:9::40/123"}[version]))

    after = node.do("has_blackhole", BLOCKS[version])

    assert (False, False) == (before, after)


def test_added_blackhole_is_there(node: Node, version: int) -> None:
    """It is found by its exact prefix."""
    node.do("add_blackhole", BLOCKS[version])

    found = node.do("has_blackhole", BLOCKS[version])

    assert found is True


def test_blackhole_of_another_protocol_counts_as_there(node: Node, version: int) -> None:
    """BIRD's serves as well as ours."""
    node.host.ip("route", "add", "blackhole", str(BLOCKS[version]), "proto", "12")

    found = node.do("has_blackhole", BLOCKS[version])

    assert found is True


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "throw"])
def test_other_types_of_route_are_no_blackholes(node: Node, version: int, kind: str) -> None:
    """They answer the sender, or send the packet on to the next table."""
    node.host.ip("route", "add", kind, str(BLOCKS[version]))

    found = node.do("has_blackhole", BLOCKS[version])

    assert found is False


def test_blackhole_in_another_table_does_not_count(node: Node, version: int) -> None:
    """Nobody looks into a table that no rule names."""
    node.host.ip("route", "add", "blackhole", str(BLOCKS[version]), "table", "100")

    found = node.do("has_blackhole", BLOCKS[version])

    assert found is False


def test_blackhole_of_another_protocol_is_left_alone_by_add(node: Node, version: int) -> None:
    """It keeps its protocol and its place, and the block is held."""
    word = "blackhole", str(BLOCKS[version]), "proto", "12"
    node.host.ip("route", "add", *word)

    held = node.do("add_blackhole", BLOCKS[version])

    assert held is True
    assert [(str(BLOCKS[version]), "bird")] == node.blackholes(version)


def test_directly_connected_network_is_left_alone_by_add(node: Node) -> None:
    """A pool that overlaps the node's own network must not cut the node off from it."""
    node.add_pod()
    node.host.ip("address", "add", "10.9.0.66/26", "dev", "veth0")

    held = node.do("add_blackhole", BLOCKS[4])

    assert held is False
    assert ["veth0"] == [route["dev"] for route in node.routes_to(4, BLOCKS[4])]


def test_removed_blackhole_is_gone(node: Node, version: int) -> None:
    """And nothing else: another block of ours stays."""
    other = parse_cidr({4: "10.9.1.0/26", 6: "fd00:9::100/122"}[version])
    node.do("add_blackhole", BLOCKS[version])
    node.do("add_blackhole", other)

    node.do("remove_blackhole", BLOCKS[version])

    assert [(str(other), "85")] == node.blackholes(version)


def test_missing_blackhole_may_be_removed(node: Node, version: int) -> None:
    """Removing what is not there is no error."""
    node.do("remove_blackhole", BLOCKS[version])

    assert [] == node.blackholes(version)


def test_blackhole_of_another_protocol_is_not_removed(node: Node, version: int) -> None:
    """It is not ours."""
    node.host.ip("route", "add", "blackhole", str(BLOCKS[version]), "proto", "12")

    node.do("remove_blackhole", BLOCKS[version])

    assert [(str(BLOCKS[version]), "bird")] == node.blackholes(version)


def test_only_the_blackhole_of_a_prefix_is_removed(node: Node, version: int) -> None:
    """A device route of the same prefix and even the same protocol stays."""
    node.add_pod()
    node.do("add_blackhole", BLOCKS[version])
    route = str(BLOCKS[version]), "dev", "veth0", "proto", "85", "metric", "7"
    node.host.ip("route", "add", *route)

    node.do("remove_blackhole", BLOCKS[version])

    assert ["veth0"] == [route["dev"] for route in node.routes_to(version, BLOCKS[version])]


def test_own_blackholes_are_listed(node: Node) -> None:
    """Those of both families; none of another protocol, and no other type."""
    node.host.ip("route", "add", "blackhole", "10.8.0.0/26", "proto", "80")
    node.host.ip("route", "add", "unreachable", "10.7.0.0/26", "proto", "85")
    for block in BLOCKS.values():
        node.do("add_blackhole", block)

    listed = node.do("list_blackholes")

    assert [BLOCKS[4], BLOCKS[6]] == listed


def test_no_blackholes_are_listed_in_an_empty_namespace(node: Node) -> None:
    """Also where the table has never existed."""
    listed = [node.do("list_blackholes"), node.do("list_blackholes", settings=ELSEWHERE)]

    assert [[], []] == listed


def test_blackholes_live_in_the_table_of_the_settings(node: Node, version: int) -> None:
    """A table number over 255 does not fit the old field of the message."""
    node.do("add_blackhole", BLOCKS[version], settings=ELSEWHERE)

    listed = node.do("list_blackholes", settings=ELSEWHERE)
    found = node.do("has_blackhole", BLOCKS[version], settings=ELSEWHERE)
    listed_in_main = node.do("list_blackholes")

    assert ([BLOCKS[version]], True, []) == (listed, found, listed_in_main)
    assert [(str(BLOCKS[version]), "85")] == node.blackholes(version, "1000")
    node.do("remove_blackhole", BLOCKS[version], settings=ELSEWHERE)
    assert [] == node.blackholes(version, "1000")


def test_one_blackhole_is_found_among_thousands(node: Node, version: int) -> None:
    """A dump of many datagrams is read to its end."""
    many = [f"10.{i >> 8}.{i & 255}.0/26" for i in range(3000)]
    if version == 6:
        many = [f"fd00:{i + 1:x}::/122" for i in range(3000)]
    batch = "".join(f"route add blackhole {cidr} proto 85\n" for cidr in many)
    node.host.run("ip", "-batch", "-", input=batch)

    found = node.do("has_blackhole", parse_cidr(many[-1]))
    listed = node.do("list_blackholes")

    assert found is True
    assert {parse_cidr(cidr) for cidr in many} == set(listed)


# Host routes


def test_host_route_takes_the_place_of_the_one_that_ptp_made(node: Node, version: int) -> None:
    """One route for the address remains: ours, to the same device."""
    node.add_pod()
    node.add_ptp_route(PODS[version])

    node.do("replace_host_route", PODS[version], "veth0")

    found = node.routes_to(version, PODS[version])
    assert [("veth0", "85")] == [(route["dev"], route["protocol"]) for route in found]


def test_host_route_has_link_scope(node: Node) -> None:
    """So that it can be the next hop's route, and BIRD sees Calico's own shape (IPv4 only)."""
    node.add_pod()
    node.add_ptp_route(PODS[4])

    node.do("replace_host_route", PODS[4], "veth0")

    assert ["link"] == [route["scope"] for route in node.routes_to(4, PODS[4])]


def test_host_route_needs_no_earlier_one(node: Node, version: int) -> None:
    """An interface plugin need not make one."""
    node.add_pod()

    node.do("replace_host_route", PODS[version], "veth0")

    assert ["veth0"] == [route["dev"] for route in node.routes_to(version, PODS[version])]


def test_host_route_may_be_replaced_twice(node: Node, version: int) -> None:
    """The second time changes nothing and is no error."""
    node.add_pod()
    node.do("replace_host_route", PODS[version], "veth0")

    node.do("replace_host_route", PODS[version], "veth0")

    assert ["85"] == [route["protocol"] for route in node.routes_to(version, PODS[version])]


def test_host_route_moves_to_the_new_interface(node: Node, version: int) -> None:
    """An address that is given again leads to its new pod, though the old veth is still there."""
    node.add_pod("veth0")
    node.add_pod("veth1")
    node.do("replace_host_route", PODS[version], "veth0")

    node.do("replace_host_route", PODS[version], "veth1")

    assert ["veth1"] == [route["dev"] for route in node.routes_to(version, PODS[version])]


def test_removed_host_route_is_gone(node: Node, version: int) -> None:
    """No route for the address remains."""
    node.add_pod()
    node.do("replace_host_route", PODS[version], "veth0")

    node.do("remove_host_route", PODS[version])

    assert [] == node.routes_to(version, PODS[version])


def test_missing_host_route_may_be_removed(node: Node, version: int) -> None:
    """Also one that is there, but is not ours: it stays."""
    node.add_pod()
    node.do("remove_host_route", PODS[version])
    node.add_ptp_route(PODS[version])

    node.do("remove_host_route", PODS[version])

    assert ["veth0"] == [route["dev"] for route in node.routes_to(version, PODS[version])]


def test_own_host_routes_are_listed_with_their_devices(node: Node) -> None:
    """Of both families; not those of the interface plugin, not those of a longer prefix."""
    node.add_pod("veth0")
    node.add_pod("veth1")
    node.add_ptp_route("10.9.0.70")
    node.host.ip("route", "add", "10.6.0.0/24", "dev", "veth0", "proto", "85")
    node.do("replace_host_route", PODS[4], "veth0")
    node.do("replace_host_route", PODS[6], "veth1")

    listed = node.do("list_host_routes")

    assert [(PODS[4], "veth0"), (PODS[6], "veth1")] == listed


def test_host_routes_live_in_the_table_of_the_settings(node: Node, version: int) -> None:
    """The main table's route of the same address is not touched."""
    node.add_pod()
    node.add_ptp_route(PODS[version])

    node.do("replace_host_route", PODS[version], "veth0", settings=ELSEWHERE)

    listed = node.do("list_host_routes", settings=ELSEWHERE)
    assert [(PODS[version], "veth0")] == listed
    assert [None] == [route.get("protocol") for route in node.routes_to(version, PODS[version])]


def test_host_route_goes_with_its_interface(node: Node, version: int) -> None:
    """Nothing has to remove it when the pod is deleted."""
    node.add_pod()
    node.do("replace_host_route", PODS[version], "veth0")

    node.host.ip("link", "delete", "veth0")

    assert [] == node.do("list_host_routes")
    assert [] == node.routes_to(version, PODS[version])


def test_blackhole_stays_when_the_pod_goes(node: Node, version: int) -> None:
    """It belongs to the block, not to a pod."""
    node.add_pod()
    node.do("add_blackhole", BLOCKS[version])
    node.do("replace_host_route", PODS[version], "veth0")

    node.host.ip("link", "delete", "veth0")

    assert [(str(BLOCKS[version]), "85")] == node.blackholes(version)


def test_pod_beats_the_blackhole_around_it(node: Node, version: int) -> None:
    """The longest prefix wins; an address of the block that no pod has leads nowhere."""
    node.add_pod()
    node.do("add_blackhole", BLOCKS[version])
    node.do("replace_host_route", PODS[version], "veth0")

    live = node.host.ip_json("route", "get", str(PODS[version]))
    unused = node.host.run("ip", "route", "get", str(BLOCKS[version].address(9)), check=False)

    assert "veth0" == live[0]["dev"]
    assert unused.returncode != 0
    assert "Invalid argument" in unused.stderr


# Refusals


def test_blackhole_without_the_capability_is_refused(node: Node, version: int) -> None:
    """The error names operation, prefix, reason and remedy."""
    with pytest.raises(RouteError) as raised:
        node.do_unprivileged("add_blackhole", BLOCKS[version])

    expected = (
        f"cannot add blackhole route {BLOCKS[version]} in table 254: "
        "Operation not permitted: CAP_NET_ADMIN is missing"
    )
    assert (expected, 120) == (raised.value.msg, raised.value.code)
    assert "CAP_NET_ADMIN" in raised.value.details
    assert [] == node.blackholes(version)


def test_host_route_without_the_capability_is_refused(node: Node, version: int) -> None:
    """The error names the device as well, and the interface plugin's route stays."""
    node.add_pod()
    node.add_ptp_route(PODS[version])

    with pytest.raises(RouteError) as raised:
        node.do_unprivileged("replace_host_route", PODS[version], "veth0")

    prefix = PODS[version].host_cidr
    assert f"cannot replace host route {prefix} dev veth0" in raised.value.msg
    assert "CAP_NET_ADMIN is missing" in raised.value.msg
    assert 1 == len(node.routes_to(version, PODS[version]))


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [("remove_blackhole", BLOCKS[4]), ("remove_host_route", PODS[4])],
)
def test_removal_without_the_capability_is_refused(node: Node, verb: str, wanted: Cidr) -> None:
    """Not taken for a route that is not there."""
    with pytest.raises(RouteError, match="Operation not permitted"):
        node.do_unprivileged(verb, wanted)


def test_blackholes_are_looked_up_without_the_capability(node: Node, version: int) -> None:
    """Reading needs no privilege: CHECK and `ipamctl` may be run without."""
    node.do("add_blackhole", BLOCKS[version])

    found = node.do_unprivileged("has_blackhole", BLOCKS[version])

    assert found is True


def test_host_route_to_a_missing_device_is_refused(node: Node, version: int) -> None:
    """The error names the device."""
    with pytest.raises(RouteError) as raised:
        node.do("replace_host_route", PODS[version], "veth9")

    expected = f"cannot replace host route {PODS[version].host_cidr} dev veth9: No such device"
    assert expected == raised.value.msg
    assert raised.value.details


def test_kernels_own_words_are_passed_on(node: Node, version: int) -> None:
    """An interface that is down: the extended acknowledgement says more than the errno."""
    node.add_pod()
    node.host.ip("link", "set", "veth0", "down")

    with pytest.raises(RouteError) as raised:
        node.do("replace_host_route", PODS[version], "veth0")

    words = {4: "Device for nexthop is not up", 6: "Nexthop device is not up"}[version]
    assert f"Network is down ({words})" in raised.value.msg
