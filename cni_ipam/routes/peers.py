"""Which BGP sessions a node has: the decision, from the nodes and the BGPPeers, as Calico's confd
makes it.

A BGPPeer joins a local side (every node, one by name, or those that a selector matches) to a remote
one (an address, or the nodes that a selector matches). Where both sides are nodes the peering is
turned round, too, so that each end knows of the other. What an operator wrote goes before what was
turned round, a peering of every node before one of some, and both before the node-to-node mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cni_ipam.core.selector import parse_selector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni_ipam.core.address import Address

DEFAULT_AS_NUMBER = 64512
MESH, GLOBAL, NODE = "Mesh", "Global", "Node"
# How a BGPPeer spells the options.
_KEYS = {
    "uses_node_address": "sourceAddress",
    "keeps_next_hop": "keepOriginalNextHop",
    "restart_seconds": "maxRestartTime",
    "allowed_local_as": "numAllowedLocalASNumbers",
    "ttl_hops": "ttlSecurity",
}


@dataclass(frozen=True)
class BgpNode:
    """A node as BGP sees it: at most one address of each family. With a cluster ID it is a route
    reflector. Without an AS number it has everybody's, without a port that of `BgpSettings`."""

    name: str
    addresses: Mapping[int, Address] = field(default_factory=dict)
    as_number: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster_id: str = ""
    port: int | None = None


@dataclass(frozen=True)
class Options:
    """What a BGPPeer says about its sessions beside their ends."""

    uses_node_address: bool = True
    keeps_next_hop: bool = False
    restart_seconds: int | None = None
    allowed_local_as: int | None = None
    ttl_hops: int | None = None


@dataclass(frozen=True)
class Peering:
    """A BGPPeer. Its local side is `node`, else `node_selector`, else every node; its remote side
    `address`, else what `peer_selector` matches."""

    name: str
    node: str = ""
    node_selector: str = ""
    peer_selector: str = ""
    address: Address | None = None
    port: int | None = None
    as_number: int = 0
    options: Options = Options()

    @property
    def is_global(self) -> bool:
        """Whether every node has it."""
        return not self.node and not self.node_selector

    def selects(self, node: BgpNode) -> bool:
        """Whether a node is on the local side."""
        if self.node_selector:
            return parse_selector(self.node_selector).matches(node.labels)
        return self.is_global or node.name == self.node


@dataclass(frozen=True)
class BgpSettings:
    """What the BGPConfigurations say."""

    as_number: int = DEFAULT_AS_NUMBER
    has_mesh: bool = True
    mesh_restart_seconds: int | None = None
    port: int | None = None


@dataclass(frozen=True)
class Session:
    """One BGP session of a node, named as Calico names it: calicoctl tells its kind by the name."""

    kind: str
    neighbor: Address
    as_number: int
    port: int | None = None
    is_passive: bool = False
    is_client: bool = False
    options: Options = Options()

    @property
    def name(self) -> str:
        """A word of BIRD's: the kind, and the address without its dots or colons."""
        words = str(self.neighbor).replace(".", "_").replace(":", "_")
        return f"{self.kind}_{words}" + (f"_port_{self.port}" if self.port else "")


def choose_sessions(
    own: BgpNode, nodes: Sequence[BgpNode], peerings: Sequence[Peering], settings: BgpSettings
) -> list[Session]:
    """The sessions of `own`, in the order of their names."""
    found: dict[tuple[Address, int | None], Session] = {}

    def offer(session: Session) -> None:
        if _can_have(own, session):
            found.setdefault((session.neighbor, session.port), session)

    for _, session in _written(own, nodes, peerings, settings):
        offer(session)
    for session in _turned_round(own, nodes, peerings, settings):
        offer(session)
    explicit = {neighbor for neighbor, _ in found}
    for session in _mesh(own, nodes, settings):
        if session.neighbor not in explicit:
            offer(session)
    return sorted(found.values(), key=lambda session: session.name)


def find_unheeded(
    own: BgpNode, nodes: Sequence[BgpNode], peerings: Sequence[Peering], settings: BgpSettings
) -> list[str]:
    """The BGPPeers of `own` that want a session otherwise than one that goes before them, each with
    what of it is not heeded."""
    found: dict[tuple[Address, int | None], tuple[Peering, Session]] = {}
    told: dict[str, str] = {}
    for peering, session in _written(own, nodes, peerings, settings):
        neighbor = session.neighbor
        first, heeded = found.setdefault((neighbor, session.port), (peering, session))
        lost = _find_differences(session, heeded)
        if lost and first is not peering and _can_have(own, session):
            reason = f"BGPPeer({first.name}) goes first and says otherwise"
            line = (
                f"BGPPeer({peering.name}): not heeded for {neighbor}: {', '.join(lost)}: {reason}"
            )
            told.setdefault(peering.name, line)
    return list(told.values())


