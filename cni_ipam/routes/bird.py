"""The configuration of BIRD 2 on a node: values in, text out, the same text for the same values.

Peers hear of the node's own blocks, and of such single addresses on it as lie outside of them
(borrowed ones), if they are of pools that are exported; of nothing else. What the blackholes of the
blocks are depends on who owns them:

* BIRD (`routes.blackhole` is false): static routes, which BIRD puts into the kernel as
  `blackhole 198.19.24.184/29 proto bird`. `metric 0` makes that line Calico's; 32 would be added.
* cni-ipam: the kernel's routes with our protocol number, which BIRD learns.
* nobody, as a blackhole would hide the block's pods (`Advertised.unheld`): static routes, which
  peers hear of and the kernel does not.

A learned route is preferred to what BGP says, and nobody is believed about our own blocks: another
node that still announces one must not draw our traffic.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cni_ipam.core.address import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.routes.peers import Session

# Pods' ends, whose addresses are gateways of pools, and kube-proxy's, which has every service's.
UNWATCHED_INTERFACES = ("cali*", "kube-ipvs*", "veth*")
# The kernel has no metric 0 for IPv6; 1024 is what it takes then.
_METRICS = {4: 0, 6: 1024}
_FAMILIES = (4, 6)
_MULTICAST = 224
_CLASS_WIDTH = 32


@dataclass(frozen=True)
class Speaker:
    """The node that BIRD speaks for. `addresses` has the families in which it speaks BGP."""

    node: str
    as_number: int
    addresses: Mapping[int, Address]
    cluster_id: str = ""
    port: int | None = None
    binds_to_address: bool = False
    ignored_interfaces: Sequence[str] = ()


@dataclass(frozen=True)
class Advertised:
    """What there is to tell: the node's confirmed blocks, the pools that are exported, those that
    are not (`hidden`), the protocol number of our routes, whether BIRD owns the blackholes, and the
    blocks that it must not put into the kernel (`unheld`)."""

    blocks: Sequence[Cidr]
    pools: Sequence[Cidr]
    hidden: Sequence[Cidr] = ()
    proto: int = 85
    bird_owns_blackholes: bool = False
    unheld: Sequence[Cidr] = ()

    @property
    def static(self) -> Sequence[Cidr]:
        """The blocks that are BIRD's own routes. In the kernel one of a single address is its pod's
        route."""
        return [
            block
            for block in self.blocks
            if block in self.unheld
            or (self.bird_owns_blackholes and block.prefix < BITS[block.version])
        ]

    def of_family(self, version: int) -> Advertised:
        """The part of one family, sorted."""
        return replace(
            self,
            blocks=_sorted(self.blocks, version),
            pools=_sorted(self.pools, version),
            hidden=_sorted(self.hidden, version),
            unheld=_sorted(self.unheld, version),
        )


def write_config(speaker: Speaker, sessions: Sequence[Session], world: Advertised) -> str:
    """The text of bird.conf."""
    parts = [_write_head(speaker)]
    for version in _FAMILIES:
        part = world.of_family(version)
        spoken = [session for session in sessions if session.neighbor.version == version]
        if version in speaker.addresses or part.blocks:
            parts.append(_write_tables(version, speaker, part))
        if spoken and version in speaker.addresses:
            parts.append(_write_filters(version, speaker, part))
            parts.append(_write_template(version, speaker))
            ordered = sorted(spoken, key=lambda session: session.name)
            parts += [_write_session(speaker, session) for session in ordered]
    return "\n".join(parts)


def find_router_id(speaker: Speaker) -> str:
    """The node's IPv4 address; without one what Calico makes of the node's name."""
    if 4 in speaker.addresses:
        return str(speaker.addresses[4])
    octets = bytearray(hashlib.sha256(speaker.node.encode()).digest()[:4])
    if octets[0] >= _MULTICAST:
        octets[0] -= _CLASS_WIDTH
    return ".".join(map(str, octets))


def _write_head(speaker: Speaker) -> str:
    return (
        f"# BIRD 2 on {' '.join(speaker.node.split())}. `ipamctl routes bird-config` makes this "
        "file, changes in it do not last.\n"
        "log stderr all;\n"
        "timeformat protocol iso short;\n"
        f"router id {find_router_id(speaker)};\n"
        "\n"
        "protocol device { scan time 2; }\n"
    )


def _write_tables(version: int, speaker: Speaker, part: Advertised) -> str:
    """How the family's table is filled, and what of it the kernel gets."""
    patterns = sorted({*UNWATCHED_INTERFACES, *speaker.ignored_interfaces})
    interfaces = ", ".join([*(f'-"{pattern}"' for pattern in patterns), '"*"'])
    lines = [
        f"protocol direct direct{version} {{",
        f"  ipv{version};",
        f"  interface {interfaces};",
        "}",
        "",
    ]
    if part.bird_owns_blackholes or part.static:
        routes = [f"  route {block} blackhole;" for block in part.static]
        lines += [f"protocol static blocks{version} {{", f"  ipv{version};", *routes, "}", ""]
    exported = "source = RTS_BGP"
    if part.bird_owns_blackholes and part.unheld:
        exported += f" || (source = RTS_STATIC && !(net ~ [ {_list(part.unheld)} ]))"
    elif part.bird_owns_blackholes:
        exported += " || source = RTS_STATIC"
    return "\n".join(
        [
            *lines,
            f"protocol kernel kernel{version} {{",
            "  learn;",
            "  persist;",
            "  scan time 2;",
            f"  metric {_METRICS[version]};",
            "  graceful restart;",
            f"  ipv{version} {{",
            f"    import filter {{ if krt_source = {part.proto} then preference = 200; accept; }};",
            f"    export where {exported};",
            "  };",
            "}",
            "",
        ]
    )


