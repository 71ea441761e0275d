"""The executables called by themselves, as libcni calls them, on a node of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore import keys
from cni_ipam.datastore.port import Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from integration.network import Node, find_obstacle

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from integration.netns import Lab
    from integration.network import Done, Json

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin")
POOL = {"name": "pool", "spec": {"cidr": "10.88.0.0/16", "blockSize": 26}}
POOL6 = {"name": "pool6", "spec": {"cidr": "fd00:88::/64", "blockSize": 122}}


def delegate(*pools: Json, name: str = "net", **keys: Any) -> Json:
    """What an interface plugin hands to its IPAM."""
    ipam = {"type": "cni-ipam", "default_pools": pools or [POOL]} | keys
    return {"cniVersion": "1.1.0", "name": name, "type": "ptp", "ipam": ipam}


def chained(name: str = "net", **keys: Any) -> Json:
    """The netconf of the plugin in a place of its own in the list."""
    return {"cniVersion": "1.1.0", "name": name, "type": "cni-ipam"} | keys


def add(node: Node, netconf: Json | None = None, **call: Any) -> list[str]:
    """The addresses that ADD gives."""
    done = node.call_plugin("ADD", netconf or delegate(), **call)
    assert done.returncode == 0, done.stdout
    return [ip["address"].partition("/")[0] for ip in json.loads(done.stdout)["ips"]]


def error_code(done: Done) -> int | None:
    """The code of the one error object on stdout; None for a success without output."""
    if done.returncode == 0:
        assert done.stdout == ""
        return None
    code: int = json.loads(done.stdout)["code"]
    return code


def given(node: Node) -> list[str]:
    return list(node.read_store().allocations)


# ADD


def test_repeated_add_gives_the_same_address(node: Node) -> None:
    """And takes no second one."""
    first = add(node)

    assert first == add(node)
    assert first == given(node)


def test_pool_gives_all_but_what_it_keeps_back(node: Node) -> None:
    """A /29 has room for five pods: base, gateway and broadcast are nobody's."""
    pool = {"name": "pool", "spec": {"cidr": "10.88.0.0/29", "blockSize": 29}}
    found = [add(node, delegate(pool), container=f"c{number}") for number in range(5)]

    full = node.call_plugin("ADD", delegate(pool), container="c5")

    assert [[f"10.88.0.{number}"] for number in range(2, 7)] == sorted(found)
    assert 101 == error_code(full)


def test_add_without_the_right_to_set_routes_gives_the_address_back(node: Node) -> None:
    """Error 120, nothing allocated; with the right the same call succeeds."""
    refused = node.call_plugin("ADD", delegate(), wrapper=WITHOUT_NET_ADMIN)
    left = given(node)

    assert 120 == error_code(refused)
    assert "CAP_NET_ADMIN" in refused.stdout
    assert [] == left
    assert add(node) == given(node)
    assert [] == node.read_store().findings


def test_refused_routes_leave_an_older_address(node: Node) -> None:
    """A repeated ADD that finds the blackhole gone, and may not make it, releases nothing."""
    before = add(node)
    node.namespace.ip("route", "del", "blackhole", node.blackholes(4)[0])

    refused = node.call_plugin("ADD", delegate(), wrapper=WITHOUT_NET_ADMIN)

    assert 120 == error_code(refused)
    assert before == given(node)


def test_chained_add_without_the_namespace(node: Node) -> None:
    """The pod's network namespace is gone: nothing to route to."""
    prev_result = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/gone"}],
        "ips": [{"address": "10.88.0.5/16", "interface": 0}],
    }

    done = node.call_plugin("ADD", chained(prevResult=prev_result), netns="/run/netns/gone")

    assert 120 == error_code(done)
    assert "/run/netns/gone" in done.stdout


# Blackholes


def test_next_add_makes_a_missing_blackhole_again(node: Node) -> None:
    """As after a reboot: the affinity is there, the route is not."""
    add(node)
    [block] = node.blackholes(4)
    node.namespace.ip("route", "del", "blackhole", block)

    add(node, container="c2")

    assert [block] == node.blackholes(4)


@pytest.mark.parametrize(
    ("family", "cidr", "size"), [(4, "10.88.0.0/28", 32), (6, "fd00:88::/124", 128)]
)
def test_block_of_one_address_has_no_blackhole(
    node: Node, family: int, cidr: str, size: int
) -> None:
    """It would be the pod's own route."""
    pool = {"name": "pool", "spec": {"cidr": cidr, "blockSize": size}}
    wish = {f"assign_ipv{f}": str(f == family).lower() for f in (4, 6)}

    add(node, delegate(pool, **wish))

    assert 1 == len(given(node))
    assert [] == node.blackholes(family)


