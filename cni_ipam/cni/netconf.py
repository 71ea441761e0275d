"""The network configuration of one call, read and checked as a whole.

Checks come in the reference library's order: JSON, network name, version, then the rest. DEL takes
defaults where a wish cannot be read: what is wrong there was wrong at ADD too, so there is nothing
that it would have decided, and a DEL that fails is asked again for ever.
"""

from __future__ import annotations

from cni_ipam.cni.fields import (
    NO_FIELDS,
    Fields,
    decode_object,
    get_key,
    kind_of,
    match_key,
    refuse,
)
from cni_ipam.cni.request import is_cni_name
from cni_ipam.cni.settings import (
    DatastoreSettings,
    LogSettings,
    find_node_name,
    parse_datastore,
    parse_lock_file,
    parse_log,
)
from cni_ipam.cni.version import OLDEST, check_version
from cni_ipam.core.address import Address, parse_address, parse_cidr, parse_network
from cni_ipam.errors import DecodeError, NetconfError, NetworkNameInvalid
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record
from cni_ipam.routes.plan import MAIN_TABLE, RouteSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from cni_ipam.cni.fields import Json
    from cni_ipam.cni.request import Environ, Request

    T = TypeVar("T")

__all__ = ["DatastoreSettings", "DefaultPool", "LogSettings", "Netconf", "parse_netconf"]

OUR_NAME = "cni-ipam"
CALICO_NAME = "calico-ipam"

_FOREIGN_PROTOCOLS = {
    0: "the kernel",
    1: "the kernel",
    2: "the kernel",
    3: "the kernel",
    4: "static routes",
    12: "BIRD",
    80: "Felix",
}
_MASKS = ("pool", "block", "host")


@record
class DefaultPool:
    """A pool to be made once: its name and its spec, not yet checked but for the CIDR."""

    name: str
    spec: Json


@record
class Netconf:
    """What the network configuration asks for, with every default filled in.

    `type` is the plugin that the runtime started: an interface plugin, or us if `chained`.
    `attachments` are (container id, ifname) pairs, None if GC was told of none. `pod_annotations`
    are those that the runtime passes, None if it passes none; `ip_addrs_no_ipam` and `floating_ips`
    are Calico's feature switches for the annotations of those names.
    """

    cni_version: str
    name: str
    type: str
    chained: bool
    ipv4: bool
    ipv6: bool
    ipv4_pools: tuple[str, ...]
    ipv6_pools: tuple[str, ...]
    requested: tuple[Address, ...]
    default_pools: tuple[DefaultPool, ...]
    create_default_pools: bool
    gateway: str | Address
    mask: str
    routes: RouteSettings
    agent: str
    status_when_unreachable: bool
    status_when_exhausted: bool
    lock_file: str
    lock_timeout_seconds: float
    node_name: str
    datastore: DatastoreSettings
    log: LogSettings
    prev_result: Json | None
    attachments: tuple[tuple[str, str], ...] | None
    pod_annotations: Json | None
    heeds_annotations: bool
    ip_addrs_no_ipam: bool
    floating_ips: bool
    called_as: str


def parse_netconf(request: Request, called_as: str, environ: Environ) -> Netconf:
    """The configuration on the request's stdin, for the program `called_as`.

    Raises DecodeError, VersionError, NetconfError, UnsupportedError, EnvironmentInvalid,
    InputOutputError.
    """
    conf = decode_object(request.stdin)
    name = _network_name(conf)
    version = _cni_version(conf)
    check_version(version, request.command)
    ipam = _ipam(conf, request.command)
    fields = Fields((("ipam.", ipam), ("", conf)))
    ours = called_as != CALICO_NAME

    def wish(parse: Callable[[Fields], T], source: Fields = fields) -> T:
        try:
            return parse(source)
        except NetconfError:
            if request.command != "DEL":
                raise
            return parse(NO_FIELDS)

    for_removal = request.command == "DEL"
    datastore = parse_datastore(
        fields,
        environ,
        embedded=ours,
        for_removal=for_removal,
        reads_annotations=request.command == "ADD",
    )
    gateway, mask = wish(lambda source: _gateway_and_mask(source, ours=ours))
    return Netconf(
        cni_version=version,
        name=name,
        type=wish(lambda source: source.text("type"), Fields((("", conf),))),
        chained=is_chained(conf, ipam),
        **wish(_families, Fields((("ipam.", ipam),))),
        requested=wish(_requested, Fields((("", conf),))),
        default_pools=wish(_default_pools),
        gateway=gateway,
        mask=mask,
        routes=wish(lambda source: parse_routes(source, ours=ours)),
        agent=wish(_agent),
        **wish(_switches),
        lock_file=wish(lambda source: parse_lock_file(source, datastore)),
        lock_timeout_seconds=wish(lambda source: source.seconds("ipam_lock_timeout", 60.0)),
        node_name=find_node_name(fields, for_removal=for_removal),
        datastore=datastore,
        log=wish(parse_log),
        prev_result=wish(_prev_result, Fields((("", conf),))),
        attachments=_attachments(conf) if request.command == "GC" else None,
        **wish(lambda source: _annotations(source, called_as), Fields((("", conf),))),
        called_as=called_as,
    )