def _write_filters(version: int, speaker: Speaker, part: Advertised) -> str:
    """What peers hear, and what is believed of them."""
    own = [block for block in part.blocks if any(pool.covers(block) for pool in part.pools)]
    ours = f"source = RTS_INHERIT && krt_source = {part.proto}"
    lines = [f"filter to_peers{version} {{"]
    if part.hidden:
        lines.append(f"  if net ~ [ {_list(part.hidden, '+')} ] then reject;  # disableBGPExport")
    if part.pools:
        lines.append(f"  if ! (net ~ [ {_list(part.pools, '+')} ]) then reject;")
        if speaker.cluster_id:
            lines.append("  if source = RTS_BGP then accept;  # reflected")
        if part.bird_owns_blackholes or part.static:
            lines.append("  if source = RTS_STATIC then accept;  # own blocks")
        lines.append(f"  if ! ({ours}) then reject;")
        if own:
            lines.append(f"  if net ~ [ {_list(own)} ] then accept;  # own blocks")
            lines.append(f"  if net ~ [ {_list(own, '+')} ] then reject;  # pods in them")
        lines.append(f"  if net.len = {BITS[version]} then accept;  # borrowed")
    lines += ["  reject;", "}", "", f"filter from_peers{version} {{"]
    if part.blocks:
        lines.append(f"  if net ~ [ {_list(part.blocks)} ] then reject;  # own blocks")
    return "\n".join([*lines, "  accept;", "}", ""])


def _write_template(version: int, speaker: Speaker) -> str:
    lines = [
        f"template bgp peer{version} {{",
        "  connect delay time 1;",
        "  connect retry time 5;",
        "  error wait time 5, 30;",
        "  graceful restart;",
    ]
    if speaker.cluster_id:
        lines.append(f"  rr cluster id {speaker.cluster_id};")
    return "\n".join(
        [
            *lines,
            f"  ipv{version} {{",
            f"    import filter from_peers{version};",
            f"    export filter to_peers{version};",
            # A reflector does not stand in the way of the traffic.
            *([] if speaker.cluster_id else ["    next hop self;"]),
            "  };",
            "}",
            "",
        ]
    )


def _write_session(speaker: Speaker, session: Session) -> str:
    version, options = session.neighbor.version, session.options
    source = f" {speaker.addresses[version]}" if options.uses_node_address else ""
    own_port = f" port {speaker.port}" if speaker.port else ""
    port = f" port {session.port}" if session.port else ""
    lines = [
        f"protocol bgp {session.name} from peer{version} {{",
        f"  local{source}{own_port} as {speaker.as_number};",
        f"  neighbor {session.neighbor}{port} as {session.as_number};",
    ]
    if speaker.binds_to_address and options.uses_node_address:
        lines.append("  strict bind;")
    if options.ttl_hops is None:
        lines.append("  multihop;")
    else:
        lines += [f"  multihop {options.ttl_hops};", "  ttl security on;"]
    if session.is_passive:
        lines.append("  passive;")
    if session.is_client:
        lines.append("  rr client;")
    if options.restart_seconds is not None:
        lines.append(f"  graceful restart time {options.restart_seconds};")
    if options.allowed_local_as is not None:
        lines.append(f"  allow local as {options.allowed_local_as};")
    if options.keeps_next_hop and session.as_number != speaker.as_number:
        lines.append(f"  ipv{version} {{ next hop keep; }};")
    return "\n".join([*lines, "}", ""])


def _sorted(cidrs: Iterable[Cidr], version: int) -> list[Cidr]:
    found = {cidr for cidr in cidrs if cidr.version == version}
    return sorted(found, key=lambda cidr: (cidr.base, cidr.prefix))


def _list(cidrs: Iterable[Cidr], suffix: str = "") -> str:
    return ", ".join(f"{cidr}{suffix}" for cidr in cidrs)
