"""The words of a reconciliation: a route of the kernel's, a change of it, a judgement on it."""

from __future__ import annotations

from cni_ipam.lean.record import record
from cni_ipam.routes.plan import BLACKHOLE, SCOPE_UNIVERSE, UNICAST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr

METRICS = {4: 0, 6: 1024}
"""The metric that the kernel gives a route for which none is named: there ours are."""

KERNEL_PROTOCOL = 2
PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 12: "bird", 80: "felix"}
KINDS = {UNICAST: "", BLACKHOLE: "blackhole ", 7: "unreachable ", 8: "prohibit ", 9: "throw "}

OK = "ok"
MISSING = "missing"
LEFT_BEHIND = "left behind"
PENDING = "pending block"
CLASH = "single address"
TAKEN = "place taken"
FOREIGN = "not ours"
WRONG_DEVICE = "wrong device"
HIDDEN = "hidden"
UNCLEAR = "unclear"

ADD, SET, REMOVE = "add", "set", "remove"
PAST = {ADD: "added", SET: "set", REMOVE: "removed"}


@record
class Device:
    """An interface of the node that leads to a pod."""

    index: int
    name: str


@record
class KernelRoute:
    """A route of our table as the kernel has it; `device` is None for none, its name is "" if
    there is no such interface (any more)."""

    cidr: Cidr
    kind: int
    proto: int
    metric: int = 0
    scope: int = SCOPE_UNIVERSE
    device: Device | None = None
    has_gateway: bool = False

    def __str__(self) -> str:
        text = f"{KINDS.get(self.kind, f'type {self.kind} ')}{self.cidr}"
        if self.has_gateway:
            text += " via a gateway"
        if self.device is not None and self.kind == UNICAST:
            text += f" dev {self.device.name or self.device.index}"
        return f"{text} proto {name_protocol(self.proto)}"

    @property
    def leads_to_device(self) -> bool:
        """Whether it is the kind of route that leads to a pod: to an interface, by no gateway."""
        return self.kind == UNICAST and self.device is not None and not self.has_gateway


@record
class Change:
    """One change of the kernel's table, which is one message: a route is added if nothing has its
    place, set whatever has it, or removed."""

    verb: str
    route: KernelRoute

    def __str__(self) -> str:
        return f"{self.verb} {self.route}"

    @property
    def when_done(self) -> str:
        """How it is told afterwards."""
        return f"{PAST[self.verb]} {self.route}"


@record
class Judgement:
    """The state of one route, `text` saying what is wrong, and the changes that mend it.

    `route` is the one in the kernel, or the one that is missing there."""

    route: KernelRoute
    state: str
    text: str = ""
    changes: tuple[Change, ...] = ()

    @property
    def can_be_mended(self) -> bool:
        """Whether `changes` do it; else it is for the operator."""
        return bool(self.changes)


def name_protocol(number: int) -> str:
    """A protocol as `ip` names it, if it is one that everybody has."""
    return PROTOCOLS.get(number, str(number))
