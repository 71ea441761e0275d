"""Writes whose answers are lost, lists that grow old, watches that end."""

from __future__ import annotations

import json

import pytest

from cni_ipam.datastore import keys, kubernetes, kubernetes_client
from cni_ipam.datastore.port import ABSENT, Entry, Write
from cni_ipam.errors import (
    Conflict,
    DatastoreUnavailable,
    InputOutputError,
    OperatorError,
    Unauthorized,
)
from tests.datastore.kubernetes_answers import (
    CHANGED,
    CREATE,
    DONE,
    FORBIDDEN,
    GROUP,
    GROUP_LIST,
    INVALID,
    KEY,
    LISTED,
    NAMED,
    NOT_FOUND,
    OURS,
    OUTDATED,
    PAGE,
    PATH,
    REMOVE,
    TAKEN,
    THEIRS,
    TIMED_OUT,
    UNKNOWN,
    UPDATE,
    asked,
    busy,
    closing,
    commit,
    event,
    fail_to_commit,
    handle,
    listed,
    ok,
    open_store,
    read,
    status,
)
from tests.lean.servers import RESET, ScriptedServer, answer, chunked


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """Failures are tried again soon."""
    monkeypatch.setattr(kubernetes, "_PAUSE_SECONDS", 0.001)


class TestWrites:
    """Each is applied once, or the caller knows that it is not."""

    def test_a_node_is_never_removed(self) -> None:
        """It is Kubernetes' own; nothing else of the commit is done either."""
        writes = [Write(KEY, None, 7), Write(f"{keys.NODES}node1", None, 7)]
        with ScriptedServer([]) as server:
            store = open_store(server)
            with pytest.raises(OperatorError, match=r"Node\(node1\) cannot be written"):
                store.commit(writes)
            store.close()
        assert [] == server.requests

    @pytest.mark.parametrize(
        ("write", "refusal"), [(CREATE, INVALID), (UPDATE, INVALID), (CREATE, FORBIDDEN)]
    )
    def test_a_refused_write_is_told(self, write, refusal) -> None:
        """In the API server's words; it is not tried again."""
        script = [] if write.expected == ABSENT else [handle(THEIRS, 5)]
        error, requests = fail_to_commit(write, *script, refusal, GROUP_LIST)
        assert isinstance(error, InputOutputError | Unauthorized)
        assert json.loads(refusal.partition(b"\r\n\r\n")[2])["message"] in error.msg
        assert 1 == len([one for one in requests if one.startswith(("POST", "PUT"))])

    @pytest.mark.parametrize("refusal", [CHANGED, NOT_FOUND])
    @pytest.mark.parametrize("write", [UPDATE, REMOVE])
    def test_a_lost_swap_is_a_conflict(self, write, refusal) -> None:
        """Changed by another one, or gone."""
        error, _ = fail_to_commit(write, handle(THEIRS, 5), refusal)
        assert isinstance(error, Conflict)
        assert KEY == error.key

    def test_an_old_revision_is_a_conflict_without_a_write(self) -> None:
        """What is read is not what was decided on."""
        error, requests = fail_to_commit(UPDATE, handle(THEIRS, 7))
        assert isinstance(error, Conflict)
        assert [f"GET {NAMED}"] == requests

    def test_a_write_that_was_not_taken_up_is_repeated(self) -> None:
        """429 says that nothing was done: nothing is read back."""
        assert [f"POST {PATH}"] * 2 == commit(CREATE, busy("0"), handle())

    LOST = pytest.mark.parametrize(
        "lost",
        [
            RESET,
            TIMED_OUT,
            status("500 Internal Server Error"),
            answer(PAGE.encode()),
            ok({"kind": "IPAMHandle"}),
        ],
    )

    @LOST
    def test_a_lost_answer_to_a_create_is_looked_for(self, lost) -> None:
        """It was applied."""
        assert [f"POST {PATH}", f"GET {NAMED}"] == commit(CREATE, lost, handle())

    @LOST
    def test_a_create_that_was_not_applied_is_repeated(self, lost) -> None:
        """After a look."""
        wanted = [f"POST {PATH}", f"GET {NAMED}", f"POST {PATH}"]
        assert wanted == commit(CREATE, lost, NOT_FOUND, handle())

    def test_a_create_that_another_one_was_faster_with_is_a_conflict(self) -> None:
        """With another value."""
        error, requests = fail_to_commit(
            CREATE, RESET, handle(THEIRS), TAKEN, handle(THEIRS), handle(THEIRS)
        )
        assert isinstance(error, Conflict)
        assert 2 == requests.count(f"POST {PATH}")

    def test_a_create_that_lands_after_the_look_is_not_a_conflict(self) -> None:
        """The first request was on its way still; the second one meets its object."""
        commit(CREATE, RESET, NOT_FOUND, TAKEN, handle(), handle())

    @LOST
    def test_a_lost_answer_to_an_update_is_looked_for(self, lost) -> None:
        """It was applied: another revision with our value."""
        wanted = [f"GET {NAMED}", f"PUT {NAMED}", f"GET {NAMED}"]
        assert wanted == commit(UPDATE, handle(THEIRS, 5), lost, handle(OURS, 6))

    def test_an_update_that_was_not_applied_is_repeated(self) -> None:
        """What it is based on is still there."""
        requests = commit(UPDATE, handle(THEIRS, 5), RESET, handle(THEIRS, 5), handle(OURS, 6))
        assert 2 == requests.count(f"PUT {NAMED}")

    def test_an_update_after_which_others_wrote_is_a_conflict(self) -> None:
        """Whether ours was in between cannot be known: who decided decides anew."""
        error, requests = fail_to_commit(
            UPDATE,
            handle(THEIRS, 5),
            RESET,
            handle(THEIRS, 7),
            handle(THEIRS, 7),
            handle(THEIRS, 7),
        )
        assert isinstance(error, Conflict)
        assert 1 == requests.count(f"PUT {NAMED}")

    def test_a_lost_answer_to_a_removals_first_step_is_looked_for(self) -> None:
        """It was applied: the second step is done by the look."""
        marked = handle(OURS, 6, deleted=True)
        requests = commit(REMOVE, handle(OURS, 5), RESET, marked, DONE)
        wanted = [f"GET {NAMED}", f"PUT {NAMED}", f"GET {NAMED}", f"DELETE {NAMED}"]
        assert wanted == requests

    def test_a_removal_that_was_not_applied_is_repeated(self) -> None:
        """Both steps."""
        marked = handle(OURS, 6, deleted=True)
        requests = commit(REMOVE, handle(OURS, 5), RESET, handle(OURS, 5), marked, DONE)
        assert 2 == requests.count(f"PUT {NAMED}")
        assert f"DELETE {NAMED}" == requests[-1]

    @pytest.mark.parametrize("second", [RESET, NOT_FOUND, CHANGED, TIMED_OUT])
    def test_the_second_step_may_be_left_to_others(self, second) -> None:
        """The record is gone by the first."""
        marked = handle(OURS, 6, deleted=True)
        assert f"DELETE {NAMED}" == commit(REMOVE, handle(OURS, 5), marked, second)[-1]

    def test_a_second_step_that_is_not_granted_is_told(self) -> None:
        """Else objects would pile up without a word."""
        marked = handle(OURS, 6, deleted=True)
        error, _ = fail_to_commit(REMOVE, handle(OURS, 5), marked, FORBIDDEN)
        assert isinstance(error, Unauthorized)

    def test_who_may_only_read_does_not_fail_by_a_marked_object(self) -> None:
        """It is absent, and stays for somebody else."""
        assert [] == read(handle(deleted=True), FORBIDDEN)[0]

    def test_a_write_that_is_never_answered_ends(self) -> None:
        """With the server's words."""
        script = [status("500 Internal Server Error", message="webhook fails"), NOT_FOUND] * 10
        error, requests = fail_to_commit(CREATE, *script)
        assert isinstance(error, DatastoreUnavailable)
        assert "webhook fails" in error.msg
        assert 10 == requests.count(f"POST {PATH}")

    def test_what_is_half_removed_is_finished_and_made_again(self) -> None:
        """By the same commit, without a conflict."""
        requests = commit(CREATE, TAKEN, handle(deleted=True), DONE, handle())
        wanted = [f"POST {PATH}", f"GET {NAMED}", f"DELETE {NAMED}", f"POST {PATH}"]
        assert wanted == requests

    def test_another_handles_object_is_told_at_once(self) -> None:
        """Its name is the same but for the case: no repetition would help."""
        error, requests = fail_to_commit(CREATE, TAKEN, handle(handle_id="net.C1"))
        assert isinstance(error, InputOutputError)
        assert f"is that of {keys.HANDLES}net.C1" in error.msg
        assert 2 == len(requests)

    def test_the_unlabelled_affinity_is_written_once(self) -> None:
        """With its labels, upon the conflict of its creation."""
        key = keys.HOST_AFFINITIES + "node1/ipv4/block/10.0.0.0-30"
        found = {
            "kind": "BlockAffinity",
            "metadata": {"name": "node1-10-0-0-0-30", "uid": "u", "resourceVersion": "5"},
            "spec": {"state": "confirmed", "node": "node1", "cidr": "10.0.0.0/30", "deleted": ""},
        }
        write = Write(key, '{"state":"pending","deleted":false}', ABSENT)
        with ScriptedServer([TAKEN, ok(found), ok(found)]) as server:
            store = open_store(server)
            with pytest.raises(Conflict):
                store.commit([write])
            store.close()
        put = json.loads(server.requests[-1].partition(b"\r\n\r\n")[2])
        assert "confirmed" == put["spec"]["state"]
        assert {"4"} == {v for k, v in put["metadata"]["labels"].items() if "version" in k}


