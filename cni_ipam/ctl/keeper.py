"""Who looks after a node's routes: reads what is recorded and what the kernel has, and mends.

Whatever is changed is decided and done under the host's lock, on records and routes that were read
under it, so that no ADD or DEL of the node comes in between.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_ipam.ctl.watch import Follower, Reading
from cni_ipam.datastore import keys
from cni_ipam.datastore.port import Range
from cni_ipam.errors import RouteError
from cni_ipam.ipam.query import read_host
from cni_ipam.lean.lock import HostLock
from cni_ipam.routes.events import RouteEvents
from cni_ipam.routes.judgement import OK
from cni_ipam.routes.reconcile import list_pods, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from cni_ipam.core.address import Cidr
    from cni_ipam.core.host import Allocation, HostRecords
    from cni_ipam.ctl.networks import NodeSettings
    from cni_ipam.ctl.session import Session
    from cni_ipam.datastore.port import Entry
    from cni_ipam.routes.judgement import Change, Judgement, KernelRoute
    from cni_ipam.routes.plan import FoundRoute
    from cni_ipam.routes.table import RouteTable

INTERVAL_SECONDS = 30.0
"""How often the kernel's routes are looked at where nothing tells of a change."""
LASTING_SECONDS = 5.0
"""How long something must be wrong until it is told: a pod that starts lacks its route, too."""


@dataclass(frozen=True)
class Mended:
    """The records, what was judged by them, what was changed, and what the kernel refused."""

    records: HostRecords
    judgements: list[Judgement]
    done: list[Change]
    errors: list[RouteError]


class Keeper:
    """Looks after the routes of one node, in the network namespace of the caller; `find_node` says
    how, and gives the same object until that has changed."""

    def __init__(self, find_node: Callable[[], NodeSettings], session: Session) -> None:
        self.node = find_node()
        self._find_node = find_node
        self._session = session
        self._table = _open_table(self.node)
        self._verified: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def refresh(self) -> NodeSettings:
        """Work by the newest settings from now on. Raises what finding them raises."""
        node = self._find_node()
        if node is not self.node:
            self._table.close()
            self.node, self._table, self._verified = node, _open_table(node), None
        return node

    def read_records(self) -> HostRecords:
        """What the datastore says of the node. Raises what reading raises, and DatastoreUnavailable
        if there is none: one that was never made says nothing about the routes that are there."""
        self._session.require_datastore()
        return read_host(self._session.store, self.node.name)

    def require_answer(self) -> None:
        """Raises what reading raises, if the datastore cannot be read now."""
        self._session.require_datastore()
        self._session.store.read([Range(keys.CONFIG)])

    def look(self, records: HostRecords) -> list[Judgement]:
        """Judge the kernel's routes; nothing is changed. Raises RouteError.

        Where the pods' interfaces are is asked again only after something about their routes has
        changed since all was well."""
        node = self.node
        found = self._table.read()
        pods = list_pods(records, node.routed_networks) if node.routes.host else []
        state = _state(pods, found)
        devices = None
        if state != self._verified:
            devices = self._table.find_devices({pod.address for pod in pods}) if pods else {}
        judged = reconcile(
            records,
            node.routes,
            found,
            devices,
            node.routed_networks,
            unheld=node.unheld_networks,
            known=node.known_networks,
        )
        addresses = {pod.address.host_cidr for pod in pods}
        if all(one.state == OK for one in judged if one.route.cidr in addresses):
            self._verified = state
        return judged

    def mend(self) -> Mended:
        """Judge anew and make the changes, under the host's lock.

        Raises LockTimeout, and what reading and `refresh` raise; then nothing was changed."""
        while True:
            node = self.refresh()
            with HostLock(node.lock_file, node.lock_timeout_seconds):
                # A network may have come while the lock was waited for, and have pods by now.
                if self.refresh() is node:
                    return self._mend()

    def _mend(self) -> Mended:
        records = self.read_records()
        judged = self.look(records)
        done, errors = [], []
        for change in list_changes(judged):
            try:
                self._table.apply(change)
            except RouteError as error:
                errors.append(error)
            else:
                done.append(change)
        return Mended(records, judged, done, errors)


