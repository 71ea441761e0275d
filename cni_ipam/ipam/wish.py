"""What is wanted, and what came of it."""

from __future__ import annotations

from cni_ipam.errors import PoolExhausted, StrictAffinity
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni_ipam.core.address import Address, Cidr
    from cni_ipam.core.block import Attribute
    from cni_ipam.core.pool import Pool
    from cni_ipam.errors import AllocationError, CorruptRecord
    from cni_ipam.ipam.assign import Attempt
    from cni_ipam.ipam.view import View

STRICT_MESSAGE = "No more free affine blocks and strict affinity enabled"


@record
class Wish:
    """One request for addresses.

    `counts` says how many of each family are wanted by auto-assignment, `pools` from which pools
    (names or CIDRs; none: those that select node and namespace), `fixed` which addresses exactly.
    `owner` holds the owner attributes, which identify the attachment. `now` is in nanoseconds since
    the epoch, `seed` at least 16 random bytes.

    Without a `handle` (an empty text) addresses can be released one by one only. Without a `use`
    a fixed address may be of any pool; other wishes are refused.

    With `whole` it is all or nothing, otherwise a part is given, with messages. With `repeats` what
    the attachment has already is part of the answer. `max_blocks` limits the blocks of the host in
    these pools below what the config says, `host_reserved` is what a new block keeps for its host,
    and `kind` is `virtual` for load balancers, which have no Node. With `max_per_handle` the handle
    gets no more than that of a family; what it has, on any node, is the answer then.

    A frugal one is for stores in which each record is a request of its own: the handle is read once
    its creation was refused, the Node when a selector asks for labels or a block is claimed."""

    host: str
    handle: str
    owner: Mapping[str, str]
    now: int
    seed: bytes
    counts: Mapping[int, int]
    pools: Mapping[int, tuple[str, ...]]
    fixed: tuple[Address, ...] = ()
    use: str = "Workload"
    namespace_labels: Mapping[str, str] | None = None
    gateway: str | Address = "none"
    default_pools: tuple[tuple[str, Mapping[str, object]], ...] = ()
    makes_node: bool = False
    heeds_ready: bool = True
    whole: bool = True
    max_blocks: int = 0
    max_per_handle: int = 0
    host_reserved: tuple[int, int] = (0, 0)
    kind: str = "host"
    repeats: bool = True
    is_frugal: bool = False

    @property
    def versions(self) -> tuple[int, ...]:
        """The families that are wanted in any way."""
        fixed = [address.version for address in self.fixed]
        return tuple(version for version in (4, 6) if version in self.counts or version in fixed)

    def answers_again(self, owner: Attribute) -> bool:
        """Whether an allocation that is there already is part of the answer."""
        return self.repeats and self.is_mine(owner)

    def allows_again(self, owner: Attribute) -> bool:
        """Whether a fixed address that is allocated already may be the answer: with a limit
        whatever the handle has, as in Calico."""
        is_handles = bool(self.max_per_handle) and owner.handle == self.handle
        return is_handles or self.answers_again(owner)

    @property
    def affinity(self) -> str:
        """What a block of this host holds as its owner."""
        return f"{self.kind}:{self.host}"

    def lacks_node(self, view: View) -> bool:
        """Whether this node's record is missing and ours to make."""
        return self.makes_node and view.node_labels is None

    def is_mine(self, owner: Attribute) -> bool:
        """Whether an allocation is this attachment's."""
        return owner.handle == self.handle and owner.is_on(self.host, self.owner.get("ifname"))


@record
class Assigned:
    """An address that was given; `is_affine` tells whether its block is the host's own."""

    address: Address
    block: Cidr
    pool: Pool | None
    is_affine: bool
    is_fixed: bool


@record
class Outcome:
    """The addresses of a wish, per family the messages on what was missing, and the records that
    were passed over because they could not be understood."""

    assigned: tuple[Assigned, ...]
    messages: dict[int, tuple[str, ...]]
    faults: tuple[CorruptRecord, ...] = ()
    error: AllocationError | None = None


def describe_shortfall(version: int, given: int, wanted: int, messages: Sequence[str]) -> str:
    """Calico's text for a family that got less than was wanted, each message once."""
    counts = f"Assigned {given} out of {wanted} requested IPv{version} addresses"
    return "; ".join([counts, *dict.fromkeys(messages)])


def shortfall(
    attempt: Attempt, version: int, count: int, missing: int, chosen: Sequence[Pool]
) -> PoolExhausted | StrictAffinity:
    """The error for a family that is short, with Calico's text and how full each pool is."""
    messages = attempt.messages[version]
    text = describe_shortfall(version, count - missing, count, messages)
    msg = f"failed to request IPv{version} addresses: {text}"
    from cni_ipam.core.utilization import explain_full, measure

    reservations = attempt.reservations(chosen)
    blocks = [block for block, _ in attempt.blocks.values()]
    numbers = [measure(pool.cidr, blocks, reservations) for pool in chosen]
    if STRICT_MESSAGE in messages:
        strict = "strictAffinity forbids to borrow from other nodes' blocks"
        return StrictAffinity(msg, "; ".join([strict, *map(str, numbers)]))
    are_named = bool(attempt.wish.pools.get(version))
    return PoolExhausted(msg, explain_full(numbers, are_named=are_named))
