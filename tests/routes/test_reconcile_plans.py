"""Plans put into practice on a model of the kernel's table: what they end in, whatever is there."""

from __future__ import annotations

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import Address, Cidr, network_of
from cni_ipam.core.block import Attribute
from cni_ipam.core.host import Allocation, HostRecords
from cni_ipam.routes.judgement import (
    ADD,
    LEFT_BEHIND,
    METRICS,
    OK,
    SET,
    Device,
    KernelRoute,
)
from cni_ipam.routes.plan import BLACKHOLE, SCOPE_LINK, UNICAST, RouteSettings
from cni_ipam.routes.reconcile import reconcile

OURS = 85
BASES = {4: 10 << 24, 6: 0xFD << 120}
BLOCK_BITS = 2
MANY = hypothesis.settings(max_examples=120, deadline=None)
DEVICES = [Device(2, "veth0"), Device(3, "veth1"), Device(4, ""), Device(1, "lo")]
VERSIONS = st.sampled_from([4, 4, 6])


def block_of(version: int, number: int) -> Cidr:
    bits = {4: 32, 6: 128}[version] - BLOCK_BITS
    return Cidr(version, BASES[version] + (number << BLOCK_BITS), bits)


ADDRESSES = st.builds(lambda v, n: Address(v, BASES[v] + n), VERSIONS, st.integers(0, 4))
BLOCKS = st.builds(block_of, VERSIONS, st.integers(0, 1))
SINGLES = ADDRESSES.map(lambda address: address.host_cidr)


@st.composite
def routes(draw):
    """A route of anybody's, in the place of a block's or of a pod's, or near by."""
    cidr = draw(
        st.one_of(BLOCKS, SINGLES, SINGLES.map(lambda c: network_of(c.address(0), c.prefix - 1)))
    )
    return KernelRoute(
        cidr,
        kind=draw(st.sampled_from([UNICAST, UNICAST, BLACKHOLE, BLACKHOLE, 7])),
        proto=draw(st.sampled_from([OURS, OURS, OURS, 2, 3, 12])),
        metric=draw(st.sampled_from([METRICS[cidr.version], METRICS[cidr.version], 0, 5, 2000])),
        scope=draw(st.sampled_from([0, SCOPE_LINK])),
        device=draw(st.sampled_from([*DEVICES, None])),
        has_gateway=draw(st.booleans()),
    )


@st.composite
def tables(draw):
    """What a kernel can hold: one route for each destination and metric."""
    found = draw(st.lists(routes(), max_size=12))
    return list({(route.cidr, route.metric): route for route in found}.values())


@st.composite
def hosts(draw):
    """Some blocks of each condition, and who has which address."""
    blocks = draw(st.lists(st.one_of(BLOCKS, SINGLES), unique=True, max_size=6))
    parts = [draw(st.sampled_from(["own", "claimed", "unclear", "foreign"])) for _ in blocks]
    of = {
        name: tuple(b for b, part in zip(blocks, parts, strict=True) if part == name)
        for name in parts
    }
    taken = draw(st.dictionaries(ADDRESSES, st.sampled_from(["pod", "tunnel", "lent"]), max_size=8))
    allocations, lent = [], []
    for address, kind in taken.items():
        block = network_of(address, {4: 32, 6: 128}[address.version] - BLOCK_BITS)
        owner = {"node": "node1", "network": "net"} if kind == "pod" else {"node": "node1"}
        if kind == "lent" and block in of.get("own", ()):
            lent.append(Allocation(address, block, Attribute("h", {"node": "node2"})))
        elif kind != "lent":
            allocations.append(Allocation(address, block, Attribute("h", owner)))
    return HostRecords(
        "node1",
        of.get("own", ()),
        of.get("claimed", ()),
        tuple(allocations),
        tuple(lent),
        of.get("unclear", ()),
    )


SETTINGS = st.builds(RouteSettings, host=st.booleans(), blackhole=st.booleans())
WAYS = st.one_of(
    st.none(),
    st.dictionaries(ADDRESSES, st.lists(st.sampled_from(DEVICES[:2]), min_size=1, max_size=2)),
)


def apply(found, judged):
    """The table after the changes, as the kernel makes them. Fails where it would refuse."""
    table = list(found)
    for change in [change for one in judged for change in one.changes]:
        route = change.route
        there = [r for r in table if (r.cidr, r.metric) == (route.cidr, route.metric)]
        if change.verb == ADD:
            assert [] == there
        if change.verb in (ADD, SET):
            table = [r for r in table if r not in there] + [route]
        else:
            assert route in table
            table.remove(route)
    return table


@MANY
@given(known=hosts(), settings=SETTINGS, found=tables(), ways=WAYS)
def test_after_the_changes_nothing_is_left_to_mend(known, settings, found, ways):
    """And a second plan changes nothing."""
    after = apply(found, reconcile(known, settings, found, ways))

    assert [] == [one for one in reconcile(known, settings, after, ways) if one.can_be_mended]


@MANY
@given(known=hosts(), settings=SETTINGS, found=tables(), ways=WAYS)
def test_nobody_elses_route_is_lost_but_an_interface_plugins(known, settings, found, ways):
    """And that only for a pod's host route of ours."""
    after = apply(found, reconcile(known, settings, found, ways))

    for route in set(found) - set(after):
        if route.proto != OURS:
            (instead,) = [r for r in after if (r.cidr, r.metric) == (route.cidr, route.metric)]
            assert (UNICAST, OURS) == (instead.kind, instead.proto)
            assert route.leads_to_device
            assert instead.cidr in {one.address.host_cidr for one in known.allocations}


@MANY
@given(known=hosts(), settings=SETTINGS, found=tables(), ways=WAYS)
def test_a_pod_that_had_a_host_route_has_one_afterwards(known, settings, found, ways):
    """Whatever else is wrong."""
    after = apply(found, reconcile(known, settings, found, ways))

    recorded = {one.address.host_cidr for one in known.allocations}
    before = {r.cidr for r in found if r.kind == UNICAST and r.cidr in recorded}
    assert before <= {r.cidr for r in after if r.kind == UNICAST}


@MANY
@given(known=hosts(), settings=SETTINGS, found=tables(), ways=WAYS)
def test_every_blackhole_of_ours_is_an_own_blocks(known, settings, found, ways):
    """Or one of a block of which nothing can be said; never a pending or a borrowed one's."""
    after = apply(found, reconcile(known, settings, found, ways))

    ours = {r.cidr for r in after if (r.kind, r.proto) == (BLACKHOLE, OURS)}
    assert ours <= {*(known.own if settings.blackhole else ()), *known.unclear}


@MANY
@given(known=hosts(), found=tables(), ways=WAYS)
def test_every_own_block_is_judged_once(known, found, ways):
    """As held, as missing, or as one whose place is taken."""
    judged = reconcile(known, RouteSettings(host=True, blackhole=True), found, ways)

    wide = [block for block in known.own if block.size > 1]
    states = {block: [] for block in wide}
    for one in judged:
        if one.route.cidr in states and one.state != LEFT_BEHIND:
            states[one.route.cidr].append(one.state)
    assert all(len(found_states) == 1 for found_states in states.values())
    assert {"ok", "missing", "place taken"} >= {
        s for found_states in states.values() for s in found_states
    }


@MANY
@given(known=hosts(), settings=SETTINGS, found=tables(), ways=WAYS)
def test_what_is_not_well_says_so(known, settings, found, ways):
    """A sentence for each, and none for what is well; what is well changes nothing."""
    for one in reconcile(known, settings, found, ways):
        assert (one.state == OK) == (one.text == "")
        assert one.state != OK or not one.changes
