"""Records to and from the JSON that lies in the datastore. The only place that knows its spelling.

Fields come in the order in which Calico writes them. Fields that we do not know are
kept in `extra` and written back, so that a newer peer loses nothing when we rewrite its record.
Whatever cannot be understood raises CorruptRecord, which names the key.
"""

from __future__ import annotations

from cni_ipam.core.address import Cidr, parse_cidr
from cni_ipam.core.affinity import Affinity
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
    from collections.abc import Mapping
    from typing import Any

    from cni_ipam.datastore.port import Entry

    Document = dict[str, Any]

API_VERSION = "projectcalico.org/v3"


def decode_document(entry: Entry) -> Document:
    """The JSON object under a key; a legacy empty value is an empty object."""
    if not entry.value:
        return {}
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
        allocations = fields.pop("allocations")
        block = Block(
            cidr=parse_cidr(fields.pop("cidr")),
            affinity=_affinity_text(fields),
            claim_time=_optional_text(fields.pop("affinity_claim_time", None)),
            allocations=tuple(allocations),
            unallocated=tuple(fields.pop("unallocated")),
            attributes=tuple([_decode_attribute(a) for a in fields.pop("attributes") or ()]),
            sequence_number=_integer(fields.pop("sequenceNumber", 0)),
            allocation_sequence=_decode_sequence(fields, allocations),
            extra=_extra(fields),
        )
        _check_integers(block.unallocated)
        _check_integers([index for index in block.allocations if index is not None])
        problems = check_block(block)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(entry, f"is not a block: {type(error).__name__}: {error}") from None
    if problems:
        raise _corrupt(entry, f"is not a sound block: {'; '.join(problems)}")
    if keys.block_key(block.cidr) != entry.key:
        raise _corrupt(entry, f"holds block {block.cidr}")
    return block


def encode_block(block: Block) -> str:
    """The block as Calico keeps it in etcd."""
    fields: Document = {"cidr": str(block.cidr), "affinity": block.affinity}
    if block.claim_time is not None:
        fields["affinity_claim_time"] = block.claim_time
    fields["allocations"] = list(block.allocations)
    fields["unallocated"] = list(block.unallocated)
    fields["attributes"] = [_encode_attribute(attribute) for attribute in block.attributes]
    fields["sequenceNumber"] = block.sequence_number
    sequence = {str(ordinal): number for ordinal, number in block.allocation_sequence.items()}
    fields["sequenceNumberForAllocation"] = dict(sorted(sequence.items()))
    fields["deleted"] = False
    return json.dumps({**fields, **(block.extra or {})})


def _affinity_text(fields: Document) -> str | None:
    """The owner; blocks of long ago hold it as `hostAffinity`, which is never written."""
    affinity = _optional_text(fields.pop("affinity", None))
    legacy = fields.get("hostAffinity")
    if affinity is None and isinstance(legacy, str) and legacy:
        fields.pop("hostAffinity")
        return f"host:{legacy}"
    return affinity or None


def _decode_sequence(fields: Document, allocations: list[object]) -> dict[int, int]:
    """Numbers per allocated ordinal; older releases left entries of freed ordinals behind."""
    found = fields.pop("sequenceNumberForAllocation", None) or {}
    numbers = {int(ordinal): _integer(number) for ordinal, number in found.items()}
    return {o: n for o, n in numbers.items() if 0 <= o < len(allocations) and allocations[o] is not None}


def _decode_attribute(fields: Document) -> Attribute:
    fields = dict(fields)
    return Attribute(
        handle_id=_optional_text(fields.pop("handle_id", None)),
        secondary=_optional_mapping(fields.pop("secondary", None)),
        released_at=_optional_text(fields.pop("releasedAt", None)),
        extra=fields or None,
    )


def _encode_attribute(attribute: Attribute) -> Document:
    fields: Document = {}
    if attribute.handle_id is not None:
        fields["handle_id"] = attribute.handle_id
    if attribute.secondary:
        fields["secondary"] = dict(sorted(attribute.secondary.items()))
    fields.update(attribute.extra or {})
    if attribute.released_at is not None:
        fields["releasedAt"] = attribute.released_at
    return fields


