"""What is wanted, what is found, and what is done about it: the plan of a node's routes."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import Attribute
from cni_ipam.core.host import Allocation, HostRecords
from cni_ipam.lean.record import replace
from cni_ipam.routes.judgement import (
    CLASH,
    FOREIGN,
    HIDDEN,
    LEFT_BEHIND,
    METRICS,
    MISSING,
    OK,
    PENDING,
    TAKEN,
    UNCLEAR,
    WRONG_DEVICE,
    Device,
    KernelRoute,
)
from cni_ipam.routes.plan import BLACKHOLE, LOOPBACK_INDEX, SCOPE_LINK, UNICAST, RouteSettings
from cni_ipam.routes.reconcile import reconcile

OURS, BOOT, KERNEL, BIRD = 85, 3, 2, 12
UNREACHABLE = 7
SETTINGS = RouteSettings(host=True, blackhole=True)
BLOCK = "10.0.0.8/29"
POD = "10.0.0.9"
VETH0, VETH1, LO = Device(5, "veth0"), Device(6, "veth1"), Device(LOOPBACK_INDEX, "lo")
NET = {"network": "net", "node": "node1", "namespace": "default", "pod": "web-1"}


def blackhole(text, proto=OURS, **fields):
    cidr = parse_cidr(text)
    device = LO if cidr.version == 6 else None
    fields = {"metric": METRICS[cidr.version], "device": device} | fields
    return KernelRoute(cidr, BLACKHOLE, proto, **fields)


def host(text, device=VETH0, proto=OURS, **fields):
    cidr = parse_address(text).host_cidr
    fields = {"metric": METRICS[cidr.version], "scope": SCOPE_LINK, "device": device} | fields
    return KernelRoute(cidr, UNICAST, proto, **fields)


def allocation(text, block=BLOCK, **owner):
    return Allocation(parse_address(text), parse_cidr(block), Attribute("net.c1", NET | owner))


def records(**fields):
    """A node that has one block and nothing in it."""
    cidrs = {"own": [BLOCK], "claimed": [], "unclear": []}
    texts = {name: fields.pop(name, default) for name, default in cidrs.items()}
    parts = {name: tuple([parse_cidr(text) for text in given]) for name, given in texts.items()}
    return HostRecords(host="node1", **{"allocations": (), "lent": ()} | parts | fields)


def with_pod(text=POD, **owner):
    return records(allocations=(allocation(text, **owner),))


def at(*devices, address=POD):
    """The interfaces that lead to the pod."""
    return {parse_address(address): devices}


def judge(known, *found, settings=SETTINGS, devices=None, networks=None, unheld=(), listed=None):
    """State, route and changes of each judgement, as texts."""
    judged = reconcile(known, settings, found, devices or {}, networks, unheld=unheld, known=listed)
    for one in judged:
        assert bool(one.text) == (one.state != OK)
    return [(one.state, str(one.route), [str(change) for change in one.changes]) for one in judged]


def sentences(known, *found, **given):
    judged = reconcile(known, SETTINGS, found, given.get("devices", {}), None)
    return [one.text for one in judged if one.text]


# Blackholes


@pytest.mark.parametrize("block", [BLOCK, "fd00::40/122"])
def test_a_missing_blackhole_is_added(block):
    """After a reboot, or when somebody has flushed the table."""
    wanted = f"blackhole {block} proto 85"

    assert [(MISSING, wanted, [f"add {wanted}"])] == judge(records(own=[block]))


@pytest.mark.parametrize("pods", [(), (allocation(POD, network="bridged"),)])
def test_a_network_without_blackholes_gets_none(pods):
    """Its pods lie behind their bridge's route, and an empty block may be theirs next."""
    known = records(allocations=pods)

    assert [] == judge(known, networks=["net"], unheld=["bridged"])


def test_beside_such_a_network_the_blocks_of_others_pods_are_held():
    """Only a pod of the other network would be cut off."""
    wanted = f"blackhole {BLOCK} proto 85"
    known = with_pod()

    found = judge(known, host(POD), devices=at(VETH0), networks=["net"], unheld=["bridged"])

    assert (MISSING, wanted, [f"add {wanted}"]) in found


