"""What the client makes of answers that a real etcd gives too rarely to wait for."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from cni_ipam.datastore import etcd_client
from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import (
    Conflict,
    DatastoreUnavailable,
    InputOutputError,
    Unauthorized,
)
from cni_ipam.lean.http import Endpoint
from tests.lean.servers import RESET, SILENCE, ScriptedServer, answer

READ = [Range("/a")]
WRITES = [Write("/a", "1", ABSENT)]
HEADER = {"header": {"revision": "7"}}
NOTHING = {**HEADER, "succeeded": True, "responses": [{"response_range": {}}]}
APPLIED = {**HEADER, "succeeded": True, "responses": [{"response_put": HEADER}]}
# "/a" and "1" in base64
OURS = {"kvs": [{"key": "L2E=", "value": "MQ==", "mod_revision": "7"}]}
THEIRS = {"kvs": [{"key": "L2E=", "value": "Mg==", "mod_revision": "6"}]}


def ok(document: dict[str, Any]) -> bytes:
    return answer(json.dumps(document).encode())


def found(response: dict[str, Any]) -> bytes:
    """The answer to a read of one key."""
    return ok({**HEADER, "succeeded": True, "responses": [{"response_range": response}]})


def lost_swap(response: dict[str, Any]) -> bytes:
    """The answer to a commit whose comparison failed."""
    return ok({**HEADER, "responses": [{"response_range": response}]})


def refusal(code: int, text: str, status: str = "400 Bad Request") -> bytes:
    message = {"error": text, "message": text, "code": code}
    return answer(json.dumps(message).encode(), status)


UNAVAILABLE = refusal(14, "etcdserver: no leader", "503 Service Unavailable")


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Failures that last are tried again for a short while only."""
    monkeypatch.setattr(etcd_client, "RETRY_SECONDS", 0.6)


def open_store(*servers: ScriptedServer, **options: Any) -> EtcdDatastore:
    """A client whose first member is the first of `servers`."""
    store = EtcdDatastore([server.endpoint for server in servers], **options)
    store._client._current = 0
    return store


def read_through(*script: bytes, **options: Any) -> tuple[list[list[Any]], ScriptedServer]:
    with ScriptedServer(script) as server:
        store = open_store(server, **options)
        entries = store.read(READ)
        store.close()
    return entries, server


def fail_to_read(*script: bytes, **options: Any) -> Exception:
    with ScriptedServer(script) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(etcd_client, "RETRY_SECONDS", 0.6)
        store = open_store(server, **options)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at it
            store.read(READ)
        store.close()
    return caught.value


class TestReads:
    """A read may be asked again, of any member."""

    def test_the_next_member_is_asked(self) -> None:
        """A member that resets the connection is left for the other."""
        with ScriptedServer([RESET]) as bad, ScriptedServer([ok(NOTHING), ok(NOTHING)]) as good:
            store = open_store(bad, good)
            assert [[[]], [[]]] == [store.read(READ), store.read(READ)]
            store.close()
        assert (1, 2) == (len(bad.requests), len(good.requests))

    def test_a_silent_member_is_soon_left_for_the_next(self, monkeypatch) -> None:
        """One that takes a request and never answers costs a read little, where there are more."""
        monkeypatch.setattr(etcd_client, "FIRST_ANSWER_SECONDS", 0.1)
        started = time.monotonic()
        with ScriptedServer([SILENCE]) as bad, ScriptedServer([ok(NOTHING)]) as good:
            store = open_store(bad, good)
            assert [[]] == store.read(READ)
            store.close()
        assert (1, 1) == (len(bad.requests), len(good.requests))
        assert time.monotonic() - started < 3

    def test_a_short_budget_is_shared_among_the_members(self) -> None:
        """Two silent ones leave the third its part, as of the little time that a STATUS has."""
        with (
            ScriptedServer([SILENCE]) as first,
            ScriptedServer([SILENCE]) as second,
            ScriptedServer([ok(NOTHING)]) as good,
        ):
            store = open_store(first, second, good, budget_seconds=3.0, is_short_lived=True)
            assert [[]] == store.read(READ)
            store.close()

    def test_an_election_is_waited_for(self) -> None:
        """Without a leader the request is repeated."""
        entries, server = read_through(UNAVAILABLE, UNAVAILABLE, ok(NOTHING))
        assert ([[]], 3) == (entries, len(server.requests))

    @pytest.mark.parametrize(
        ("code", "text"),
        [
            (1, "grpc: the client connection is closing"),
            (2, "raft: stopped"),
            (4, "context deadline exceeded"),
            (8, "etcdserver: too many requests"),
            (13, "unexpected EOF"),
        ],
    )
    def test_what_a_member_says_while_it_goes_down_is_passed_over(self, code, text) -> None:
        """The request is repeated."""
        script = (refusal(code, text, "500 Internal Server Error"), ok(NOTHING))
        assert [[]] == read_through(*script)[0]

    @pytest.mark.usefixtures("impatient")
    def test_each_member_is_named_with_its_reason(self) -> None:
        """When all fail for long enough, the error says what each of them did."""
        with ScriptedServer([UNAVAILABLE] * 20) as server, socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # without listening, so that nobody else gets the port
            nobody = Endpoint("http", "127.0.0.1", bound.getsockname()[1])
            store = EtcdDatastore([server.endpoint, nobody])
            with pytest.raises(DatastoreUnavailable) as caught:
                store.read(READ)
            store.close()
        assert f"{server.endpoint}: etcdserver: no leader" in caught.value.msg
        assert f"{nobody}: Connection refused" in caught.value.msg

    @pytest.mark.parametrize(
        "script",
        [
            answer(b"<html>Not Found</html>", "404 Not Found"),
            answer(b"[]"),
            ok({"hello": "world"}),
        ],
    )
    def test_what_is_no_etcd_is_told(self, script: bytes) -> None:
        """Another server on that port is named as such, not as an internal error."""
        error = fail_to_read(*[script] * 20)
        assert isinstance(error, DatastoreUnavailable)
        assert "not the JSON gateway" in str(error)

    def test_the_budget_ends_the_waiting(self) -> None:
        """A member that says nothing costs no more than the budget."""
        started = time.monotonic()
        error = fail_to_read(SILENCE, budget_seconds=0.3)
        assert isinstance(error, DatastoreUnavailable)
        assert "no answer in time" in error.msg
        assert time.monotonic() - started < 5

    def test_a_short_lived_process_has_one_budget(self) -> None:
        """What an earlier request has used up is gone."""
        with ScriptedServer([SILENCE]) as server:
            store = open_store(server, budget_seconds=1.0, is_short_lived=True)
            for _ in range(2):
                with pytest.raises(DatastoreUnavailable):
                    store.read(READ)
            store.close()
        assert 1 == len(server.requests)

    def test_history_that_is_dropped_again_and_again_is_told(self) -> None:
        """A compacted revision is read anew, but not for ever."""
        gone = refusal(11, "etcdserver: mvcc: required revision has been compacted")
        assert [[]] == read_through(gone, ok(NOTHING))[0]
        error = fail_to_read(*[gone] * 10)
        assert isinstance(error, DatastoreUnavailable)
        assert "compacted" in error.msg

    def test_other_refusals_are_told_in_the_words_of_etcd(self) -> None:
        """A request that is too large, for instance."""
        error = fail_to_read(refusal(3, "etcdserver: request is too large"))
        assert isinstance(error, InputOutputError)
        assert "etcdserver: request is too large" in error.msg


