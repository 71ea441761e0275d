"""The steps of autoassign.json: each calls one function of the engine and tells what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni_ipam.core.address import Address, Cidr, parse_address, parse_cidr
from cni_ipam.core.moment import SECOND, parse_rfc3339, rfc3339
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range
from cni_ipam.errors import CniIpamError, ValidationError
from cni_ipam.ipam import affinity as claims
from cni_ipam.ipam import assign, free, owner, query, release, settings, wish
from cni_ipam.lean.record import replace

from .autoassign_world import CONFIG_FIELDS, POOL_FIELDS, config_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.core.block import Block
    from cni_ipam.core.utilization import Utilization
    from cni_ipam.ipam.wish import Outcome

    from .autoassign_world import World

Step = dict[str, Any]

CALLERS_OWN = {"timestamp"}


@dataclass(frozen=True)
class Given:
    """An address as the library returns it: with the prefix length of its block."""

    address: Address
    prefix: int

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


@dataclass
class Answer:
    """What a step returned. `answered` are the families that have a result, however short;
    `saved` is what `save` keeps; `facts` is everything that is compared under its own name."""

    error: CniIpamError | None = None
    given: list[Given] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    messages: dict[int, list[str]] = field(default_factory=dict)
    shortfalls: dict[int, str] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def auto_assign(world: World, step: Step) -> Answer:
    counts = {v: step[f"num{v}"] for v in (4, 6) if step.get(f"num{v}")}
    if not counts:
        return Answer()
    outcome = assign.assign(world.store, _wish(world, step, counts=counts))
    given = [Given(found.address, found.block.prefix) for found in outcome.assigned]
    answered = {v for v in counts if not _is_refused(outcome, v)}
    return Answer(
        error=outcome.error,
        given=given,
        answered=answered,
        messages={v: list(outcome.messages.get(v, ())) for v in answered},
        shortfalls=_shortfalls(outcome, counts),
        saved=[str(found.address) for found in given],
    )


def assign_ip(world: World, step: Step) -> Answer:
    wanted = _wish(world, {"use": "", **step}, fixed=(_address(step["ip"]),))
    outcome = assign.assign(world.store, wanted)
    return Answer(error=outcome.error, saved=[str(a.address) for a in outcome.assigned])


def ensure_block(world: World, step: Step) -> Answer:
    versions = [v for v in (4, 6) if f"hostReserved{v}" in step] or [4]
    blocks = [assign.ensure_block(world.store, _wish(world, step, counts={v: 1})) for v in versions]
    return Answer(
        given=[Given(block.address(0), block.prefix) for block in blocks],
        answered=set(versions),
        saved=[str(block) for block in blocks],
    )


def release_ips(world: World, step: Step) -> Answer:
    requests = [_release_request(world, wanted) for wanted in step["ips"]]
    freed = free.release_addresses(world.store, requests, world.tick())
    done = {*freed.released, *freed.unallocated}
    return Answer(
        error=freed.errors[0] if freed.errors else None,
        facts={
            "released": sum(request.address in done for request in requests),
            "unallocated": [str(address) for address in freed.unallocated],
        },
    )


def release_by_handle(world: World, step: Step) -> Answer:
    release.release_handle(world.store, step["handle"], world.tick())
    return Answer()


def claim_affinity(world: World, step: Step) -> Answer:
    claimed, failed = claims.claim_blocks(
        world.store, step["node"], _cidr(step), world.tick(), kind=_kind(step)
    )
    return Answer(
        saved=[str(cidr) for cidr in claimed],
        facts={"claimed": len(claimed), "failed": len(failed)},
    )


def release_affinity(world: World, step: Step) -> Answer:
    claims.release_blocks(
        world.store,
        step["node"],
        _cidr(step),
        world.tick(),
        must_be_empty=step.get("mustBeEmpty", False),
        kind=_kind(step),
    )
    return Answer()


def release_host_affinities(world: World, step: Step) -> Answer:
    claims.release_host(
        world.store,
        step["node"],
        world.tick(),
        must_be_empty=step.get("mustBeEmpty", False),
        kind=_kind(step),
    )
    return Answer()


def release_pool_affinities(world: World, step: Step) -> Answer:
    claims.release_pool(world.store, _cidr(step), world.tick())
    return Answer()


def remove_host(world: World, step: Step) -> Answer:
    claims.remove_host(world.store, step["node"], world.tick())
    return Answer()


def set_owner(world: World, step: Step) -> Answer:
    updates, wanted = step["updates"], step.get("preconditions") or {}
    _refuse_others(updates, {"active", "alternate", "clearActive", "clearAlternate"})
    _refuse_others(wanted, {"active", "alternate", "activeEmpty", "alternateEmpty"})
    owner.set_owner(
        world.store,
        _address(step["ip"]),
        step["handle"],
        owner.OwnerUpdates(
            updates.get("active"),
            updates.get("alternate"),
            updates.get("clearActive", False),
            updates.get("clearAlternate", False),
        ),
        world.tick(),
        owner.OwnerPreconditions(
            _pod(wanted.get("active")),
            _pod(wanted.get("alternate")),
            wanted.get("activeEmpty", False),
            wanted.get("alternateEmpty", False),
        ),
    )
    return Answer()


def get_attributes(world: World, step: Step) -> Answer:
    found = query.find_owner(world.store, _address(step["ip"]), world.tick())
    return Answer(
        facts={
            "handle": found.handle,
            "active": _attributes(found.secondary),
            "alternate": _attributes(found.alternate),
        }
    )


def ips_by_handle(world: World, step: Step) -> Answer:
    addresses = [str(address) for address in query.addresses_of(world.store, step["handle"])]
    return Answer(saved=addresses, facts={"n": len(addresses)})


def set_config(world: World, step: Step) -> Answer:
    settings.write_config(world.store, config_of(step))
    return Answer()


def get_config(world: World, _: Step) -> Answer:
    config = settings.read_config(world.store)
    return Answer(
        facts={
            "strictAffinity": config.strict_affinity,
            "autoAllocateBlocks": config.auto_allocate_blocks,
            "maxBlocksPerHost": config.max_blocks_per_host,
            "ipCooldownSeconds": config.cooldown_seconds,
            "persisted": world.revision(keys.CONFIG) != ABSENT,
        }
    )


def set_reservations(world: World, step: Step) -> Answer:
    world.put_reservations(step["cidrs"])
    return Answer()


def apply_pool(world: World, step: Step) -> Answer:
    world.put_pool({key: value for key, value in step.items() if key != "op"})
    return Answer()


def apply_node(world: World, step: Step) -> Answer:
    world.put_node(step.get("node") or step["name"], step.get("labels") or {})
    return Answer()


def delete_pool_object(world: World, step: Step) -> Answer:
    world.remove_pool(step)
    return Answer()


def check_state(world: World, step: Step) -> Answer:
    state = world.read_state()
    confirmed = [a for a in state.affinities if a.is_confirmed]
    by_node: dict[str, int] = {}
    for found in state.affinities:
        by_node[found.host] = by_node.get(found.host, 0) + 1
    claimed = {(a.owner, a.cidr) for a in confirmed}
    owned = {(block.affinity, block.cidr) for block in state.blocks if block.affinity}
    return Answer(
        facts={
            "blocks": len(state.blocks),
            "affinities": len(state.affinities),
            "handles": len(state.handles),
            "affinitiesByNode": by_node,
            "affinityCIDRs": [str(found.cidr) for found in state.affinities],
            "allConfirmed": len(confirmed) == len(state.affinities),
            "affinitiesMatchBlocks": claimed == owned,
            "blockDetail": {str(block.cidr): _detail(block) for block in state.blocks},
        }
    )


def utilization(world: World, step: Step) -> Answer:
    found = query.read_utilization(world.store, step.get("pools") or ())
    pools = {str(p.total.cidr): {**_usage(p.total), "blocks": _usages(p.blocks)} for p in found}
    return Answer(facts={"numPools": len(found), "pools": pools})


def remember_sequence(world: World, step: Step) -> Answer:
    block, ordinal = _locate(world, _address(step["ip"]))
    sequence = block.allocation_sequence[ordinal]
    world.sequences[step["as"]] = sequence
    return Answer(facts={"sequence": sequence})


def age_block(world: World, step: Step) -> Answer:
    key = keys.block_key(_cidr(step))
    block = codec.decode_block(world.store.read([Range(key)])[0][0])
    claimed = parse_rfc3339(block.claim_time or rfc3339(world.now)) - step["seconds"] * SECOND
    world.put(key, codec.encode_block(replace(block.touch(), claim_time=rfc3339(claimed))))
    return Answer()


def sleep_ms(world: World, step: Step) -> Answer:
    world.tick(step["ms"] * 1_000_000)
    return Answer()


def _wish(
    world: World,
    step: Step,
    *,
    counts: dict[int, int] | None = None,
    fixed: tuple[Address, ...] = (),
) -> wish.Wish:
    reserved = step.get("hostReserved4") or step.get("hostReserved6") or {}
    use = step.get("use", "Workload") or ""
    namespace = step.get("namespace")
    return wish.Wish(
        host=step["node"],
        handle=step.get("handle", ""),
        owner=step.get("attrs", {}),
        now=world.tick(),
        seed=world.seed(),
        counts=counts or {},
        pools={v: tuple(step.get(f"pools{v}") or ()) for v in (4, 6)},
        fixed=fixed,
        use=use,
        namespace_labels=None if namespace is None else namespace.get("labels", {}),
        whole=False,
        max_blocks=step.get("maxBlocks", 0),
        max_per_handle=step.get("maxAllocPerHandle", 0),
        host_reserved=(reserved.get("start", 0), reserved.get("end", 0)),
        kind="virtual" if use == "LoadBalancer" else "host",
        repeats=False,
    )


def _is_refused(outcome: Outcome, version: int) -> bool:
    """Whether a family has no result at all: an error came before anything was looked for."""
    has_some = any(found.address.version == version for found in outcome.assigned)
    return outcome.error is not None and not has_some and not outcome.messages.get(version)


def _shortfalls(outcome: Outcome, counts: dict[int, int]) -> dict[int, str]:
    """What is said of each family that is short."""
    given = {v: sum(a.address.version == v for a in outcome.assigned) for v in counts}
    return {
        v: wish.describe_shortfall(v, given[v], count, outcome.messages.get(v, ()))
        for v, count in counts.items()
        if given[v] < count
    }


def _release_request(world: World, wanted: str | Step) -> free.ReleaseRequest:
    fields: Step = {"ip": wanted} if isinstance(wanted, str) else wanted
    _refuse_others(fields, {"ip", "handle", "sequence", "sequenceOffset"})
    known = fields.get("sequence")
    sequence = world.sequences[known] if isinstance(known, str) else known
    if sequence is not None:
        sequence += fields.get("sequenceOffset", 0)
    return free.ReleaseRequest(_address(fields["ip"]), fields.get("handle"), sequence)


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValidationError(f"failed to parse IP: {error}") from None


def _cidr(step: Step) -> Cidr:
    try:
        return parse_cidr(step["cidr"])
    except ValueError as error:
        raise ValidationError(str(error)) from None


def _kind(step: Step) -> str:
    return str(step.get("affinityType", "host"))


def _attributes(found: dict[str, str] | None) -> dict[str, str] | None:
    """Owner attributes without what the engine itself adds; none at all is none."""
    return {k: v for k, v in (found or {}).items() if k not in CALLERS_OWN} or None


def _locate(world: World, address: Address) -> tuple[Block, int]:
    for block in world.read_state().blocks:
        if block.cidr.contains(address):
            return block, block.ordinal_of(address)
    raise LookupError(f"{address} lies in no block")


def _usages(found: tuple[Utilization, ...]) -> dict[str, dict[str, int]]:
    return {str(usage.cidr): _usage(usage) for usage in found}


def _usage(found: Utilization) -> dict[str, int]:
    return {
        "capacity": found.capacity,
        "inUse": found.in_use,
        "reserved": found.reserved,
        "available": found.free,
    }


def _pod(found: dict[str, str] | None) -> owner.AttributeOwner | None:
    return None if found is None else owner.AttributeOwner(found["name"], found["namespace"])


def _refuse_others(fields: Step, known: set[str]) -> None:
    unknown = fields.keys() - known
    if unknown:
        raise LookupError(f"fields that the runner does not know: {sorted(unknown)}")


def _detail(block: Block) -> dict[str, Any]:
    return {
        "affinity": block.affinity,
        "unallocated": len(block.unallocated),
        "unallocatedOrder": list(block.unallocated),
        "attributes": len(block.attributes),
    }


_ASSIGNING = {"node", "handle", "use", "attrs", "maxAllocPerHandle"}
_POOLS = {"pools4", "pools6", "hostReserved4", "hostReserved6"}

STEPS: dict[str, tuple[Callable[[World, Step], Answer], set[str]]] = {
    "auto_assign": (
        auto_assign,
        _ASSIGNING | _POOLS | {"num4", "num6", "maxBlocks", "namespace"},
    ),
    "assign_ip": (assign_ip, _ASSIGNING | {"ip"}),
    "ensure_block": (ensure_block, _POOLS | {"node", "use"}),
    "release_ips": (release_ips, {"ips"}),
    "release_by_handle": (release_by_handle, {"handle"}),
    "claim_affinity": (claim_affinity, {"node", "cidr", "affinityType"}),
    "release_affinity": (release_affinity, {"node", "cidr", "affinityType", "mustBeEmpty"}),
    "release_host_affinities": (release_host_affinities, {"node", "affinityType", "mustBeEmpty"}),
    "release_pool_affinities": (release_pool_affinities, {"cidr"}),
    "remove_host": (remove_host, {"node"}),
    "set_owner": (set_owner, {"ip", "handle", "updates", "preconditions"}),
    "get_attributes": (get_attributes, {"ip"}),
    "ips_by_handle": (ips_by_handle, {"handle"}),
    "set_config": (set_config, CONFIG_FIELDS),
    "get_config": (get_config, set()),
    "set_reservations": (set_reservations, {"cidrs"}),
    "apply_pool": (apply_pool, POOL_FIELDS | {"name", "status"}),
    "apply_node": (apply_node, {"node", "name", "labels"}),
    "delete_pool_object": (delete_pool_object, {"cidr", "name"}),
    "check_state": (check_state, set()),
    "utilization": (utilization, {"pools"}),
    "remember_sequence": (remember_sequence, {"ip", "as"}),
    "age_block": (age_block, {"cidr", "seconds"}),
    "sleep_ms": (sleep_ms, {"ms"}),
}
