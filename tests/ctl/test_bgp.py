"""BGPPeer, BGPConfiguration and a node's BGP settings, in calicoctl's words."""

from __future__ import annotations

import json

import pytest

from cni_ipam.ctl.bgp_values import parse_as_number, parse_peer_address, parse_seconds
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore.kubernetes_objects import to_entry
from cni_ipam.datastore.kubernetes_records import V1

PEERS = "/calico/resources/v3/projectcalico.org/bgppeers/"
CONFIGURATIONS = "/calico/resources/v3/projectcalico.org/bgpconfigurations/"
API = "projectcalico.org/v3"


def document(kind: str, name: str, spec: dict) -> str:
    """A resource as an operator writes it."""
    return json.dumps({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec})


def apply(operator, kind: str, name: str, spec: dict):
    """The result of applying one resource."""
    return operator.types("apply", "-f", "-", stdin=document(kind, name, spec))


def stored(operator, key: str) -> dict:
    """The spec under a key."""
    return json.loads(operator.value(key))["spec"]


# Peers


def test_a_peer_is_applied(operator):
    """The words of the document, and Calico's key."""
    result = apply(operator, "BGPPeer", "router", {"peerIP": "172.20.34.231", "asNumber": 64513})
    assert (0, "Successfully applied 1 'BGPPeer' resource(s)\n") == (result.status, result.out)
    assert {"peerIP": "172.20.34.231", "asNumber": 64513} == stored(operator, PEERS + "router")


def test_peers_are_shown_in_calicoctls_table(operator):
    """A side by name, by selector, or everybody; without an AS number it is 0."""
    apply(operator, "BGPPeer", "good", {"peerIP": "10.0.0.1", "asNumber": 64513})
    apply(operator, "BGPPeer", "good2", {"peerIP": "[fd00::1]:179", "asNumber": 5, "node": "n1"})
    apply(operator, "BGPPeer", "sel", {"peerSelector": "all()", "nodeSelector": "has(x)"})
    table = (
        "NAME    PEERIP          NODE       ASN     \n"
        "good    10.0.0.1        (global)   64513   \n"
        "good2   [fd00::1]:179   n1         5       \n"
        "sel                     has(x)     0       \n"
        "\n"
    )
    assert table == operator.types("get", "bgppeers").out
    assert table == operator.types("get", "bgppeer", "-o", "wide").out


def test_of_two_peers_of_one_address_the_one_that_is_not_heeded_is_told(operator):
    """Whoever writes BIRD's configuration hears of it; the first one by name is in there."""
    apply(operator, "Node", "node1", {"bgp": {"ipv4Address": "172.20.58.1/19"}})
    apply(operator, "BGPPeer", "b", {"peerIP": "172.20.34.231", "asNumber": 64999})
    apply(operator, "BGPPeer", "a", {"peerIP": "172.20.34.231", "asNumber": 64513})
    made = operator.types("routes", "bird-config", "--node", "node1")
    expected = (
        "left out: BGPPeer(b): not heeded for 172.20.34.231: asNumber 64999: "
        "BGPPeer(a) goes first and says otherwise\n"
    )
    assert (0, expected) == (made.status, made.err)
    assert "neighbor 172.20.34.231 as 64513;" in made.out


@pytest.mark.parametrize("alias", ["bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps", "BGPPeer"])
def test_a_peer_has_calicoctls_short_names(operator, alias):
    """All of them."""
    apply(operator, "BGPPeer", "good", {"peerIP": "10.0.0.1", "asNumber": 64513})
    assert "good" in operator.types("get", alias, "good").out


def test_an_as_number_may_have_a_dot(operator):
    """It is stored and shown as a plain number, as Calico does."""
    apply(operator, "BGPPeer", "good", {"peerIP": "10.0.0.1", "asNumber": "1.10"})
    assert 65546 == stored(operator, PEERS + "good")["asNumber"]