class KeptRoutes(Follower):
    """Mends the routes of a node whenever its records or the kernel's routes have changed."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._records = Reading(keeper.read_records)
        self._places: frozenset[Cidr] = frozenset()
        self._refused: list[str] = []
        self._troubles: dict[str, float] = {}
        self._events = RouteEvents(self._matters)
        prefixes = (keys.HOST_AFFINITIES, keys.BLOCKS)
        super().__init__("routes", prefixes, source=self._events, interval_seconds=INTERVAL_SECONDS)

    def close(self) -> None:
        """Hear no more of the kernel."""
        self._events.close()

    def concerns(self, change: Entry | str) -> bool:
        """Whether the node has or had a part in a record."""
        return concerns(change, self._keeper.node.name, self._records.latest)

    def note_change(self) -> None:
        """See Follower."""
        self._records.note_change()

    def follow(self) -> list[str]:
        """One line for each change, and for what cannot be mended."""
        former = self._keeper.node
        if self._keeper.refresh() is not former:
            self._records.note_change()
        if not self._records.is_due:
            self._keeper.require_answer()
        judged = self._keeper.look(self._records.get())
        lines, refused = [], []
        if list_changes(judged):
            mended = self._keeper.mend()
            self._records.latest, judged = mended.records, mended.judgements
            lines = [change.when_done for change in mended.done]
            refused = [error.msg for error in mended.errors]
        lines += [text for text in refused if text not in self._refused]
        self._refused = refused
        self._places = frozenset([one.route.cidr for one in judged])
        return lines + self._find_lasting(judged)

    def _matters(self, route: FoundRoute) -> bool:
        """Whether news of a route is about one of ours, or about the place of one."""
        settings = self._keeper.node.routes
        ours = route.proto == settings.proto or route.cidr in self._places
        return ours and route.table == settings.table

    def _find_lasting(self, judged: Collection[Judgement]) -> list[str]:
        """What has been wrong for a while and no change mends, each thing once."""
        now = time.monotonic()
        texts = [f"{one.state}: {one.text}" for one in judged if one.text and not one.changes]
        self._troubles = {text: self._troubles.get(text, now) for text in texts}
        lasting = [t for t, since in self._troubles.items() if now - since >= LASTING_SECONDS]
        self._troubles |= dict.fromkeys(lasting, math.inf)
        if any(since < math.inf for since in self._troubles.values()):
            self.due_at = min(self.due_at, now + LASTING_SECONDS)
        return lasting


def _open_table(node: NodeSettings) -> RouteTable:
    # pyroute2 takes a quarter of a second, which other commands need not pay.
    from cni_ipam.routes.table import RouteTable

    return RouteTable(node.routes)


def list_changes(judged: Collection[Judgement]) -> list[Change]:
    """All changes, in their order."""
    return [change for one in judged for change in one.changes]


def concerns(change: Entry | str, host: str, known: HostRecords | None) -> bool:
    """Whether a changed record can matter for the routes of `host`, given what was known.

    What names the host in its value matters, and what the host had a part in so far."""
    key = change if isinstance(change, str) else change.key
    named = keys.find_affinity(key)
    if named is not None:
        return named[1] == host
    block = keys.find_block(key)
    if known is None or block is None or block in known.blocks:
        return True
    return not isinstance(change, str) and host in change.value


def _state(pods: list[Allocation], found: list[KernelRoute]) -> object:
    """Everything that the verdict on the pods' host routes rests on, but for their interfaces."""
    places = {pod.address.host_cidr for pod in pods}
    return frozenset(places), frozenset([route for route in found if route.cidr in places])
