"""Kubeconfigs with plugins, of several files, and with more of YAML than the lean program reads."""

from __future__ import annotations

import base64
import json
import os
import tempfile

import pytest
import yaml

from cni_ipam.cni import kubernetes_package
from cni_ipam.cni.fields import Fields
from cni_ipam.cni.kubernetes_settings import find_kubernetes
from cni_ipam.errors import DatastoreUnavailable, NetconfError, UnsupportedError
from cni_ipam.lean.http import Credentials

SERVER = {"server": "https://10.0.0.1:6443"}
VERSION = "client.authentication.k8s.io/v1"


def kubeconfig(user=None, cluster=SERVER, context="here"):
    return {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "c1", "user": "u1"}}],
        "clusters": [{"name": "c1", "cluster": cluster}],
        "users": [{"name": "u1", "user": user or {}}],
    }


@pytest.fixture
def write(tmp_path):
    """Write a document or a text to a file below the test's folder; its path."""

    def write(content, name="kubeconfig"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin that runs some shell code; the user that has it."""

    def plugin(code, command="./plugin", **more):
        path = tmp_path / "plugin"
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
        return {"exec": {"apiVersion": VERSION, "command": command, **more}}

    return plugin


def answer(**status):
    document = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
    return f"cat <<'END'\n{json.dumps(document)}\nEND"


def find(path, environ=None):
    return find_kubernetes(Fields((("", {"kubernetes": {"kubeconfig": path}}),)), environ or {})


def test_a_plugin_gives_the_token(write, plugin):
    """It is looked for beside the kubeconfig, wherever we are."""
    found = find(write(kubeconfig(plugin(answer(token="sesame")))))
    assert ("sesame", "", Credentials()) == (found.token, found.token_file, found.credentials)
    assert "https://10.0.0.1:6443" == str(found.server)


def test_a_plugin_gives_the_certificate(write, plugin):
    """As texts, with no file left behind."""
    before = set(os.listdir(tempfile.gettempdir()))
    status = {"clientCertificateData": "CERT\n", "clientKeyData": "KEY\n"}
    found = find(write(kubeconfig(plugin(answer(**status)))))
    assert Credentials(cert="CERT\n", key="KEY\n") == found.credentials
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if not name.startswith(("pytest", "cni"))]


def test_a_plugin_is_told_what_the_kubeconfig_says(write, plugin):
    """Arguments, variables, and the cluster if it wants that."""
    code = 'echo "$1 $REGION $KUBERNETES_EXEC_INFO" >"$(dirname "$0")/told"\n' + answer(token="t")
    user = plugin(
        code,
        args=["get-token"],
        env=[{"name": "REGION", "value": "eu"}],
        provideClusterInfo=True,
    )
    path = write(kubeconfig(user))
    find(path)
    with open(os.path.join(os.path.dirname(path), "told"), encoding="utf-8") as file:
        word, region, info = file.read().split(" ", 2)
    assert ("get-token", "eu") == (word, region)
    assert SERVER["server"] == json.loads(info)["spec"]["cluster"]["server"]


def test_what_a_plugin_gives_goes_before_a_certificate_in_files(write, plugin):
    """Both of the pair."""
    status = {"clientCertificateData": "CERT\n", "clientKeyData": "KEY\n"}
    files = {"client-certificate": "/cert", "client-key": "/key"}
    found = find(write(kubeconfig({**plugin(answer(**status)), **files})))
    assert Credentials(cert="CERT\n", key="KEY\n") == found.credentials


def test_of_two_users_of_a_name_the_first_ones_plugin_is_asked(write, plugin):
    """In several files there may be two."""
    one = write(kubeconfig(plugin(answer(token="sesame"))), "one")
    two = write(kubeconfig({"token": "unheard"}), "two")
    assert "sesame" == find(f"{one}:{two}").token


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("echo not today >&2; exit 3", "process returned 3. not today"),
        ("echo no JSON", "failed to decode process output"),
        ("echo '{}'", "malformed response"),
        (answer(), "missing token or clientCertificateData"),
        (answer(clientCertificateData="CERT"), "missing clientKeyData"),
    ],
)
def test_a_plugin_that_fails_is_told_with_what_it_says(write, plugin, code, expected):
    """And with whose it is."""
    path = write(kubeconfig(plugin(code)))
    with pytest.raises(NetconfError, match=expected) as raised:
        find(path)
    assert raised.value.msg.startswith(f'the plugin of user "u1" of kubeconfig {path} failed: ')


@pytest.mark.parametrize("provider", [{"name": "gcp"}, {"name": "azure", "config": {}}, "oidc"])
def test_a_provider_that_went_out_of_use_is_refused(write, provider):
    """Kubernetes took them away; there is nothing that could be run by hand."""
    path = write(kubeconfig({"auth-provider": provider}))
    with pytest.raises(UnsupportedError, match=r'"auth-provider" of user "u1" .* is not oidc'):
        find(path)


def test_an_issuer_that_is_away_can_come_back(write):
    """An expired token, and nobody who would give a new one."""
    claims = base64.urlsafe_b64encode(b'{"exp": 1}').decode().rstrip("=")
    issuer = {"idp-issuer-url": "http://127.0.0.1:9", "client-id": "c", "client-secret": "s"}
    config = {"id-token": f"e30.{claims}.e30", "refresh-token": "r", **issuer}
    path = write(kubeconfig({"auth-provider": {"name": "oidc", "config": config}}))
    with pytest.raises(DatastoreUnavailable, match=r'the plugin of user "u1" .* failed'):
        find(path)


def test_a_plugin_that_is_not_there_is_told(write, plugin):
    """By its name."""
    user = plugin("", command="no-such-command")
    with pytest.raises(NetconfError, match="no-such-command"):
        find(write(kubeconfig(user)))


def test_a_plugin_that_does_not_answer_is_not_waited_for(write, plugin, monkeypatch):
    """Longer than a runtime waits for us."""
    monkeypatch.setattr(kubernetes_package, "PLUGIN_SECONDS", 1)
    with pytest.raises(NetconfError, match="no answer within 1 s"):
        find(write(kubeconfig(plugin("exec sleep 20"))))


def test_of_several_files_the_first_that_says_something_counts(write):
    """Users here, clusters there; each file's paths are relative to itself."""
    one = kubeconfig({"tokenFile": "token"})
    del one["clusters"]
    two = kubeconfig({"token": "unheard"}, {**SERVER, "certificate-authority": "ca"}, "other")
    two["contexts"][0]["context"]["user"] = "nobody"
    paths = [write(one, "a/one"), "/absent/file", write(two, "b/two")]
    found = find("", {"KUBECONFIG": ":".join(paths)})
    assert "https://10.0.0.1:6443" == str(found.server)
    folders = [os.path.dirname(path) for path in paths]
    assert f"{folders[0]}/token" == found.token_file
    assert Credentials(f"{folders[2]}/ca") == found.credentials


def test_any_yaml_is_understood(write):
    """Flow style, anchors, tags, strings over several lines."""
    path = write("""
x: &server {server: "https://10.0.0.1:6443"}
current-context: !!str
  here
contexts: [{name: here, context: {cluster: c1, user: u1}}]
clusters: [{name: c1, cluster: *server}]
users:
- name: u1
  user:
    token: |
      sesame
""")
    found = find(path)
    assert ("sesame", "10.0.0.1") == (found.token, found.server.host)


def test_what_is_not_yaml_is_told_without_its_text(write):
    """The line, but not what stands there."""
    path = write("users:\n- token: sesame\n  x: : y\n")
    with pytest.raises(NetconfError) as raised:
        find(path)
    assert f"kubeconfig {path} is not YAML: see line 3" == raised.value.msg


def test_bytes_that_are_no_text_are_told(tmp_path):
    """By the file."""
    path = tmp_path / "kubeconfig"
    path.write_bytes(b"users: \xff")
    with pytest.raises(NetconfError, match=f"kubeconfig {path} is not UTF-8"):
        find(str(path))