class TestUnknownFields:
    """What an operator wrote is kept whole or refused; of a record, what can be."""

    POOLS = f"/apis/{GROUP}/ippools"
    STRICT = "fieldValidation=Strict"

    def write(self, revision: int = ABSENT, **spec: str) -> Write:
        """A pool's."""
        value = {"metadata": {"name": "pool"}, "spec": {"cidr": "10.0.0.0/24", **spec}}
        return Write(keys.POOLS + "pool", json.dumps(value), revision)

    def pool(self, revision: int) -> bytes:
        """A pool's object."""
        metadata = {"name": "pool", "uid": "u1", "resourceVersion": str(revision)}
        return ok({"kind": "IPPool", "metadata": metadata, "spec": {"cidr": "10.0.0.0/24"}})

    def unknown(self, *fields: str) -> bytes:
        """The API server's words about fields that its definition lacks."""
        names = ", ".join([f'unknown field "{field}"' for field in fields])
        said = 'IPPool in version "v1" cannot be handled as a IPPool: strict decoding error: '
        return status("400 Bad Request", "BadRequest", said + names)

    def test_a_pool_is_asked_to_be_kept_whole(self) -> None:
        """When it is made, and when it is changed."""
        assert [f"POST {self.POOLS}?{self.STRICT}"] == commit(self.write(), self.pool(6))
        requests = commit(self.write(5), self.pool(5), self.pool(6))
        assert f"PUT {self.POOLS}/pool?{self.STRICT}" == requests[-1]

    @pytest.mark.parametrize(
        "key",
        [keys.CONFIG, keys.RESERVATIONS + "r", keys.BGP_PEERS + "p", keys.CLUSTER_INFORMATION],
    )
    def test_so_is_all_that_operators_write(self, key) -> None:
        """Settings and resources; whatever the object is."""
        requests = commit(Write(key, '{"spec":{}}', ABSENT), self.pool(6))
        assert [self.STRICT] == [request.partition("?")[2] for request in requests]

    @pytest.mark.parametrize("revision", [ABSENT, 5])
    def test_fields_that_the_definition_lacks_are_told(self, revision) -> None:
        """All of them, with what to do; the pool is not written without them."""
        write = self.write(revision, namespaceSelector="a == 'b'", assignmentMode="Manual")
        refusal = self.unknown("spec.assignmentMode", "spec.namespaceSelector")
        found = [] if revision == ABSENT else [self.pool(5)]
        error, requests = fail_to_commit(write, *found, refusal)
        assert isinstance(error, InputOutputError)
        assert 'strict decoding error: unknown field "spec.assignmentMode"' in error.msg
        assert "older than spec.assignmentMode, spec.namespaceSelector: apply" in error.details
        assert "conf/crds" in error.details
        assert 1 == len([one for one in requests if self.STRICT in one])

    def test_a_field_that_says_what_holds_anyway_is_left_out(self) -> None:
        """Every pool says its assignmentMode; an older definition has pools all the same."""
        write = self.write(assignmentMode="Automatic", namespaceSelector="", nodeSelector="a()")
        refusal = self.unknown("spec.assignmentMode", "spec.namespaceSelector")
        with ScriptedServer([refusal, self.pool(6)]) as server:
            store = open_store(server)
            store.commit([write])
            store.close()
        assert [f"POST {self.POOLS}?{self.STRICT}"] * 2 == asked(server)
        sent = json.loads(server.requests[1].partition(b"\r\n\r\n")[2])
        assert {"cidr": "10.0.0.0/24", "nodeSelector": "a()"} == sent["spec"]

    def test_a_field_that_nobody_said_is_not_told(self) -> None:
        """The default of one is left out, and the other alone is refused."""
        write = self.write(assignmentMode="Automatic", namespaceSelector="a == 'b'")
        both = self.unknown("spec.assignmentMode", "spec.namespaceSelector")
        error, requests = fail_to_commit(write, both, self.unknown("spec.namespaceSelector"))
        assert "older than spec.namespaceSelector: apply" in error.details
        assert 2 == len(requests)

    def test_settings_are_not_written_in_part(self) -> None:
        """None of theirs can be left out."""
        write = Write(keys.CONFIG, '{"ipCooldownSeconds":30}', ABSENT)
        error, requests = fail_to_commit(write, self.unknown("spec.ipCooldownSeconds"))
        assert "older than spec.ipCooldownSeconds" in error.details
        assert 1 == len(requests)


