"""Where the datastore is: by flag, by calicoctl's config file, by the environment, or as a network
configuration of this node has it. The first of them that says anything decides.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from cni_ipam.cni.etcd_settings import parse_etcd
from cni_ipam.cni.fields import Fields, get_key, kind_of
from cni_ipam.cni.kubernetes_settings import parse_kubernetes
from cni_ipam.cni.netconf import CALICO_NAME
from cni_ipam.cni.settings import (
    DATASTORE_KINDS,
    DEFAULT_SQLITE_PATH,
    DatastoreSettings,
    Setting,
    parse_datastore,
)
from cni_ipam.ctl.networks import find_recording, read_networks
from cni_ipam.errors import CniIpamError, OperatorError
from cni_ipam.lean.record import replace
from cni_ipam.routes.plan import RouteSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from cni_ipam.cni.kubernetes_settings import KubernetesSettings
    from cni_ipam.ctl.networks import Networks, Role

DEFAULT_CONFIG_PATH = "/etc/calico/calicoctl.cfg"
USERS_KUBECONFIG = ".kube/config"

# These name a datastore. KUBECONFIG alone does not: every operator of a cluster has it set.
_ETCD_VARIABLES = ("ETCD_ENDPOINTS", "ETCD_DISCOVERY_SRV")
_SERVER_VARIABLES = {
    "etcdv3": _ETCD_VARIABLES,
    "kubernetes": ("KUBECONFIG", "K8S_API_ENDPOINT"),
}
# The config file's keys, and what the parsers of settings call them; "" for those of Kubernetes'
# client that decide nothing here.
_CONFIG_KEYS = {
    "datastoreType": "datastore_type",
    "sqlitePath": "sqlite_path",
    "etcdEndpoints": "etcd_endpoints",
    "etcdDiscoverySrv": "etcd_discovery_srv",
    "etcdUsername": "etcd_username",
    "etcdPassword": "etcd_password",
    "etcdKeyFile": "etcd_key_file",
    "etcdCertFile": "etcd_cert_file",
    "etcdCACertFile": "etcd_ca_cert_file",
    "etcdKey": "etcd_key",
    "etcdCert": "etcd_cert",
    "etcdCACert": "etcd_ca_cert",
    "kubeconfig": "kubeconfig",
    "kubeconfigInline": "kubeconfig_inline",
    "k8sAPIEndpoint": "server",
    "k8sAPIToken": "token",
    "k8sCAFile": "ca_file",
    "k8sCertFile": "cert_file",
    "k8sClientBurst": "",
    "k8sClientQPS": "",
    "k8sCurrentContext": "context",
    "k8sInsecureSkipTLSVerify": "insecure",
    "k8sKeyFile": "key_file",
    "calicoAPIGroup": "group",
    "usePodCIDR": "",
}
_CONFIG_API_VERSION = "projectcalico.org/v3"
_CONFIG_KIND = "CalicoAPIConfig"


@dataclass(frozen=True)
class Wishes:
    """What the command line says about the datastore; None where it says nothing."""

    config: str | None = None
    datastore_type: str | None = None
    sqlite_path: str | None = None
    netconf_dir: str | None = None

    @property
    def name_datastore(self) -> bool:
        """Whether they say which datastore."""
        return (self.config, self.datastore_type, self.sqlite_path) != (None, None, None)


@dataclass(frozen=True)
class Place:
    """The datastore, and by which mark this node's routes are known."""

    datastore: DatastoreSettings
    routes: RouteSettings


def locate(
    wishes: Wishes, environ: Mapping[str, str], default_config: str = DEFAULT_CONFIG_PATH
) -> Place:
    """The datastore to work on. Raises OperatorError, NetconfError, EnvironmentInvalid,
    UnsupportedError."""
    try:
        node, embedded = _find_netconf(wishes, environ)
        error = None
    except OperatorError as failure:
        # It matters only if nothing else says where the datastore is.
        node, embedded, error = Fields(()), True, failure
    datastore = _find_datastore(wishes, environ, default_config, node)
    if datastore is None and error is not None:
        raise error
    if datastore is None:
        datastore = parse_datastore(node, environ, embedded=embedded, reads_annotations=False)
    if datastore.kind == "kubernetes" and datastore.kubernetes is None:
        datastore = replace(datastore, kubernetes=_find_users_cluster(environ))
    return Place(_with_sqlite_path(datastore, wishes, node), _routes(node))


def require_own_datastore(networks: Networks, datastore: DatastoreSettings) -> None:
    """Raises OperatorError if the networks have different datastores, or another one than this;
    and as `locate`."""
    roles = find_recording(networks)
    found = [_parse_own(role) for role in roles]
    for role, own in zip(roles, found, strict=True):
        if not _is_same(found[0], own):
            raise OperatorError(
                f"the network {roles[0].network} has {_describe(found[0])}, "
                f"but {role.network} has {_describe(own)}",
                "give all networks of a node the same datastore",
            )
        if not _is_same(own, datastore):
            raise OperatorError(
                f"the network {role.network} has {_describe(own)}, "
                f"but the environment or {DEFAULT_CONFIG_PATH} says {_describe(datastore)}",
                "take that away, or name the datastore with --datastore-type or --sqlite-path",
            )


