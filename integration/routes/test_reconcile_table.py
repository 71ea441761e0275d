"""The kernel's side of a reconciliation, verb by verb; `ip` is the witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.errors import RouteError
from cni_ipam.lean.record import replace
from cni_ipam.routes.events import RouteEvents
from cni_ipam.routes.judgement import ADD, METRICS, REMOVE, SET, Change, Device, KernelRoute
from cni_ipam.routes.plan import BLACKHOLE, RouteSettings
from cni_ipam.routes.table import RouteTable
from integration.netns import drop_net_admin
from integration.network import becomes_true, find_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from integration.netns import Lab, Namespace

pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason=str(find_obstacle()))

SETTINGS = RouteSettings(host=True, blackhole=True)
BLOCKS = {4: "10.9.0.64/26", 6: "fd00:9::40/122"}
PODS = {4: "10.9.0.65", 6: "fd00:9::41"}


class Host:
    """A node in whose namespace the table is worked on."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespace = lab.namespace("node")
        self.ip = self.namespace.ip

    def do(self, verb: str, *arguments: Any, settings: RouteSettings = SETTINGS) -> Any:
        """One verb of a fresh RouteTable inside."""
        return self.namespace.call(_do, verb, arguments, settings, True)

    def do_unprivileged(self, verb: str, *arguments: Any) -> Any:
        """The same without CAP_NET_ADMIN."""
        return self.namespace.call(_do, verb, arguments, SETTINGS, False)

    def add_pod(self, device: str = "veth0", *addresses: str) -> Namespace:
        """A pod with these addresses behind a veth pair."""
        pod = self.lab.namespace("pod")
        self.lab.veth(self.namespace, device, pod, "eth0")
        for address in addresses:
            pod.ip("address", "add", str(parse_address(address).host_cidr), "dev", "eth0")
        return pod

    def devices(self, *addresses: str) -> dict[str, list[str]]:
        """The names of the interfaces that lead to these addresses."""
        found = self.do("find_devices", {parse_address(text) for text in addresses})
        return {str(address): sorted(d.name for d in devices) for address, devices in found.items()}


def _do(verb: str, arguments: tuple[Any, ...], settings: RouteSettings, privileged: bool) -> Any:
    if not privileged:
        drop_net_admin()
    table = RouteTable(settings)
    try:
        return getattr(table, verb)(*arguments)
    finally:
        table.close()


@pytest.fixture
def host(lab: Lab) -> Host:
    return Host(lab)


def blackhole(version: int) -> KernelRoute:
    device = Device(1, "lo") if version == 6 else None
    cidr = parse_cidr(BLOCKS[version])
    return KernelRoute(cidr, BLACKHOLE, 85, METRICS[version], device=device)


def host_route(host: Host, version: int, device: str = "veth0") -> KernelRoute:
    (link,) = host.namespace.ip_json("link", "show", "dev", device)
    cidr = parse_address(PODS[version]).host_cidr
    return KernelRoute(cidr, 1, 85, METRICS[version], 253, Device(link["ifindex"], device))


# Reading


def test_routes_of_both_families_are_read_with_all_that_matters(host):
    """One with a metric, one through a gateway, a blackhole of each family."""
    host.add_pod()
    host.ip("address", "add", "192.0.2.1/24", "dev", "veth0")
    host.ip("route", "add", "10.9.1.0/24", "dev", "veth0", "metric", "7", "proto", "static")
    host.ip("route", "add", "10.9.2.0/24", "via", "192.0.2.9", "proto", "bird")
    for version in (4, 6):
        host.do("apply", Change(ADD, blackhole(version)))

    found = [route for route in host.do("read") if route.cidr != parse_cidr("fe80::/64")]

    expected = {
        "192.0.2.0/24 dev veth0 proto kernel",
        "10.9.1.0/24 dev veth0 proto static",
        "10.9.2.0/24 via a gateway dev veth0 proto bird",
        "blackhole 10.9.0.64/26 proto 85",
        "blackhole fd00:9::40/122 proto 85",
    }
    assert expected == {str(route) for route in found}
    assert {7} == {route.metric for route in found if route.cidr == parse_cidr("10.9.1.0/24")}


def test_what_was_made_is_read_as_it_was_meant(host):
    """So that a second plan finds nothing to change."""
    host.add_pod()
    made = [blackhole(4), blackhole(6), host_route(host, 4), host_route(host, 6)]
    for route in made:
        host.do("apply", Change(SET, route))

    # IPv6 keeps no scope.
    found = [replace(route, scope=0) for route in host.do("read")]

    assert [] == [route for route in made if replace(route, scope=0) not in found]


def test_routes_of_other_tables_are_left_out(host):
    """Ours may be any."""
    host.ip("route", "add", "blackhole", "10.9.1.0/24", "table", "1000")
    host.ip("route", "add", "blackhole", "10.9.2.0/24")
    elsewhere = RouteSettings(host=True, blackhole=True, table=1000)

    found = [host.do("read"), host.do("read", settings=elsewhere)]

    assert [["10.9.2.0/24"], ["10.9.1.0/24"]] == [[str(r.cidr) for r in part] for part in found]


def test_a_route_through_several_gateways_leads_to_no_device(host):
    """It is nobody's host route."""
    host.add_pod()
    host.ip("address", "add", "192.0.2.1/24", "dev", "veth0")
    hops = ("nexthop", "via", "192.0.2.8", "nexthop", "via", "192.0.2.9")
    host.ip("route", "add", "10.9.0.65/32", *hops)

    (found,) = [r for r in host.do("read") if str(r.cidr) == "10.9.0.65/32"]

    assert not found.leads_to_device


