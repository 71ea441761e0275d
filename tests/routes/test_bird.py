"""The text of bird.conf: what BIRD is told about routes, and what peers may hear."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import Cidr, parse_address, parse_cidr
from cni_ipam.routes.bird import Advertised, Speaker, find_router_id, write_config
from cni_ipam.routes.peers import GLOBAL, MESH, NODE, Options, Session

OWN = parse_cidr("198.19.24.184/29")
HIDDEN_BLOCK = parse_cidr("100.106.133.192/26")
POOL = parse_cidr("198.19.24.0/21")
HIDDEN_POOL = parse_cidr("100.96.0.0/11")
SIX = parse_cidr("fd00:198::40/122")
POOL_SIX = parse_cidr("fd00:198::/64")
NODE1 = Speaker("node1", 64512, {4: parse_address("172.20.58.60")})
BOTH = replace(NODE1, addresses={**NODE1.addresses, 6: parse_address("fd00:172::60")})
ROUTER = Session(GLOBAL, parse_address("172.20.34.231"), 64513)
ROUTER_SIX = Session(GLOBAL, parse_address("fd00:172::231"), 64513)
WORLD = Advertised([OWN, HIDDEN_BLOCK], [POOL], [HIDDEN_POOL])
WORLD_OF_BIRD = replace(WORLD, bird_owns_blackholes=True)

HEAD = """\
# BIRD 2 on node1. `ipamctl routes bird-config` makes this file, changes in it do not last.
log stderr all;
timeformat protocol iso short;
router id 172.20.58.60;

protocol device { scan time 2; }

protocol direct direct4 {
  ipv4;
  interface -"cali*", -"kube-ipvs*", -"veth*", "*";
}
"""
BLOCKS = """
protocol static blocks4 {
  ipv4;
  route 100.106.133.192/26 blackhole;
  route 198.19.24.184/29 blackhole;
}
"""
KERNEL = """
protocol kernel kernel4 {
  learn;
  persist;
  scan time 2;
  metric 0;
  graceful restart;
  ipv4 {
    import filter { if krt_source = 85 then preference = 200; accept; };
    export where source = RTS_BGP%s;
  };
}

filter to_peers4 {
  if net ~ [ 100.96.0.0/11+ ] then reject;  # disableBGPExport
  if ! (net ~ [ 198.19.24.0/21+ ]) then reject;
%s  if ! (source = RTS_INHERIT && krt_source = 85) then reject;
  if net ~ [ 198.19.24.184/29 ] then accept;  # own blocks
  if net ~ [ 198.19.24.184/29+ ] then reject;  # pods in them
  if net.len = 32 then accept;  # borrowed
  reject;
}

filter from_peers4 {
  if net ~ [ 100.106.133.192/26, 198.19.24.184/29 ] then reject;  # own blocks
  accept;
}

template bgp peer4 {
  connect delay time 1;
  connect retry time 5;
  error wait time 5, 30;
  graceful restart;
  ipv4 {
    import filter from_peers4;
    export filter to_peers4;
    next hop self;
  };
}

protocol bgp Global_172_20_34_231 from peer4 {
  local 172.20.58.60 as 64512;
  neighbor 172.20.34.231 as 64513;
  multihop;
}
"""


def test_where_bird_owns_the_blackholes_they_are_static_routes():
    """The whole text: BIRD puts every own block into the kernel, peers hear of the external one."""
    told = KERNEL % (
        " || source = RTS_STATIC",
        "  if source = RTS_STATIC then accept;  # own blocks\n",
    )
    assert HEAD + BLOCKS + told == write_config(NODE1, [ROUTER], WORLD_OF_BIRD)


def test_where_we_own_the_blackholes_bird_learns_them():
    """The whole text: no static route, and nothing of the blocks goes to the kernel."""
    assert HEAD + KERNEL % ("", "") == write_config(NODE1, [ROUTER], WORLD)


def test_blocks_that_nobody_may_hold_are_told_to_peers_alone():
    """The whole text: they are static routes, of which the kernel gets none."""
    told = KERNEL % ("", "  if source = RTS_STATIC then accept;  # own blocks\n")
    world = replace(WORLD, unheld=WORLD.blocks)
    assert HEAD + BLOCKS + told == write_config(NODE1, [ROUTER], world)


def test_beside_birds_blackholes_the_kernel_gets_no_block_that_nobody_may_hold():
    """Peers hear of both."""
    told = KERNEL % (
        " || (source = RTS_STATIC && !(net ~ [ 198.19.24.184/29 ]))",
        "  if source = RTS_STATIC then accept;  # own blocks\n",
    )
    world = replace(WORLD_OF_BIRD, unheld=[OWN])
    assert HEAD + BLOCKS + told == write_config(NODE1, [ROUTER], world)


def test_a_single_address_that_nobody_may_hold_is_told_to_peers():
    """No route of its pod's tells it."""
    single = parse_cidr("198.19.24.3/32")
    text = write_config(NODE1, [ROUTER], replace(WORLD, blocks=[single], unheld=[single]))
    assert "  route 198.19.24.3/32 blackhole;\n" in text
    assert "export where source = RTS_BGP;" in text