def _network_name(conf: Json) -> str:
    name = get_key(conf, "name")
    if name is None or name == "":
        message = "missing network name"
        raise NetworkNameInvalid(message, '"name" must be the name of the network')
    if not isinstance(name, str):
        message = (
            f"error unmarshall network config: json: cannot unmarshal {kind_of(name)} "
            "into Go struct field .name of type string"
        )
        raise DecodeError(message)
    if not is_cni_name(name):
        message = "invalid characters found in network name"
        raise NetworkNameInvalid(
            message,
            f'"name" is {quote_ascii(name[:80])}: it must begin with a letter or a digit '
            "and hold only letters, digits, '_', '.' and '-'",
        )
    return name


def _cni_version(conf: Json) -> str:
    version = get_key(conf, "cniVersion")
    if version is not None and not isinstance(version, str):
        message = (
            f"decoding version from network config: json: cannot unmarshal {kind_of(version)} "
            "into Go struct field .cniVersion of type string"
        )
        raise DecodeError(message)
    return version or OLDEST


def _ipam(conf: Json, command: str) -> Json:
    """The `ipam` object. ADD as a delegate cannot do without it and its type; others can."""
    ipam = get_key(conf, "ipam")
    if not isinstance(ipam, dict):
        if command == "ADD" and (ipam is not None or not is_chained(conf, {})):
            refuse("ipam", ipam, f'an object with "type": "{OUR_NAME}"')
        return {}
    kind = get_key(ipam, "type")
    if command == "ADD" and not (kind and isinstance(kind, str)) and not is_chained(conf, ipam):
        refuse("ipam.type", kind, f'the name of the IPAM plugin, "{OUR_NAME}"')
    return ipam


def is_chained(conf: Json, ipam: Json) -> bool:
    """Whether the netconf is that of a plugin of its own, not of another's IPAM."""
    delegate = get_key(ipam, "type") in (OUR_NAME, CALICO_NAME)
    return get_key(conf, "type") == OUR_NAME and not delegate


def _families(ipam: Fields) -> dict[str, Any]:
    """Calico: IPv4 unless `assign_ipv4` is exactly "false"; IPv6 if its like is exactly "true"."""
    return {
        "ipv4": ipam.text("assign_ipv4", "true") != "false",
        "ipv6": ipam.text("assign_ipv6", "false") == "true",
        "ipv4_pools": ipam.texts("ipv4_pools"),
        "ipv6_pools": ipam.texts("ipv6_pools"),
    }


def _requested(conf: Fields) -> tuple[Address, ...]:
    """The addresses of `runtimeConfig.ips`, else of `args.cni.ips`; at most one of each family."""
    path, texts = "runtimeConfig.ips", conf.inner("runtimeConfig").texts("ips")
    if not texts:
        path, texts = "args.cni.ips", conf.inner("args").inner("cni").texts("ips")
    addresses: list[Address] = []
    for index, text in enumerate(texts):
        try:
            address = parse_network(text)[0] if "/" in text else parse_address(text)
        except ValueError:
            refuse(f"{path}[{index}]", text, "an IP address, with or without a prefix length")
        if any(address.version == other.version for other in addresses):
            refuse(f"{path}[{index}]", text, f"the only IPv{address.version} address there")
        addresses.append(address)
    return tuple(addresses)


def _default_pools(fields: Fields) -> tuple[DefaultPool, ...]:
    path, items = fields.find("default_pools")
    if items is None:
        return ()
    if not isinstance(items, list):
        refuse(path, items, 'a list of {"name", "spec"} objects')
    pools: dict[str, DefaultPool] = {}
    for index, item in enumerate(items):
        here = f"{path}[{index}]"
        if not isinstance(item, dict):
            refuse(here, item, 'an object {"name", "spec"}')
        pool = _default_pool(Fields(((here + ".", item),)), here)
        if pool.name in pools:
            refuse(here + ".name", pool.name, "a name that no other pool of the list has")
        pools[pool.name] = pool
    return tuple(pools.values())


