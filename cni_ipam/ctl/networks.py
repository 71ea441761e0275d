"""What the network lists of this node say: who is in them for us, and so the node's name, the
host's lock, and which routes are wanted."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_ipam.cni.fields import Fields, get_key
from cni_ipam.cni.netconf import CALICO_NAME, OUR_NAME, is_chained, parse_routes
from cni_ipam.cni.settings import find_node_name, parse_lock_file
from cni_ipam.errors import OperatorError
from cni_ipam.lean.record import replace
from cni_ipam.routes.plan import RouteSettings, outlives_blackholes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni_ipam.cni.settings import DatastoreSettings
    from cni_ipam.ctl.locate import Wishes

DEFAULT_NETCONF_DIR = "/etc/cni/net.d"
NETCONF_DIR_VARIABLE = "CNI_NETCONF_DIR"


@dataclass(frozen=True)
class Role:
    """A plugin of a network list for which we work: an interface plugin whose IPAM we are, or
    we ourselves if `chained`. `called_as` is the name of our program there."""

    network: str
    type: str
    chained: bool
    called_as: str
    fields: Fields

    @property
    def routes(self) -> RouteSettings:
        """Which routes it installs. Raises NetconfError."""
        return parse_routes(self.fields, ours=self.called_as == OUR_NAME)

    @property
    def holds_blocks(self) -> bool:
        """Whether it looks after blackholes."""
        return self.routes.blackhole and self.outlives_blackholes

    @property
    def outlives_blackholes(self) -> bool:
        """Whether its pods keep their way under a blackhole, as far as this role can say."""
        return outlives_blackholes(self.type, self.routes, chained=self.chained)


@dataclass(frozen=True)
class Networks:
    """The roles of all networks, in the order of their files, and the first file that could not
    be read, with the reason; "" if there is none."""

    folder: str
    roles: tuple[Role, ...]
    unreadable: str


@dataclass(frozen=True)
class NodeSettings:
    """How this node's routes are looked after: as the plugin does it here.

    Host routes are wanted for the pods of `routed_networks`; None means all networks. The pods of
    `unheld_networks` get no blackholes from who owns these here: from us if `routes.blackhole`,
    else from BIRD. `known_networks` are all that have a list; None: nobody knows."""

    name: str
    lock_file: str
    lock_timeout_seconds: float
    routes: RouteSettings
    routed_networks: frozenset[str] | None
    unheld_networks: frozenset[str]
    known_networks: frozenset[str] | None = None

    @property
    def bird_owns_blackholes(self) -> bool:
        """Whether blackholes are BIRD's: we make none, and there are pods that outlive them."""
        return not self.routes.blackhole and self.unheld_networks != self.known_networks


def read_networks(wishes: Wishes, environ: Mapping[str, str]) -> Networks:
    """The network lists of this node, as far as their addresses come from a datastore."""
    folder = _find_folder(wishes, environ)
    roles: list[Role] = []
    unreadable = ""
    for name in _list_names(folder):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                document = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            unreadable = unreadable or f"{path}: {error}"
            continue
        roles += _find_roles(document)
    return Networks(folder, tuple(roles), unreadable)


