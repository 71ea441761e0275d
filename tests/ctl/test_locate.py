"""Where the datastore is: flag, config file, environment, network configuration, default."""

from __future__ import annotations

import json

import pytest

from cni_ipam.ctl.locate import Wishes, locate
from cni_ipam.errors import CniIpamError, OperatorError, UnsupportedError
from cni_ipam.lean.http import Credentials

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

    def has_config(self, **spec: object) -> None:
        head = {"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig"}
        self.config.write_text(json.dumps({**head, "spec": spec}))

    def finds(self, environ: dict[str, str] | None = None, **wishes: str):
        wishes.setdefault("netconf_dir", str(self.networks))
        return locate(Wishes(**wishes), environ or {}, str(self.config))


def endpoints_of(datastore) -> list[str]:
    """The URLs of the servers."""
    return [str(endpoint) for endpoint in datastore.etcd.endpoints]


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
    assert ("etcdv3", ["https://a:1", "https://b:2"]) == (etcd.kind, endpoints_of(etcd))
    assert "kubernetes" == node.finds({"DATASTORE_TYPE": "kubernetes"}).datastore.kind
    assert "sqlite" == node.finds({"KUBECONFIG": "/home/me/.kube/config"}).datastore.kind


def test_the_nodes_own_network_says_where_etcd_is(node):
    """With certificates; the user comes from the environment."""
    etcd = {"etcd_endpoints": "https://a:1", "etcd_ca_cert_file": "/ca"}
    delegate = {"type": "cni-ipam", "etcd_cert_file": "/cert", "etcd_key_file": "/key"}
    node.has_network("10-etcd.conflist", {"type": "ptp", "ipam": delegate, **etcd})
    found = node.finds({"ETCD_USERNAME": "calico", "ETCD_PASSWORD": "hush"}).datastore
    assert ("etcdv3", ["https://a:1"]) == (found.kind, endpoints_of(found))
    assert Credentials("/ca", "/cert", "/key") == found.etcd.credentials
    assert ("calico", "hush") == (found.etcd.username, found.etcd.password)


def test_calicos_own_network_says_where_etcd_is(node):
    """On a node that Calico serves, nothing has to be told again."""
    calico = {"type": "calico", "etcd_endpoints": "http://a:1", "ipam": {"type": "calico-ipam"}}
    node.has_network("10-calico.conflist", calico, {"type": "portmap"})
    found = node.finds().datastore
    assert ("etcdv3", ["http://a:1"]) == (found.kind, endpoints_of(found))


def test_who_asks_for_etcd_gets_the_nodes_servers(node):
    """Unless the environment names others."""
    node.has_network("10.conflist", {"type": "cni-ipam", "etcd_endpoints": "http://a:1"})
    assert ["http://a:1"] == endpoints_of(node.finds(datastore_type="etcdv3").datastore)
    environ = {"ETCD_ENDPOINTS": "http://b:1", "DATASTORE_TYPE": "kubernetes"}
    assert ["http://b:1"] == endpoints_of(node.finds(environ, datastore_type="etcdv3").datastore)


def test_who_asks_for_etcd_where_nobody_knows_it_is_told(node):
    """In Calico's words."""
    with pytest.raises(CniIpamError, match="no etcd endpoints specified"):
        node.finds(datastore_type="etcdv3")


def test_the_config_file_beats_the_environment(node):
    """As with calicoctl; it is not mixed with it."""
    node.config.write_text(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\n"
        "spec:\n  datastoreType: etcdv3\n  etcdEndpoints: https://a:1\n  etcdCACertFile: /ca\n"
    )
    environ = {"DATASTORE_TYPE": "kubernetes", "ETCD_USERNAME": "u", "ETCD_PASSWORD": "p"}
    found = node.finds(environ).datastore
    assert ("etcdv3", ["https://a:1"]) == (found.kind, endpoints_of(found))
    assert (Credentials("/ca"), "") == (found.etcd.credentials, found.etcd.username)


def test_a_config_file_has_all_that_calicoctl_takes(node):
    """User, password, and files."""
    node.has_config(
        etcdEndpoints="https://a:1,https://b:1",
        etcdUsername="calico",
        etcdPassword="hush",
        etcdKeyFile="/key",
        etcdCertFile="/cert",
        etcdCACertFile="/ca",
    )
    etcd = node.finds().datastore.etcd
    assert ("calico", "hush") == (etcd.username, etcd.password)
    assert Credentials("/ca", "/cert", "/key") == etcd.credentials


