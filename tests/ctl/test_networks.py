"""What the network lists of a node say about its routes."""

from __future__ import annotations

import json

import pytest

from cni_ipam.cni.settings import DatastoreSettings
from cni_ipam.ctl.locate import Wishes
from cni_ipam.ctl.networks import find_node_settings, read_networks
from cni_ipam.errors import NetconfError, OperatorError

STORE = DatastoreSettings("sqlite", "/var/lib/cni-ipam/ipam.db")
OURS = {"type": "cni-ipam", "nodename": "node1"}


def delegate(kind="ptp", **ipam):
    return {"type": kind, "ipam": {**OURS, **ipam}}


def chained(**fields):
    return {**OURS, **fields}


class Folder:
    """Network lists in the order in which they are put here."""

    def __init__(self, path):
        self.path = path
        self.number = 10

    def put(self, name, *plugins):
        document = {"cniVersion": "1.0.0", "name": name, "plugins": plugins}
        (self.path / f"{self.number}-{name}.conflist").write_text(json.dumps(document))
        self.number += 1

    def settings(self, name=None):
        networks = read_networks(Wishes(netconf_dir=str(self.path)), {})
        return find_node_settings(networks, STORE, name)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_name_and_lock_are_the_plugins(folder):
    """As the first network of ours has them."""
    folder.put("other", {"type": "bridge", "ipam": {"type": "host-local"}})
    folder.put("net", delegate(ipam_lock_timeout=7), chained())
    folder.put("late", delegate(nodename="another"))

    found = folder.settings()

    assert "node1" == found.name
    assert "/var/lib/cni-ipam/ipam.db.lock" == found.lock_file
    assert 7.0 == found.lock_timeout_seconds


def test_the_command_line_may_name_the_node(folder):
    """It goes before everything."""
    folder.put("net", delegate(), chained())

    assert "node9" == folder.settings("node9").name


def test_a_nodes_name_that_nothing_tells_is_refused(folder):
    """A guess would cost the node the routes of its pods."""
    folder.put("other", {"type": "bridge", "ipam": {"type": "host-local"}})

    with pytest.raises(OperatorError, match="this node's name is not known") as caught:
        folder.settings()

    assert "name the node with --node, or the folder with --netconf-dir" == caught.value.details


def test_a_list_that_cannot_be_read_is_named(folder):
    """It may be the one that tells."""
    (folder.path / "10-net.conflist").write_text("{")

    with pytest.raises(OperatorError, match="not known") as caught:
        folder.settings()

    assert str(folder.path / "10-net.conflist") in caught.value.details


def test_without_lists_all_routes_are_wanted(folder):
    """Of all networks, with our usual mark."""
    found = folder.settings("node1")

    assert (True, True, 85, 254) == (
        found.routes.host, found.routes.blackhole, found.routes.proto, found.routes.table,
    )  # fmt: skip
    assert found.routed_networks is None


def test_host_routes_are_wanted_where_the_chained_role_makes_them(folder):
    """Not of a network without it, or with `routes.host` off."""
    folder.put("a", delegate(), chained())
    folder.put("b", delegate())
    folder.put("c", delegate(), chained(routes={"host": False}))

    found = folder.settings()

    assert found.routes.host
    assert frozenset({"a"}) == found.routed_networks


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ([delegate()], True),
        ([delegate(routes={"blackhole": False})], False),
        ([delegate(routes={"blackhole": False}), chained()], True),
        ([delegate("bridge")], False),
        ([delegate("bridge"), chained()], True),
        ([delegate("bridge"), chained(routes={"host": False})], False),
        ([delegate(), chained(routes={"host": False})], True),
        ([{"type": "calico", "ipam": {"type": "calico-ipam"}}], False),
    ],
)
def test_blackholes_are_wanted_where_a_role_makes_them(folder, plugins, expected):
    """Under a bridge the chained one alone, if it makes host routes; under Calico none."""
    folder.put("net", *plugins)

    assert expected == folder.settings("node1").routes.blackhole


def test_mark_and_table_are_the_networks(folder):
    """The same for all roles."""
    mark = {"proto": 99, "table": 1000}
    folder.put("net", delegate(routes=mark), chained(routes=mark))

    found = folder.settings().routes

    assert (99, 1000) == (found.proto, found.table)


def test_different_marks_are_refused(folder):
    """One role's routes would be left behind in the other's eyes."""
    folder.put("a", delegate(routes={"proto": 99}))
    folder.put("b", delegate())

    with pytest.raises(OperatorError, match="a and b mark their routes differently"):
        folder.settings()


def test_a_wrong_setting_is_refused_in_the_plugins_words(folder):
    """The plugin refuses such a network, too."""
    folder.put("net", delegate(routes={"proto": 12}))

    with pytest.raises(NetconfError, match=r'"ipam\.routes\.proto" is 12'):
        folder.settings()


def test_a_network_whose_pods_a_blackhole_would_cut_off_is_known(folder):
    """A bridge without the chained role, or without its host routes, beside one that has both."""
    folder.put("a", delegate("bridge"), chained())
    folder.put("b", delegate("bridge"))
    folder.put("c", delegate())
    folder.put("d", delegate("bridge"), chained(routes={"host": False}))

    found = folder.settings()

    assert frozenset({"b", "d"}) == found.unheld_networks
    assert frozenset({"a", "b", "c", "d"}) == found.known_networks


NOT_OURS = {"routes": {"blackhole": False}}


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ([delegate(**NOT_OURS), chained(**NOT_OURS)], True),
        ([delegate("bridge", **NOT_OURS), chained(**NOT_OURS)], True),
        ([delegate(), chained()], False),
        ([delegate("bridge")], False),
        ([delegate("bridge", **NOT_OURS)], False),
        ([delegate("bridge"), chained(routes={"host": False})], False),
    ],
)
def test_bird_owns_the_blackholes_that_are_not_ours(folder, plugins, expected):
    """Not those that nobody may make: that we make none is no reason for BIRD's."""
    folder.put("net", *plugins)

    assert expected == folder.settings().bird_owns_blackholes


def test_beside_birds_blackholes_a_bridges_pods_get_none(folder):
    """Whatever the bridge's network says of blackholes."""
    folder.put("a", delegate(**NOT_OURS), chained(**NOT_OURS))
    folder.put("b", delegate("bridge", **NOT_OURS))

    found = folder.settings()

    assert found.bird_owns_blackholes
    assert frozenset({"b"}) == found.unheld_networks
