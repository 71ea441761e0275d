"""Requests to a Kubernetes API server: as whom, how long, and what its answers mean.

One connection, kept alive. A server that is away or has too much to do is asked again for a while
(it restarts within seconds), all within a budget: that of the whole process if it is short-lived,
as a runtime gives up after 90 s, else that of one request. A token that rotates in its file is
read again when the server refuses it.

A write whose answer is lost (LostAnswer) may have been applied. It is never repeated here: who
wrote must read first.
"""

from __future__ import annotations

import time

from cni_ipam.errors import (
    DatastoreUnavailable,
    EnvironmentInvalid,
    FileUnreadable,
    InputOutputError,
    NetconfError,
    Unauthorized,
)
from cni_ipam.lean.http import Answer, Connection, Failed, Request, split_lines
from cni_ipam.lean.json import dumps, loads, quote_ascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cni_ipam.cni.kubernetes_settings import KubernetesSettings
    from cni_ipam.lean.tls import Tls

    Json = dict[str, Any]


BUDGET_SECONDS = 90.0
RETRY_SECONDS = 10.0
# The API server gives up a request of ours after 60 s, and much earlier one that etcd delays.
ANSWER_SECONDS = 20.0
CONNECT_SECONDS = 4.0
PAGE_LIMIT = 500
_LONGEST_PAUSE_SECONDS = 1.0
_MAX_TOKEN_BYTES = 1 << 20
_OK, _FIRST_REDIRECTION, _UNAUTHENTICATED = 200, 300, 401
_CHANGES = frozenset(["ADDED", "MODIFIED", "DELETED"])
_PASSING = frozenset([429, 500, 502, 503, 504])
_UNKNOWN_FIELD = 'unknown field "'
_PARTS = {"ca": "certificate-authority", "cert": "client-certificate", "key": "client-key"}


class LostAnswer(Exception):
    """A write may have been applied or not."""


class Refused(Exception):
    """The API server's own answer to one object: `status` 404, 409 or 410, and its `reason`."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class UnknownFields(InputOutputError):
    """The API server's definition lacks `fields` of an object, which was to be kept whole."""

    def __init__(self, fields: list[str], message: str) -> None:
        names = ", ".join(fields)
        super().__init__(
            f"the API server refuses the request: {message}",
            f"its definition is older than {names}: apply conf/crds, or leave out {names}",
        )
        self.fields = fields


class Interrupted(Exception):
    """A watch has ended; it can be begun again."""


