"""By which records this node's routes are judged: those that all of its networks agree on, now."""

from __future__ import annotations

import json

import pytest

from cni_ipam.ctl import locate as locating
from cni_ipam.ctl.locate import Wishes
from cni_ipam.ctl.session import LiveNode, Session
from cni_ipam.errors import OperatorError

ETCD = {"etcd_endpoints": "https://10.0.0.1:2379,https://10.0.0.2:2379"}
FOREIGN = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": "http://other:2379"}


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node without networks, whose operator has no config file."""
    monkeypatch.setattr(locating, "DEFAULT_CONFIG_PATH", str(tmp_path / "none.cfg"))
    monkeypatch.setattr(locating.locate, "__defaults__", (str(tmp_path / "none.cfg"),))
    return Node(tmp_path)


class Node:
    """A folder that stands for a node's network lists."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def has(self, name, *, kind="ptp", ours="cni-ipam", chained=None, **settings) -> None:
        """A network; the entry of the chained role, if there is one, has settings of its own."""
        plugins = [{"type": kind, "ipam": {"type": ours, "nodename": "node1", **settings}}]
        if chained is not None:
            plugins.append({"type": "cni-ipam", **chained})
        text = json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": plugins})
        (self.folder / f"{name}.conflist").write_text(text)

    def session(self, environ=None, **wishes) -> Session:
        return Session(Wishes(netconf_dir=str(self.folder), **wishes), environ or {})

    def finds(self, name=None, environ=None, **wishes):
        """The settings by which the node's routes are looked after."""
        return self.session(environ, **wishes).find_this_node(name)


def test_networks_that_agree_are_looked_after(node):
    """However they spell it."""
    node.has("a", sqlite_path="/x/ipam.db")
    node.has("b", sqlite_path="/x/../x/ipam.db", kind="bridge")

    assert ("node1", "/x/ipam.db.lock") == (node.finds().name, node.finds().lock_file)


def test_networks_with_different_datastores_are_refused(node):
    """By the records of one the other's pods have no right to their routes."""
    node.has("a")
    node.has("b", sqlite_path="/x/ipam.db")

    with pytest.raises(OperatorError) as caught:
        node.finds()

    expected = (
        "the network a has the datastore sqlite /var/lib/cni-ipam/ipam.db, "
        "but b has the datastore sqlite /x/ipam.db"
    )
    assert expected == caught.value.msg
    assert "give all networks of a node the same datastore" == caught.value.details


def test_networks_that_call_the_node_differently_are_refused(node):
    """The first one's name does not count for all."""
    node.has("a")
    node.has("b", nodename="node2")

    with pytest.raises(OperatorError) as caught:
        node.finds()

    assert "the network a calls this node node1, but b calls it node2" == caught.value.msg
    assert "give all networks of a node the same nodename" == caught.value.details


@pytest.mark.parametrize(
    ("settings", "environ", "used"),
    [
        ({}, FOREIGN, "etcdv3 http://other:2379"),
        (ETCD, {"CALICO_DATASTORE_TYPE": "sqlite"}, "sqlite /var/lib/cni-ipam/ipam.db"),
        (ETCD, FOREIGN, "etcdv3 http://other:2379"),
        (
            {"kubernetes": {"k8s_api_root": "https://10.0.0.1:6443"}},
            {"CALICO_K8S_API_ENDPOINT": "https://other:6443"},
            "kubernetes https://other:6443",
        ),
    ],
    ids=["another kind", "sqlite", "another etcd", "another API server"],
)
def test_a_datastore_that_is_not_the_networks_is_refused(node, settings, environ, used):
    """An operator's shell has the variables of some other cluster."""
    node.has("a", **settings)

    with pytest.raises(OperatorError, match="the network a has the datastore") as caught:
        node.finds(environ=environ)

    assert caught.value.msg.endswith(f" says the datastore {used}")


