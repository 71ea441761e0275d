"""`ipamctl routes watch` keeps a node's routes right, and ends when it is told."""

from __future__ import annotations

import fcntl
import signal
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.sqlite import SqliteDatastore
from integration.etcd.node import put_node, put_pool
from integration.etcd.servers import Cluster
from integration.network import becomes_true, find_obstacle, pings
from integration.routes.keeping import BRIDGE, NODE, KeptNode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Lab
    from integration.routes.keeping import Watching

pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason=str(find_obstacle()))

NODE_ADDRESS = "192.0.2.50"
MEMBER = "http://192.0.2.11:2379"
LOCK = "/var/lib/cni-ipam/host.lock"
LOCKED = "routes: the lock"


@pytest.fixture
def kept(lab: Lab, tmp_path: Path) -> KeptNode:
    """A node with one pod."""
    kept = KeptNode(lab, tmp_path)
    kept.add_pod()
    return kept


@pytest.fixture
def watching(kept: KeptNode) -> Iterator[Watching]:
    """The watch at work: it has mended something already."""
    kept.ip("route", "add", "blackhole", "10.9.0.248/29", "proto", "85")
    with kept.watch() as watching:
        assert watching.tells("removed blackhole 10.9.0.248/29 proto 85"), watching.lines()
        yield watching


def test_a_flushed_table_is_mended(kept, watching):
    """The pod's route and the blackhole come back, and are told."""
    before = kept.ours()

    kept.flush()

    assert becomes_true(lambda: before == kept.ours())
    block, device = before[1], kept.namespace.routes(4, "proto", "85", "scope", "link")[0]["dev"]
    assert block.startswith("blackhole")
    assert watching.tells(f"added {block} proto 85")
    assert watching.tells_of(f"/32 dev {device} proto 85")


def test_a_single_route_that_is_removed_comes_back(kept, watching):
    """The kernel tells of it."""
    before = kept.ours()
    (blackhole,) = [line for line in before if line.startswith("blackhole")]

    kept.ip("route", "del", *blackhole.split())

    assert watching.tells(f"added {blackhole} proto 85")
    assert before == kept.ours()


def test_the_blackhole_of_a_released_block_goes(kept, watching):
    """The datastore tells of it. As it has no block at all by now, pods' routes stay."""
    done = kept.ipamctl("ipam", "release", "--node", NODE)
    assert 0 == done.returncode

    assert becomes_true(lambda: not any(line.startswith("blackhole") for line in kept.ours()))
    assert watching.tells_of("removed blackhole")
    assert 1 == len(kept.ours())


def test_a_newly_claimed_block_gets_its_blackhole(kept, watching):
    """Also without an ADD."""
    kept.claim("10.9.0.240/29")

    assert watching.tells("added blackhole 10.9.0.240/29 proto 85")
    assert "blackhole 10.9.0.240/29" in kept.ours()


def test_pods_come_and_go_under_it(kept, watching):
    """Neither ADD nor DEL fails, and nothing is left over at the end."""
    before = kept.ours()
    pods = [kept.add_pod()[0] for _ in range(4)]
    for pod in pods:
        assert 0 == kept.cnitool("del", "net", pod).returncode

    assert becomes_true(lambda: before == kept.ours())
    assert watching.is_running
    assert [] == kept.findings()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told(kept, watching, number):
    """With status 0, without a trace, and the routes stay."""
    before = kept.ours()

    assert 0 == watching.end(number)

    assert before == kept.ours()
    assert not [line for line in watching.lines() if "Traceback" in line]


def test_repair_watch_is_the_same(kept):
    """Under the name that goes with repair."""
    kept.flush()
    with kept.watch("repair", "--watch") as watching:
        assert becomes_true(lambda: 2 == len(kept.ours()))
        assert 0 == watching.end()


