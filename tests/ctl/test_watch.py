"""The loop of `routes watch`: who acts when, what is told, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager

import pytest

from cni_ipam.ctl import watch
from cni_ipam.ctl.watch import Follower, Watch
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import DatastoreUnavailable, OperatorError, Unauthorized

PATIENCE_SECONDS = 10.0


class Counting(Follower):
    """Counts how often it acts, and keeps what it sees then; what is in `answers` it returns or
    raises, one after another."""

    def __init__(
        self, *answers, prefixes=("/a/",), heeds=lambda _: True, look=lambda: None, **fields
    ):
        super().__init__("counting", prefixes, **fields)
        self.answers = list(answers)
        self.heeds = heeds
        self.look = look
        self.seen = None
        self.notes = 0
        self.acted = 0
        self.changed = threading.Condition()

    def follow(self):
        with self.changed:
            self.acted += 1
            self.seen = self.look()
            self.changed.notify_all()
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def concerns(self, change):
        return self.heeds(change)

    def note_change(self):
        with self.changed:
            self.notes += 1
            self.changed.notify_all()

    def sees(self, expected):
        """Whether it has acted on that, now or soon."""
        with self.changed:
            return self.changed.wait_for(lambda: self.seen == expected, PATIENCE_SECONDS)

    def is_noted(self, times):
        """Whether it was told so often of changes, the beginning of a watch included."""
        with self.changed:
            return self.changed.wait_for(lambda: self.notes >= times, PATIENCE_SECONDS)

    def acts(self, times):
        """Whether it has acted so often, now or soon."""
        with self.changed:
            return self.changed.wait_for(lambda: self.acted >= times, PATIENCE_SECONDS)


@contextmanager
def running(follower, open_store=MemoryDatastore, say=lambda _: None):
    """The loop in this process's main thread is the test's helper: it runs in another one, so it
    gets no signals."""
    made = Watch(open_store, [follower], say, lambda: None)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.end()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def no_signals(request, monkeypatch):
    """Only a main thread may have handlers."""
    if "signals" not in request.node.name:
        monkeypatch.setattr(signal, "signal", lambda _number, handler: handler)
        monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: -1)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Failures are tried again at once."""
    monkeypatch.setattr(watch, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch, "GATHER_SECONDS", 0.0)


def test_a_follower_acts_at_the_beginning():
    """Whatever happened before."""
    follower = Counting()

    with running(follower):
        assert follower.acts(1)


def test_a_follower_acts_after_a_change():
    """Of a record under its prefix."""
    store = MemoryDatastore()
    follower = Counting(look=lambda: values(store))

    with running(follower, lambda: store):
        assert follower.is_noted(1)
        assert follower.sees([])
        store.commit([Write("/a/1", "x", ABSENT)])
        assert follower.sees(["x"])


def test_a_follower_does_not_act_for_what_does_not_concern_it():
    """Nor for what lies under other prefixes."""
    seen = threading.Event()

    def heeds(change):
        seen.set()
        return False

    store, follower = MemoryDatastore(), Counting(heeds=heeds)
    with running(follower, lambda: store):
        assert follower.is_noted(1)
        store.commit([Write("/b/1", "x", ABSENT)])
        assert not seen.is_set()
        store.commit([Write("/a/1", "x", ABSENT)])
        assert seen.wait(PATIENCE_SECONDS)

    assert 1 == follower.notes
    assert follower.acted <= 2  # at the beginning, and since the watch has begun


def test_a_follower_acts_at_intervals():
    """Where nothing tells of a change."""
    follower = Counting(prefixes=(), interval_seconds=0.01)

    with running(follower):
        assert follower.acts(4)


def test_a_follower_acts_on_news_of_its_source():
    """Only if some of it matters."""
    source = Source()
    follower = Counting(prefixes=(), source=source)

    with running(follower):
        assert follower.acts(1)
        source.tell(matters=False)
        assert source.drained.wait(PATIENCE_SECONDS)
        assert 1 == follower.acted
        source.tell(matters=True)
        assert follower.acts(2)
    source.close()


def test_what_was_done_is_told():
    """One line for each thing."""
    told = []
    follower = Counting(["one", "two"], [], prefixes=(), interval_seconds=0.01)

    with running(follower, say=told.append):
        assert follower.acts(3)

    assert ["one", "two"] == told


