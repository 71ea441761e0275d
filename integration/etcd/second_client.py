"""A second client of etcd, the `etcd3` package, which knows nothing of this project: it reads all
that there is, or plays a node of Calico's on the same blocks. A program of its own, since it
brings threads and warnings of its own with it.

    python -m integration.etcd.second_client HOST:PORT dump
    python -m integration.etcd.second_client HOST:PORT node NAME POOL BLOCK_PREFIX

`dump` prints a JSON object: under each key its value in base64 and its mod_revision. `node` prints
{} and assigns and releases at random until a line comes on stdin, then prints what it has,
{address: handle}, and how many writes it made or was too late for; at a second line it releases all
that, and its blocks.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import random
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import etcd3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    Json = dict[str, Any]
    Network = ipaddress.IPv4Network
    T = TypeVar("T")

IPAM = "/calico/ipam/v2"
ATTEMPTS = 100
HANDLES = 8


class Late(Exception):
    """Another has written, made or deleted the key."""


class Full(Exception):
    """There is no address to be had."""


class Store:
    """Calico's ways of reading and writing a key."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.client = etcd3.client(host=host, port=int(port), timeout=60)
        self.written = self.late = 0

    def dump(self) -> dict[str, tuple[str, int]]:
        return {
            meta.key.decode(): (base64.b64encode(value).decode(), meta.mod_revision)
            for value, meta in self.client.get_all()
        }

    def find(self, key: str) -> tuple[Json, int] | None:
        value, meta = self.client.get(key)
        return None if value is None else (json.loads(value), meta.mod_revision)

    def list_keys(self, prefix: str) -> list[str]:
        return [meta.key.decode() for _, meta in self.client.get_prefix(prefix, keys_only=True)]

    def create(self, key: str, document: Json) -> int:
        put = self.client.transactions.put(key, _spell(document))
        return self._try(self.client.transactions.version(key) == 0, put)

    def update(self, key: str, document: Json, revision: int) -> int:
        put = self.client.transactions.put(key, _spell(document))
        return self._try(self.client.transactions.mod(key) == revision, put)

    def delete(self, key: str, revision: int) -> None:
        gone = self.client.transactions.delete(key)
        self._try(self.client.transactions.mod(key) == revision, gone)

    def _try(self, condition: object, operation: object) -> int:
        """The revision of what was put. Raises Late if the condition does not hold."""
        done, responses = self.client.transaction([condition], [operation], [])
        if not done:
            self.late += 1
            raise Late
        self.written += 1
        return responses[0].response_put.header.revision


def _spell(document: Json) -> str:
    return json.dumps(document, separators=(",", ":"))


