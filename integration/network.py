"""A pretend node on which a real CNI runtime works: cnitool, the reference plugins, our bundle.

    with Lab() as lab:
        node = Node(lab, folder)
        node.write_network({"cniVersion": "1.1.0", "name": "net", "plugins": […]})
        pod = lab.namespace("pod")
        node.cnitool("add", "net", pod)

Its network namespace is its own, and so is its /var/lib, where our datastore and cnitool's cache
lie: each command runs in a mount namespace that ends with it and sees a folder of the node's there.
So the machine's own network and files stay as they are. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cni_ipam.core.check import check_datastore
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range
from cni_ipam.datastore.sqlite import SqliteDatastore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from cni_ipam.datastore.port import Datastore
    from integration.netns import Lab, Namespace

    Json = dict[str, Any]
    Done = subprocess.CompletedProcess[str]

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "dist" / "cni-ipam"
TOOLS = ROOT / "build" / "tools"
OURS = ("cni-ipam", "calico-ipam")
THEIRS = ("ptp", "bridge", "host-local", "portmap")
ENTER = 'mount --bind "$0" /var/lib && exec "$@"'
# What takes a moment takes many where others are at work; who waits goes on as soon as it is so.
PATIENCE_SECONDS = 60.0


def find_obstacle() -> str | None:
    """Why no node can be made on this machine; None if one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "true"], capture_output=True, text=True, check=False
    )
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else None


def find_missing(name: str) -> str | None:
    """Why `make setup` could not get build/`name`; None if it is there. Raises FileNotFoundError
    if setup has not tried."""
    folder = ROOT / "build" / name
    if folder.exists():
        return None
    refusal = folder.with_name(f"{name}-missing")
    if not refusal.exists():
        raise FileNotFoundError(f"there is no {folder}: run `make setup`")
    return refusal.read_text().strip()


