"""The keys of objects that are no records, as far as their names tell; imported only for these."""

from __future__ import annotations

from cni_ipam.core.address import Cidr, parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes_records import LABEL_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Document = dict[str, Any]


def name_key(found: Document, resource: str, prefix: str) -> str:
    """The key that an object would have if it were the record that it is named after; what it
    says of itself is believed only where the name agrees. What is named after no record is told
    by its name under `prefix`."""
    name = (found.get("metadata") or {}).get("name") or ""
    if resource == "ipamblocks":
        cidr = _find_cidr(name)
        return prefix + name if cidr is None else keys.block_key(cidr)
    if resource == "blockaffinities":
        return _name_affinity(found, name) or prefix + name
    if resource == "ipamhandles":
        said = _spec(found).get("handleID")
        return keys.HANDLES + (said if isinstance(said, str) and said.lower() == name else name)
    return prefix + name


def _name_affinity(found: Document, name: str) -> str | None:
    spec = _spec(found)
    labels = (found.get("metadata") or {}).get("labels") or {}
    is_virtual = "virtual" in (spec.get("type"), labels.get(LABEL_TYPE))
    parts = name.split("-")
    said = spec.get("node")
    for size in range(1, len(parts)):
        host, cidr = "-".join(parts[:size]), _find_cidr("-".join(parts[size:]))
        if cidr is not None and (said == host or not isinstance(said, str)):
            return keys.affinity_key(host, cidr, "virtual" if is_virtual else "host")
    return None if said is None else _name_affinity({**found, "spec": {**spec, "node": None}}, name)


def _find_cidr(name: str) -> Cidr | None:
    """The block that an object is named after: its CIDR with dashes."""
    address, _, prefix = name.rpartition("-")
    is_ipv4 = address.count("-") == 3 and address.replace("-", "").isdecimal()
    try:
        return parse_cidr(f"{address.replace('-', '.' if is_ipv4 else ':')}/{prefix}")
    except ValueError:
        return None


def _spec(found: Document) -> Document:
    spec = found.get("spec")
    return spec if isinstance(spec, dict) else {}
