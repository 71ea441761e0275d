"""CNI_ARGS: what the runtime says about the pod, `K=V;K=V`.

The grammar and its messages are the reference library's (`types.LoadArgs`): exactly one `=` in each
piece, keys in their exact case, no trimming. Two departures: the pod's keys are known, so they need
no IgnoreUnknown (Calico's IPAM plugin fails ADD over them), and DEL ignores unknown keys.
"""

from __future__ import annotations

from cni_ipam.core.address import Address, parse_address
from cni_ipam.errors import EnvironmentInvalid
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record

_TRUE = ("1", "true")
_FALSE = ("0", "false")
_POD_KEYS = {
    "K8S_POD_NAME": "pod_name",
    "K8S_POD_NAMESPACE": "pod_namespace",
    "K8S_POD_INFRA_CONTAINER_ID": "infra_container_id",
    "K8S_POD_UID": "pod_uid",
}
_KNOWN = frozenset((*_POD_KEYS, "IgnoreUnknown", "IP", "GATEWAY", "MAC"))


@record
class Arguments:
    """What CNI_ARGS held; absent texts are empty. GATEWAY and MAC are taken and not used."""

    ip: Address | None = None
    pod_name: str = ""
    pod_namespace: str = ""
    infra_container_id: str = ""
    pod_uid: str = ""
    ignore_unknown: bool = False

    @property
    def orchestrator(self) -> str:
        """Calico's word for who asks: `k8s` if both pod and namespace are named, else `cni`."""
        return "k8s" if self.pod_name and self.pod_namespace else "cni"

    @property
    def pod(self) -> tuple[str, str] | None:
        """(namespace, name) of the pod, None for `cni`: then neither is recorded."""
        return (self.pod_namespace, self.pod_name) if self.orchestrator == "k8s" else None


def parse_arguments(text: str, *, for_removal: bool = False) -> Arguments:
    """The arguments in `text`; of a repeated key the last one counts.

    Raises EnvironmentInvalid for a piece that is not `K=V`, a bad value, and, but `for_removal`,
    an unknown key without IgnoreUnknown.
    """
    if not text:
        return Arguments()
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise EnvironmentInvalid("ARGS: CNI_ARGS is not UTF-8")
    values: dict[str, str] = {}
    ip, ignore_unknown, unknown = None, False, []
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            message = f"ARGS: invalid pair {_quote(pair)}"
            raise EnvironmentInvalid(message, "CNI_ARGS must be K=V;K=V without a ';' at the end")
        if key == "IP":
            ip = _parse_ip(value, pair)
        elif key == "IgnoreUnknown":
            ignore_unknown = _parse_flag(value, pair)
        elif key in _POD_KEYS:
            values[_POD_KEYS[key]] = value
        elif key not in _KNOWN:
            unknown.append(pair)
    if unknown and not ignore_unknown and not for_removal:
        message = f"ARGS: unknown args [{' '.join(_quote(pair) for pair in unknown[:20])}]"
        raise EnvironmentInvalid(message, "add IgnoreUnknown=1 to CNI_ARGS if they may be ignored")
    return Arguments(ip=ip, ignore_unknown=ignore_unknown, **values)


def _parse_ip(value: str, pair: str) -> Address | None:
    if not value:
        return None
    try:
        return parse_address(value)
    except ValueError:
        message = f"invalid IP address: {value[:80]}"
        raise _bad_value(pair, message, "IP must be one address without a prefix") from None


def _parse_flag(value: str, pair: str) -> bool:
    flag = value.lower()
    if flag not in _TRUE + _FALSE:
        message = f"boolean unmarshal error: invalid input {flag[:80]}"
        raise _bad_value(pair, message, "IgnoreUnknown must be 1, true, 0 or false")
    return flag in _TRUE


def _bad_value(pair: str, reason: str, right: str) -> EnvironmentInvalid:
    return EnvironmentInvalid(f"ARGS: error parsing value of pair {_quote(pair)}: {reason}", right)


def _quote(text: str) -> str:
    return quote_ascii(text if len(text) <= 80 else text[:80] + "...")
