"""TLS for a client, straight on `_ssl`, the C module that `ssl` wraps.

Saves 11 ms of start-up: a process that imports `_ssl` ran 9.4 ms (median 10.4), one that imports
`ssl`, with enum, socket and base64, 20.1 (22.6), an empty one 6.7 (7.4).

The server proves its name or address, always; no setting turns that off. `_ssl` needs a socket
that can be referred to weakly (`lean.http` makes such), and paths for a client's certificate: a
text is handed over as an anonymous file.
"""

from __future__ import annotations

import _ssl
import posix

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


class BadCredentials(Exception):
    """A certificate or key of ours is no use; `part` is "ca", "cert" or "key". `is_unreadable`
    where its file cannot be read."""

    def __init__(self, part: str, why: str, *, is_unreadable: bool = False) -> None:
        super().__init__(why)
        self.part = part
        self.why = why
        self.is_unreadable = is_unreadable


class Tls:
    """What every connection with the same credentials shares. Raises BadCredentials."""

    def __init__(self, credentials: Credentials) -> None:
        # This protocol demands a certificate of the server, and checks the name in it.
        self._context: Any = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = _ssl.PROTO_TLSv1_2
        self._trust(credentials)
        if credentials.cert_file or credentials.cert:
            self._present(credentials)

    def shake_hands(self, sock: _socket.socket, host: str) -> Any:
        """The encrypted channel over a connected socket, with `read` and `write`."""
        channel = self._context._wrap_socket(sock, False, host)
        channel.do_handshake()
        return channel

    def is_refusal(self, error: OSError) -> bool:
        """Whether one side refused the other's certificate."""
        if isinstance(error, _ssl.SSLCertVerificationError):
            return True
        reason = getattr(error, "reason", None) or ""
        return isinstance(error, _ssl.SSLError) and reason.endswith(_REFUSALS)

    def explain(self, error: OSError) -> str:
        """What is wrong with the certificate that was refused."""
        if isinstance(error, _ssl.SSLCertVerificationError):
            why = getattr(error, "verify_message", str(error))
            return f"the server's certificate is not trusted: {why}"
        reason = (getattr(error, "reason", None) or "").lower().replace("_", " ")
        return f"the server refuses our certificate: {reason}"

    def _trust(self, credentials: Credentials) -> None:
        if not (credentials.ca_file or credentials.ca):
            self._context.set_default_verify_paths()
            return
        if credentials.ca_file:
            _require_readable("ca", credentials.ca_file)
        try:
            self._context.load_verify_locations(
                credentials.ca_file or None, None, credentials.ca or None
            )
        except (OSError, ValueError) as error:
            raise BadCredentials("ca", f"no certificate in PEM ({_reason(error)})") from error

    def _present(self, credentials: Credentials) -> None:
        cert, key = credentials.cert_file, credentials.key_file
        lent = [] if cert else [_lend(credentials.cert), _lend(credentials.key)]
        try:
            if lent:
                cert, key = [f"/proc/self/fd/{descriptor}" for descriptor in lent]
            _require_readable("cert", cert)
            _require_readable("key", key)
            # Without a password OpenSSL would ask at the terminal for that of an encrypted key.
            self._context.load_cert_chain(cert, key, "")
        except (OSError, ValueError) as error:
            reason = _reason(error)
            part, why = ("key", "not the key of the certificate")
            if "MISMATCH" not in reason:
                part, why = ("cert", "no certificate and unencrypted key in PEM")
            raise BadCredentials(part, f"{why} ({reason})") from error
        finally:
            for descriptor in lent:
                posix.close(descriptor)


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def _require_readable(part: str, path: str) -> None:
    try:
        posix.close(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC))
    except OSError as error:
        raise BadCredentials(part, error.strerror or str(error), is_unreadable=True) from error


def _lend(text: str) -> int:
    """The descriptor of an anonymous file with `text`; the caller closes it."""
    descriptor = posix.memfd_create("pem", posix.MFD_CLOEXEC)
    data = text.encode()
    while data:
        data = data[posix.write(descriptor, data) :]
    return descriptor