class TestLists:
    """A list is read in pages, and may grow old."""

    def test_each_page_says_what_follows(self) -> None:
        """Its word is quoted in the next request."""
        entries, requests = read(
            listed("net.c1", following="a=/&"), listed("net.c2"), wanted=LISTED
        )
        assert [keys.HANDLES + "net.c1", keys.HANDLES + "net.c2"] == [e.key for e in entries]
        assert [f"GET {PATH}?limit=500", f"GET {PATH}?limit=500&continue=a%3D%2F%26"] == requests

    def test_a_list_that_grew_old_is_begun_anew(self) -> None:
        """What its first pages said is forgotten."""
        script = [listed("net.c1", following="x"), OUTDATED, listed("net.c2")]
        assert [keys.HANDLES + "net.c2"] == [e.key for e in read(*script, wanted=LISTED)[0]]

    def test_a_list_that_always_grows_old_is_told(self) -> None:
        """After a few times."""
        with ScriptedServer([OUTDATED] * 9) as server:
            store = open_store(server)
            with pytest.raises(DatastoreUnavailable, match="grew old"):
                store.read(LISTED)
            with pytest.raises(DatastoreUnavailable, match="grew old"):
                list(store.pages(keys.HANDLES, 2))
            store.close()

    def test_pages_go_on_in_a_new_list_without_repeating(self) -> None:
        """What was given is not given again."""
        script = [
            listed("net.c1", following="x"),
            OUTDATED,
            listed("net.c1", "net.c2", following="y"),
            listed("net.c3"),
        ]
        with ScriptedServer(script) as server:
            store = open_store(server)
            pages = [[e.key[-2:] for e in page] for page in store.pages(keys.HANDLES, 2)]
            store.close()
        assert [["c1"], ["c2"], ["c3"]] == pages


