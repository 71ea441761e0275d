"""Random operations on the engine, each judged by `Plain` and followed by a look at everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cni_ipam.core.address import Address, parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.gateway import kept_back
from cni_ipam.core.moment import SECOND
from cni_ipam.core.pool_rules import check_pool_creation
from cni_ipam.ctl.deletion import delete_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.errors import CniIpamError, NotEmpty, NotFound, UpdateConflict
from cni_ipam.ipam import affinity as affinities
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.collect import Living, collect
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from cni_ipam.ipam.release import release, release_handle
from cni_ipam.ipam.wish import Wish
from tests.ipam.model.judge import Request, judge_answer, judge_refusal
from tests.ipam.model.observed import Comparison
from tests.ipam.model.plain import (
    RACKS,
    SELECTORS,
    Holder,
    Plain,
    PlainPool,
    numbers,
    version_of,
)
from tests.ipam.world import NODES, NOW, SEED, entries, put, put_config, put_node

if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr
    from cni_ipam.datastore.port import Datastore

# Name, CIDR and sizes that its blocks may have: the second "one" overlaps with the first.
PLACES = (
    ("one", "10.0.0.0/28", (30, 29)),
    ("two", "10.0.0.16/29", (30, 32)),
    ("both", "10.0.0.0/27", (30,)),
    ("six", "fd00::/124", (126,)),
)
ADDRESSES = [*range(0x0A000000, 0x0A000020), *range(0xFD << 120, (0xFD << 120) + 16)]

hosts = st.sampled_from(NODES)
holders = st.builds(
    Holder,
    st.sampled_from([f"net.c{number}" for number in range(3)]),
    hosts,
    st.sampled_from(["eth0", "eth1"]),
)
counts = st.sampled_from([{4: 1}, {4: 3}, {4: 6}, {6: 1}, {6: 5}, {4: 1, 6: 1}, {4: 2, 6: 4}])
settings_of_engine = {
    "strict": st.booleans(),
    "auto": st.sampled_from([True, True, True, False]),
    "max_blocks": st.sampled_from([0, 0, 1, 2, 3]),
    "cooldown": st.sampled_from([0, 0, 30]),
}
gateways = st.sampled_from(["none", "none", "auto"])
rarely = st.sampled_from([False, False, False, True])


def of_pods(function):
    """A rule for two steps of three: runtimes call more often than operators do."""
    return precondition(lambda self: self.steps % 3)(function)


def of_operators(function):
    """A rule for every third step."""
    return precondition(lambda self: self.steps % 3 == 0)(function)


def seldom(function):
    """A rule for every ninth step: after it there is less to do."""
    return precondition(lambda self: self.steps % 9 == 0)(function)


class Machine(RuleBasedStateMachine):
    """Three hosts, up to three pools at a time, six attachments on each host."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.plain = Plain(NOW)
        self.comparison = Comparison(self.store, self.plain)
        self.steps = 0

    def make_store(self) -> Datastore:
        """An empty store."""
        return MemoryDatastore()

    def teardown(self) -> None:
        self.store.close()

    @initialize(
        racks=st.tuples(*[st.sampled_from(RACKS)] * 3),
        size=st.sampled_from([29, 30]),
        **settings_of_engine,
    )
    def furnish(self, racks, size, strict, auto, max_blocks, cooldown):
        self.configure(strict, auto, max_blocks, cooldown)
        for host, rack in zip(NODES, racks, strict=True):
            self._put_node(host, rack)
        self._put_pool(PlainPool("one", parse_cidr("10.0.0.0/28"), size))
        self._put_pool(PlainPool("six", parse_cidr("fd00::/124"), 126))

    # Assignment

    @of_pods
    @rule(holder=holders, gateway=gateways)
    def assign_one(self, holder, gateway):
        self._assign(Request(holder, {4: 1}, gateway=gateway))

    @of_pods
    @rule(holder=holders, count=st.sampled_from([2, 5, 9]), whole=st.booleans())
    def assign_many(self, holder, count, whole):
        self._assign(Request(holder, {4: count}, whole=whole))

    @of_pods
    @rule(
        holder=holders,
        count=counts,
        whole=st.booleans(),
        gateway=gateways,
        max_blocks=st.sampled_from([0, 0, 0, 1, 2]),
        data=st.data(),
    )
    def assign_with_wishes(self, holder, count, whole, gateway, max_blocks, data):
        version = min(count)
        known = sorted(p.name for p in self.plain.pools.values() if p.cidr.version == version)
        asked = tuple(data.draw(st.lists(st.sampled_from(known or ["none"]), max_size=2)))
        if asked:
            count = {version: count[version]}
        self._assign(Request(holder, count, asked, whole, gateway, max_blocks))

    @of_pods
    @rule(
        holder=holders,
        addresses=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2),
        gateway=gateways,
    )
    def assign_fixed(self, holder, addresses, gateway):
        self._assign_fixed(holder, addresses, gateway)

    # Release

    @of_pods
    @precondition(lambda self: self.plain.held)
    @rule(data=st.data(), stranger=holders)
    def delete(self, data, stranger):
        held = list(self.plain.held.values())
        self._delete(data.draw(st.sampled_from([*held, *held, stranger])))

    @of_pods
    @precondition(lambda self: self.plain.held)
    @rule(data=st.data())
    def release_handle(self, data):
        known = sorted({holder.handle for holder in self.plain.held.values()})
        handle = data.draw(st.sampled_from([*known, "net.unknown"]))
        wanted = [a for a, h in self.plain.held.items() if h.handle == handle]
        try:
            released = release_handle(self.store, handle, self.plain.now)
        except NotFound:
            assert not wanted
            return
        assert wanted
        self._released(wanted, released.addresses)

    @of_pods
    @precondition(lambda self: self.plain.held)
    @rule(data=st.data(), stranger=rarely, outdated=rarely)
    def release_addresses(self, data, stranger, outdated):
        held = list(self.plain.held)
        wanted = data.draw(st.lists(st.sampled_from(held), min_size=1, max_size=3, unique=True))
        free = data.draw(st.sampled_from(ADDRESSES))
        mistaken = wanted[0] if stranger or outdated else None
        requests = [self._request(a, stranger=stranger and a == mistaken) for a in wanted]
        if outdated:
            number = self.comparison.sequence_of(wanted[0])
            requests[0] = ReleaseRequest(requests[0].address, requests[0].handle, number - 1)
        if free not in self.plain.held:
            requests.append(ReleaseRequest(Address(version_of(free), free)))
        freed = release_addresses(self.store, requests, self.plain.now)
        spoiled = numbers(self.plain.block_at(mistaken)) if mistaken is not None else ()
        self._released([a for a in wanted if a not in spoiled], freed.released)
        if mistaken is not None:
            (error,) = freed.errors
            assert isinstance(error, UpdateConflict)
            assert f"update conflict: {Address(version_of(mistaken), mistaken)}" == error.msg
        else:
            assert () == freed.errors
        is_free = free not in wanted and len(requests) > len(wanted) and free not in spoiled
        assert is_free == (free in [a.value for a in freed.unallocated])

    def _request(self, address: int, *, stranger: bool) -> ReleaseRequest:
        handle = "net.stranger" if stranger else self.plain.held[address].handle
        number = self.comparison.sequence_of(address)
        return ReleaseRequest(Address(version_of(address), address), handle, number)

    @of_pods
    @precondition(lambda self: self.plain.held)
    @rule(data=st.data())
    def collect(self, data):
        holders = list(self.plain.held.values())
        gone = set(data.draw(st.lists(st.sampled_from(holders), min_size=1, max_size=2)))
        host = min(holder.host for holder in gone)
        here = [a for a, h in self.plain.held.items() if h.host == host]
        living = frozenset(
            (h.handle.removeprefix("net."), h.ifname)
            for h in self.plain.held.values()
            if h.host == host and h not in gone
        )
        released, errors = collect(self.store, Living("net", host, living), self.plain.now)
        assert [] == errors
        self._released([a for a in here if self.plain.held[a] in gone], released.addresses)

    # Blocks

    @of_operators
    @precondition(lambda self: self.plain.blocks)
    @rule(data=st.data(), host=hosts, must_be_empty=st.booleans())
    def release_affinity(self, data, host, must_be_empty):
        cidr = data.draw(st.sampled_from(list(self.plain.blocks)))
        is_owner = self.plain.blocks[cidr].owner == host
        is_refused = is_owner and must_be_empty and not self.plain.is_empty(cidr)
        affinity = Affinity("host", host, cidr)
        try:
            done = affinities.release_affinity(
                self.store, affinity, self.plain.now, must_be_empty=must_be_empty
            )
        except NotEmpty as error:
            assert is_refused
            assert f"block '{cidr}' is not empty" == error.msg
            return
        assert not is_refused
        assert is_owner == done
        if is_owner:
            self.plain.disown(cidr)

    @of_operators
    @precondition(lambda self: self.plain.pools)
    @rule(data=st.data(), host=hosts)
    def claim_blocks(self, data, host):
        pool = data.draw(st.sampled_from(list(self.plain.pools.values())))
        cidr = data.draw(st.one_of(st.just(pool.cidr), st.sampled_from(pool.blocks())))
        places = [place for place in pool.blocks() if cidr.covers(place)]
        try:
            claimed, failed = affinities.claim_blocks(self.store, host, cidr, self.plain.now)
        except CniIpamError:
            assert pool.disabled
            return
        assert not pool.disabled
        blocks = self.plain.blocks
        own = [p for p in places if p not in blocks or blocks[p].owner == host]
        assert (own, [p for p in places if p not in own]) == (claimed, failed)
        for place in own:
            if place not in blocks:
                self.plain.claim(place, host)

    @seldom
    @rule(host=hosts)
    def remove_host(self, host):
        affinities.remove_host(self.store, host, self.plain.now)
        self._disown(self.plain.owned(host))

    @of_operators
    @rule(host=hosts, rack=st.sampled_from(RACKS))
    def relabel_node(self, host, rack):
        self._put_node(host, rack)

    @seldom
    @precondition(lambda self: len(self.plain.racks) > 1)
    @rule(data=st.data())
    def delete_node(self, data):
        host = data.draw(st.sampled_from(sorted(self.plain.racks)))
        self._delete_record("node", host)
        del self.plain.racks[host]
        self._disown(self.plain.owned(host))

    # Pools, reservations, configuration, time

    @of_operators
    @rule(
        place=st.sampled_from(PLACES),
        size=st.integers(0, 1),
        selector=st.sampled_from(["all()", *SELECTORS]),
        mode=st.sampled_from(["", "", "", "manual", "tunnel"]),
    )
    def make_pool(self, place, size, selector, mode):
        name, text, sizes = place
        manual, use = mode == "manual", "Tunnel" if mode == "tunnel" else "Workload"
        size = sizes[size % len(sizes)]
        pool = PlainPool(name, parse_cidr(text), size, selector, manual=manual, use=use)
        existing = [codec.decode_document(entry) for entry in entries(self.store, keys.POOLS)]
        errors = check_pool_creation(_resource(pool), existing, list(self.plain.blocks))
        neighbours = [
            *[other.cidr for other in self.plain.pools.values()],
            *[cidr for cidr in self.plain.blocks],
        ]
        may_be = not any(other.overlaps(pool.cidr) for other in neighbours)
        if may_be:
            assert [] == errors
        if not errors:
            self._put_pool(pool)

    @of_operators
    @precondition(lambda self: self.plain.pools)
    @rule(data=st.data(), disabled=rarely, selector=st.sampled_from(["all()", "all()", *SELECTORS]))
    def change_pool(self, data, disabled, selector):
        pool = data.draw(st.sampled_from(list(self.plain.pools.values())))
        pool.disabled, pool.selector = disabled, selector
        self._put_pool(pool)

    @seldom
    @precondition(lambda self: self.plain.pools)
    @rule(data=st.data())
    def delete_pool(self, data):
        name = data.draw(st.sampled_from(sorted(self.plain.pools)))
        self._delete_record("ippool", name)
        pool = self.plain.pools.pop(name)
        self._disown(
            cidr
            for cidr, block in self.plain.blocks.items()
            if block.owner and cidr.base in numbers(pool.cidr)
        )

    @of_operators
    @rule(**settings_of_engine)
    def configure(self, strict, auto, max_blocks, cooldown):
        put_config(
            self.store,
            strict_affinity=strict,
            auto_allocate_blocks=auto,
            maxBlocksPerHost=max_blocks,
            ipCooldownSeconds=cooldown,
        )
        plain = self.plain
        plain.strict, plain.auto, plain.max_blocks = strict, auto, max_blocks
        plain.cooldown = cooldown

    @of_operators
    @rule(
        cidrs=st.lists(
            st.sampled_from(
                ["10.0.0.2", "10.0.0.4/30", "10.0.0.0/29", "10.0.0.16/30", "fd00::/127"]
            ),
            max_size=2,
        )
    )
    def reserve(self, cidrs):
        document = {"metadata": {"name": "ours"}, "spec": {"reservedCIDRs": cidrs}}
        put(self.store, keys.RESERVATIONS + "ours", document)
        self._read_reservations()

    @rule(seconds=st.sampled_from([1, 29, 31, 61]))
    def wait(self, seconds):
        self.plain.now += seconds * SECOND

    @invariant()
    def agrees(self):
        """What lies in the store is what `Plain` says; then time goes on."""
        self.comparison.check()
        self.plain.now += 1_000
        self.steps += 1

    # What the rules are made of

    def _wish(self, holder: Holder, **fields) -> Wish:
        owner = {"ifname": holder.ifname, "network": "net", "node": holder.host}
        fields = {"counts": {}, "pools": {}, **fields}
        return Wish(holder.host, holder.handle, owner, self.plain.now, SEED, **fields)

    def _assign(self, request: Request) -> None:
        wish = self._wish(
            request.holder,
            counts=request.counts,
            pools=dict.fromkeys(request.counts, request.asked),
            whole=request.whole,
            gateway=request.gateway,
            max_blocks=request.max_blocks,
        )
        try:
            outcome = assign(self.store, wish)
        except CniIpamError as error:
            judge_refusal(self.plain, request, error)
        else:
            judge_answer(self.plain, request, outcome)
        if request.gateway != "none":
            self._read_reservations()

    def _assign_fixed(self, holder: Holder, addresses: list[int], gateway: str) -> None:
        plain = self.plain
        wanted = list(dict.fromkeys(addresses))
        kept = {c.base for p in plain.pools.values() for c in kept_back(p.cidr, gateway)}
        refusals = {kind for a in wanted for kind in plain.refusals(a, holder, kept)}
        fixed = tuple([Address(version_of(address), address) for address in addresses])
        try:
            outcome = assign(self.store, self._wish(holder, fixed=fixed, gateway=gateway))
        except CniIpamError as error:
            assert isinstance(error, tuple(refusals)), f"{error!r} is none of {refusals}"
            return
        assert set() == refusals
        assert addresses == [a.address.value for a in outcome.assigned]
        for address in wanted:
            if address not in plain.held:
                cidr = plain.pool_at(address).block_of(address)
                if cidr not in plain.blocks:
                    plain.claim(cidr, holder.host)
                plain.give(cidr, [address], holder)

    def _delete(self, holder: Holder) -> None:
        wanted = [a for a, h in self.plain.held.items() if h == holder]
        owners = {holder.handle: self._wish(holder).is_mine}
        released = release(self.store, holder.host, owners, self.plain.now)
        self._released(wanted, released.addresses)

    def _released(self, wanted, released) -> None:
        assert sorted(wanted) == sorted(address.value for address in released)
        self.plain.release(wanted)

    def _disown(self, cidrs) -> None:
        for cidr in list(cidrs):
            self.plain.disown(cidr)

    def _delete_record(self, kind: str, name: str) -> None:
        resource = {"metadata": {"name": name}}
        delete_record(self.store, get_kind(kind), resource, self.plain.now, lambda _: None)
        self._read_reservations()

    def _put_node(self, host: str, rack: str | None) -> None:
        put_node(self.store, host, **({"rack": rack} if rack else {}))
        self.plain.racks[host] = rack

    def _put_pool(self, pool: PlainPool) -> None:
        put(self.store, keys.POOLS + pool.name, _resource(pool))
        self.plain.pools[pool.name] = pool

    def _read_reservations(self) -> None:
        cidrs: list[Cidr] = []
        for entry in entries(self.store, keys.RESERVATIONS):
            cidrs += codec.decode_reservation(entry)
        self.plain.reserved = {address for cidr in cidrs for address in numbers(cidr)}


def _resource(pool: PlainPool) -> dict:
    spec = {"cidr": str(pool.cidr), "blockSize": pool.block_size, "nodeSelector": pool.selector}
    spec |= {"disabled": pool.disabled, "allowedUses": [pool.use]}
    spec["assignmentMode"] = "Manual" if pool.manual else "Automatic"
    return {"metadata": {"name": pool.name}, "spec": spec}
