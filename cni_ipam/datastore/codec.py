"""Records to and from the JSON that lies in the datastore. The only place that knows its spelling.

Fields come in the order in which Calico writes them. Fields that we do not know are
kept in `extra` and written back, so that a newer peer loses nothing when we rewrite its record.
Whatever cannot be understood raises CorruptRecord, which names the key.
"""

from __future__ import annotations

from cni_ipam.core.address import Cidr, parse_cidr
from cni_ipam.core.affinity import CONFIRMED, PENDING, PENDING_DELETION, Affinity
from cni_ipam.core.block import Attribute, Block
from cni_ipam.core.check import check_block
from cni_ipam.core.config import IpamConfig
from cni_ipam.core.handle import Handle
from cni_ipam.core.moment import rfc3339
from cni_ipam.core.pool import DEFAULT_BLOCK_SIZE, DEFAULT_USES, Pool
from cni_ipam.core.reservation import parse_reserved
from cni_ipam.datastore import keys
from cni_ipam.errors import CorruptRecord
from cni_ipam.lean import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    from cni_ipam.datastore.port import Entry

    Document = dict[str, Any]
    T = TypeVar("T")

API_VERSION = "projectcalico.org/v3"
_UINT64 = 1 << 64
# How an adapter hands on, as a value, why what it found is no record.
NO_RECORD = "not a record: "
# The fields of an IPPool's spec in Calico's order.
POOL_FIELDS = (
    *("cidr", "vxlanMode", "ipipMode", "natOutgoing", "disabled", "disableBGPExport", "blockSize"),
    *("nodeSelector", "namespaceSelector", "allowedUses", "assignmentMode"),
)
# How fields of IPAMConfiguration are spelled under the settings' key, where that differs.
CONFIG_SPELLINGS = {
    "strictAffinity": "strict_affinity",
    "autoAllocateBlocks": "auto_allocate_blocks",
}


