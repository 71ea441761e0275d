"""Where the node's settings come from: netconf, environment and files, in Calico's order.

A `CALICO_…` variable beats the netconf, which beats the variable without that prefix
(facts of Calico's client: the netconf is exported to the plain names, then both are read).
"""

from __future__ import annotations

import posix
from errno import ENOENT, ENOTDIR

from cni_ipam.cni.fields import CALICO_KEYS, refuse
from cni_ipam.cni.request import read_variable
from cni_ipam.errors import EnvironmentInvalid, FileUnreadable, NetconfError
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.cni.etcd_settings import EtcdSettings
    from cni_ipam.cni.fields import Fields
    from cni_ipam.cni.kubernetes_settings import KubernetesSettings
    from cni_ipam.cni.request import Environ
    from cni_ipam.errors import CniIpamError

DATASTORE_KINDS = ("sqlite", "etcdv3", "kubernetes")
DEFAULT_SQLITE_PATH = "/var/lib/cni-ipam/ipam.db"
DEFAULT_NODENAME_FILE = "/var/lib/calico/nodename"
CALICO_LOCK_FILE = "/var/run/calico/ipam.lock"

_ETCD_SERVER_KEYS = ("etcd_endpoints", "etcd_discovery_srv")
_ETCD_KEYS = (
    *_ETCD_SERVER_KEYS,
    "etcd_username",
    "etcd_password",
    "etcd_key_file",
    "etcd_cert_file",
    "etcd_ca_cert_file",
)
_PATH_ENDS = ("_file", "config", "_certificate", "_client_key", "_authority")
_NODENAME_LIMIT = 253
_MOST = 2**31 - 1


@record
class Setting:
    """What is said ("" if nothing is), by which name, and the error that tells who said it."""

    name: str
    text: str
    error: type[CniIpamError] = NetconfError


class HandOver(Exception):
    """The lean program cannot serve these settings, and the full one can; says why."""


@record
class DatastoreSettings:
    """Which datastore, and how it is reached; `etcd` only where that is the datastore.

    `kubernetes` also where the datastore is another one and annotations are to be read."""

    kind: str
    sqlite_path: str
    etcd: EtcdSettings | None = None
    kubernetes: KubernetesSettings | None = None


@record
class LogSettings:
    """How much is logged, and in which file besides stderr ("": none)."""

    level: str
    path: str
    max_size_mb: int
    max_age_days: int
    max_count: int


def parse_datastore(
    fields: Fields,
    environ: Environ,
    *,
    embedded: bool,
    for_removal: bool = False,
    reads_annotations: bool = True,
) -> DatastoreSettings:
    """The datastore of this node; without any setting sqlite if `embedded`, else kubernetes.

    What only another datastore would need is checked too, unless `for_removal`; who neither
    `reads_annotations` nor has Kubernetes as the datastore is not told of an API server. Raises
    NetconfError, EnvironmentInvalid, FileUnreadable, UnsupportedError, or HandOver.
    """
    kind = _find_kind(fields, environ, embedded=embedded)

    def matters(owner: str) -> bool:
        return kind == owner or not for_removal

    etcd, sqlite_path, kubernetes = None, DEFAULT_SQLITE_PATH, None
    if matters("etcdv3"):
        settings = {key: find_setting(fields, environ, key) for key in _ETCD_KEYS}
        if kind == "etcdv3":
            from cni_ipam.cni.etcd_settings import parse_etcd

            etcd = parse_etcd(settings, for_removal=for_removal)
    if matters("sqlite"):
        sqlite_path = fields.path("sqlite_path", DEFAULT_SQLITE_PATH)
        if not sqlite_path.startswith("/"):
            refuse(fields.find("sqlite_path")[0], sqlite_path, "an absolute path")
    if kind == "kubernetes" or (
        reads_annotations and matters("kubernetes") and _wants_annotations(fields)
    ):
        from cni_ipam.cni.kubernetes_settings import find_kubernetes

        kubernetes = find_kubernetes(fields, environ, for_removal=for_removal)
    return DatastoreSettings(kind, sqlite_path, etcd, kubernetes)