def test_beside_such_a_network_a_blackhole_stays():
    """That of a block whose last pod has gone is the next one's."""
    found = judge(records(), blackhole(BLOCK), unheld=["bridged"])

    assert [(OK, f"blackhole {BLOCK} proto 85", [])] == found


def test_pods_whose_networks_list_is_gone_are_not_cut_off():
    """They may lie behind a bridge's route, which only its list could tell."""
    assert [] == judge(with_pod(network="gone"), networks=["net"], listed=["net"])


def test_pods_whose_networks_list_is_gone_are_no_obstacle_if_they_have_routes():
    """Those outlive the blackhole. Neither is an address that names no network, as a tunnel's."""
    wanted = (MISSING, f"blackhole {BLOCK} proto 85", [f"add blackhole {BLOCK} proto 85"])
    unnamed = Allocation(parse_address(POD), parse_cidr(BLOCK), Attribute("h", {"node": "node1"}))
    tunnel, routed = records(allocations=(unnamed,)), with_pod(network="gone")

    assert wanted in judge(routed, host(POD, proto=BOOT), networks=["net"], listed=["net"])
    assert wanted in judge(tunnel, networks=["net"], listed=["net"])


def test_a_blackhole_over_pods_whose_networks_list_is_gone_stays():
    """What was there when they came did them no harm."""
    found = judge(with_pod(network="gone"), blackhole(BLOCK), networks=["net"], listed=["net"])

    assert [(OK, f"blackhole {BLOCK} proto 85", [])] == found


def test_a_blackhole_that_is_there_is_fine():
    """Nothing is to be done."""
    assert [(OK, f"blackhole {BLOCK} proto 85", [])] == judge(records(), blackhole(BLOCK))


def test_somebody_elses_blackhole_serves():
    """BIRD's holds the block as well as ours."""
    found = blackhole(BLOCK, BIRD)

    assert [(OK, f"blackhole {BLOCK} proto bird", [])] == judge(records(), found)


def test_a_blackhole_that_was_left_behind_is_removed():
    """The node has lost the block."""
    left = "blackhole 10.0.0.16/29 proto 85"

    judged = judge(records(), blackhole(BLOCK), blackhole("10.0.0.16/29"))

    assert (LEFT_BEHIND, left, [f"remove {left}"]) == judged[0]
    assert [OK] == [state for state, _, _ in judged[1:]]


def test_somebody_elses_blackhole_is_never_removed():
    """Who has made it knows why."""
    assert [] == judge(records(own=[]), blackhole("10.0.0.16/29", BIRD))


def test_the_blackhole_of_a_pending_block_is_removed():
    """A claim that is not confirmed is none, and another node may have the block."""
    left = f"blackhole {BLOCK} proto 85"

    judged = judge(records(own=[], claimed=[BLOCK]), blackhole(BLOCK))

    assert [(PENDING, left, [f"remove {left}"])] == judged


def test_a_pending_block_wants_no_blackhole():
    """Nothing is missing where nothing is owned."""
    assert [] == judge(records(own=[], claimed=[BLOCK]))


@pytest.mark.parametrize("single", ["10.0.0.9/32", "fd00::9/128"])
def test_the_blackhole_of_a_single_address_is_removed(single):
    """It would be the pod's own route."""
    left = f"blackhole {single} proto 85"

    assert [(CLASH, left, [f"remove {left}"])] == judge(records(own=[single]), blackhole(single))


def test_a_host_route_comes_after_the_blackhole_that_has_its_place():
    """Both cannot be there at once."""
    found = blackhole(f"{POD}/32")
    known = records(own=[f"{POD}/32"], allocations=(allocation(POD, f"{POD}/32"),))

    changes = [c for _, _, changes in judge(known, found, devices=at(VETH0)) for c in changes]

    assert [f"remove {found}", f"set {host(POD)}"] == changes