def decode_document(entry: Entry) -> Document:
    """The JSON object under a key; a legacy empty value is an empty object."""
    if not entry.value:
        return {}
    if entry.value.startswith(NO_RECORD):
        raise _corrupt(entry, f"is {entry.value}")
    try:
        document = json.loads(entry.value)
    except ValueError as error:
        raise _corrupt(entry, f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _corrupt(entry, "is not a JSON object")
    return document


def decode_block(entry: Entry) -> Block:
    """The block under a key, sound in itself; a block that is not is refused, never repaired."""
    fields = decode_document(entry)
    try:
        block = _block(fields)
        problems = check_block(block)
    except ValueError as error:
        raise _corrupt(entry, f"is not a block: {error}") from None
    if problems:
        raise _corrupt(entry, f"is not a sound block: {'; '.join(problems)}")
    if keys.block_key(block.cidr) != entry.key:
        raise _corrupt(entry, f"holds block {block.cidr}")
    return block


def _block(fields: Document) -> Block:
    allocations = _take(fields, "allocations", list)
    # An empty list of Go's may be null: no attributes as yet, or nothing left in the queue.
    for name in ("attributes", "unallocated"):
        if fields.get(name, "") is None:
            fields[name] = []
    return Block(
        cidr=parse_cidr(_take(fields, "cidr", str)),
        affinity=_owner(fields),
        claim_time=_take(fields, "affinity_claim_time", str, None),
        allocations=tuple(
            [None if i is None else _checked(i, int, "allocation") for i in allocations]
        ),
        unallocated=tuple(_take_all(fields, "unallocated", int)),
        attributes=tuple([_attribute(a) for a in _take_all(fields, "attributes", dict)]),
        sequence_number=_uint64(_take(fields, "sequenceNumber", int, 0)),
        allocation_sequence=_sequence(fields, allocations),
        extra=_extra(fields),
    )


def encode_block(block: Block) -> str:
    """The block as Calico keeps it in etcd."""
    fields: Document = {"cidr": str(block.cidr), "affinity": block.affinity}
    if block.claim_time is not None:
        fields["affinity_claim_time"] = block.claim_time
    fields["allocations"] = list(block.allocations)
    fields["unallocated"] = list(block.unallocated)
    fields["attributes"] = [_encode_attribute(attribute) for attribute in block.attributes]
    fields["sequenceNumber"] = block.sequence_number % _UINT64  # Go's wraps
    sequence = {str(ordinal): number for ordinal, number in block.allocation_sequence.items()}
    fields["sequenceNumberForAllocation"] = dict(sorted(sequence.items()))
    fields["deleted"] = False
    return json.dumps({**fields, **(block.extra or {})})


def _owner(fields: Document) -> str | None:
    """The owner. Only blocks of long ago have no field `affinity`; theirs is `hostAffinity`, which
    is kept and means nothing any more once the other field is there."""
    host = fields.get("hostAffinity")
    if "affinity" not in fields and host:
        return f"host:{_checked(host, str, 'hostAffinity')}"
    affinity: str = _take(fields, "affinity", str, "")
    return affinity or None


def _sequence(fields: Document, allocations: list[object]) -> dict[int, int]:
    """Numbers per allocated ordinal; older releases left entries of freed ordinals behind."""
    found = _take(fields, "sequenceNumberForAllocation", dict, {})
    numbers = {int(o): _uint64(_checked(n, int, "sequence number")) for o, n in found.items()}
    used = {ordinal for ordinal, index in enumerate(allocations) if index is not None}
    return {ordinal: number for ordinal, number in numbers.items() if ordinal in used}


def _uint64(number: int) -> int:
    """The number, which Calico must be able to hold, too."""
    if not 0 <= number < _UINT64:
        raise ValueError(f"{number} is no sequence number: it has 64 bits and no sign")
    return number


def _attribute(found: Document) -> Attribute:
    fields = dict(found)
    return Attribute(
        handle_id=_take(fields, "handle_id", str, None),
        secondary=_take_texts(fields, "secondary"),
        alternate=_take_texts(fields, "alternateOwnerAttrs"),
        released_at=_take(fields, "releasedAt", str, None),
        extra=fields or None,
    )


def _encode_attribute(attribute: Attribute) -> Document:
    fields: Document = {}
    if attribute.handle_id is not None:
        fields["handle_id"] = attribute.handle_id
    if attribute.secondary:
        fields["secondary"] = dict(sorted(attribute.secondary.items()))
    if attribute.alternate:
        fields["alternateOwnerAttrs"] = dict(sorted(attribute.alternate.items()))
    if attribute.released_at is not None:
        fields["releasedAt"] = attribute.released_at
    return {**fields, **(attribute.extra or {})}


def decode_affinity(entry: Entry) -> Affinity:
    """The affinity under a key; an empty state is a legacy one and means confirmed."""
    named = keys.find_affinity(entry.key)
    if named is None:
        raise _corrupt(entry, "is not the key of an affinity")
    fields = decode_document(entry)
    state = fields.pop("state", None)
    if state is None:
        state = ""
    if state not in ("", PENDING, CONFIRMED, PENDING_DELETION):
        raise _corrupt(entry, f"has the unknown state {state!r}")
    return Affinity(*named, state=state, extra=_extra(fields))


def encode_affinity(affinity: Affinity) -> str:
    """The value of an affinity's key."""
    fields: Document = {"state": affinity.state, "deleted": False}
    return json.dumps({**fields, **(affinity.extra or {})})


def decode_handle(entry: Entry) -> Handle:
    """The handle under a key."""
    fields = decode_document(entry)
    try:
        found = _take(fields, "block", dict, {})
        blocks = {parse_cidr(cidr): _checked(n, int, "count") for cidr, n in found.items()}
    except ValueError as error:
        raise _corrupt(entry, f"is not a handle: {error}") from None
    return Handle(entry.key[len(keys.HANDLES) :], blocks, _extra(fields))


def encode_handle(handle: Handle) -> str:
    """The value of a handle's key."""
    blocks = {str(cidr): count for cidr, count in handle.blocks.items()}
    fields: Document = {"block": dict(sorted(blocks.items())), "deleted": False}
    return json.dumps({**fields, **(handle.extra or {})})


def decode_config(entry: Entry | None) -> IpamConfig:
    """The settings; absent means the defaults, `{}` means no new blocks (Calico's omitempty)."""
    if entry is None:
        return IpamConfig()
    return _config(entry, decode_document(entry))


def decode_config_resource(entry: Entry, standing: IpamConfig) -> IpamConfig:
    """The settings as the resource IPAMConfiguration states them, which in etcd is a key of its
    own (facts: Calico 1.6); what it leaves out is as in `standing`."""
    try:
        spec = _take(decode_document(entry), "spec", dict, {})
    except ValueError as error:
        raise _corrupt(entry, f"is not an IPAMConfiguration: {error}") from None
    stated = {CONFIG_SPELLINGS.get(k, k): v for k, v in spec.items() if v is not None}
    return _config(entry, {**json.loads(encode_config(standing)), **stated})


def _config(entry: Entry, fields: Document) -> IpamConfig:
    try:
        return IpamConfig(
            strict_affinity=_take(fields, "strict_affinity", bool, False),
            auto_allocate_blocks=_take(fields, "auto_allocate_blocks", bool, False),
            max_blocks_per_host=_take(fields, "maxBlocksPerHost", int, 0),
            cooldown_seconds=_take(fields, "ipCooldownSeconds", int, 0),
            vm_persistence=_take(fields, "kubeVirtVMAddressPersistence", str, ""),
            extra=_extra(fields),
        )
    except ValueError as error:
        raise _corrupt(entry, f"is not an IPAMConfig: {error}") from None


def decode_found_config(found: Sequence[Entry]) -> IpamConfig:
    """The settings, given what was found under their key: one entry, or none."""
    return decode_config(found[0] if found else None)


def encode_config(config: IpamConfig) -> str:
    """The value of the settings' key. As Calico, it leaves out what is false, 0 or empty:
    that is unambiguous, since whoever reads takes an absent field for just that."""
    fields: Document = {
        "strict_affinity": config.strict_affinity,
        "auto_allocate_blocks": config.auto_allocate_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
        "kubeVirtVMAddressPersistence": config.vm_persistence,
        "ipCooldownSeconds": config.cooldown_seconds,
    }
    return json.dumps({**{k: v for k, v in fields.items() if v}, **(config.extra or {})})


def decode_pool(entry: Entry) -> Pool:
    """The IPPool under a key, with the defaults that Calico applies whenever it reads one."""
    document = decode_document(entry)
    try:
        spec, metadata = _take(document, "spec", dict), _take(document, "metadata", dict)
        cidr = parse_cidr(_take(spec, "cidr", str))
        return Pool(
            name=_take(metadata, "name", str),
            cidr=cidr,
            block_size=_take(spec, "blockSize", int, 0) or DEFAULT_BLOCK_SIZE[cidr.version],
            disabled=_take(spec, "disabled", bool, False),
            deleting=bool(_take(metadata, "deletionTimestamp", str, "")),
            allocatable=not _refuses(document),
            node_selector=_take(spec, "nodeSelector", str, "") or "all()",
            namespace_selector=_take(spec, "namespaceSelector", str, ""),
            allowed_uses=tuple(_take_all(spec, "allowedUses", str, [])) or DEFAULT_USES,
            assignment_mode=_take(spec, "assignmentMode", str, "") or "Automatic",
        )
    except ValueError as error:
        raise _corrupt(entry, f"is not an IPPool: {error}") from None


def _refuses(document: Document) -> bool:
    conditions = _take_all(_take(document, "status", dict, {}), "conditions", dict, [])
    return any((c.get("type"), c.get("status")) == ("Allocatable", "False") for c in conditions)


def decode_reservation(entry: Entry) -> list[Cidr]:
    """The CIDRs of an IPReservation; texts that name none are skipped, as Calico does."""
    document = decode_document(entry)
    try:
        texts = _take_all(_take(document, "spec", dict, {}), "reservedCIDRs", str, [])
    except ValueError as error:
        raise _corrupt(entry, f"is not an IPReservation: {error}") from None
    return [cidr for cidr in map(parse_reserved, texts) if cidr is not None]


def decode_labels(entry: Entry) -> dict[str, str]:
    """The labels of a resource."""
    document = decode_document(entry)
    try:
        return _take_texts(_take(document, "metadata", dict, {}), "labels") or {}
    except ValueError as error:
        raise _corrupt(entry, f"has no labels that can be read: {error}") from None


def is_ready(entry: Entry | None) -> bool:
    """Whether ClusterInformation lets ADD work: `datastoreReady` is not false."""
    document = {} if entry is None else decode_document(entry)
    try:
        return _take(_take(document, "spec", dict, {}), "datastoreReady", bool, True) is True
    except ValueError as error:
        raise CorruptRecord(keys.CLUSTER_INFORMATION, f"cannot be read: {error}") from None


def decode_all(
    decode: Callable[[Entry], T], entries: Iterable[Entry], faults: list[CorruptRecord]
) -> list[T]:
    """The records that can be understood; the others are added to `faults`."""
    decoded = []
    for entry in entries:
        try:
            decoded.append(decode(entry))
        except CorruptRecord as fault:
            faults.append(fault)
    return decoded


def new_metadata(kind: str, name: str, now: int, seed: bytes) -> Document:
    """Metadata of a resource made now; its UID (a v4 one) comes from `seed`, 16 random bytes,
    and differs for each kind and name. Without a UID and a creation time Calico's clients could
    not update the resource."""
    text = new_guid(f"{kind}/{name}", seed)
    uid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return {"name": name, "uid": uid, "creationTimestamp": rfc3339(now)}


def new_guid(purpose: str, seed: bytes) -> str:
    """A v4 UUID without dashes, from 16 random bytes; another one for each purpose."""
    value = bytearray(seed[:16])
    for place, byte in enumerate(purpose.encode()):
        value[place % 16] = (value[place % 16] * 33 + byte) & 0xFF
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    return value.hex()


def new_resource(kind: str, name: str, spec: Mapping[str, object], now: int, seed: bytes) -> str:
    """A v3 resource made now, as calicoctl keeps it in etcd."""
    metadata = new_metadata(kind, name, now, seed)
    fields = {"kind": kind, "apiVersion": API_VERSION, "metadata": metadata, "spec": dict(spec)}
    if kind == "Node":
        # The one kind whose status Go cannot leave out.
        fields["status"] = {}
    return json.dumps(fields)


def _corrupt(entry: Entry, text: str) -> CorruptRecord:
    return CorruptRecord(entry.key, text)


def _extra(fields: Document) -> Document | None:
    fields.pop("deleted", None)
    return fields or None


_REQUIRED = object()


def _take(fields: Document, name: str, kind: type, default: Any = _REQUIRED) -> Any:
    """Remove and return a field of the given JSON type; null counts as absent."""
    value = fields.pop(name, None)
    if value is not None:
        return _checked(value, kind, name)
    if default is _REQUIRED:
        raise ValueError(f'"{name}" is missing')
    return default


def _take_texts(fields: Document, name: str) -> dict[str, str] | None:
    found: dict[str, str] | None = _take(fields, name, dict, None)
    return found and {key: _checked(value, str, name) for key, value in found.items()}


def _take_all(fields: Document, name: str, kind: type, default: Any = _REQUIRED) -> list[Any]:
    return [_checked(item, kind, name) for item in _take(fields, name, list, default)]


def _checked(value: object, kind: type, name: str) -> Any:
    """`value`, if it has exactly that type: for JSON, true is not a number."""
    if type(value) is not kind:
        raise ValueError(f'"{name}" holds {value!r:.60}, which is no {_KINDS[kind]}')
    return value


_KINDS = {str: "string", int: "integer", bool: "boolean", list: "list", dict: "object"}
