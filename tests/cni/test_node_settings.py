"""Datastore, node name and log: netconf, environment and files in Calico's order."""

from __future__ import annotations

import posix
from types import SimpleNamespace

import pytest

from cni_ipam.cni import settings as settings_module
from cni_ipam.cni.fields import Fields
from cni_ipam.cni.settings import LogSettings, parse_datastore
from cni_ipam.errors import EnvironmentInvalid, InputOutputError, NetconfError

ENDPOINTS = "https://10.0.0.1:2379, https://10.0.0.2:2379,"


@pytest.mark.parametrize(
    ("keys", "environ", "kind"),
    [
        ({}, {}, "sqlite"),
        ({"etcd_endpoints": ENDPOINTS}, {}, "etcdv3"),
        ({"kubernetes": {"k8s_api_root": "https://10.0.0.1"}}, {}, "kubernetes"),
        ({"kubernetes": {}}, {}, "kubernetes"),
        ({"etcd_endpoints": ENDPOINTS, "kubernetes": {}}, {}, "etcdv3"),
        ({"datastore_type": "kubernetes", "etcd_endpoints": ENDPOINTS}, {}, "kubernetes"),
        ({"datastore_type": "sqlite", "kubernetes": {}}, {}, "sqlite"),
        ({"datastore_type": ""}, {}, "sqlite"),
        ({}, {"ETCD_ENDPOINTS": ENDPOINTS}, "etcdv3"),
        ({}, {"DATASTORE_TYPE": "kubernetes"}, "kubernetes"),
        (
            {"datastore_type": "etcdv3", "etcd_endpoints": ENDPOINTS},
            {"DATASTORE_TYPE": "kubernetes"},
            "etcdv3",
        ),
        ({"datastore_type": "etcdv3"}, {"CALICO_DATASTORE_TYPE": "kubernetes"}, "kubernetes"),
        ({}, {"KUBECONFIG": "/etc/other"}, "sqlite"),
    ],
)
def test_the_datastore_is_named_or_follows_from_the_keys(netconf_of, keys, environ, kind):
    """A CALICO_ variable beats the netconf, which beats the plain variable."""
    assert kind == netconf_of(**keys, environ=environ).datastore.kind


@pytest.mark.parametrize(
    ("keys", "environ", "kind"),
    [
        ({}, {}, "kubernetes"),
        ({"etcd_endpoints": ENDPOINTS}, {}, "etcdv3"),
        ({"datastore_type": "sqlite"}, {}, "sqlite"),
        ({}, {"CALICO_DATASTORE_TYPE": "sqlite"}, "sqlite"),
    ],
)
def test_calicos_name_never_falls_back_to_the_file(netconf_of, keys, environ, kind):
    """Calico's client takes Kubernetes where nothing is said; sqlite has to be named."""
    netconf = netconf_of(**keys, environ=environ, called_as="calico-ipam")
    assert kind == netconf.datastore.kind


@pytest.mark.parametrize("kind", ["sqlite", "kubernetes"])
def test_another_datastore_has_no_way_to_etcd(netconf_of, kind):
    """What is said of etcd is not looked at, in netconf and environment."""
    datastore = netconf_of(
        datastore_type=kind,
        etcd_endpoints="nowhere",
        etcd_cert_file="/cert",
        environ={"ETCD_USERNAME": "calico"},
    ).datastore
    assert datastore.etcd is None


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("sqlite", {"etcd_endpoints": 7}),
        ("sqlite", {"etcd_key_file": ["/key"]}),
        ("sqlite", {"kubernetes": "here"}),
        ("kubernetes", {"sqlite_path": "ipam.db"}),
    ],
)
def test_what_another_datastore_needs_does_not_stop_a_removal(kind, keys):
    """A wrong value is told by every other verb."""
    fields = Fields((("", {"datastore_type": kind, **keys}),))
    with pytest.raises(NetconfError, match=next(iter(keys))):
        parse_datastore(fields, {}, embedded=True)
    assert kind == parse_datastore(fields, {}, embedded=True, for_removal=True).kind


ROOT = {"k8s_api_root": "https://10.0.0.1:6443"}


