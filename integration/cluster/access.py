"""Access to the cluster's API: users and their tokens, kubectl, requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from integration.cluster import parts
from integration.cluster.authority import ADMIN, make_kubeconfig

if TYPE_CHECKING:
    from typing import Any

    from integration.cluster.authority import Authority
    from integration.cluster.machine import Machine

    Json = dict[str, Any]
    Done = subprocess.CompletedProcess[str]

REQUEST_SECONDS = 30.0


class Access:
    """What a client of the API server can do; `folder` gets kubeconfigs."""

    server = parts.SERVER

    def __init__(self, machine: Machine, authority: Authority, folder: Path) -> None:
        self.machine = machine
        self.authority = authority
        self.folder = folder
        self._kubeconfigs: dict[str, Path] = {}

    @property
    def ca(self) -> Path:
        """The CA that signed the API server's certificate; `authority.foreign_ca` did not."""
        return self.authority.ca

    def token(self, user: str, *, seconds: float | None = None) -> str:
        """A token of one of `users`, or of `system:serviceaccount:NAMESPACE:NAME`, which must be
        there: one for an hour, or signed here for so many `seconds`, to within ten."""
        if user in self.authority.static_tokens:
            return self.authority.static_tokens[user]
        namespace, name = user.removeprefix("system:serviceaccount:").split(":")
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        if seconds is not None:
            uid = self.get(path)["metadata"]["uid"]
            return self.authority.sign_account_token(namespace, name, uid, seconds)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        _, answer = self.request("POST", f"{path}/token", {**body, "spec": {}})
        token: str = answer["status"]["token"]
        return token

    def kubeconfig(
        self,
        user: str = ADMIN,
        *,
        token: str = "",
        token_file: Path | None = None,
        certificate: bool = False,
        server: str = "",
        ca: Path | None = None,
    ) -> Path:
        """A kubeconfig of `user`, with its token, another one, a file of it, or a certificate."""
        content: Json
        if certificate:
            cert, key = self.authority.issue_client_certificate(user)
            content = {"client-certificate": str(cert), "client-key": str(key)}
        elif token_file:
            content = {"tokenFile": str(token_file)}
        else:
            content = {"token": token or self.token(user)}
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f"kubeconfig-{user}-")
        path = Path(name)
        os.close(handle)
        path.write_text(make_kubeconfig(server or self.server, ca or self.ca, content))
        return path

    def kubectl(self, *argv: str, user: str = ADMIN, check: bool = True, stdin: str = "") -> Done:
        """Run kubectl as `user`; raises AssertionError with its words unless `check=False`."""
        if user not in self._kubeconfigs:
            self._kubeconfigs[user] = self.kubeconfig(user)
        options = [
            f"--kubeconfig={self._kubeconfigs[user]}",
            f"--cache-dir={self.folder / 'kubectl'}",
        ]
        # --net alone: kubectl reads files where the test has them.
        inside = self.machine.entrance("--net")
        command = [*inside, str(parts.PROGRAMS / "kubectl"), *options, *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
        assert not check or done.returncode == 0, f"kubectl {argv}: {done.stderr}{done.stdout}"
        return done

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        token: str = "",
        content_type: str = "application/json",
    ) -> tuple[int, Json]:
        """The API server's answer to the administrator, or to whom `token` belongs."""
        host = urlsplit(self.server).netloc
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection(host, timeout=REQUEST_SECONDS, context=context)
        headers = {
            "Authorization": f"Bearer {token or self.token(ADMIN)}",
            "Content-Type": content_type,
        }
        with contextlib.closing(connection):
            with self.machine.network():
                connection.connect()
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            text = response.read()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, json.loads(text) if is_json else {"text": text.decode()}

    def get(self, path: str) -> Json:
        """The object, or the list, at `path`; raises AssertionError if it is not there."""
        status, answer = self.request("GET", path)
        assert status == http.client.OK, f"GET {path}: {status} {answer}"
        return answer