def decode_affinity(entry: Entry) -> Affinity:
    """The affinity under a key; an empty state is a legacy one and means confirmed."""
    named = keys.find_affinity(entry.key)
    if named is None:
        raise _corrupt(entry, "is not the key of an affinity")
    fields = decode_document(entry)
    state = fields.pop("state", "")
    if state not in ("", "pending", "confirmed", "pendingDeletion"):
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
        found = fields.pop("block", None) or {}
        blocks = {parse_cidr(cidr): _integer(count) for cidr, count in found.items()}
    except (TypeError, ValueError, AttributeError) as error:
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
    fields = decode_document(entry)
    try:
        return IpamConfig(
            strict_affinity=bool(fields.get("strict_affinity", False)),
            auto_allocate_blocks=bool(fields.get("auto_allocate_blocks", False)),
            max_blocks_per_host=_integer(fields.get("maxBlocksPerHost") or 0),
            cooldown_seconds=_integer(fields.get("ipCooldownSeconds") or 0),
        )
    except ValueError as error:
        raise _corrupt(entry, f"is not an IPAMConfig: {error}") from None


def decode_pool(entry: Entry) -> Pool:
    """The IPPool under a key, with the defaults that Calico applies whenever it reads one."""
    document = decode_document(entry)
    try:
        spec, metadata = document["spec"], document["metadata"]
        cidr = parse_cidr(spec["cidr"])
        return Pool(
            name=metadata["name"],
            cidr=cidr,
            block_size=_integer(spec.get("blockSize") or DEFAULT_BLOCK_SIZE[cidr.version]),
            disabled=bool(spec.get("disabled", False)),
            deleting=bool(metadata.get("deletionTimestamp")),
            allocatable=not _refuses(document),
            node_selector=spec.get("nodeSelector") or "all()",
            namespace_selector=spec.get("namespaceSelector") or "",
            allowed_uses=tuple(spec.get("allowedUses") or DEFAULT_USES),
            assignment_mode=spec.get("assignmentMode") or "Automatic",
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(entry, f"is not an IPPool: {type(error).__name__}: {error}") from None


def _refuses(document: Document) -> bool:
    conditions = (document.get("status") or {}).get("conditions") or ()
    return any(
        condition.get("type") == "Allocatable" and condition.get("status") == "False"
        for condition in conditions
    )


def decode_reservation(entry: Entry) -> list[Cidr]:
    """The CIDRs of an IPReservation; malformed entries are skipped, as Calico does."""
    spec = decode_document(entry).get("spec") or {}
    parsed = [parse_reserved(str(text)) for text in spec.get("reservedCIDRs") or ()]
    return [cidr for cidr in parsed if cidr is not None]


def decode_labels(entry: Entry) -> dict[str, str]:
    """The labels of a resource."""
    labels = (decode_document(entry).get("metadata") or {}).get("labels")
    return _optional_mapping(labels) or {}


def is_ready(entry: Entry | None) -> bool:
    """Whether ClusterInformation lets ADD work: `datastoreReady` is not false."""
    spec = {} if entry is None else decode_document(entry).get("spec") or {}
    return spec.get("datastoreReady") is not False


def new_metadata(kind: str, name: str, now: int, seed: bytes) -> Document:
    """Metadata of a resource made now; its UID (a v4 one) comes from `seed`, 16 random bytes,
    and differs for each kind and name. Without a UID and a creation time Calico's clients could
    not update the resource."""
    value = bytearray(seed[:16])
    for place, byte in enumerate(f"{kind}/{name}".encode()):
        value[place % 16] = (value[place % 16] * 33 + byte) & 0xFF
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    text = value.hex()
    uid = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    return {"name": name, "uid": uid, "creationTimestamp": rfc3339(now)}


def new_resource(kind: str, name: str, spec: Mapping[str, object], now: int, seed: bytes) -> str:
    """A v3 resource made now, as calicoctl keeps it in etcd."""
    metadata = new_metadata(kind, name, now, seed)
    return json.dumps(
        {"kind": kind, "apiVersion": API_VERSION, "metadata": metadata, "spec": dict(spec)}
    )


def _corrupt(entry: Entry, text: str) -> CorruptRecord:
    return CorruptRecord(entry.key, text)


def _extra(fields: Document) -> Document | None:
    fields.pop("deleted", None)
    return fields or None


def _integer(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not an integer")
    return value


def _check_integers(values: tuple[int, ...] | list[int]) -> None:
    for value in values:
        _integer(value)


def _optional_text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _optional_mapping(value: object) -> dict[str, str] | None:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    return value
