"""Which adapter serves which kind of datastore; each is imported only where it is chosen."""

from __future__ import annotations

from cni_ipam.errors import NetconfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.cni.kubernetes_settings import KubernetesSettings
    from cni_ipam.cni.settings import DatastoreSettings
    from cni_ipam.datastore.kubernetes_client import KubernetesClient
    from cni_ipam.datastore.port import Datastore


BUSY_SECONDS = 10.0


def open_datastore(
    settings: DatastoreSettings,
    *,
    create: bool = True,
    limit_seconds: float | None = None,
    is_short_lived: bool = False,
    api: KubernetesClient | None = None,
) -> Datastore:
    """The datastore that `settings` name. Nothing is read or made before its first verb.

    With `create` false a store that does not exist is never made. `limit_seconds` is how long to
    wait for one that is busy or away, by default as long as a runtime does. `api` is a client that
    is there already. Raises NetconfError for a kind that nobody knows or that isn't configured."""
    if settings.kind == "sqlite":
        from cni_ipam.datastore.sqlite import SqliteDatastore

        limit_seconds = BUSY_SECONDS if limit_seconds is None else limit_seconds
        return SqliteDatastore(
            settings.sqlite_path, limit_seconds, create=create, keeps_log=is_short_lived
        )
    if settings.etcd is not None:
        from cni_ipam.datastore.etcd import EtcdDatastore
        from cni_ipam.datastore.etcd_client import BUDGET_SECONDS

        return EtcdDatastore(
            settings.etcd.endpoints,
            settings.etcd.credentials,
            settings.etcd.username,
            settings.etcd.password,
            budget_seconds=BUDGET_SECONDS if limit_seconds is None else limit_seconds,
            is_short_lived=is_short_lived,
        )
    if settings.kind == "kubernetes" and settings.kubernetes is not None:
        from cni_ipam.datastore.kubernetes import KubernetesDatastore

        if api is None:
            api = open_api(
                settings.kubernetes, limit_seconds=limit_seconds, is_short_lived=is_short_lived
            )
        return KubernetesDatastore(api, settings.kubernetes.group)
    if settings.kind == "kubernetes":
        raise NetconfError(
            "invalid configuration: no configuration has been provided",
            '"datastore_type" is "kubernetes": name a kubeconfig in kubernetes.kubeconfig',
        )
    raise NetconfError(
        f"unknown datastore type: {settings.kind[:60]}", "use sqlite, etcdv3 or kubernetes"
    )


def open_api(
    settings: KubernetesSettings,
    *,
    limit_seconds: float | None = None,
    is_short_lived: bool = False,
) -> KubernetesClient:
    """A client of the API server; nothing is asked of it as yet."""
    from cni_ipam.datastore.kubernetes_client import KubernetesClient

    return KubernetesClient(settings, budget_seconds=limit_seconds, is_short_lived=is_short_lived)
