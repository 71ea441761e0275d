"""Where the node's settings come from: netconf, environment and files, in Calico's order.

A `CALICO_…` variable beats the netconf, which beats the variable without that prefix
(facts of Calico's client: the netconf is exported to the plain names, then both are read).
"""

from __future__ import annotations

import posix
from errno import ENOENT, ENOTDIR

from cni_ipam.cni.fields import refuse
from cni_ipam.cni.request import read_variable
from cni_ipam.errors import EnvironmentInvalid, InputOutputError, NetconfError, UnsupportedError
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.cni.fields import Fields
    from cni_ipam.cni.request import Environ

DATASTORE_KINDS = ("sqlite", "etcdv3", "kubernetes")
DEFAULT_SQLITE_PATH = "/var/lib/cni-ipam/ipam.db"
DEFAULT_NODENAME_FILE = "/var/lib/calico/nodename"
CALICO_LOCK_FILE = "/var/run/calico/ipam.lock"

_NODENAME_LIMIT = 253
_MOST = 2**31 - 1


@record
class DatastoreSettings:
    """Which datastore, and how it is reached."""

    kind: str
    sqlite_path: str
    etcd_endpoints: tuple[str, ...] = ()
    etcd_key_file: str = ""
    etcd_cert_file: str = ""
    etcd_ca_cert_file: str = ""
    kubeconfig: str = ""


@record
class LogSettings:
    """How much is logged, and in which file besides stderr ("": none)."""

    level: str
    path: str
    max_size_mb: int
    max_age_days: int
    max_count: int


def parse_datastore(fields: Fields, environ: Environ, *, embedded: bool) -> DatastoreSettings:
    """The datastore of this node; without any setting sqlite if `embedded`, else kubernetes.

    Raises NetconfError, EnvironmentInvalid, or UnsupportedError for etcd_discovery_srv.
    """

    def configured(key: str, variable: str, source: Fields = fields) -> str:
        text = source.path(key)
        forced = read_variable(environ, "CALICO_" + variable)
        return forced or text or read_variable(environ, variable)

    endpoints = configured("etcd_endpoints", "ETCD_ENDPOINTS")
    discovery = configured("etcd_discovery_srv", "ETCD_DISCOVERY_SRV")
    kind = _named_kind(fields, environ)
    if not kind:
        kubernetes = not embedded or fields.find("kubernetes")[1] is not None
        kind = "kubernetes" if kubernetes else "sqlite"
        if endpoints or discovery:
            kind = "etcdv3"
    if kind == "etcdv3" and discovery:
        message = f'"etcd_discovery_srv" is "{discovery[:60]}", which is not supported'
        raise UnsupportedError(message, 'name the servers in "etcd_endpoints"')
    sqlite_path = fields.path("sqlite_path", DEFAULT_SQLITE_PATH)
    if not sqlite_path.startswith("/"):
        refuse(fields.find("sqlite_path")[0], sqlite_path, "an absolute path")
    return DatastoreSettings(
        kind,
        sqlite_path,
        tuple(part.strip() for part in endpoints.split(",") if part.strip()),
        configured("etcd_key_file", "ETCD_KEY_FILE"),
        configured("etcd_cert_file", "ETCD_CERT_FILE"),
        configured("etcd_ca_cert_file", "ETCD_CA_CERT_FILE"),
        configured("kubeconfig", "KUBECONFIG", fields.inner("kubernetes")),
    )


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
    InputOutputError if the file is there but cannot be read.
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


def _named_kind(fields: Fields, environ: Environ) -> str:
    """The kind that netconf or environment name, "" if neither does."""
    path, _ = fields.find("datastore_type")
    named = fields.text("datastore_type")
    forced = read_variable(environ, "CALICO_DATASTORE_TYPE")
    kind = forced or named or read_variable(environ, "DATASTORE_TYPE")
    if not kind or kind in DATASTORE_KINDS:
        return kind
    message = f"unknown datastore type: {kind[:60]}"
    right = f"must be one of {', '.join(DATASTORE_KINDS)}"
    if kind == named and not forced:
        raise NetconfError(message, f'"{path}" {right}')
    variable = "CALICO_DATASTORE_TYPE" if forced else "DATASTORE_TYPE"
    raise EnvironmentInvalid(message, f"{variable} {right}")


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
        raise InputOutputError(message) from error
    return content.decode("utf-8", "surrogateescape")


def _checked_node_name(name: str, origin: str) -> str:
    """Node names are parts of keys, and of JSON texts."""
    if name and len(name) <= _NODENAME_LIMIT and name.isprintable() and "/" not in name:
        return name
    message = f"the node's name from {origin} is {quote_ascii(name[:60])}"
    right = f"it must have 1 to {_NODENAME_LIMIT} printable characters, and no '/'"
    raise NetconfError(message, right)
