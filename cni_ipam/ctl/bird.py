"""BIRD's file and its sessions: `routes bird-config`, `node status`, and what `routes watch --bird`
does in each round."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import tempfile
import textwrap
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cni_ipam.core.address import BITS, parse_address
from cni_ipam.ctl.bgp_records import make_bird_config
from cni_ipam.ctl.bird_socket import DEFAULT_SOCKET, BirdDown, BirdSocket
from cni_ipam.ctl.output import format_box
from cni_ipam.ctl.watch import Follower, Reading
from cni_ipam.datastore import keys
from cni_ipam.errors import OperatorError
from cni_ipam.ipam.query import read_host
from cni_ipam.routes.peers import GLOBAL, MESH, NODE

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.core.address import Address
    from cni_ipam.ctl.bgp_records import BirdConfig
    from cni_ipam.ctl.networks import NodeSettings
    from cni_ipam.ctl.session import Session
    from cni_ipam.datastore.port import Entry

NEW_FILE_MODE = 0o644
INTERVAL_SECONDS = 30.0
"""How often to look whether BIRD is there, and its file as it was left."""
_NAMED = re.compile(r"[0-9a-f.:]+/\d+|(?:Global|Node|Mesh)_\w+")
_HIDDEN = re.compile(r"\[ (.+) \] then reject;  # disableBGPExport")
_PROTOCOL = re.compile(r"^protocol \w+ (\w+)", re.MULTILINE)
_READ = re.compile(r"^Reading configuration from (.+)$", re.MULTILINE)
_PEER_TYPES = {GLOBAL: "global", NODE: "node specific", MESH: "node-to-node mesh"}
_PEER_NAME = re.compile(rf"({GLOBAL}|{NODE}|{MESH})_(.+?)(?:_port_(\d+))?")
WIDEST_INFO = 30
_HEADINGS = ("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO")
# name, protocol, table, state, since, and what BIRD has to say, which may be several words
_COLUMNS = 6

BirdSocketPath = Annotated[
    str, typer.Option("--bird-socket", metavar="FILE", help="BIRD's control socket.")
]


class BgpPeer(NamedTuple):
    """A BGP session as BIRD reports it."""

    address: Address
    row: tuple[str, ...]


def bird_config(
    context: typer.Context,
    *,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="Another node than this one.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there.")
    ] = None,
) -> None:
    """Show the configuration with which BIRD 2 tells the node's blocks to its BGP peers."""
    session: Session = context.obj
    settings = session.find_node(node)
    made = make_bird_config(session.store, settings, read_host(session.store, settings.name))
    if output is None:
        sys.stdout.write(made.text)
    else:
        write_file(output, made.text)
    for line in made.left_out:
        print(f"left out: {line}", file=sys.stderr)


def status(context: typer.Context, *, bird_socket: BirdSocketPath = DEFAULT_SOCKET) -> None:
    """Show the state of this node's BGP sessions."""
    with BirdSocket(bird_socket) as bird:
        answer = bird.ask("show protocols")
    peers = [peer for _, line in answer.lines if (peer := find_peer(line)) is not None]
    # Who calls it calicoctl may look for calicoctl's word.
    is_calicoctl = context.find_root().info_name == "calicoctl"
    print("Calico process is running." if is_calicoctl else "BIRD is running.")
    for version in (4, 6):
        rows = [line for p in peers if p.address.version == version for line in _wrap(p.row)]
        print(f"\nIPv{version} BGP status")
        if rows:
            sys.stdout.write(format_box(_HEADINGS, rows, is_centered=True))
        else:
            print(f"No IPv{version} peers found.")
    print()