def as_number_of(node: BgpNode, settings: BgpSettings) -> int:
    """The node's own AS number, or everybody's."""
    return node.as_number or settings.as_number


def _written(
    own: BgpNode, nodes: Sequence[BgpNode], peerings: Sequence[Peering], settings: BgpSettings
) -> Iterator[tuple[Peering, Session]]:
    """The sessions of the BGPPeers on whose local side a node is; what stands first is heeded."""
    for peering in sorted(peerings, key=lambda peering: (not peering.is_global, peering.name)):
        if peering.selects(own):
            kind = GLOBAL if peering.is_global else NODE
            for session in _ends_of(peering, own, nodes, settings, kind):
                yield peering, session


def _find_differences(session: Session, heeded: Session) -> list[str]:
    """What a BGPPeer says of a session beside its ends, and another one otherwise."""
    lost = [f"asNumber {session.as_number}"] if session.as_number != heeded.as_number else []
    ours, theirs = session.options, heeded.options
    return lost + [
        key for name, key in _KEYS.items() if getattr(ours, name) != getattr(theirs, name)
    ]


def _can_have(own: BgpNode, session: Session) -> bool:
    """Whether the other end is another node or router, and in a family that the node has."""
    neighbor = session.neighbor
    return neighbor not in own.addresses.values() and neighbor.version in own.addresses


def _ends_of(
    peering: Peering, own: BgpNode, nodes: Sequence[BgpNode], settings: BgpSettings, kind: str
) -> Iterator[Session]:
    """The sessions that a BGPPeer gives to a node on its local side."""
    if peering.address is None:
        for node in nodes:
            if parse_selector(peering.peer_selector).matches(node.labels):
                yield from _sessions_with(node, own, settings, kind, peering.options)
        return
    known = [node for node in nodes if peering.address in node.addresses.values()]
    same = [node for node in known if as_number_of(node, settings) == peering.as_number]
    port = peering.port or (same[0].port or settings.port if same else None)
    is_later = kind == GLOBAL and bool(known) and _connects_later(peering.address, own)
    yield Session(
        kind,
        peering.address,
        peering.as_number,
        port,
        is_passive=is_later,
        is_client=_is_client(own, peering.as_number, "", settings),
        options=peering.options,
    )


def _turned_round(
    own: BgpNode, nodes: Sequence[BgpNode], peerings: Sequence[Peering], settings: BgpSettings
) -> Iterator[Session]:
    """The sessions of a node that stands on the remote side of BGPPeers."""
    for peering in sorted(peerings, key=lambda peering: peering.name):
        if peering.address is None:
            if not parse_selector(peering.peer_selector).matches(own.labels):
                continue
            versions = {4, 6}
        else:
            is_own = peering.address in own.addresses.values()
            port = own.port or settings.port
            if not is_own or as_number_of(own, settings) != peering.as_number:
                continue
            if peering.port not in (None, port):
                continue
            versions = {peering.address.version}
        for node in nodes:
            if peering.selects(node):
                found = _sessions_with(node, own, settings, NODE, peering.options)
                yield from (session for session in found if session.neighbor.version in versions)


def _mesh(own: BgpNode, nodes: Sequence[BgpNode], settings: BgpSettings) -> Iterator[Session]:
    if not settings.has_mesh or own.cluster_id:
        return
    options = Options(restart_seconds=settings.mesh_restart_seconds)
    for node in nodes:
        if not node.cluster_id:
            yield from _sessions_with(node, own, settings, MESH, options)


def _sessions_with(
    node: BgpNode, own: BgpNode, settings: BgpSettings, kind: str, options: Options
) -> Iterator[Session]:
    number = as_number_of(node, settings)
    for _, address in sorted(node.addresses.items()):
        yield Session(
            kind,
            address,
            number,
            node.port or settings.port,
            is_passive=kind == MESH and _connects_later(address, own),
            is_client=_is_client(own, number, node.cluster_id, settings),
            options=options,
        )


def _connects_later(neighbor: Address, own: BgpNode) -> bool:
    """Whether of two nodes the other one connects: both would abort each other's graceful restart.
    Calico compares the texts, and both ends must agree."""
    return str(neighbor) > str(own.addresses.get(neighbor.version, ""))


def _is_client(own: BgpNode, number: int, cluster_id: str, settings: BgpSettings) -> bool:
    is_internal = number == as_number_of(own, settings)
    return bool(own.cluster_id) and is_internal and cluster_id != own.cluster_id
