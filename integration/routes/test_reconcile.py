"""`ipamctl routes show|check|repair` on a real kernel, with pods of the real runtime."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cni_ipam.ctl.keeper import Keeper
from cni_ipam.ctl.networks import NodeSettings
from cni_ipam.datastore import keys
from cni_ipam.routes.plan import RouteSettings
from integration.network import BUNDLE, find_obstacle, pings
from integration.routes.keeping import BRIDGE, NODE, KeptNode

if TYPE_CHECKING:
    from pathlib import Path

    from integration.netns import Lab

pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason=str(find_obstacle()))


@pytest.fixture
def kept(lab: Lab, tmp_path: Path) -> KeptNode:
    """A node with ptp."""
    return KeptNode(lab, tmp_path)


def test_nothing_is_wrong_after_adds(kept):
    """What the plugin made is what is wanted."""
    _, address = kept.add_pod()

    assert [] == kept.findings()
    assert ["nothing to change"] == kept.repair() == kept.repair("--dry-run")
    assert "ok" == kept.states()[f"{address}/32"]


def test_all_routes_come_back_after_a_flush(kept):
    """As after a reboot in which the pods have stayed: the same routes, letter by letter."""
    (first, address), (_, other) = kept.add_pod(), kept.add_pod()
    before = kept.ours()
    kept.flush()
    assert [] == kept.ours()
    assert "missing" == kept.states()[f"{address}/32"]

    told = kept.repair()

    assert before == kept.ours()
    assert 3 == len(before) == len(told)
    assert [] == kept.findings()
    # The pods' gateway is an address of the node's, so its route is in another table.
    assert pings(first, other)


def test_the_routes_of_ipv6_come_back(lab, tmp_path):
    """Blackhole and host routes, the same as before."""
    pool = {"cidr": "fd00:9::/116", "blockSize": 122}
    kept = KeptNode(lab, tmp_path, pool=pool, assign_ipv4="false", assign_ipv6="true")
    (first, _), (_, other) = kept.add_pod(), kept.add_pod()
    before = kept.ours()
    kept.flush_ours()
    assert [] == kept.ours()

    told = kept.repair()

    assert before == kept.ours()
    assert 3 == len(before) == len(told)
    assert [] == kept.findings()
    assert pings(first, other)


def test_a_dry_run_changes_nothing(kept):
    """It says what would be done."""
    _, address = kept.add_pod()
    kept.flush()
    block = next(route for route in kept.states() if not route.endswith("/32"))

    told = kept.repair("--dry-run")

    assert [] == kept.ours()
    assert f"would add blackhole {block} proto 85" == told[0]
    assert told[1].startswith(f"would set {address}/32 dev veth")


def test_a_pod_behind_a_bridge_is_routed_to_the_bridge(lab, tmp_path):
    """Its port would not answer."""
    kept = KeptNode(lab, tmp_path, BRIDGE)
    _, address = kept.add_pod()
    before = kept.ours()
    assert any(line.startswith(f"{address} dev cni0 ") for line in before)
    kept.ip("route", "flush", "proto", "85")

    kept.repair()

    assert before == kept.ours()


def test_the_blackhole_of_a_released_block_is_removed(kept):
    """The last pod has gone, and the block was given back elsewhere."""
    pod, _ = kept.add_pod()
    kept.cnitool("del", "net", pod)
    (block,) = [line.split()[1] for line in kept.ours()]
    assert 0 == kept.ipamctl("ipam", "release", "--node", NODE).returncode
    assert [f"left behind: {block} is no block of this node"] == kept.findings()

    assert [f"removed blackhole {block} proto 85"] == kept.repair()

    assert [] == kept.ours()


def test_the_blackhole_of_a_pending_block_is_removed(kept):
    """A claim that was begun is none."""
    kept.add_pod()
    before = kept.ours()
    kept.write(f"{keys.HOST_AFFINITIES}{NODE}/ipv4/block/10.9.0.248-29", {"state": "pending"})
    kept.ip("route", "add", "blackhole", "10.9.0.248/29", "proto", "85")
    finding = "pending block: this node's claim on block 10.9.0.248/29 is not confirmed"
    assert [finding] == kept.findings()

    kept.repair()

    assert before == kept.ours()


def test_a_blackhole_that_took_the_place_of_a_pods_route_gives_it_back(lab, tmp_path):
    """A block of one address gets none: the pod's own route stands there."""
    kept = KeptNode(lab, tmp_path, pool={"cidr": "10.9.0.0/24", "blockSize": 32})
    _, address = kept.add_pod()
    before = kept.ours()
    assert 1 == len(before)
    kept.ip("route", "replace", "blackhole", f"{address}/32", "proto", "85")
    assert ["single address", "missing"] == [text.partition(":")[0] for text in kept.findings()]

    kept.repair()

    assert before == kept.ours()
    assert pings(kept.namespace, address)