class Node:
    """A network namespace with a /var/lib of its own, below `folder`.

    Nodes that share `var_lib` share the datastore; each then needs a `nodename` in its netconf.
    """

    def __init__(
        self, lab: Lab, folder: Path, label: str = "host", var_lib: Path | None = None
    ) -> None:
        self.namespace = lab.namespace(label)
        self.networks = folder / f"{label}-net.d"
        self.plugins = folder / f"{label}-plugins"
        self.var_lib = var_lib or folder / f"{label}-var-lib"
        for made in (self.networks, self.plugins, self.var_lib):
            made.mkdir(exist_ok=True)
        for place, names in ((BUNDLE, OURS), (TOOLS, THEIRS)):
            for name in names:
                (self.plugins / name).symlink_to(place / name)

    def run(self, *argv: str, stdin: str = "", **variables: str) -> Done:
        """Run a command on this node, with nothing in its environment but `variables`."""
        path = os.environ.get("PATH", os.defpath)
        inside = ("unshare", "--mount", "sh", "-c", ENTER, str(self.var_lib), *argv)
        environment = {"PATH": path} | variables
        return self.namespace.run(*inside, input=stdin, env=environment, check=False)

    # The runtime

    def write_network(self, conflist: Json) -> None:
        """Put a network list where the runtime looks for it; who reads it meanwhile sees all of the
        former one or all of this one."""
        draft = self.networks / f".{conflist['name']}.draft"
        draft.write_text(json.dumps(conflist))
        draft.rename(self.networks / f"{conflist['name']}.conflist")

    def cnitool(self, verb: str, network: str, pod: Namespace, **variables: str) -> Done:
        """Run cnitool; `variables` are CNI_IFNAME, CNI_ARGS, CAP_ARGS."""
        return self.run(
            str(TOOLS / "cnitool"),
            verb,
            network,
            pod.path,
            NETCONFPATH=str(self.networks),
            CNI_PATH=str(self.plugins),
            **variables,
        )

    def add(self, network: str, pod: Namespace, **variables: str) -> Json:
        """The result of cnitool's `add`; raises AssertionError with its words if it fails."""
        done = self.cnitool("add", network, pod, **variables)
        assert done.returncode == 0, f"cnitool add: {done.stderr}{done.stdout}"
        result: Json = json.loads(done.stdout)
        return result

    def ipamctl(self, *words: str) -> Done:
        """Run our operator's tool; it finds the datastore by the node's network lists."""
        program = str(BUNDLE / "ipamctl")
        return self.run(program, *words, CNI_NETCONF_DIR=str(self.networks), COLUMNS="120")

    # A plugin by itself

    def call_plugin(
        self,
        command: str,
        netconf: Mapping[str, Any],
        *,
        container: str = "c1",
        netns: str = "/run/netns/none",
        ifname: str = "eth0",
        args: str = "",
        name: str = "cni-ipam",
        wrapper: Sequence[str] = (),
    ) -> Done:
        """Run one of the plugins as libcni does: its variables, the netconf on stdin."""
        return self.run(
            *wrapper,
            str(self.plugins / name),
            stdin=json.dumps(netconf),
            CNI_COMMAND=command,
            CNI_CONTAINERID=container,
            CNI_NETNS=netns,
            CNI_IFNAME=ifname,
            CNI_ARGS=args,
            CNI_PATH=str(self.plugins),
        )

    # What is there

    @property
    def database(self) -> Path:
        """The file of the datastore."""
        return self.var_lib / "cni-ipam" / "ipam.db"

    def read_store(self) -> Records:
        """Every record of the node's datastore."""
        return read_file(self.database)

    def blackholes(self, version: int) -> list[str]:
        """The blocks that a blackhole of ours holds."""
        found = self.namespace.routes(version, "type", "blackhole", "proto", "85")
        return [route["dst"] for route in found]

    def host_routes(self, version: int) -> list[tuple[str, str, str, str]]:
        """Destination, device, protocol and scope of each route to a single address that is not
        the kernel's own. IPv6 routes have no scope: `ip` calls them global."""
        return [
            (
                route["dst"],
                route["dev"],
                route.get("protocol", "boot"),
                route.get("scope", "global"),
            )
            for route in self.namespace.routes(version)
            if "/" not in route["dst"]
            and route["dst"] != "default"
            and route.get("protocol") != "kernel"
        ]

    def links(self) -> list[str]:
        """The names of the interfaces."""
        return [link["ifname"] for link in self.namespace.ip_json("link", "show")]


def read_file(path: Path) -> Records:
    """Every record of a SQLite datastore."""
    store = SqliteDatastore(str(path), create=False)
    try:
        return Records(store)
    finally:
        store.close()


class Records:
    """The records of a datastore at one moment, as the product reads them."""

    def __init__(self, store: Datastore) -> None:
        prefixes = (keys.BLOCKS, keys.HOST_AFFINITIES, keys.HANDLES, keys.POOLS)
        found = store.read([Range(prefix, prefix=True) for prefix in prefixes])
        self.blocks = [codec.decode_block(entry) for entry in found[0]]
        self.affinities = [codec.decode_affinity(entry) for entry in found[1]]
        self.handles = [codec.decode_handle(entry) for entry in found[2]]
        self.pools = [codec.decode_pool(entry) for entry in found[3]]

    @property
    def allocations(self) -> dict[str, str | None]:
        """Each address that is given out, with its handle."""
        return {
            str(block.cidr.address(ordinal)): owner.handle
            for block in self.blocks
            for ordinal, owner in block.allocated()
            if owner.released_at is None
        }

    @property
    def findings(self) -> list[str]:
        """What `core.check` has to say; nothing if the store is sound and nothing is left over."""
        return [
            str(finding) for finding in check_datastore(self.blocks, self.affinities, self.handles)
        ]


def pings(source: Namespace, address: str) -> bool:
    """Whether `address` answers; a new IPv6 address is given the time to become usable."""
    return becomes_true(
        lambda: (
            source.run("ping", "-n", "-q", "-c", "1", "-W", "0.5", address, check=False).returncode
            == 0
        )
    )


def becomes_true(question: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Ask until the answer is yes, or the time is up."""
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
