"""The datastore in one file, for a node without a server: the keys and values that etcd would hold.

One table `kv`, in order of the keys. Its row with the empty key, which no range shows, counts the
commits: its revision is the newest one, and every row written by a commit gets it. So revisions
grow for the store as a whole, and a key that is deleted and made again never has an old one.

The file is in WAL mode and `synchronous` is FULL: what is committed survives a power failure, and
readers never wait for a writer. It is made by the first commit, never by a read.

Nothing here opens the file but SQLite: closing any descriptor of it would drop the locks that
SQLite holds for this process (POSIX locks belong to the process, not to the descriptor).
"""

from __future__ import annotations

import _thread
import posix
import time

from cni_ipam.datastore.port import ABSENT, Entry, Range, Write, catch_up, collapse
from cni_ipam.errors import (
    Conflict,
    CorruptDatastore,
    DatastoreUnavailable,
    InputOutputError,
    NetconfError,
)
from cni_ipam.lean.folder import identify, make_folder_of
from cni_ipam.lean.sqlite import Connection, Error, OperationalError, ProgrammingError, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

APPLICATION_ID = 0x636E6970  # "cnip", in the file's header
SCHEMA_VERSION = 1
# The statements that lead from a version to the next. A file of an older version is read and
# written as it is: an operator decides when to upgrade, since older programs then refuse the file.
MIGRATIONS: dict[int, tuple[str, ...]] = {}

