"""Who keeps a node's routes: when it reads, what it heeds, what it tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.host import HostRecords
from cni_ipam.ctl import keeper, watch
from cni_ipam.ctl.keeper import Keeper, KeptRoutes, Mended, concerns
from cni_ipam.ctl.networks import NodeSettings
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import DatastoreUnavailable, OperatorError, RouteError
from cni_ipam.routes.judgement import ADD, HIDDEN, MISSING, Change, Judgement, KernelRoute
from cni_ipam.routes.plan import BLACKHOLE, FoundRoute, RouteSettings

BLOCK = parse_cidr("10.0.0.8/29")
OTHER = parse_cidr("10.0.0.16/29")
RECORDS = HostRecords("node1", (BLOCK,), (), (), (), ())
ROUTE = KernelRoute(BLOCK, BLACKHOLE, 85)
BLACKHOLE_MISSING = Judgement(ROUTE, MISSING, "there is none", (Change(ADD, ROUTE),))
ADDRESS_HIDDEN = Judgement(KernelRoute(OTHER, 1, 0), HIDDEN, "somebody hides it")


class Stub:
    """A keeper that says what the test wants."""

    def __init__(self):
        self.node = SimpleNamespace(name="node1", routes=RouteSettings(host=True, blackhole=True))
        self.wanted = self.node
        self.unknown = None
        self.judged = []
        self.refusals = []
        self.away = None
        self.reads = 0
        self.probes = 0

    def refresh(self):
        if self.unknown:
            raise self.unknown
        self.node = self.wanted
        return self.node

    def read_records(self):
        self.reads += 1
        if self.away:
            raise self.away
        return RECORDS

    def require_answer(self):
        self.probes += 1
        if self.away:
            raise self.away

    def look(self, records):
        assert records is RECORDS
        return self.judged

    def mend(self):
        done = [] if self.refusals else [c for one in self.judged for c in one.changes]
        return Mended(RECORDS, self.judged, done, self.refusals)


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def kept(stub):
    made = KeptRoutes(stub)
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    moment = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(keeper.time, "monotonic", lambda: moment.now)
    return moment


def test_every_change_is_told(stub, kept):
    """In the past tense."""
    stub.judged = [BLACKHOLE_MISSING]

    assert ["added blackhole 10.0.0.8/29 proto 85"] == kept.follow()


def test_a_refusal_is_told_once(stub, kept):
    """And again after it had been over."""
    stub.judged, stub.refusals = [BLACKHOLE_MISSING], [RouteError("no")]

    told = [kept.follow(), kept.follow()]
    stub.refusals = []
    told.append(kept.follow())
    stub.refusals = [RouteError("no")]
    told.append(kept.follow())

    assert [["no"], [], ["added blackhole 10.0.0.8/29 proto 85"], ["no"]] == told


def test_what_lasts_is_told_once(stub, kept, clock):
    """Not at first: a pod that starts has no route yet."""
    stub.judged = [ADDRESS_HIDDEN]

    told = [kept.follow()]
    clock.now += keeper.LASTING_SECONDS
    told += [kept.follow(), kept.follow()]

    assert [[], ["hidden: somebody hides it"], []] == told


def test_what_comes_and_goes_is_told_each_time(stub, kept, clock):
    """It has to last each time."""
    told = []
    for judged in ([ADDRESS_HIDDEN], [ADDRESS_HIDDEN], [], [ADDRESS_HIDDEN], [ADDRESS_HIDDEN]):
        stub.judged = judged
        told.append(len(kept.follow()))
        clock.now += keeper.LASTING_SECONDS

    assert [0, 1, 0, 0, 1] == told


def test_records_are_read_once_while_nothing_changes(stub, kept):
    """But the datastore has to answer."""
    for _ in range(3):
        kept.follow()

    assert (1, 2) == (stub.reads, stub.probes)


def test_records_are_read_again_after_a_change(stub, kept):
    """As the watch tells."""
    kept.follow()
    kept.note_change()
    kept.follow()

    assert 2 == stub.reads


def test_records_are_read_again_when_they_are_old(stub, kept, clock):
    """A watch may miss something."""
    kept.follow()
    clock.now += watch.RECORDS_SECONDS + 1
    kept.follow()

    assert 2 == stub.reads


def test_records_that_could_not_be_read_are_read_again(stub, kept):
    """The change is not forgotten."""
    kept.follow()
    kept.note_change()
    stub.away = DatastoreUnavailable("away")
    with pytest.raises(DatastoreUnavailable):
        kept.follow()
    stub.away = None

    kept.follow()

    assert 3 == stub.reads


def test_nothing_is_judged_while_the_datastore_is_away(stub, kept):
    """Though the records were known."""
    kept.follow()
    stub.away, stub.judged = DatastoreUnavailable("away"), [BLACKHOLE_MISSING]

    with pytest.raises(DatastoreUnavailable):
        kept.follow()


def test_settings_that_changed_are_worked_by_at_once(stub, kept):
    """And the records are read for them anew."""
    kept.follow()
    stub.wanted = SimpleNamespace(name="node1", routes=RouteSettings(host=True, blackhole=False))

    kept.follow()

    assert (2, stub.wanted) == (stub.reads, stub.node)


def test_nothing_is_judged_while_the_settings_are_unknown(stub, kept):
    """Not by the former ones either."""
    kept.follow()
    stub.judged, stub.unknown = [BLACKHOLE_MISSING], OperatorError("broken")

    with pytest.raises(OperatorError, match="broken"):
        kept.follow()

    assert (1, 0) == (stub.reads, stub.probes)


def test_a_network_that_comes_while_the_lock_is_waited_for_is_heeded(tmp_path, monkeypatch):
    """Its pods may be there by then: the changes are decided by the newest settings alone."""
    tables = []
    monkeypatch.setattr(keeper, "_open_table", lambda node: tables.append(node) or Table())
    monkeypatch.setattr(Keeper, "read_records", lambda _: RECORDS)
    old, new = (
        NodeSettings("node1", str(tmp_path / name), 5.0, wanted, frozenset(), frozenset())
        for name, wanted in (
            ("old", RouteSettings(host=False, blackhole=True)),
            ("new", RouteSettings(host=False, blackhole=False)),
        )
    )
    answers = [old, old, new, new]

    with Keeper(lambda: answers.pop(0) if len(answers) > 1 else new, None) as made:
        done = made.mend()

    assert [] == done.done
    assert [old, new] == tables


class Table:
    """A kernel without routes, which refuses all changes."""

    def read(self):
        return []

    def close(self):
        pass

    def apply(self, change):
        raise AssertionError(change)


# What matters


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (FoundRoute(OTHER, BLACKHOLE, 85, 254, 0), True),
        (FoundRoute(BLOCK, 1, 12, 254, 2), True),
        (FoundRoute(OTHER, 1, 12, 254, 2), False),
        (FoundRoute(BLOCK, BLACKHOLE, 85, 100, 0), False),
    ],
    ids=["ours", "in the place of one", "another's", "in another table"],
)
def test_which_news_of_the_kernel_matters(stub, kept, route, expected):
    """So that a router's many routes cost nothing."""
    stub.judged = [BLACKHOLE_MISSING]
    kept.follow()

    assert expected == kept._matters(route)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (f"{keys.HOST_AFFINITIES}node1/ipv4/block/10.0.0.16-29", True),
        (f"{keys.HOST_AFFINITIES}node2/ipv4/block/10.0.0.16-29", False),
        (keys.block_key(BLOCK), True),
        (keys.block_key(OTHER), False),
        (Entry(keys.block_key(OTHER), '{"affinity":"host:node2"}', 1), False),
        (Entry(keys.block_key(OTHER), '{"attributes":[{"node":"node1"}]}', 1), True),
    ],
    ids=["own claim", "another's", "known block", "unknown", "of another node", "borrowed from"],
)
def test_which_changes_of_records_matter(change, expected):
    """So that other nodes' pods cost nothing."""
    assert expected == concerns(change, "node1", RECORDS)


def test_every_block_matters_while_nothing_is_known():
    """The first look is still to come."""
    assert concerns(keys.block_key(OTHER), "node1", None)
