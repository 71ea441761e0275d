"""What the annotations of a pod and its namespace ask for: Calico's, with Calico's errors.

Each kind has its own precedence: the pod says it, else the namespace, else neither. An empty text
says nothing; `[]` and `null` say that there is nothing to choose from, which overrides. What
the pod overrides is not read, so it may be malformed.
"""

from __future__ import annotations

from cni_ipam.core.address import Address, parse_address
from cni_ipam.errors import NetconfError
from cni_ipam.lean.json import loads
from cni_ipam.lean.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "cni.projectcalico.org/"
FAMILIES = {"IPv4": 4, "IPv6": 6}
_POOLS = {4: PREFIX + "ipv4pools", 6: PREFIX + "ipv6pools"}
_FAMILIES = PREFIX + "ipFamilies"
_FIXED = PREFIX + "ipAddrs"
_WITHOUT_IPAM = PREFIX + "ipAddrsNoIpam"
_FLOATING = PREFIX + "floatingIPs"
_SHOWN = 200


@record
class Annotated:
    """What annotations ask for.

    `families` is None, and `pools` lacks a family, where they say nothing of it. `fixed` are the
    addresses to assign, `without_ipam` those to answer with and to record nowhere; with either
    the pod wants these and nothing else."""

    families: tuple[int, ...] | None
    pools: Mapping[int, tuple[str, ...]]
    fixed: tuple[Address, ...] = ()
    without_ipam: tuple[Address, ...] = ()

    @property
    def leaves_open(self) -> bool:
        """Whether a namespace's annotations can still matter."""
        if self.fixed or self.without_ipam:
            return False
        wanted = FAMILIES.values() if self.families is None else self.families
        return self.families is None or any(version not in self.pools for version in wanted)


NOTHING = Annotated(None, {})


@record
class Annotations:
    """The annotations of one object, which messages call `place`."""

    place: str
    texts: Mapping[str, object]

    def find(self, key: str) -> str:
        """The annotation; an empty text if there is none. Raises NetconfError."""
        value = self.texts.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise NetconfError(
                f'annotation "{key}" of {self.place} is not a text',
                f'right is a text that holds a JSON list, such as "{key}": "[]"',
            )
        return value

    def explain(self, key: str, right: str) -> str:
        """The details of an error: what stands where, and what would be right."""
        found = f'annotation "{key}" of {self.place} is {_shorten(self.find(key))}'
        return f"{found}; right is {right}"


def parse_pod(pod: Annotations, *, ip_addrs_no_ipam: bool, floating_ips: bool) -> Annotated:
    """What a pod asks for; the switches are those of the netconf's `feature_control`.

    Raises NetconfError with Calico's message."""
    said = parse_namespace(pod)
    if pod.find(_FLOATING) and not floating_ips:
        raise _not_enabled(pod, _FLOATING, "floating_ips")
    if pod.find(_FIXED) and pod.find(_WITHOUT_IPAM):
        raise NetconfError(
            "can't have both annotations: 'ipAddrs' and 'ipAddrsNoIpam' in use at the same time",
            f"take one of them from {pod.place}",
        )
    if pod.find(_WITHOUT_IPAM):
        if not ip_addrs_no_ipam:
            raise _not_enabled(pod, _WITHOUT_IPAM, "ip_addrs_no_ipam")
        return replace(said, without_ipam=_parse_addresses(pod, _WITHOUT_IPAM))
    if pod.find(_FIXED):
        return replace(said, fixed=_parse_addresses(pod, _FIXED))
    return said


def parse_namespace(namespace: Annotations, pod: Annotated = NOTHING) -> Annotated:
    """What `pod` asks for, and where it says nothing what its namespace does.

    Raises NetconfError with Calico's message."""
    families = pod.families
    if families is None and namespace.find(_FAMILIES):
        families = _parse_families(namespace)
    pools = dict(pod.pools)
    for version, key in _POOLS.items():
        if version not in pools and namespace.find(key):
            right = 'a JSON list of names or CIDRs of pools, such as ["pool1","10.0.0.0/16"]'
            pools[version] = _parse_list(namespace, key, right)
    return replace(pod, families=families, pools=pools)


def _parse_families(source: Annotations) -> tuple[int, ...]:
    right = '["IPv4"], ["IPv6"] or ["IPv4","IPv6"]'
    words = _parse_list(source, _FAMILIES, right)
    if any(word not in FAMILIES for word in words):
        raise NetconfError(
            f"error parsing ipFamilies: {_shorten(source.find(_FAMILIES))}",
            source.explain(_FAMILIES, right),
        )
    return tuple(sorted({FAMILIES[word] for word in words}))


def _parse_addresses(source: Annotations, key: str) -> tuple[Address, ...]:
    """At most one address of each family, IPv4 before IPv6."""
    right = '["10.0.0.5"], or an address of each family: ["10.0.0.5","fd00::5"]'
    details = source.explain(key, right)
    shown = _shorten(source.find(key))
    try:
        texts = _read_list(source.find(key))
    except ValueError as error:
        raise NetconfError(
            f'failed to parse IPs {shown} for annotation "{key}": '
            f"failed to parse '{shown}' as JSON: {error}",
            details,
        ) from None
    if not texts:
        raise NetconfError(f'annotation "{key}" specified but empty', details)
    found: dict[int, Address] = {}
    for text in texts:
        try:
            address = parse_address(text)
        except ValueError:
            raise NetconfError(f"invalid IP format: {_shorten(text)}", details) from None
        if address.version in found:
            raise NetconfError(
                f'cannot have more than one IPv{address.version} address for "{key}" annotation',
                details,
            )
        found[address.version] = address
    return tuple(found[version] for version in sorted(found))


def _parse_list(source: Annotations, key: str, right: str) -> tuple[str, ...]:
    try:
        return _read_list(source.find(key))
    except ValueError as error:
        raise NetconfError(
            f'cannot read annotation "{key}" of {source.place}: {error}',
            source.explain(key, right),
        ) from None


def _read_list(text: str) -> tuple[str, ...]:
    """A JSON list of strings; null counts as an empty list, and in a list as an empty text, as
    in Go. Raises ValueError in Go's words."""
    try:
        value = loads(text)
    except ValueError as error:
        from cni_ipam.workload.go_errors import find_syntax_error

        raise ValueError(find_syntax_error(text) or str(error)) from None
    value = [] if value is None else value
    if not isinstance(value, list) or any(not isinstance(v, (str, type(None))) for v in value):
        from cni_ipam.workload.go_errors import describe_wrong_type

        raise ValueError(describe_wrong_type(value))
    return tuple([item or "" for item in value])


def _not_enabled(source: Annotations, key: str, feature: str) -> NetconfError:
    return NetconfError(
        f"requested feature is not enabled: {feature}",
        f'annotation "{key}" of {source.place} needs '
        f'"feature_control": {{"{feature}": true}} in the network configuration',
    )


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
