"""The API server: kubeconfigs, single settings over them, and the files of a pod."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml

from cni_ipam.cni import kubernetes_settings
from cni_ipam.cni.fields import Fields
from cni_ipam.cni.kubernetes_settings import (
    ApiServer,
    KubernetesSettings,
    find_kubernetes,
    parse_api_server,
)
from cni_ipam.errors import (
    CniIpamError,
    EnvironmentInvalid,
    FileUnreadable,
    NetconfError,
    UnsupportedError,
)
from cni_ipam.lean.http import Credentials, Endpoint

REAL = Path(__file__).parent.parent / "lean" / "kubeconfigs"
CA, CERT = (
    f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n" for name in ("CA", "CERT")
)
KEY = "-----BEGIN PRIVATE KEY-----\nKEY\n-----END PRIVATE KEY-----\n"
SERVER = {"server": "https://10.0.0.1:6443"}


@pytest.fixture(autouse=True)
def nowhere_near_a_pod(monkeypatch, tmp_path):
    """Whatever this machine is."""
    monkeypatch.setattr(kubernetes_settings, "SERVICE_ACCOUNT", str(tmp_path / "serviceaccount"))


@pytest.fixture
def write(tmp_path):
    """Write a kubeconfig with one context; its path."""

    def write(cluster=SERVER, user=None, name="kubeconfig", **head):
        document = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c1", "user": "u1"}}],
            "clusters": [{"name": "c1", "cluster": cluster}],
            "users": [{"name": "u1", "user": user or {}}],
            **head,
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document, default_flow_style=False))
        return str(path)

    return write


def find(environ=None, *, for_removal=False, **keys):
    return find_kubernetes(Fields((("", keys),)), environ or {}, for_removal=for_removal)


def find_by(path, environ=None, **policy):
    return find(environ, kubernetes={"kubeconfig": path}, policy=policy)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("name", "server", "credentials", "has_token"),
    [
        ("kubeadm", "https://192.168.0.10:6443", Credentials(ca=CA, cert=CERT, key=KEY), False),
        (
            "kubelet",
            "https://192.168.0.10:6443",
            Credentials(
                "",
                "/var/lib/kubelet/pki/kubelet-client-current.pem",
                "/var/lib/kubelet/pki/kubelet-client-current.pem",
                CA,
            ),
            False,
        ),
        ("calico", "https://10.96.0.1:443", Credentials(ca=CA), True),
        ("calico-insecure", "https://[fd00::1]:443", Credentials(), True),
        ("kind", "https://127.0.0.1:43211", Credentials(ca=CA, cert=CERT, key=KEY), False),
        ("k3s", "https://127.0.0.1:6443", Credentials(ca=CA, cert=CERT, key=KEY), False),
    ],
)
def test_what_installers_write_says_it_all(name, server, credentials, has_token):
    """Who and where, and nothing else."""
    found = find_by(str(REAL / f"{name}.yaml"))
    assert (server, credentials) == (str(found.server), found.credentials)
    assert has_token == found.token.startswith("eyJ")
    assert (name == "calico-insecure") == found.is_insecure
    assert ("", "", "") == (found.token_file, found.tls_server_name, found.group)
    assert f"kubeconfig {REAL}/{name}.yaml" == found.origin


def test_files_are_looked_for_beside_the_kubeconfig(write, tmp_path):
    """Unless their path is absolute."""
    path = write(
        {**SERVER, "certificate-authority": "pki/ca.crt"},
        {"client-certificate": "me.crt", "client-key": "/etc/me.key", "tokenFile": "token"},
    )
    found = find_by(path)
    assert Credentials(f"{tmp_path}/pki/ca.crt", f"{tmp_path}/me.crt", "/etc/me.key") == (
        found.credentials
    )
    assert f"{tmp_path}/token" == found.token_file


def test_data_go_before_files(write):
    """As Kubernetes' own client has it."""
    path = write(
        {**SERVER, "certificate-authority": "/ca", "certificate-authority-data": encoded(CA)}
    )
    assert Credentials(ca=CA) == find_by(path).credentials


