"""What a row of cni-k8s.json is played on: a node with the plugin, a datastore, and a stand-in for
the API server."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.check import UNSOUND, check_datastore
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.errors import TryAgainLater
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.wish import Wish
from cni_ipam.lean import log
from cni_ipam.plugin import main
from cni_ipam.plugin.context import Context

from .autoassign_world import World
from .cni_expectations import Answer, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni_ipam.core.block import Attribute

Row = dict[str, Any]

PROGRAM = "calico-ipam"
NETWORK, NODE, CONTAINER = "net1", "node1", "c1"
NAMESPACE, POD, UID = "shop", "web-0", "5f3c0d5e-0000-4000-8000-000000000001"
GIVEN = "given"
LARGEST_EXHAUSTED = 4096
WITHOUT_A_POD = "calico_cni_ipam_test.go"
API_SERVER, RUNTIME = "API server", "runtime"


@dataclass(frozen=True)
class Cluster:
    """The pod and its namespace, as an API server has them."""

    row: Row

    def get_pod(self, namespace: str, name: str) -> Row:
        """The row's pod."""
        metadata = {"namespace": namespace, "name": name, "uid": UID}
        return {"metadata": {**metadata, "annotations": self.row["pod_annotations"]}}

    def get_namespace(self, name: str) -> Row:
        """The row's namespace. Raises TryAgainLater if there is none."""
        given = self.row.get("given", {})
        if given.get("namespace_missing"):
            raise TryAgainLater(f'namespaces "{name}" not found')
        labels = {"kubernetes.io/metadata.name": name, **given.get("namespace_labels", {})}
        annotations = self.row["namespace_annotations"]
        return {"metadata": {"name": name, "labels": labels, "annotations": annotations}}


@dataclass
class Stage:
    """A node with its datastore, on which one row is played."""

    row: Row
    source: str
    folder: Path
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(MemoryDatastore())
        given = self.row.get("given", {})
        for pool in self.row["pools"]:
            self.world.put_pool(pool)
        if not given.get("node_missing"):
            for key in ("nodename", "hostname"):
                self.world.put_node(self.row["conf"].get(key, NODE), {})
        for cidr in given.get("exhausted_pools", []):
            self._exhaust(cidr)
        for text in given.get("allocated", []):
            self.assign_fixed(text, GIVEN)

    def call(self, verb: str, container: str = CONTAINER) -> Trial:
        """Call the plugin once; the last call is the one that is judged."""
        environ = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/var/run/netns/x",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": self._arguments(),
        }
        stdin = json.dumps(self._netconf()).encode()
        encoded = {key.encode(): value.encode() for key, value in environ.items()}
        with self._plugin():
            stdout, status = main.serve(encoded, PROGRAM, lambda: stdin)
        self.trials.append(Trial(Answer(status, stdout, ""), 0, 0, 0))
        return self.trials[-1]

    def assign_fixed(self, text: str, handle: str) -> None:
        """Let somebody else have this address."""
        self._assign(handle, fixed=(parse_address(text),))

    def disable_pool(self, cidr: str) -> None:
        """Switch the row's pool of this CIDR off."""
        (pool,) = [pool for pool in self.row["pools"] if pool["cidr"] == cidr]
        self.world.put_pool({**pool, "disabled": True})

    def owners_of(self, container: str = CONTAINER) -> list[Attribute]:
        """The owners of the addresses that are recorded under the container's handle."""
        return [owner for owner in self._owners() if owner.handle == f"{NETWORK}.{container}"]

    def count_allocated(self) -> int:
        """How many addresses are recorded that the row did not begin with."""
        return sum(owner.handle != GIVEN for owner in self._owners())

    def find_unsound(self) -> list[str]:
        """What is broken in the datastore."""
        state = self.world.read_state()
        findings = check_datastore(state.blocks, state.affinities, state.handles, self.world.now)
        return [str(finding) for finding in findings if finding.severity == UNSOUND]

    def _owners(self) -> list[Attribute]:
        blocks = self.world.read_state().blocks
        return [owner for block in blocks for _, owner in block.allocated()]

    def _exhaust(self, text: str) -> None:
        cidr = parse_cidr(text)
        if cidr.size > LARGEST_EXHAUSTED:
            raise ValueError(f"too large to be exhausted: {text}")
        self._assign(GIVEN, counts={cidr.version: cidr.size}, pools={cidr.version: (text,)})

    def _assign(self, handle: str, **fields: Any) -> None:
        nobody = {"counts": {}, "pools": {}, "owner": {"node": NODE}}
        seed = self.world.seed()
        assign(
            self.world.store,
            Wish(host=NODE, handle=handle, now=self.world.now, seed=seed, **{**nobody, **fields}),
        )

    def _netconf(self) -> Row:
        passed = {"io.kubernetes.cri.pod-annotations": self.row["pod_annotations"]}
        return {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "ptp",
            "datastore_type": "etcdv3",
            "etcd_endpoints": "http://127.0.0.1:2379",
            "nodename": NODE,
            "ipam_lock_file": str(self.folder / "ipam.lock"),
            "policy": {"type": "k8s"},
            "ipam": {"type": "calico-ipam", "assign_ipv4": "true"},
            **({"runtimeConfig": passed} if self.source == RUNTIME and self._has_pod() else {}),
            **self.row["conf"],
        }

    def _has_pod(self) -> bool:
        """Upstream's tests of calico-ipam alone have none, unless they are about annotations."""
        annotated = self.row["pod_annotations"] or self.row["namespace_annotations"]
        return bool(annotated) or not self.row["source"].endswith(WITHOUT_A_POD)

    def _arguments(self) -> str:
        pod = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={POD};K8S_POD_UID={UID}"
        own = self.row.get("cni_args", "")
        return ";".join(filter(None, [own, pod if self._has_pod() else ""]))

    @contextmanager
    def _plugin(self) -> Iterator[None]:
        """The plugin works on this datastore and this cluster, and its log is quiet."""
        store, cluster = self.world.store, Cluster(self.row)

        class ContextOnStage(Context):
            def store(self, _: float | None = None) -> Any:
                return store

            def api(self, _limit_seconds: Any = None) -> Any:
                return cluster

        quiet = {name: lambda *_, **__: None for name in ("configure", "error", "info", "debug")}
        with patch.object(main, "Context", ContextOnStage), patch.multiple(log, **quiet):
            yield