_SCHEMA = (
    """CREATE TABLE kv(
        key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "INSERT INTO kv VALUES('', '', 0)",
    f"PRAGMA application_id={APPLICATION_ID}",
    f"PRAGMA user_version={SCHEMA_VERSION}",
)
_NEXT_REVISION = "UPDATE kv SET revision=revision+1 WHERE key='' RETURNING revision"
_CREATE = "INSERT OR IGNORE INTO kv VALUES(?,?,?)"
_UPDATE = "UPDATE kv SET value=?, revision=? WHERE key=? AND revision=?"
_DELETE = "DELETE FROM kv WHERE key=? AND revision=?"
_COLUMNS = ("SELECT key, value, revision FROM kv", "SELECT key, '', revision FROM kv")

# SQLite's primary result codes (https://www.sqlite.org/rescode.html); 0 where Python itself fails
_SQL_ERROR, _BUSY, _LOCKED, _CORRUPT, _PROTOCOL, _NOTADB, _NO_CODE = 1, 5, 6, 11, 15, 26, 0
_RETRY_SECONDS = 0.005

SHORT_LOG_BYTES = 200_000
_LEFT_OPEN: list[Connection] = []


class SqliteDatastore:
    """The port over the file at `path`; any number of threads and processes may use it.

    A store that does not exist reads as empty; the first commit makes it, or raises
    InputOutputError where `create` is false. A short-lived process `keeps_log` (see `close`).
    """

    atomic = True

    def __init__(
        self,
        path: str,
        busy_timeout_seconds: float = 10.0,
        *,
        create: bool = True,
        keeps_log: bool = False,
        watch_interval_seconds: float = 0.1,
    ) -> None:
        self._path = path
        self._busy_timeout_seconds = busy_timeout_seconds
        self._create = create
        self._keeps_log = keeps_log
        self._watch_interval_seconds = watch_interval_seconds
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._lock = _thread.RLock()
        self._edge = _Edge(path, busy_timeout_seconds)
        self._closed = False

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        """See the port: one moment."""
        with self._lock, self._edge:
            connection = self._open(create=False)
            if connection is None:
                return [[] for _ in ranges]
            connection.execute("BEGIN")
            try:
                return [_select(connection, wanted) for wanted in ranges]
            finally:
                connection.rollback()

    def pages(self, prefix: str, size: int) -> Iterator[list[Entry]]:
        """See the port: each page is of its own moment."""
        last = ""
        while True:
            with self._lock, self._edge:
                connection = self._open(create=False)
                page = _page(connection, prefix, last, size) if connection else []
            if not page:
                return
            yield page
            last = page[-1].key

    def commit(self, writes: Iterable[Write]) -> None:
        """See the port: all or nothing, and on the disk when this returns."""
        writes = collapse(writes)
        if not writes:
            return
        with self._lock, self._edge:
            connection = self._open(create=True)
            if connection is None:
                raise InputOutputError(
                    f"sqlite_path {self._path}: there is no datastore to write to",
                    "the first ADD makes it",
                )
            connection.execute("BEGIN IMMEDIATE")
            try:
                revision = self._next_revision(connection)
                for write in writes:
                    _write(connection, write, revision)
                connection.execute("COMMIT")
            finally:
                # Does nothing after a COMMIT, nor where SQLite has rolled back by itself.
                connection.rollback()

    def watch(self, prefix: str) -> Iterator[Entry | str]:
        """See the port; looks for changes at intervals, and ends when the datastore is closed.

        Of several changes of one key between two looks only the last is seen.
        """
        wanted = Range(prefix, prefix=True)
        known = {entry.key: entry.revision for entry in self.read([wanted])[0]}
        return self._follow(wanted, known)

    def upgrade(self) -> tuple[int, int]:
        """The file has this program's schema version afterwards; returns the former and that."""
        with self._lock, self._edge:
            connection = self._open(create=True)
            if connection is None:
                return SCHEMA_VERSION, SCHEMA_VERSION
            connection.execute("BEGIN IMMEDIATE")
            try:
                former = _pragma(connection, "user_version")
                for version in range(former, SCHEMA_VERSION):
                    for statement in MIGRATIONS[version]:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                connection.execute("COMMIT")
            finally:
                connection.rollback()
            return former, SCHEMA_VERSION

    def close(self) -> None:
        """Let go of the file; watches end.

        Whoever closes last moves the log into the file and syncs both, which is four of the five
        syncs of a short-lived process. So with `keeps_log` the connection is left to the end of
        the process while the log is short; a long one would cost each next process more.
        """
        with self._lock, self._edge:
            self._closed = True
            connection, self._connection = self._connection, None
            if connection is not None and self._keeps_log and self._has_short_log():
                _LEFT_OPEN.append(connection)
            elif connection is not None:
                connection.close()

    def _has_short_log(self) -> bool:
        try:
            return posix.stat(f"{self._path}-wal").st_size <= SHORT_LOG_BYTES
        except FileNotFoundError:
            return False

    def _follow(self, wanted: Range, known: dict[str, int]) -> Iterator[Entry | str]:
        counter = -1
        while not self._closed:
            former, counter = counter, self._newest_revision()
            if counter == former:
                time.sleep(self._watch_interval_seconds)
                continue
            yield from catch_up(self.read([wanted])[0], known)

    def _next_revision(self, connection: Connection) -> int:
        for (revision,) in connection.execute(_NEXT_REVISION).fetchall():
            return int(revision)
        raise CorruptDatastore(self._path, "the row that counts the commits is missing")

    def _newest_revision(self) -> int:
        with self._lock, self._edge:
            connection = self._open(create=False)
            if connection is None:
                return 0
            return sum(row[0] for row in connection.execute("SELECT revision FROM kv WHERE key=''"))

    def _open(self, *, create: bool) -> Connection | None:
        """The connection to a store that is ours, or None if there is none to read."""
        file = identify(self._path)
        if self._connection is not None and file != self._file:
            # A backup was put there, or it was removed: what is committed here nobody would see.
            connection, self._connection = self._connection, None
            connection.close()
        if self._connection is None:
            create = create and self._create
            if file is None and not create:
                return None
            connection = self._connect_new() if file is None else self._connect()
            try:
                if self._recognise(connection, create=create):
                    self._connection, self._file = connection, file or identify(self._path)
            finally:
                if self._connection is None:
                    connection.close()
        return self._connection

    def _connect(self) -> Connection:
        return connect(
            self._path,
            timeout=self._busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )

    def _connect_new(self) -> Connection:
        """Connect to a file that SQLite makes, 0600; its -wal and -shm get the mode of the file."""
        make_folder_of(self._path)
        former = posix.umask(0o077)
        try:
            return self._connect()
        finally:
            posix.umask(former)

    def _recognise(self, connection: Connection, *, create: bool) -> bool:
        """Whether the file holds a store of ours, which `create` makes in an empty one."""
        if _pragma(connection, "application_id") != APPLICATION_ID:
            if not _is_empty(connection):
                raise NetconfError(
                    f"sqlite_path {self._path}: a database of another application",
                    "name a file that does not exist yet, or one that cni-ipam has made",
                )
            if not create:
                return False
            self._initialise(connection)
        if (version := _pragma(connection, "user_version")) > SCHEMA_VERSION:
            raise NetconfError(
                f"sqlite_path {self._path}: schema version {version} is newer than"
                f" {SCHEMA_VERSION}, the newest that this program knows",
                "use the cni-ipam that upgraded this datastore, or a later one",
            )
        return True

    def _initialise(self, connection: Connection) -> None:
        """An empty file is a store afterwards; of many processes that try at once, one does it."""
        self._switch_to_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _pragma(connection, "application_id") != APPLICATION_ID:
                for statement in _SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")
        finally:
            connection.rollback()

    def _switch_to_wal(self, connection: Connection) -> None:
        # SQLite refuses this at once, without its own waiting, while others do the same.
        deadline = time.monotonic() + self._busy_timeout_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except OperationalError as error:
                if error.sqlite_errorcode & 0xFF != _BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return


def _pragma(connection: Connection, name: str) -> int:
    return sum(row[0] for row in connection.execute(f"PRAGMA {name}"))


def _is_empty(connection: Connection) -> bool:
    """Whether the file is nobody's, or ours since a moment ago; one look, as others may make it."""
    connection.execute("BEGIN")
    try:
        application = _pragma(connection, "application_id")
        tables = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        return application == APPLICATION_ID or (application == 0 and not tables)
    finally:
        connection.rollback()


def _select(connection: Connection, wanted: Range) -> list[Entry]:
    columns = _COLUMNS[wanted.keys_only]
    if not wanted.prefix:
        rows = connection.execute(f"{columns} WHERE key=? AND key<>''", (wanted.key,))
    else:
        rows = connection.execute(
            f"{columns} WHERE key>=? AND key<? AND key<>'' ORDER BY key",
            (wanted.key, _successor(wanted.key)),
        )
    return [Entry(*row) for row in rows]


def _page(connection: Connection, prefix: str, last: str, size: int) -> list[Entry]:
    rows = connection.execute(
        f"{_COLUMNS[0]} WHERE key>? AND key>=? AND key<? ORDER BY key LIMIT ?",
        (last, prefix, _successor(prefix), size),
    )
    return [Entry(*row) for row in rows]


def _successor(prefix: str) -> str | bytes:
    """The least key behind those that begin with `prefix`; for SQLite every blob is behind all."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return b""
    following = ord(prefix[-1]) + 1
    # The code points of surrogates are not characters.
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def _write(connection: Connection, write: Write, revision: int) -> None:
    """Raises Conflict if the row is not at the expected revision."""
    if write.value is None:
        if write.expected == ABSENT:
            taken = len(_select(connection, Range(write.key, keys_only=True)))
            written = 1 - taken
        else:
            written = connection.execute(_DELETE, (write.key, write.expected)).rowcount
    elif write.expected == ABSENT:
        written = connection.execute(_CREATE, (write.key, write.value, revision)).rowcount
    else:
        row = (write.value, revision, write.key, write.expected)
        written = connection.execute(_UPDATE, row).rowcount
    if written != 1:
        raise Conflict(write.key)


class _Edge:
    """Around everything that SQLite does: its errors leave as the project's own."""

    def __init__(self, path: str, busy_timeout_seconds: float) -> None:
        self._path = path
        self._busy_timeout_seconds = busy_timeout_seconds

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise self._unusable(error.strerror) from error
        if isinstance(error, Error) and not isinstance(error, ProgrammingError):
            raise self._translate(error) from error

    def _translate(self, error: Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", _NO_CODE) & 0xFF
        if code in (_BUSY, _LOCKED, _PROTOCOL):
            return DatastoreUnavailable(
                f"sqlite_path {self._path}: locked by another process for longer than"
                f" {self._busy_timeout_seconds:g} s",
                "the call can be repeated",
            )
        if code in (_CORRUPT, _NOTADB, _SQL_ERROR, _NO_CODE):
            return CorruptDatastore(self._path, f"not a sound datastore: {error}")
        return self._unusable(str(error))

    def _unusable(self, cause: str | None) -> InputOutputError:
        return InputOutputError(
            f"sqlite_path {self._path}: cannot be read or written: {cause}",
            "the file and its folder must be writable for root, with room on the disk",
        )