def test_a_certificate_may_have_another_name_than_the_server(write):
    """Where the server is reached by a tunnel."""
    path = write({**SERVER, "tls-server-name": "kubernetes.default"})
    assert "kubernetes.default" == find_by(path).tls_server_name


CONTEXTS = {
    "contexts": [
        {"name": "here", "context": {"cluster": "c1"}},
        {"name": "there", "context": {"cluster": "c2", "user": "u1"}},
    ],
    "clusters": [
        {"name": "c1", "cluster": {"server": "https://here"}},
        {"name": "c2", "cluster": {"server": "https://there"}},
    ],
}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("https://here:443", "")),
        ({"K8S_CURRENT_CONTEXT": "there"}, ("https://there:443", "sesame")),
        ({"CALICO_K8S_CURRENT_CONTEXT": "there"}, ("https://there:443", "sesame")),
    ],
)
def test_the_context_is_the_current_one_or_the_one_that_is_named(write, environ, expected):
    """A context may be without a user."""
    found = find_by(write(user={"token": "sesame"}, **CONTEXTS), environ)
    assert expected == (str(found.server), found.token)


@pytest.mark.parametrize(
    ("keys", "environ", "expected"),
    [
        ({"kubernetes": {"kubeconfig": "a"}}, {"KUBECONFIG": "b"}, "a"),
        ({"kubernetes": {"kubeconfig": "a"}}, {"CALICO_KUBECONFIG": "c"}, "c"),
        ({"kubernetes": {"kubeconfig": ""}}, {"KUBECONFIG": "b"}, "b"),
        ({}, {"KUBECONFIG": "b"}, "b"),
    ],
)
def test_the_kubeconfig_is_found_as_every_setting(write, tmp_path, keys, environ, expected):
    """A CALICO_ variable beats the netconf, which beats the plain variable."""
    for name in "abc":
        write({"server": f"https://{name}"}, name=name)
    keys = {k: {"kubeconfig": v["kubeconfig"] and str(tmp_path / "a")} for k, v in keys.items()}
    environ = {name: str(tmp_path / value) for name, value in environ.items()}
    assert expected == find(environ, **keys).server.host


KUBERNETES = {"k8s_api_root": "https://kubernetes"}
POLICY = {"k8s_api_root": "https://policy:6443/api/v1/"}


@pytest.mark.parametrize(
    ("keys", "environ", "expected"),
    [
        ({"kubernetes": KUBERNETES, "policy": POLICY}, {}, "https://kubernetes:443"),
        ({"policy": POLICY}, {"K8S_API_ENDPOINT": "https://environ"}, "https://policy:6443"),
        ({}, {"K8S_API_ENDPOINT": "https://environ/k8s/c1/"}, "https://environ:443/k8s/c1"),
        (
            {"kubernetes": KUBERNETES},
            {"CALICO_K8S_API_ENDPOINT": "http://forced:1"},
            "http://forced:1",
        ),
    ],
)
def test_a_server_may_be_named_alone(keys, environ, expected):
    """In four places, in this order."""
    found = find(environ, **keys)
    assert expected == str(found.server)
    assert (Credentials(), "", "") == (found.credentials, found.token, found.token_file)


def test_single_settings_go_before_the_kubeconfig(write):
    """Each on its own."""
    path = write(
        {**SERVER, "certificate-authority-data": encoded(CA), "tls-server-name": "other"},
        {
            "client-certificate-data": encoded(CERT),
            "client-key-data": encoded(KEY),
            "tokenFile": "/rotating",
        },
    )
    found = find_by(
        path,
        k8s_api_root="https://10.0.0.9",
        k8s_auth_token="sesame",
        k8s_client_certificate="/cert",
        k8s_client_key="/key",
        k8s_certificate_authority="/ca",
    )
    assert ApiServer("https", "10.0.0.9", 443) == found.server
    assert Credentials("/ca", "/cert", "/key") == found.credentials
    assert ("sesame", "", "") == (found.token, found.token_file, found.tls_server_name)