class TestUsers:
    """A token is had when there is a user, and had anew when etcd no longer knows it."""

    @pytest.fixture
    def user(self) -> dict[str, str]:
        return {"username": "calico", "password": "secret"}

    def test_a_token_is_had_before_the_first_request(self, user) -> None:
        """One request more, whose token goes with all that follow."""
        _, server = read_through(ok({**HEADER, "token": "t1"}), ok(NOTHING), **user)
        assert b"POST /v3/auth/authenticate" == server.requests[0][:26]
        assert b"Authorization: t1\r\n" in server.requests[1]

    @pytest.mark.parametrize(
        "expired",
        [
            refusal(16, "etcdserver: invalid auth token", "401 Unauthorized"),
            refusal(3, "etcdserver: revision of auth store is old"),
        ],
    )
    def test_an_expired_token_is_replaced(self, user, expired) -> None:
        """The request is repeated with the new one."""
        tokens = [ok({**HEADER, "token": f"t{i}"}) for i in (1, 2)]
        entries, server = read_through(tokens[0], expired, tokens[1], ok(NOTHING), **user)
        assert [[]] == entries
        assert b"Authorization: t2\r\n" in server.requests[3]

    def test_tokens_that_never_hold_are_told(self, user) -> None:
        """An etcd that refuses each token of its own is not asked for ever."""
        expired = refusal(16, "etcdserver: invalid auth token", "401 Unauthorized")
        error = fail_to_read(*[ok({**HEADER, "token": "t"}), expired] * 3, **user)
        assert isinstance(error, Unauthorized)

    def test_etcd_without_users_is_served_without_a_token(self, user) -> None:
        """As Calico's client does; it is not asked for a token again."""
        off = refusal(9, "etcdserver: authentication is not enabled", "412 Precondition Failed")
        with ScriptedServer([off, ok(NOTHING), ok(NOTHING)]) as server:
            store = open_store(server, **user)
            store.read(READ)
            store.read(READ)
            store.close()
        assert 3 == len(server.requests)

    def test_users_that_come_later_are_noticed(self, user) -> None:
        """A long-lived process that began without a token gets one when etcd asks for it."""
        off = refusal(9, "etcdserver: authentication is not enabled", "412 Precondition Failed")
        empty = refusal(3, "etcdserver: user name is empty")
        token = ok({**HEADER, "token": "t"})
        assert [[]] == read_through(off, empty, token, ok(NOTHING), **user)[0]

    def test_a_certificate_with_a_common_name_is_told(self, user) -> None:
        """The gateway of an etcd with users refuses it, in plain text; trying again is no use."""
        text = b"CommonName of client sending a request against gateway will be ignored and not"
        error = fail_to_read(answer(text, "400 Bad Request"), **user)
        assert isinstance(error, Unauthorized)
        assert "CommonName of client" in error.msg
        assert "one without" in error.details

    def test_the_password_is_in_no_error(self, user) -> None:
        """Neither in the message nor in its details."""
        error = fail_to_read(
            refusal(3, "etcdserver: authentication failed, invalid user ID or password"), **user
        )
        assert isinstance(error, Unauthorized)
        assert "secret" not in error.msg + error.details