# Changing


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_added_is_not_added_over_anything(host, version):
    """Somebody was first: told, and theirs stays."""
    host.add_pod()
    host.ip("route", "add", BLOCKS[version], "dev", "veth0", "proto", "static")

    words = f"cannot add blackhole {BLOCKS[version]} proto 85 in table 254: File exists"
    with pytest.raises(RouteError, match=words):
        host.do("apply", Change(ADD, blackhole(version)))

    assert ["static"] == [r["protocol"] for r in host.namespace.routes(version, BLOCKS[version])]


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_removed_may_be_gone(host, version):
    """That is what was wanted."""
    host.do("apply", Change(REMOVE, blackhole(version)))

    assert [] == host.namespace.routes(version, "type", "blackhole")


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_route_that_is_meant_is_removed(host, version):
    """Others for the same destination differ in metric or protocol."""
    for metric, proto in ((5, "85"), (METRICS[version] or 9, "85"), (7, "bird")):
        words = ("proto", proto, "metric", str(metric))
        host.ip("route", "add", "blackhole", BLOCKS[version], *words)
    meant = next(r for r in host.do("read") if (r.metric, r.proto) == (5, 85))

    host.do("apply", Change(REMOVE, meant))

    left = host.namespace.routes(version, "type", "blackhole")
    assert {METRICS[version] or 9, 7} == {route["metric"] for route in left}


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_set_takes_the_place(host, version):
    """Of the interface plugin's route, and of one to another device."""
    host.add_pod("veth0")
    host.add_pod("veth1")
    address = f"{parse_address(PODS[version]).host_cidr}"
    host.ip("route", "add", address, "dev", "veth1", "proto", "boot")

    host.do("apply", Change(SET, host_route(host, version)))

    (route,) = host.namespace.routes(version, "exact", address)
    assert ("veth0", "85") == (route["dev"], route["protocol"])


def test_without_the_capability_nothing_is_changed(host):
    """The refusal says what is missing."""
    with pytest.raises(RouteError, match="CAP_NET_ADMIN is missing"):
        host.do_unprivileged("apply", Change(ADD, blackhole(4)))

    assert [] == host.namespace.routes(4)


# Which interface leads to a pod


def test_the_interfaces_of_pods_are_found_by_their_addresses(host):
    """Of both families, and no others than those asked for."""
    host.add_pod("veth0", PODS[4], PODS[6])
    host.add_pod("veth1", "10.9.0.66", "10.9.0.67")

    found = host.devices(PODS[4], PODS[6], "10.9.0.66", "10.9.0.99")

    assert {PODS[4]: ["veth0"], PODS[6]: ["veth0"], "10.9.0.66": ["veth1"]} == found


def test_under_a_bridge_the_bridge_is_found(host):
    """Packets have to leave through it."""
    host.add_pod("veth0", PODS[4])
    host.lab.bridge(host.namespace, "cni0", "veth0")

    assert {PODS[4]: ["cni0"]} == host.devices(PODS[4])


def test_two_pods_with_one_address_are_both_found(host):
    """Which of them is meant is not decided here."""
    for device in ("veth0", "veth1"):
        host.add_pod(device, PODS[4])

    assert {PODS[4]: ["veth0", "veth1"]} == host.devices(PODS[4])


def test_a_pod_whose_interface_has_no_peer_here_is_not_found(host):
    """A macvlan's parent does not lead to it."""
    host.add_pod("veth0")
    pod = host.lab.namespace("macvlan")
    host.ip("link", "add", "mac0", "link", "veth0", "type", "macvlan", "mode", "bridge")
    host.ip("link", "set", "mac0", "netns", pod.name, "name", "eth0")
    pod.ip("address", "add", f"{PODS[4]}/32", "dev", "eth0")

    assert {} == host.devices(PODS[4])


def test_an_address_on_another_interface_of_the_pod_is_not_found(host):
    """Its `lo` is not what our interface leads to."""
    pod = host.add_pod("veth0")
    pod.ip("address", "add", f"{PODS[4]}/32", "dev", "lo")

    assert {} == host.devices(PODS[4])


# News


class Ears:
    """The news of a node: what routes matter is said by their protocol."""

    def __init__(self, host: Host) -> None:
        self.events = host.namespace.call(RouteEvents, lambda route: route.proto == 85)

    def hear(self) -> bool:
        """Whether there is news that matters, now or soon."""
        return becomes_true(self.events.drain)


@pytest.fixture
def ears(host: Host) -> Iterator[Ears]:
    made = Ears(host)
    yield made
    made.events.close()


@pytest.mark.parametrize("version", [4, 6])
def test_a_route_of_ours_is_heard_coming_and_going(host, ears, version):
    """By its protocol."""
    host.ip("route", "add", "blackhole", BLOCKS[version], "proto", "85")
    assert ears.hear()
    host.ip("route", "del", "blackhole", BLOCKS[version], "proto", "85")
    assert ears.hear()


def test_an_interface_that_goes_down_is_heard(host, ears):
    """With it its routes go, and the kernel does not tell of each."""
    host.add_pod("veth0")
    assert ears.hear()
    while ears.events.drain():
        pass
    host.ip("link", "set", "veth0", "down")

    assert ears.hear()


def test_a_route_that_does_not_matter_is_not_heard(host, ears):
    """Nothing has to be looked at for it."""
    host.ip("route", "add", "blackhole", BLOCKS[4], "proto", "bird")

    assert not ears.events.drain()