def test_the_environment_has_all_but_the_token(write):
    """As Calico's client."""
    environ = {
        "K8S_API_ENDPOINT": "https://10.0.0.9",
        "K8S_CERT_FILE": "/cert",
        "K8S_KEY_FILE": "/key",
        "K8S_CA_FILE": "/ca",
        "K8S_API_TOKEN": "unheard",
        "CALICO_API_GROUP": "projectcalico.org/v3",
    }
    found = find(environ)
    assert Credentials("/ca", "/cert", "/key") == found.credentials
    assert ("", "projectcalico.org/v3") == (found.token, found.group)


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("False", False), ("0", False)]
)
def test_verification_is_turned_off_by_a_truth_of_go(write, text, expected):
    """Which takes the kubeconfig's CA away with it."""
    path = write({**SERVER, "certificate-authority-data": encoded(CA)})
    found = find_by(path, {"K8S_INSECURE_SKIP_TLS_VERIFY": text})
    assert (expected, "" if expected else CA) == (found.is_insecure, found.credentials.ca)


@pytest.mark.parametrize("said", ["netconf", "environment"])
def test_the_group_of_the_resources_can_be_said(said):
    """Else it is asked for."""
    group = "crd.projectcalico.org/v1"
    keys = {"calico_api_group": group} if said == "netconf" else {}
    environ = {} if keys else {"CALICO_API_GROUP": group}
    assert group == find(environ, kubernetes=KUBERNETES, **keys).group
    assert find({}, kubernetes=KUBERNETES).group == ""


def test_a_kubeconfig_in_json_is_one(tmp_path):
    """JSON is YAML."""
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(yaml.safe_load((REAL / "calico.yaml").read_text()), indent=4))
    assert "https://10.96.0.1:443" == str(find_by(str(path)).server)


class InPod:
    """The environment and the files of a pod."""

    def __init__(self, monkeypatch, tmp_path, files=("token", "ca.crt")):
        self.folder = tmp_path / "pod"
        self.folder.mkdir()
        for file in files:
            (self.folder / file).write_text(file)
        monkeypatch.setattr(kubernetes_settings, "SERVICE_ACCOUNT", str(self.folder))
        self.environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_in_a_pod_its_own_files_serve(monkeypatch, tmp_path):
    """The token's file is named, since the token rotates."""
    pod = InPod(monkeypatch, tmp_path)
    found = find(pod.environ)
    assert ApiServer("https", "10.96.0.1", 443) == found.server
    assert (f"{pod.folder}/token", "") == (found.token_file, found.token)
    assert Credentials(f"{pod.folder}/ca.crt") == found.credentials


def test_in_a_pod_the_server_may_have_an_ipv6_address(monkeypatch, tmp_path):
    """Without brackets in its variable."""
    pod = InPod(monkeypatch, tmp_path)
    found = find({**pod.environ, "KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert "https://[fd00::1]:443" == str(found.server)


def test_what_is_said_goes_before_the_files_of_the_pod(monkeypatch, tmp_path):
    """And the pod's token is not shown to another server."""
    pod = InPod(monkeypatch, tmp_path)
    found = find({**pod.environ, "K8S_API_ENDPOINT": "https://10.0.0.9"})
    assert ("10.0.0.9", "") == (found.server.host, found.token_file)


@pytest.mark.parametrize("missing", ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "token"])
def test_without_all_of_it_we_are_in_no_pod(monkeypatch, tmp_path, missing):
    """Then there is no API server."""
    pod = InPod(monkeypatch, tmp_path, {"token", "ca.crt"} - {missing})
    assert find({k: v for k, v in pod.environ.items() if k != missing}) is None


def test_nothing_said_is_nothing_known():
    """Credentials alone lead nowhere."""
    assert find(policy={"k8s_auth_token": "sesame"}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://10.0.0.1", ApiServer("https", "10.0.0.1", 443)),
        ("HTTP://host", ApiServer("http", "host", 80)),
        ("10.0.0.1:6443", ApiServer("https", "10.0.0.1", 6443)),
        ("https://[fd00::1]", ApiServer("https", "fd00::1", 443)),
        ("https://[fd00::1]:6443/", ApiServer("https", "fd00::1", 6443)),
        (
            "https://rancher/k8s/clusters/c-1/",
            ApiServer("https", "rancher", 443, "/k8s/clusters/c-1"),
        ),
    ],
)
def test_a_server_is_a_url_of_which_much_may_be_left_out(text, expected):
    """Port, path and scheme."""
    assert expected == parse_api_server(text)
    assert Endpoint(expected.scheme, expected.host, expected.port) == expected.endpoint
    assert expected == parse_api_server(str(expected))


