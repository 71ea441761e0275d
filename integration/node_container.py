"""A container of our image, for tests without a cluster: the scripts of packaging/, a small bundle,
a folder that stands for the node, and an API server that gives tokens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme
import yaml

from integration.network import ROOT
from integration.test_install import make_bundle

# Long before the kubelet would kill what does not end.
END_SECONDS = 20
LIST = "etc/cni/net.d/10-cni-ipam.conflist"
KUBECONFIG = "etc/cni/net.d/cni-ipam-kubeconfig"
NAME = "var/lib/cni-ipam/nodename"
# What the scripts call to write or to learn something.
COMMANDS = [
    *("base64", "cat", "chmod", "chown", "cmp", "cp", "curl", "diff", "find", "jq", "ln", "mkdir"),
    *("mktemp", "mv", "readlink", "rm", "rmdir", "sed", "stat", "sync"),
]


class ApiServer:
    """Gives the tokens token-1, token-2, … to whoever has the pod's own token."""

    def __init__(self, host="127.0.0.1"):
        self.status = 201
        self.given = 0
        self.requests = []
        self.authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host).configure_cert(context)
        self._server = ThreadingHTTPServer((host, 0), self._make_handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _make_handler(self):
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.requests.append((self.path, self.headers["Authorization"], body))
                status = api.status  # which a test may change meanwhile
                answer = {"kind": "Status", "message": "no such luck"}
                if status == 201:
                    api.given += 1
                    answer = {"kind": "TokenRequest", "status": {"token": f"token-{api.given}"}}
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        return Handler


class Pod:
    """A container of the DaemonSet: the image's files, the node's folders, the pod's own token."""

    def __init__(self, folder, api, host="127.0.0.1"):
        self.image = folder / "image"
        self.node = folder / "the node"
        self.list = folder / "given" / "network.conflist"
        self.list.parent.mkdir()
        (self.image / "packaging").mkdir(parents=True)
        (self.image / "conf").mkdir()
        for script in ("install.sh", "install-node.sh"):
            shutil.copy(ROOT / "packaging" / script, self.image / "packaging")
        shutil.copy(ROOT / "conf" / "30-kubernetes.conflist", self.image / "conf")
        make_bundle(self.image, "a" * 12)
        account = folder / "account"
        account.mkdir()
        (account / "token").write_text("own-token")
        (account / "namespace").write_text("kube-system")
        api.authority.cert_pem.write_to_path(account / "ca.crt")
        self.node.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOST": str(self.node),
            "NODE_NAME": "node1",
            "NETWORK_LIST": str(self.list),
            "OWN_SERVICE_ACCOUNT_FOLDER": str(account),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": str(api.port),
        }

    def start(self, verb, **environment):
        return subprocess.Popen(
            ["bash", self.image / "packaging" / "install-node.sh", verb],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, verb, **environment):
        process = self.start(verb, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(verb, process.returncode, out, err)

    def run(self, verb, **environment):
        done = self.call(verb, **environment)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def running(self, verb, **environment):
        """A container that runs until SIGTERM, which it obeys."""
        process = self.start(verb, **environment)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=END_SECONDS)

    def read_token(self):
        config = yaml.safe_load((self.node / KUBECONFIG).read_text())
        return config["users"][0]["user"]["token"]

    def call_plugin(self):
        """What the plugin's link leads to once the node's folder is its root."""
        target = os.readlink(self.node / "opt/cni/bin/cni-ipam")
        return subprocess.run(
            [f"{self.node}{target}"], check=True, capture_output=True, text=True
        ).stdout.strip()


def find_session(leader):
    """The processes of a session that have not ended, by name."""
    done = subprocess.run(
        ["ps", "-o", "stat=,comm=,pid=", "--sid", str(leader)],
        check=False,
        capture_output=True,
        text=True,
    )
    found = (line.split() for line in done.stdout.splitlines())
    return {name: pid for state, name, *_, pid in found if not state.startswith("Z")}


def write_tool(tools, name, script):
    (tools / name).write_text(f"#!/bin/bash\n{script}\n")
    (tools / name).chmod(0o755)