def test_a_place_that_is_taken_is_told_and_left(kept):
    """A network to which the node is connected directly, and which somebody laid over the pool."""
    kept.make_pool()
    (block,) = kept.claim("10.9.0.8/29")
    elsewhere = kept.lab.namespace("elsewhere")
    kept.lab.veth(kept.namespace, "lan0", elsewhere, "eth0")
    kept.ip("address", "add", "10.9.0.9/29", "dev", "lan0")
    finding = (
        f"place taken: the place of the blackhole of block {block} is taken by "
        f"{block} dev lan0 proto kernel; remove that if nobody needs it"
    )
    assert [finding] == kept.findings()

    done = kept.routes("repair")

    said = (done.returncode, done.stdout, done.stderr)
    assert (1, "nothing to change\n", f"{finding}\n") == said
    assert [] == kept.ours()


def test_a_host_route_to_a_wrong_device_is_set_anew(kept):
    """It leads to its pod again."""
    _, address = kept.add_pod()
    before = kept.ours()
    other = kept.lab.namespace("other")
    kept.lab.veth(kept.namespace, "other0", other, "eth0")
    kept.ip("route", "replace", f"{address}/32", "dev", "other0", "proto", "85", "scope", "link")
    (finding,) = kept.findings()
    assert finding.startswith(f"wrong device: {address}, handle net.")
    assert finding.endswith(f"is not behind the interface of {address}/32 dev other0 proto 85")

    kept.repair()

    assert before == kept.ours()


def test_the_interface_plugins_route_is_replaced(kept):
    """ptp's, where the chained role was never called."""
    _, address = kept.add_pod()
    before, device = kept.ours(), kept.device_of(address)
    kept.ip("route", "replace", address, "dev", device, "scope", "host", "proto", "boot")
    assert ["not ours"] == [text.partition(":")[0] for text in kept.findings()]

    kept.repair()

    assert before == kept.ours()


def test_a_host_route_that_was_left_behind_is_removed(kept):
    """Nobody has its address; somebody else's route for such an address stays."""
    _, address = kept.add_pod()
    before, device = kept.ours(), kept.device_of(address)
    kept.ip("route", "add", "10.9.0.77", "dev", device, "proto", "85")
    kept.ip("route", "add", "10.9.0.78", "dev", device, "proto", "static")

    assert [f"removed 10.9.0.77/32 dev {device} proto 85"] == kept.repair()

    assert before == kept.ours()
    assert "10.9.0.78" in kept.ip("route", "show", "proto", "static")


def test_a_host_route_of_a_pod_in_an_unknown_place_stays(kept):
    """The interface has lost its address for a moment; the allocation is recorded."""
    pod, _ = kept.add_pod()
    before = kept.ours()
    pod.ip("address", "flush", "dev", "eth0", "scope", "global")

    assert [] == kept.findings()
    assert ["nothing to change"] == kept.repair() == kept.repair("--dry-run")

    assert before == kept.ours()


