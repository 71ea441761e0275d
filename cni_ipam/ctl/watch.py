"""A loop that follows changes: of records, by the datastore's watch, and of the kernel's routes.

Whoever has something to do after a change is a `Follower`. All followers work one after another in
the thread that runs the loop; the datastore's watches wait in threads of their own and only tell
that something has changed. What fails is told once and tried again, for as long as it takes.
"""

from __future__ import annotations

import math
import select
import signal
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from cni_ipam.errors import CniIpamError, DatastoreUnavailable, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import FrameType

    from cni_ipam.datastore.port import Datastore, Entry

    class Source(Protocol):
        """Something to wait for besides records."""

        def fileno(self) -> int:
            """What can be read when there is news."""

        def drain(self) -> bool:
            """Take all news; whether any of it matters."""


PAUSE_SECONDS = 2.0
"""How long what failed rests."""
GATHER_SECONDS = 0.1
"""How long to wait for further changes: one seldom comes alone."""
RECORDS_SECONDS = 60.0
"""How old the records may grow where nothing tells of a change."""
T = TypeVar("T")


class Reading(Generic[T]):
    """What `read` made of the records, good until a change is told or it is RECORDS_SECONDS old.

    Something newer that was read elsewhere may be put in the place of `latest`; its age stays."""

    def __init__(self, read: Callable[[], T]) -> None:
        self.latest: T | None = None
        self._read = read
        self._read_at = -math.inf
        self._is_stale = False

    @property
    def is_due(self) -> bool:
        """Whether `get` reads anew."""
        return self._is_stale or time.monotonic() - self._read_at > RECORDS_SECONDS

    def note_change(self) -> None:
        """The records may have changed; any thread may call this."""
        self._is_stale = True

    def get(self) -> T:
        """The latest, read anew if that is due. Raises what reading raises; it stays due then."""
        if self.is_due or self.latest is None:
            # Before reading: a change that comes meanwhile is not in what is read.
            self._is_stale = False
            began_at = time.monotonic()
            try:
                self.latest = self._read()
            except CniIpamError:
                self._is_stale = True
                raise
            self._read_at = began_at
        return self.latest


class Follower:
    """Somebody who acts on changes of the records under `prefixes`, on news of a `source`, at the
    beginning, and every `interval_seconds`. A subclass says what to do."""

    def __init__(
        self,
        name: str,
        prefixes: Iterable[str],
        *,
        source: Source | None = None,
        interval_seconds: float = math.inf,
    ) -> None:
        self.name = name
        self.prefixes = tuple(prefixes)
        self.source = source
        self.due_at = 0.0
        self._interval_seconds = interval_seconds
        self._told = ""

    def follow(self) -> list[str]:
        """Act, and return a line for each thing that was done. A CniIpamError is told, and it is
        tried again; what this is about should have stayed as it was then."""
        raise NotImplementedError

    def concerns(self, change: Entry | str) -> bool:
        """Whether a changed record matters; called in the thread of a watch."""
        del change
        return True

    def note_change(self) -> None:
        """Records may have changed since they were read last; called in the thread of a watch."""

    def hurry(self) -> None:
        """Act soon."""
        self.due_at = min(self.due_at, time.monotonic() + GATHER_SECONDS)

    def act(self, say: Callable[[str], None]) -> CniIpamError | None:
        """Do it, and tell what was done, or why not; returns that."""
        self.due_at = time.monotonic() + self._interval_seconds
        try:
            lines = self.follow()
        except CniIpamError as error:
            self.due_at = time.monotonic() + PAUSE_SECONDS
            if self._told != error.msg:
                say(f"{self.name}: {error.msg}")
            self._told = error.msg
            return error
        if self._told:
            say(f"{self.name}: works again")
        self._told = ""
        for line in lines:
            say(line)
        return None


class Watch:
    """The loop. `open_store` gives each watching thread a datastore of its own; `renew` is called
    when a follower could not reach its own, or was not let in."""

    def __init__(
        self,
        open_store: Callable[[], Datastore],
        followers: Sequence[Follower],
        say: Callable[[str], None],
        renew: Callable[[], None],
    ) -> None:
        self._open_store = open_store
        self._followers = followers
        self._say = say
        self._renew = renew
        self._ended = threading.Event()
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._stores: set[Datastore] = set()
        self._reopened = 0

    def run(self) -> None:
        """Follow changes until SIGTERM or SIGINT."""
        prefixes = {prefix for follower in self._followers for prefix in follower.prefixes}
        with self._signals():
            for prefix in sorted(prefixes):
                threading.Thread(target=self._watch, args=(prefix,), daemon=True).start()
            while not self._ended.is_set():
                for follower in self._followers:
                    if follower.due_at <= time.monotonic() and not self._ended.is_set():
                        failure = follower.act(self._say)
                        if isinstance(failure, (DatastoreUnavailable, Unauthorized)):
                            self._renew()
                self._wait()
        self.reopen()
        self._ear.close()
        self._bell.close()

    def end(self) -> None:
        """Let the loop end; any thread may call this."""
        self._ended.set()
        self._ring()

    def reopen(self) -> None:
        """Let all watches begin again, in the datastore that is the right one by then."""
        self._reopened += 1
        for store in list(self._stores):
            store.close()

    def _wait(self) -> None:
        """Until somebody is due or there is news; what the news is about is due then."""
        ear = self._ear.fileno()
        sources = {f.source.fileno(): f for f in self._followers if f.source is not None}
        due_at = min([follower.due_at for follower in self._followers], default=math.inf)
        seconds = None if due_at == math.inf else max(due_at - time.monotonic(), 0.0)
        readable, _, _ = select.select([ear, *sources], [], [], seconds)
        for found in readable:
            follower = sources.get(found)
            if follower is None:
                self._ear.recv(4096)
            elif follower.source is not None and follower.source.drain():
                follower.hurry()

    def _watch(self, prefix: str) -> None:
        """Tell of each change under a prefix; in a thread of its own."""
        followers = [follower for follower in self._followers if prefix in follower.prefixes]
        while not self._ended.is_set():
            reopened = self._reopened
            # A datastore that cannot be watched is told of by those who want to read it.
            with suppress(CniIpamError), closing(self._open_store()) as store:
                self._stores.add(store)
                try:
                    if reopened != self._reopened:  # it is the former one, and nobody closes it
                        continue
                    changes = store.watch(prefix)
                    # What changed before the watch began is known to nobody.
                    self._tell(followers)
                    for change in changes:
                        self._tell([one for one in followers if one.concerns(change)])
                finally:
                    self._stores.discard(store)
            self._ended.wait(PAUSE_SECONDS)

    def _tell(self, followers: Sequence[Follower]) -> None:
        for follower in followers:
            follower.note_change()
            follower.hurry()
        if followers:
            self._ring()

    def _ring(self) -> None:
        # It is full, so it will be heard; or nobody listens any more.
        with suppress(OSError):
            self._bell.send(b"\0")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the loop meanwhile."""

        def end(_number: int, _frame: FrameType | None) -> None:
            self.end()

        # Whichever thread the kernel chooses, this one wakes up.
        former_bell = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former_bell)