def test_a_failure_is_told_once_and_tried_again():
    """As long as it is the same; and so is its end."""
    away, other = DatastoreUnavailable("away"), DatastoreUnavailable("still away")
    told = []
    follower = Counting(away, away, other, ["done"], prefixes=())

    with running(follower, say=told.append):
        assert follower.acts(4)
        # It is told after it has acted.
        assert _becomes(lambda: "done" in told)

    expected = ["counting: away", "counting: still away", "counting: works again", "done"]
    assert expected == told


def test_a_watch_that_fails_is_begun_again():
    """And since something may have been missed, the follower acts."""
    store, failures = MemoryDatastore(), [DatastoreUnavailable("away")] * 3
    follower = Counting(look=lambda: values(store))

    def open_store():
        if failures:
            raise failures.pop()
        return store

    with running(follower, open_store):
        assert follower.is_noted(1)
        store.commit([Write("/a/1", "x", ABSENT)])
        assert follower.sees(["x"])

    assert [] == failures


def test_watches_begin_again_where_the_datastore_is_now():
    """And whatever is there by then is looked at."""
    former, later = MemoryDatastore(), MemoryDatastore()
    later.commit([Write("/a/1", "x", ABSENT)])
    places = [former]
    follower = Counting(look=lambda: values(places[-1]))
    with running(follower, lambda: places[-1]) as made:
        assert follower.is_noted(1)

        places.append(later)
        made.reopen()

        assert follower.is_noted(2)
        assert follower.sees(["x"])


def test_a_watch_that_is_just_beginning_begins_again():
    """The store that it is opening may be the former one."""
    former, later = MemoryDatastore(), MemoryDatastore()
    is_opening, has_moved = threading.Event(), threading.Event()

    def open_store():
        if has_moved.is_set():
            return later
        is_opening.set()
        has_moved.wait(PATIENCE_SECONDS)
        return former

    follower = Counting()
    with running(follower, open_store) as made:
        assert is_opening.wait(PATIENCE_SECONDS)
        made.reopen()
        has_moved.set()
        assert follower.is_noted(1)
        later.commit([Write("/a/1", "x", ABSENT)])

        assert follower.is_noted(2)


def test_stores_that_cannot_be_watched_are_not_kept():
    """However long that lasts."""
    store, tries = MemoryDatastore(), threading.Semaphore(0)

    def refuse(_prefix):
        tries.release()
        raise DatastoreUnavailable("away")

    store.watch = refuse
    follower = Counting()
    with running(follower, lambda: store) as made:
        for _ in range(3):
            assert tries.acquire(timeout=PATIENCE_SECONDS)
        assert len(made._stores) <= 1


@pytest.mark.parametrize(
    ("failure", "is_renewed"),
    [
        (DatastoreUnavailable("away"), True),
        (Unauthorized("who are you?"), True),
        (OperatorError("BIRD is down"), False),
    ],
)
def test_a_datastore_that_was_not_reached_is_looked_for_anew(failure, is_renewed):
    """Its token or certificate may have been replaced meanwhile; a BIRD that is down says nothing
    about it."""
    renewed = threading.Event()
    follower = Counting(failure, prefixes=())
    made = Watch(MemoryDatastore, [follower], lambda _: None, renewed.set)
    thread = threading.Thread(target=made.run)
    thread.start()
    assert follower.acts(2)
    made.end()
    thread.join(PATIENCE_SECONDS)

    assert is_renewed == renewed.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(number):
    """And who handled them before does so again."""
    former = signal.getsignal(number)
    follower = Counting(prefixes=())
    killer = threading.Thread(
        target=lambda: follower.acts(1) and os.kill(os.getpid(), number), daemon=True
    )
    killer.start()

    Watch(MemoryDatastore, [follower], lambda _: None, lambda: None).run()

    assert 1 == follower.acted
    assert former == signal.getsignal(number)


class Source:
    """News by hand."""

    def __init__(self):
        self._ear, self._mouth = socket.socketpair()
        self._matters = False
        self.drained = threading.Event()

    def tell(self, *, matters):
        self._matters = matters
        self._mouth.send(b"x")

    def fileno(self):
        return self._ear.fileno()

    def close(self):
        self._ear.close()
        self._mouth.close()

    def drain(self):
        self._ear.recv(100)
        self.drained.set()
        return self._matters


def values(store):
    return [entry.value for entry in store.read([Range("/a/", prefix=True)])[0]]


def _becomes(question):
    done = threading.Event()
    for _ in range(1000):
        if question():
            return True
        done.wait(0.01)
    return False