def test_the_number_of_our_routes_is_the_networks_own():
    """By it ours are told from everybody else's."""
    text = write_config(NODE1, [ROUTER], replace(WORLD, proto=86))
    assert ["86", "86"] == re.findall(r"krt_source = (\d+)", text)


def test_each_family_has_its_own_protocols():
    """A session of IPv6 carries IPv6, and the kernel's default metric of each is kept."""
    world = replace(WORLD_OF_BIRD, blocks=[OWN, SIX], pools=[POOL, POOL_SIX])
    text = write_config(BOTH, [ROUTER, ROUTER_SIX], world)
    assert ["0", "1024"] == re.findall(r"metric (\d+);", text)
    six = text[text.index("protocol static blocks6") :]
    assert "  ipv6;\n  route fd00:198::40/122 blackhole;\n" in six
    assert "if ! (net ~ [ fd00:198::/64+ ]) then reject;" in six
    assert "if net.len = 128 then accept;" in six
    assert "from peer6 {\n  local fd00:172::60 as 64512;\n  neighbor fd00:172::231 as 64513;" in six
    assert "ipv4" not in six


def test_a_family_without_address_and_blocks_is_left_out():
    """A node of IPv4 alone says nothing about IPv6."""
    assert "6 {" not in write_config(NODE1, [ROUTER], WORLD)


def test_blocks_of_a_family_without_address_are_held_but_told_to_nobody():
    """They still need their blackholes."""
    text = write_config(NODE1, [ROUTER], replace(WORLD_OF_BIRD, blocks=[SIX], pools=[POOL_SIX]))
    assert "route fd00:198::40/122 blackhole;" in text
    assert "peers6" not in text


def test_a_block_of_one_address_has_no_static_route():
    """It would be the pod's own; peers hear of the pod's route."""
    single = parse_cidr("198.19.24.3/32")
    text = write_config(NODE1, [ROUTER], replace(WORLD_OF_BIRD, blocks=[single]))
    assert "route 198.19.24.3/32" not in text
    assert "if net ~ [ 198.19.24.3/32 ] then accept;" in text


def test_without_exported_pools_peers_hear_nothing():
    """Whatever blocks there are."""
    text = write_config(NODE1, [ROUTER], replace(WORLD, pools=[]))
    body = text[text.index("filter to_peers4") : text.index("filter from_peers4")]
    assert "accept" not in body


def test_what_a_session_wants_stands_in_it():
    """Ports, hops, passiveness, restart, AS numbers in the path, the next hop."""
    options = Options(
        keeps_next_hop=True,
        restart_seconds=10,
        allowed_local_as=1,
        ttl_hops=2,
        uses_node_address=False,
    )
    session = Session(NODE, ROUTER.neighbor, 64513, 1790, is_passive=True, options=options)
    text = write_config(replace(NODE1, port=1179, binds_to_address=True), [session], WORLD)
    assert text.endswith("""
protocol bgp Node_172_20_34_231_port_1790 from peer4 {
  local port 1179 as 64512;
  neighbor 172.20.34.231 port 1790 as 64513;
  multihop 2;
  ttl security on;
  passive;
  graceful restart time 10;
  allow local as 1;
  ipv4 { next hop keep; };
}
""")
    assert "strict bind" not in text


