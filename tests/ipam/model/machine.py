"""All that may happen: what runtimes do, and what operators do."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.moment import SECOND
from cni_ipam.core.pool_rules import check_pool_creation
from cni_ipam.datastore import codec, keys
from cni_ipam.errors import NotEmpty, ValidationError
from cni_ipam.ipam import affinity as affinities
from cni_ipam.ipam.query import read_utilization
from tests.ipam.model.plain import RACKS, SELECTORS, PlainPool, numbers
from tests.ipam.model.pods import Pods, hosts, rarely
from tests.ipam.model.stage import of_operators, resource_of, seldom
from tests.ipam.world import NODES, entries, put, put_config

# Name, CIDR and the sizes that its blocks may have; "both" overlaps with "one" and "two".
PLACES = (
    ("one", "10.0.0.0/28", (30, 29)),
    ("two", "10.0.0.16/29", (30, 32)),
    ("both", "10.0.0.0/27", (30,)),
    ("six", "fd00::/124", (126,)),
)
settings_of_engine = {
    "strict": st.booleans(),
    "auto": st.sampled_from([True, True, True, False]),
    "max_blocks": st.sampled_from([0, 0, 1, 2, 3]),
    "cooldown": st.sampled_from([0, 0, 30]),
}


class Machine(Pods):
    """Three hosts, up to three pools at a time, six attachments on each host."""

    @initialize(
        racks=st.tuples(*[st.sampled_from(RACKS)] * 3),
        size=st.sampled_from([29, 30]),
        **settings_of_engine,
    )
    def furnish(self, racks, size, strict, auto, max_blocks, cooldown):
        self.configure(strict, auto, max_blocks, cooldown)
        for host, rack in zip(NODES, racks, strict=True):
            self.put_node(host, rack)
        self.put_pool(PlainPool("one", parse_cidr("10.0.0.0/28"), size))
        self.put_pool(PlainPool("six", parse_cidr("fd00::/124"), 126))

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
        except NotEmpty:
            assert is_refused
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
        except ValidationError:
            assert pool.disabled
            return
        assert not pool.disabled
        blocks = self.plain.blocks
        own = [p for p in places if p not in blocks or blocks[p].owner == host]
        assert (own, [p for p in places if p not in own]) == (claimed, failed)
        for place in own:
            if place not in blocks:
                self.plain.claim(place, host)

    @precondition(lambda self: self.plain.pools)
    @of_operators
    @rule(data=st.data(), host=hosts, must_be_empty=st.booleans())
    def release_blocks(self, data, host, must_be_empty):
        pool = data.draw(st.sampled_from(list(self.plain.pools.values())))
        mine = [c for c in self.plain.owned(host) if pool.cidr.covers(c)]
        used = [c for c in mine if must_be_empty and not self.plain.is_empty(c)]
        try:
            affinities.release_blocks(
                self.store, host, pool.cidr, self.plain.now, must_be_empty=must_be_empty
            )
        except NotEmpty:
            assert used
        except ValidationError:
            assert pool.disabled
            return
        else:
            assert not used
        self.note_disowned(c for c in mine if c not in used)

    @seldom
    @rule(host=hosts)
    def remove_host(self, host):
        affinities.remove_host(self.store, host, self.plain.now)
        self.note_disowned(self.plain.owned(host))

    @of_operators
    @rule(host=hosts, rack=st.sampled_from(RACKS))
    def relabel_node(self, host, rack):
        self.put_node(host, rack)

    @seldom
    @precondition(lambda self: len(self.plain.racks) > 1)
    @rule(data=st.data())
    def delete_node(self, data):
        host = data.draw(st.sampled_from(sorted(self.plain.racks)))
        self.act_delete_record("node", host)
        del self.plain.racks[host]
        self.note_disowned(self.plain.owned(host))

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
        errors = check_pool_creation(resource_of(pool), existing, list(self.plain.blocks))
        neighbours = [
            *[other.cidr for other in self.plain.pools.values()],
            *self.plain.blocks,
        ]
        may_be = not any(other.overlaps(pool.cidr) for other in neighbours)
        if may_be:
            assert [] == errors
        if not errors:
            self.put_pool(pool)

    @of_operators
    @precondition(lambda self: self.plain.pools)
    @rule(data=st.data(), disabled=rarely, selector=st.sampled_from(["all()", "all()", *SELECTORS]))
    def change_pool(self, data, disabled, selector):
        pool = data.draw(st.sampled_from(list(self.plain.pools.values())))
        pool.disabled, pool.selector = disabled, selector
        self.put_pool(pool)

    @seldom
    @precondition(lambda self: self.plain.pools)
    @rule(data=st.data())
    def delete_pool(self, data):
        name = data.draw(st.sampled_from(sorted(self.plain.pools)))
        self.act_delete_record("ippool", name)
        pool = self.plain.pools.pop(name)
        self.note_disowned(
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
        self.read_reservations()

    @of_operators
    @rule()
    def measure(self):
        for pool in read_utilization(self.store):
            inside = set(numbers(self.plain.pools[pool.name].cidr))
            held, cooling = inside & self.plain.held.keys(), inside & self.plain.cooling.keys()
            free = inside - held - cooling - self.plain.reserved
            seen = pool.total
            assert (len(held | cooling), len(cooling)) == (seen.in_use, seen.cooling)
            assert (len(inside), len(free)) == (seen.capacity, seen.free)

    @rule(seconds=st.sampled_from([1, 29, 31, 61]))
    def wait(self, seconds):
        self.plain.now += seconds * SECOND