@pytest.mark.parametrize(
    "other",
    [
        KernelRoute(parse_cidr(BLOCK), UNICAST, KERNEL, metric=100, device=VETH0),
        KernelRoute(parse_cidr(BLOCK), UNICAST, BOOT, device=VETH0, has_gateway=True),
        KernelRoute(parse_cidr(BLOCK), UNREACHABLE, BOOT),
    ],
)
def test_a_place_that_is_taken_is_told_and_left(other):
    """A connected network, whatever its metric; a route that somebody has made there."""
    assert [(TAKEN, str(other), [])] == judge(records(), other)


def test_a_route_of_another_metric_does_not_take_the_place():
    """BIRD's from the node that had the block before stands behind ours."""
    learned = KernelRoute(
        parse_cidr(BLOCK), UNICAST, BIRD, metric=32, device=VETH0, has_gateway=True
    )
    wanted = f"blackhole {BLOCK} proto 85"

    assert [(MISSING, wanted, [f"add {wanted}"])] == judge(records(), learned)


def test_a_block_that_cannot_be_read_keeps_its_routes():
    """Nothing is known about it, so nothing is done about it."""
    found = [blackhole(BLOCK), host(POD)]

    judged = judge(records(own=[], unclear=[BLOCK]), *found)

    assert [(UNCLEAR, str(route), []) for route in found] == judged


def test_a_datastore_without_any_block_takes_no_pods_route():
    """It was emptied, or is the wrong one, and pods may run; what holds a block does no harm."""
    judged = judge(records(own=[], is_blank=True), blackhole(BLOCK), host(POD))

    assert [LEFT_BEHIND, UNCLEAR] == [state for state, _, _ in judged]
    assert [True, False] == [bool(changes) for _, _, changes in judged]


def test_without_blackholes_of_ours_none_is_wanted():
    """BIRD owns them (`routes.blackhole: false`), and has not got its own as yet."""
    assert [] == judge(records(), settings=replace(SETTINGS, blackhole=False))


def test_without_blackholes_of_ours_those_of_before_are_removed():
    """They have the place that BIRD's would take."""
    found = [blackhole(BLOCK), blackhole("10.0.0.16/29", BIRD)]

    judged = judge(records(), *found, settings=replace(SETTINGS, blackhole=False))

    assert [(LEFT_BEHIND, str(found[0]), [f"remove {found[0]}"])] == judged


# Host routes


@pytest.mark.parametrize("address", [POD, "fd00::9"])
def test_a_missing_host_route_is_set(address):
    """To the one interface that leads to the pod."""
    wanted = f"{parse_address(address).host_cidr} dev veth0 proto 85"

    judged = judge(with_pod(address), blackhole(BLOCK), devices=at(VETH0, address=address))

    assert (MISSING, wanted, [f"set {wanted}"]) == judged[1]


def test_a_host_route_that_is_there_is_fine():
    """It leads to the interface that leads to the pod."""
    found = host(POD)

    assert (OK, str(found), []) == judge(with_pod(), found, devices=at(VETH0))[1]


def test_a_missing_host_route_to_nowhere_is_told():
    """The pod may be starting; no interface is invented."""
    known = with_pod()

    assert [MISSING, []] == [*judge(known, blackhole(BLOCK))[1][::2]]
    expected = (
        f"{POD}, pod default/web-1, has no host route, and no interface of this node leads to it: "
        "its pod may be starting, or gone"
    )
    assert [expected] == sentences(known, blackhole(BLOCK))


def test_a_missing_host_route_with_two_ways_is_told():
    """Two pods have the address; which one is meant is not ours to say."""
    devices = at(VETH0, VETH1)

    (text,) = sentences(with_pod(), blackhole(BLOCK), devices=devices)

    assert text.endswith("several interfaces lead to it: veth0, veth1")


def test_one_interface_that_is_found_twice_is_one():
    """Two interfaces of a pod may have an address, behind one bridge."""
    judged = judge(with_pod(), blackhole(BLOCK), devices=at(VETH0, VETH0))

    assert [f"set {host(POD)}"] == judged[1][2]


def test_a_host_route_to_a_wrong_device_is_set_anew():
    """Its pod is elsewhere."""
    found = host(POD, VETH1)

    judged = judge(with_pod(), blackhole(BLOCK), found, devices=at(VETH0))

    assert (WRONG_DEVICE, str(found), [f"set {host(POD)}"]) == judged[1]