class TestWatches:
    """A watch goes on after whatever ends it."""

    def follow(
        self, script: list[bytes], count: int, prefix: str = keys.HANDLES
    ) -> list[Entry | str]:
        with ScriptedServer(map(closing, script)) as server:
            store = open_store(server)
            changes = store.watch(prefix)
            found = [next(changes) for _ in range(count)]
            store.close()
        return found

    def test_a_marked_object_is_gone(self) -> None:
        """Its first step says so; the second one says nothing new."""
        marked = event("MODIFIED", handle(OURS, 7, deleted=True))
        removed = event("DELETED", handle(OURS, 8, deleted=True))
        other = event("ADDED", handle(OURS, 9, "net.c2"))
        script = [listed("net.c1"), chunked(marked + b"\n", removed + b"\n", other + b"\n")]
        found = self.follow(script, 2)
        assert [KEY, Entry(keys.HANDLES + "net.c2", OURS, 9)] == found

    @pytest.mark.parametrize(
        "end",
        [
            chunked(),
            RESET,
            OUTDATED,
            UNKNOWN,
            chunked(b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'),
            chunked(b"{}\n"),
            chunked(b"no json\n"),
            status("503 Service Unavailable"),
        ],
    )
    def test_what_changed_meanwhile_is_told(self, end) -> None:
        """By a new list."""
        found = self.follow([listed("net.c1"), end, listed("net.c2")], 2)
        assert [KEY, Entry(keys.HANDLES + "net.c2", OURS, 6)] == found

    def test_a_heartbeat_of_a_node_is_no_change(self) -> None:
        """Its object has another revision then, its record says the same."""
        before, beaten, labelled = (
            ok({"kind": "Node", "metadata": {"name": "n1", "resourceVersion": number} | labels})
            for number, labels in (("1", {}), ("2", {}), ("3", {"labels": {"a": "b"}}))
        )
        items = [json.loads(before.partition(b"\r\n\r\n")[2])]
        script = [
            ok({"kind": "NodeList", "metadata": {"resourceVersion": "1"}, "items": items}),
            chunked(event("MODIFIED", beaten) + b"\n", event("MODIFIED", labelled) + b"\n"),
        ]
        (found,) = self.follow(script, 1, keys.NODES)
        assert (f"{keys.NODES}n1", 3) == (found.key, found.revision)

    def test_a_server_that_is_away_for_long_does_not_end_it(self, monkeypatch) -> None:
        """Its list fails, and is asked for again."""
        monkeypatch.setattr(kubernetes_client, "RETRY_SECONDS", 0.5)
        away = [status("503 Service Unavailable")] * 8
        found = self.follow([listed(), RESET, *away, *away, listed("net.c1")], 1)
        assert [Entry(KEY, OURS, 6)] == found

    def test_a_watch_that_is_not_granted_is_told(self) -> None:
        """It would be a list every second."""
        with ScriptedServer([closing(listed()), FORBIDDEN]) as server:
            store = open_store(server)
            with pytest.raises(Unauthorized):
                next(iter(store.watch(keys.HANDLES)))
            store.close()
