"""What every verb works with: the call, its configuration, and doors that open on demand."""

from __future__ import annotations

import posix
import time

from cni_ipam.core.handle import handle_id
from cni_ipam.datastore.open import open_api, open_datastore
from cni_ipam.lean.lock import HostLock
from cni_ipam.workload.arguments import parse_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_ipam.cni.netconf import Netconf
    from cni_ipam.cni.request import Request
    from cni_ipam.core.block import Attribute
    from cni_ipam.datastore.kubernetes_client import KubernetesClient
    from cni_ipam.datastore.port import Datastore
    from cni_ipam.routes.plan import Routes


class Context:
    """One call of the plugin."""

    def __init__(self, request: Request, netconf: Netconf) -> None:
        self.request = request
        self.netconf = netconf
        self.arguments = parse_arguments(request.args, for_removal=request.command != "ADD")
        self.handle = handle_id(netconf.name, request.container_id)
        self.pod_uid = self.arguments.pod_uid
        """The runtime's word, or the API server's once the pod has been read there."""
        self._now = 0
        self._store: Datastore | None = None
        self._api: KubernetesClient | None = None
        self._routes: Routes | None = None

    @property
    def now(self) -> int:
        """Nanoseconds since the epoch, read once, at the first use. *Lock, then clock*: that is
        under the lock, so a call that waited for it does not act on an old time."""
        self._now = self._now or time.time_ns()
        return self._now

    def lock(self) -> HostLock:
        """The host's lock, to be held around every change."""
        return HostLock(self.netconf.lock_file, self.netconf.lock_timeout_seconds)

    def store(self, limit_seconds: float | None = None) -> Datastore:
        """The datastore; only ADD makes one that does not exist."""
        if self._store is None:
            self._store = open_datastore(
                self.netconf.datastore,
                create=self.request.command == "ADD",
                limit_seconds=limit_seconds,
                is_short_lived=True,
                api=self.api(limit_seconds)
                if self.netconf.datastore.kind == "kubernetes"
                else None,
            )
        return self._store

    def api(self, limit_seconds: float | None = None) -> KubernetesClient | None:
        """The API server, by one connection for records, pods and namespaces; None where none is
        configured."""
        settings = self.netconf.datastore.kubernetes
        if self._api is None and settings is not None:
            self._api = open_api(settings, limit_seconds=limit_seconds, is_short_lived=True)
        return self._api

    def routes(self) -> Routes:
        """The kernel's routes."""
        if self._routes is None:
            from cni_ipam.routes.netlink import NetlinkRoutes

            self._routes = NetlinkRoutes(self.netconf.routes)
        return self._routes

    def close(self) -> None:
        """Let go of the datastore, the API server and the kernel."""
        for door in (self._store, self._api, self._routes):
            if door is not None:
                door.close()

    def owner(self) -> dict[str, str]:
        """The owner attributes of this attachment: Calico's, and `network` and `ifname`."""
        attributes = {
            "ifname": self.request.ifname,
            "network": self.netconf.name,
            "node": self.netconf.node_name,
        }
        if self.arguments.pod is not None:
            attributes["namespace"], attributes["pod"] = self.arguments.pod
        return attributes

    def is_mine(self, owner: Attribute) -> bool:
        """Whether an allocation under this attachment's handle is meant."""
        return owner.is_on(self.netconf.node_name, self.request.ifname)

    def owners(self) -> dict[str, Callable[[Attribute], bool]]:
        """The handles that DEL releases, each with the test for what is meant under it."""
        pod = self.arguments.pod
        legacy = f"{pod[0]}.{pod[1]}" if pod else self.request.container_id
        return {legacy: self._is_legacy, self.handle: self.is_mine}

    def _is_legacy(self, owner: Attribute) -> bool:
        """Whether an allocation under the handle of Calico's old plugin is this pod's: one of ours
        names its network, and one of another pod names that pod."""
        pod = self.arguments.pod or (None, None)
        return (
            owner.get("network") is None
            and self.is_mine(owner)
            and owner.get("namespace") in (None, pod[0])
            and owner.get("pod") in (None, pod[1])
        )


def random_seed() -> bytes:
    """Sixteen random bytes, for UIDs."""
    return posix.getrandom(16)
