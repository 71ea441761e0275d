"""Where the datastore is: by flag, by calicoctl's config file, by the environment, or as a network
configuration of this node has it. The first of them that says anything decides.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from cni_ipam.cni.fields import Fields, get_key
from cni_ipam.cni.netconf import CALICO_NAME, OUR_NAME
from cni_ipam.cni.settings import (
    DATASTORE_KINDS,
    DEFAULT_SQLITE_PATH,
    DatastoreSettings,
    parse_datastore,
)
from cni_ipam.errors import CniIpamError, OperatorError
from cni_ipam.lean.record import replace
from cni_ipam.routes.plan import RouteSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT_CONFIG_PATH = "/etc/calico/calicoctl.cfg"
DEFAULT_NETCONF_DIR = "/etc/cni/net.d"
NETCONF_DIR_VARIABLE = "CNI_NETCONF_DIR"

# Those that name a datastore. KUBECONFIG alone does not: every operator of a cluster has it set.
_VARIABLES = ("DATASTORE_TYPE", "ETCD_ENDPOINTS", "ETCD_DISCOVERY_SRV")
_CONFIG_KEYS = {
    "datastoreType": "datastore_type",
    "sqlitePath": "sqlite_path",
    "etcdEndpoints": "etcd_endpoints",
    "etcdDiscoverySrv": "etcd_discovery_srv",
    "etcdKeyFile": "etcd_key_file",
    "etcdCertFile": "etcd_cert_file",
    "etcdCACertFile": "etcd_ca_cert_file",
}


@dataclass(frozen=True)
class Wishes:
    """What the command line says about the datastore; None where it says nothing."""

    config: str | None = None
    datastore_type: str | None = None
    sqlite_path: str | None = None
    netconf_dir: str | None = None


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
    datastore = _find_datastore(wishes, environ, default_config)
    if datastore is None and error is not None:
        raise error
    if datastore is None:
        datastore = parse_datastore(node, environ, embedded=embedded)
    return Place(_with_sqlite_path(datastore, wishes, node), _routes(node))


def _find_datastore(
    wishes: Wishes, environ: Mapping[str, str], default_config: str
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
        chosen = {} if kind is None else {"datastore_type": kind}
        return parse_datastore(Fields((("", chosen), ("", config))), {}, embedded=True)
    if kind is not None:
        variables = {k: v for k, v in environ.items() if not k.endswith("DATASTORE_TYPE")}
        return parse_datastore(Fields((("", {"datastore_type": kind}),)), variables, embedded=True)
    if any(environ.get(prefix + name) for name in _VARIABLES for prefix in ("", "CALICO_")):
        return parse_datastore(Fields(()), environ, embedded=True)
    return None


def _with_sqlite_path(
    datastore: DatastoreSettings, wishes: Wishes, node: Fields
) -> DatastoreSettings:
    if datastore.kind != "sqlite":
        return datastore
    path = wishes.sqlite_path
    if path is not None:
        return replace(datastore, sqlite_path=os.path.abspath(path))
    if datastore.sqlite_path == DEFAULT_SQLITE_PATH:
        return replace(datastore, sqlite_path=node.path("sqlite_path", DEFAULT_SQLITE_PATH))
    return datastore


def _find_config(wishes: Wishes, default: str) -> dict[str, Any] | None:
    """The settings of calicoctl's config file; None if there is none and none was asked for."""
    path = wishes.config or default
    try:
        with open(path, "rb") as file:
            document = yaml.safe_load(file)
    except OSError:
        if path == DEFAULT_CONFIG_PATH or wishes.config is None:
            return None
        raise OperatorError(f"Error reading config file: {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise OperatorError(f"config file {path} is not YAML: {error}") from None
    spec = document.get("spec") if isinstance(document, dict) else None
    if spec is None and wishes.config is None:
        return None
    if not isinstance(spec, dict):
        raise OperatorError(f"config file {path} has no spec: it should be a CalicoAPIConfig")
    settings: dict[str, Any] = {_CONFIG_KEYS[key]: spec[key] for key in _CONFIG_KEYS if key in spec}
    if spec.get("kubeconfig"):
        settings["kubernetes"] = {"kubeconfig": spec["kubeconfig"]}
    return settings


def _find_netconf(wishes: Wishes, environ: Mapping[str, str]) -> tuple[Fields, bool]:
    """The settings of the first network of this node whose addresses come from a datastore, and
    whether that may be an embedded one. Raises OperatorError if only unreadable files are left."""
    folder = wishes.netconf_dir or environ.get(NETCONF_DIR_VARIABLE) or DEFAULT_NETCONF_DIR
    unreadable = ""
    for name in _netconf_names(folder):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                document = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            unreadable = unreadable or f"{path}: {error}"
            continue
        for plugin in _plugins(document):
            ipam = get_key(plugin, "ipam")
            ipam = ipam if isinstance(ipam, dict) else {}
            kinds = (get_key(ipam, "type"), get_key(plugin, "type"))
            if OUR_NAME in kinds or kinds[0] == CALICO_NAME:
                return Fields((("ipam.", ipam), ("", plugin))), kinds[0] != CALICO_NAME
    if unreadable:
        raise OperatorError(
            f"cannot tell where the datastore is: {unreadable}",
            "name it with --sqlite-path or --datastore-type",
        )
    return Fields(()), True


def _netconf_names(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if name.endswith((".conf", ".conflist", ".json")))


def _plugins(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, dict):
        return []
    plugins = document.get("plugins", [document])
    return [p for p in plugins if isinstance(p, dict)] if isinstance(plugins, list) else []


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
