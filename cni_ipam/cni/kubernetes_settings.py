"""How the API server is reached: a kubeconfig or the files of a pod, and single settings over it.

Only a node that has an API server imports this. Where each setting comes from is its finder's
business (`cni/settings` for the plugin, `ctl/locate` for calicoctl's config file).

No message and no repr shows a token, a password or a key.
"""

from __future__ import annotations

import posix

from cni_ipam.cni.fields import NO_FIELDS
from cni_ipam.cni.kubeconfig import read_kubeconfig
from cni_ipam.cni.request import read_variable
from cni_ipam.cni.settings import Setting, find_setting
from cni_ipam.errors import EnvironmentInvalid
from cni_ipam.lean.http import Credentials, Endpoint, parse_endpoint
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_ipam.cni.fields import Fields
    from cni_ipam.cni.request import Environ

API_GROUPS = ("crd.projectcalico.org/v1", "projectcalico.org/v3")
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token and the CA of the API server."""
SETTINGS = (
    *("kubeconfig", "kubeconfig_inline", "context", "server", "ca_file", "cert_file", "key_file"),
    *("token", "insecure", "group"),
)
"""The keys of what `parse_kubernetes` is given."""


@record
class ApiServer:
    """Where the API server listens; `path` goes before every request's ("/k8s/clusters/c1")."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """What to connect to."""
        return Endpoint(self.scheme, self.host, self.port)

    def __str__(self) -> str:
        return f"{self.endpoint}{self.path}"


@record
class KubernetesSettings:
    """The API server, and how it and we prove who we are; "" for what there is not.

    `token_file` is read anew at each connection, since tokens rotate; `token` serves where there
    is none. `tls_server_name` is the name that the server's certificate must have, the server's
    host if "". `group` is that of Calico's resources, "" if it has to be asked for. `origin` says
    where all of that was found, for messages.
    """

    server: ApiServer
    credentials: Credentials = Credentials()
    token: str = ""
    token_file: str = ""
    tls_server_name: str = ""
    is_insecure: bool = False
    group: str = ""
    origin: str = ""

    def __repr__(self) -> str:
        """Without secrets, as traces and failing tests show it."""
        return f"KubernetesSettings({self.server}, {self.origin!r}, token_file={self.token_file!r})"


def find_kubernetes(
    fields: Fields, environ: Environ, *, for_removal: bool = False
) -> KubernetesSettings | None:
    """The API server that netconf, environment or the files of a pod name; None if none does.

    Raises NetconfError, EnvironmentInvalid, InputOutputError, UnsupportedError, or HandOver.
    """
    kubernetes, policy = fields.inner("kubernetes"), fields.inner("policy")
    policy.text("k8s_api_root")
    roots = kubernetes if kubernetes.text("k8s_api_root") else policy

    def said(key: str, variable: str, source: Fields = NO_FIELDS) -> Setting:
        return find_setting(source, environ, key, variable)

    settings = {
        "kubeconfig": said("kubeconfig", "KUBECONFIG", kubernetes),
        "context": said("k8s_current_context", "K8S_CURRENT_CONTEXT"),
        "server": said("k8s_api_root", "K8S_API_ENDPOINT", roots),
        "ca_file": said("k8s_certificate_authority", "K8S_CA_FILE", policy),
        "cert_file": said("k8s_client_certificate", "K8S_CERT_FILE", policy),
        "key_file": said("k8s_client_key", "K8S_KEY_FILE", policy),
        "token": said("k8s_auth_token", "", policy),
        "insecure": said("k8s_insecure_skip_tls_verify", "K8S_INSECURE_SKIP_TLS_VERIFY"),
        "group": said("calico_api_group", "CALICO_API_GROUP", fields),
    }
    return parse_kubernetes(settings, environ, for_removal=for_removal)


def parse_kubernetes(
    settings: Mapping[str, Setting], environ: Environ, *, for_removal: bool = False
) -> KubernetesSettings | None:
    """The API server that `settings` (keys: SETTINGS) name, or a pod's own; None without either.

    What is set on its own goes before what a kubeconfig says. A removal does without half a pair of
    certificate and key. Raises as `find_kubernetes`, with the error of the setting that is wrong.
    """
    missing = Setting("", "")
    said = {key: settings.get(key, missing) for key in SETTINGS}
    origin, found = _find_base(said, environ)
    _override(found, said)
    if "server" not in found:
        return None
    flag = found.get("insecure", missing)
    is_insecure = _parse_flag(flag)
    credentials = _parse_credentials(found, for_removal=for_removal)
    if is_insecure and (credentials.ca or credentials.ca_file):
        message = f"{flag.name} is true, but there is a CA to verify the server with as well"
        raise flag.error(message, "leave out one of the two")
    token = _parse_token(found.get("token", missing))
    is_secure = is_insecure or bool(token or "token_file" in found) or credentials != Credentials()
    return KubernetesSettings(
        _parse_server(found["server"], "https" if is_secure else "http"),
        credentials,
        token,
        found.get("token_file", missing).text,
        found.get("tls_server_name", missing).text,
        is_insecure,
        _parse_group(said["group"]),
        origin,
    )


