"""The records of the allocation engine as Calico's custom resources hold them, and back.

A spec differs little from the JSON under the etcd key (facts: Calico 1.2 to 1.6), and the API
server sorts its fields. What comes back stands in the codec's order again, so that what the codec
wrote is the same to the byte. A spec also says what in etcd is said by the key, and is believed
rather than the object's name: nodes' names contain dashes, and those of handles lose their case.
"""

from __future__ import annotations

from _sha3 import sha3_256  # type: ignore[import-not-found,unused-ignore]

from cni_ipam.core.address import Cidr, parse_cidr
from cni_ipam.datastore import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Document = dict[str, Any]

V1 = "crd.projectcalico.org/v1"
V3 = "projectcalico.org/v3"
LONGEST_AFFINITY_NAME = 252
LABEL_TYPE = "projectcalico.org/affinity-type"
LABEL_HOST = "projectcalico.org/hostname-hash"
LABEL_VERSION = "projectcalico.org/ip-version"
# Selects affinities from before v3.31, which have no labels until they are written again.
UNLABELLED = f"!{LABEL_TYPE}"

_BLOCK_ORDER = (
    *("cidr", "affinity", "affinity_claim_time", "allocations", "unallocated", "attributes"),
    *("sequenceNumber", "sequenceNumberForAllocation", "deleted"),
)
# Fields of a block that etcd spells differently or lacks.
_BLOCK_SPELLINGS = ("affinityClaimTime", "strictAffinity")
_ATTRIBUTE_ORDER = ("handle_id", "secondary", "alternateOwnerAttrs", "releasedAt")
_AFFINITY_FIELDS = ("state", "node", "type", "cidr", "deleted")
# How a field of the settings is spelled in etcd, where that differs, in the order there.
_CONFIG_FIELDS = {
    "strictAffinity": "strict_affinity",
    "autoAllocateBlocks": "auto_allocate_blocks",
    "maxBlocksPerHost": "maxBlocksPerHost",
    "kubeVirtVMAddressPersistence": "kubeVirtVMAddressPersistence",
    "ipCooldownSeconds": "ipCooldownSeconds",
}
_DASHES = str.maketrans(".:/", "---")
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def block_name(cidr: Cidr) -> str:
    """The name of a block's object."""
    return str(cidr).translate(_DASHES)


def affinity_name(host: str, cidr: Cidr) -> str:
    """The name of an affinity's object; a long one is cut, and told apart by a hash."""
    tail = block_name(cidr)
    name = f"{host}-{tail}"
    if len(name) <= LONGEST_AFFINITY_NAME:
        return name
    kept = host[: LONGEST_AFFINITY_NAME - len(tail) - 13]
    return f"{kept}-{tail}-{_sha256(f'{host}+{tail}')[:11]}"


def hash_host(host: str) -> str:
    """The host's name as the value of a label: base32 of its SHA3-256, without padding."""
    value = int.from_bytes(sha3_256(host.encode()).digest(), "big") << 4
    return "".join([_BASE32[value >> shift & 31] for shift in range(255, -5, -5)])


def affinity_labels(kind: str, host: str, version: int | None = None) -> dict[str, str]:
    """The labels by which a host's affinities, of one family or of both, are found."""
    labels = {LABEL_TYPE: kind, LABEL_HOST: hash_host(host)}
    return labels if version is None else {**labels, LABEL_VERSION: str(version)}


def is_labelled(found: Document) -> bool:
    """Whether lists by labels can find this object of an affinity."""
    labels = (found.get("metadata") or {}).get("labels") or {}
    return all(label in labels for label in (LABEL_TYPE, LABEL_HOST, LABEL_VERSION))


def write_block(key: str, value: Document, _group: str) -> Document:
    """The spec of a block."""
    cidr = _read_cidr(value)
    if keys.block_key(cidr) != key:
        raise ValueError(f"{key} is not the key of the block {cidr}")
    spec = {
        "affinityClaimTime" if name == "affinity_claim_time" else name: value[name]
        for name in _BLOCK_ORDER
        if name in value
    }
    if spec.get("affinity") is None:
        spec.pop("affinity", None)
    if spec.get("attributes", "") is None:
        spec["attributes"] = []
    spec["deleted"] = False
    spec["strictAffinity"] = False
    return {**spec, **_rest(value, (*_BLOCK_ORDER, *_BLOCK_SPELLINGS))}


def read_block(name: str, spec: Document) -> tuple[str, Document]:
    """Key and value of a block. Its owner is `affinity` alone: the field before it never was
    in these objects."""
    cidr = _read_cidr(spec)
    _check_name(name, block_name(cidr), f"the block {cidr}")
    found = {"affinity": None, **spec}
    if "affinityClaimTime" in spec:
        found["affinity_claim_time"] = spec["affinityClaimTime"]
    found["deleted"] = False
    if isinstance(spec.get("attributes"), list):
        found["attributes"] = [_sort_attribute(attribute) for attribute in spec["attributes"]]
    known = {field: found[field] for field in _BLOCK_ORDER if field in found}
    others = _rest(spec, (*_BLOCK_ORDER, *_BLOCK_SPELLINGS))
    return keys.block_key(cidr), {**known, **others}


