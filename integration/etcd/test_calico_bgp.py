"""calicoctl and ipamctl on one etcd: peers, settings and nodes of BGP, and its sessions' table."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from integration.etcd.calico import PEERS, Mixed, Operator, resource, with_calico
from integration.etcd.node import RESOURCES
from integration.etcd.proxy import Proxy
from integration.network import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = with_calico

API = "projectcalico.org/v3"
PEERINGS = [
    resource("BGPPeer", "uplink", {"peerIP": "10.0.0.1", "asNumber": 64513}),
    resource("BGPPeer", "dotted", {"peerIP": "[fd00::1]:179", "asNumber": "1.10", "node": "n1"}),
    resource(
        "BGPPeer",
        "selected",
        {
            "peerSelector": "all()",
            "nodeSelector": "has(x)",
            "keepOriginalNextHop": True,
            "sourceAddress": "None",
            "maxRestartTime": "10s",
            "numAllowedLocalASNumbers": 1,
            "ttlSecurity": 2,
            "password": {"secretKeyRef": {"name": "a", "key": "b"}},
        },
    ),
]
SETTINGS = [
    resource(
        "BGPConfiguration",
        "default",
        {"asNumber": "64500", "nodeToNodeMeshEnabled": False, "logSeverityScreen": "Info"},
    ),
    resource(
        "BGPConfiguration",
        "node.b",
        {"listenPort": 1790, "ignoredInterfaces": ["dummy0"], "bindMode": "NodeIP"},
    ),
]
NODES = [
    resource("Node", "node1", {"bgp": {"ipv4Address": "10.0.0.1", "asNumber": "1.10"}}),
    resource("Node", "node2", {"bgp": {"ipv6Address": "fd00::1/64", "asNumber": 65000}}),
]
KINDS = ("bgppeer", "bgpconfig", "node")
WAYS = pytest.mark.parametrize(
    ("first", "second"), [("calicoctl", "ipamctl"), ("ipamctl", "calicoctl")]
)


@pytest.fixture
def mixed(etcd34, tmp_path) -> Iterator[Mixed]:
    with Proxy(etcd34.endpoints[0]) as proxy:
        yield Mixed(etcd34, proxy, tmp_path)


@WAYS
def test_both_show_the_same_in_the_same_words(mixed, first, second):
    """To the byte, whoever applied them: tables, YAML and JSON."""
    said = getattr(mixed, first).give("apply", *PEERINGS)
    assert "Successfully applied 3 'BGPPeer' resource(s)\n" == said
    getattr(mixed, first).give("apply", *SETTINGS, *NODES)
    for kind in KINDS:
        for form in ("ps", "wide", "yaml", "json"):
            words = ("get", kind, "-o", form)
            theirs, ours = mixed.calicoctl.say(*words), mixed.ipamctl.say(*words)
            assert without_own_revision(theirs) == without_own_revision(ours)
    changed = getattr(mixed, second).get("bgppeer", "uplink")
    changed["spec"]["asNumber"] = 64514
    getattr(mixed, second).give("replace", changed)
    assert changed["spec"] == getattr(mixed, first).get("bgppeer", "uplink")["spec"]
    getattr(mixed, second).give("delete", *PEERINGS, *SETTINGS)
    left = mixed.cluster.etcdctl("get", "--prefix", RESOURCES, "--keys-only").stdout
    assert "/bgp" not in left


def without_own_revision(text: str) -> str:
    """A list but for its own revision: with Calico the store's, with ours the items' latest; and
    without the newline that some releases of calicoctl put after JSON."""
    text = text.rstrip("\n") if text.startswith("{") else text
    text = re.sub(r'("metadata": \{\n    "resourceVersion": )"\d+"', r"\1", text)
    return re.sub(r"(\nmetadata:\n  resourceVersion: ).*", r"\1", text)


@pytest.mark.parametrize(
    ("kind", "name", "spec"),
    [
        ("BGPPeer", "x", {"peerIP": "10.0.0"}),
        ("BGPPeer", "x", {"peerIP": "10.0.0.1:0"}),
        ("BGPPeer", "x", {"peerIP": "10.0.0.1/24"}),
        ("BGPPeer", "x", {"peerIP": "10.0.0.1", "asNumber": 1, "peerSelector": "all()"}),
        ("BGPPeer", "x", {"node": "a", "nodeSelector": "all()", "peerIP": "10.0.0.1"}),
        ("BGPPeer", "x", {"nodeSelector": "all(", "peerIP": "10.0.0.1"}),
        ("BGPPeer", "x", {"node": "A B", "peerIP": "10.0.0.1"}),
        ("BGPPeer", "x", {"peerIP": "10.0.0.1", "sourceAddress": "foo"}),
        ("BGPPeer", "x", {"peerIP": "10.0.0.1", "reachableBy": "fd00::1"}),
        ("BGPPeer", "x", {"reachableBy": "10.0.0.1"}),
        ("BGPPeer", "X_y", {"peerIP": "10.0.0.1"}),
        ("BGPConfiguration", "node.a", {"asNumber": 1, "nodeToNodeMeshEnabled": False}),
        ("BGPConfiguration", "default", {"logSeverityScreen": "foo"}),
        ("BGPConfiguration", "default", {"ignoredInterfaces": ["*"]}),
        ("Node", "n", {"bgp": {"ipv4Address": "10.0.0"}}),
        ("Node", "n", {"bgp": {"ipv6Address": "10.0.0.1/24"}}),
        ("Node", "n", {"bgp": {"routeReflectorClusterID": "x"}}),
    ],
)
def test_both_refuse_the_same_in_the_same_words(mixed, kind, name, spec):
    """Each error that calicoctl tells stands in ours, which goes on with what would be right."""
    document = json.dumps(resource(kind, name, spec))
    theirs = mixed.calicoctl.run("apply", "-f", "-", stdin=document)
    ours = mixed.ipamctl.run("apply", "-f", "-", stdin=document)
    assert (1, 1) == (theirs.returncode, ours.returncode)
    told = re.split(r"\n-  ", theirs.stderr.partition("[")[2].strip().removesuffix("]").strip())
    for error in told[1:] or told:
        assert error.removeprefix("error with field ").rstrip(")").rstrip() in ours.stderr


# The sessions

PROTOCOLS = """\
0001 BIRD 1.6.8 ready.
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     2022-01-27
 kernel1  Kernel   master   up     2022-01-27
 Mesh_172_20_62_7 BGP      master   up     2022-01-27  Established
 Mesh_172_20_58_60 BGP      master   up     2022-01-27  Established
 Global_172_20_34_231 BGP      master   up     16:57:11    Established
 Node_172_20_34_232 BGP      master   start  16:57:11    Active        Socket: Connection refused