@pytest.mark.parametrize(
    "text",
    [
        *("", "https://", "ftp://host", "https://user:secret@host", "https://host?x=1"),
        *("https://host/a b", "https://host/ä", "https://ho st", "https://host:x", "fd00::1"),
        "https://host/\r\nX: y",
    ],
)
def test_what_is_no_server_is_told_without_repeating_it(text):
    """There may be a password in it."""
    with pytest.raises(ValueError, match=r"^(it|an|its|there) ") as raised:
        parse_api_server(text)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("token", "scheme"), [("sesame", "https"), ("", "http")])
def test_a_token_does_not_go_in_the_clear_unasked(token, scheme):
    """A server without a scheme is taken for one with TLS as soon as there is something secret."""
    found = find(policy={"k8s_api_root": "host:8080", "k8s_auth_token": token})
    assert scheme == found.server.scheme


MISTAKES = [
    ({}, None, {"current-context": ""}, '{} has no "current-context"'),
    ({}, None, {"current-context": "gone"}, 'context "gone" does not exist in {}'),
    ({}, None, {"contexts": 7}, 'context "here" does not exist in {}'),
    ({}, None, {"clusters": []}, 'cluster "c1" does not exist in {}'),
    ({}, None, {"users": None}, 'user "u1" does not exist in {}'),
    ("text", None, {}, 'cluster "c1" of {} is not a mapping, but of type string'),
    (
        {"server": 5},
        None,
        {},
        '"server" of cluster "c1" of {} must be a text, but is of type number',
    ),
    ({"server": "ftp://x"}, None, {}, '"server" of cluster "c1" of {} is "ftp://x": '),
    (
        {"server": "https://u:secret@x"},
        None,
        {},
        '"server" of cluster "c1" of {} is not shown, as it may hold a password: ',
    ),
    (
        {**SERVER, "certificate-authority-data": "c2VjcmV0!"},
        None,
        {},
        '"certificate-authority-data" of cluster "c1" of {} is not base64',
    ),
    (
        {**SERVER, "insecure-skip-tls-verify": "yes!"},
        None,
        {},
        '"insecure-skip-tls-verify" of cluster "c1" of {} must be true or false',
    ),
    (
        {**SERVER, "insecure-skip-tls-verify": True, "certificate-authority": "/ca"},
        None,
        {},
        '"insecure-skip-tls-verify" of cluster "c1" of {} is true, but there is a CA',
    ),
    (SERVER, {"token": "sec\nret"}, {}, '"token" of user "u1" of {} is not a token'),
    (SERVER, {"token": 1234}, {}, '"token" of user "u1" of {} must be a text'),
    (
        SERVER,
        {"client-certificate": "/cert"},
        {},
        '"client-certificate" of user "u1" of {} is set, but there is no client key',
    ),
    (
        SERVER,
        {"client-key-data": encoded(KEY)},
        {},
        '"client-key-data" of user "u1" of {} is set, but there is no client certificate',
    ),
]