def test_a_pod_without_an_interface_is_told(kept):
    """ADD has recorded its address, and has not got further."""
    kept.add_pod()
    before = kept.ours()
    kept.record("10.9.0.100")
    kept.repair()

    findings = [text for text in kept.findings() if "10.9.0.100" in text]

    expected = (
        "missing: 10.9.0.100, handle net.10.9.0.100, has no host route, and no interface of this "
        "node leads to it: its pod may be starting, or gone"
    )
    assert [expected] == findings
    assert set(before) < set(kept.ours())


def test_a_borrowed_address_is_told_until_a_route_leads_to_it(kept):
    """Its owner's blackhole hides it; no next hop is invented."""
    kept.make_pool()
    kept.claim("10.9.0.8/29")
    kept.record("10.9.0.9", "node2")
    kept.repair()
    (finding,) = kept.findings()
    assert finding.startswith("hidden: 10.9.0.9 is borrowed by node node2, and blackhole 10.9.0.8")
    lan = kept.lab.namespace("lan")
    kept.lab.veth(kept.namespace, "lan0", lan, "eth0")
    kept.ip("address", "add", "192.0.2.1/24", "dev", "lan0")

    kept.ip("route", "add", "10.9.0.9/32", "via", "192.0.2.2")

    assert [] == kept.findings()


def test_blackholes_of_birds_are_left_to_it(lab, tmp_path):
    """`routes.blackhole` is false: ours of before go, BIRD's stay, none is wanted."""
    kept = KeptNode(lab, tmp_path, routes={"blackhole": False})
    kept.make_pool()
    for block in ("10.9.0.8/29", "10.9.0.16/29"):
        kept.claim(block)
    kept.ip("route", "add", "blackhole", "10.9.0.8/29", "proto", "bird")
    kept.ip("route", "add", "blackhole", "10.9.0.16/29", "proto", "85")

    assert ["removed blackhole 10.9.0.16/29 proto 85"] == kept.repair()

    assert ["blackhole 10.9.0.8/29"] == kept.ip("route", "show", "proto", "bird").split(" \n")[:1]
    assert [] == kept.findings()


def test_both_families_are_kept(kept):
    """Their blackholes come back with one call."""
    kept.make_pool()
    kept.write(
        f"{keys.POOLS}six",
        {"metadata": {"name": "six"}, "spec": {"cidr": "fd00:9::/112", "blockSize": 122}},
    )
    kept.claim("10.9.0.8/29")
    kept.claim("fd00:9::40/122")

    told = kept.repair()

    blocks = ["10.9.0.8/29", "fd00:9::40/122"]
    assert [f"added blackhole {block} proto 85" for block in blocks] == told
    expected = ["blackhole 10.9.0.8/29", "blackhole fd00:9::40/122 dev lo metric 1024 pref medium"]
    assert expected == kept.ours()
    kept.write(f"{keys.HOST_AFFINITIES}{NODE}/ipv6/block/fd00:9::40-122", {"state": "pending"})
    assert ["removed blackhole fd00:9::40/122 proto 85"] == kept.repair()


def test_a_bridge_without_the_chained_role_keeps_its_pods(lab, tmp_path):
    """Beside a network that has blackholes: one would take the bridge's pods from the node."""
    kept = KeptNode(lab, tmp_path)
    kept.add_pod()
    kept.make_network("bridged", BRIDGE, chained=False)
    pod = lab.namespace("pod")
    (ip,) = kept.add("bridged", pod)["ips"]

    assert ["nothing to change"] == kept.repair()
    assert [] == kept.findings()
    assert pings(kept.namespace, ip["address"].partition("/")[0])
    assert 0 == kept.cnitool("del", "bridged", pod).returncode
    assert ["nothing to change"] == kept.repair()


def test_another_nodes_name_is_refused(kept):
    """By its records all routes here would be left over."""
    kept.add_pod()
    before = kept.ours()

    done = kept.routes("repair", "--node", "node9")

    assert (1, before) == (done.returncode, kept.ours())
    assert "--node is node9, but the networks of this node call it node1" in done.stderr