def _parse_own(role: Role) -> DatastoreSettings:
    """The datastore of a network, as far as its list tells."""
    embedded = role.called_as != CALICO_NAME
    return parse_datastore(role.fields, {}, embedded=embedded, reads_annotations=False)


def _is_same(one: DatastoreSettings, other: DatastoreSettings) -> bool:
    """Whether both are one datastore, however it is reached. Members of etcd that have one in
    common are of one cluster; an API server that is not named may be any."""
    if one.kind != other.kind:
        return False
    if one.etcd and other.etcd:
        return not set(one.etcd.endpoints).isdisjoint(other.etcd.endpoints)
    if one.kind == "kubernetes":
        servers = {d.kubernetes.server for d in (one, other) if d.kubernetes is not None}
        return len(servers) < 2
    return os.path.realpath(one.sqlite_path) == os.path.realpath(other.sqlite_path)


def _describe(datastore: DatastoreSettings) -> str:
    """The datastore as messages name it."""
    place = datastore.sqlite_path
    if datastore.etcd is not None:
        place = ",".join(map(str, datastore.etcd.endpoints))
    elif datastore.kind == "kubernetes":
        place = "" if datastore.kubernetes is None else str(datastore.kubernetes.server)
    return f"the datastore {datastore.kind} {place}".rstrip()


def _find_datastore(
    wishes: Wishes, environ: Mapping[str, str], default_config: str, node: Fields
) -> DatastoreSettings | None:
    """What flags, config file and environment say; None if they say nothing."""
    kind = wishes.datastore_type
    if kind is not None and kind not in DATASTORE_KINDS:
        kinds = ", ".join(DATASTORE_KINDS)
        raise OperatorError(f"--datastore-type is {kind}, but must be one of {kinds}")
    if wishes.sqlite_path is not None and kind in (None, "sqlite"):
        return DatastoreSettings("sqlite", DEFAULT_SQLITE_PATH)
    config = _find_config(wishes, default_config)
    if config is not None:
        return _datastore_of_config(config, kind, environ)
    if kind is not None:
        variables = {k: v for k, v in environ.items() if not k.endswith("DATASTORE_TYPE")}
        chosen = ("", {"datastore_type": kind})
        # Who asks for servers without naming them means those of the node.
        servers = _SERVER_VARIABLES.get(kind)
        others = node.objects if servers and not _says(environ, servers) else ()
        fields = Fields((chosen, *others))
        return parse_datastore(fields, variables, embedded=True, reads_annotations=False)
    if _says(environ, ("DATASTORE_TYPE", *_ETCD_VARIABLES)):
        return parse_datastore(Fields(()), environ, embedded=True, reads_annotations=False)
    return None


def _says(environ: Mapping[str, str], variables: Iterable[str]) -> bool:
    return any(environ.get(prefix + name) for name in variables for prefix in ("", "CALICO_"))


def _datastore_of_config(
    config: Mapping[str, Setting], kind: str | None, environ: Mapping[str, str]
) -> DatastoreSettings:
    """The datastore that the config file describes; `kind` from the command line goes first."""
    named = config["datastore_type"]
    if named.text and named.text not in DATASTORE_KINDS:
        right = f"{named.name} must be one of {', '.join(DATASTORE_KINDS)}"
        raise OperatorError(f"unknown datastore type: {named.text}", right)
    kind = kind or named.text
    if not kind and (config["etcd_endpoints"].text or config["etcd_discovery_srv"].text):
        kind = "etcdv3"
    if not kind and any(config[key].text for key in ("kubeconfig", "kubeconfig_inline", "server")):
        kind = "kubernetes"
    kind = kind or "sqlite"
    path = config["sqlite_path"].text or DEFAULT_SQLITE_PATH
    if not path.startswith("/"):
        name = config["sqlite_path"].name
        raise OperatorError(f"{name} is {path}, but must be an absolute path")
    etcd = parse_etcd(config) if kind == "etcdv3" else None
    kubernetes = parse_kubernetes(config, environ) if kind == "kubernetes" else None
    return DatastoreSettings(kind, path, etcd, kubernetes)


def _find_users_cluster(environ: Mapping[str, str]) -> KubernetesSettings | None:
    """The API server of the operator's own kubeconfig, which calicoctl takes where nothing is
    said; None if there is none."""
    path = os.path.join(environ.get("HOME") or os.path.expanduser("~"), USERS_KUBECONFIG)
    if not os.path.exists(path):
        return None
    return parse_kubernetes({"kubeconfig": Setting("HOME", path, OperatorError)}, environ)


