"""Which adapter serves which kind of datastore; each is imported only where it is chosen."""

from __future__ import annotations

from cni_ipam.errors import NetconfError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.cni.settings import DatastoreSettings
    from cni_ipam.datastore.port import Datastore

_LATER = ("etcdv3", "kubernetes")


def open_datastore(
    settings: DatastoreSettings,
    *,
    create: bool = True,
    busy_timeout_seconds: float = 10.0,
    is_short_lived: bool = False,
) -> Datastore:
    """The datastore that `settings` name. Nothing is read or made before its first verb.

    With `create` false a store that does not exist is never made. Raises UnsupportedError for a
    kind that has no adapter in this release, NetconfError for one that nobody knows."""
    if settings.kind == "sqlite":
        from cni_ipam.datastore.sqlite import SqliteDatastore

        return SqliteDatastore(
            settings.sqlite_path, busy_timeout_seconds, create=create, keeps_log=is_short_lived
        )
    if settings.kind in _LATER:
        raise UnsupportedError(
            f'"datastore_type" is "{settings.kind}", which this release does not serve',
            'use "sqlite"; "sqlite_path" names its file',
        )
    raise NetconfError(f"unknown datastore type: {settings.kind[:60]}", "use sqlite")