def test_a_host_route_to_a_device_that_is_gone_is_set_anew():
    """Only its number is left."""
    found = host(POD, Device(77, ""))

    judged = judge(with_pod(), blackhole(BLOCK), found, devices=at(VETH0))

    assert (WRONG_DEVICE, f"{POD}/32 dev 77 proto 85", [f"set {host(POD)}"]) == judged[1]


def test_a_wrong_host_route_that_is_preferred_goes():
    """In IPv6 another metric may come before ours, and what is set would not replace it."""
    address = "fd00::9"
    found = host(address, VETH1, metric=5)

    judged = judge(with_pod(address), found, devices=at(VETH0, address=address))

    assert [f"set {host(address)}", f"remove {found}"] == judged[1][2]


def test_a_host_route_to_a_device_that_is_gone_is_told_if_the_pod_is_nowhere():
    """There is nothing to which it could be set."""
    judged = judge(with_pod(), blackhole(BLOCK), host(POD, Device(77, "")))

    assert (WRONG_DEVICE, []) == judged[1][::2]


def test_the_preferred_of_two_host_routes_counts():
    """The kernel uses the one with the lower metric."""
    found = [host(POD, VETH1, metric=7), host(POD)]

    assert (OK, str(host(POD)), []) == judge(with_pod(), *found, devices=at(VETH0))[1]


def test_an_interface_plugins_route_that_is_preferred_to_ours_is_told():
    """Ours would not be used beside it."""
    address = "fd00::9"
    found = host(address, VETH0, BOOT, metric=5)

    judged = judge(with_pod(address), found, devices=at(VETH0, address=address))

    assert (FOREIGN, str(found), []) == judged[1]


def test_a_host_route_whose_pod_is_nowhere_stays():
    """The pod may have no address as yet, or be one whose inside cannot be seen."""
    found = host(POD)

    assert (OK, str(found), []) == judge(with_pod(), found)[1]


def test_a_host_route_stays_as_it_is_if_nobody_looked():
    """Where it leads to was right when somebody looked last."""
    found = [blackhole(BLOCK), host(POD, VETH1)]

    judged = reconcile(with_pod(), SETTINGS, found, None)

    assert [OK, OK] == [one.state for one in judged]


def test_the_interface_plugins_route_is_replaced():
    """As the chained role would have done."""
    found = host(POD, proto=BOOT, scope=254)

    judged = judge(with_pod(), blackhole(BLOCK), found, devices=at(VETH0))

    assert (FOREIGN, str(found), [f"set {host(POD)}"]) == judged[1]


@pytest.mark.parametrize(
    "other",
    [
        host(POD, VETH0, BOOT, has_gateway=True),
        blackhole(f"{POD}/32", BIRD),
        KernelRoute(parse_cidr(f"{POD}/32"), UNREACHABLE, BOOT),
    ],
)
def test_a_host_routes_place_that_is_taken_is_told_and_left(other):
    """By a route that no interface plugin makes."""
    judged = judge(with_pod(), blackhole(BLOCK), other, devices=at(VETH0))

    assert (TAKEN, str(other), []) == judged[1]


def test_a_host_route_goes_before_one_of_a_worse_metric():
    """BIRD has learned the address from the node that had it before."""
    learned = host(POD, VETH1, BIRD, metric=32, has_gateway=True)

    judged = judge(with_pod(), blackhole(BLOCK), learned, devices=at(VETH0))

    assert (MISSING, str(host(POD)), [f"set {host(POD)}"]) == judged[1]


def test_a_host_route_that_was_left_behind_is_removed():
    """Nobody of this node has the address."""
    found = host("10.0.0.10")

    judged = judge(with_pod(), blackhole(BLOCK), host(POD), found, devices=at(VETH0))

    assert (LEFT_BEHIND, str(found), [f"remove {found}"]) == judged[0]


def test_somebody_elses_host_route_is_never_removed():
    """Nor a network of ours that is no host route."""
    others = [host("10.0.0.10", proto=BOOT), replace(host(POD), cidr=parse_cidr("10.0.1.0/24"))]

    assert [] == judge(records(own=[]), *others)


