"""A lab's network, as its containerlab file describes it: machines, their commands, their links."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import yaml

from cni_ipam.lean.record import record

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    Json = dict[str, Any]

NETWORKS = "/etc/cni/net.d/"


@record
class Bind:
    """A file beside the topology, and where a machine has it."""

    source: str
    target: str


@record
class Box:
    """One machine: its address in the management network, its files, its first commands."""

    name: str
    address: str
    binds: tuple[Bind, ...]
    commands: tuple[tuple[str, ...], ...]

    @property
    def is_node(self) -> bool:
        """Whether pods may run there: it has a network list."""
        return any(bind.target.startswith(NETWORKS) for bind in self.binds)


@record
class Topology:
    """Machines by their names; each link joins an interface of one to one of another."""

    name: str
    management: str
    boxes: dict[str, Box]
    links: tuple[tuple[tuple[str, str], tuple[str, str]], ...]


def read_topology(path: Path) -> Topology:
    """What the file at `path` says."""
    document: Json = yaml.safe_load(path.read_text())
    topology = document["topology"]
    return Topology(
        document["name"],
        document["mgmt"]["ipv4-subnet"],
        {name: _read_box(name, node) for name, node in topology["nodes"].items()},
        tuple(_read_link(link["endpoints"]) for link in topology.get("links", [])),
    )


def _read_box(name: str, node: Json) -> Box:
    parts = (bind.split(":") for bind in node.get("binds", []))
    return Box(
        name,
        node["mgmt-ipv4"],
        tuple(Bind(source, target) for source, target, *_ in parts),
        tuple(tuple(shlex.split(command)) for command in node.get("exec", [])),
    )


def _read_link(ends: list[str]) -> tuple[tuple[str, str], tuple[str, str]]:
    (one, device), (other, peer) = (end.split(":") for end in ends)
    return (one, device), (other, peer)