def get_version(wishes: Wishes, environ: Mapping[str, str]) -> object:
    """Something that differs after a network list was added, written or removed."""
    folder = _find_folder(wishes, environ)
    found = []
    for name in _list_names(folder):
        with suppress(OSError):
            seen = os.stat(os.path.join(folder, name))
            found.append((name, seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return found


def find_node_settings(
    networks: Networks, datastore: DatastoreSettings, name: str | None = None
) -> NodeSettings:
    """The settings of a node; `name` is what the command line calls it, by default this one.

    Raises NetconfError, InputOutputError, and OperatorError if nothing tells the node's name, or
    its networks mark their routes differently."""
    if not networks.roles and name is None:
        raise OperatorError(
            f"this node's name is not known: no network in {networks.folder} has cni-ipam",
            networks.unreadable or "name the node with --node, or the folder with --netconf-dir",
        )
    fields = networks.roles[0].fields if networks.roles else Fields(())
    return NodeSettings(
        name=find_node_name(fields) if name is None else name,
        lock_file=parse_lock_file(fields, datastore),
        lock_timeout_seconds=fields.seconds("ipam_lock_timeout", 60.0),
        routes=_find_routes(networks.roles),
        routed_networks=_find_routed(networks.roles),
        unheld_networks=_find_unheld(networks.roles),
        known_networks=frozenset([role.network for role in networks.roles]) or None,
    )


def find_recording(networks: Networks) -> tuple[Role, ...]:
    """The roles by whose records this node's routes are judged: the first one, whose settings
    count, and each that records the addresses of a network with routes of ours.

    Raises NetconfError."""
    routed = {role.network for role in networks.roles if role.routes.host or role.routes.blackhole}
    others = [r for r in networks.roles[1:] if r.network in routed and not r.chained]
    return (*networks.roles[:1], *others)


def require_own_name(networks: Networks, name: str | None) -> None:
    """Raises OperatorError if the networks call this node otherwise than the command line, whose
    `name` goes before; or if that has none, and they do not agree. Else as `find_node_settings`."""
    names = {find_node_name(role.fields): role.network for role in find_recording(networks)}
    if name is not None and names and name not in names:
        raise OperatorError(
            f"--node is {name}, but the networks of this node call it {' and '.join(names)}",
            "leave --node out; another node's routes are looked after there",
        )
    if name is None and len(names) > 1:
        (one, network), (other, another) = list(names.items())[:2]
        raise OperatorError(
            f"the network {network} calls this node {one}, but {another} calls it {other}",
            "give all networks of a node the same nodename",
        )


def _find_routes(roles: tuple[Role, ...]) -> RouteSettings:
    if not roles:
        return RouteSettings(host=True, blackhole=True)
    first = roles[0].routes
    for role in roles:
        if (role.routes.proto, role.routes.table) != (first.proto, first.table):
            raise OperatorError(
                f"the networks {roles[0].network} and {role.network} mark their routes differently",
                "give all networks of a node the same routes.proto and routes.table",
            )
    return replace(
        first,
        host=any(role.chained and role.routes.host for role in roles),
        blackhole=any(role.holds_blocks for role in roles),
    )


def _find_routed(roles: tuple[Role, ...]) -> frozenset[str] | None:
    if not roles:
        return None
    return frozenset([role.network for role in roles if role.chained and role.routes.host])


def _find_unheld(roles: tuple[Role, ...]) -> frozenset[str]:
    held = {role.network for role in roles if role.holds_blocks}
    held = held or {role.network for role in roles if role.outlives_blackholes}
    return frozenset([role.network for role in roles]) - held


def _find_folder(wishes: Wishes, environ: Mapping[str, str]) -> str:
    return wishes.netconf_dir or environ.get(NETCONF_DIR_VARIABLE) or DEFAULT_NETCONF_DIR


def _list_names(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if name.endswith((".conf", ".conflist", ".json")))


def _find_roles(document: Any) -> list[Role]:
    if not isinstance(document, dict):
        return []
    plugins = document.get("plugins", [document])
    network = str(get_key(document, "name") or "")
    return [
        role
        for plugin in (plugins if isinstance(plugins, list) else [])
        if isinstance(plugin, dict) and (role := _find_role(network, plugin)) is not None
    ]


def _find_role(network: str, plugin: dict[str, Any]) -> Role | None:
    ipam = get_key(plugin, "ipam")
    ipam = ipam if isinstance(ipam, dict) else {}
    kinds = (get_key(ipam, "type"), get_key(plugin, "type"))
    if OUR_NAME not in kinds and kinds[0] != CALICO_NAME:
        return None
    return Role(
        network=network,
        type=str(kinds[1] or ""),
        chained=is_chained(plugin, ipam),
        called_as=CALICO_NAME if kinds[0] == CALICO_NAME else OUR_NAME,
        fields=Fields((("ipam.", ipam), ("", plugin))),
    )
