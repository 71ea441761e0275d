"""What a kubeconfig says: where the API server is, and who we are to it.

The plain ones that installers write are read here. What they may hold beyond that (plugins that
fetch a token, several files in one, all of YAML) is left to the `kubernetes` package, which the
lean program does not have: there it raises HandOver, and the full program takes over.

No message shows a token or a key.
"""

from __future__ import annotations

import posix
from binascii import a2b_base64

from cni_ipam.cni.fields import kind_of
from cni_ipam.cni.settings import HandOver, Setting
from cni_ipam.errors import FileUnreadable, NetconfError, UnsupportedError
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import replace
from cni_ipam.lean.yaml import NotPlain
from cni_ipam.lean.yaml import loads as load_yaml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Users who are others, or who have passwords: those ended with Kubernetes 1.19.
_UNSUPPORTED = ("as", "as-uid", "as-groups", "as-user-extra", "username", "password")
_MAX_FILE_BYTES = 1 << 22


def read_kubeconfig(path: str, text: str, name: str, context: str) -> dict[str, Setting]:
    """What the kubeconfig at `path`, or in `text` where that is "", says for `context`, by our own
    means or by those of the full program. `name` is what messages call it.

    The keys are parts of the way: server, ca, ca_file, cert, cert_file, key, key_file, token,
    token_file, insecure, tls_server_name. Raises NetconfError, FileUnreadable, UnsupportedError,
    or HandOver in the lean program."""
    try:
        return _read_plain(path, text, name, context)
    except HandOver as wish:
        try:
            from cni_ipam.cni.kubernetes_package import load_kubeconfig
        except ImportError:
            raise wish from None
        return load_kubeconfig(path, text, name, context)


def interpret_kubeconfig(
    document: object,
    name: str,
    folder: str,
    context: str,
    ask_plugin: Callable[[str, str], dict[str, Setting]] | None = None,
) -> dict[str, Setting]:
    """What the document of the kubeconfig `name` says for `context`, or for its current one.

    Files are looked for in `folder`. Where a plugin must be asked who we are, `ask_plugin` does
    that, given the context and the user's name for messages. Raises NetconfError, UnsupportedError,
    or HandOver if there is none."""
    head = _Part(name, document)
    context = context or head.text("current-context")
    if not context:
        message = f'{name} has no "current-context"'
        raise NetconfError(message, "set it there, or K8S_CURRENT_CONTEXT")
    place = head.get_named("contexts", "context", context)
    cluster = head.get_named("clusters", "cluster", place.text("cluster"))
    parts = _read_cluster(cluster, folder)
    if name_of_user := place.text("user"):
        user = head.get_named("users", "user", name_of_user)
        parts.update(_read_user(user, folder))
        if user.value.get("exec") or user.value.get("auth-provider"):
            if ask_plugin is None:
                raise HandOver(f"{user.name} has a plugin for its credentials")
            parts.update(ask_plugin(context, user.name))
    return parts


def read_file(path: str, name: str) -> str:
    """What the file `name` at `path` holds. Raises FileUnreadable or NetconfError."""
    pieces, left = [], _MAX_FILE_BYTES
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        try:
            while left > 0 and (piece := posix.read(descriptor, left)):
                pieces.append(piece)
                left -= len(piece)
        finally:
            posix.close(descriptor)
    except OSError as error:
        message = f"cannot read {name}: {error.strerror}"
        raise FileUnreadable(message, "it says how the API server is reached") from error
    try:
        return b"".join(pieces).decode()
    except UnicodeDecodeError:
        raise NetconfError(f"{name} is not UTF-8") from None