def test_a_network_with_another_datastore_is_refused(kept):
    """By the records of one the other's running pods would lose their routes."""
    kept.add_pod()
    kept.make_network("other", sqlite_path="/var/lib/other/ipam.db")
    kept.add("other", kept.lab.namespace("pod"))
    before = kept.ours()
    assert 4 == len(before)

    done = [kept.routes(*words) for words in (("repair",), ("check",), ("watch",))]

    assert [1, 1, 1] == [one.returncode for one in done]
    assert before == kept.ours()
    expected = "but other has the datastore sqlite /var/lib/other/ipam.db"
    assert all(expected in one.stderr for one in done)


def test_an_operator_of_another_cluster_is_refused(kept):
    """The variables of a shell say nothing of this node's networks."""
    kept.add_pod()
    before = kept.ours()
    foreign = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": "http://192.0.2.11:2379"}

    program = (str(BUNDLE / "ipamctl"), "routes", "repair")
    done = kept.run(*program, CNI_NETCONF_DIR=str(kept.networks), **foreign)

    assert (1, before) == (done.returncode, kept.ours())
    assert "says the datastore etcdv3 http://192.0.2.11:2379" in done.stderr


def test_routes_in_a_table_of_our_own_are_kept_there(lab, tmp_path):
    """`routes.table` says where; the main table is nobody's business then."""
    kept = KeptNode(lab, tmp_path, routes={"table": 1000})
    kept.make_pool()
    kept.claim("10.9.0.8/29")
    kept.ip("route", "add", "blackhole", "10.9.0.16/29", "proto", "85")

    kept.repair()

    assert "blackhole 10.9.0.8/29 proto 85" == kept.ip("route", "show", "table", "1000").strip()
    assert ["blackhole 10.9.0.16/29"] == kept.ours()


def test_where_pods_are_is_asked_again_only_after_a_change(kept):
    """Something about their routes has to differ from when all was well."""
    _, address = kept.add_pod()
    asked = kept.namespace.call(_count_questions, kept, address)

    assert [1, 1, 2] == asked


def _count_questions(kept, address):
    """How often it was asked after a first look, a second one, and one after a route has gone."""
    routes = RouteSettings(host=True, blackhole=True)
    node = NodeSettings(NODE, str(kept.var_lib / "lock"), 5.0, routes, None, frozenset())
    store = kept.open_store()
    session = SimpleNamespace(store=store, require_datastore=lambda: None)
    questions, counts = [], []
    with closing(store), Keeper(lambda: node, session) as keeper:
        find = keeper._table.find_devices
        keeper._table.find_devices = lambda wanted: questions.append(wanted) or find(wanted)
        records = keeper.read_records()
        for _ in range(2):
            assert {"ok"} == {one.state for one in keeper.look(records)}
            counts.append(len(questions))
        kept.ip("route", "del", f"{address}/32")
        assert {"ok", "missing"} == {one.state for one in keeper.look(records)}
    return [*counts, len(questions)]


def test_an_add_makes_a_missing_blackhole_again(kept):
    """Without anybody who looks after the routes."""
    kept.add_pod()
    (blackhole,) = [line for line in kept.ours() if line.startswith("blackhole")]
    kept.ip("route", "del", *blackhole.split())

    kept.add_pod()

    assert blackhole in kept.ours()


def test_an_unreadable_datastore_leaves_the_routes_alone(kept):
    """Nothing is guessed."""
    kept.add_pod()
    before = kept.ours()
    for file in kept.database.parent.glob("ipam.db*"):
        file.write_bytes(b"no database")

    done = kept.routes("repair")

    assert 1 == done.returncode
    assert "ipam.db" in done.stderr
    assert before == kept.ours()


def test_without_a_network_of_ours_the_nodes_name_has_to_be_told(kept):
    """Another node's records would cost this one its routes."""
    kept.add_pod()
    before = kept.ours()
    for file in kept.networks.iterdir():
        file.unlink()

    done = kept.routes("repair")

    assert 1 == done.returncode
    assert f"no network in {kept.networks} has cni-ipam" in done.stderr
    assert ["nothing to change"] == kept.repair("--node", NODE)
    assert before == kept.ours()