class TestLostAnswers:
    """A write whose answer is lost is read back before it is repeated."""

    def commit(self, *script: bytes) -> list[str]:
        """The paths and kinds of the requests that a commit takes."""
        with ScriptedServer(script) as server:
            store = open_store(server)
            try:
                store.commit(WRITES)
            finally:
                store.close()
        return ["write" if b"request_put" in request else "read" for request in server.requests]

    def test_what_was_applied_is_not_written_again(self) -> None:
        """The value is there: the commit is done."""
        assert ["write", "read"] == self.commit(RESET, found(OURS))

    def test_a_member_without_a_leader_may_have_applied_it(self) -> None:
        """An answer that tells nothing counts as lost."""
        assert ["write", "read"] == self.commit(UNAVAILABLE, found(OURS))

    def test_what_was_not_applied_is_written_again(self) -> None:
        """The key is as it was: the same transaction is sent once more."""
        assert ["write", "read", "write"] == self.commit(RESET, found({}), ok(APPLIED))

    def test_a_first_write_that_arrives_late_is_recognised(self) -> None:
        """The second one fails its comparison, since the first came in between: that is success."""
        script = (RESET, found({}), lost_swap(OURS), found(OURS))
        assert ["write", "read", "write", "read"] == self.commit(*script)

    def test_a_write_is_waited_for_longer_than_a_read(self, monkeypatch) -> None:
        """Whoever gives it up has to read it back; then it was there."""
        monkeypatch.setattr(etcd_client, "FIRST_ANSWER_SECONDS", 0.0)
        monkeypatch.setattr(etcd_client, "CONNECT_SECONDS", (0.1,) * 4)
        monkeypatch.setattr(etcd_client, "ANSWER_SECONDS", 0.8)
        started = time.monotonic()
        with ScriptedServer([SILENCE]) as bad, ScriptedServer([found(OURS)]) as good:
            store = open_store(bad, good)
            store.commit(WRITES)
            store.close()
        assert (1, 1) == (len(bad.requests), len(good.requests))
        assert time.monotonic() - started >= 0.8

    def test_what_others_wrote_meanwhile_is_a_lost_swap(self) -> None:
        """Who cannot tell decides anew."""
        with pytest.raises(Conflict) as caught:
            self.commit(RESET, found(THEIRS), lost_swap(THEIRS), found(THEIRS))
        assert "/a" == caught.value.key

    def test_an_answer_that_is_lost_each_time_is_told(self) -> None:
        """It ends, and the error says that the outcome is not known."""
        with pytest.raises(DatastoreUnavailable) as caught:
            self.commit(*[RESET, found({})] * 10)
        assert "recorded or not" in caught.value.details

    def test_a_swap_that_is_lost_at_once_is_not_read_back(self) -> None:
        """Only a doubtful write is."""
        with pytest.raises(Conflict):
            self.commit(lost_swap(THEIRS))

    def test_a_refusal_is_no_lost_answer(self) -> None:
        """A full etcd has not applied anything; the details say how to make room."""
        full = refusal(8, "etcdserver: mvcc: database space exceeded", "429 Too Many Requests")
        with pytest.raises(DatastoreUnavailable) as caught:
            self.commit(full)
        assert "etcdserver: mvcc: database space exceeded" in caught.value.msg
        assert "alarm disarm" in caught.value.details


@pytest.mark.parametrize("expected", [1, 2])
def test_more_writes_than_a_transaction_takes_keep_their_order(expected: int) -> None:
    """They are cut into transactions; a key of two of them expects what the first one gave."""
    later = [Write("/k0", "confirmed", -1)] if expected == 2 else []
    writes = [Write(f"/k{i}", "v", ABSENT) for i in range(128 * expected - 1)] + later
    answers = [
        ok({"header": {"revision": str(revision)}, "succeeded": True}) for revision in (11, 12)
    ]
    with ScriptedServer(answers) as server:
        store = open_store(server)
        store.commit(writes)
        store.close()
    sent = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    assert expected == len(sent)
    assert all(len(message["compare"]) <= 128 for message in sent)
    if later:
        assert "11" == sent[1]["compare"][-1]["mod_revision"]


@pytest.mark.parametrize("code", [14, 9])
def test_a_member_that_learns_as_yet_is_passed_over(code) -> None:
    """By etcd 3.4 and 3.5 with code 14, by 3.6 with 9."""
    learner = refusal(code, "etcdserver: rpc not supported for learner")
    with ScriptedServer([learner]) as first, ScriptedServer([found(OURS)]) as second:
        store = open_store(first, second)
        ((entry,),) = store.read(READ)
        store.close()
    assert ("1", 1) == (entry.value, len(first.requests))