class CalicoNode:
    """A node of Calico's, with one call at a time, as the host's lock has it."""

    def __init__(self, store: Store, name: str, pool: Network, prefix: int) -> None:
        self.store = store
        self.name = name
        self.owner = f"host:{name}"
        self.blocks = list(pool.subnets(new_prefix=prefix))

    # Assigning

    def assign(self, handle: str) -> str:
        """An address: of an own block, else of one claimed now, else of somebody's. Raises Full."""
        for cidr in self.find_own():
            if address := self._retry(lambda cidr=cidr: self._assign_from(cidr, handle)):
                return address
        for cidr in self.blocks:
            if self.store.find(_block_key(cidr)) is None and self._claim(cidr):
                address = self._retry(lambda cidr=cidr: self._assign_from(cidr, handle))
                if address:
                    return address
        for cidr in self.blocks:
            if address := self._retry(lambda cidr=cidr: self._assign_from(cidr, handle)):
                return address
        raise Full

    def find_own(self) -> list[Network]:
        """The blocks to which the node has an affinity."""
        found = self.store.list_keys(f"{IPAM}/host/{self.name}/ipv4/block/")
        names = [key.rpartition("/")[2].replace("-", "/") for key in found]
        return [ipaddress.IPv4Network(name) for name in names]

    def _claim(self, cidr: Network) -> bool:
        """Affinity pending, block, affinity confirmed; whether the block is the node's own."""
        key = self._affinity_key(cidr)
        revision = self.store.create(key, _affinity("pending"))
        try:
            self.store.create(_block_key(cidr), self._new_block(cidr))
        except Late:
            block = self.store.find(_block_key(cidr))
            if block is None or block[0]["affinity"] != self.owner:
                self.store.delete(key, revision)
                return False
        self.store.update(key, _affinity("confirmed"), revision)
        return True

    def _assign_from(self, cidr: Network, handle: str) -> str | None:
        """Handle, then block; the handle again if the block was another's meanwhile."""
        found = self.store.find(_block_key(cidr))
        if found is None or not found[0]["unallocated"]:
            return None
        block, revision = found
        ordinal, *block["unallocated"] = block["unallocated"]
        block["attributes"] = [*(block["attributes"] or []), self._attribute(handle)]
        block["allocations"][ordinal] = len(block["attributes"]) - 1
        block["sequenceNumberForAllocation"][str(ordinal)] = block["sequenceNumber"]
        block["sequenceNumber"] += 1
        self._count(handle, cidr, 1)
        try:
            self.store.update(_block_key(cidr), block, revision)
        except Late:
            self._count(handle, cidr, -1)
            raise
        return str(cidr[ordinal])

    # Releasing

    def release(self, handle: str) -> None:
        """Block by block: the block, then the handle."""
        found = self.store.find(f"{IPAM}/handle/{handle}")
        for cidr in map(ipaddress.IPv4Network, found[0]["block"] if found else ()):
            released = self._retry(lambda cidr=cidr: self._release_from(cidr, handle))
            self._count(handle, cidr, -released)

    def _release_from(self, cidr: Network, handle: str) -> int:
        """How many addresses that were; an empty block without an owner goes."""
        found = self.store.find(_block_key(cidr))
        if found is None:
            return 0
        block, revision = found
        meant = [
            n for n, held in enumerate(block["attributes"] or []) if held.get("handle_id") == handle
        ]
        ordinals = [n for n, index in enumerate(block["allocations"]) if index in meant]
        for ordinal in ordinals:
            block["allocations"][ordinal] = None
            block["unallocated"].append(ordinal)
            block["sequenceNumberForAllocation"].pop(str(ordinal), None)
        _drop_unused(block)
        if not any(index is not None for index in block["allocations"]) and not block["affinity"]:
            self.store.delete(_block_key(cidr), revision)
        elif ordinals:
            block["sequenceNumber"] += 1
            self.store.update(_block_key(cidr), block, revision)
        return len(ordinals)

    def give_up(self, cidr: Network) -> None:
        """Affinity pendingDeletion, block deleted or without an owner, affinity deleted."""
        affinity = self.store.find(self._affinity_key(cidr))
        if affinity is None:
            return
        revision = self.store.update(
            self._affinity_key(cidr), _affinity("pendingDeletion"), affinity[1]
        )
        self._retry(lambda: self._disown(cidr))
        self.store.delete(self._affinity_key(cidr), revision)

    def _disown(self, cidr: Network) -> None:
        found = self.store.find(_block_key(cidr))
        if found is None or found[0]["affinity"] != self.owner:
            return
        block, revision = found
        if any(index is not None for index in block["allocations"]):
            block["affinity"] = None
            block.pop("affinity_claim_time", None)
            block["sequenceNumber"] += 1
            self.store.update(_block_key(cidr), block, revision)
        else:
            self.store.delete(_block_key(cidr), revision)

    # Records

    def _count(self, handle: str, cidr: Network, number: int) -> None:
        """Let the handle count so many more in the block; one that counts none goes."""

        def swap() -> None:
            key = f"{IPAM}/handle/{handle}"
            record, revision = self.store.find(key) or ({"block": {}, "deleted": False}, 0)
            counts = record["block"]
            counts[str(cidr)] = counts.get(str(cidr), 0) + number
            record["block"] = {name: count for name, count in sorted(counts.items()) if count}
            if not revision:
                self.store.create(key, record)
            elif record["block"]:
                self.store.update(key, record, revision)
            else:
                self.store.delete(key, revision)

        if number:
            self._retry(swap)

    def _retry(self, step: Callable[[], T]) -> T:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(Late):
                return step()
        raise SystemExit(f"{self.name}: Max retries hit - excessive concurrent IPAM requests")

    def _affinity_key(self, cidr: Network) -> str:
        return f"{IPAM}/host/{self.name}/ipv4/block/{_name(cidr)}"

    def _new_block(self, cidr: Network) -> Json:
        return {
            "cidr": str(cidr),
            "affinity": self.owner,
            "affinity_claim_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "allocations": [None] * cidr.num_addresses,
            "unallocated": list(range(cidr.num_addresses)),
            "attributes": None,
            "sequenceNumber": time.time_ns(),
            "sequenceNumberForAllocation": {},
            "deleted": False,
        }

    def _attribute(self, handle: str) -> Json:
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}".rstrip("0").rstrip(".") + " +0000 UTC"
        pod = handle.partition(".")[2]
        secondary = {"namespace": "default", "node": self.name, "pod": pod, "timestamp": now}
        return {"handle_id": handle, "secondary": secondary}


def _block_key(cidr: Network) -> str:
    return f"{IPAM}/assignment/ipv4/block/{_name(cidr)}"


def _name(cidr: Network) -> str:
    return str(cidr).replace("/", "-")


def _affinity(state: str) -> Json:
    return {"state": state, "deleted": False}


def _drop_unused(block: Json) -> None:
    """Leave out attributes that nothing refers to; those behind them move up."""
    used = sorted({index for index in block["allocations"] if index is not None})
    places = {index: place for place, index in enumerate(used)}
    block["attributes"] = [block["attributes"][index] for index in used]
    block["allocations"] = [places.get(index) for index in block["allocations"]]


def assign_and_release(node: CalicoNode, stopped: threading.Event) -> dict[str, str]:
    """At random, now and then a block as well; what the node has in the end."""
    chance = random.Random(node.name)
    held: dict[str, str] = {}
    while not stopped.is_set():
        handle = f"k8s-pod-network.{node.name}-{chance.randrange(HANDLES)}"
        own = node.find_own()
        if handle in held:
            node.release(handle)
            del held[handle]
        elif own and chance.random() < 0.1:
            node.give_up(chance.choice(own))
        else:
            with contextlib.suppress(Full):
                held[handle] = node.assign(handle)
    return {address: handle for handle, address in held.items()}


def main(endpoint: str, verb: str, *words: str) -> Iterator[object]:
    """What is to be printed."""
    store = Store(endpoint)
    if verb == "dump":
        yield store.dump()
        return
    name, pool, prefix = words
    node = CalicoNode(store, name, ipaddress.IPv4Network(pool), int(prefix))
    stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stopped.set()), daemon=True).start()
    yield {}
    held = assign_and_release(node, stopped)
    yield {"held": held, "counts": {"written": store.written, "late": store.late}}
    sys.stdin.readline()
    for handle in held.values():
        node.release(handle)
    for cidr in node.find_own():
        node.give_up(cidr)
    yield {}


if __name__ == "__main__":
    for document in main(*sys.argv[1:]):
        print(json.dumps(document), flush=True)
