"""Kubeconfigs that need more than the lean program has: all of YAML, several files, plugins.

PyYAML reads them, and the `kubernetes` package asks their plugins for a token or a certificate.
Only the full program has this module.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml

from cni_ipam.cni.kubeconfig import interpret_kubeconfig, read_file
from cni_ipam.cni.settings import Setting
from cni_ipam.errors import DatastoreUnavailable, NetconfError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PLUGIN_SECONDS = 60
"""How long a plugin may take; a runtime gives up after 90 s."""

_LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def load_kubeconfig(path: str, text: str, name: str, context: str) -> dict[str, Setting]:
    """What the kubeconfig `name` says for `context`, or for its current one: the files of `path`,
    parted by colons, or `text` where that is "". Raises NetconfError, InputOutputError,
    UnsupportedError."""
    if path:
        document = _merge([_read(part, f"kubeconfig {part}") for part in _list_files(path)])
    else:
        document = _parse(text, name)

    def ask_plugin(chosen: str, user: str) -> dict[str, Setting]:
        return _ask_plugin(document, chosen, user)

    return interpret_kubeconfig(document, name, "", context, ask_plugin)


def _list_files(path: str) -> list[str]:
    """The one file of `path`, or those of a list that there are; a list may name absent ones."""
    if os.path.exists(path) or ":" not in path:
        return [path]
    parts = [part for part in path.split(":") if part]
    return [part for part in parts if os.path.exists(part)] or parts[:1]


def _read(path: str, name: str) -> Any:
    """The document of one file, its relative paths resolved against the file's folder."""
    document = _parse(read_file(path, name), name)
    folder = os.path.dirname(os.path.abspath(path))
    for items, kind in _LISTS.items():
        for item in _items(document, items):
            inner = item.get(kind)
            if isinstance(inner, dict):
                _resolve(inner, _PATHS, folder)
                # A command without a slash is looked for in PATH.
                if isinstance(plugin := inner.get("exec"), dict) and "/" in str(
                    plugin.get("command")
                ):
                    _resolve(plugin, ("command",), folder)
    return document


def _resolve(fields: dict[str, Any], keys: tuple[str, ...], folder: str) -> None:
    for key in keys:
        if fields.get(key) and isinstance(fields[key], str):
            fields[key] = os.path.join(folder, fields[key])


def _parse(text: str, name: str) -> Any:
    """Raises NetconfError, without what the parser says: that may quote a secret."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f": see line {mark.line + 1}"
        raise NetconfError(f"{name} is not YAML{line}") from None


def _items(document: Any, key: str) -> list[dict[str, Any]]:
    listed = document.get(key) if isinstance(document, dict) else None
    return [i for i in listed if isinstance(i, dict)] if isinstance(listed, list) else []


def _merge(documents: list[Any]) -> Any:
    """As kubectl: of everything that has a name, and of the current context, the first counts."""
    if len(documents) == 1:
        return documents[0]
    merged: dict[str, Any] = {key: [] for key in _LISTS}
    for document in documents:
        for key, items in merged.items():
            if isinstance(items, list):
                names = {item.get("name") for item in items}
                items += [i for i in _items(document, key) if i.get("name") not in names]
    for document in documents:
        if isinstance(document, dict) and document.get("current-context"):
            merged["current-context"] = document["current-context"]
            break
    return merged


def _ask_plugin(document: Any, context: str, user: str) -> dict[str, Setting]:
    """The token, or the certificate and its key, that the user's plugin gives."""
    # It takes a quarter of a second to import.
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import load_kube_config_from_dict
    from urllib3.exceptions import HTTPError

    configuration = Configuration()
    # The package puts keys into files, and removes them only at an orderly end of the process.
    with tempfile.TemporaryDirectory() as folder, _hearing() as complaints, _limited(complaints):
        try:
            load_kube_config_from_dict(  # type: ignore[no-untyped-call]
                document, context, configuration, persist_config=False, temp_file_path=folder
            )
        except HTTPError as error:
            raise DatastoreUnavailable(f"the plugin of {user} failed: {error!s:.300}") from error
        except (AttributeError, ConfigException, OSError, ValueError, KeyError, TypeError) as error:
            complaints.append(str(error))
        texts = {
            part: read_file(file, f"the plugin's {part}")
            for part, file in (("cert", configuration.cert_file), ("key", configuration.key_file))
            if file and file.startswith(folder)
        }
    keys = configuration.api_key
    scheme, _, token = (keys.get("BearerToken") or keys.get("authorization") or "").partition(" ")
    if scheme == "Bearer" and token.strip():
        texts["token"] = token
    if not texts:
        why = complaints[0][:300] if complaints else "it gave neither a token nor a certificate"
        raise NetconfError(f"the plugin of {user} failed: {why}", "run it by hand to see why")
    return {part: Setting(f"the plugin's {part}", text) for part, text in texts.items()}


@contextmanager
def _hearing() -> Iterator[list[str]]:
    """What is logged meanwhile, where the package says why a plugin failed."""
    complaints: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    listener = Listener(logging.ERROR)
    logging.getLogger().addHandler(listener)
    try:
        yield complaints
    finally:
        logging.getLogger().removeHandler(listener)


@contextmanager
def _limited(complaints: list[str]) -> Iterator[None]:
    """Ends a plugin that takes too long, where signals can do that: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        if complaints:
            # A child of the plugin keeps its pipe open.
            raise TimeoutError
        complaints.append(f"no answer within {PLUGIN_SECONDS} s")
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            for child in children.read().split():
                os.kill(int(child), signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PLUGIN_SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