def test_block_of_another_node_has_no_blackhole(lab: Lab, node: Node, tmp_path: Path) -> None:
    """A borrowed address: its block's other addresses live elsewhere."""
    other = Node(lab, tmp_path, "other", var_lib=node.var_lib)
    pool = {"name": "pool", "spec": {"cidr": "10.88.0.0/26", "blockSize": 26}}

    add(node, delegate(pool, nodename="a"))
    borrowed = add(other, delegate(pool, nodename="b"), container="c2")

    assert set(borrowed) < set(given(node))
    assert ["host:a"] == [block.affinity for block in node.read_store().blocks]
    assert (["10.88.0.0/26"], []) == (node.blackholes(4), other.blackholes(4))


def test_routes_can_be_turned_off(node: Node) -> None:
    """Felix or BIRD may own them."""
    add(node, delegate(routes={"blackhole": False, "host": False}))

    assert [] == node.namespace.routes(4)


# DEL


def test_delete_with_a_deleted_pool(node: Node) -> None:
    """Its record vanished while a pod lived on one of its addresses."""
    add(node)
    store = SqliteDatastore(str(node.database), create=False)
    [[pool]] = store.read([Range(keys.POOLS + "pool")])
    store.commit([Write(pool.key, None, pool.revision)])
    store.close()

    done = node.call_plugin("DEL", delegate())

    assert None is error_code(done)
    assert [] == given(node)
    assert [] == node.read_store().findings


@pytest.mark.parametrize("netns", ["", "/run/netns/gone", "/etc/hostname"])
def test_delete_needs_no_namespace(node: Node, netns: str) -> None:
    """Empty, gone, or no namespace at all."""
    add(node)

    done = node.call_plugin("DEL", delegate(), netns=netns)

    assert None is error_code(done)
    assert [] == given(node)


def test_delete_before_the_first_add(node: Node) -> None:
    """There is no datastore, and none is made."""
    done = node.call_plugin("DEL", delegate())

    assert None is error_code(done)
    assert not node.database.exists()


def test_delete_without_the_right_to_set_routes(node: Node) -> None:
    """The address is free all the same."""
    add(node)

    done = node.call_plugin("DEL", delegate(), wrapper=WITHOUT_NET_ADMIN)

    assert None is error_code(done)
    assert [] == given(node)


# GC


@pytest.mark.parametrize(
    ("living", "kept"),
    [
        ({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}, {"c1"}),
        ({"cni.dev/attachments": [{"containerID": "c2", "ifname": "eth0"}]}, {"c2"}),
        ({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth1"}]}, set()),
        ({"cni.dev/valid-attachments": []}, set()),
        ({"cni.dev/valid-attachments": None}, set()),
    ],
    ids=["listed", "the older key", "another interface", "empty", "null"],
)
def test_gc_keeps_what_lives(node: Node, living: Json, kept: set[str]) -> None:
    """In its chained place, of its own network; the other network loses nothing."""
    for container in ("c1", "c2"):
        add(node, container=container)
    add(node, delegate(name="other"), container="c3")

    done = node.call_plugin("GC", chained(**living))

    store = node.read_store()
    assert None is error_code(done)
    expected = {f"net.{container}" for container in kept} | {"other.c3"}
    assert expected == set(store.allocations.values())
    assert [] == store.findings


def test_gc_without_a_list_is_refused(node: Node) -> None:
    """It can't be known what lives, so all of it may."""
    before = add(node)

    done = node.call_plugin("GC", chained())

    assert 7 == error_code(done)
    assert before == given(node)


# STATUS


def test_status_of_an_unusable_configuration_is_50(node: Node) -> None:
    """As a delegate and in its chained place."""
    answers = [node.call_plugin("STATUS", conf) for conf in (delegate(mask="x"), chained(mask="x"))]

    assert [50, 50] == [error_code(done) for done in answers]


def test_status_of_a_configuration_whose_files_are_missing_is_50(node: Node) -> None:
    """Or whose kubeconfig asks for what we do not have."""
    kubeconfig = node.var_lib / "kubeconfig"
    kubernetes = {"datastore_type": "kubernetes", "kubernetes": {"kubeconfig": str(kubeconfig)}}
    missing = node.call_plugin("STATUS", delegate(**kubernetes))
    proxied = {"server": "https://127.0.0.1:9", "proxy-url": "http://127.0.0.1:8"}
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "proxied"}}],
        "clusters": [{"name": "proxied", "cluster": proxied}],
    }
    kubeconfig.write_text(json.dumps(config))
    unserved = node.call_plugin("STATUS", delegate(**kubernetes))

    assert [50, 50] == [error_code(done) for done in (missing, unserved)]
    assert "proxy-url" in unserved.stdout
