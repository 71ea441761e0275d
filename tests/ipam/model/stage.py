"""A store and `Plain` side by side: how to act on both, and the look at everything after a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition

from cni_ipam.core.address import Address
from cni_ipam.core.gateway import kept_back
from cni_ipam.ctl.deletion import delete_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.errors import CniIpamError
from cni_ipam.ipam.assign import assign
from cni_ipam.ipam.release import release
from cni_ipam.ipam.wish import Wish
from tests.ipam.model.judge import judge_answer, judge_refusal
from tests.ipam.model.observed import Comparison
from tests.ipam.model.plain import Plain, numbers, version_of
from tests.ipam.world import NOW, SEED, entries, put, put_node

if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr
    from cni_ipam.datastore.port import Datastore
    from tests.ipam.model.judge import Request
    from tests.ipam.model.plain import Holder, PlainPool


def of_pods(function):
    """A rule for two steps of three: runtimes call more often than operators do."""
    return precondition(lambda self: self.steps % 3)(function)


def of_operators(function):
    """A rule for every third step."""
    return precondition(lambda self: self.steps % 3 == 0)(function)


def seldom(function):
    """A rule for every ninth step: after it there is less to do."""
    return precondition(lambda self: self.steps % 9 == 0)(function)


class Stage(RuleBasedStateMachine):
    """The store, the plain rules beside it, and how to act on both."""

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

    @invariant()
    def agrees(self):
        """What lies in the store is what `Plain` says; then time goes on."""
        self.comparison.check()
        self.plain.now += 1_000
        self.steps += 1

    # What the rules are made of

    def wish(self, holder: Holder, **fields) -> Wish:
        owner = {"ifname": holder.ifname, "network": "net", "node": holder.host}
        fields = {"counts": {}, "pools": {}, **fields}
        return Wish(holder.host, holder.handle, owner, self.plain.now, SEED, **fields)

    def act_assign(self, request: Request) -> None:
        wish = self.wish(
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
            self.read_reservations()

    def act_assign_fixed(self, holder: Holder, addresses: list[int], gateway: str) -> None:
        plain = self.plain
        wanted = list(dict.fromkeys(addresses))
        kept = {c.base for p in plain.pools.values() for c in kept_back(p.cidr, gateway)}
        refusals = {kind for a in wanted for kind in plain.refusals(a, holder, kept)}
        fixed = tuple([Address(version_of(address), address) for address in addresses])
        try:
            outcome = assign(self.store, self.wish(holder, fixed=fixed, gateway=gateway))
        except tuple(refusals):
            return
        assert set() == refusals
        assert addresses == [a.address.value for a in outcome.assigned]
        for address in wanted:
            if address not in plain.held:
                cidr = plain.pool_at(address).block_of(address)
                if cidr not in plain.blocks:
                    plain.claim(cidr, holder.host)
                plain.give(cidr, [address], holder)

    def act_delete(self, holder: Holder) -> None:
        wanted = [a for a, h in self.plain.held.items() if h == holder]
        owners = {holder.handle: self.wish(holder).is_mine}
        released = release(self.store, holder.host, owners, self.plain.now)
        self.note_released(wanted, released.addresses)

    def note_released(self, wanted, released) -> None:
        assert sorted(wanted) == sorted(address.value for address in released)
        self.plain.release(wanted)

    def note_disowned(self, cidrs) -> None:
        for cidr in list(cidrs):
            self.plain.disown(cidr)

    def act_delete_record(self, kind: str, name: str) -> None:
        resource = {"metadata": {"name": name}}
        delete_record(self.store, get_kind(kind), resource, self.plain.now, lambda _: None)
        self.read_reservations()

    def put_node(self, host: str, rack: str | None) -> None:
        put_node(self.store, host, **({"rack": rack} if rack else {}))
        self.plain.racks[host] = rack

    def put_pool(self, pool: PlainPool) -> None:
        put(self.store, keys.POOLS + pool.name, resource_of(pool))
        self.plain.pools[pool.name] = pool

    def read_reservations(self) -> None:
        cidrs: list[Cidr] = []
        for entry in entries(self.store, keys.RESERVATIONS):
            cidrs += codec.decode_reservation(entry)
        self.plain.reserved = {address for cidr in cidrs for address in numbers(cidr)}


def resource_of(pool: PlainPool) -> dict:
    spec = {"cidr": str(pool.cidr), "blockSize": pool.block_size, "nodeSelector": pool.selector}
    spec |= {"disabled": pool.disabled, "allowedUses": [pool.use]}
    spec["assignmentMode"] = "Manual" if pool.manual else "Automatic"
    return {"metadata": {"name": pool.name}, "spec": spec}