def _default_pool(item: Fields, here: str) -> DefaultPool:
    spec = item.inner("spec")
    text = spec.text("cidr")
    try:
        cidr = str(parse_cidr(text))
    except ValueError:
        refuse(here + ".spec.cidr", text or None, 'a CIDR such as "10.0.0.0/24"')
    name = item.text("name") or cidr.replace(".", "-").replace(":", "-").replace("/", "-")
    return DefaultPool(name, spec.objects[0][1])


def _gateway_and_mask(fields: Fields, *, ours: bool) -> tuple[str | Address, str]:
    path = fields.find("gateway")[0]
    gateway: str | Address = fields.text("gateway") or ("auto" if ours else "none")
    if isinstance(gateway, str) and gateway not in ("auto", "none"):
        try:
            gateway = parse_address(gateway)
        except ValueError:
            refuse(path, gateway, '"auto", "none" or an IP address')
    mask = fields.text("mask") or ("block" if gateway == "none" else "pool")
    path = fields.find("mask")[0]
    if mask not in _MASKS:
        refuse(path, mask, '"pool", "block" or "host"')
    if mask != "pool" and gateway != "none":
        refuse(path, mask, '"pool" unless "gateway" is "none"')
    return gateway, mask


def parse_routes(fields: Fields, *, ours: bool) -> RouteSettings:
    """Which routes to install, and their mark; `ours` says whose defaults. Raises NetconfError."""
    if not ours:
        # Calico ignores the key, so the array that host-local has there may have been left over.
        objects = [o for o in fields.objects if not isinstance(get_key(o[1], "routes"), list)]
        fields = Fields(tuple(objects))
    routes = fields.inner("routes")
    proto = routes.whole("proto", 85, 0, 255)
    if proto in _FOREIGN_PROTOCOLS:
        owner = _FOREIGN_PROTOCOLS[proto]
        refuse(routes.find("proto")[0], proto, f"a protocol of our own: {owner} has this one")
    return RouteSettings(
        host=routes.flag("host", ours),
        blackhole=routes.flag("blackhole", ours),
        proto=proto,
        table=routes.whole("table", MAIN_TABLE, 1, 2**32 - 1),
    )


def _switches(fields: Fields) -> dict[str, Any]:
    keys = ("create_default_pools", "status_when_unreachable", "status_when_exhausted")
    return {key: fields.flag(key, False) for key in keys}


def _agent(fields: Fields) -> str:
    agent = fields.path("agent", "auto")
    if agent not in ("auto", "off") and not agent.startswith("/"):
        refuse(fields.find("agent")[0], agent, '"auto", "off" or an absolute path')
    return agent


def _annotations(conf: Fields, called_as: str) -> dict[str, Any]:
    """What the runtime says of the pod's annotations, and whether and which are heeded.

    Those that Calico's main plugin has read are in stdin by now, which is final then."""
    passed = conf.inner("runtimeConfig").inner("io.kubernetes.cri.pod-annotations").objects
    features = conf.inner("feature_control")
    is_final = called_as == CALICO_NAME and conf.text("type") == "calico"
    return {
        "pod_annotations": passed[0][1] if passed else None,
        "heeds_annotations": not is_final and conf.inner("policy").text("type", "k8s") == "k8s",
        "ip_addrs_no_ipam": features.flag("ip_addrs_no_ipam", False),
        "floating_ips": features.flag("floating_ips", False),
    }


def _prev_result(conf: Fields) -> Json | None:
    inner = conf.inner("prevResult")
    return inner.objects[0][1] if inner.objects else None


def _attachments(conf: Json) -> tuple[tuple[str, str], ...] | None:
    """The attachments that GC must leave alone; None if no key names any.

    Anything unclear is refused: a misread list releases the addresses of living pods.
    """
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        if match_key(conf, key) is not None:
            break
    else:
        return None
    items = get_key(conf, key)
    if items is None:
        return ()
    if not isinstance(items, list):
        refuse(key, items, 'a list of {"containerID", "ifname"} objects')
    return tuple(_attachment(item, f"{key}[{index}]") for index, item in enumerate(items))


def _attachment(item: object, here: str) -> tuple[str, str]:
    if not isinstance(item, dict):
        refuse(here, item, 'an object {"containerID", "ifname"}')
    fields = Fields(((here + ".", item),))
    container_id, ifname = fields.text("containerID"), fields.text("ifname")
    for key, value in (("containerID", container_id), ("ifname", ifname)):
        if not value:
            refuse(f"{here}.{key}", value or None, "a string that is not empty")
    return container_id, ifname
