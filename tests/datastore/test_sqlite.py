"""The datastore in a file: the contract, the file, what can be wrong with it, many processes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.datastore import sqlite
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    SHORT_LOG_BYTES,
    SqliteDatastore,
)
from cni_ipam.errors import (
    CniIpamError,
    Conflict,
    CorruptRecord,
    DatastoreUnavailable,
    InputOutputError,
    NetconfError,
)
from tests.datastore.contract import DatastoreContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni_ipam.datastore.port import Datastore

ROOT = Path(__file__).parents[2]
EVERYTHING = Range("", prefix=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ipam.db"


@pytest.fixture
def made(path: Path) -> Path:
    """A store with the keys a and b."""
    store = SqliteDatastore(str(path))
    create(store, "a", "b")
    store.close()
    return path


def create(store: Datastore, *keys: str) -> None:
    store.commit([Write(key, "{}", ABSENT) for key in keys])


def keys(store: Datastore) -> list[str]:
    return [entry.key for entry in store.read([EVERYTHING])[0]]


class TestSqlite(DatastoreContract):
    """The contract."""

    @pytest.fixture
    def open_store(self, path: Path) -> Iterator[Callable[[], Datastore]]:
        stores = []

        def open_() -> Datastore:
            stores.append(SqliteDatastore(str(path), watch_interval_seconds=0.001))
            return stores[-1]

        yield open_
        for store in stores:
            store.close()


class TestFile:
    """How the file comes into being."""

    def test_reading_makes_nothing(self, path: Path) -> None:
        """A store that does not exist reads as empty, and does not exist afterwards either."""
        store = SqliteDatastore(str(path))
        assert [[], []] == store.read([EVERYTHING, Range("a")])
        assert [] == list(store.pages("", 5))
        assert not path.parent.exists()

    def test_a_commit_may_be_forbidden_to_make_it(self, path: Path) -> None:
        """With create=False a missing store stays missing, and a commit says so."""
        store = SqliteDatastore(str(path), create=False)
        with pytest.raises(InputOutputError, match=f"sqlite_path {path}: there is no datastore"):
            create(store, "a")
        assert not path.parent.exists()

    def test_a_short_log_is_left_to_the_end_of_the_process(self, path: Path) -> None:
        """With keeps_log closing costs no sync: the log stays, and who comes next reads it."""
        store = SqliteDatastore(str(path), keeps_log=True)
        create(store, "a")
        store.close()
        assert path.with_name("ipam.db-wal").stat().st_size > 0
        later = SqliteDatastore(str(path))
        assert ["a"] == keys_of(later.read([EVERYTHING])[0])
        later.close()

    def test_a_long_log_is_moved_into_the_file(self, path: Path) -> None:
        """Otherwise each process would read more of it than the one before."""
        store = SqliteDatastore(str(path), keeps_log=True)
        store.commit([Write("a", "x" * SHORT_LOG_BYTES, ABSENT)])
        store.close()
        assert ["ipam.db"] == [p.name for p in path.parent.iterdir()]

    def test_an_empty_file_reads_as_empty(self, tmp_path: Path) -> None:
        """A file of no bytes is a store that nobody has begun: a read leaves it so."""
        empty = tmp_path / "ipam.db"
        empty.touch()
        assert [] == keys(SqliteDatastore(str(empty)))
        assert b"" == empty.read_bytes()

    def test_an_empty_file_is_taken(self, tmp_path: Path) -> None:
        """The first commit makes a store of an empty file."""
        empty = tmp_path / "ipam.db"
        empty.touch()
        store = SqliteDatastore(str(empty))
        create(store, "a")
        assert ["a"] == keys(store)
        store.close()

    def test_a_client_finds_what_another_makes_later(self, path: Path) -> None:
        """A client that has seen no store sees it as soon as there is one."""
        early = SqliteDatastore(str(path))
        assert [] == keys(early)
        later = SqliteDatastore(str(path))
        create(later, "a")
        assert ["a"] == keys(early)
        for store in (early, later):
            store.close()

    @pytest.mark.parametrize("umask", [0, 0o022, 0o177])
    def test_only_its_owner_can_read_it(self, path: Path, umask: int) -> None:
        """Files 0600, folders 0700, whatever the umask, which is left as it was."""
        former = os.umask(umask)
        try:
            store = SqliteDatastore(str(path))
            create(store, "a")
            assert umask == os.umask(umask)
        finally:
            os.umask(former)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert {"ipam.db": 0o600, "ipam.db-wal": 0o600, "ipam.db-shm": 0o600} == modes
        assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
        store.close()

    def test_a_commit_is_on_the_disk(self, made: Path) -> None:
        """WAL mode and synchronous=FULL, which SQLite is built to use if nothing else is said."""
        store = SqliteDatastore(str(made))
        store.read([])
        connection = store._connection
        assert connection is not None
        assert [("wal",)] == connection.execute("PRAGMA journal_mode").fetchall()
        assert [(2,)] == connection.execute("PRAGMA synchronous").fetchall()
        store.close()

    def test_the_file_says_whose_it_is(self, made: Path) -> None:
        """The table, the application and the schema's version, as another program sees them."""
        with sqlite3.connect(made) as db:
            assert [("a", "{}", 1), ("b", "{}", 1)] == db.execute(
                "SELECT * FROM kv WHERE key<>''"
            ).fetchall()
            assert [(APPLICATION_ID,)] == db.execute("PRAGMA application_id").fetchall()
            assert [(SCHEMA_VERSION,)] == db.execute("PRAGMA user_version").fetchall()
        db.close()

    def test_the_counter_is_no_key(self, made: Path) -> None:
        """The row with the empty key is never shown, not even to who asks for it."""
        store = SqliteDatastore(str(made))
        assert [[], ["a", "b"], [["a"], ["b"]]] == [
            keys_of(store.read([Range("")])[0]),
            keys_of(store.read([EVERYTHING])[0]),
            [keys_of(page) for page in store.pages("", 1)],
        ]
        store.close()

    def test_closing_leaves_one_file(self, made: Path) -> None:
        """The last client to close brings the log into the file."""
        assert ["ipam.db"] == [file.name for file in made.parent.iterdir()]


