"""Where the datastore is: flag, config file, environment, network configuration, default."""

from __future__ import annotations

import json

import pytest

from cni_ipam.ctl.locate import Wishes, locate
from cni_ipam.errors import CniIpamError, OperatorError

DEFAULT = "/var/lib/cni-ipam/ipam.db"


@pytest.fixture
def node(tmp_path):
    """A node with networks and a config file to write."""
    return Node(tmp_path)


class Node:
    """A folder that stands for a node's files."""

    def __init__(self, folder) -> None:
        self.networks = folder / "net.d"
        self.networks.mkdir()
        self.config = folder / "calicoctl.cfg"

    def has_network(self, name: str, *plugins: object) -> None:
        text = json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": plugins})
        (self.networks / name).write_text(text)

    def finds(self, environ: dict[str, str] | None = None, **wishes: str):
        wishes.setdefault("netconf_dir", str(self.networks))
        return locate(Wishes(**wishes), environ or {}, str(self.config))


def test_without_anything_it_is_the_default(node):
    """An embedded datastore at its usual place."""
    datastore = node.finds().datastore
    assert ("sqlite", DEFAULT) == (datastore.kind, datastore.sqlite_path)


def test_a_path_is_enough(node):
    """It stands above all else, and may be relative."""
    node.config.write_text("broken: [")
    datastore = node.finds({"CALICO_DATASTORE_TYPE": "etcdv3"}, sqlite_path="/x/ipam.db").datastore
    assert ("sqlite", "/x/ipam.db") == (datastore.kind, datastore.sqlite_path)
    assert node.finds(sqlite_path="ipam.db").datastore.sqlite_path.startswith("/")


def test_the_network_configuration_says_where(node):
    """The first network, by file name, whose addresses are ours or Calico's."""
    node.has_network("05-other.conflist", {"type": "bridge", "ipam": {"type": "host-local"}})
    ours = {"type": "cni-ipam", "sqlite_path": "/a/ipam.db"}
    node.has_network("10-ours.conflist", {"type": "ptp", "ipam": ours}, {"type": "cni-ipam"})
    node.has_network("20-late.conflist", {"type": "cni-ipam", "sqlite_path": "/b/ipam.db"})
    assert "/a/ipam.db" == node.finds().datastore.sqlite_path


def test_under_calicos_name_it_is_never_embedded(node):
    """As the plugin itself decides."""
    node.has_network("10-calico.conflist", {"type": "calico", "ipam": {"type": "calico-ipam"}})
    assert "kubernetes" == node.finds().datastore.kind


def test_a_network_configuration_names_the_routes(node):
    """Protocol and table are the plugin's."""
    routes = {"proto": 99, "table": 100}
    node.has_network("10-ours.conflist", {"type": "cni-ipam", "routes": routes})
    found = node.finds().routes
    assert (99, 100) == (found.proto, found.table)


def test_wrong_routes_leave_the_usual_ones(node):
    """The plugin refuses such a network, so it has no routes."""
    node.has_network("10-ours.conflist", {"type": "cni-ipam", "routes": {"proto": "many"}})
    assert 85 == node.finds().routes.proto


def test_the_environment_says_where_the_networks_are(node, monkeypatch):
    """CNI_NETCONF_DIR, unless a flag does."""
    node.has_network("10.conflist", {"type": "cni-ipam", "sqlite_path": "/a/ipam.db"})
    place = locate(Wishes(), {"CNI_NETCONF_DIR": str(node.networks)}, str(node.config))
    assert "/a/ipam.db" == place.datastore.sqlite_path


def test_a_broken_network_matters_only_if_no_other_is_ours(node):
    """Some other vendor's file must not stop the operator."""
    (node.networks / "01-broken.conf").write_text("{")
    with pytest.raises(OperatorError, match=r"cannot tell where the datastore is: .*01-broken"):
        node.finds()
    assert "sqlite" == node.finds(datastore_type="sqlite").datastore.kind
    node.has_network("10-ours.conflist", {"type": "cni-ipam", "sqlite_path": "/a/ipam.db"})
    assert "/a/ipam.db" == node.finds().datastore.sqlite_path


@pytest.mark.parametrize("text", ["[]", '{"plugins": 7}', '{"plugins": ["x"]}', '{"ipam": []}'])
def test_a_network_of_another_shape_is_not_ours(node, text):
    """Nothing is taken for granted."""
    (node.networks / "01.conf").write_text(text)
    assert DEFAULT == node.finds().datastore.sqlite_path


def test_the_environment_beats_the_network(node):
    """Variables that name a datastore; KUBECONFIG alone does not."""
    node.has_network("10.conflist", {"type": "cni-ipam", "sqlite_path": "/a/ipam.db"})
    etcd = node.finds({"ETCD_ENDPOINTS": "https://a:1,https://b:2"}).datastore
    assert ("etcdv3", ("https://a:1", "https://b:2")) == (etcd.kind, etcd.etcd_endpoints)
    assert "kubernetes" == node.finds({"DATASTORE_TYPE": "kubernetes"}).datastore.kind
    assert "sqlite" == node.finds({"KUBECONFIG": "/home/me/.kube/config"}).datastore.kind


def test_the_config_file_beats_the_environment(node):
    """As with calicoctl."""
    node.config.write_text(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\n"
        "spec:\n  datastoreType: etcdv3\n  etcdEndpoints: https://a:1\n  etcdKeyFile: /key\n"
    )
    found = node.finds({"DATASTORE_TYPE": "kubernetes"}).datastore
    assert ("etcdv3", ("https://a:1",), "/key") == (
        found.kind,
        found.etcd_endpoints,
        found.etcd_key_file,
    )


def test_a_config_file_may_name_our_datastore(node):
    """With a key of our own."""
    node.config.write_text("spec: {datastoreType: sqlite, sqlitePath: /c/ipam.db}")
    assert "/c/ipam.db" == node.finds().datastore.sqlite_path


def test_a_flag_beats_the_config_file(node):
    """But servers may be the file's."""
    node.config.write_text("spec: {datastoreType: kubernetes, etcdEndpoints: 'https://a:1'}")
    found = node.finds(datastore_type="etcdv3").datastore
    assert ("etcdv3", ("https://a:1",)) == (found.kind, found.etcd_endpoints)


def test_a_config_file_that_was_asked_for_must_be_there(node):
    """The text is calicoctl's."""
    path = str(node.config) + ".none"
    with pytest.raises(OperatorError) as caught:
        node.finds(config=path)
    assert f"Error reading config file: {path}" == str(caught.value)


@pytest.mark.parametrize("text", ["spec: [", "just text", "spec: 7"])
def test_a_wrong_config_file_is_told(node, text):
    """With its path."""
    node.config.write_text(text)
    with pytest.raises(OperatorError, match=str(node.config)):
        node.finds(config=str(node.config))


def test_an_unknown_type_is_told(node):
    """With those that are known."""
    with pytest.raises(OperatorError) as caught:
        node.finds(datastore_type="mysql")
    expected = "--datastore-type is mysql, but must be one of sqlite, etcdv3, kubernetes"
    assert expected == str(caught.value)
    with pytest.raises(CniIpamError, match="unknown datastore type: mysql"):
        node.finds({"DATASTORE_TYPE": "mysql"})