def parse_api_server(text: str, default_scheme: str = "https") -> ApiServer:
    """The server that a URL names; scheme, port and path may be left out.

    Raises ValueError, which says what is wrong without the text: it may hold a password."""
    if "://" not in text:
        text = f"{default_scheme}://{text}"
    scheme, _, rest = text.partition("://")
    authority, _, path = rest.partition("/")
    if "@" in rest:
        raise ValueError("it holds a user; a token or a certificate says who we are")
    if "?" in rest or "#" in rest or not (rest.isascii() and rest.isprintable()) or " " in rest:
        raise ValueError("it has more than scheme, host, port and path")
    if authority and (authority.endswith("]") or ":" not in authority):
        authority += ":80" if scheme.lower() == "http" else ":443"
    endpoint = parse_endpoint(f"{scheme}://{authority}")
    path = path.rstrip("/")
    return ApiServer(endpoint.scheme, endpoint.host, endpoint.port, f"/{path}" if path else "")


def _find_base(said: Mapping[str, Setting], environ: Environ) -> tuple[str, dict[str, Setting]]:
    """Where the settings come from, and those of the kubeconfig or of the pod."""
    kubeconfig, inline = said["kubeconfig"], said["kubeconfig_inline"]
    if inline.text:
        return inline.name, read_kubeconfig("", inline.text, inline.name, said["context"].text)
    if path := kubeconfig.text:
        name = f"kubeconfig {path}"
        return name, read_kubeconfig(path, "", name, said["context"].text)
    if said["server"].text:
        return said["server"].name, {}
    host = read_variable(environ, "KUBERNETES_SERVICE_HOST")
    port = read_variable(environ, "KUBERNETES_SERVICE_PORT")
    token, ca = SERVICE_ACCOUNT + "/token", SERVICE_ACCOUNT + "/ca.crt"
    if not host or not port or not _is_there(token):
        return "", {}
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    found = {
        "server": Setting("KUBERNETES_SERVICE_HOST", server, EnvironmentInvalid),
        "token_file": Setting("the pod's token", token),
    }
    if _is_there(ca):
        found["ca_file"] = Setting("the pod's CA", ca)
    return f"the service account in {SERVICE_ACCOUNT}", found


def _override(found: dict[str, Setting], said: Mapping[str, Setting]) -> None:
    """Let what is set on its own take the place of what a kubeconfig says, as client-go does."""
    if server := said["server"].text:
        # The full URL of an API was asked for once.
        server = server.partition("/api/")[0]
        found["server"] = replace(said["server"], text=server)
        found.pop("tls_server_name", None)
    insecure = _parse_flag(said["insecure"])
    if said["ca_file"].text or insecure:
        for part in ("ca", "ca_file", "insecure"):
            found.pop(part, None)
        if insecure:
            found["insecure"] = said["insecure"]
    for part, other in (
        ("ca_file", "ca"),
        ("cert_file", "cert"),
        ("key_file", "key"),
        ("token", "token_file"),
    ):
        if said[part].text:
            found[part] = said[part]
            found.pop(other, None)


def _parse_credentials(found: Mapping[str, Setting], *, for_removal: bool) -> Credentials:
    """Texts before files; a certificate has its key."""
    for part in ("ca_file", "cert_file", "key_file"):
        if part in found and "-----BEGIN" in found[part].text:
            setting = found[part]
            raise setting.error(f"{setting.name} holds a PEM text, but must be the path of a file")
    cert, key = (found.get(part) or found.get(part + "_file") for part in ("cert", "key"))
    left_out: tuple[str, ...] = ()
    if (cert is None) != (key is None):
        there, other = (cert, "key") if cert is not None else (key, "certificate")
        if not for_removal and there is not None:
            message = f"{there.name} is set, but there is no client {other} for it"
            raise there.error(message, "set both, or neither")
        left_out = ("cert", "key", "cert_file", "key_file")

    def text(part: str) -> str:
        return found[part].text if part in found and part not in left_out else ""

    def file(part: str) -> str:
        return "" if part in found else text(part + "_file")

    return Credentials(file("ca"), file("cert"), file("key"), text("ca"), text("cert"), text("key"))


def _parse_server(setting: Setting, default_scheme: str) -> ApiServer:
    try:
        return parse_api_server(setting.text, default_scheme)
    except ValueError as error:
        shown = quote_ascii(setting.text[:60])
        what = "not shown, as it may hold a password" if "@" in setting.text else shown
        message = f"{setting.name} is {what}: {error}"
        raise setting.error(message, "it must be a URL such as https://10.0.0.1:6443") from None


def _parse_token(setting: Setting) -> str:
    """A token goes into a line of the request's header, so it must not have an end."""
    token = setting.text.strip()
    if token.isascii() and token.isprintable() and " " not in token:
        return token
    message = f"{setting.name} is not a token"
    raise setting.error(message, "a token has neither blanks nor line ends, nor letters but ASCII")


def _parse_group(setting: Setting) -> str:
    if not setting.text or setting.text in API_GROUPS:
        return setting.text
    message = f"{setting.name} is {quote_ascii(setting.text[:60])}"
    raise setting.error(message, f"it must be {' or '.join(API_GROUPS)}")


def _parse_flag(setting: Setting) -> bool:
    """As Go's ParseBool."""
    if setting.text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if setting.text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    message = f"{setting.name} is {quote_ascii(setting.text[:60])}"
    raise setting.error(message, "it must be true or false")


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True