def test_a_config_file_may_hold_the_certificates(node):
    """As texts."""
    node.has_config(etcdEndpoints="https://a:1", etcdKey="K", etcdCert="C", etcdCACert="A")
    assert Credentials(ca="A", cert="C", key="K") == node.finds().datastore.etcd.credentials


@pytest.mark.parametrize("text", ["etcdPassword: 12345", "etcdPassword: '12345'"])
def test_a_password_of_digits_needs_no_quotes(node, text):
    """Calicoctl takes it for a text as well."""
    node.config.write_text(f"spec: {{etcdEndpoints: 'http://a:1', etcdUsername: u, {text}}}")
    assert "12345" == node.finds().datastore.etcd.password


def test_field_names_are_matched_as_go_does(node):
    """Without regard to case; an empty one is none."""
    node.config.write_text("spec:\n  ETCDEndpoints: http://a:1\n  etcdPassword:\n")
    assert ["http://a:1"] == endpoints_of(node.finds().datastore)


INLINE = """\
clusters: [{name: c1, cluster: {server: "https://10.0.0.7:6443"}}]
contexts: [{name: here, context: {cluster: c1}}]
"""
KUBERNETES = {
    "datastoreType": "kubernetes",
    "kubeconfigInline": INLINE,
    "k8sKeyFile": "/key",
    "k8sCertFile": "/cert",
    "k8sAPIToken": "sesame",
    "k8sInsecureSkipTLSVerify": True,
    "k8sClientQPS": 1.5,
    "k8sClientBurst": 7,
    "k8sCurrentContext": "here",
    "calicoAPIGroup": "crd.projectcalico.org/v1",
    "usePodCIDR": False,
}


def test_a_config_file_has_all_of_kubernetes_that_calicoctl_takes(node):
    """Each of its own type."""
    node.has_config(**KUBERNETES)
    found = node.finds().datastore
    assert ("kubernetes", None) == (found.kind, found.etcd)
    server = found.kubernetes
    assert ("https://10.0.0.7:6443", True) == (str(server.server), server.is_insecure)
    assert ("sesame", "crd.projectcalico.org/v1") == (server.token, server.group)
    assert Credentials("", "/cert", "/key") == server.credentials


def test_a_config_file_may_name_the_server_and_its_ca(node):
    """Without a kubeconfig."""
    node.has_config(k8sAPIEndpoint="https://10.0.0.1:6443", k8sCAFile="/ca")
    found = node.finds().datastore
    assert ("kubernetes", "https://10.0.0.1:6443") == (found.kind, str(found.kubernetes.server))
    assert Credentials("/ca") == found.kubernetes.credentials


def kubeconfig_at(path, server="https://10.0.0.7:6443"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"current-context: here\n{INLINE}".replace("https://10.0.0.7:6443", server))
    return str(path)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({}, "sqlite"),
        ({"kubeconfig": "…"}, "kubernetes"),
        ({"etcdEndpoints": "http://a:1", "kubeconfig": "…"}, "etcdv3"),
        ({"datastoreType": "kubernetes", "etcdEndpoints": "http://a:1"}, "kubernetes"),
        ({"datastoreType": "sqlite", "kubeconfig": "/absent"}, "sqlite"),
    ],
)
def test_without_a_type_the_keys_of_the_config_file_tell(node, tmp_path, spec, kind):
    """As in a network configuration."""
    path = kubeconfig_at(tmp_path / "kubeconfig")
    node.has_config(**{key: path if value == "…" else value for key, value in spec.items()})
    found = node.finds({"HOME": "/nowhere"}).datastore
    assert kind == found.kind
    assert (kind == "kubernetes" and "kubeconfig" in spec) == bool(found.kubernetes)


def test_the_operators_own_kubeconfig_serves_where_nothing_is_said(node, tmp_path):
    """As with calicoctl; but sqlite is what we take where not even the kind is said."""
    kubeconfig_at(tmp_path / ".kube" / "config")
    home = {"HOME": str(tmp_path)}
    found = node.finds(home, datastore_type="kubernetes").datastore
    assert "https://10.0.0.7:6443" == str(found.kubernetes.server)
    assert found == node.finds({**home, "DATASTORE_TYPE": "kubernetes"}).datastore
    assert "sqlite" == node.finds(home).datastore.kind