def test_a_peer_is_patched_and_deleted(operator):
    """As any other object."""
    apply(operator, "BGPPeer", "good", {"peerIP": "10.0.0.1", "asNumber": 64513})
    patch = operator.types("patch", "bgppeer", "good", "-p", '{"spec": {"asNumber": "64514"}}')
    assert "Successfully patched 1 'BGPPeer' resource\n" == patch.out
    assert 64514 == stored(operator, PEERS + "good")["asNumber"]
    gone = operator.types("delete", "bgppeer", "good")
    assert "Successfully deleted 1 'BGPPeer' resource(s)\n" == gone.out
    assert operator.value(PEERS + "good") is None


def tagged(field: str, tag: str) -> str:
    """Calico's words for a value of the wrong form."""
    return f"Reason: failed to validate Field: {field} because of Tag: {tag} "


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"peerIP": "10.0.0"}, "PeerIP = '10.0.0'", tagged("PeerIP", "IP:port")),
        ({"peerIP": "10.0.0.1:0"}, "PeerIP = '10.0.0.1:0'", tagged("PeerIP", "IP:port")),
        ({"peerIP": "10.0.0.1:99999"}, "PeerIP", tagged("PeerIP", "IP:port")),
        ({"peerIP": "10.0.0.1/24"}, "PeerIP", tagged("PeerIP", "IP:port")),
        ({"peerIP": "::"}, "PeerIP = '::'", "BIRD cannot use the unspecified address"),
        ({"peerIP": "0.0.0.0:179"}, "PeerIP", "BIRD cannot use the unspecified address"),
        ({"peerIP": "fe80::1"}, "PeerIP", "BIRD cannot use a link-local address of IPv6"),
        ({"peerIP": "[febf::1]:1790"}, "PeerIP", "BIRD cannot use a link-local address of IPv6"),
        ({"peerIP": "224.0.0.1"}, "PeerIP", "BIRD cannot use a multicast address"),
        ({"peerIP": "ff02::1"}, "PeerIP", "BIRD cannot use a multicast address"),
        ({"nodeSelector": "all("}, "NodeSelector = 'all('", tagged("NodeSelector", "selector")),
        ({"node": "A B"}, "Node = 'A B'", tagged("Node", "name")),
        ({"sourceAddress": "x"}, "SourceAddress = 'x'", tagged("SourceAddress", "sourceAddress")),
        (
            {"peerIP": "10.0.0.1", "peerSelector": "all()"},
            "PeerIP = '10.0.0.1'",
            "PeerIP field must be empty when PeerSelector is specified",
        ),
        (
            {"asNumber": 64513, "peerSelector": "all()"},
            "ASNumber = '64513'",
            "ASNumber field must be empty when PeerSelector is specified",
        ),
        (
            {"node": "a", "nodeSelector": "all()"},
            "Node = 'a'",
            "Node field must be empty when NodeSelector is specified",
        ),
        (
            {"peerIP": "10.0.0.1", "reachableBy": "fd00::1"},
            "ReachableBy = 'fd00::1'",
            "ReachableBy and PeerIP address family mismatched",
        ),
        (
            {"reachableBy": "10.0.0.1"},
            "ReachableBy = '10.0.0.1'",
            "ReachablyBy field must be empty when PeerIP is empty",
        ),
        ({"asNumber": "x"}, "spec.asNumber = 'x'", "invalid AS Number format (x)"),
        ({"asNumber": True}, "spec.asNumber = 'True'", "invalid AS Number format (True)"),
        ({"asNumber": -1}, "spec.asNumber = '-1'", "invalid AS Number format (-1)"),
        ({"ttlSecurity": 300}, "spec.ttlSecurity = '300'", "must be between 0 and 255"),
        ({"maxRestartTime": "10"}, "spec.maxRestartTime", 'time: invalid duration "10"'),
        ({"maxRestartTime": "9999999999h"}, "spec.maxRestartTime", "time: invalid duration"),
    ],
)
def test_a_wrong_peer_is_refused_in_calicos_words(operator, spec, field, reason):
    """The field, its value, and the rule; nothing is stored."""
    result = apply(operator, "BGPPeer", "x", spec)
    assert (1, "") == (result.status, result.out)
    assert result.err.startswith("failed to apply 'BGPPeer' resource: [error with ")
    assert field in result.err
    assert reason in result.err
    assert operator.value(PEERS + "x") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.1.1", "[fd00::1]:179"])
