"""What the plugin prints: results in the shape of each version, and errors.

The key order is that of the Go library's own printing, so under the name `calico-ipam` the text is
Calico's to the byte. Nothing else of the project knows these shapes.
"""

from __future__ import annotations

from cni_ipam.cni.fields import kind_of, shown
from cni_ipam.cni.version import NEWEST, OLDEST
from cni_ipam.core.address import Address, parse_address, parse_network
from cni_ipam.errors import NetconfError
from cni_ipam.lean.json import dumps_indented
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from cni_ipam.cni.fields import Json
    from cni_ipam.errors import CniIpamError

_ONE_PER_FAMILY = ("0.1.0", "0.2.0")
_WITH_FAMILY_FIELD = ("0.3.0", "0.3.1", "0.4.0")
_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


@record
class AssignedAddress:
    """An address as the pod gets it: with its prefix length, and a gateway or none."""

    address: Address
    prefix: int
    gateway: Address | None = None

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


@record
class PrevResult:
    """What an earlier plugin reported; interfaces as (name, sandbox).

    Beside each address the index of its interface, None if that is not told or points nowhere.
    """

    addresses: tuple[tuple[Address, int | None], ...]
    interfaces: tuple[tuple[str, str], ...]


def add_result(cni_version: str, assigned: Sequence[AssignedAddress]) -> Json:
    """The result of ADD, IPv4 before IPv6.

    An address with a gateway brings its family's default route; one without, Calico's route: the
    address itself, by which Calico's main plugin sees that routes are wanted.
    """
    ordered = sorted(assigned, key=lambda one: one.address.version)
    version = cni_version or OLDEST
    if version in _ONE_PER_FAMILY:
        return _result_of_one_per_family(version, ordered)
    with_family = version in _WITH_FAMILY_FIELD
    result: Json = {"cniVersion": version}
    if ordered:
        result["ips"] = [_ip(one, with_family=with_family) for one in ordered]
        result["routes"] = _routes(ordered)
    if with_family:
        result["dns"] = {}
    return result


def pass_through(prev_result: Json, cni_version: str) -> Json:
    """The result of a chained plugin that changed nothing: every field of `prev_result`.

    It is labelled with the configuration's version.
    """
    rest = {key: value for key, value in prev_result.items() if key != "cniVersion"}
    return {"cniVersion": cni_version, **rest}


def print_result(result: Json) -> str:
    """The text for stdout: four spaces of indent, no line end after it."""
    return dumps_indented(result)


def error_document(error: CniIpamError, cni_version: str = NEWEST) -> str:
    """The one document that a failure puts on stdout."""
    document: Json = {"cniVersion": cni_version, "code": error.code, "msg": error.msg}
    if error.details:
        document["details"] = error.details
    return dumps_indented(document)


def parse_prev_result(prev_result: Json) -> PrevResult:
    """Addresses and interfaces of a prevResult of any version. Raises NetconfError."""
    interfaces = tuple(
        (_text(item, "name"), _text(item, "sandbox"))
        for item in _objects(prev_result, "interfaces")
    )
    addresses = [
        (_address(item, "address"), _interface(item, len(interfaces)))
        for item in _objects(prev_result, "ips")
    ]
    for key in ("ip4", "ip6"):
        item = prev_result.get(key)
        if item is None:
            continue
        if not isinstance(item, dict):
            _refuse(key, item, "an object")
        addresses.append((_address(item, "ip"), None))
    return PrevResult(tuple(addresses), interfaces)


def _result_of_one_per_family(version: str, ordered: Sequence[AssignedAddress]) -> Json:
    result: Json = {"cniVersion": version}
    for one in ordered:
        key = f"ip{one.address.version}"
        if key not in result:
            result[key] = {"ip": str(one), **_gateway(one), "routes": _routes([one])}
    result["dns"] = {}
    return result


def _ip(one: AssignedAddress, *, with_family: bool) -> Json:
    family = {"version": str(one.address.version)} if with_family else {}
    return {**family, "address": str(one), **_gateway(one)}


def _gateway(one: AssignedAddress) -> Json:
    return {} if one.gateway is None else {"gateway": str(one.gateway)}


def _routes(ordered: Sequence[AssignedAddress]) -> list[Json]:
    targets = [
        str(one) if one.gateway is None else _DEFAULT_ROUTES[one.address.version] for one in ordered
    ]
    return [{"dst": target} for target in dict.fromkeys(targets)]


def _objects(prev_result: Json, key: str) -> list[Json]:
    items = prev_result.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        _refuse(key, items, "a list")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            _refuse(f"{key}[{index}]", item, "an object")
    return items


def _text(item: Json, key: str) -> str:
    value = item.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(key, value, "a string")
    return value


def _address(item: Json, key: str) -> Address:
    text = _text(item, key)
    try:
        return parse_network(text)[0] if "/" in text else parse_address(text)
    except ValueError:
        _refuse(key, text, 'an address such as "10.0.0.2/24"')


def _interface(item: Json, count: int) -> int | None:
    """Some plugins write -1, or leave the index out."""
    index = item.get("interface")
    if index is None:
        return None
    if isinstance(index, bool) or not isinstance(index, (int, float)) or index % 1:
        _refuse("interface", index, "the index of an interface")
    return int(index) if 0 <= index < count else None


def _refuse(key: str, value: object, right: str) -> NoReturn:
    message = f'could not parse prevResult: "{key}" is {shown(key, value)}, but must be {right}'
    raise NetconfError(message, f"an earlier plugin of the list gave this {kind_of(value)}")
