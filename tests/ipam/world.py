"""A small world for the engine: records as operators make them, attachments that come and go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.check import UNSOUND, check_datastore
from cni_ipam.core.moment import SECOND
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Entry, Range, Write
from cni_ipam.errors import CniIpamError
from cni_ipam.ipam.affinity import release_affinity
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.collect import Living, collect
from cni_ipam.ipam.release import release
from cni_ipam.ipam.wish import Wish
from cni_ipam.lean.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni_ipam.core.block import Attribute, Block
    from cni_ipam.core.check import Finding
    from cni_ipam.core.handle import Handle
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.ipam.wish import Outcome

NOW = 1_800_000_000 * SECOND
SEED = bytes(range(16))
NODES = ("node1", "node2", "node3")


def entries(store: Datastore, prefix: str = "") -> list[Entry]:
    """Everything under a prefix."""
    return store.read([Range(prefix, prefix=True)])[0]


def find(store: Datastore, key: str) -> Entry | None:
    """The entry of one key."""
    found = store.read([Range(key)])[0]
    return found[0] if found else None


def put(store: Datastore, key: str, value: Any) -> None:
    """Store a document or a text, whatever is there."""
    former = find(store, key)
    text = value if isinstance(value, str) else json.dumps(value)
    store.commit([Write(key, text, former.revision if former else ABSENT)])


def remove(store: Datastore, key: str) -> None:
    """Remove a key that is there."""
    former = find(store, key)
    assert former is not None
    store.commit([Write(key, None, former.revision)])


def put_pool(store: Datastore, name: str, cidr: str, **spec: Any) -> None:
    """An IPPool."""
    document = {"metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}
    put(store, keys.POOLS + name, document)


def put_node(store: Datastore, name: str, **labels: str) -> None:
    """A Node with labels."""
    put(store, keys.NODES + name, {"metadata": {"name": name, "labels": labels}})


def put_config(store: Datastore, **fields: Any) -> None:
    """The IPAMConfig; its fields in etcd's spelling, autoAllocateBlocks true unless said."""
    put(store, keys.CONFIG, {"auto_allocate_blocks": True, **fields})


def put_reservation(store: Datastore, *cidrs: str) -> None:
    """An IPReservation."""
    put(store, keys.RESERVATIONS + "r", {"spec": {"reservedCIDRs": list(cidrs)}})


def lock(store: Datastore) -> None:
    """Set datastoreReady to false, as `ipamctl datastore lock` does."""
    put(store, keys.CLUSTER_INFORMATION, {"spec": {"datastoreReady": False}})


def furnish(store: Datastore, cidr: str = "10.0.0.0/28", block_size: int = 30) -> Datastore:
    """One pool of a few small blocks, and the nodes."""
    put_pool(store, "pool1", cidr, blockSize=block_size)
    for node in NODES:
        put_node(store, node)
    return store


def make_wish(container: str = "c1", host: str = "node1", **fields: Any) -> Wish:
    """One IPv4 address for the container's eth0, unless `fields` say otherwise."""
    ifname, network = fields.pop("ifname", "eth0"), fields.pop("network", "net")
    fixed = tuple([parse_address(text) for text in fields.pop("fixed", ())])
    defaults = {
        "host": host,
        "handle": f"{network}.{container}",
        "owner": {"ifname": ifname, "network": network, "node": host},
        "now": NOW,
        "seed": SEED,
        "counts": {} if fixed else {4: 1},
        "pools": {},
        "fixed": fixed,
    }
    return Wish(**(defaults | fields))


def texts(addresses: Iterable[object]) -> list[str]:
    """Addresses, or what was assigned, as texts."""
    return [str(getattr(address, "address", address)) for address in addresses]


def add(store: Datastore, container: str = "c1", host: str = "node1", **fields: Any) -> list[str]:
    """The addresses that an ADD gives."""
    return texts(assign(store, make_wish(container, host, **fields)).assigned)


def add_as_calico(store: Datastore, container: str = "c1", host: str = "node1") -> list[str]:
    """The same by Calico's own plugin, which names neither interface nor network."""
    return add(store, container, host, owner={"node": host})


