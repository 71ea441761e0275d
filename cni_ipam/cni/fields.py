"""Typed reading of the network configuration: what is there has the right type or is refused.

Keys are matched as Go's encoding/json does it, letter by letter or else without regard to case. A
refusal names the key, what stands there and what would be right; it never shows what may be a
secret. `null` counts as absent.
"""

from __future__ import annotations

from cni_ipam.errors import DecodeError, NetconfError
from cni_ipam.lean.json import dumps, loads, quote_ascii
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, TypeAlias

    Json: TypeAlias = dict[str, Any]

CALICO_KEYS = frozenset(
    {
        "assign_ipv4",
        "assign_ipv6",
        "ipv4_pools",
        "ipv6_pools",
        "datastore_type",
        "etcd_endpoints",
        "etcd_discovery_srv",
        "etcd_key_file",
        "etcd_cert_file",
        "etcd_ca_cert_file",
        "kubernetes",
        "kubeconfig",
        "k8s_api_root",
        "policy",
        "k8s_auth_token",
        "k8s_certificate_authority",
        "k8s_client_certificate",
        "k8s_client_key",
        "calico_api_group",
        "nodename",
        "nodename_file",
        "hostname",
        "ipam_lock_file",
        "log_level",
        "log_file_path",
        "log_file_max_size",
        "log_file_max_age",
        "log_file_max_count",
    }
)
"""The keys that Calico reads too: a wrong type there is told in Calico's words as well."""

_SECRET_WORDS = ("token", "password", "secret", "key")


def decode_object(stdin: bytes) -> Json:
    """The JSON object that `stdin` holds. Raises DecodeError for anything else."""
    prefix = "error unmarshall network config: "
    if not stdin.strip():
        message = prefix + "unexpected end of JSON input"
        raise DecodeError(message, "stdin is empty; it should hold the network configuration")
    try:
        value = loads(stdin)
    except ValueError as error:
        raise DecodeError(prefix + str(error)) from error
    if not isinstance(value, dict):
        message = f"{prefix}json: cannot unmarshal {kind_of(value)} into an object"
        raise DecodeError(message, "stdin should hold the network configuration, a JSON object")
    return value


def match_key(fields: Json, key: str) -> str | None:
    """The name under which `fields` holds `key`: the exact one, else the last in another case."""
    if key in fields:
        return key
    folded = key.lower()
    found = None
    for name in fields:
        if name.lower() == folded:
            found = name
    return found


def get_key(fields: Json, key: str) -> object:
    """The value of `key`, matched as `match_key` does; None if it is absent."""
    name = match_key(fields, key)
    return None if name is None else fields[name]


@record
class Fields:
    """Objects of the netconf with their path ("", "ipam."); the first that has a key wins."""

    objects: tuple[tuple[str, Json], ...]

    def find(self, key: str) -> tuple[str, object]:
        """The path and the value of `key`; its value is None if no object has it."""
        for prefix, fields in self.objects:
            value = get_key(fields, key)
            if value is not None:
                return prefix + key, value
        return key, None

    def text(self, key: str, default: str = "") -> str:
        """A string. Raises NetconfError."""
        path, value = self.find(key)
        if value is None:
            return default
        if not isinstance(value, str):
            refuse_type(path, value, "string", "a string")
        return value

    def path(self, key: str, default: str = "") -> str:
        """A file's path, "" counting as absent. Raises NetconfError."""
        value = self.text(key) or default
        if "\0" in value:
            refuse(self.find(key)[0], value, "a path without NUL")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A boolean. Raises NetconfError."""
        path, value = self.find(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            refuse_type(path, value, "bool", "true or false")
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`. Raises NetconfError."""
        path, value = self.find(key)
        if value is None:
            return default
        right = f"a whole number from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1:
            refuse_type(path, value, "int", right)
        if not least <= value <= most:
            refuse(path, value, right)
        return int(value)

    def seconds(self, key: str, default: float) -> float:
        """A number greater than 0. Raises NetconfError."""
        path, value = self.find(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            refuse(path, value, "a number of seconds greater than 0")
        return float(min(value, 1e9))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings. Raises NetconfError."""
        path, value = self.find(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            refuse_type(path, value, "[]string", "a list of strings")
        for index, item in enumerate(value):
            if not isinstance(item, str):
                refuse_type(f"{path}[{index}]", item, "string", "a string")
        return tuple(value)

    def inner(self, key: str) -> Fields:
        """The object under `key`, without fields if it is absent. Raises NetconfError."""
        path, value = self.find(key)
        if value is None:
            return NO_FIELDS
        if not isinstance(value, dict):
            refuse_type(path, value, "struct", "an object")
        return Fields(((path + ".", value),))


NO_FIELDS = Fields(())


def refuse(path: str, value: object, right: str) -> NoReturn:
    """Raise the NetconfError that names key, value and what would be right."""
    message = f'failed to load netconf: "{path}" is {shown(path, value)}, but must be {right}'
    raise NetconfError(message)


def refuse_type(path: str, value: object, go_type: str, right: str) -> NoReturn:
    """As `refuse`, for a wrong type; for a key of Calico's in its words, ours as details."""
    if path.partition("[")[0].rpartition(".")[2] not in CALICO_KEYS:
        refuse(path, value, right)
    message = (
        f"failed to load netconf: json: cannot unmarshal {kind_of(value)} into "
        f"Go struct field NetConf.{path.partition('[')[0]} of type {go_type}"
    )
    raise NetconfError(message, f'"{path}" is {shown(path, value)}, but must be {right}')


def shown(path: str, value: object) -> str:
    """`value` as a message may show it: short, and neither secrets nor what may hold them."""
    if value is None:
        return "missing"
    if isinstance(value, (dict, list)):
        return f"an {kind_of(value)}"
    name = path.rpartition(".")[2].lower()
    if any(word in name for word in _SECRET_WORDS):
        return f"a {kind_of(value)} that is not shown"
    if isinstance(value, str):
        return quote_ascii(value if len(value) <= 60 else value[:60] + "...")
    text = dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


def kind_of(value: object) -> str:
    """The name that Go gives to the JSON type of `value`."""
    if isinstance(value, bool):
        return "bool"
    kinds = ((str, "string"), ((int, float), "number"), (list, "array"), (dict, "object"))
    for types, name in kinds:
        if isinstance(value, types):
            return name
    return "null"