@pytest.mark.parametrize(
    ("owner", "networks"), [({"network": None}, None), ({}, ["other"]), ({"network": "a"}, ["b"])]
)
def test_an_address_of_another_network_wants_no_host_route(owner, networks):
    """One of Calico's own plugin, of a tunnel, of a network without host routes."""
    attributes = {name: value for name, value in (NET | owner).items() if value is not None}
    one = Allocation(parse_address(POD), parse_cidr(BLOCK), Attribute("h", attributes))

    judged = judge(records(allocations=(one,)), blackhole(BLOCK), networks=networks)

    assert [OK] == [state for state, _, _ in judged]


def test_a_host_route_of_a_recorded_address_is_never_removed():
    """Also where none is wanted: the pod may be using it."""
    found = host(POD)

    for settings, networks in ((replace(SETTINGS, host=False), None), (SETTINGS, ["other"])):
        judged = judge(with_pod(), found, settings=settings, networks=networks)
        assert (OK, str(found), []) in judged


def test_without_host_routes_none_is_wanted():
    """The interface plugin's are left to it."""
    settings = replace(SETTINGS, host=False)

    for found in ([], [host(POD, proto=BOOT)]):
        judged = judge(with_pod(), blackhole(BLOCK), *found, settings=settings)
        assert [OK] == [state for state, _, _ in judged]


def test_without_host_routes_those_of_nobody_are_removed():
    """They are clearly ours, and lead to nobody."""
    found = host("10.0.0.10")

    judged = judge(records(own=[]), found, settings=replace(SETTINGS, host=False))

    assert [(LEFT_BEHIND, str(found), [f"remove {found}"])] == judged


# Borrowed addresses


def lent(text=POD):
    return records(lent=(allocation(text, node="node2"),))


def test_a_borrowed_address_without_a_route_of_its_own_is_hidden():
    """Told with what to do; no next hop is invented."""
    expected = (
        f"{POD} is borrowed by node node2, and blackhole {BLOCK} proto 85 hides it from here: let "
        "BGP bring that node's route, or make one by hand: "
        f"ip route add {POD}/32 via <address of node2>"
    )

    judged = judge(lent(), blackhole(BLOCK))

    assert (HIDDEN, []) == judged[1][::2]
    assert [expected] == sentences(lent(), blackhole(BLOCK))


def test_a_borrowed_address_is_about_to_be_hidden():
    """The blackhole that is added now will do it."""
    assert [MISSING, HIDDEN] == [state for state, _, _ in judge(lent())]


@pytest.mark.parametrize("prefix", [30, 32])
def test_a_borrowed_address_with_a_longer_route_is_not_hidden(prefix):
    """As BGP brings it: its own, or one of a part of the block."""
    cidr = parse_cidr(f"{POD}/{prefix}")
    learned = KernelRoute(cidr, UNICAST, BIRD, metric=32, device=VETH0, has_gateway=True)

    assert [OK] == [state for state, _, _ in judge(lent(), blackhole(BLOCK), learned)]


def test_a_stale_host_route_does_not_count_for_a_borrowed_address():
    """It led to a pod of this node, which has gone since, and is removed now."""
    judged = judge(lent(), blackhole(BLOCK), host(POD))

    assert [LEFT_BEHIND, OK, HIDDEN] == [state for state, _, _ in judged]


@pytest.mark.parametrize("proto", [OURS, BIRD])
def test_a_borrowed_address_is_hidden_by_anybodys_blackhole(proto):
    """Without blackholes of ours, BIRD's does it."""
    settings = replace(SETTINGS, blackhole=proto == OURS)

    judged = judge(lent(), blackhole(BLOCK, proto), settings=settings)

    assert HIDDEN == judged[-1][0]


def test_a_borrowed_address_is_not_hidden_where_nothing_holds_the_block():
    """It follows the table's other routes."""
    assert [] == judge(lent(), settings=replace(SETTINGS, blackhole=False))


def test_nothing_to_do_for_a_node_that_has_nothing():
    """And nothing in the kernel."""
    assert [] == judge(records(own=[]))
