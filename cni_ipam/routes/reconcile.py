"""What a node's routes should be, what they are, and the changes that make the one of the other.

A plan is a list of judgements, one for each route that is wanted or that is ours: its state, a
sentence if it is not as it should be, and the changes that mend it, if changes can. Ours are the
routes of our protocol; of others only the route of an interface plugin is ever replaced, where a
pod's host route belongs. Pure: the records, the kernel's table and the pods' interfaces come in.

A blackhole is taken away unless the records say that its block is this node's own; the host route
of an address that is recorded for this node never is. Of a block whose record cannot be read
nothing is known, so its routes stay as they are; and so do host routes if there is no block at all,
as a datastore that was emptied says nothing about pods that run.
"""

from __future__ import annotations

from cni_ipam.core.address import BITS, network_of
from cni_ipam.routes.judgement import (
    ADD,
    CLASH,
    FOREIGN,
    HIDDEN,
    KERNEL_PROTOCOL,
    LEFT_BEHIND,
    METRICS,
    MISSING,
    OK,
    PENDING,
    REMOVE,
    SET,
    TAKEN,
    UNCLEAR,
    WRONG_DEVICE,
    Change,
    Device,
    Judgement,
    KernelRoute,
)
from cni_ipam.routes.plan import (
    BLACKHOLE,
    LOOPBACK_INDEX,
    SCOPE_LINK,
    SCOPE_UNIVERSE,
    UNICAST,
    wanted_blackholes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.host import Allocation, HostRecords
    from cni_ipam.routes.plan import RouteSettings


def list_pods(records: HostRecords, networks: Collection[str] | None) -> list[Allocation]:
    """The allocations that get host routes: those of our plugin (Calico's name no network), in the
    `networks` that have host routes (None: all)."""
    return [
        one
        for one in records.allocations
        if (network := one.owner.get("network")) is not None
        and (networks is None or network in networks)
    ]


def reconcile(
    records: HostRecords,
    settings: RouteSettings,
    found: Iterable[KernelRoute],
    devices: Mapping[Address, Collection[Device]] | None,
    networks: Collection[str] | None = None,
    *,
    unheld: Collection[str] = (),
    known: Collection[str] | None = None,
) -> list[Judgement]:
    """Judge the routes of a node; what is to be removed comes first, as it may be in the way.

    `devices` are the interfaces that lead to each pod's address; None if nobody looked: then
    host routes that are there are taken to be right. The pods of `unheld` networks must not come
    to lie behind a blackhole, nor those of a network that is not `known` (None: all are)."""
    table = _Table(settings, found)
    wanted = _list_held(table, records, unheld, known) if settings.blackhole else []
    pods = list_pods(records, networks) if settings.host else []
    doomed = [*_judge_blackholes(table, records, wanted), *_judge_host_routes(table, records)]
    table.forget([change.route for one in doomed for change in one.changes])
    blocks = [_judge_block(table, cidr) for cidr in wanted]
    return [
        *doomed,
        *blocks,
        *[_judge_pod(table, pod, devices) for pod in pods],
        *_judge_others(table, records, {pod.address for pod in pods}),
        *_judge_lent(table, records, {one.route.cidr for one in blocks if one.state != TAKEN}),
    ]


class _Table:
    """The kernel's routes by destination, the preferred one first."""

    def __init__(self, settings: RouteSettings, found: Iterable[KernelRoute]) -> None:
        self.settings = settings
        self._places: dict[Cidr, list[KernelRoute]] = {}
        for route in sorted(found, key=lambda route: route.metric):
            self._places.setdefault(route.cidr, []).append(route)

    def at(self, cidr: Cidr) -> Sequence[KernelRoute]:
        """The routes for exactly `cidr`."""
        return self._places.get(cidr, ())

    def list_ours(self, kind: int) -> list[KernelRoute]:
        """All routes of ours of that kind."""
        return [r for at in self._places.values() for r in at if r.kind == kind and self.is_ours(r)]

    def is_ours(self, route: KernelRoute) -> bool:
        """Whether it carries our mark; only routes of our table are here."""
        return route.proto == self.settings.proto

    def forget(self, routes: Collection[KernelRoute]) -> None:
        """Go on as if these were gone."""
        for route in routes:
            self._places[route.cidr].remove(route)

    def find_within(self, address: Address, block: Cidr) -> KernelRoute | None:
        """The route that `address` takes, of those that are longer than its block's."""
        for prefix in range(BITS[address.version], block.prefix, -1):
            found = self.at(network_of(address, prefix))
            if found:
                return found[0]
        return None

    def make(self, cidr: Cidr, device: Device | None = None) -> KernelRoute:
        """A route as we make it: to a device, or a blackhole."""
        mark, metric = self.settings.proto, METRICS[cidr.version]
        if device is not None:
            return KernelRoute(cidr, UNICAST, mark, metric, SCOPE_LINK, device)
        # The kernel ties IPv6 blackholes to lo.
        loopback = Device(LOOPBACK_INDEX, "lo") if cidr.version == 6 else None
        return KernelRoute(cidr, BLACKHOLE, mark, metric, SCOPE_UNIVERSE, loopback)


def find_holdable(
    records: HostRecords,
    unheld: Collection[str],
    known: Collection[str] | None,
    is_routed: Callable[[Allocation], bool] = lambda _: False,
) -> set[Cidr]:
    """The own blocks over which a blackhole may come. Beside `unheld` networks only those in which
    other networks' pods alone have addresses: of an empty block nobody knows whose pod comes next.
    Of a network that is not `known` (None: all are) nobody knows whether its pods outlive it,
    unless they have routes of their own (`is_routed`)."""

    def is_cut_off(one: Allocation) -> bool:
        network = one.owner.get("network")
        is_known = known is None or network is None or network in known
        return network in unheld or not (is_known or is_routed(one))

    used = {one.block for one in records.allocations}
    cut_off = {one.block for one in records.allocations if is_cut_off(one)}
    return {block for block in records.own if not unheld or block in used} - cut_off


def _list_held(
    table: _Table, records: HostRecords, unheld: Collection[str], known: Collection[str] | None
) -> list[Cidr]:
    """The own blocks that are to have a blackhole, and those that have it already."""

    def is_routed(one: Allocation) -> bool:
        return table.find_within(one.address, one.block) is not None

    held = {route.cidr for route in table.list_ours(BLACKHOLE)}
    held |= find_holdable(records, unheld, known, is_routed)
    return [block for block in wanted_blackholes(records.own) if block in held]


# What is there and should not be


def _judge_blackholes(
    table: _Table, records: HostRecords, wanted: Collection[Cidr]
) -> Iterator[Judgement]:
    """Our blackholes that no block of this node's wants."""
    own, claimed, unclear = set(records.own), set(records.claimed), set(records.unclear)
    kept = set(wanted)
    for route in table.list_ours(BLACKHOLE):
        block = route.cidr
        if block in kept:
            continue
        if block in unclear:
            yield Judgement(route, UNCLEAR, f"the records of block {block} cannot be read")
            continue
        if block.prefix == BITS[block.version]:
            state, text = CLASH, f"{block} is one address: a blackhole would take its pod's route"
        elif block in claimed:
            state, text = PENDING, f"this node's claim on block {block} is not confirmed"
        elif block in own:
            state, text = LEFT_BEHIND, "blackholes are switched off here (routes.blackhole)"
        else:
            state, text = LEFT_BEHIND, f"{block} is no block of this node"
        yield Judgement(route, state, text, (Change(REMOVE, route),))


def _judge_host_routes(table: _Table, records: HostRecords) -> Iterator[Judgement]:
    """Our host routes for addresses that are not recorded for this node."""
    recorded = {one.address for one in records.allocations}
    for route in table.list_ours(UNICAST):
        address = route.cidr.address(0)
        if route.cidr != address.host_cidr or address in recorded:
            continue
        if any(block.contains(address) for block in records.unclear):
            yield Judgement(route, UNCLEAR, f"the records of the block of {address} cannot be read")
        elif records.is_blank:
            text = f"{address}: no block at all is recorded: is it the right datastore?"
            yield Judgement(route, UNCLEAR, text)
        else:
            text = f"{address} is not recorded for this node"
            yield Judgement(route, LEFT_BEHIND, text, (Change(REMOVE, route),))


# What should be there


def _judge_block(table: _Table, block: Cidr) -> Judgement:
    """The blackhole of a block of this node's. Anybody's serves; a route of another kind that has
    the place stays, as does a directly connected network: somebody wanted that."""
    wanted = table.make(block)
    there = table.at(block)
    held = [route for route in there if route.kind == BLACKHOLE]
    if held:
        return Judgement(next((route for route in held if table.is_ours(route)), held[0]), OK)
    for route in there:
        if route.metric == wanted.metric or route.proto == KERNEL_PROTOCOL:
            text = f"the place of the blackhole of block {block} is taken by {route}; remove that "
            return Judgement(route, TAKEN, text + "if nobody needs it")
    text = f"block {block} of this node has no blackhole: its unused addresses are routed elsewhere"
    return Judgement(wanted, MISSING, text, (Change(ADD, wanted),))


def _judge_pod(
    table: _Table, pod: Allocation, devices: Mapping[Address, Collection[Device]] | None
) -> Judgement:
    """The host route of a pod of this node's."""
    cidr, who = pod.address.host_cidr, describe_owner(pod)
    leading = None if devices is None else list(dict.fromkeys(devices.get(pod.address, ())))
    there = table.at(cidr)
    first = there[0] if there else None
    if first is not None and first.leads_to_device:
        return _judge_device(table, first, leading, who)
    metric = METRICS[cidr.version]
    if first is not None and first.metric <= metric:
        text = f"the place of the host route of {pod.address}, {who}, is taken by {first}; "
        return Judgement(first, TAKEN, text + "remove that if nobody needs it")
    text = f"{pod.address}, {who}, has no host route"
    if leading is not None and len(leading) == 1:
        wanted = table.make(cidr, leading[0])
        return Judgement(wanted, MISSING, text, (Change(SET, wanted),))
    return Judgement(table.make(cidr, _NOWHERE), MISSING, text + _why_not(leading))


def _judge_device(
    table: _Table, route: KernelRoute, leading: list[Device] | None, who: str
) -> Judgement:
    """A route for a pod's address that leads to an interface, ours or an interface plugin's."""
    cidr = route.cidr
    is_right = leading is None or not leading or route.device in leading
    is_there = route.device is not None and bool(route.device.name)
    if not is_right or not is_there:
        text = f"{cidr.address(0)}, {who}, is not behind the interface of {route}"
        if not leading or len(leading) > 1:
            return Judgement(route, WRONG_DEVICE, text + _why_not(leading))
        return Judgement(route, WRONG_DEVICE, text, _take_place(table, route, leading[0]))
    if table.is_ours(route):
        return Judgement(route, OK)
    text = f"{cidr.address(0)}, {who}, has the interface plugin's route, not ours: {route}"
    changes = _take_place(table, route, route.device) if route.device else ()
    return Judgement(route, FOREIGN, text, changes)


def _take_place(table: _Table, route: KernelRoute, device: Device) -> tuple[Change, ...]:
    """Ours in the place of `route`. The kernel replaces what has the same metric; one that has
    another goes if it is ours, and if it is another's it stays where ours is preferred to it."""
    wanted = table.make(route.cidr, device)
    change = Change(SET, wanted)
    if route.metric == wanted.metric:
        return (change,)
    if table.is_ours(route):
        return (change, Change(REMOVE, route))
    return (change,) if wanted.metric < route.metric else ()


def _why_not(leading: Sequence[Device] | None) -> str:
    if leading is None:
        return ""
    if not leading:
        return ", and no interface of this node leads to it: its pod may be starting, or gone"
    return f", and several interfaces lead to it: {', '.join(d.name for d in leading)}"


def _judge_others(
    table: _Table, records: HostRecords, judged: Collection[Address]
) -> Iterator[Judgement]:
    """Our routes for recorded addresses that need none: they stay."""
    for one in records.allocations:
        if one.address not in judged:
            for route in table.at(one.address.host_cidr):
                if route.kind == UNICAST and table.is_ours(route):
                    yield Judgement(route, OK)


def _judge_lent(
    table: _Table, records: HostRecords, holding: Collection[Cidr]
) -> Iterator[Judgement]:
    """Addresses of own blocks that other nodes have, and to which nothing leads but a blackhole."""
    for one in records.lent:
        held = [route for route in table.at(one.block) if route.kind == BLACKHOLE]
        hiding = held[0] if held else table.make(one.block) if one.block in holding else None
        found = table.find_within(one.address, one.block)
        if found is not None:
            hiding = found if found.kind == BLACKHOLE else None
        if hiding is not None:
            node = one.owner.get("node")
            text = (
                f"{one.address} is borrowed by node {node}, and {hiding} hides it from here: let "
                f"BGP bring that node's route, or make one by hand: ip route add "
                f"{one.address.host_cidr} via <address of {node}>"
            )
            route = KernelRoute(one.address.host_cidr, UNICAST, 0)
            yield Judgement(route, HIDDEN, text)


def describe_owner(one: Allocation) -> str:
    """Who has an address, for a sentence."""
    pod, namespace = one.owner.get("pod"), one.owner.get("namespace")
    return f"pod {namespace}/{pod}" if pod else f"handle {one.owner.handle or '<none>'}"


_NOWHERE = Device(0, "")