def test_what_cannot_be_mended_is_told_once(kept, watching):
    """As soon as it has lasted: a pod that starts lacks its route for a moment, too."""
    kept.record("10.9.0.100")

    expected = (
        "missing: 10.9.0.100, handle net.10.9.0.100, has no host route, and no interface of this "
        "node leads to it: its pod may be starting, or gone"
    )
    assert watching.tells(expected)
    kept.claim("10.9.0.240/29")
    assert watching.tells("added blackhole 10.9.0.240/29 proto 85")
    assert 1 == watching.lines().count(expected)


def test_a_lock_that_is_held_is_waited_for(kept, watching):
    """Nothing is changed while somebody else changes."""
    with kept.database.with_name("ipam.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept.flush()
        assert watching.tells_of(LOCKED)
        assert [] == kept.ours()

    assert watching.tells("routes: works again")
    assert becomes_true(lambda: 2 == len(kept.ours()))


def test_the_pods_of_a_network_that_came_later_keep_their_routes(kept, watching):
    """Lists are written at any time."""
    kept.make_network("second")
    kept.add("second", kept.lab.namespace("pod"))
    before = kept.ours()
    assert 4 == len(before)

    kept.flush_ours()

    assert becomes_true(lambda: before == kept.ours()), watching.lines()


def test_the_pods_of_a_bridge_that_came_later_are_not_cut_off(kept, watching):
    """A blackhole of their block would hide them."""
    kept.make_network("bridged", BRIDGE, chained=False)
    before = kept.ours()
    (ip,) = kept.add("bridged", kept.lab.namespace("pod"))["ips"]

    assert not becomes_true(lambda: before != kept.ours(), 4.0), watching.lines()
    assert pings(kept.namespace, ip["address"].partition("/")[0])


def test_the_datastore_of_the_networks_is_followed(kept, watching, monkeypatch):
    """Also of changes there it is told."""
    kept.make_network("net", sqlite_path="/var/lib/cni-ipam/new.db")
    new = str(kept.database.with_name("new.db"))
    monkeypatch.setattr(kept, "open_store", lambda: SqliteDatastore(new))
    kept.add_pod()
    assert becomes_true(lambda: 1 == sum(line.startswith("blackhole 10.8") for line in kept.ours()))

    kept.claim("10.8.0.240/29")

    assert watching.tells("added blackhole 10.8.0.240/29 proto 85")


def test_networks_that_contradict_each_other_change_nothing(kept, watching):
    """By the records of one the other's pods would lose their routes."""
    kept.make_network("other", sqlite_path="/var/lib/cni-ipam/other.db")
    kept.add("other", kept.lab.namespace("pod"))
    before = kept.ours()

    assert watching.tells_of("but other has the datastore")
    assert not becomes_true(lambda: before != kept.ours(), 4.0)
    assert 1 == sum("but other has the datastore" in line for line in watching.lines())
    (kept.networks / "other.conflist").unlink()
    assert watching.tells("routes: works again")


def test_a_datastore_that_is_away_is_told_and_survived(lab, tmp_path):
    """The server is killed and comes back: meanwhile the kernel's routes are left as they are."""
    with Cluster("3.4", tmp_path, lab=lab) as cluster:
        put_pool(cluster, "pool1", "10.9.0.0/24", blockSize=29)
        put_node(cluster, NODE)
        kept = KeptNode(lab, tmp_path, etcd_endpoints=MEMBER, ipam_lock_file=LOCK)
        cluster.connect(kept.namespace, NODE_ADDRESS)
        kept.add_pod()
        before = kept.ours()
        with kept.watch() as watching:
            kept.flush_ours()
            assert becomes_true(lambda: before == kept.ours()), watching.lines()

            cluster.kill(cluster.members[0])
            assert watching.tells_of("192.0.2.11")
            kept.flush_ours()
            assert not becomes_true(lambda: [] != kept.ours(), 4.0)

            cluster.restart(cluster.members[0])
            assert watching.tells("routes: works again")
            assert becomes_true(lambda: before == kept.ours())
            assert 0 == watching.end()