def test_a_config_file_that_names_another_datastore_is_refused(node):
    """If it is only the one that lies in the usual place."""
    node.has("a")
    text = json.dumps({"spec": {"datastoreType": "sqlite", "sqlitePath": "/x/ipam.db"}})
    (node.folder / "none.cfg").write_text(text)

    with pytest.raises(OperatorError, match=r"none\.cfg says the datastore sqlite /x/ipam.db"):
        node.finds()


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        (ETCD, {"ETCD_ENDPOINTS": "https://10.0.0.2:2379"}),
        (ETCD, {"ETCD_USERNAME": "calico", "ETCD_PASSWORD": "hush"}),
        ({"datastore_type": "kubernetes"}, {"K8S_API_ENDPOINT": "https://10.0.0.1:6443"}),
        ({}, {"KUBECONFIG": "/home/me/.kube/config"}),
    ],
    ids=["a member of the cluster", "the user", "the server", "nothing"],
)
def test_what_does_not_contradict_the_networks_is_heeded(node, settings, environ):
    """The datastore is the same one."""
    node.has("a", **settings)

    assert "node1" == node.finds(environ=environ).name


def test_flags_go_before(node):
    """They are the operator's word."""
    node.has("a")
    node.has("b", sqlite_path="/x/ipam.db", nodename="node2")

    assert "node1" == node.finds("node1", sqlite_path="/y/ipam.db").name
    assert "node2" == node.finds("node2", FOREIGN, datastore_type="etcdv3").name


def test_a_name_that_no_network_gives_is_refused(node):
    """By another node's records every route here would be left behind."""
    node.has("a")
    node.has("b", nodename="node2")

    with pytest.raises(OperatorError, match="the networks of this node call it node1 and node2"):
        node.finds("node9")


def test_who_records_nothing_for_routes_of_ours_may_differ(node):
    """The chained role has the records of its interface plugin's network; Calico looks after its
    own routes."""
    node.has("a", sqlite_path="/x/ipam.db", chained={})
    node.has("b", kind="calico", ours="calico-ipam", nodename="calico", **ETCD)

    assert "node1" == node.finds().name


def test_another_node_is_looked_at_all_the_same(node):
    """Its configuration of BIRD, say, which changes nothing here."""
    node.has("a")
    node.has("b", sqlite_path="/x/ipam.db", nodename="node2")

    assert "node9" == node.session().find_node("node9").name


def test_a_list_that_cannot_be_read_is_refused(node):
    """Nobody knows which routes its pods need."""
    node.has("a")
    (node.folder / "b.conf").write_text("{")

    with pytest.raises(OperatorError, match=r"cannot be told: .*b\.conf"):
        node.finds()


# Lists that change


def test_settings_stay_the_same_while_the_lists_do(node):
    """Nothing is read again."""
    node.has("a")
    live = LiveNode(node.session(), None)

    assert live.get() is live.get()


def test_lists_that_change_are_heeded(node):
    """The datastore and the routes are those of the new ones, and it is told."""
    changes = []
    node.has("a")
    session = node.session()
    live = LiveNode(session, None, lock_timeout_seconds=3.0)
    live.when_changed = lambda: changes.append(session.place.datastore.sqlite_path)
    live.get()

    node.has("a", sqlite_path="/x/ipam.db", chained={})

    assert ("/x/ipam.db.lock", 3.0) == (live.get().lock_file, live.get().lock_timeout_seconds)
    assert frozenset({"a"}) == live.get().routed_networks
    assert ["/x/ipam.db"] == changes


def test_lists_that_contradict_each_other_are_refused_until_they_agree(node):
    """Each time that somebody wants to work by them."""
    node.has("a")
    live = LiveNode(node.session(), None)
    former = live.get()
    node.has("b", nodename="node2")

    for _ in range(2):
        with pytest.raises(OperatorError, match="but b calls it node2"):
            live.get()
    (node.folder / "b.conflist").unlink()

    assert former == live.get()
