"""The bundle's lean program hands over to the full one where a kubeconfig has a plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from integration.network import BUNDLE
from integration.program import Program

TOKEN = "sesame"
VERSION = "client.authentication.k8s.io/v1"
ANSWER = {"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": TOKEN}}
NO_ROUTES = {"routes": {"host": False, "blackhole": False}, "datastore_type": "sqlite"}
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pod-1"


class Node:
    """A node whose datastore is a file, and a kubeconfig for the annotations."""

    def __init__(self, folder, name="cni-ipam", server="https://127.0.0.1:1", ca=""):
        self.folder = folder
        self.cluster = {"server": server, **({"certificate-authority": ca} if ca else {})}
        self.program = Program(folder, name=name)
        self.plugin = folder / "plugin"
        self.write_plugin(f"echo '{json.dumps(ANSWER)}'")
        self.users = {
            "token": {"token": TOKEN},
            "exec": {"exec": {"apiVersion": VERSION, "command": "./plugin"}},
        }

    def write_plugin(self, code):
        """What the plugin does from now on."""
        self.plugin.write_text(f"#!/bin/sh\necho asked >>{self.folder}/asked\n{code}\n")
        self.plugin.chmod(0o755)

    def was_asked(self):
        """How often the plugin ran."""
        path = self.folder / "asked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def call(self, verb, user, **keys):
        """A call with the kubeconfig of a user that has a token, or a plugin."""
        return self.program.call(verb, stdin=self.netconf(user, **keys))

    def netconf(self, user, **keys):
        path = self.folder / f"kubeconfig-{user}"
        document = {
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": self.cluster}],
            "users": [{"name": "u", "user": self.users[user]}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(json.dumps(document))
        kubernetes = {"kubeconfig": str(path)}
        return self.program.netconf(ipam=NO_ROUTES, kubernetes=kubernetes, **keys)


@pytest.fixture(params=["cni-ipam", "calico-ipam"])
def node(request, tmp_path):
    """Under either name of the plugin."""
    return Node(tmp_path, request.param)


def test_the_result_is_the_same_by_either_program(node):
    """To the byte, and under the name that we were called by."""
    results = {}
    for user in ("token", "exec"):
        results[user] = node.call("ADD", user)
        assert 0 == results[user].status, results[user].stdout
        assert 0 == node.call("CHECK", user).status
        shutil.rmtree(node.program.database.parent)
    assert results["token"].stdout == results["exec"].stdout
    has_gateway = "gateway" in results["exec"].document["ips"][0]
    assert has_gateway == node.program.path.endswith("/cni-ipam")
    assert node.was_asked()


def test_an_error_is_the_same_by_either_program(node):
    """A result or one error on stdout, and the same status."""
    answers = [node.call("ADD", user, args={"cni": {"ips": ["192.0.2.1"]}}) for user in node.users]
    assert 1 == len({(answer.status, answer.stdout) for answer in answers})
    assert 1 == answers[0].status


def test_a_long_configuration_goes_along(node):
    """A pipe would not hold it."""
    answer = node.call("ADD", "exec", ballast="x" * 2_000_000)
    assert 0 == answer.status, answer.stdout


def executions_of(node, verb, user, trace):
    """The programs that one call executes, each with its process."""
    # What else it tells, of signals and ends, could break a line in two.
    quiet = ("-qq", "-e", "signal=none")
    wrapper = ("strace", "-f", *quiet, "-e", "trace=execve", "-o", str(trace))
    answer = node.program.call(verb, stdin=node.netconf(user), wrapper=wrapper)
    assert 0 == answer.status, answer.stdout
    lines = re.findall(r'^(\d+) +execve\("([^"]+)", .* = 0$', trace.read_text(), re.MULTILINE)
    return [(os.path.basename(path), process) for process, path in lines]


def test_one_process_becomes_the_other_and_asks_the_plugin_once(node, tmp_path):
    """No shell, no child of our own, and no way back."""
    lean, full, plugin, *others = executions_of(node, "ADD", "exec", tmp_path / "trace")
    assert ("ipamctl", "plugin") == (full[0], plugin[0])
    assert lean[1] == full[1] != plugin[1]
    assert [] == others


@pytest.mark.parametrize(("verb", "user"), [("ADD", "token"), ("DEL", "exec")])
def test_the_lean_program_goes_on_alone_where_it_can(node, tmp_path, verb, user):
    """It reads tokens itself, and a DEL from another datastore needs no API server."""
    name = os.path.basename(node.program.path)
    assert [name] == [path for path, _ in executions_of(node, verb, user, tmp_path / "trace")]


def test_a_plugin_that_fails_stops_the_call(node):
    """With its own words, and nothing is assigned."""
    node.write_plugin("echo 'no session, log in first' >&2; exit 1")
    answer = node.call("ADD", "exec")
    assert (1, 7) == (answer.status, answer.document["code"])
    assert "no session, log in first" in answer.document["msg"]
    assert not node.program.database.exists()


def test_the_lean_program_alone_says_what_is_missing(node, tmp_path):
    """Where somebody copied it without the rest."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copytree(BUNDLE / "_lean", alone / "_lean", symlinks=True)
    shutil.copy(BUNDLE / "cni-ipam", alone / "cni-ipam")
    node.program.path = str(alone / "cni-ipam")
    answer = node.call("ADD", "exec")
    assert (1, 2) == (answer.status, answer.document["code"])
    assert 'user "u" of kubeconfig' in answer.document["msg"]
    assert f"ipamctl of the bundle belongs beside {alone}/cni-ipam" in answer.document["details"]
    assert 0 == node.call("ADD", "token").status


class ApiServer(ThreadingHTTPServer):
    """Serves one pod and its namespace to whoever has the token."""

    daemon_threads = True

    def __init__(self, authority):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        is_known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        annotations = {"cni.projectcalico.org/ipAddrs": '["10.77.0.42"]'}
        pod = {"name": "pod-1", "namespace": "shop", "annotations": annotations}
        objects = {
            "/api/v1/namespaces/shop": {"kind": "Namespace", "metadata": {"name": "shop"}},
            "/api/v1/namespaces/shop/pods/pod-1": {"kind": "Pod", "metadata": pod},
        }
        known = objects.get(self.path.partition("?")[0]) if is_known else None
        body = json.dumps(known or {"kind": "Status", "message": "no"}).encode()
        self.send_response(200 if known else 404 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def api_server(tmp_path):
    """The server, and the path of the CA that it is proved by."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ApiServer(authority)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("user", ["token", "exec"])
def test_the_api_server_knows_us_by_the_plugins_token(tmp_path, api_server, user):
    """So the pod's annotation is read, by either program."""
    url = f"https://127.0.0.1:{api_server.server_port}"
    node = Node(tmp_path, server=url, ca="ca.pem")
    answer = node.program.call("ADD", stdin=node.netconf(user), CNI_ARGS=ARGS)
    assert "10.77.0.42" == answer.address
    assert "/api/v1/namespaces/shop/pods/pod-1" in api_server.asked