class _Part:
    """A mapping of a kubeconfig, with the words that lead to it."""

    def __init__(self, name: str, value: object) -> None:
        if not isinstance(value, dict):
            raise NetconfError(f"{name} is not a mapping, but of type {kind_of(value)}")
        self.name = name
        self.value = value

    def text(self, key: str) -> str:
        """The text under `key`, "" if there is none. Raises NetconfError."""
        value = self.value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            message = f'"{key}" of {self.name} must be a text, but is of type {kind_of(value)}'
            raise NetconfError(message, "put it in quotes")
        return value

    def flag(self, key: str) -> bool:
        """The boolean under `key`. Raises NetconfError."""
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            message = f'"{key}" of {self.name} must be true or false'
            raise NetconfError(message, f"it is of type {kind_of(value)}")
        return bool(value)

    def setting(self, key: str, text: str) -> Setting:
        """`text` as what `key` says."""
        return Setting(f'"{key}" of {self.name}', text)

    def get_named(self, items: str, kind: str, name: str) -> _Part:
        """The mapping under `kind` of the one in the list `items` that has that name."""
        listed = self.value.get(items)
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and item.get("name") == name:
                return _Part(f"{kind} {quote_ascii(name[:60])} of {self.name}", item.get(kind))
        message = f"{kind} {quote_ascii(name[:60])} does not exist in {self.name}"
        raise NetconfError(message, f'"{items}" must have an item of that name')

    def read_pem(self, key: str, part: str, folder: str) -> dict[str, Setting]:
        """The PEM text or the file under `key`, as the `part` of credentials that it is."""
        if data := self.text(key + "-data"):
            setting = self.setting(key + "-data", data)
            return {part: replace(setting, text=_decode_base64(setting))}
        if path := self.text(key):
            return {part + "_file": self.setting(key, _resolve(path, folder))}
        return {}


def _read_plain(path: str, text: str, name: str, context: str) -> dict[str, Setting]:
    if ":" in path:
        raise HandOver(f"{name} is a list of files")
    try:
        document = load_yaml(text or read_file(path, name))
    except NotPlain as error:
        raise HandOver(f"{name} is not plain YAML: line {error.line}") from None
    folder, slash, _ = path.rpartition("/")
    return interpret_kubeconfig(document, name, folder + slash, context)


def _read_cluster(cluster: _Part, folder: str) -> dict[str, Setting]:
    if cluster.text("proxy-url"):
        message = f'"proxy-url" of {cluster.name} is set, which is not supported'
        raise UnsupportedError(message, "name a server that is reached directly")
    parts = cluster.read_pem("certificate-authority", "ca", folder)
    for key, part in (("server", "server"), ("tls-server-name", "tls_server_name")):
        if text := cluster.text(key):
            parts[part] = cluster.setting(key, text)
    if cluster.flag("insecure-skip-tls-verify"):
        parts["insecure"] = cluster.setting("insecure-skip-tls-verify", "true")
    return parts


def _read_user(user: _Part, folder: str) -> dict[str, Setting]:
    for key in _UNSUPPORTED:
        if user.value.get(key):
            message = f'"{key}" of {user.name} is set, which is not supported'
            raise UnsupportedError(message, "use a token, a tokenFile or a client certificate")
    provider = user.value.get("auth-provider")
    if provider and not (isinstance(provider, dict) and provider.get("name") == "oidc"):
        message = f'"auth-provider" of {user.name} is not oidc; no other is supported'
        raise UnsupportedError(message, "use exec, a token, a tokenFile or a client certificate")
    parts = user.read_pem("client-certificate", "cert", folder)
    parts.update(user.read_pem("client-key", "key", folder))
    if token := user.text("token"):
        parts["token"] = user.setting("token", token)
    if path := user.text("tokenFile"):
        parts["token_file"] = user.setting("tokenFile", _resolve(path, folder))
    return parts


def _decode_base64(setting: Setting) -> str:
    text = setting.text.replace("\n", "").replace("\r", "")
    try:
        return a2b_base64(text, strict_mode=True).decode("utf-8", "surrogateescape")
    except ValueError:
        message = f"{setting.name} is not base64"
        raise setting.error(message, "it must be a PEM text in base64") from None


def _resolve(path: str, folder: str) -> str:
    return path if path.startswith("/") else folder + path