def test_a_peer_may_have_any_address_that_bird_can_use(operator, address):
    """Loopback for a peer on the same machine, and IPv4's link-local ones."""
    assert 0 == apply(operator, "BGPPeer", "x", {"peerIP": address, "asNumber": 1}).status


def test_a_restart_time_may_be_longer_than_bgp_allows(operator):
    """As in Calico."""
    spec = {"peerIP": "10.0.0.1", "asNumber": 1, "maxRestartTime": "4096s"}
    assert 0 == apply(operator, "BGPPeer", "x", spec).status


def test_an_unknown_field_of_a_peer_is_refused(operator):
    """As in every other kind."""
    result = apply(operator, "BGPPeer", "x", {"peerIP": "10.0.0.1", "peerAS": 1})
    assert 1 == result.status
    assert "is not recognized or is in the wrong location: peerAS" in result.err


# Settings


def test_settings_are_shown_in_calicoctls_table(operator):
    """What is not set is a dash, and a mesh that is off is set."""
    spec = {"asNumber": 64500, "nodeToNodeMeshEnabled": False, "logSeverityScreen": "Info"}
    apply(operator, "BGPConfiguration", "default", spec)
    apply(operator, "BGPConfiguration", "node.b", {"listenPort": 1790})
    assert operator.types("get", "bgpconfig").out == (
        "NAME      LOGSEVERITY   MESHENABLED   ASNUMBER   \n"
        "default   Info          false         64500      \n"
        "node.b                  -             -          \n"
        "\n"
    )
    assert spec == stored(operator, CONFIGURATIONS + "default")


@pytest.mark.parametrize(
    ("name", "spec", "reason"),
    [
        ("node.a", {"asNumber": 1}, "Cannot set ASNumber on a non default BGP Configuration."),
        (
            "node.a",
            {"nodeToNodeMeshEnabled": False},
            "Cannot set nodeToNodeMeshEnabled on a non default BGP Configuration.",
        ),
        ("default", {"logSeverityScreen": "x"}, tagged("LogSeverityScreen", "logLevel")),
        ("default", {"listenPort": 70000}, "must be between 1 and 65535"),
        ("default", {"bindMode": "x"}, "must be None or NodeIP"),
        ("default", {"asNumber": "x"}, "invalid AS Number format (x)"),
        ("default", {"asNumber": True}, "invalid AS Number format (True)"),
        (
            "default",
            {"ignoredInterfaces": ["eth0", 100]},
            "error with field spec.ignoredInterfaces[1] = '100' (must be a string)",
        ),
        (
            "default",
            {"ignoredInterfaces": ["*"]},
            f"IgnoredInterfaces[0] = '*' ({tagged('IgnoredInterfaces[0]', 'ignoredInterface')}",
        ),
        (
            "default",
            {"nodeToNodeMeshEnabled": False, "nodeMeshMaxRestartTime": "10s"},
            "spec.NodeMeshMaxRestartTime cannot be set if spec.NodeToNodeMesh is disabled",
        ),
    ],
)
def test_wrong_settings_are_refused_in_calicos_words(operator, name, spec, reason):
    """And nothing is stored."""
    result = apply(operator, "BGPConfiguration", name, spec)
    assert (1, "") == (result.status, result.out)
    assert reason in result.err
    assert operator.value(CONFIGURATIONS + name) is None


# Nodes


