"""Requests to etcd's v3 JSON gateway: which member, how long, as whom, and what went wrong.

Any member serves any request. One that fails is left for the next; when all have failed they are
tried again for a while, since an election or a restart is over within seconds. Everything together
stays within a budget: that of the whole process where it is short-lived, as a runtime gives up
after 90 s, else that of one request.

A write whose answer is lost (LostAnswer) may have been applied, or may be yet. It is never
repeated here: who wrote must read first.
"""

from __future__ import annotations

import posix
import time

from cni_ipam.errors import (
    DatastoreUnavailable,
    FileUnreadable,
    InputOutputError,
    NetconfError,
    Unauthorized,
)
from cni_ipam.lean.http import Connection, Failed, Request, split_lines
from cni_ipam.lean.json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

    from cni_ipam.lean.http import Credentials, Endpoint
    from cni_ipam.lean.tls import Tls

    Json = dict[str, Any]

BUDGET_SECONDS = 90.0
RETRY_SECONDS = 10.0
# A member that has lost the others says so itself after at most 7 s.
ANSWER_SECONDS = 10.0
# In a first round a member that does not answer costs little; a slow network has the later ones.
# Processes meet such a member again and again, and under the host's lock others wait for them.
CONNECT_SECONDS = (0.5, 1.0, 2.0, 4.0)
FIRST_ANSWER_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 1.0
_TOKENS = 3
_AUTHENTICATE = "/v3/auth/authenticate"

# Codes of gRPC (https://grpc.io/docs/guides/status-codes)
_DENIED, _EXHAUSTED, _OUT_OF_RANGE, _UNAUTHENTICATED = 7, 8, 11, 16
# Cancelled, unknown, too late, exhausted, internal, unavailable: so says a member that is going
# down, has lost the others, or has too much to do. Another one may serve.
_PASSING = frozenset([1, 2, 4, _EXHAUSTED, 13, 14])
_LAST_CODE = _UNAUTHENTICATED
_KEY_OF_PART = {
    "ca": "etcd_ca_cert_file",
    "cert": "etcd_cert_file",
    "key": "etcd_key_file",
}


class LostAnswer(Exception):
    """A write may have been applied or not."""


class Compacted(Exception):
    """The revision that was asked for is history that etcd no longer has."""


class Interrupted(Exception):
    """A stream has ended; it can be begun again."""


class Canceled(Exception):
    """etcd has ended a watch: the history is gone that it should begin with, the token is no longer
    known, or the permission is missing; which of these, only a read tells on every version."""


class _Expired(Exception):
    """The token is no longer known; another is to be had."""


