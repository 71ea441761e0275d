"""The API server for the race on Kubernetes: etcd, kube-apiserver with TLS and RBAC, our CRDs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING

from integration.cluster import parts
from integration.cluster.authority import ADMIN, Authority, make_kubeconfig
from integration.daemon import Daemon
from integration.etcd.member import find_free_ports
from integration.network import ROOT, becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from integration.etcd.servers import Cluster

    Json = dict[str, Any]

HOST = "127.0.0.1"
PATIENCE_SECONDS = 60.0


class ApiServer:
    """A running one; `kubeconfig` is that of a user who may do everything."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(
        self, *words: str, document: Json | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, with an object on its stdin."""
        return subprocess.run(
            [str(parts.PROGRAMS / "kubectl"), f"--kubeconfig={self.kubeconfig}", *words],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            check=False,
        )

    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.kubectl("get", "--raw", "/readyz").stdout == "ok"

    def apply(self, document: Json) -> None:
        """Make an object."""
        done = self.kubectl("create", "-f", "-", document=document)
        assert done.returncode == 0, done.stderr

    def knows_pools(self) -> bool:
        """Whether the definitions have taken effect."""
        return self.kubectl("get", "ippools.crd.projectcalico.org").returncode == 0


@contextlib.contextmanager
def start_api_server(folder: Path, etcd: Cluster) -> Iterator[ApiServer]:
    """Ready inside, with our definitions; ends at exit."""
    authority = Authority(folder / "authority", [HOST], "none", [])
    (port,) = find_free_ports(HOST, 1)
    url = f"https://{HOST}:{port}"
    kubeconfig = folder / "kubeconfig"
    token = {"token": authority.static_tokens[ADMIN]}
    kubeconfig.write_text(make_kubeconfig(url, authority.ca, token))
    command = parts.apiserver_command(authority)
    own = {"--etcd-servers": etcd.endpoints[0], "--bind-address": HOST, "--secure-port": str(port)}
    command = [
        f"{name}={own.get(name, value)}" if equals else name
        for name, equals, value in (word.partition("=") for word in command)
    ]
    command.append(f"--cert-dir={folder / 'own-certificates'}")
    process = Daemon("api-server", folder / "api-server.log")
    process.spawn(command)
    try:
        server = ApiServer(kubeconfig)
        assert becomes_true(server.is_ready, PATIENCE_SECONDS), "the API server does not serve"
        done = server.kubectl("apply", "-f", str(ROOT / "conf" / "crds"))
        assert done.returncode == 0, done.stderr
        assert becomes_true(server.knows_pools, PATIENCE_SECONDS), "no definitions"
        yield server
    finally:
        process.kill()
