"""Pools, and who may use which: the decision, without a datastore.

A pool may be used for a request if it is enabled, has the wanted family and allows the wanted
use, and either was asked for by name or CIDR, or is assigned automatically and selects the node and
the namespace. Asking for it overrides the selectors and the assignment mode, not the rest
(Calico's determinePools and prepareAffinityBlocksForHost).
"""

from __future__ import annotations

from cni_ipam.core.address import BITS, Address, Cidr, parse_cidr
from cni_ipam.errors import NetconfError, NoQualifiedPool, ValidationError
from cni_ipam.lean.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
DEFAULT_USES = ("Workload", "Tunnel")
# What to do stands before the list of pools: what shows errors cuts long ones short.
_NAME_ANOTHER = "name another pool, or create one"
_ENABLED = '{"spec":{"disabled":false}}'


@record
class Pool:
    """An IPPool as the engine sees it, defaults filled in."""

    name: str
    cidr: Cidr
    block_size: int
    disabled: bool = False
    deleting: bool = False
    allocatable: bool = True
    node_selector: str = "all()"
    namespace_selector: str = ""
    allowed_uses: tuple[str, ...] = DEFAULT_USES
    assignment_mode: str = "Automatic"

    @property
    def is_enabled(self) -> bool:
        """Whether new addresses may come from it at all."""
        return not self.why_not_enabled()

    def block_of(self, address: Address) -> Cidr:
        """The block of this pool that holds `address`."""
        shift = BITS[address.version] - self.block_size
        return Cidr(address.version, address.value >> shift << shift, self.block_size)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether its nodeSelector selects a node with `labels`. Raises NetconfError."""
        return _matches(self, "nodeSelector", self.node_selector, labels)

    def why_not_enabled(self) -> str:
        """The reason for which it gives nothing, or an empty text."""
        if self.disabled:
            return "disabled"
        if self.deleting:
            return "being deleted"
        if not self.cidr.prefix <= self.block_size <= BITS[self.cidr.version]:
            return f"blockSize {self.block_size} does not fit"
        return "" if self.allocatable else "not allocatable (condition Allocatable is False)"


@record
class PoolRequest:
    """What decides which pools may be used for one family."""

    version: int
    requested: tuple[str, ...] = ()
    use: str = "Workload"
    node: str = ""
    node_labels: Mapping[str, str] | None = None
    namespace_labels: Mapping[str, str] | None = None
    host_reserved: int = 0

    def why_not_served(self, pool: Pool) -> str:
        """The reason for which `pool` cannot serve this request however it was chosen, or an empty
        text: a block must hold more than what its host keeps for itself."""
        longest = BITS[self.version] - self.host_reserved.bit_length()
        if self.host_reserved and pool.block_size > longest:
            return f"blockSize {pool.block_size} leaves no room beside the host's own addresses"
        return pool.why_not_enabled()


def find_pool(pools: Iterable[Pool], address: Address) -> Pool | None:
    """The pool whose CIDR holds `address`, enabled or not."""
    for pool in pools:
        if pool.cidr.contains(address):
            return pool
    return None


def lies_in_any(cidr: Cidr, pools: Iterable[Pool]) -> bool:
    """Whether one of `pools` has the whole of `cidr`."""
    return any(pool.cidr.covers(cidr) for pool in pools)


def choose_pools(pools: Sequence[Pool], request: PoolRequest) -> list[Pool]:
    """The pools that `request` may use, in order.

    Raises NoQualifiedPool, NetconfError, and ValidationError if it does not say what for."""
    if not request.use:
        raise ValidationError(
            "must specify the intended use when assigning an IP",
            "a use is one of Workload, Tunnel and LoadBalancer",
        )
    family = [pool for pool in pools if pool.cidr.version == request.version]
    enabled = [pool for pool in family if not request.why_not_served(pool)]
    if request.requested:
        chosen = [_requested(text, pools, enabled, request) for text in request.requested]
    elif not enabled:
        advice = f"enable or create an IPv{request.version} pool that selects this node"
        msg = "cannot find a qualified ippool"
        raise NoQualifiedPool(msg, f"{advice}; {_explain(family, request)}")
    else:
        chosen = [pool for pool in enabled if not _why_not_selected(pool, request)]
    if not chosen:
        msg = f"no configured Calico pools for node {request.node}"
        advice = "request an enabled pool by name, or create one that selects this node"
        raise NoQualifiedPool(msg, f"{advice}; {_explain(family, request)}")
    allowed = [pool for pool in chosen if request.use in pool.allowed_uses]
    if not allowed:
        msg = f"cannot find a qualified ippool, no pools match the required use ({request.use})"
        advice = f"request or create a pool whose allowedUses has {request.use}"
        raise NoQualifiedPool(msg, f"{advice}; {_explain(family, request)}")
    return allowed


def resolve_requested(pools: Sequence[Pool], version: int, texts: Iterable[str]) -> list[Cidr]:
    """The CIDRs of what is requested for a family, whether or not it can be served.

    Raises NoQualifiedPool for an unknown pool, NetconfError for one of the other family."""
    return [_requested_cidr(text, pools, version) for text in texts]


def _requested(text: str, pools: Sequence[Pool], enabled: list[Pool], request: PoolRequest) -> Pool:
    """The pool that `text` names: by CIDR (host bits masked away), else by its exact name."""
    cidr = _requested_cidr(text, pools, request.version)
    for pool in enabled:
        if pool.cidr == cidr:
            return pool
    family = [pool for pool in pools if pool.cidr.version == request.version]
    msg = f"the given pool ({cidr}) does not exist, or is not enabled"
    advice = _advise_instead([pool for pool in family if pool.cidr == cidr], request)
    raise NoQualifiedPool(msg, f"{advice}; {_explain(family, request)}")


def _advise_instead(found: Sequence[Pool], request: PoolRequest) -> str:
    """What to do about a requested pool that does not serve, of which these records were found."""
    for pool in found:
        if pool.disabled and not request.why_not_served(replace(pool, disabled=False)):
            patch = f"ipamctl patch ippool {pool.name} -p '{_ENABLED}'"
            return f"enable pool {pool.name} (`{patch}`), or name another one"
    return _NAME_ANOTHER


def _requested_cidr(text: str, pools: Sequence[Pool], version: int) -> Cidr:
    cidr = _named_cidr(text, pools)
    if cidr.version != version:
        raise NetconfError(
            f'"{cidr.address(0)}" isn\'t a IPv{version} address',
            f"ipv{version}_pools takes names or CIDRs of IPv{version} pools",
        )
    return cidr


def _named_cidr(text: str, pools: Sequence[Pool]) -> Cidr:
    try:
        return parse_cidr(text)
    except ValueError as error:
        for pool in pools:
            if pool.name == text:
                return pool.cidr
        known = ", ".join(pool.name for pool in pools) or "none"
        raise NoQualifiedPool(
            f'error parsing pool "{text}": {error}',
            f"no pool has that name; {_NAME_ANOTHER}; pools: {known}",
        ) from None


def _why_not_selected(pool: Pool, request: PoolRequest) -> str:
    if pool.assignment_mode != "Automatic":
        return f"assignmentMode is {pool.assignment_mode}"
    if not pool.selects(request.node_labels or {}):
        return f"nodeSelector {pool.node_selector} does not select node {request.node}"
    namespace = request.namespace_labels or {}
    if not _matches(pool, "namespaceSelector", pool.namespace_selector, namespace):
        return f"namespaceSelector {pool.namespace_selector} does not select the namespace"
    return ""


def _matches(pool: Pool, field: str, selector: str, labels: Mapping[str, str]) -> bool:
    if selector in ("", "all()"):
        return True
    # Most pools select all nodes, and then nothing has to be loaded to know it.
    from cni_ipam.core.selector import parse_selector

    try:
        return parse_selector(selector).matches(labels)
    except ValueError as error:
        raise NetconfError(
            f"{field} '{selector}' of pool {pool.name} cannot be parsed: {error}",
            f"correct spec.{field} of the IPPool; until then no pod gets an address automatically",
        ) from None


def _explain(family: Sequence[Pool], request: PoolRequest) -> str:
    """One clause for each pool of the family: why it was not used."""
    clauses = []
    for pool in family:
        reason = request.why_not_served(pool)
        if not reason and not request.requested:
            reason = _why_not_selected(pool, request)
        if not reason and request.use not in pool.allowed_uses:
            reason = f"allowedUses is [{' '.join(pool.allowed_uses)}]"
        clauses.append(f"{pool.name} ({pool.cidr}): {reason or 'not requested'}")
    return "; ".join(clauses) or f"there is no IPv{request.version} pool"