@pytest.mark.parametrize(
    ("bgp", "reason"),
    [
        ({"ipv4Address": "10.0.0"}, "IPv4Address = '10.0.0' (" + tagged("IPv4Address", "cidrv4")),
        ({"ipv6Address": "10.0.0.1/24"}, tagged("IPv6Address", "cidrv6")),
        ({"routeReflectorClusterID": "x"}, tagged("RouteReflectorClusterID", "ipv4")),
        ({}, "Spec.BGP should not be empty"),
        ({"asNumber": "x"}, "invalid AS Number format (x)"),
        ({"asNumber": True}, "invalid AS Number format (True)"),
        ({"ipv4Address": "0.0.0.0/24"}, "BIRD cannot use the unspecified address"),
        ({"ipv4Address": "224.0.0.1"}, "BIRD cannot use a multicast address"),
        (
            {"ipv6Address": "fe80::1/64"},
            "IPv6Address = 'fe80::1/64' (" + tagged("IPv6Address", "cidrv6"),
        ),
    ],
)
def test_wrong_bgp_settings_of_a_node_are_refused(operator, bgp, reason):
    """In Calico's words."""
    result = apply(operator, "Node", "node1", {"bgp": bgp})
    assert (1, "") == (result.status, result.out)
    assert reason in result.err


def test_a_node_may_have_its_address_without_a_network(operator):
    """And an AS number with a dot, which is shown as one number."""
    bgp = {"ipv4Address": "10.0.0.1", "ipv6Address": "fd00::1/64", "asNumber": "1.10"}
    assert 0 == apply(operator, "Node", "node1", {"bgp": bgp}).status
    shown = operator.types("get", "node", "-o", "wide").out.splitlines()[1].split()
    assert ["node1", "65546", "10.0.0.1", "fd00::1/64"] == shown


def test_kubernetes_says_a_nodes_as_number_as_text():
    """In an annotation; it is shown as a number all the same."""
    metadata = {
        "name": "node1",
        "resourceVersion": "7",
        "annotations": {"projectcalico.org/ASNumber": "65000.1"},
    }
    entry = to_entry({"kind": "Node", "apiVersion": "v1", "metadata": metadata}, V1)
    assert {"asNumber": 65000 << 16 | 1} == get_kind("node").decode(entry)["spec"]["bgp"]


# How values are written


@pytest.mark.parametrize(
    ("text", "number"),
    [(64512, 64512), ("64512", 64512), ("1.10", 65546), (4294967295, 4294967295), ("0.1", 1)],
)
def test_an_as_number_is_read(text, number):
    """As a number, a text, or two halves."""
    assert number == parse_as_number(text)


@pytest.mark.parametrize(
    "text", [-1, 4294967296, True, "", "1.2.3", "65536.1", "x", None, 1.5, "²"]
)
def test_what_is_no_as_number_is_refused(text):
    """With what was given."""
    with pytest.raises(ValueError, match="invalid AS Number format"):
        parse_as_number(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:1790", ("10.0.0.1", 1790)),
        ("fd00::1", ("fd00::1", None)),
        ("[fd00::1]:1790", ("fd00::1", 1790)),
    ],
)
def test_a_peers_address_may_have_a_port(text, expected):
    """In either family."""
    address, port = parse_peer_address(text)
    assert expected == (str(address), port)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("1.5h", 5400), ("2500ms", 2)]
)
def test_a_duration_is_read_as_go_writes_it(text, seconds):
    """In whole seconds, which is what BIRD takes."""
    assert seconds == parse_seconds(text)


@pytest.mark.parametrize("text", ["2562048h", "9" * 400 + "h"])
def test_a_duration_that_go_cannot_hold_is_refused(text):
    """It has 63 bits of nanoseconds."""
    with pytest.raises(ValueError, match="time: invalid duration"):
        parse_seconds(text)


def test_gos_longest_duration_is_read():
    """Some 292 years."""
    assert 2562047 * 3600 == parse_seconds("2562047h")
