"""What the client makes of answers that a real API server gives too rarely to wait for."""

from __future__ import annotations

import time

import pytest

from cni_ipam.datastore import keys, kubernetes, kubernetes_client
from cni_ipam.datastore.port import Entry, Range
from cni_ipam.errors import (
    DatastoreUnavailable,
    EnvironmentInvalid,
    InputOutputError,
    Unauthorized,
)
from tests.datastore.kubernetes_answers import (
    CREATE,
    FORBIDDEN,
    GROUP,
    GROUP_LIST,
    INVALID,
    KEY,
    NAMED,
    NO_SUCH_PATH,
    OURS,
    PAGE,
    READ,
    SECRET,
    TIMED_OUT,
    UNKNOWN,
    asked,
    busy,
    commit,
    fail_to_read,
    handle,
    ok,
    open_client,
    open_store,
    read,
    status,
)
from tests.lean.servers import RESET, SILENCE, ScriptedServer, answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """Failures are tried again for a short while only."""
    monkeypatch.setattr(kubernetes_client, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(kubernetes, "_PAUSE_SECONDS", 0.001)


class TestReads:
    """A read may be asked again."""

    @pytest.mark.parametrize("script", [[RESET], [TIMED_OUT], [busy("0")], [RESET, TIMED_OUT]])
    def test_what_passes_is_passed_over(self, monkeypatch, script) -> None:
        """The request is repeated."""
        monkeypatch.setattr(kubernetes_client, "RETRY_SECONDS", 10)
        entries, requests = read(*script, handle())
        assert [Entry(KEY, OURS, 6)] == entries
        assert [f"GET {NAMED}"] * (len(script) + 1) == requests

    @pytest.mark.parametrize("code", ["500 Internal Server Error", "503 Service Unavailable"])
    def test_what_does_not_pass_is_told_in_the_servers_words(self, code) -> None:
        """With the server's address, and where that was said."""
        error = fail_to_read(*[status(code, message="etcd is away")] * 30)
        assert isinstance(error, DatastoreUnavailable)
        assert "http://127.0.0.1:" in error.msg
        assert "etcd is away" in error.msg
        assert "the test" in error.details

    def test_the_server_says_how_long_to_wait(self, monkeypatch) -> None:
        """Retry-After is heeded."""
        monkeypatch.setattr(kubernetes_client, "RETRY_SECONDS", 10)
        started = time.monotonic()
        assert 2 == len(read(busy("1"), handle())[1])
        assert 1 <= time.monotonic() - started < 5

    def test_a_wait_that_is_too_long_is_not_begun(self) -> None:
        """Not even a first time: the runtime would give up meanwhile."""
        started = time.monotonic()
        assert "too many requests" in fail_to_read(busy("3600")).msg
        assert time.monotonic() - started < 5

    def test_what_is_no_api_server_is_told(self) -> None:
        """A page of HTML: without its control characters, and not taken for an empty answer."""
        error = fail_to_read(*[answer(PAGE.encode())] * 30)
        assert "not an API server of Kubernetes" in error.msg
        assert "<h1>Welcome</h1>" in error.msg
        assert error.msg.isprintable()

    def test_another_servers_json_is_no_answer(self) -> None:
        """An object without a kind would look like a list without items."""
        pools = [Range(keys.POOLS, prefix=True)]
        error = fail_to_read(*[ok({"status": "green"})] * 30, wanted=pools)
        assert "not an API server of Kubernetes" in error.msg

    def test_a_process_has_one_budget(self) -> None:
        """A second request does not begin it anew."""
        with ScriptedServer([handle(), SILENCE, SILENCE]) as server:
            store = open_store(server, budget_seconds=2.0, is_short_lived=True)
            store.read(READ)
            for _ in range(2):
                with pytest.raises(DatastoreUnavailable):
                    store.read(READ)
            store.close()
        assert 2 == len(server.requests)

    def test_a_path_before_the_api_is_kept(self) -> None:
        """As of a cluster behind Rancher's proxy."""
        assert [f"GET /k8s/c1{NAMED}"] == read(handle(), path="/k8s/c1")[1]


class TestRights:
    """Who we are, and what we may do."""

    def test_a_token_that_was_rotated_is_read_again(self, tmp_path) -> None:
        """Once, and over the same connection."""
        file = tmp_path / "token"
        file.write_text("old\n")
        with ScriptedServer([handle(), UNKNOWN, handle()]) as server:
            store = open_store(server, token_file=str(file))
            store.read(READ)
            file.write_text("new\n")
            assert 1 == len(store.read(READ)[0])
            store.close()
        tokens = [
            request.partition(b"Bearer ")[2].partition(b"\r")[0] for request in server.requests
        ]
        assert ([b"old", b"old", b"new"], 1) == (tokens, server.connections)

    def test_a_token_that_is_refused_twice_is_told(self, tmp_path) -> None:
        """The new one as well; then it is not asked a third time."""
        file = tmp_path / "token"
        file.write_text("old")
        with ScriptedServer([handle(), UNKNOWN, UNKNOWN]) as server:
            store = open_store(server, GROUP, token_file=str(file))
            store.read(READ)
            file.write_text("new")
            with pytest.raises(Unauthorized):
                store.read(READ)
            store.close()
        assert 3 == len(server.requests)

    @pytest.mark.parametrize(
        ("refusal", "advice"), [(UNKNOWN, "may have expired"), (FORBIDDEN, "conf/rbac.yaml")]
    )
    def test_a_refusal_is_told_with_calicos_words(self, refusal, advice) -> None:
        """At once, and with what to do."""
        error = fail_to_read(refusal, group=GROUP)
        assert isinstance(error, Unauthorized)
        assert error.msg.startswith("connection is unauthorized: ")
        assert advice in error.details

    @pytest.mark.parametrize("content", ["", "two words", "with\nlines", "é"])
    def test_a_file_without_a_token_is_told(self, tmp_path, content) -> None:
        """It would end in a line of the request's header."""
        file = tmp_path / "token"
        file.write_text(content)
        error = fail_to_read(token_file=str(file))
        assert str(file) in error.msg

    def test_a_missing_token_file_is_told(self, tmp_path) -> None:
        """With the system's words."""
        error = fail_to_read(token_file=str(tmp_path / "none"))
        assert isinstance(error, InputOutputError)
        assert "No such file" in error.msg

    @pytest.mark.parametrize(
        "script",
        [[UNKNOWN], [FORBIDDEN], [RESET] * 30, [answer(b"no")] * 30, [INVALID], [NO_SUCH_PATH]],
    )
    def test_no_message_shows_the_token(self, script) -> None:
        """Neither message nor details, whatever happens."""
        error = fail_to_read(*script, group=GROUP)
        assert SECRET not in f"{error.msg} {error.details} {error.__cause__}"


class TestGroups:
    """Which of the two serves."""

    def test_a_missing_definition_is_told(self) -> None:
        """Where the group is there and one of its resources is not."""
        error = fail_to_read(NO_SUCH_PATH, GROUP_LIST)
        assert isinstance(error, DatastoreUnavailable)
        assert f"no such resources of {GROUP}" in error.msg
        assert "conf/crds" in error.details

    @pytest.mark.parametrize("refusal", [NO_SUCH_PATH, FORBIDDEN])
    def test_the_newer_group_serves_where_the_older_is_missing(self, refusal) -> None:
        """Also where the role names only the newer: an API server looks at rights first."""
        found = handle()
        _, requests = read(refusal, NO_SUCH_PATH, GROUP_LIST, found)
        assert [
            f"GET {NAMED}",
            f"GET /apis/{GROUP}",
            "GET /apis/projectcalico.org/v3",
            "GET /apis/projectcalico.org/v3/ipamhandles/net.c1",
        ] == requests

    def test_a_group_that_is_named_is_not_looked_for(self) -> None:
        """One request, and its error."""
        assert isinstance(fail_to_read(NO_SUCH_PATH, group=GROUP), DatastoreUnavailable)
        assert isinstance(fail_to_read(FORBIDDEN, group=GROUP), Unauthorized)

    def test_calicos_own_api_server_is_not_taken_for_the_newer_group(self) -> None:
        """It serves that beside the older one, and has no blocks."""
        assert isinstance(fail_to_read(FORBIDDEN, GROUP_LIST), Unauthorized)

    def test_who_may_not_ask_for_groups_is_told_what_was_refused_first(self) -> None:
        """Nobody wants to know that our own question was refused, too."""
        other = status("403 Forbidden", "Forbidden", 'User "x" cannot get path')
        error = fail_to_read(FORBIDDEN, other)
        assert isinstance(error, Unauthorized)
        assert error.msg.endswith('User "x" cannot get resource')

    def test_a_first_write_finds_the_group(self) -> None:
        """As a first read does."""
        requests = commit(CREATE, NO_SUCH_PATH, NO_SUCH_PATH, GROUP_LIST, handle())
        assert "POST /apis/projectcalico.org/v3/ipamhandles" == requests[-1]


class TestNames:
    """What comes from CNI_ARGS goes into a path."""

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("a?b#c", "a%3Fb%23c"),
            ("a HTTP", "a%20HTTP"),
            ("a;b&c=d", "a%3Bb%26c%3Dd"),
        ],
    )
    def test_a_name_stays_one_part_of_the_path(self, name, path) -> None:
        """Whatever it holds."""
        pod = ok({"kind": "Pod", "metadata": {"name": "a"}})
        with ScriptedServer([pod, pod]) as server:
            client = open_client(server)
            client.get_pod("ns", name)
            client.get_namespace(name)
            client.close()
        assert [
            f"GET /api/v1/namespaces/ns/pods/{path}",
            f"GET /api/v1/namespaces/{path}",
        ] == asked(server)

    NO_NAMES = pytest.mark.parametrize(
        "name",
        [
            *("", ".", "..", "a\r\nX-Evil: 1", "a\nb", "é", "\x00"),
            # An API server decodes a path before it takes it apart.
            *("nouid/status", "../../x", "a/../../nodes", "a HTTP/1.1", "a%2e", "%"),
        ],
    )

    @NO_NAMES
    def test_what_is_no_namespaces_name_is_not_sent(self, name) -> None:
        """It is told with the key of CNI_ARGS, as a word that can be printed."""
        with ScriptedServer([]) as server:
            client = open_client(server)
            for ask in (client.get_namespace, lambda text: client.get_pod(text, "p")):
                with pytest.raises(EnvironmentInvalid, match="K8S_POD_NAMESPACE") as caught:
                    ask(name)
                assert caught.value.msg.isprintable()
            client.close()
        assert [] == server.requests

    @NO_NAMES
    def test_what_is_no_pods_name_is_not_sent(self, name) -> None:
        """As little as a namespace's, and the other key is named."""
        with ScriptedServer([]) as server:
            client = open_client(server)
            with pytest.raises(EnvironmentInvalid, match="K8S_POD_NAME ") as caught:
                client.get_pod("ns", name)
            client.close()
        assert caught.value.msg.isprintable()
        assert [] == server.requests

    def test_a_path_with_the_end_of_a_line_is_not_sent(self) -> None:
        """Whoever made it forgot to quote a name."""
        with ScriptedServer([]) as server:
            client = open_client(server)
            for path in ("/api/v1/nodes/a\r\nX-Evil: 1", "/api/v1/nodes/a HTTP/1.0"):
                with pytest.raises(InputOutputError, match="cannot be asked for"):
                    client.ask("GET", path)
            client.close()
        assert [] == server.requests

    def test_a_pod_that_is_not_there_can_come(self) -> None:
        """The runtime asks again."""
        missing = status("404 Not Found", "NotFound", 'pods "p" not found')
        with ScriptedServer([missing]) as server:
            client = open_client(server)
            with pytest.raises(DatastoreUnavailable, match='pods "p" not found'):
                client.get_pod("ns", "p")
            client.close()