@pytest.mark.parametrize(("cluster", "user", "head", "expected"), MISTAKES)
def test_a_mistake_in_a_kubeconfig_is_told_by_file_and_key(write, cluster, user, head, expected):
    """And without anything that is secret."""
    path = write(cluster, user, **head)
    with pytest.raises(NetconfError) as raised:
        find_by(path)
    assert raised.value.msg.startswith(expected.format(f"kubeconfig {path}"))
    assert "secret" not in f"{raised.value.msg}{raised.value.details}"
    assert "sec\nret" not in raised.value.msg


@pytest.mark.parametrize(
    ("cluster", "user", "key"),
    [
        ({**SERVER, "proxy-url": "http://proxy"}, {}, "proxy-url"),
        (SERVER, {"username": "u", "password": "secret"}, "username"),
        (SERVER, {"token": "sesame", "as": "other"}, "as"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(write, cluster, user, key):
    """Going on without it would be another user, or another way."""
    with pytest.raises(UnsupportedError, match=f'^"{key}" of .* is set') as raised:
        find_by(write(cluster, user))
    assert "secret" not in raised.value.msg


@pytest.mark.parametrize(
    ("keys", "environ", "error", "expected"),
    [
        (
            {"kubernetes": {"kubeconfig": "/nowhere/at/all"}},
            {},
            FileUnreadable,
            "cannot read kubeconfig /nowhere/at/all: No such file",
        ),
        ({}, {"KUBECONFIG": "/"}, FileUnreadable, "cannot read kubeconfig /: Is a directory"),
        (
            {"policy": {"k8s_api_root": "ftp://x"}},
            {},
            NetconfError,
            '"policy.k8s_api_root" is "ftp:',
        ),
        ({}, {"K8S_API_ENDPOINT": "ftp://x"}, EnvironmentInvalid, 'K8S_API_ENDPOINT is "ftp://x"'),
        (
            {"kubernetes": KUBERNETES, "calico_api_group": "v7"},
            {},
            NetconfError,
            '"calico_api_group" is "v7"',
        ),
        (
            {"kubernetes": KUBERNETES},
            {"K8S_INSECURE_SKIP_TLS_VERIFY": "maybe"},
            EnvironmentInvalid,
            'K8S_INSECURE_SKIP_TLS_VERIFY is "maybe"',
        ),
        (
            {"kubernetes": KUBERNETES, "policy": {"k8s_client_key": KEY}},
            {},
            NetconfError,
            '"policy.k8s_client_key" holds a PEM text',
        ),
        (
            {"kubernetes": KUBERNETES, "policy": {"k8s_auth_token": "a b"}},
            {},
            NetconfError,
            '"policy.k8s_auth_token" is not a token',
        ),
        (
            {"kubernetes": KUBERNETES},
            {"K8S_CERT_FILE": "/cert"},
            EnvironmentInvalid,
            "K8S_CERT_FILE is set, but there is no client key",
        ),
    ],
)
def test_a_mistake_elsewhere_is_told_by_its_name(keys, environ, error, expected):
    """With the error of who said it."""
    with pytest.raises(CniIpamError) as raised:
        find(environ, **keys)
    assert error is type(raised.value)
    assert raised.value.msg.startswith(expected)
    assert "KEY" not in raised.value.msg


def test_a_removal_does_without_half_a_pair():
    """The server may let us in by our token, and by nothing else will it ever."""
    policy = {"k8s_client_certificate": "/cert", "k8s_auth_token": "sesame"}
    found = find(kubernetes=KUBERNETES, policy=policy, for_removal=True)
    assert (Credentials(), "sesame") == (found.credentials, found.token)


def test_no_secret_is_shown():
    """By traces and failing tests."""
    server = ApiServer("https", "10.0.0.1", 443)
    credentials = Credentials(key="secret-key")
    shown = repr(KubernetesSettings(server, credentials, "secret-token", "/token"))
    assert "secret" not in shown
    assert "https://10.0.0.1:443" in shown