def test_a_node_that_binds_to_its_address_does_so_in_each_session_from_it():
    """Where another address is chosen by the kernel, BIRD knows none to bind to."""
    speaker = replace(NODE1, binds_to_address=True)
    elsewhere = replace(ROUTER, port=1790, options=Options(uses_node_address=False))
    text = write_config(speaker, [ROUTER, elsewhere], WORLD)
    assert "as 64513;\n  strict bind;\n  multihop;\n" in text
    assert 1 == text.count("strict bind;")


def test_a_reflector_passes_on_what_it_hears():
    """Of exported pools, and without itself as the next hop."""
    client = Session(MESH, ROUTER.neighbor, 64512, is_client=True)
    text = write_config(replace(NODE1, cluster_id="1.0.0.1"), [client], WORLD)
    assert "  rr cluster id 1.0.0.1;\n" in text
    assert "  if source = RTS_BGP then accept;  # reflected\n" in text
    assert "  rr client;\n" in text
    assert "next hop self" not in text


def test_ignored_interfaces_are_not_looked_at():
    """Beside those of pods."""
    text = write_config(replace(NODE1, ignored_interfaces=["dummy0"]), [ROUTER], WORLD)
    assert '  interface -"cali*", -"dummy0", -"kube-ipvs*", -"veth*", "*";\n' in text


@pytest.mark.parametrize(
    ("name", "expected"), [("Testrobin123", "207.94.5.27"), ("nodeTest", "109.174.215.226")]
)
def test_without_an_ipv4_address_the_router_id_comes_from_the_name(name, expected):
    """As Calico makes it (its own vectors)."""
    assert expected == find_router_id(Speaker(name, 64512, {6: parse_address("fd00::1")}))


def test_a_name_cannot_break_out_of_its_comment():
    """Node names of an embedded datastore are free."""
    speaker = replace(NODE1, node='x\nlog "/etc/passwd" all;')
    assert write_config(speaker, [], WORLD).startswith('# BIRD 2 on x log "/etc/passwd" all;. `')


BLOCK_CIDRS = st.lists(
    st.integers(0, 400).map(lambda number: Cidr(4, (10 << 24) + (number << 5), 27))
)


@given(BLOCK_CIDRS, st.randoms(use_true_random=False), st.booleans())
def test_the_same_world_gives_the_same_text(blocks, random, is_birds):
    """In whatever order it is read."""
    pools = [parse_cidr("10.0.0.0/19"), parse_cidr("10.0.32.0/19")]
    world = Advertised(blocks, pools[:1], pools[1:], bird_owns_blackholes=is_birds)
    sessions = [ROUTER, replace(ROUTER, kind=MESH), replace(ROUTER, port=1790)]
    text = write_config(NODE1, sessions, world)
    for part in (blocks, pools, sessions):
        random.shuffle(part)
    again = replace(world, blocks=blocks)
    assert text == write_config(NODE1, sessions, again)


@given(BLOCK_CIDRS, st.booleans())
def test_nothing_of_a_hidden_pool_is_ever_accepted_for_peers(blocks, is_birds):
    """The lines that accept name own blocks of exported pools and nothing else, and the hidden
    pools are rejected before the first of them."""
    exported, hidden = parse_cidr("10.0.0.0/19"), parse_cidr("10.0.32.0/19")
    world = Advertised(blocks, [exported], [hidden], bird_owns_blackholes=is_birds)
    text = write_config(NODE1, [ROUTER], world)
    lines = text[text.index("filter to_peers4") : text.index("filter from_peers4")].splitlines()
    accepted = [
        parse_cidr(found)
        for line in lines
        if "accept" in line
        for found in re.findall(r"[\d.]+/\d+", line)
    ]
    assert sorted({str(block) for block in blocks if exported.covers(block)}) == sorted(
        map(str, accepted)
    )
    assert lines[1] == f"  if net ~ [ {hidden}+ ] then reject;  # disableBGPExport"
