"""TLS for a client, straight on `_ssl`, the C module that `ssl` wraps.

Saves 11 ms of start-up: a process that imports `_ssl` ran 9.4 ms (median 10.4), one that imports
`ssl`, with enum, socket and base64, 20.1 (22.6), an empty one 6.7 (7.4).

The server proves its name or address, unless an operator says that it need not. `_ssl` needs a
socket that can be referred to weakly (`lean.http` makes such), and paths for certificates:
everything is handed over as an anonymous file, so a pipe or a device in its place is not waited
for.
"""

from __future__ import annotations

import _ssl
import posix
from errno import ECONNRESET, EFBIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from cni_ipam.lean.http import Credentials

# What OpenSSL calls the alerts with which a server refuses our certificate, or the lack of one.
_REFUSALS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "UNSUPPORTED_CERTIFICATE",
    "ACCESS_DENIED",
)
# What it calls that a server speaks no TLS, or none in common with us.
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNSUPPORTED_PROTOCOL",
    "ALERT_PROTOCOL_VERSION",
    "HANDSHAKE_FAILURE",
)
_NO_CERTIFICATE = "there is no certificate in PEM in it"
_MAX_FILE_BYTES = 1 << 24


class BadCredentials(Exception):
    """A certificate or key of ours is no use; `part` is "ca", "cert" or "key". `is_unreadable`
    where its file cannot be read."""

    def __init__(self, part: str, why: str, *, is_unreadable: bool = False) -> None:
        super().__init__(why)
        self.part = part
        self.why = why
        self.is_unreadable = is_unreadable


class Tls:
    """What every connection with the same credentials shares. Raises BadCredentials.

    `server_name` is the name that the server's certificate must have, by default the host's. Only
    an operator who says `verifies=False` is content with any certificate."""

    def __init__(
        self, credentials: Credentials, *, server_name: str = "", verifies: bool = True
    ) -> None:
        self._server_name = server_name
        # This protocol demands a certificate of the server, and checks the name in it.
        self._context: Any = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        if not verifies:
            self._context.check_hostname = False
            self._context.verify_mode = _ssl.CERT_NONE
        self._context.minimum_version = _ssl.PROTO_TLSv1_2
        # As Go: whoever stands in the CA's file is trusted, be it a root or not.
        self._context.verify_flags |= _ssl.VERIFY_X509_PARTIAL_CHAIN
        self._trust(credentials)
        if credentials.cert_file or credentials.cert:
            self._present(credentials)

    def shake_hands(self, sock: _socket.socket, host: str) -> Any:
        """The encrypted channel over a connected socket, with `read` and `write`."""
        # Neither SNI nor the names in certificates have DNS's final dot.
        name = (self._server_name or host).removesuffix(".")
        channel = self._context._wrap_socket(sock, False, name)
        try:
            channel.do_handshake()
        except (_ssl.SSLEOFError, _ssl.SSLZeroReturnError):
            why = "the server hung up during the TLS handshake"
            raise ConnectionResetError(ECONNRESET, why) from None
        return channel

    def is_refusal(self, error: OSError) -> bool:
        """Whether one side refused the other, so that the same attempt would fail again."""
        if isinstance(error, _ssl.SSLCertVerificationError):
            return True
        return isinstance(error, _ssl.SSLError) and _reason(error).endswith(_REFUSALS + _NO_TLS)

    def explain(self, error: OSError) -> str:
        """What is wrong with the certificate, or with the server, that was refused."""
        if isinstance(error, _ssl.SSLCertVerificationError):
            why = getattr(error, "verify_message", str(error))
            return f"the server's certificate is not trusted: {why}"
        reason = _reason(error)
        why = reason.rpartition("ALERT_")[2].lower().replace("_", " ")
        if reason.endswith(_REFUSALS):
            return f"the server refuses our certificate: {why}"
        return f"the server does not speak TLS, or none in common with us: {why}"

    def _trust(self, credentials: Credentials) -> None:
        if not (credentials.ca_file or credentials.ca):
            self._context.set_default_verify_paths()
            return
        with _Lent(_find_text("ca", credentials.ca_file, credentials.ca)) as path:
            try:
                self._context.load_verify_locations(path, None, None)
            except OSError as error:
                raise BadCredentials("ca", _NO_CERTIFICATE) from error

    def _present(self, credentials: Credentials) -> None:
        cert = _find_text("cert", credentials.cert_file, credentials.cert)
        key = _find_text("key", credentials.key_file, credentials.key)
        with _Lent(cert) as cert_path, _Lent(key) as key_path:
            try:
                # Without a password OpenSSL would ask at the terminal for that of a key.
                self._context.load_cert_chain(cert_path, key_path, "")
            except (OSError, ValueError) as error:
                raise _find_culprit(cert_path, key, error) from error


class _Lent:
    """Inside of `with` the path of an anonymous file that holds `text`."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._descriptor = -1

    def __enter__(self) -> str:
        self._descriptor = posix.memfd_create("pem", posix.MFD_CLOEXEC)
        data = self._text
        while data:
            data = data[posix.write(self._descriptor, data) :]
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, _kind: object, _error: object, _trace: object) -> None:
        posix.close(self._descriptor)


def _find_culprit(cert_path: str, key: bytes, error: Exception) -> BadCredentials:
    """Which of the two it is that cannot be used."""
    try:
        _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert_path, None, None)
    except OSError:
        return BadCredentials("cert", _NO_CERTIFICATE)
    if "MISMATCH" in _reason(error):
        return BadCredentials("key", "not the key of the certificate")
    if b"ENCRYPTED" in key:
        return BadCredentials("key", "it is encrypted, and nobody is there to ask for its password")
    return BadCredentials("key", "there is no private key in PEM in it")


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or ""


def _find_text(part: str, path: str, text: str) -> bytes:
    """What the file holds, or else `text`. Raises BadCredentials."""
    if not path:
        return text.encode("utf-8", "surrogateescape")
    pieces = []
    left = _MAX_FILE_BYTES
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        try:
            while piece := posix.read(descriptor, 65_536):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise OSError(EFBIG, "it is too large for what its name says")
        finally:
            posix.close(descriptor)
    except OSError as error:
        raise BadCredentials(part, error.strerror or str(error), is_unreadable=True) from error
    return b"".join(pieces)