def find_setting(
    fields: Fields, environ: Environ, key: str, variable: str | None = None
) -> Setting:
    """What `CALICO_<KEY>`, `key` in `fields` or `<KEY>` says, the first that says anything; the
    `variable` may have another name than the key, or "" if there is none.

    Keys that Calico's netconf does not have are looked for in the environment alone. Raises
    NetconfError for a wrong type, even where it would not have counted."""
    path, text = "", ""
    variable = key.upper() if variable is None else variable
    if key in CALICO_KEYS:
        path = fields.find(key)[0]
        # Only paths may be told of a NUL by their value: endpoints may hold a password.
        text = fields.path(key) if key.endswith(_PATH_ENDS) else fields.text(key)
    if variable and (forced := read_variable(environ, "CALICO_" + variable)):
        return Setting("CALICO_" + variable, forced, EnvironmentInvalid)
    if text:
        return Setting(f'"{path}"', text)
    if variable and (plain := read_variable(environ, variable)):
        return Setting(variable, plain, EnvironmentInvalid)
    return Setting(f'"{path}"' if path else variable, "")


def parse_log(fields: Fields) -> LogSettings:
    """The log's settings; a level that Calico doesn't know is `info`, a 0 the default, as there.

    Raises NetconfError.
    """
    level = fields.text("log_level").lower()
    return LogSettings(
        level if level in ("debug", "info", "error") else "info",
        fields.path("log_file_path"),
        fields.whole("log_file_max_size", 100, 0, _MOST) or 100,
        fields.whole("log_file_max_age", 30, 0, _MOST) or 30,
        fields.whole("log_file_max_count", 10, 0, _MOST) or 10,
    )


def parse_lock_file(fields: Fields, datastore: DatastoreSettings) -> str:
    """The file that is locked around each change: Calico's, or one beside the SQLite file."""
    embedded = datastore.kind == "sqlite"
    default = datastore.sqlite_path + ".lock" if embedded else CALICO_LOCK_FILE
    return fields.path("ipam_lock_file", default)


def find_node_name(fields: Fields, *, for_removal: bool = False) -> str:
    """This node's name: `nodename`, else the nodename file, else `hostname`, else the system's.

    Raises NetconfError (unless `for_removal` also for a key that would not have counted), or
    FileUnreadable if the file is there but cannot be read.
    """
    if not for_removal:
        for key in ("nodename_file", "hostname"):
            fields.text(key)
    if name := fields.text("nodename"):
        return _checked_node_name(name, "nodename")
    file = fields.path("nodename_file", DEFAULT_NODENAME_FILE)
    if name := _read_nodename(file):
        return _checked_node_name(name, f"nodename_file {file}")
    if name := fields.text("hostname"):
        return _checked_node_name(name, "hostname")
    return _checked_node_name(posix.uname().nodename.strip().lower(), "the system's host name")


def _find_kind(fields: Fields, environ: Environ, *, embedded: bool) -> str:
    """The kind that is named, else the one that the keys of a datastore tell of."""
    named = find_setting(fields, environ, "datastore_type")
    if named.text and named.text not in DATASTORE_KINDS:
        message = f"unknown datastore type: {named.text[:60]}"
        raise named.error(message, f"{named.name} must be one of {', '.join(DATASTORE_KINDS)}")
    if named.text:
        return named.text
    if any(find_setting(fields, environ, key).text for key in _ETCD_SERVER_KEYS):
        return "etcdv3"
    kubernetes = not embedded or fields.find("kubernetes")[1] is not None
    return "kubernetes" if kubernetes else "sqlite"


def _wants_annotations(fields: Fields) -> bool:
    """Whether the netconf tells of Kubernetes, as far as Calico's plugins look."""
    policy = fields.inner("policy")
    named = fields.find("kubernetes")[1] is not None
    return named or bool(policy.text("k8s_api_root")) or policy.text("type") == "k8s"


def _read_nodename(file: str) -> str:
    """The file's content to the byte, as Calico takes it; "" if there is no such file."""
    try:
        descriptor = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        try:
            content = posix.read(descriptor, _NODENAME_LIMIT + 1)
        finally:
            posix.close(descriptor)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return ""
        message = f"cannot read nodename_file {file}: {error.strerror}"
        raise FileUnreadable(message) from error
    return content.decode("utf-8", "surrogateescape")


def _checked_node_name(name: str, origin: str) -> str:
    """Node names are parts of keys, and of JSON texts."""
    if name and len(name) <= _NODENAME_LIMIT and name.isprintable() and "/" not in name:
        return name
    message = f"the node's name from {origin} is {quote_ascii(name[:60])}"
    right = f"it must have 1 to {_NODENAME_LIMIT} printable characters, and no '/'"
    raise NetconfError(message, right)