def keys_of(entries: list[sqlite.Entry]) -> list[str]:
    return [entry.key for entry in entries]


class TestSchema:
    """Files of other versions."""

    @pytest.fixture
    def newer_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "SCHEMA_VERSION", 2)
        monkeypatch.setattr(sqlite, "MIGRATIONS", {1: ("CREATE TABLE note(text)",)})

    def version(self, path: Path) -> int:
        db = sqlite3.connect(path)
        (found,) = db.execute("PRAGMA user_version").fetchone()
        db.close()
        return int(found)

    def test_a_newer_file_is_refused(self, made: Path) -> None:
        """The message names the key, the file and both versions; nothing is changed."""
        db = sqlite3.connect(made)
        db.execute("PRAGMA user_version=7")
        db.close()
        before = made.read_bytes()
        for use in (keys, lambda store: create(store, "c")):
            with pytest.raises(NetconfError, match=f"sqlite_path {made}: schema version 7.* 1,"):
                use(SqliteDatastore(str(made)))
        assert before == made.read_bytes()

    @pytest.mark.usefixtures("newer_program")
    def test_an_older_file_is_used_as_it_is(self, made: Path) -> None:
        """Read and written, and still of its own version afterwards."""
        store = SqliteDatastore(str(made))
        create(store, "c")
        assert ["a", "b", "c"] == keys(store)
        store.close()
        assert 1 == self.version(made)

    @pytest.mark.usefixtures("newer_program")
    def test_upgrade_brings_it_up_to_date(self, made: Path) -> None:
        """Once, with everything in it kept; a second time changes nothing."""
        store = SqliteDatastore(str(made))
        assert [(1, 2), (2, 2)] == [store.upgrade(), store.upgrade()]
        assert ["a", "b"] == keys(store)
        store.close()
        assert 2 == self.version(made)

    def test_upgrade_that_fails_changes_nothing(
        self, made: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of its steps or none."""
        monkeypatch.setattr(sqlite, "SCHEMA_VERSION", 2)
        monkeypatch.setattr(sqlite, "MIGRATIONS", {1: ("CREATE TABLE note(text)", "nonsense")})
        store = SqliteDatastore(str(made))
        with pytest.raises(CorruptRecord):
            store.upgrade()
        store.close()
        assert 1 == self.version(made)


class TestWrongFile:
    """Each kind of damage is one clear error with its code, and changes nothing."""

    def refuse(self, path: Path, kind: type[Exception], text: str) -> None:
        """Reading and writing are refused alike, and the file stays as it is."""
        before = path.read_bytes() if path.is_file() else b""
        for use in (keys, lambda store: create(store, "c"), lambda store: list(store.pages("", 1))):
            store = SqliteDatastore(str(path), 0.01)
            with pytest.raises(kind, match=text) as caught:
                use(store)
            assert str(path) in str(caught.value)
            store.close()
        assert before == (path.read_bytes() if path.is_file() else b"")

    @pytest.mark.parametrize("content", [b"hello", b"x" * 5000, b"\0" * 100])
    def test_no_database(self, tmp_path: Path, content: bytes) -> None:
        """A text, bytes without meaning, zeros."""
        path = tmp_path / "ipam.db"
        path.write_bytes(content)
        self.refuse(path, CorruptRecord, "not a sound datastore: file is not a database")

    def test_damaged_pages(self, made: Path) -> None:
        """A file of ours whose pages are overwritten behind the header."""
        content = made.read_bytes()
        made.write_bytes(content[:100] + b"\xff" * (len(content) - 100))
        self.refuse(made, CorruptRecord, "not a sound datastore")

    def test_half_a_file(self, made: Path) -> None:
        """A file of ours that was cut off."""
        made.write_bytes(made.read_bytes()[:4096])
        self.refuse(made, CorruptRecord, "not a sound datastore")

    def test_no_table(self, made: Path) -> None:
        """A file of ours without its table."""
        db = sqlite3.connect(made)
        db.execute("DROP TABLE kv")
        db.close()
        self.refuse(made, CorruptRecord, "no such table: kv")

    def test_no_counter(self, made: Path) -> None:
        """Without the row that counts, nothing may be written."""
        db = sqlite3.connect(made, isolation_level=None)
        db.execute("DELETE FROM kv WHERE key=''")
        db.close()
        store = SqliteDatastore(str(made))
        with pytest.raises(CorruptRecord, match="the row that counts the commits is missing"):
            create(store, "c")
        assert ["a", "b"] == keys(store)
        store.close()

    def test_a_value_that_is_no_text(self, made: Path) -> None:
        """Bytes that are not UTF-8 in a row."""
        db = sqlite3.connect(made, isolation_level=None)
        db.execute("UPDATE kv SET value=CAST(x'ff' AS TEXT) WHERE key='a'")
        db.close()
        store = SqliteDatastore(str(made))
        with pytest.raises(CorruptRecord, match="decode"):
            keys(store)
        store.close()

    @pytest.mark.parametrize("mode", ["delete", "wal"])
    def test_another_applications_database(self, tmp_path: Path, mode: str) -> None:
        """Somebody else's tables are not ours to write to."""
        path = tmp_path / "other.db"
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA journal_mode={mode}")
        db.execute("CREATE TABLE kv(key TEXT, value TEXT)")
        db.close()
        self.refuse(path, NetconfError, "sqlite_path .* another application")

    def test_another_applications_empty_database(self, tmp_path: Path) -> None:
        """Nor is a file that carries another application's mark."""
        path = tmp_path / "other.db"
        db = sqlite3.connect(path)
        db.execute("PRAGMA application_id=42")
        db.close()
        self.refuse(path, NetconfError, "sqlite_path .* another application")

    def test_a_folder(self, tmp_path: Path) -> None:
        """The path is a folder."""
        self.refuse(tmp_path, InputOutputError, "unable to open database file")

    def test_below_a_file(self, tmp_path: Path) -> None:
        """The path leads through a file."""
        (tmp_path / "file").touch()
        self.refuse(tmp_path / "file" / "ipam.db", InputOutputError, "Not a directory")

    def test_a_file_that_was_put_in_its_place_counts(self, made: Path, tmp_path: Path) -> None:
        """An operator's backup: it is read, and what is committed lies there."""
        backup = tmp_path / "backup.db"
        other = SqliteDatastore(str(backup))
        create(other, "c")
        other.close()
        store = SqliteDatastore(str(made))
        assert ["a", "b"] == keys(store)
        backup.replace(made)
        assert ["c"] == keys(store)
        create(store, "d")
        assert ["c", "d"] == keys(SqliteDatastore(str(made)))
        store.close()

    def test_a_file_that_was_removed_is_made_anew(self, made: Path) -> None:
        """Else a commit would be acknowledged and be nowhere."""
        store = SqliteDatastore(str(made))
        assert ["a", "b"] == keys(store)
        for file in made.parent.iterdir():
            file.unlink()
        assert [] == keys(store)
        create(store, "c")
        assert ["c"] == keys(SqliteDatastore(str(made)))
        store.close()

    def test_full(self, made: Path) -> None:
        """No room on the disk: nothing of the commit is kept, and reading goes on."""
        store = SqliteDatastore(str(made))
        store.read([])
        assert store._connection is not None
        store._connection.execute("PRAGMA max_page_count=4")
        big = Write("big", "x" * 100_000, ABSENT)
        with pytest.raises(InputOutputError, match="database or disk is full"):
            store.commit([Write("c", "{}", ABSENT), big])
        assert ["a", "b"] == keys(store)
        store.close()

    def test_failed_write(self, made: Path) -> None:
        """The kernel refuses to write: nothing of the commit is kept, later ones succeed."""
        store = SqliteDatastore(str(made))
        create(store, "c")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(InputOutputError, match="cannot be read or written: disk I/O error"):
                store.commit([Write("big", "x" * 100_000, ABSENT)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, former)
        create(store, "d")
        assert ["a", "b", "c", "d"] == keys(store)
        store.close()


class TestLocked:
    """Another process holds the file."""

    @pytest.fixture
    def other(self, made: Path) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(made, isolation_level=None, check_same_thread=False)
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.close()

    @pytest.mark.usefixtures("other")
    def test_longer_than_the_timeout(self, made: Path) -> None:
        """The same call can succeed later, and the message says for how long it was tried."""
        store = SqliteDatastore(str(made), 0.02)
        with pytest.raises(DatastoreUnavailable, match=r"longer than 0\.02 s"):
            create(store, "c")
        assert ["a", "b"] == keys(store)
        store.close()

    def test_shorter_than_the_timeout(self, made: Path, other: sqlite3.Connection) -> None:
        """A commit waits for its turn."""
        store = SqliteDatastore(str(made), 10)
        timer = threading.Timer(0.02, other.execute, ["ROLLBACK"])
        timer.start()
        create(store, "c")
        timer.join()
        assert ["a", "b", "c"] == keys(store)
        store.close()

    def test_a_broken_off_commit_leaves_no_lock(self, made: Path) -> None:
        """Whatever interrupts a commit, the next client can write."""
        store = SqliteDatastore(str(made))
        with pytest.raises(Conflict):
            create(store, "c", "a")
        second = SqliteDatastore(str(made), 0.01)
        create(second, "c")
        assert ["a", "b", "c"] == keys(store)
        for each in (store, second):
            each.close()


CHILD = """
import sys
sys.path.insert(0, {root!r})
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.errors import CniIpamError, Conflict
path = sys.argv[1]
store = SqliteDatastore(path, 30)
"""
COUNT = """
for _ in range(int(sys.argv[2])):
    while True:
        found = store.read([Range("counter")])[0]
        number, revision = (int(found[0].value), found[0].revision) if found else (0, ABSENT)
        try:
            store.commit([Write("counter", str(number + 1), revision)])
            break
        except Conflict:
            pass
store.close()
"""


def try_to_use(store: SqliteDatastore) -> list[str]:
    outcomes = []
    for verb in (
        lambda: keys_of(store.read([Range("", prefix=True)])[0]),
        lambda: store.commit([Write("c", "{}", ABSENT)]),
    ):
        try:
            outcomes.append(str(verb()))
        except CniIpamError as error:
            outcomes.append(f"{type(error).__name__} {error.code}")
    return outcomes


def child(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", CHILD.format(root=str(ROOT)) + code, *arguments]


class TestProcesses:
    """Many short-lived processes at once, as a container runtime starts them."""

    def test_sixty_four_processes_count_exactly(self, path: Path) -> None:
        """64 processes begin with no file and swap one counter 20 times each: none is lost."""
        many, times = 64, 20
        children = [
            subprocess.Popen(child(COUNT, str(path), str(times)), stderr=subprocess.PIPE)
            for _ in range(many)
        ]
        assert [(b"", 0)] * many == [(c.communicate()[1], c.returncode) for c in children]
        store = SqliteDatastore(str(path))
        (counter,) = store.read([Range("counter")])[0]
        assert (str(many * times), many * times) == (counter.value, counter.revision)
        store.close()

    @pytest.fixture
    def public_folder(self) -> Iterator[Path]:
        """A folder that any user can reach, unlike pytest's own."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        yield folder
        shutil.rmtree(folder)

    def as_nobody(self, path: Path) -> list[str]:
        """What reading and writing give to a user who may not; in a fork, as that user may not be
        allowed to start this interpreter either."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, "\n".join(try_to_use(SqliteDatastore(str(path)))).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            lines = answer.read().splitlines()
        assert 0 == os.waitpid(pid, 0)[1]
        return lines

    def make(self, path: Path) -> None:
        store = SqliteDatastore(str(path))
        create(store, "a")
        store.close()

    def test_a_read_only_file(self, public_folder: Path) -> None:
        """It cannot be written: error 5, and nothing is changed."""
        path = public_folder / "ipam.db"
        self.make(path)
        path.chmod(0o444)
        public_folder.chmod(0o777)
        before = path.read_bytes()
        assert "InputOutputError 5" == self.as_nobody(path)[1]
        assert before == path.read_bytes()

    def test_a_read_only_folder(self, public_folder: Path) -> None:
        """The log cannot be made beside the file: error 5, also for readers."""
        path = public_folder / "ipam.db"
        self.make(path)
        path.chmod(0o666)
        public_folder.chmod(0o555)
        assert ["InputOutputError 5"] * 2 == self.as_nobody(path)

    def test_a_folder_that_cannot_be_made(self, public_folder: Path) -> None:
        """A new store in a folder that is not ours: nothing to read, error 5 on writing."""
        public_folder.chmod(0o555)
        path = public_folder / "new" / "ipam.db"
        assert ["[]", "InputOutputError 5"] == self.as_nobody(path)

    def test_a_file_that_cannot_be_read(self, public_folder: Path) -> None:
        """Another user's store."""
        path = public_folder / "ipam.db"
        self.make(path)
        path.chmod(0o000)
        assert ["InputOutputError 5"] * 2 == self.as_nobody(path)


NAMES = st.text(st.sampled_from("ab/0.\ud7ff\ue000\U0010ffff"), max_size=4)


class TestRanges:
    """Prefixes against the plain definition."""

    @given(present=st.sets(NAMES.filter(bool), max_size=12), prefix=NAMES)
    def test_prefixes_are_those_of_the_store_in_memory(
        self, present: set[str], prefix: str
    ) -> None:
        """Whatever the last character of a prefix is, the range ends behind it."""
        with tempfile.TemporaryDirectory() as folder:
            stores = [MemoryDatastore(), SqliteDatastore(folder + "/ipam.db")]
            found = []
            for store in stores:
                create(store, *sorted(present))
                found.append(
                    [
                        keys_of(store.read([Range(prefix, prefix=True)])[0]),
                        [keys_of(page) for page in store.pages(prefix, 2)],
                    ]
                )
                store.close()
            assert found[0] == found[1]
