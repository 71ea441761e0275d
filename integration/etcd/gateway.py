"""etcd's v3 JSON gateway, asked over HTTP with the standard library."""

from __future__ import annotations

import base64
import http.client
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from integration.etcd.certificates import Certificates

# A member that has just come back to the others takes seconds to agree with them on a read.
ANSWER_SECONDS = 10.0


class GatewayError(Exception):
    """The JSON gateway has answered with an error: its HTTP `status` and its `text`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


def encode(text: str) -> str:
    """A key or value as the JSON gateway wants it."""
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    """A key or value as it is, from the JSON gateway's answer."""
    return base64.b64decode(text).decode()


def end_of_prefix(prefix: str) -> str:
    """The end of the range of keys that begin with `prefix`, encoded."""
    return encode(prefix[:-1] + chr(ord(prefix[-1]) + 1))


def request(
    url: str,
    method: str,
    path: str,
    body: str | None,
    headers: dict[str, str],
    tls: Certificates | None,
    seconds: float = ANSWER_SECONDS,
) -> tuple[int, str]:
    """The status and text of an answer; raises OSError or HTTPException if there is none."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    place = (parts.hostname, parts.port)
    connection = (
        http.client.HTTPSConnection(*place, timeout=seconds, context=_context(tls))
        if tls
        else http.client.HTTPConnection(*place, timeout=seconds)
    )
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _context(tls: Certificates) -> ssl.SSLContext:
    """Comes with the client's certificate and takes any: also one that has expired is polled."""
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(tls.client.cert, tls.client.key)
    return context
