"""What runtimes do: assign, release, collect."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from cni_ipam.core.address import Address
from cni_ipam.errors import (
    AllocationError,
    CoolingDown,
    NotFound,
    UpdateConflict,
)
from cni_ipam.ipam.assign import ensure_block
from cni_ipam.ipam.collect import Living, collect
from cni_ipam.ipam.free import ReleaseRequest, release_addresses
from cni_ipam.ipam.query import addresses_of, find_owner
from cni_ipam.ipam.release import release_handle
from tests.ipam.model.judge import Request, judge_block, judge_no_block
from tests.ipam.model.plain import Holder, numbers, version_of
from tests.ipam.model.stage import Stage, of_pods
from tests.ipam.world import NODES

ADDRESSES = [*range(0x0A000000, 0x0A000020), *range(0xFD << 120, (0xFD << 120) + 16)]

hosts = st.sampled_from(NODES)
holders = st.builds(
    Holder,
    st.sampled_from([f"net.c{number}" for number in range(3)]),
    hosts,
    st.sampled_from(["eth0", "eth1"]),
)
counts = st.sampled_from([{4: 1}, {4: 3}, {4: 6}, {6: 1}, {6: 5}, {4: 1, 6: 1}, {4: 2, 6: 4}])
gateways = st.sampled_from(["none", "none", "auto"])
rarely = st.sampled_from([False, False, False, True])


class Pods(Stage):
    """What runtimes do."""

    # Assignment

    @of_pods
    @rule(holder=holders, gateway=gateways)
    def assign_one(self, holder, gateway):
        self.act_assign(Request(holder, {4: 1}, gateway=gateway))

    @of_pods
    @rule(holder=holders, count=st.sampled_from([2, 5, 9]), whole=st.booleans())
    def assign_many(self, holder, count, whole):
        self.act_assign(Request(holder, {4: count}, whole=whole))

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
        self.act_assign(Request(holder, count, asked, whole, gateway, max_blocks))

    @of_pods
    @rule(
        holder=holders,
        addresses=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2),
        gateway=gateways,
    )
    def assign_fixed(self, holder, addresses, gateway):
        self.act_assign_fixed(holder, addresses, gateway)

    # Release

    @of_pods
    @precondition(lambda self: self.plain.held)
    @rule(data=st.data(), stranger=holders)
    def delete(self, data, stranger):
        held = list(self.plain.held.values())
        self.act_delete(data.draw(st.sampled_from([*held, *held, stranger])))

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
        self.note_released(wanted, released.addresses)

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
        self.note_released([a for a in wanted if a not in spoiled], freed.released)
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
        self.note_released([a for a in here if self.plain.held[a] in gone], released.addresses)

    # Blocks ahead of need, and questions

    @of_pods
    @rule(holder=holders, gateway=gateways)
    def ensure_block(self, holder, gateway):
        request = Request(holder, {4: 1}, gateway=gateway)
        try:
            cidr = ensure_block(self.store, self.wish(holder, counts={4: 1}, gateway=gateway))
        except AllocationError as error:
            judge_no_block(self.plain, request.again(), error)
        else:
            judge_block(self.plain, request.again(), cidr)

    @of_pods
    @rule(address=st.sampled_from(ADDRESSES))
    def find_owner(self, address):
        plain = self.plain
        pool, owner = plain.pool_at(address), None
        try:
            owner = find_owner(self.store, Address(version_of(address), address), plain.now)
        except CoolingDown:
            assert address in plain.cooling
            assert not plain.has_rested(address)
        except NotFound:
            is_free = address not in plain.cooling or plain.has_rested(address)
            assert pool is None or pool.disabled or (address not in plain.held and is_free)
        if owner:
            holder = Holder(owner.handle, owner.get("node"), owner.get("ifname"))
            assert plain.held[address] == holder
            theirs = [a for a, h in plain.held.items() if h.handle == holder.handle]
            found = addresses_of(self.store, holder.handle)
            assert sorted(theirs) == sorted(a.value for a in found)
