"""What every datastore does. An adapter's test module subclasses `DatastoreContract`.

The subclass gives a fixture `open_store`, which returns a new client of one and the same store, and
closes them all in the end. `key` and `value` can be overridden where a store takes only keys and
values of known kinds.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.port import ABSENT, SAME, Range, Write
from cni_ipam.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni_ipam.datastore.port import Datastore, Entry

    OpenStore = Callable[[], Datastore]


class DatastoreContract:
    """One behaviour for all adapters."""

    atomic = True
    """Whether a commit of several writes is applied as a whole or not at all."""
    big_value_bytes = 1_000_000

    root = "/contract/"

    def key(self, name: str) -> str:
        return self.root + name

    def value(self, text: object) -> str:
        return f'{{"v":"{text}"}}'

    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[Datastore]:
        store = open_store()
        yield store
        store.close()

    # Helpers of the sentences below.

    def create(self, store: Datastore, *names: str) -> None:
        store.commit([Write(self.key(name), self.value(name), ABSENT) for name in names])

    def find(self, store: Datastore, name: str) -> Entry | None:
        found = store.read([Range(self.key(name))])[0]
        return found[0] if found else None

    def get(self, store: Datastore, name: str) -> Entry:
        entry = self.find(store, name)
        assert entry is not None
        return entry

    def revision(self, store: Datastore, name: str) -> int:
        return self.get(store, name).revision

    def names(self, entries: list[Entry]) -> list[str]:
        return [entry.key.removeprefix(self.root) for entry in entries]

    # One key.

    def test_a_key_that_was_never_written_is_absent(self, store: Datastore) -> None:
        """Reading nothing is an empty list, not an error."""
        assert [[], []] == store.read([Range(self.key("a")), Range(self.key("a"), prefix=True)])

    def test_no_range_is_no_answer(self, store: Datastore) -> None:
        """A read of nothing gives nothing."""
        assert [] == store.read([])

    def test_create_makes_a_key(self, store: Datastore) -> None:
        """What was created is read back with its key, value and a revision above zero."""
        self.create(store, "a")
        entry = self.get(store, "a")
        assert (self.key("a"), self.value("a")) == (entry.key, entry.value)
        assert entry.revision > ABSENT

    def test_create_refuses_a_key_that_exists(self, store: Datastore) -> None:
        """An expectation of absence fails on an existing key, and the message names it."""
        self.create(store, "a")
        with pytest.raises(Conflict) as caught:
            store.commit([Write(self.key("a"), self.value("b"), ABSENT)])
        assert self.key("a") == caught.value.key
        assert self.value("a") == self.get(store, "a").value

    def test_update_replaces_the_value(self, store: Datastore) -> None:
        """An update at the right revision puts the new value and raises the revision."""
        self.create(store, "a")
        before = self.revision(store, "a")
        store.commit([Write(self.key("a"), self.value("b"), before)])
        assert self.value("b") == self.get(store, "a").value
        assert self.revision(store, "a") > before

    def test_update_refuses_an_old_revision(self, store: Datastore) -> None:
        """An update at a revision that is past changes nothing."""
        self.create(store, "a")
        old = self.revision(store, "a")
        store.commit([Write(self.key("a"), self.value("b"), old)])
        with pytest.raises(Conflict):
            store.commit([Write(self.key("a"), self.value("c"), old)])
        assert self.value("b") == self.get(store, "a").value

    def test_update_refuses_an_absent_key(self, store: Datastore) -> None:
        """What was deleted in between is not made again by an update."""
        self.create(store, "a")
        old = self.revision(store, "a")
        store.commit([Write(self.key("a"), None, old)])
        with pytest.raises(Conflict):
            store.commit([Write(self.key("a"), self.value("b"), old)])
        assert self.find(store, "a") is None

    def test_delete_removes_the_key(self, store: Datastore) -> None:
        """After a delete at the right revision the key is absent, also from its prefix."""
        self.create(store, "a")
        store.commit([Write(self.key("a"), None, self.revision(store, "a"))])
        assert [[], []] == store.read([Range(self.key("a")), Range(self.root, prefix=True)])

    def test_delete_refuses_an_old_revision(self, store: Datastore) -> None:
        """A delete of what has changed since changes nothing."""
        self.create(store, "a")
        old = self.revision(store, "a")
        store.commit([Write(self.key("a"), self.value("b"), old)])
        with pytest.raises(Conflict):
            store.commit([Write(self.key("a"), None, old)])
        assert self.value("b") == self.get(store, "a").value

    def test_delete_refuses_an_absent_key(self, store: Datastore) -> None:
        """Of two deletes at one revision the second fails."""
        self.create(store, "a")
        delete = Write(self.key("a"), None, self.revision(store, "a"))
        store.commit([delete])
        with pytest.raises(Conflict):
            store.commit([delete])

    def test_a_key_made_again_has_a_new_revision(self, store: Datastore) -> None:
        """No ABA: an update that was decided before a delete and a create must fail."""
        self.create(store, "a")
        old = self.revision(store, "a")
        store.commit([Write(self.key("a"), None, old)])
        self.create(store, "a")
        assert self.revision(store, "a") > old
        with pytest.raises(Conflict):
            store.commit([Write(self.key("a"), self.value("b"), old)])

    def test_an_equal_value_still_raises_the_revision(self, store: Datastore) -> None:
        """Writing the same text again is a write."""
        self.create(store, "a")
        before = self.revision(store, "a")
        store.commit([Write(self.key("a"), self.value("a"), before)])
        assert self.revision(store, "a") > before

    def test_values_are_kept_to_the_byte(self, store: Datastore) -> None:
        """Unicode beyond the basic plane, escapes and numbers above 2^53 come back unchanged."""
        value = '{"v":"é\\u2028😀<>","n":18446744073709551615,"l":[null,"",{}]}'
        store.commit([Write(self.key("a"), value, ABSENT)])
        assert value == self.get(store, "a").value

    def test_big_values_are_kept(self, store: Datastore) -> None:
        """A value of a megabyte is stored whole."""
        value = self.value("x" * self.big_value_bytes)
        store.commit([Write(self.key("a"), value, ABSENT)])
        assert value == self.get(store, "a").value

    # Several keys.

    def test_a_commit_applies_all_of_its_writes(self, store: Datastore) -> None:
        """Create, update and delete in one commit."""
        self.create(store, "a", "b")
        a, b = self.revision(store, "a"), self.revision(store, "b")
        store.commit(
            [
                Write(self.key("a"), self.value("a2"), a),
                Write(self.key("b"), None, b),
                Write(self.key("c"), self.value("c"), ABSENT),
            ]
        )
        values = [entry.value for entry in store.read([Range(self.root, prefix=True)])[0]]
        assert [self.value("a2"), self.value("c")] == values

    def test_an_empty_commit_is_no_change(self, store: Datastore) -> None:
        """Nothing to write is success."""
        store.commit([])
        assert [[]] == store.read([Range(self.root, prefix=True)])

    def test_a_commit_takes_any_iterable(self, store: Datastore) -> None:
        """The writes may come from a generator."""
        store.commit(Write(self.key(name), self.value(name), ABSENT) for name in "ab")
        assert ["a", "b"] == self.names(store.read([Range(self.root, prefix=True)])[0])

    def test_a_conflict_keeps_what_all_or_nothing_means(self, store: Datastore) -> None:
        """Atomic: a conflict leaves everything as it was. Otherwise: the writes before it stand."""
        self.create(store, "b")
        with pytest.raises(Conflict) as caught:
            self.create(store, "a", "b", "c")
        assert self.key("b") == caught.value.key
        left = self.names(store.read([Range(self.root, prefix=True)])[0])
        assert (["b"] if self.atomic else ["a", "b"]) == left

    def test_a_conflict_does_not_end_the_client(self, store: Datastore) -> None:
        """After a lost swap the same client reads and commits."""
        self.create(store, "a")
        with pytest.raises(Conflict):
            self.create(store, "a")
        self.create(store, "b")
        assert ["a", "b"] == self.names(store.read([Range(self.root, prefix=True)])[0])

    # SAME: one key twice in a commit.

    def test_same_is_the_revision_of_the_earlier_write(self, store: Datastore) -> None:
        """Create, then update: the last value stays."""
        store.commit(
            [
                Write(self.key("a"), self.value("pending"), ABSENT),
                Write(self.key("b"), self.value("b"), ABSENT),
                Write(self.key("a"), self.value("confirmed"), SAME),
            ]
        )
        assert self.value("confirmed") == self.get(store, "a").value

    def test_same_follows_an_update(self, store: Datastore) -> None:
        """Update twice; a later commit at the revision that is read now succeeds."""
        self.create(store, "a")
        revision = self.revision(store, "a")
        store.commit(
            [
                Write(self.key("a"), self.value("1"), revision),
                Write(self.key("a"), self.value("2"), SAME),
            ]
        )
        store.commit([Write(self.key("a"), self.value("3"), self.revision(store, "a"))])
        assert self.value("3") == self.get(store, "a").value

    def test_same_may_delete(self, store: Datastore) -> None:
        """Mark, then delete: the key is gone."""
        self.create(store, "a")
        revision = self.revision(store, "a")
        store.commit(
            [
                Write(self.key("a"), self.value("pendingDeletion"), revision),
                Write(self.key("a"), None, SAME),
            ]
        )
        assert self.find(store, "a") is None

    def test_created_and_deleted_in_one_commit_is_absent(self, store: Datastore) -> None:
        """A key that never needed to be there is not there."""
        create_and_delete = [
            Write(self.key("a"), self.value("a"), ABSENT),
            Write(self.key("a"), None, SAME),
        ]
        store.commit(create_and_delete)
        assert self.find(store, "a") is None

    def test_the_expectation_of_the_first_write_counts(self, store: Datastore) -> None:
        """A pair whose first write is not at the expected revision conflicts."""
        self.create(store, "a")
        for last in (self.value("2"), None):
            with pytest.raises(Conflict):
                store.commit(
                    [
                        Write(self.key("a"), self.value("1"), ABSENT),
                        Write(self.key("a"), last, SAME),
                    ]
                )
        assert self.value("a") == self.get(store, "a").value

    # Ranges.

    def test_a_prefix_gives_its_keys_in_order(self, store: Datastore) -> None:
        """In the order of the bytes, whatever the order of creation."""
        self.create(store, "p/b", "p/a", "p/B", "p/10", "p/9")
        found = self.names(store.read([Range(self.key("p/"), prefix=True)])[0])
        assert ["p/10", "p/9", "p/B", "p/a", "p/b"] == found

    def test_a_prefix_ends_where_it_ends(self, store: Datastore) -> None:
        """`a/b` is a prefix of itself and of a/b0, but a/b/ is not one of a/b, a/b0 or a/c."""
        self.create(store, "a/a", "a/b", "a/b/x", "a/b/y", "a/b0", "a/c")
        without, with_slash = store.read(
            [Range(self.key("a/b"), prefix=True), Range(self.key("a/b/"), prefix=True)]
        )
        assert ["a/b", "a/b/x", "a/b/y", "a/b0"] == self.names(without)
        assert ["a/b/x", "a/b/y"] == self.names(with_slash)

    def test_a_key_is_no_prefix(self, store: Datastore) -> None:
        """A range without `prefix` is that key alone."""
        self.create(store, "a", "ab")
        assert ["a"] == self.names(store.read([Range(self.key("a"))])[0])

    def test_keys_are_taken_literally(self, store: Datastore) -> None:
        """Percent, underscore, star and case have no meaning."""
        self.create(store, "a_%/x", "ab%/x", "A_%/x", "a*/x")
        assert ["a_%/x"] == self.names(store.read([Range(self.key("a_%"), prefix=True)])[0])

    def test_keys_only_leaves_the_values_out(self, store: Datastore) -> None:
        """Key and revision as in a full read, the value an empty text."""
        self.create(store, "a", "b")
        full, keys = store.read(
            [Range(self.root, prefix=True), Range(self.root, prefix=True, keys_only=True)]
        )
        assert [(e.key, "", e.revision) for e in full] == [
            (e.key, e.value, e.revision) for e in keys
        ]

    def test_several_ranges_come_in_their_order(self, store: Datastore) -> None:
        """One answer per range, in the order of the question; ranges may overlap."""
        self.create(store, "a", "b")
        answers = store.read(
            [Range(self.key("b")), Range(self.root, prefix=True), Range(self.key("a"))]
        )
        assert [["b"], ["a", "b"], ["a"]] == [self.names(answer) for answer in answers]

    def test_pages_hold_at_most_their_size(self, store: Datastore) -> None:
        """All keys once, in order, in full pages and a rest."""
        self.create(store, *[f"p/{number}" for number in range(7)], "q")
        pages = [self.names(page) for page in store.pages(self.key("p/"), 3)]
        assert [["p/0", "p/1", "p/2"], ["p/3", "p/4", "p/5"], ["p/6"]] == pages

    def test_no_pages_of_nothing(self, store: Datastore) -> None:
        """An empty prefix has no page, not an empty one."""
        assert [] == list(store.pages(self.key("p/"), 3))

    def test_a_full_last_page_is_the_last(self, store: Datastore) -> None:
        """Where the number of keys is a multiple of the size there is no empty page."""
        self.create(store, "p/0", "p/1")
        assert [2] == [len(page) for page in store.pages(self.key("p/"), 2)]

    # Several clients.

    def test_another_client_reads_what_was_committed(self, open_store: OpenStore) -> None:
        """A commit is visible to every client when it returns."""
        self.create(open_store(), "a")
        assert self.value("a") == self.get(open_store(), "a").value

    def test_of_two_writers_at_one_revision_one_wins(self, open_store: OpenStore) -> None:
        """The second client's decision, made on the same revision, is refused."""
        first, second = open_store(), open_store()
        self.create(first, "a")
        revision = self.revision(second, "a")
        first.commit([Write(self.key("a"), self.value("first"), revision)])
        with pytest.raises(Conflict):
            second.commit([Write(self.key("a"), self.value("second"), revision)])
        assert self.value("first") == self.get(second, "a").value

    def test_in_a_race_exactly_one_wins(self, open_store: OpenStore) -> None:
        """Two threads with a client each swap the same revision at the same time, many times."""
        clients = [open_store(), open_store()]
        self.create(clients[0], "a")
        for round_ in range(20):
            revision = self.revision(clients[0], "a")
            assert 1 == sum(self.swap_at_once(clients, revision, round_))

    def swap_at_once(self, clients: list[Datastore], revision: int, round_: int) -> list[bool]:
        start = threading.Barrier(len(clients))
        won = [False] * len(clients)

        def swap(number: int) -> None:
            start.wait()
            try:
                text = self.value(f"{round_}-{number}")
                clients[number].commit([Write(self.key("a"), text, revision)])
            except Conflict:
                return
            won[number] = True

        threads = [threading.Thread(target=swap, args=(n,)) for n in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return won

    def test_one_client_serves_several_threads(self, store: Datastore) -> None:
        """Threads that share a client neither disturb each other nor lose writes."""
        failures: list[BaseException] = []

        def work(thread: int) -> None:
            try:
                for number in range(10):
                    self.create(store, f"t{thread}/{number}")
                    store.read([Range(self.key(f"t{thread}/"), prefix=True)])
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == failures
        assert 40 == len(store.read([Range(self.root, prefix=True)])[0])

    def test_ranges_of_one_read_are_of_one_moment(self, open_store: OpenStore) -> None:
        """Two keys that are always written together are never read at different values."""
        if not self.atomic:
            pytest.skip("a store without transactions has no moments")
        writer, reader = open_store(), open_store()
        self.create(writer, "a", "z")
        done = threading.Event()

        def write() -> None:
            for number in range(50):
                found = writer.read([Range(self.key("a")), Range(self.key("z"))])
                writer.commit([Write(e[0].key, self.value(number), e[0].revision) for e in found])
            done.set()

        thread = threading.Thread(target=write)
        self.commit_both(writer, "start")
        thread.start()
        while not done.is_set():
            a, z = reader.read([Range(self.key("a")), Range(self.key("z"))])
            assert a[0].value == z[0].value
        thread.join()

    def commit_both(self, store: Datastore, text: str) -> None:
        revisions = {name: self.revision(store, name) for name in "az"}
        store.commit([Write(self.key(n), self.value(text), r) for n, r in revisions.items()])

    # Watching, closing.

    def test_a_watch_tells_puts_and_removals(self, open_store: OpenStore) -> None:
        """From the call on: an entry for each key that is put, the key alone for one removed."""
        store, watcher = open_store(), open_store()
        self.create(store, "w/old", "other")
        changes = watcher.watch(self.key("w/"))
        self.create(store, "elsewhere")
        self.create(store, "w/new")
        put = next(changes)
        assert self.get(store, "w/new") == put
        store.commit([Write(self.key("w/old"), None, self.revision(store, "w/old"))])
        assert self.key("w/old") == next(changes)
        revision = self.revision(store, "w/new")
        store.commit([Write(self.key("w/new"), self.value("newer"), revision)])
        assert self.get(store, "w/new") == next(changes)

    def test_closing_ends_a_watch(self, open_store: OpenStore) -> None:
        """A watch of a closed client comes to its end."""
        store = open_store()
        changes = store.watch(self.root)
        store.close()
        assert [] == list(changes)

    def test_close_may_be_called_twice(self, open_store: OpenStore) -> None:
        """The second close does nothing, also where nothing was opened."""
        unused, used = open_store(), open_store()
        self.create(used, "a")
        for store in (unused, used):
            store.close()
            store.close()

    def test_what_was_committed_outlives_the_client(self, open_store: OpenStore) -> None:
        """Closing loses nothing."""
        store = open_store()
        self.create(store, "a")
        store.close()
        assert self.value("a") == self.get(open_store(), "a").value

    def test_revisions_only_grow(self, store: Datastore) -> None:
        """Every write of the store has a higher revision than every earlier commit's."""
        seen = []
        for name in ("a", "b", "c"):
            self.create(store, name)
            seen.append(self.revision(store, name))
        store.commit([Write(self.key("a"), self.value("a2"), seen[0])])
        seen.append(self.revision(store, "a"))
        assert all(earlier < later for earlier, later in itertools.pairwise(seen))
