"""What every command works with: the datastore, the clock, chance, and the kernel's routes."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cni_ipam.ctl.locate import locate, require_own_datastore
from cni_ipam.ctl.networks import (
    find_node_settings,
    get_version,
    read_networks,
    require_own_name,
)
from cni_ipam.datastore.open import open_datastore
from cni_ipam.errors import DatastoreUnavailable, OperatorError, RouteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cni_ipam.core.address import Cidr
    from cni_ipam.ctl.locate import Place, Wishes
    from cni_ipam.ctl.networks import NodeSettings
    from cni_ipam.datastore.port import Datastore


class Session:
    """One call of ipamctl; the datastore is looked for when a command first wants it."""

    def __init__(self, wishes: Wishes, environ: Mapping[str, str]) -> None:
        self._wishes = wishes
        self._environ = environ
        self._place: Place | None = None
        self._store: Datastore | None = None
        self.limit_seconds: float | None = None
        """How long to wait for a datastore that is away; None for as long as a runtime does."""

    @property
    def place(self) -> Place:
        """Where the datastore is. Raises as `locate`."""
        # Another thread may call `forget` meanwhile.
        place = self._place
        if place is None:
            place = self._place = locate(self._wishes, self._environ)
        return place

    @property
    def store(self) -> Datastore:
        """The datastore; raises as `locate` and `open_datastore`."""
        if self._store is None:
            self._store = self.open_another()
        return self._store

    def open_another(self) -> Datastore:
        """The datastore once more, for a thread of its own; the caller closes it. Raises as
        `store`."""
        return open_datastore(self.place.datastore, limit_seconds=self.limit_seconds)

    def require_datastore(self) -> None:
        """Raises DatastoreUnavailable if the datastore is a file that was never made."""
        datastore = self.place.datastore
        if datastore.kind == "sqlite" and not os.path.exists(datastore.sqlite_path):
            raise DatastoreUnavailable(
                f"there is no datastore {datastore.sqlite_path}", "the first ADD makes it"
            )

    def find_node(self, name: str | None = None) -> NodeSettings:
        """How routes are looked after on a node, by default this one. Raises as
        `find_node_settings`."""
        networks = read_networks(self._wishes, self._environ)
        return find_node_settings(networks, self.place.datastore, name)

    def find_this_node(self, name: str | None) -> NodeSettings:
        """The same for this node, which the command line may call by `name`.

        Raises OperatorError if its networks call it otherwise, do not agree on name or datastore,
        name another datastore than that of this session, or cannot all be read: by another's
        records the routes of running pods would be left over. What flags say goes before."""
        networks = read_networks(self._wishes, self._environ)
        if networks.unreadable:
            raise OperatorError(
                f"which routes this node needs cannot be told: {networks.unreadable}",
                "mend that network list, or take it away",
            )
        require_own_name(networks, name)
        if not self._wishes.name_datastore:
            require_own_datastore(networks, self.place.datastore)
        return find_node_settings(networks, self.place.datastore, name)

    def get_networks_version(self) -> object:
        """Something that differs after the network lists have changed."""
        return get_version(self._wishes, self._environ)

    @property
    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def seed(self) -> bytes:
        """Sixteen random bytes, for a UID."""
        return os.urandom(16)

    def wait(self, seconds: float) -> None:
        """Let some time pass."""
        time.sleep(seconds)

    def close(self) -> None:
        """Let go of the datastore."""
        if self._store is not None:
            self._store.close()

    def forget(self) -> None:
        """Look for the datastore anew at the next wish: tokens and certificates have their day, and
        a kubeconfig is replaced."""
        self.close()
        self._place, self._store = None, None

    def remove_blackholes(self, lost: Iterable[Cidr]) -> None:
        """This node's blackholes for blocks that it lost are gone afterwards. What the kernel
        refuses is told: the blocks are lost all the same."""
        lost = set(lost)
        if not lost:
            return
        from cni_ipam.routes.rtnl import RtnlRoutes

        try:
            routes = RtnlRoutes(self.place.routes)
            try:
                for cidr in routes.list_blackholes():
                    if cidr in lost:
                        routes.remove_blackhole(cidr)
            finally:
                routes.close()
        except (RouteError, OSError) as error:
            print(f"the blackhole routes of lost blocks remain: {error}", file=sys.stderr)


class LiveNode:
    """How this node's routes are looked after now: its network lists may change at any time."""

    def __init__(
        self, session: Session, name: str | None, lock_timeout_seconds: float | None = None
    ) -> None:
        self.when_changed: Callable[[], None] = lambda: None
        """Called after other settings or another datastore were found."""
        self._session = session
        self._name = name
        self._lock_timeout_seconds = lock_timeout_seconds
        self._version: object = session.get_networks_version()
        self._settings = self._find()

    def get(self) -> NodeSettings:
        """The same object until the lists change. Raises as `find_this_node`, and does so again
        until there are lists by which it can be told."""
        version = self._session.get_networks_version()
        if version != self._version:
            self._version = None
            self._session.forget()
            self._settings = self._find()
            self._version = version
            self.when_changed()
        return self._settings

    def _find(self) -> NodeSettings:
        settings = self._session.find_this_node(self._name)
        if self._lock_timeout_seconds is None:
            return settings
        return replace(settings, lock_timeout_seconds=self._lock_timeout_seconds)
