"""A node whose routes are looked after by `ipamctl routes`, with real pods; `ip` is the witness.

Addresses come by the real runtime, or straight from the engine where only records matter.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.ipam.affinity import claim_blocks
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.wish import Wish
from integration.daemon import Daemon
from integration.network import BUNDLE, ENTER, Node, becomes_true

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Self

    from cni_ipam.datastore.port import Datastore
    from integration.netns import Lab, Namespace
    from integration.network import Done

    Json = dict[str, Any]

NODE = "node1"
NETWORK = "net"
NOW = 1_800_000_000_000_000_000
OURS = ("proto", "85")
POOL = {"cidr": "10.9.0.0/24", "blockSize": 29}
SECOND_POOL = {"cidr": "10.8.0.0/24", "blockSize": 29}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False}
PTP = {"type": "ptp", "ipMasq": False}


class KeptNode(Node):
    """A node by the name of `node1`, with one network; the rest is `make_network`'s."""

    def __init__(
        self, lab: Lab, folder: Path, main: Json = PTP, pool: Json = POOL, **more: Any
    ) -> None:
        super().__init__(lab, folder, NODE)
        self.lab = lab
        self.make_network(NETWORK, main, pool, **more)

    def make_network(
        self,
        name: str,
        main: Json = PTP,
        pool: Json = SECOND_POOL,
        *,
        chained: bool = True,
        **settings: Any,
    ) -> None:
        """A network that an interface plugin makes, with addresses of a pool of its own."""
        ours = {"type": "cni-ipam", "nodename": NODE, **settings}
        wanted = {f"ipv{parse_cidr(pool['cidr']).version}_pools": [pool["cidr"]]}
        pools = [{"name": f"pool-{name}", "spec": pool}]
        ipam = {**ours, **wanted, "default_pools": pools}
        plugins = [{**main, "ipam": ipam}, *([ours] if chained else [])]
        self.write_network({"cniVersion": "1.1.0", "name": name, "plugins": plugins})

    # Records

    def add_pod(self) -> tuple[Namespace, str]:
        """A pod that the runtime connects, and its address."""
        pod = self.lab.namespace("pod")
        (ip,) = self.add(NETWORK, pod)["ips"]
        return pod, ip["address"].partition("/")[0]

    def open_store(self) -> Datastore:
        """The datastore of the node; the caller closes it."""
        return SqliteDatastore(str(self.database))

    def write(self, key: str, value: Json) -> None:
        """Store a document, whatever is there."""
        store = self.open_store()
        entries = store.read([Range(key)])[0]
        revision = entries[0].revision if entries else ABSENT
        store.commit([Write(key, json.dumps(value), revision)])
        store.close()

    def claim(self, cidr: str, host: str = NODE) -> list[str]:
        """The blocks that are the host's afterwards."""
        store = self.open_store()
        claimed, _ = claim_blocks(store, host, parse_cidr(cidr), NOW)
        store.close()
        return [str(block) for block in claimed]

    def record(self, address: str, host: str = NODE) -> None:
        """Give an address to a container of which the node knows nothing else."""
        owner = {"node": host, "network": NETWORK, "ifname": "eth0"}
        wish = Wish(
            host=host,
            handle=f"{NETWORK}.{address}",
            owner=owner,
            now=NOW,
            seed=bytes(16),
            counts={},
            pools={},
            fixed=(parse_address(address),),
        )
        store = self.open_store()
        assign(store, wish)
        store.close()

    def make_pool(self, **spec: Any) -> None:
        """The pool of the network as it is, or with another spec, without any ADD."""
        name = f"pool-{NETWORK}"
        fields = codec.new_resource("IPPool", name, POOL | spec, NOW, bytes(16))
        self.var_lib.joinpath("cni-ipam").mkdir(exist_ok=True)
        self.write(f"{keys.POOLS}{name}", json.loads(fields))

    # The kernel

    def ip(self, *words: str) -> str:
        """What `ip` prints on the node."""
        return self.namespace.ip(*words)

    def ours(self) -> list[str]:
        """The routes that carry our mark, as `ip` prints them."""
        lines = [self.ip(family, "route", "show", *OURS).splitlines() for family in ("-4", "-6")]
        return sorted(line.strip() for part in lines for line in part)

    def device_of(self, address: str) -> str:
        """The interface that the pod's route leads to."""
        (route,) = self.namespace.routes(4, "exact", f"{address}/32")
        device: str = route["dev"]
        return device

    def flush(self) -> None:
        """No route is left, as after a reboot."""
        for family in ("-4", "-6"):
            self.ip(family, "route", "flush", "table", "main")

    def flush_ours(self) -> None:
        """No route of ours is left."""
        for family in ("-4", "-6"):
            self.ip(family, "route", "flush", *OURS)

    # The tool

    def routes(self, *words: str) -> Done:
        """`ipamctl routes`."""
        return self.ipamctl("routes", *words)

    def findings(self) -> list[str]:
        """What `check` tells, without its last line; its exit status must agree."""
        done = self.routes("check")
        assert "" == done.stderr
        *lines, summary = done.stdout.splitlines()
        assert (1 if lines else 0) == done.returncode, done.stdout
        assert summary.startswith(f"Check complete; found {len(lines)} problems")
        return lines

    def repair(self, *words: str) -> list[str]:
        """What `repair` tells of what it did; its exit status must tell whether something is left
        that it could not mend."""
        done = self.routes("repair", *words)
        assert (1 if done.stderr else 0) == done.returncode, done.stderr
        return done.stdout.splitlines()

    def states(self) -> dict[str, str]:
        """The state of each route in `show`'s table."""
        _, *rows = self.routes("show").stdout.splitlines()
        found = {}
        for row in rows:
            route, _, _, _, state = row.split(maxsplit=4)
            found[route] = state.strip()
        return found

    def watch(self, *words: str) -> Watching:
        """`ipamctl routes watch`, started."""
        return Watching(self, words or ("watch",))


class Watching(Daemon):
    """A process that keeps the routes of a node; ended with the `with` block at the latest."""

    def __init__(self, node: KeptNode, words: Sequence[str]) -> None:
        inside = ("unshare", "--mount", "sh", "-c", ENTER, str(node.var_lib))
        program = (str(BUNDLE / "ipamctl"), "routes", *words)
        super().__init__("watch", node.var_lib / "watch.log", node.namespace)
        self.log.unlink(missing_ok=True)
        self.spawn([*inside, *program], {"CNI_NETCONF_DIR": str(node.networks)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def lines(self) -> list[str]:
        """What it has told so far."""
        return self.log.read_text().splitlines()

    def tells(self, line: str) -> bool:
        """Whether it tells that, now or soon."""
        return becomes_true(lambda: line in self.lines())

    def tells_of(self, words: str) -> bool:
        """Whether it tells something with these words, now or soon."""
        return becomes_true(lambda: any(words in line for line in self.lines()))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after a signal; raises TimeoutExpired if it does not end."""
        self.kill(number)
        return self.wait()