def write_affinity(key: str, value: Document, group: str) -> Document:
    """The spec of an affinity."""
    named = keys.find_affinity(key)
    if named is None:
        raise ValueError(f"{key} is not the key of an affinity")
    kind, host, cidr = named
    return {
        "state": value.get("state") or "",
        "node": host,
        "type": kind,
        "cidr": str(cidr),
        "deleted": spell_deleted("BlockAffinity", group, is_deleted=False),
        **_rest(value, _AFFINITY_FIELDS),
    }


def read_affinity(name: str, spec: Document) -> tuple[str, Document]:
    """Key and value of an affinity; one without a type is a host's, from long ago."""
    cidr = _read_cidr(spec)
    host = _read_text(spec, "node")
    kind = spec.get("type") or "host"
    if kind not in ("host", "virtual"):
        raise ValueError(f"the type {kind!r:.60} is neither host nor virtual")
    if "/" in host:
        raise ValueError(f"the node {host!r:.60} holds a slash")
    _check_name(name, affinity_name(host, cidr), f"the affinity of {host} to {cidr}")
    value = {"state": spec.get("state") or "", "deleted": False}
    return keys.affinity_key(host, cidr, kind), {**value, **_rest(spec, _AFFINITY_FIELDS)}


def write_handle(key: str, value: Document, _group: str) -> Document:
    """The spec of a handle."""
    return {
        "handleID": key[len(keys.HANDLES) :],
        "block": value.get("block") or {},
        "deleted": False,
        **_rest(value, ("handleID", "block", "deleted")),
    }


def read_handle(name: str, spec: Document) -> tuple[str, Document]:
    """Key and value of a handle: its case is that of the spec."""
    handle_id = _read_text(spec, "handleID")
    if "/" in handle_id:
        raise ValueError(f"the handleID {handle_id!r:.60} holds a slash")
    _check_name(name, handle_id.lower(), f"the handle {handle_id}")
    value = {"block": spec.get("block") or {}, "deleted": False}
    return keys.handle_key(handle_id), {**value, **_rest(spec, ("handleID", "block", "deleted"))}


def write_config(_key: str, value: Document, _group: str) -> Document:
    """The spec of the settings: the first two are always there."""
    spec = {field: value[etcd] for field, etcd in _CONFIG_FIELDS.items() if etcd in value}
    known = (*_CONFIG_FIELDS, *_CONFIG_FIELDS.values(), "deleted")
    return {"strictAffinity": False, "autoAllocateBlocks": False, **spec, **_rest(value, known)}


def read_config(_name: str, spec: Document) -> tuple[str, Document]:
    """Key and value of the settings; as in etcd, what is false, 0 or empty is left out."""
    known = {etcd: spec[field] for field, etcd in _CONFIG_FIELDS.items() if spec.get(field)}
    return keys.CONFIG, {**known, **_rest(spec, (*_CONFIG_FIELDS, "deleted"))}


def spell_deleted(kind: str, group: str, *, is_deleted: bool) -> bool | str:
    """The field `deleted`, which is a text in the affinities of the older group."""
    if kind == "BlockAffinity" and group == V1:
        return "true" if is_deleted else "false"
    return is_deleted


def read_deleted(spec: Document) -> bool:
    """Whether `deleted` says so, as a boolean or as a text that Go reads as one."""
    deleted = spec.get("deleted")
    if deleted in ("1", "t", "T", "true", "TRUE", "True") or deleted is True:
        return True
    if deleted in (None, "", "0", "f", "F", "false", "FALSE", "False") or deleted is False:
        return False
    raise ValueError(f"the field deleted holds {deleted!r:.60}, which is neither true nor false")


def _sha256(text: str) -> str:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    return str(sha256(text.encode()).hexdigest())


def _sort_attribute(attribute: Any) -> Any:
    if not isinstance(attribute, dict):
        return attribute
    known = {field: attribute[field] for field in _ATTRIBUTE_ORDER if field in attribute}
    return {**known, **_rest(attribute, _ATTRIBUTE_ORDER)}


def _read_cidr(spec: Document) -> Cidr:
    return parse_cidr(_read_text(spec, "cidr"))


def _read_text(spec: Document, name: str) -> str:
    text = spec.get(name)
    if not isinstance(text, str) or not text:
        raise ValueError(f"the field {name} holds {text!r:.60}, not a text")
    return text


def _check_name(name: str, right: str, what: str) -> None:
    if name != right:
        raise ValueError(f"its spec is of {what}, whose object is named {right}")


def _rest(fields: Document, known: Iterable[str]) -> Document:
    """What only a newer peer knows."""
    return {name: value for name, value in fields.items() if name not in known}
