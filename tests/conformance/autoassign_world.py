"""What a scenario of autoassign.json lives in: its datastore, its clock, the names it gave."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from cni_ipam.core.config import IpamConfig
from cni_ipam.core.moment import rfc3339
from cni_ipam.ctl.survey import survey
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.ipam.settings import write_config
from cni_ipam.lean import json

if TYPE_CHECKING:
    from cni_ipam.ctl.survey import Survey
    from cni_ipam.datastore.port import Datastore

Row = dict[str, Any]

START = 1_800_000_000_000_000_000
TICK = 1_000_000
REFERENCE = re.compile(r"\$(\w+)\[(\d+|\*)\]")
POOL_FIELDS = {
    *("cidr", "blockSize", "ipipMode", "vxlanMode", "natOutgoing", "disabled", "disableBGPExport"),
    *("nodeSelector", "namespaceSelector", "allowedUses", "assignmentMode"),
}
CONFIG_FIELDS = {"strictAffinity", "autoAllocateBlocks", "maxBlocksPerHost", "ipCooldownSeconds"}


def config_of(fields: Row) -> IpamConfig:
    """The settings that a row or a step names; what it leaves out is as if never configured."""
    unknown = fields.keys() - CONFIG_FIELDS
    if unknown:
        raise LookupError(f"settings that the runner does not know: {sorted(unknown)}")
    return IpamConfig(
        strict_affinity=fields.get("strictAffinity", False),
        auto_allocate_blocks=fields.get("autoAllocateBlocks", True),
        max_blocks_per_host=fields.get("maxBlocksPerHost", 0),
        cooldown_seconds=fields.get("ipCooldownSeconds", 0),
    )


class World:
    """The datastore with everything around it that the steps of one scenario share."""

    def __init__(self, store: Datastore) -> None:
        self.store = store
        self.saved: dict[str, list[str]] = {}
        self.sequences: dict[str, int] = {}
        self._now = START
        self._lock = threading.Lock()

    @property
    def now(self) -> int:
        """The artificial clock, in nanoseconds."""
        return self._now

    def tick(self, nanoseconds: int = TICK) -> int:
        """Move the clock on; no two steps happen at the same time."""
        with self._lock:
            self._now += nanoseconds
            return self._now

    def seed(self) -> bytes:
        """Bytes that no other step has."""
        return self.tick().to_bytes(16, "big")

    def append(self, name: str, addresses: list[str]) -> None:
        """Add to what is saved under `name`."""
        with self._lock:
            self.saved.setdefault(name, []).extend(addresses)

    def set_up(self, row: Row) -> None:
        """Make what a row says is there before its first step."""
        for pool in row["pools"]:
            self.put_pool(pool)
        for name, labels in row["nodes"].items():
            self.put_node(name, labels)
        if row.get("reservations"):
            self.put_reservations(row["reservations"])
        if row.get("config"):
            write_config(self.store, config_of(row["config"]))

    def put_pool(self, fields: Row) -> None:
        """Store an IPPool as it is written, whatever rule it breaks; of one that is there already
        the block size stays, which nobody can change."""
        spec = {key: value for key, value in fields.items() if key not in ("name", "status")}
        for known in self.read_state().pools:
            if known.name == _pool_name(fields):
                spec.setdefault("blockSize", known.block_size)
        unknown = spec.keys() - POOL_FIELDS
        if unknown:
            raise LookupError(f"fields of a pool that the runner does not know: {sorted(unknown)}")
        extra = {"status": fields["status"]} if "status" in fields else {}
        self._put("IPPool", keys.POOLS, _pool_name(fields), {"spec": spec, **extra})

    def put_node(self, name: str, labels: dict[str, str]) -> None:
        """Store a Node with these labels."""
        self._put("Node", keys.NODES, name, {"spec": {}}, labels)

    def put_reservations(self, cidrs: list[str]) -> None:
        """Store the one IPReservation of the scenario."""
        self._put("IPReservation", keys.RESERVATIONS, "r", {"spec": {"reservedCIDRs": cidrs}})

    def remove_pool(self, fields: Row) -> None:
        """Take the pool away, and nothing that belongs to it."""
        key = keys.POOLS + _pool_name(fields)
        self.store.commit([Write(key, None, self.revision(key))])

    def put(self, key: str, value: str) -> None:
        """Store `value` whatever is there."""
        self.store.commit([Write(key, value, self.revision(key))])

    def revision(self, key: str) -> int:
        """The revision of a key, to write over what is there."""
        entries = self.store.read([Range(key)])[0]
        return entries[0].revision if entries else ABSENT

    def read_state(self) -> Survey:
        """Every record there is."""
        return survey(self.store)

    def resolve(self, value: Any) -> Any:
        """The value with `$name[i]` and `$name[*]` replaced by the addresses saved."""
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [item for entry in value for item in self._resolve_entry(entry)]
        return self._resolve_entry(value)[0]

    def _resolve_entry(self, value: Any) -> list[Any]:
        found = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return [self.resolve(value) if isinstance(value, dict | list) else value]
        addresses = self.saved[found[1]]
        return addresses if found[2] == "*" else [addresses[int(found[2])]]

    def _put(
        self,
        kind: str,
        prefix: str,
        name: str,
        fields: Row,
        labels: dict[str, str] | None = None,
    ) -> None:
        metadata: Row = {"name": name, "uid": name, "creationTimestamp": rfc3339(self.now)}
        if labels:
            metadata["labels"] = labels
        resource = {"kind": kind, "apiVersion": codec.API_VERSION, "metadata": metadata, **fields}
        self.put(prefix + name, json.dumps(resource))


def _pool_name(fields: Row) -> str:
    return str(fields.get("name") or re.sub(r"[./:]", "-", fields["cidr"]))
