"""The documents' commands on BGP, with the sessions of the document's table, between real BIRDs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import yaml

from integration.bird import Bird, with_bird
from integration.documents.shell import COMMANDS, Shell, lines_of, write_network
from integration.network import BUNDLE, find_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Lab

OBSTACLE = find_obstacle()
pytestmark = [
    with_bird,
    pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or ""),
]

PEER, STATUS = yaml.safe_load(COMMANDS.read_text())["bgp"]["steps"]
NODES = {"node1": "172.20.50.50", "node2": "172.20.62.7", "node3": "172.20.58.60"}
ROUTER = "172.20.34.231"
# BIRD on the router rests for a minute after an attempt that failed.
PATIENCE_SECONDS = 150
CONFIG = """
router id 172.20.34.231;
protocol device {}
template bgp node {
    local 172.20.34.231 as 64512;
    ipv4 { import all; export none; };
}
"""
# A /run of the command's own, where BIRD is at its usual place.
STAGE = "mount -t tmpfs none /run && mkdir /run/bird && ln -s {socket} /run/bird/bird.ctl && {line}"


@pytest.fixture(params=["ipamctl", "calicoctl"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """On node1, whose datastore knows all three nodes; the program under both of its names."""
    made = Shell(tmp_path, BUNDLE / "ipamctl", write_network(tmp_path), name=request.param)
    text = "".join(
        "---\napiVersion: projectcalico.org/v3\nkind: Node\n"
        f"metadata: {{name: {name}}}\nspec: {{bgp: {{ipv4Address: {address}/19}}}}\n"
        for name, address in NODES.items()
    )
    done = made.gives("apply", text)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def birds(lab: Lab, tmp_path: Path) -> Iterator[dict[str, Bird]]:
    """One on each node and on the router, none of them started, all on one LAN."""
    hub = lab.namespace("lan")
    lab.bridge(hub, "lan")
    with ExitStack() as stack:
        made = {}
        for name, address in {**NODES, "router": ROUTER}.items():
            machine = lab.namespace(name)
            lab.veth(hub, name, machine, "eth0")
            hub.ip("link", "set", name, "master", "lan")
            machine.ip("address", "add", f"{address}/19", "dev", "eth0")
            made[name] = stack.enter_context(Bird(name, machine, tmp_path))
        yield made


def test_a_nodes_sessions_are_shown_as_in_the_document(shell, birds):
    """All peers with type, state and info, in whatever order; when a session came up is a matter of
    the moment. Called ipamctl, the first line names what runs here: no process of Calico's."""
    assert lines_of(PEER["shows"]) == lines_of(shell.types(PEER["command"], PEER["manifest"]))
    configs = {name: shell.types(f"calicoctl routes bird-config --node {name}") for name in NODES}
    for name, config in configs.items():
        birds[name].start(config)
    sessions = (
        f"protocol bgp {name} from node {{ neighbor {NODES[name]} as 64512; }}\n" for name in NODES
    )
    birds["router"].start(CONFIG + "".join(sessions))
    birds["node1"].wait_established(seconds=PATIENCE_SECONDS)
    line = STAGE.format(socket=birds["node1"].socket, line=STATUS["command"].removeprefix("sudo "))
    answer = shell.types(f"unshare --mount sh -c '{line}'")
    first = "BIRD is running." if shell.name == "ipamctl" else STATUS["shows"].splitlines()[0]
    assert first == answer.splitlines()[0]
    assert sorted(cells_of(STATUS["shows"])) == sorted(cells_of(answer))


def cells_of(text: str) -> list[list[str]]:
    """The lines behind the first, those of the table as cells: rules, and times, as one dash."""
    lines = [[cell.strip() for cell in line.split("|")] for line in lines_of(text)[1:]]
    return [
        ["-"] if line[0].startswith("+") else [*line[:4], "-", *line[5:]] if len(line) > 5 else line
        for line in lines
    ]