def _with_sqlite_path(
    datastore: DatastoreSettings, wishes: Wishes, node: Fields
) -> DatastoreSettings:
    if datastore.kind != "sqlite":
        return datastore
    path = wishes.sqlite_path
    if path is not None:
        return replace(datastore, sqlite_path=_make_absolute(path))
    if datastore.sqlite_path == DEFAULT_SQLITE_PATH:
        return replace(datastore, sqlite_path=node.path("sqlite_path", DEFAULT_SQLITE_PATH))
    return datastore


def _make_absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise OperatorError(
            f"--sqlite-path is {path}, but the working folder is gone: give an absolute path"
        ) from None


def _find_config(wishes: Wishes, default: str) -> dict[str, Setting] | None:
    """The settings of calicoctl's config file, by the netconf's keys; None if there is no file and
    none was asked for."""
    path = wishes.config or default
    try:
        with open(path, "rb") as file:
            document = yaml.safe_load(file)
    except OSError:
        if path == DEFAULT_CONFIG_PATH or wishes.config is None:
            return None
        raise OperatorError(f"Error reading config file: {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        # What the parser says may quote a password.
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f": see line {mark.line + 1}"
        raise OperatorError(f"config file {path} is not YAML{line}") from None
    spec = document.get("spec") if isinstance(document, dict) else None
    if spec is None and wishes.config is None:
        return None
    if not isinstance(spec, dict):
        raise OperatorError(f"config file {path} has no spec: it should be a {_CONFIG_KIND}")
    _check_config_head(path, document)
    return _config_settings(path, spec)


def _check_config_head(path: str, document: dict[Any, Any]) -> None:
    """Calicoctl's words, but who leaves the head out is understood all the same."""
    version, kind = document.get("apiVersion"), document.get("kind")
    if version not in (None, _CONFIG_API_VERSION):
        message = f"invalid config file: unknown APIVersion '{version}'"
        raise OperatorError(message, f"{path} must have {_CONFIG_API_VERSION}")
    if kind not in (None, _CONFIG_KIND):
        message = f"invalid config file: expected kind '{_CONFIG_KIND}', got '{kind}'"
        raise OperatorError(message, f"the file is {path}")
    _refuse_unknown(path, "", document, ("apiVersion", "kind", "metadata", "spec"))


def _config_settings(path: str, spec: dict[Any, Any]) -> dict[str, Setting]:
    """Each of our settings by the netconf's key. Raises OperatorError for an unknown field, as
    calicoctl does, and for a value that is no text."""
    _refuse_unknown(path, "spec.", spec, _CONFIG_KEYS)
    settings = {}
    for key, netconf_key in _CONFIG_KEYS.items():
        value = get_key(spec, key) if netconf_key else None
        if netconf_key == "insecure" and isinstance(value, bool):
            value = "true" if value else ""
        if isinstance(value, int) and not isinstance(value, bool):
            # As calicoctl: a password of digits needs no quotes.
            value = str(value)
        if not isinstance(value, str | None):
            message = f'"{key}" of {path} must be a text, but is of type {kind_of(value)}'
            raise OperatorError(message, "put it in quotes")
        settings[netconf_key] = Setting(f'"{key}" of {path}', value or "", OperatorError)
    return settings


def _refuse_unknown(path: str, prefix: str, fields: dict[Any, Any], known: Iterable[str]) -> None:
    """Names are matched as Go does, without regard to case."""
    names = {name.lower() for name in known}
    for field in fields:
        if str(field).lower() not in names:
            message = f'unknown field "{prefix}{str(field)[:60]}" in config file {path}'
            raise OperatorError(message, f"known are {', '.join(known)}")


def _find_netconf(wishes: Wishes, environ: Mapping[str, str]) -> tuple[Fields, bool]:
    """The settings of the first network of this node whose addresses come from a datastore, and
    whether that may be an embedded one. Raises OperatorError if only unreadable files are left."""
    networks = read_networks(wishes, environ)
    if networks.roles:
        first = networks.roles[0]
        return first.fields, first.called_as != CALICO_NAME
    if networks.unreadable:
        raise OperatorError(
            f"cannot tell where the datastore is: {networks.unreadable}",
            "name it with --sqlite-path or --datastore-type",
        )
    return Fields(()), True


def _routes(node: Fields) -> RouteSettings:
    settings = RouteSettings(host=True, blackhole=True)
    try:
        routes = node.inner("routes")
        return RouteSettings(
            host=True,
            blackhole=True,
            proto=routes.whole("proto", settings.proto, 0, 255),
            table=routes.whole("table", settings.table, 1, 2**32 - 1),
        )
    except CniIpamError:
        # The plugin refuses such a network, so no route of it is there.
        return settings
