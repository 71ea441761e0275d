"""The commands on the datastore as a whole: lock, unlock, upgrade; and the versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cni_ipam import __version__
from cni_ipam.ctl.records import change_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.errors import Conflict, NotFound, OperatorError

if TYPE_CHECKING:
    from cni_ipam.ctl.resources import Resource
    from cni_ipam.ctl.session import Session
    from cni_ipam.datastore.port import Datastore


def lock(context: typer.Context) -> None:
    """No pod gets an address until the datastore is unlocked; releases work."""
    session: Session = context.obj
    set_ready(session.store, ready=False, now=session.now, seed=session.seed())
    print("Datastore locked.")


def unlock(context: typer.Context) -> None:
    """Pods get addresses again."""
    session: Session = context.obj
    set_ready(session.store, ready=True, now=session.now, seed=session.seed())
    print("Datastore unlocked.")


def upgrade(context: typer.Context) -> None:
    """Bring the datastore's schema to this program's version; older programs then refuse it."""
    session: Session = context.obj
    store = session.store
    if not isinstance(store, SqliteDatastore):
        raise OperatorError("this datastore has no schema of ours to upgrade")
    former, current = store.upgrade()
    if former == current:
        print(f"The datastore has schema version {current} already.")
    else:
        print(f"Upgraded the datastore from schema version {former} to {current}.")


def version(context: typer.Context) -> None:
    """Show the versions of this program and of the cluster."""
    session: Session = context.obj
    print(f"Client Version:    v{__version__}")
    print("Git commit:        unknown")
    entries = session.store.read([Range(keys.CLUSTER_INFORMATION)])[0]
    spec = codec.decode_document(entries[0]).get("spec") if entries else None
    spec = spec if isinstance(spec, dict) else {}
    print(f"Cluster Version:   {spec.get('calicoVersion') or 'unknown'}")
    print(f"Cluster Type:      {spec.get('clusterType') or 'unknown'}")


def set_ready(store: Datastore, *, ready: bool, now: int, seed: bytes) -> None:
    """ClusterInformation says whether the datastore is ready; it is made if there is none."""
    kind = get_kind("clusterinfo")

    def change(stored: Resource) -> Resource:
        return {**stored, "spec": {**stored["spec"], "datastoreReady": ready}}

    try:
        change_record(store, kind, "default", change)
    except NotFound:
        spec = {"clusterGUID": codec.new_guid("cluster", seed), "datastoreReady": ready}
        value = codec.new_resource(kind.name, "default", spec, now, seed)
        try:
            store.commit([Write(keys.CLUSTER_INFORMATION, value, ABSENT)])
        except Conflict:
            change_record(store, kind, "default", change)
