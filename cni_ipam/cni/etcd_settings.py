"""How etcd is reached: its members, the certificates and the user, from what settings say.

Only a node whose datastore is etcd imports this. Where each setting comes from is its finder's
business (`cni/settings` for the plugin, `ctl/locate` for calicoctl's config file): here a setting
is a text with the name that its writer knows it by, and with the error that tells him.

What may hold a password is not repeated: neither endpoints of a list with an `@`, nor keys.
"""

from __future__ import annotations

from cni_ipam.errors import UnsupportedError
from cni_ipam.lean.http import Credentials, parse_endpoint
from cni_ipam.lean.json import quote_ascii
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_ipam.cni.settings import Setting
    from cni_ipam.lean.http import Endpoint

_EXAMPLE = "https://10.0.0.1:2379,https://10.0.0.2:2379"
_FILE_KEYS = ("etcd_ca_cert_file", "etcd_cert_file", "etcd_key_file")
_TEXT_KEYS = ("etcd_ca_cert", "etcd_cert", "etcd_key")


@record
class EtcdSettings:
    """The members of etcd, all by http or all by https, each once; "" for what there is not."""

    endpoints: tuple[Endpoint, ...]
    credentials: Credentials = Credentials()
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        """Without secrets, as traces and failing tests show it."""
        return f"EtcdSettings({','.join(map(str, self.endpoints))}, username={self.username!r})"


def parse_etcd(settings: Mapping[str, Setting], *, for_removal: bool = False) -> EtcdSettings:
    """The way to etcd that `settings` describe, by the netconf's keys; etcd_username and
    etcd_password, etcd_ca_cert, etcd_cert and etcd_key (PEM texts) are keys of their own.

    A removal does without half a pair, and without the discovery where endpoints are named.
    Raises the error of the setting that is wrong, or UnsupportedError for etcd_discovery_srv.
    """
    listed, discovery = settings["etcd_endpoints"], settings["etcd_discovery_srv"]
    if discovery.text and not (for_removal and listed.text):
        message = f"{discovery.name} is {_shown(discovery.text)}, which is not supported"
        raise UnsupportedError(message, f"name the servers in {listed.name}")
    # Calico drops a user without a password in silence, and is then refused for another reason.
    username, password = _parse_pair(
        settings["etcd_username"], settings["etcd_password"], for_removal=for_removal
    )
    return EtcdSettings(
        _parse_endpoints(listed),
        _parse_credentials(settings, for_removal=for_removal),
        username,
        password,
    )


def _parse_endpoints(setting: Setting) -> tuple[Endpoint, ...]:
    """Each endpoint of the list once; blanks, empty items and a last slash do no harm."""
    texts = [text for part in setting.text.split(",") if (text := part.strip())]
    if not texts:
        what = quote_ascii(setting.text[:60]) if setting.text else "missing"
        message = f"no etcd endpoints specified: {setting.name} is {what}"
        raise setting.error(message, f"it must be a list such as {_EXAMPLE}")
    endpoints: dict[Endpoint, None] = {}
    for number, text in enumerate(texts, start=1):
        try:
            endpoints[parse_endpoint(text)] = None
        except ValueError as error:
            # A comma in a password leaves a part of it in an item without an @.
            what = _shown(text, within=setting.text)
            message = f"endpoint {number} of {setting.name} is {what}: {error}"
            raise setting.error(message, f"it must be a list such as {_EXAMPLE}") from None
    _require_one_scheme(setting, tuple(endpoints))
    return tuple(endpoints)


def _require_one_scheme(setting: Setting, endpoints: tuple[Endpoint, ...]) -> None:
    first = endpoints[0]
    for other in endpoints:
        if other.scheme != first.scheme:
            message = f"{setting.name} mixes http and https: {first} and {other}"
            right = "all must be https, else data and passwords go in the clear on some"
            raise setting.error(message, right)


def _parse_credentials(settings: Mapping[str, Setting], *, for_removal: bool) -> Credentials:
    """Files or texts, never both; a certificate has its key."""
    files = [settings[key] for key in _FILE_KEYS]
    texts = [settings[key] for key in _TEXT_KEYS if key in settings]
    for file in files:
        if "-----BEGIN" in file.text:
            message = f"{file.name} holds a PEM text, but must be the path of a file"
            raise file.error(message)
        for text in texts:
            if file.text and text.text:
                message = "Cannot mix inline certificate-key and certificate / key files"
                raise text.error(message, f"{text.name} and {file.name} are both set")
    if any(text.text for text in texts):
        ca, cert, key = texts
        inline = _parse_pair(cert, key, for_removal=for_removal)
        return Credentials(ca=ca.text, cert=inline[0], key=inline[1])
    ca, cert, key = files
    return Credentials(ca.text, *_parse_pair(cert, key, for_removal=for_removal))


def _parse_pair(first: Setting, second: Setting, *, for_removal: bool) -> tuple[str, str]:
    """Two settings that go together: both or neither. A removal tries it with neither."""
    if bool(first.text) == bool(second.text):
        return first.text, second.text
    if for_removal:
        return "", ""
    said, missing = (first, second) if first.text else (second, first)
    raise said.error(f"{said.name} is set, but {missing.name} is not", "set both, or neither")


def _shown(text: str, within: str = "") -> str:
    """`text` as a message may show it; nothing of it where a user and a password may stand."""
    if "@" in text or "@" in within:
        return "not shown, as it may hold a password"
    return quote_ascii(text if len(text) <= 60 else text[:60] + "...")