0000
"""
# calicoctl looks for the processes of Felix and BIRD by their command lines.
STAGE = """
mount -t tmpfs none /run && mkdir -p /run/bird /run/calico || exit 1
ln -s "$1" /run/calico/bird.ctl
(exec -a calico-felix sleep 60) & felix=$!
(exec -a bird sleep 60) & bird=$!
until [ "$(sort -u "/proc/$felix/comm" "/proc/$bird/comm")" = sleep ]; do sleep 0.05; done
"$2" node status
status=$?
kill "$felix" "$bird"
exit "$status"
"""


def test_the_sessions_are_shown_in_calicoctls_table(tmp_path):
    """From the same words of a BIRD, but for the first line: no Calico process is meant here."""
    place = str(tmp_path / "b.ctl")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        threading.Thread(target=answer, args=(listener, 2), daemon=True).start()
        theirs = subprocess.run(
            ["unshare", "--mount", "bash", "-c", STAGE, "bash", place, str(PEERS / "calicoctl")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        ours = Operator(BUNDLE / "ipamctl", {}).say("node", "status", "--bird-socket", place)
    first, _, rest = theirs.stdout.partition("\n")
    table, _, _ = rest.partition("\nINFO: BIRDv6 process")
    assert ("Calico process is running.", "BIRD is running.") == (first, ours.splitlines()[0])
    assert table == ours.partition("\n")[2].partition("\nIPv6 BGP status\n")[0]
    assert 4 == table.count("| 172.20.")


def answer(listener: socket.socket, count: int) -> None:
    """Say to each of so many clients what a BIRD would."""
    greeting, _, protocols = PROTOCOLS.partition("\n")
    for _ in range(count):
        client, _ = listener.accept()
        with client, client.makefile("rw") as words:
            words.write(f"{greeting}\n")
            words.flush()
            words.readline()
            words.write(protocols)
            words.flush()