def ask(store: Datastore, container: str = "c1", host: str = "node1", **fields: Any) -> Outcome:
    """What the engine answers in full."""
    return assign(store, make_wish(container, host, **fields))


def refusal(store: Datastore, container: str = "c1", host: str = "node1", **fields: Any) -> Any:
    """The error of an ADD that must fail, and change nothing."""
    before = entries(store)
    try:
        given = add(store, container, host, **fields)
    except CniIpamError as error:
        assert before == entries(store)
        return error
    raise AssertionError(f"{given} was given")


def delete(
    store: Datastore, container: str = "c1", host: str = "node1", now: int = NOW, **fields: Any
) -> list[str]:
    """The addresses that a DEL gives back."""
    wish = make_wish(container, host, **fields)
    owners: dict[str, Callable[[Attribute], bool]] = {wish.handle: wish.is_mine}
    return texts(release(store, host, owners, now).addresses)


def collect_all(
    store: Datastore,
    *living: tuple[str, str],
    node: str = "node1",
    network: str = "net",
    now: int = NOW,
) -> tuple[list[str], list[CniIpamError]]:
    """What a GC gives back while the attachments `living` are alive, and what went wrong."""
    released, errors = collect(store, Living(network, node, frozenset(living)), now)
    return texts(released.addresses), errors


def release_block(store: Datastore, cidr: str, host: str = "node1") -> bool:
    """Take a block from its host."""
    return release_affinity(store, Affinity("host", host, parse_cidr(cidr)), NOW)


@record
class Survey:
    """All that the engine keeps, decoded."""

    blocks: list[Block]
    affinities: list[Affinity]
    handles: list[Handle]


def survey(store: Datastore) -> Survey:
    """Decode every record; a record that cannot be decoded is an error here."""
    affinities = [e for e in entries(store, keys.HOST_AFFINITIES) if keys.find_affinity(e.key)]
    return Survey(
        [codec.decode_block(entry) for entry in entries(store, keys.BLOCKS)],
        [codec.decode_affinity(entry) for entry in affinities],
        [codec.decode_handle(entry) for entry in entries(store, keys.HANDLES)],
    )


def findings(store: Datastore) -> list[Finding]:
    """All that is not as it should be."""
    seen = survey(store)
    return check_datastore(seen.blocks, seen.affinities, seen.handles, NOW)


def unsound(store: Datastore) -> list[str]:
    """What must never be."""
    return [str(finding) for finding in findings(store) if finding.severity == UNSOUND]


def holders(store: Datastore) -> dict[str, str]:
    """Who holds each address in use."""
    return {
        str(block.cidr.address(ordinal)): owner.handle or ""
        for block in survey(store).blocks
        for ordinal, owner in block.allocated()
        if owner.released_at is None
    }


def blocks_of(store: Datastore, host: str) -> list[str]:
    """The blocks that say that they are the host's."""
    return [str(b.cidr) for b in survey(store).blocks if b.affinity == f"host:{host}"]


def the_block(store: Datastore) -> Block:
    """The only block that there is."""
    (entry,) = entries(store, keys.BLOCKS)
    return codec.decode_block(entry)


def spoil(store: Datastore, cidr: str) -> str:
    """Make a block's record unreadable; returns its key."""
    key = keys.block_key(parse_cidr(cidr))
    put(store, key, '{"cidr":')
    return key


class Overtaken:
    """The port over `store`, where somebody else does a deed right before each of the first
    commits."""

    def __init__(self, store: Datastore, *deeds: Callable[[], object]) -> None:
        self._store = store
        self._deeds = [*deeds]

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        return self._store.read(ranges)

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        return self._store.pages(prefix, size)

    def commit(self, writes: Iterable[Write]) -> None:
        if self._deeds:
            self._deeds.pop(0)()
        self._store.commit(writes)

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        return self._store.watch(prefix)

    def close(self) -> None:
        self._store.close()


def own_blocks(store, host):
    """The blocks that are the host's, as both records say it."""
    found = survey(store)
    confirmed = [a.cidr for a in found.affinities if a.host == host and a.is_confirmed]
    return [b.cidr for b in found.blocks if b.affinity == f"host:{host}" and b.cidr in confirmed]