@pytest.mark.parametrize("kind", ["sqlite", "etcdv3", "kubernetes"])
@pytest.mark.parametrize("keys", [{"kubernetes": ROOT}, {"policy": ROOT}])
def test_an_api_server_is_known_whatever_the_datastore(netconf_of, kind, keys):
    """For the annotations."""
    datastore = netconf_of(datastore_type=kind, etcd_endpoints=ENDPOINTS, **keys).datastore
    assert "https://10.0.0.1:6443" == str(datastore.kubernetes.server)


@pytest.mark.parametrize(
    ("keys", "environ"),
    [
        ({}, {}),
        ({}, {"KUBECONFIG": "/absent", "K8S_API_ENDPOINT": "https://10.0.0.1"}),
        ({"kubernetes": {}}, {}),
        ({"policy": {"type": "k8s"}}, {}),
        ({"policy": {"type": ""}}, {"KUBECONFIG": "/absent"}),
        ({"kubernetes": {"node_name": "n", "qps": "x"}, "qps": 5, "burst": []}, {}),
    ],
)
@pytest.mark.parametrize("kind", ["sqlite", "etcdv3"])
def test_nobody_needs_an_api_server_beside_another_datastore(netconf_of, kind, keys, environ):
    """Unless the netconf tells of one, what the environment says is for others."""
    keys = {"datastore_type": kind, "etcd_endpoints": ENDPOINTS, **keys}
    assert netconf_of(**keys, environ=environ).datastore.kubernetes is None


def test_kubernetes_as_the_datastore_takes_what_the_environment_says(netconf_of):
    """As Calico's client."""
    environ = {"K8S_API_ENDPOINT": "https://10.0.0.1"}
    datastore = netconf_of(datastore_type="kubernetes", environ=environ).datastore
    assert "https://10.0.0.1:443" == str(datastore.kubernetes.server)


@pytest.mark.parametrize("kind", ["sqlite", "etcdv3"])
@pytest.mark.parametrize(
    "said", [{"kubeconfig": "/absent"}, {"kubeconfig": 7}, {"k8s_api_root": "ftp://x"}]
)
def test_a_removal_from_another_datastore_has_no_use_for_an_api_server(netconf_of, kind, said):
    """So nothing about it stops that; it stops an ADD."""
    keys = {"datastore_type": kind, "etcd_endpoints": ENDPOINTS, "kubernetes": said}
    assert netconf_of(**keys, command="DEL").datastore.kubernetes is None
    with pytest.raises((NetconfError, InputOutputError)):
        netconf_of(**keys)


def test_who_reads_no_annotations_is_told_of_no_api_server():
    """An operator may have no right to read the kubeconfig."""
    fields = Fields((("", {"datastore_type": "sqlite", "kubernetes": {"kubeconfig": "/absent"}}),))
    found = parse_datastore(fields, {}, embedded=True, reads_annotations=False)
    assert found.kubernetes is None


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"kubernetes": "here"}, r"Go struct field NetConf\.kubernetes of type struct"),
        ({"policy": ["k8s"]}, r"Go struct field NetConf\.policy of type struct"),
        ({"kubernetes": {"kubeconfig": 1}}, r"NetConf\.kubernetes\.kubeconfig of type string"),
        ({"policy": {"k8s_api_root": 1}}, r"NetConf\.policy\.k8s_api_root of type string"),
        ({"kubernetes": {}, "policy": {"k8s_auth_token": 1}}, r"policy\.k8s_auth_token of type"),
        ({"kubernetes": {}, "calico_api_group": 1}, r"NetConf\.calico_api_group of type string"),
    ],
)
def test_a_wrong_type_of_what_calico_reads_is_told_in_its_words(netconf_of, keys, named):
    """Also where the datastore is another one."""
    with pytest.raises(NetconfError, match=named):
        netconf_of(datastore_type="sqlite", **keys)