STEPS = {
    r"(?P<verb>ADD|DEL)(?: (?P<container>[A-Z]))?(?: (?P<outcome>ok|error))?": "call",
    r"ADD in (?P<cidr>\S+)": "add_in",
    r"assign (?P<address>\S+) under handle <containerid>": "assign",
    r"disable (?P<cidr>\S+)": "disable",
    r"add pool (?P<cidr>\S+)": "add_pool",
}


def play(stage: Stage, step: str) -> Iterator[str]:
    """Play one step of a row's `sequence`, and tell what is not as it says."""
    for part in step.split("; "):
        for pattern, name in STEPS.items():
            if found := re.fullmatch(pattern, part):
                yield from _play_part(stage, name, found)
                break
        else:
            yield f"a step that the runner does not know: {part}"


def _play_part(stage: Stage, name: str, found: re.Match[str]) -> Iterator[str]:
    if name == "assign":
        stage.assign_fixed(found["address"], CONTAINER)
    elif name == "disable":
        stage.disable_pool(found["cidr"])
    elif name == "add_pool":
        stage.world.put_pool({"cidr": found["cidr"]})
    elif name == "add_in":
        # Another container each time: a repeated ADD would answer with the address that it has.
        trial = stage.call("ADD", f"c{len(stage.trials)}")
        pool = parse_cidr(found["cidr"])
        if not addresses_of(trial) or not all(pool.contains(a) for a in addresses_of(trial)):
            yield f"{found[0]}: the answer is {trial.answer.stdout}"
    else:
        trial = stage.call(found["verb"], found["container"] or CONTAINER)
        if bool(trial.answer.exit) != (found["outcome"] == "error"):
            yield f"{found[0]}: the answer is {trial.answer.stdout}"


def addresses_of(trial: Trial) -> list[Any]:
    """The addresses of an answer, without their prefix lengths."""
    return [parse_address(entry["address"].partition("/")[0]) for entry in trial.entries]