def find_peer(line: str) -> BgpPeer | None:
    """The BGP session that a line of `show protocols` is about, if it is one of `bird-config`'s."""
    columns = line.split(maxsplit=_COLUMNS - 1)
    named = _PEER_NAME.fullmatch(columns[0]) if columns else None
    if named is None or len(columns) < _COLUMNS - 1 or columns[1] != "BGP":
        return None
    address = _read_address(named[2])
    if address is None:
        return None
    port = f" port {named[3]}" if named[3] else ""
    info = " ".join(columns[_COLUMNS - 1].split()) if len(columns) == _COLUMNS else ""
    return BgpPeer(
        address, (f"{address}{port}", _PEER_TYPES[named[1]], columns[3], columns[4], info)
    )


def _wrap(row: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The lines of a row: what is longer than calicoctl's columns goes on below."""
    *cells, info = row
    lines = textwrap.wrap(info, WIDEST_INFO) or [""]
    if len(lines) > 1:
        lines[0] = lines[0].ljust(WIDEST_INFO)
    return [(*cells, lines[0]), *(("",) * len(cells) + (line,) for line in lines[1:])]


class BirdKeeper:
    """Keeps BIRD and its file as the records say."""

    def __init__(self, path: str, socket_path: str = DEFAULT_SOCKET) -> None:
        self._path = path
        self._socket_path = socket_path
        self._is_told = False
        self._refused: str | None = None
        self._refusal = ""
        self._retry_at = 0.0
        self._other = ""

    def update(self, text: str) -> list[str]:
        """BIRD works by `text` afterwards; returns what was done, nothing if it did already.

        Raises BirdDown, whereby the file is written for BIRD's start; and OperatorError if the file
        cannot be written, or BIRD refuses it: then the former text is back, and the same one is
        tried again only after a while, as the cause may lie in a file that includes ours."""
        if text == self._refused and time.monotonic() < self._retry_at:
            raise OperatorError(self._refusal)
        former = read_file(self._path)
        lines = []
        if text != former:
            write_file(self._path, text)
            self._is_told = False
            lines.append(f"wrote {self._path}: {describe_change(former or '', text)}")
        try:
            with BirdSocket(self._socket_path) as bird:
                answer = None if self._is_told else bird.ask("configure")
                if answer is not None and not answer.is_error:
                    lines += self._find_other(bird, answer.text, text)
        except BirdDown as error:
            self._is_told = False
            raise BirdDown(f"{error.msg}; {self._path} is ready for its start") from None
        if answer is not None and answer.is_error:
            self._take_back(former, text, answer.text)
        self._is_told = True
        return lines

    def _find_other(self, bird: BirdSocket, words: str, text: str) -> list[str]:
        """A line if BIRD, which read what its `words` name, does not have what `text` says, and
        that is news. A file that includes ours is fine; so is ours by another path, as that of a
        container."""
        read = _READ.search(words)
        wanted = set(_PROTOCOL.findall(text))
        other = "" if read is None else read[1].strip()
        if not wanted or os.path.realpath(other) == os.path.realpath(self._path):
            other = ""
        if other:
            answer = bird.ask("show protocols")
            if answer.is_error or wanted <= {line.partition(" ")[0] for _, line in answer.lines}:
                other = ""
        former, self._other = self._other, other
        if other in ("", former):
            return []
        return [f"bird: BIRD reads {other}, which does not include {self._path}"]

    def _take_back(self, former: str | None, text: str, words: str) -> None:
        """Put the former file back after BIRD's refusal of `text`. Raises OperatorError."""
        if former is None:
            os.unlink(self._path)
        else:
            write_file(self._path, former)
        reason = words.splitlines()[-1]
        self._refused = text
        self._retry_at = time.monotonic() + INTERVAL_SECONDS
        self._refusal = f"BIRD refuses its new configuration and goes on with the old one: {reason}"
        raise OperatorError(self._refusal)


class KeptBird(Follower):
    """What `routes watch --bird` adds to the loop; for `find_node` see Keeper."""

    def __init__(
        self, find_node: Callable[[], NodeSettings], session: Session, path: str, socket_path: str
    ) -> None:
        self._node = find_node()
        self._find_node = find_node
        self._session = session
        self._keeper = BirdKeeper(path, socket_path)
        self._made = Reading(self._make)
        self._left_out: tuple[str, ...] = ()
        records = (keys.BGP_CONFIGURATIONS, keys.BGP_PEERS, keys.NODES, keys.POOLS, keys.BLOCKS)
        super().__init__(
            "bird", (keys.HOST_AFFINITIES, *records), interval_seconds=INTERVAL_SECONDS
        )

    def follow(self) -> list[str]:
        """See Follower."""
        former, self._node = self._node, self._find_node()
        if self._node is not former:
            self._made.note_change()
        made = self._made.get()
        for line in made.left_out:
            if line not in self._left_out:
                print(f"left out: {line}", file=sys.stderr)
        self._left_out = made.left_out
        return self._keeper.update(made.text)

    def concerns(self, change: Entry | str) -> bool:
        """Other nodes' blocks don't matter, and whose pods are in the own ones only beside networks
        that are not held. See Follower."""
        key = change if isinstance(change, str) else change.key
        if key.startswith(keys.BLOCKS):
            is_here = not isinstance(change, str) and self._node.name in change.value
            return is_here and bool(self._node.unheld_networks)
        own = tuple(keys.affinities_prefix(self._node.name, version) for version in BITS)
        return not key.startswith(keys.HOST_AFFINITIES) or key.startswith(own)

    def note_change(self) -> None:
        """See Follower."""
        self._made.note_change()

    def _make(self) -> BirdConfig:
        store = self._session.store
        return make_bird_config(store, self._node, read_host(store, self._node.name))


def describe_change(former: str, text: str) -> str:
    """Which blocks, pools and peers one configuration has and the other has not."""
    before, after = set(_NAMED.findall(former)), set(_NAMED.findall(text))
    hidden_before, hidden_after = _find_hidden(former), _find_hidden(text)
    parts = [
        ("with", after - before),
        ("without", before - after),
        ("no longer exported:", (hidden_after - hidden_before) & before),
        ("exported again:", (hidden_before - hidden_after) & after),
    ]
    told = [f"{word} {', '.join(sorted(names))}" for word, names in parts if names]
    return "; ".join(told) or "other settings"


def _find_hidden(text: str) -> set[str]:
    """The pools that are not exported."""
    return {name for found in _HIDDEN.findall(text) for name in _NAMED.findall(found)}


def read_file(path: str) -> str | None:
    """The text of a file; None if there is none. Raises OperatorError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error


def write_file(path: str, text: str) -> None:
    """The file has this text afterwards; whoever reads it meanwhile sees all of the old one or all
    of the new one. Owner and mode stay; a new file may be read by all, as BIRD is not root. What
    is no file, like /dev/stdout, and what is a mount point, is written to.

    Raises OperatorError."""
    path = os.path.realpath(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            _write_through(path, text)
            return
        handle, draft = tempfile.mkstemp(prefix=".bird-", dir=os.path.dirname(path))
        try:
            with open(handle, "w", encoding="utf-8") as file:
                _keep_owner(path, file.fileno())
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _write_through(path, text)  # nothing can take the place of a mount point
        finally:
            with suppress(FileNotFoundError):  # it is the file by now
                os.unlink(draft)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from error


def _write_through(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _keep_owner(path: str, handle: int) -> None:
    try:
        former = os.stat(path)
    except FileNotFoundError:
        os.fchmod(handle, NEW_FILE_MODE)
        return
    os.fchown(handle, former.st_uid, former.st_gid)
    os.fchmod(handle, stat.S_IMODE(former.st_mode))


def _read_address(words: str) -> Address | None:
    """The address in the name of a session: its dots or colons are underscores there."""
    for separator in (".", ":"):
        try:
            return parse_address(words.replace("_", separator))
        except ValueError:
            continue
    return None
