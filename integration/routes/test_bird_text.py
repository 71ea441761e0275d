"""BIRD itself reads every text that `routes bird-config` can make."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_ipam.core.address import BITS, Address, network_of
from cni_ipam.ctl.bgp_records import make_bird_config
from cni_ipam.ctl.networks import NodeSettings
from cni_ipam.datastore import keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Write
from cni_ipam.ipam.query import read_host
from cni_ipam.routes.bird import Advertised, Speaker, write_config
from cni_ipam.routes.peers import BgpNode, BgpSettings, Options, Peering, choose_sessions
from cni_ipam.routes.plan import RouteSettings
from integration.bird import PROGRAMS, with_bird

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = with_bird

PREFIXES = {
    "BGPConfiguration": keys.BGP_CONFIGURATIONS,
    "BGPPeer": keys.BGP_PEERS,
    "Node": keys.NODES,
}

SECONDS = st.none() | st.integers(0, 255)
FOUR = st.integers(0x0A000001, 0x0AFFFFFE).map(lambda value: Address(4, value))
SIX = st.integers(1, 2**64).map(lambda low: Address(6, 0xFD << 120 | low))
CIDRS = st.lists(
    st.tuples(FOUR | SIX, st.integers(0, 12)).map(
        lambda found: network_of(found[0], BITS[found[0].version] - found[1])
    ),
    max_size=6,
)
PORTS = st.none() | st.integers(1, 65535)
NUMBERS = st.integers(1, 2**32 - 1)
OPTIONS = st.builds(
    Options,
    uses_node_address=st.booleans(),
    keeps_next_hop=st.booleans(),
    restart_seconds=SECONDS,
    allowed_local_as=st.none() | st.integers(1, 255),
    ttl_hops=st.none() | st.integers(1, 255),
)
NODES = st.lists(
    st.builds(
        BgpNode,
        name=st.sampled_from(["node1", "node2", "node3"]),
        addresses=st.fixed_dictionaries({4: FOUR}, optional={6: SIX})
        | st.fixed_dictionaries({6: SIX}),
        as_number=st.none() | NUMBERS,
        cluster_id=st.sampled_from(["", "1.0.0.1", "1.0.0.2"]),
        port=PORTS,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda node: node.name,
)
PEERINGS = st.lists(
    st.builds(
        Peering,
        name=st.just("peer"),
        node=st.sampled_from(["", "node1"]),
        address=FOUR | SIX,
        port=PORTS,
        as_number=NUMBERS,
        options=OPTIONS,
    )
    | st.builds(Peering, name=st.just("all"), peer_selector=st.just("all()"), options=OPTIONS),
    max_size=3,
)
SETTINGS = st.builds(
    BgpSettings, as_number=NUMBERS, has_mesh=st.booleans(), mesh_restart_seconds=SECONDS, port=PORTS
)
ADVERTISED = st.builds(
    Advertised,
    blocks=CIDRS,
    pools=CIDRS,
    hidden=CIDRS,
    proto=st.integers(5, 255),
    bird_owns_blackholes=st.booleans(),
    unheld=CIDRS,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NODES, PEERINGS, SETTINGS, ADVERTISED, st.booleans())
def test_bird_understands_every_configuration(nodes, peerings, common, world, is_strict):
    """Whatever nodes, peers, settings, blocks and pools there are."""
    own = nodes[0]
    speaker = Speaker(
        own.name,
        own.as_number or common.as_number,
        own.addresses,
        cluster_id=own.cluster_id,
        port=own.port or common.port,
        binds_to_address=is_strict,
        ignored_interfaces=["dummy*", "eth0.1"],
    )
    text = write_config(speaker, choose_sessions(own, nodes, peerings, common), world)
    assert (0, "") == parse(text), text


def test_bird_understands_what_is_left_of_records_that_it_cannot_have():
    """Addresses without a session and restart times beyond BGP's, whoever wrote them."""
    store = MemoryDatastore()
    for kind, name, spec in records():
        value = json.dumps({"metadata": {"name": name}, "spec": spec})
        store.commit([Write(PREFIXES[kind] + name, value, ABSENT)])
    for name in ("node1", "node3"):
        node = NodeSettings(
            name=name,
            lock_file="",
            lock_timeout_seconds=0,
            routes=RouteSettings(host=True, blackhole=True),
            routed_networks=None,
            unheld_networks=frozenset(),
        )
        made = make_bird_config(store, node, read_host(store, name))
        assert (0, "") == parse(made.text), made.text


def records() -> Iterator[tuple[str, str, dict]]:
    """Kind, name and spec of records as calicoctl takes them."""
    addresses = ["::", "0.0.0.0:179", "fe80::1", "[fe80::1]:179", "224.0.0.1", "ff02::1"]
    for number, address in enumerate(addresses):
        yield "BGPPeer", f"odd{number}", {"peerIP": address, "asNumber": 1}
    slow = {"peerIP": "10.0.0.9", "asNumber": 1, "maxRestartTime": "4096s"}
    yield "BGPPeer", "slow", slow
    yield "BGPPeer", "slower", {**slow, "peerIP": "10.0.0.8", "maxRestartTime": "2562047h"}
    yield "BGPPeer", "all", {"peerSelector": "all()"}
    yield "BGPConfiguration", "default", {"nodeMeshMaxRestartTime": "2562047h"}
    nodes = [
        {"ipv4Address": "10.0.0.1/24", "ipv6Address": "fd00::1"},
        {"ipv4Address": "0.0.0.0", "ipv6Address": "fe80::2/64"},
        {"ipv4Address": "10.0.0.3", "routeReflectorClusterID": "::ffff:1.0.0.1"},
    ]
    for number, bgp in enumerate(nodes, 1):
        yield "Node", f"node{number}", {"bgp": bgp}


def parse(text: str) -> tuple[int, str]:
    """What BIRD says of a configuration that it only reads: its status and its complaint."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bird.conf"
        path.write_text(text)
        done = subprocess.run(
            [PROGRAMS / "bird", "-p", "-c", path], capture_output=True, text=True, check=False
        )
    return done.returncode, done.stderr