class _Unserved(Exception):
    """This member cannot serve the request; another, or the same one later, may."""

    def __init__(self, why: str, *, is_sent: bool = False, is_final: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_sent = is_sent
        self.is_final = is_final


class EtcdClient:
    """Posts to whichever member answers. Not for two threads at once, but `close` and streams."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        credentials: Credentials,
        username: str,
        password: str,
        *,
        budget_seconds: float,
        is_short_lived: bool,
    ) -> None:
        self._endpoints = endpoints
        self._credentials = credentials
        self._login = {"name": username, "password": password} if username else None
        self._token = ""
        self._has_users = True
        self._budget_seconds = budget_seconds
        self._is_short_lived = is_short_lived
        self._deadline = 0.0
        self._tls: Tls | None = None
        self._connections: dict[Endpoint, Connection] = {}
        self._streams: list[Connection] = []
        # Process numbers follow one another, so the processes of a node share the members out.
        self._current = posix.getpid() % len(endpoints)

    def post(self, path: str, message: Json, *, is_write: bool = False) -> Json:
        """The answer to `message`. Raises LostAnswer (a write's alone), Compacted,
        DatastoreUnavailable, Unauthorized, InputOutputError, NetconfError."""
        body = dumps(message).encode()
        deadline = self._find_deadline()
        retry_until = min(time.monotonic() + RETRY_SECONDS, deadline)
        failures: dict[Endpoint, _Unserved] = {}
        tries = 0
        while True:
            connect_seconds = CONNECT_SECONDS[min(tries // len(self._endpoints), 3)]
            # A write that is given up too early costs more than waiting for it.
            is_hasty = tries < len(self._endpoints) > 1 and not is_write
            answer_seconds, until = ANSWER_SECONDS, deadline
            if is_hasty:
                answer_seconds = FIRST_ANSWER_SECONDS
                # Whoever has little time has some for each member.
                now = time.monotonic()
                until = now + (deadline - now) / (len(self._endpoints) - tries)
            try:
                return self._ask(path, body, connect_seconds, answer_seconds, until)
            except _Unserved as failure:
                failures[self._endpoint] = failure
                self.move_on()
                if is_write and failure.is_sent:
                    raise LostAnswer(failure.why) from failure
            tries += 1
            if tries % len(self._endpoints) == 0 or time.monotonic() >= deadline:
                _pause(tries // len(self._endpoints), retry_until, failures)

    def stream(self, path: str, message: Json) -> Iterator[Json]:
        """The results to `message` as they come, over a connection of their own, in another thread
        if need be. Raises Interrupted when no more can come, Canceled, and as `post`."""
        connection = Connection(self._endpoint, self._find_tls())
        self._streams.append(connection)
        until = time.monotonic() + ANSWER_SECONDS
        # A member that loses the others ends the stream then, instead of falling silent.
        headers = self._headers() + "Grpc-Metadata-hasleader: true\r\n"
        body = dumps(message).encode()
        try:
            request = Request("POST", path, headers, body)
            status, pieces = connection.stream(request, CONNECT_SECONDS[-1], until)
            for line in split_lines(pieces):
                answer = _parse(status, line)
                if "result" not in answer:
                    self._refuse(answer.get("error", answer))
                if answer["result"].get("canceled"):
                    raise Canceled
                yield answer["result"]
        except _Expired as expired:
            raise Canceled from expired
        except (Failed, _Unserved) as failure:
            self._forget_tls(failure)
            raise Interrupted from failure
        finally:
            self._streams.remove(connection)
            connection.close()
        raise Interrupted

    def log_in(self) -> None:
        """Have a token, if there is a user to have one for. Raises as `post`."""
        if self._login is None or self._token or not self._has_users:
            return
        try:
            self._token = str(self.post(_AUTHENTICATE, self._login).get("token", ""))
        except _NoUsers:
            # Calico's client goes on without a token, too; a later refusal makes us ask again.
            self._has_users = False

    def move_on(self) -> None:
        """Ask another member from now on."""
        self._current += 1

    def close(self) -> None:
        """Let go of all connections; streams end."""
        for stream in list(self._streams):
            stream.interrupt()
        for connection in self._connections.values():
            connection.close()

    @property
    def _endpoint(self) -> Endpoint:
        return self._endpoints[self._current % len(self._endpoints)]

    def _find_deadline(self) -> float:
        if not self._is_short_lived or not self._deadline:
            self._deadline = time.monotonic() + self._budget_seconds
        return self._deadline

    def _ask(
        self,
        path: str,
        body: bytes,
        connect_seconds: float,
        answer_seconds: float,
        deadline: float,
    ) -> Json:
        """One member's answer. Raises _Unserved, and as `post`."""
        for _ in range(_TOKENS):
            if path != _AUTHENTICATE:
                self.log_in()
            connection = self._connections.get(self._endpoint)
            if connection is None:
                connection = Connection(self._endpoint, self._find_tls())
                self._connections[self._endpoint] = connection
            until = min(time.monotonic() + connect_seconds + answer_seconds, deadline)
            try:
                request = Request("POST", path, self._headers(), body)
                answer = connection.ask(request, connect_seconds, until)
            except Failed as failed:
                self._forget_tls(failed)
                raise _Unserved(
                    failed.why, is_sent=failed.is_sent, is_final=failed.is_untrusted
                ) from failed
            message = _parse(answer.status, answer.body)
            if "header" in message:
                return message
            try:
                self._refuse(message)
            except _Expired:
                self._token, self._has_users = "", True
        raise Unauthorized(
            "connection is unauthorized: etcd refuses each token that it has just given",
            "compare the logs of its members",
        )

    def _headers(self) -> str:
        return f"Authorization: {self._token}\r\n" if self._token else ""

    def _find_tls(self) -> Tls | None:
        """What encrypted connections share. Raises FileUnreadable, NetconfError."""
        # A stream in another thread may forget it meanwhile.
        tls = self._tls
        if tls is None and self._endpoint.scheme == "https":
            from cni_ipam.lean.tls import BadCredentials, Tls

            try:
                tls = self._tls = Tls(self._credentials)
            except BadCredentials as bad:
                key = _KEY_OF_PART[bad.part]
                path = getattr(self._credentials, f"{bad.part}_file") or "(a text)"
                if bad.is_unreadable:
                    raise FileUnreadable(f"cannot read {key} {path}: {bad.why}") from bad
                raise NetconfError(
                    f"{key} {path}: {bad.why}", "it must hold what its name says, in PEM"
                ) from bad
        return tls

    def _forget_tls(self, failure: Exception) -> None:
        """Whoever was not trusted may have another certificate by the next request."""
        if isinstance(failure, Failed) and failure.is_untrusted:
            self._tls = None
            self._connections.pop(self._endpoint, None)

    def _refuse(self, message: Json) -> NoReturn:
        """Raises what etcd's error means."""
        text = str(message.get("message") or message.get("error") or "no reason given")
        code = message.get("code", message.get("grpc_code"))
        if "authentication is not enabled" in text:
            raise _NoUsers
        if code == _UNAUTHENTICATED or "revision of auth store is old" in text:
            raise _Expired if self._login else _unauthorized(text)
        if "user name is empty" in text and self._login and not self._has_users:
            raise _Expired
        if code == _DENIED or "user name is empty" in text or "authentication failed" in text:
            raise _unauthorized(text)
        if code == _OUT_OF_RANGE and "compacted" in text:
            raise Compacted
        if code == _EXHAUSTED and "space exceeded" in text:
            raise DatastoreUnavailable(
                f"etcd is full: {text}",
                "compact and defragment it, then `etcdctl alarm disarm`; reading works meanwhile",
            )
        # What a member that learns as yet says, which is code 9 from etcd 3.6 on.
        if code in _PASSING or "not supported for learner" in text:
            raise _Unserved(text, is_sent=True)
        raise InputOutputError(f"etcd refuses the request: {text}")


def _pause(rounds: int, retry_until: float, failures: dict[Endpoint, _Unserved]) -> None:
    """Wait for the next round. Raises DatastoreUnavailable or Unauthorized if there is none."""
    pause = min(0.05 * 2**rounds, _LONGEST_PAUSE_SECONDS)
    is_final = all(failure.is_final for failure in failures.values())
    if not is_final and time.monotonic() + pause < retry_until:
        time.sleep(pause)
        return
    each = "; ".join([f"{endpoint}: {failure.why}" for endpoint, failure in failures.items()])
    if is_final:
        raise Unauthorized(
            f"connection is unauthorized: {each}",
            "etcd_ca_cert_file names whom to trust, etcd_cert_file and etcd_key_file who we are;"
            " the server's certificate must name the host of its endpoint",
        )
    raise DatastoreUnavailable(
        f"etcd does not serve: {each}",
        "etcd_endpoints names its members, by https:// where they use TLS; the same call can"
        " succeed later",
    )


class _NoUsers(Exception):
    """etcd has no users, or does not ask for them."""


def _unauthorized(text: str) -> Unauthorized:
    return Unauthorized(
        f"connection is unauthorized: {text}",
        "ETCD_USERNAME and ETCD_PASSWORD name the user, who needs to read and write /calico/ and"
        " /cni-ipam/",
    )


def _parse(status: int, body: bytes) -> Json:
    """The JSON object that a member answered. Raises _Unserved, Unauthorized."""
    try:
        message = loads(body)
    except ValueError:
        message = None
    if isinstance(message, dict) and _is_etcds(message):
        return message
    text = "".join([c for c in body[:160].decode("latin-1") if c.isprintable()])
    if "CommonName of client" in text:
        raise Unauthorized(
            f"connection is unauthorized: {text}",
            "where etcd has users, its JSON gateway takes no certificate with a common name (CN):"
            " give etcd_cert_file one without",
        )
    raise _Unserved(
        f"not the JSON gateway of etcd 3.4 or newer (HTTP {status}: {text})", is_sent=status >= 500
    )


def _is_etcds(message: Json) -> bool:
    """Whether it is an answer of etcd's, a piece of a stream, or an error. Those of Kubernetes'
    server have a message and a code, too, but that of HTTP."""
    if isinstance(message.get("header", message.get("result")), dict):
        return True
    error = message.get("error")
    if not isinstance(error, dict):
        error = message
    return error.get("code", error.get("grpc_code")) in range(_LAST_CODE + 1)