@pytest.mark.parametrize("kind", ["memory", "etcd", "SQLITE"])
def test_an_unknown_datastore_type_is_refused(netconf_of, kind):
    """In Calico's words, with the code of where it was said."""
    with pytest.raises(NetconfError, match=f"unknown datastore type: {kind}") as raised:
        netconf_of(datastore_type=kind)
    assert '"datastore_type" must be one of sqlite, etcdv3, kubernetes' == raised.value.details
    with pytest.raises(EnvironmentInvalid, match=f"unknown datastore type: {kind}") as from_env:
        netconf_of(environ={"DATASTORE_TYPE": kind})
    assert from_env.value.details.startswith("DATASTORE_TYPE must be one of")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_datastore_of_the_wrong_type_stops_even_a_removal(netconf_of, command):
    """It cannot be known where the address was."""
    with pytest.raises(
        NetconfError, match=r"Go struct field NetConf\.datastore_type of type string"
    ):
        netconf_of(datastore_type=5, command=command)


def node_name_of(netconf_of, **keys):
    return netconf_of(**{"nodename": None, **keys}).node_name


def test_nodename_comes_first(netconf_of, tmp_path):
    """Before the file."""
    file = tmp_path / "nodename"
    file.write_text("from-file")
    assert "said" == node_name_of(netconf_of, nodename="said", nodename_file=str(file))


@pytest.mark.parametrize("key", ["nodename_file", "hostname"])
def test_a_wrong_type_is_told_where_it_would_not_count(netconf_of, key):
    """But a removal, which knows its node by the first key, goes on."""
    with pytest.raises(NetconfError, match=f"{key} of type string"):
        netconf_of(nodename="said", **{key: 7})
    assert "said" == netconf_of(nodename="said", **{key: 7}, command="DEL").node_name


def test_the_nodename_file_comes_second(netconf_of, tmp_path):
    """Before the deprecated key."""
    file = tmp_path / "nodename"
    file.write_text("From-File")
    name = node_name_of(netconf_of, nodename_file=str(file), hostname="old")
    assert "From-File" == name


@pytest.mark.parametrize("content", [None, ""])
def test_hostname_comes_third(netconf_of, tmp_path, content):
    """A missing or empty file says nothing."""
    file = tmp_path / "nodename"
    if content is not None:
        file.write_text(content)
    assert "old" == node_name_of(netconf_of, nodename_file=str(file), hostname="old")


def test_the_systems_name_comes_last(netconf_of, monkeypatch):
    """In lower case and without blanks, as Calico's."""
    system = SimpleNamespace(**vars(posix))
    system.uname = lambda: SimpleNamespace(nodename=" Worker-7.Example \n")
    monkeypatch.setattr(settings_module, "posix", system)
    assert "worker-7.example" == node_name_of(netconf_of)


@pytest.mark.parametrize("content", [b"node\n", b"a/b", b"\xff", b"x" * 300])
def test_the_files_content_is_taken_verbatim_or_refused(netconf_of, tmp_path, content):
    """Calico would take the line end for a part of the name: better to be told."""
    file = tmp_path / "nodename"
    file.write_bytes(content)
    with pytest.raises(NetconfError, match="nodename_file"):
        node_name_of(netconf_of, nodename_file=str(file))


def test_a_file_that_cannot_be_read_is_told(netconf_of, tmp_path):
    """Going on under another name would split the node in two."""
    with pytest.raises(InputOutputError, match=f"cannot read nodename_file {tmp_path}"):
        node_name_of(netconf_of, nodename_file=str(tmp_path))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", "debug"),
        ("DEBUG", "debug"),
        ("Error", "error"),
        ("warning", "info"),
        ("", "info"),
        ("none", "info"),
    ],
)
def test_a_log_level_that_calico_does_not_know_is_info(netconf_of, level, expected):
    """Its own odd rule."""
    assert expected == netconf_of(log_level=level).log.level


def test_the_logs_file_has_its_limits(netconf_of):
    """Those that are 0 are the defaults, as in Calico."""
    log = netconf_of(
        log_file_path="/var/log/x.log",
        log_file_max_size=5,
        log_file_max_age=0,
        log_file_max_count=3,
    ).log
    assert LogSettings("info", "/var/log/x.log", 5, 30, 3) == log