def test_a_variable_goes_before_the_operators_own_kubeconfig(node, tmp_path):
    """KUBECONFIG says which, once Kubernetes is asked for."""
    kubeconfig_at(tmp_path / ".kube" / "config")
    other = kubeconfig_at(tmp_path / "other", "https://other")
    environ = {"HOME": str(tmp_path), "KUBECONFIG": other}
    found = node.finds(environ, datastore_type="kubernetes").datastore
    assert "https://other:443" == str(found.kubernetes.server)


def test_a_kubeconfig_with_a_plugin_serves_as_well(node, tmp_path):
    """The full program has what it takes."""
    plugin = tmp_path / "plugin"
    answer = {"apiVersion": "x/v1", "kind": "ExecCredential", "status": {"token": "sesame"}}
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "x/v1", "command": str(plugin)}}
    document = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    node.has_config(kubeconfigInline=json.dumps(document))
    assert "sesame" == node.finds().datastore.kubernetes.token


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"etcdEndpoint": "http://a:1"}, 'unknown field "spec.etcdEndpoint" in config file {}'),
        (
            {"etcdEndpoints": ["http://a:1"]},
            '"etcdEndpoints" of {} must be a text, but is of type array',
        ),
        ({"etcdPassword": 1.5}, '"etcdPassword" of {} must be a text, but is of type number'),
        ({"sqlitePath": "ipam.db"}, '"sqlitePath" of {} is ipam.db, but must be an absolute path'),
        ({"datastoreType": "mysql"}, "unknown datastore type: mysql"),
        (
            {"datastoreType": "etcdv3"},
            'no etcd endpoints specified: "etcdEndpoints" of {} is missing',
        ),
        (
            {"etcdEndpoints": "http://a"},
            'endpoint 1 of "etcdEndpoints" of {} is "http://a": it names no port',
        ),
        (
            {"etcdEndpoints": "http://a:1", "etcdUsername": "u"},
            '"etcdUsername" of {0} is set, but "etcdPassword" of {0} is not',
        ),
        (
            {"etcdEndpoints": "https://a:1", "etcdCert": "C"},
            '"etcdCert" of {0} is set, but "etcdKey" of {0} is not',
        ),
        (
            {"etcdEndpoints": "https://a:1", "etcdCACert": "C", "etcdKeyFile": "/key"},
            "Cannot mix inline certificate-key and certificate / key files",
        ),
    ],
)
def test_a_mistake_in_the_config_file_is_told_by_its_key(node, spec, expected):
    """And the file's path: there is no network configuration to look into."""
    node.has_config(**spec)
    with pytest.raises(OperatorError) as caught:
        node.finds()
    assert expected.format(node.config) == str(caught.value)


def test_discovery_in_the_config_file_is_not_supported(node):
    """As elsewhere."""
    node.has_config(etcdDiscoverySrv="example.org")
    with pytest.raises(UnsupportedError, match=r'"etcdDiscoverySrv" of .* is "example\.org"'):
        node.finds()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("apiVersion: projectcalico.org/v2", "unknown APIVersion 'projectcalico.org/v2'"),
        ("kind: IPPool", "expected kind 'CalicoAPIConfig', got 'IPPool'"),
        ("extra: 1", 'unknown field "extra" in config file'),
    ],
)
def test_the_head_of_the_config_file_is_checked(node, head, expected):
    """The texts are calicoctl's."""
    node.config.write_text(f"{head}\nspec: {{}}\n")
    with pytest.raises(OperatorError, match=expected):
        node.finds()


def test_a_broken_config_file_is_not_quoted(node):
    """It may hold a password; the line is told."""
    node.config.write_text("spec:\n  etcdPassword: *hush\n")
    with pytest.raises(OperatorError) as caught:
        node.finds()
    assert f"config file {node.config} is not YAML: see line 2" == str(caught.value)


def test_a_config_file_may_name_our_datastore(node):
    """With a key of our own."""
    node.config.write_text("spec: {datastoreType: sqlite, sqlitePath: /c/ipam.db}")
    assert "/c/ipam.db" == node.finds().datastore.sqlite_path


def test_a_flag_beats_the_config_file(node):
    """But servers may be the file's."""
    node.config.write_text("spec: {datastoreType: kubernetes, etcdEndpoints: 'https://a:1'}")
    found = node.finds(datastore_type="etcdv3").datastore
    assert ("etcdv3", ["https://a:1"]) == (found.kind, endpoints_of(found))


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