class _Unserved(Exception):
    """No answer, or none that counts; the same request may be served later."""

    def __init__(
        self,
        why: str,
        *,
        is_sent: bool = False,
        is_final: bool = False,
        pause_seconds: float = 0.0,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.is_sent = is_sent
        self.is_final = is_final
        self.pause_seconds = pause_seconds


class KubernetesClient:
    """Asks one API server. Not for two threads at once, but for `close` and watches."""

    def __init__(
        self,
        access: KubernetesSettings,
        *,
        budget_seconds: float | None = None,
        is_short_lived: bool = False,
    ) -> None:
        self._access = access
        self._budget_seconds = BUDGET_SECONDS if budget_seconds is None else budget_seconds
        self._is_short_lived = is_short_lived
        self._deadline = 0.0
        self._token: str | None = None
        self._tls: Tls | None = None
        self._connection: Connection | None = None
        self._streams: list[Connection] = []
        self._is_closed = False

    def ask(self, method: str, path: str, document: Json | None = None) -> Json:
        """The object that the API server answers. Raises Refused, LostAnswer (a write's alone),
        DatastoreUnavailable, Unauthorized, InputOutputError, NetconfError."""
        body = b"" if document is None else dumps(document).encode()
        deadline = self._find_deadline()
        retry_until = min(time.monotonic() + RETRY_SECONDS, deadline)
        tries = 0
        while True:
            try:
                return self._ask(method, path, body, deadline)
            except _Unserved as failure:
                if method != "GET" and failure.is_sent:
                    raise LostAnswer(failure.why) from failure
                tries += 1
                self._pause(tries, retry_until, failure)

    def get_page(self, path: str, selector: str, limit: int, following: str = "") -> Json:
        """A list of at most `limit` objects; `following` is what the page before it says of the
        next one. Raises as `ask`."""
        return self.ask(
            "GET", path + _query(limit=limit, labelSelector=selector, **{"continue": following})
        )

    def is_served(self, path: str) -> bool:
        """Whether there is anything at `path`. Raises as `ask`."""
        try:
            self.ask("GET", path)
        except Refused:
            return False
        return True

    def find(self, path: str) -> Json | None:
        """The object at `path`; None if there is none. Raises as `ask`."""
        try:
            return self.ask("GET", path)
        except Refused as refused:
            if refused.status == 404 and refused.reason == "NotFound":
                return None
            raise

    def get_pod(self, namespace: str, name: str) -> Json:
        """A pod. Raises DatastoreUnavailable if there is none, and as `ask`."""
        place = f"/api/v1/namespaces/{quote_name(namespace)}/pods"
        return self._get(f"{place}/{quote_name(name, 'K8S_POD_NAME')}")

    def get_namespace(self, name: str) -> Json:
        """A namespace. Raises as `get_pod`."""
        return self._get(f"/api/v1/namespaces/{quote_name(name)}")

    def watch(self, path: str, selector: str, revision: str) -> Iterator[Json]:
        """The events of a list since a revision, over a connection of its own. Raises Interrupted
        when the API server ends it or knows the revision no more, Unauthorized."""
        connection = Connection(self._access.server.endpoint, self._find_tls())
        self._streams.append(connection)
        query = _query(watch=1, labelSelector=selector, resourceVersion=revision)
        request = Request("GET", self._access.server.path + path + query, self._headers())
        until = time.monotonic() + ANSWER_SECONDS
        try:
            if self._is_closed:
                raise Interrupted
            status, pieces = connection.stream(request, CONNECT_SECONDS, until)
            if status == _UNAUTHENTICATED:
                raise Interrupted  # the list that follows reads the token anew, or tells
            if status != _OK:
                _read(Answer(status, b"".join(pieces), {}))
            for event in map(loads, split_lines(pieces)):
                if event.get("type") not in _CHANGES:
                    raise Interrupted
                yield event
        except (Failed, Refused, _Unserved, ValueError) as failure:
            raise Interrupted from failure
        finally:
            self._streams.remove(connection)
            connection.close()
        raise Interrupted

    def close(self) -> None:
        """Let go of all connections; watches end."""
        self._is_closed = True
        for stream in list(self._streams):
            stream.interrupt()
        if self._connection is not None:
            self._connection.close()

    def _get(self, path: str) -> Json:
        try:
            return self.ask("GET", path)
        except Refused as refused:
            raise DatastoreUnavailable(
                refused.message, "the call can be repeated once it is there"
            ) from refused

    def _find_deadline(self) -> float:
        if not self._is_short_lived or not self._deadline:
            self._deadline = time.monotonic() + self._budget_seconds
        return self._deadline

    def _ask(self, method: str, path: str, body: bytes, deadline: float) -> Json:
        """One try, or two if the token has rotated. Raises _Unserved, and as `ask`."""
        answer = self._exchange(method, path, body, deadline)
        if answer.status == _UNAUTHENTICATED and self._access.token_file:
            former, self._token = self._token, None
            if self._read_token() != former:
                answer = self._exchange(method, path, body, deadline)
        return _read(answer)

    def _exchange(self, method: str, path: str, body: bytes, deadline: float) -> Answer:
        if self._connection is None:
            self._connection = Connection(self._access.server.endpoint, self._find_tls())
        if " " in path or not path.isprintable():  # it would end the request's first line
            raise InputOutputError(f"{quote_ascii(path[:200])} cannot be asked for")
        request = Request(method, self._access.server.path + path, self._headers(), body)
        until = min(time.monotonic() + ANSWER_SECONDS, deadline)
        try:
            return self._connection.ask(request, CONNECT_SECONDS, until)
        except Failed as failed:
            raise _Unserved(
                failed.why, is_sent=failed.is_sent, is_final=failed.is_untrusted
            ) from failed

    def _headers(self) -> str:
        lines = "Accept: application/json\r\nContent-Type: application/json\r\n"
        token = self._read_token()
        return f"{lines}Authorization: Bearer {token}\r\n" if token else lines

    def _read_token(self) -> str:
        """The token, from its file if it has one. Raises FileUnreadable, NetconfError."""
        if self._token is not None:
            return self._token
        self._token = self._access.token
        file = self._access.token_file
        if file:
            try:
                with open(file, "rb") as stream:
                    text = stream.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "it is not a token"
                raise FileUnreadable(f"cannot read the token file {file}: {why}") from error
            if not text or not text.isprintable() or " " in text:
                raise NetconfError(f"the token file {file} holds no token", "it must hold one line")
            self._token = text
        return self._token

    def _find_tls(self) -> Tls | None:
        """What encrypted connections share. Raises FileUnreadable, NetconfError."""
        access = self._access
        if self._tls is None and access.server.endpoint.scheme == "https":
            from cni_ipam.lean.tls import BadCredentials, Tls

            try:
                self._tls = Tls(
                    access.credentials,
                    server_name=access.tls_server_name,
                    verifies=not access.is_insecure,
                )
            except BadCredentials as bad:
                part = _PARTS[bad.part]
                path = getattr(access.credentials, f"{bad.part}_file") or "(a text)"
                where = f"{part} {path} of {access.origin}"
                if bad.is_unreadable:
                    raise FileUnreadable(f"cannot read {where}: {bad.why}") from bad
                raise NetconfError(f"{where}: {bad.why}", "it must be in PEM") from bad
        return self._tls

    def _pause(self, tries: int, retry_until: float, failure: _Unserved) -> None:
        """Wait for the next try. Raises DatastoreUnavailable or Unauthorized if there is none."""
        pause = failure.pause_seconds or min(0.05 * 2**tries, _LONGEST_PAUSE_SECONDS)
        if not failure.is_final and time.monotonic() + pause < retry_until:
            time.sleep(pause)
            return
        server = self._access.server.endpoint
        if failure.is_final:
            raise Unauthorized(
                f"connection is unauthorized: {server}: {failure.why}",
                f"{self._access.origin} says whom to trust and who we are",
            )
        raise DatastoreUnavailable(
            f"the API server {server} does not serve: {failure.why}",
            f"{self._access.origin} names it; the same call can succeed later",
        )


def _read(answer: Answer) -> Json:
    """The object of an answer. Raises what an error of the API server means."""
    try:
        document = loads(answer.body)
    except ValueError:
        document = None
    is_object = isinstance(document, dict)
    if not isinstance(document, dict):
        text = "".join([c for c in answer.body[:120].decode("latin-1") if c.isprintable()])
        document = {"message": f"HTTP {answer.status}: {text}"}
    if answer.status < _FIRST_REDIRECTION:
        if is_object and isinstance(document.get("kind"), str):
            return document
        message = document.get("message") or f"HTTP {answer.status} without an object"
        raise _Unserved(f"not an API server of Kubernetes ({message!s:.200})", is_sent=True)
    message = str(document.get("message") or f"HTTP {answer.status}")
    if answer.status in (_UNAUTHENTICATED, 403):
        raise Unauthorized(
            f"connection is unauthorized: {message}",
            "the API server does not know us: the token or the certificate may have expired"
            if answer.status == _UNAUTHENTICATED
            else "conf/rbac.yaml and conf/rbac-default-pools.yaml have the roles that we need",
        )
    if answer.status in (404, 409, 410):
        raise Refused(answer.status, str(document.get("reason", "")), message)
    if answer.status in _PASSING:
        # Of these only 429 says that nothing was done.
        raise _Unserved(message, is_sent=answer.status != 429, pause_seconds=_find_pause(answer))
    unknown = [part.partition('"')[0] for part in message.split(_UNKNOWN_FIELD)[1:]]
    if unknown and answer.status == 400:
        raise UnknownFields(unknown, message)
    raise InputOutputError(f"the API server refuses the request: {message}")


def _find_pause(answer: Answer) -> float:
    """How long the server asks us to wait."""
    text = answer.fields.get("retry-after", "")
    return float(min(int(text[:6]), 60)) if text.isascii() and text.isdigit() else 0.0


def quote_name(name: str, key: str = "K8S_POD_NAMESPACE") -> str:
    """A name as a part of a path. Raises EnvironmentInvalid for one that cannot be, with the `key`
    of CNI_ARGS that said it. With `/` or `%` it cannot: an API server decodes before it splits."""
    is_path = name in ("", ".", "..") or "/" in name or "%" in name
    if is_path or not name.isascii() or not name.isprintable():
        what = "a pod" if key == "K8S_POD_NAME" else "a namespace"
        raise EnvironmentInvalid(
            f"CNI_ARGS: {key} {quote_ascii(name[:80])} is not the name of {what}",
            "a name has lower case letters, digits, '-' and '.'",
        )
    return _quote(name)


def _query(**fields: object) -> str:
    """The end of a path: what is empty is left out."""
    return "?" + "&".join([f"{name}={_quote(str(said))}" for name, said in fields.items() if said])


def _quote(text: str) -> str:
    """A text as part of a path or a query."""
    kept = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
    return "".join([c if c in kept else "".join([f"%{b:02X}" for b in c.encode()]) for c in text])
