"""Who asks, and what for: one ADD's wish, from netconf, CNI_ARGS and annotations.

Pod over namespace over netconf over default, each kind on its own. Annotations come from the
runtime, if the network list asks it for them (`"capabilities":
{"io.kubernetes.cri.pod-annotations": true}`), else from the API server. The namespace is read only
if it can matter: for its annotations where the pod's leave something open, for its labels where a
pool has a namespaceSelector. Nothing is read where Calico's main plugin has read it before us.
"""

from __future__ import annotations

from cni_ipam.core.moment import go_time
from cni_ipam.errors import CniIpamError, NetconfError, TryAgainLater
from cni_ipam.ipam.labels import LazyLabels
from cni_ipam.ipam.wish import Wish
from cni_ipam.lean.record import record
from cni_ipam.plugin.context import random_seed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from cni_ipam.cni.fields import Json
    from cni_ipam.cni.netconf import Netconf
    from cni_ipam.core.address import Address
    from cni_ipam.plugin.context import Context
    from cni_ipam.workload.annotations import Annotated

    class Workloads(Protocol):
        """The objects of the API server that say who asks.

        Both raise a CniIpamError that tells why; what was read is added to its message here."""

        def get_pod(self, namespace: str, name: str) -> Json:
            """The Pod as JSON."""

        def get_namespace(self, name: str) -> Json:
            """The Namespace as JSON."""


_MIRROR = "kubernetes.io/config.mirror"


@record
class Asked:
    """What is asked for, from all sources.

    With `is_exact` it is `fixed` and nothing else, whatever families the network has.
    `without_ipam` are addresses that are answered with and recorded nowhere."""

    families: tuple[int, ...]
    pools: Mapping[int, tuple[str, ...]]
    fixed: tuple[Address, ...]
    is_exact: bool = False
    without_ipam: tuple[Address, ...] = ()
    namespace_labels: Mapping[str, str] | None = None


def find_asked(context: Context) -> Asked:
    """What this call asks for. Pod and namespace are read here, so before the host's lock.

    Raises NetconfError for a malformed annotation, TryAgainLater for another pod of the same
    name, and what reading a pod or a namespace raises."""
    netconf = context.netconf
    namespace = _find_namespace(context)
    # Which pools ask for labels is known under the host's lock only, so they may be read under it.
    labels = None if namespace is None else LazyLabels(lambda: namespace.texts("labels"))
    families = tuple(v for v, on in ((4, netconf.ipv4), (6, netconf.ipv6)) if on)
    pools = {4: netconf.ipv4_pools, 6: netconf.ipv6_pools}
    said = _find_annotated(context, namespace) if netconf.heeds_annotations else None
    if said is None:
        return Asked(families, pools, _requested(context), namespace_labels=labels)
    return Asked(
        families=families if said.families is None else said.families,
        pools={**pools, **said.pools},
        fixed=said.fixed or _requested(context),
        is_exact=bool(said.fixed),
        without_ipam=said.without_ipam,
        namespace_labels=labels,
    )


def make_wish(context: Context, asked: Asked) -> Wish:
    """The engine's wish for what is asked. Raises NetconfError if that is nothing, or of a family
    that the network does not have."""
    netconf = context.netconf
    embedded = netconf.datastore.kind == "sqlite"
    makes_pools = embedded or netconf.create_default_pools
    default_pools = netconf.default_pools if makes_pools else ()
    return Wish(
        host=netconf.node_name,
        handle=context.handle,
        owner={**context.owner(), "timestamp": go_time(context.now)},
        now=context.now,
        seed=random_seed(),
        counts=_counts(netconf, asked),
        pools=asked.pools,
        fixed=asked.fixed,
        namespace_labels=asked.namespace_labels,
        gateway=netconf.gateway,
        default_pools=tuple((pool.name, pool.spec) for pool in default_pools),
        makes_node=embedded,
        heeds_ready=netconf.called_as != "calico-ipam",
        is_frugal=netconf.datastore.kind == "kubernetes",
    )


class Namespace:
    """The pod's namespace, read from the API server at most once, when it is needed."""

    def __init__(self, workloads: Workloads, name: str) -> None:
        self.name = name
        self._workloads = workloads
        self._metadata: Json | None = None

    def texts(self, field: str) -> Json:
        """Its `labels` or `annotations`."""
        if self._metadata is None:
            try:
                self._metadata = _metadata(self._workloads.get_namespace(self.name))
            except CniIpamError as error:
                error.msg = f"failed to get namespace {self.name}: {error.msg}"
                raise
        return self._metadata.get(field) or {}


def _requested(context: Context) -> tuple[Address, ...]:
    """The requested addresses: the netconf's, else the `IP=` of CNI_ARGS (CNI's conventions)."""
    if context.netconf.requested:
        return context.netconf.requested
    return () if context.arguments.ip is None else (context.arguments.ip,)


def _counts(netconf: Netconf, asked: Asked) -> dict[int, int]:
    """How many of each family are wanted beside the fixed addresses. Raises NetconfError."""
    if not asked.fixed and not asked.families:
        raise NetconfError(
            "missing IP config: both families are switched off for this network",
            'set ipam.assign_ipv4 or ipam.assign_ipv6 to "true", unless an annotation '
            "cni.projectcalico.org/ipFamilies says otherwise",
        )
    if asked.is_exact:
        return {}
    is_calico = netconf.called_as == "calico-ipam"
    for address in asked.fixed:
        if address.version not in asked.families and not is_calico:
            raise NetconfError(
                f"address {address} is requested, but IPv{address.version} is off for this network",
                f'set ipam.assign_ipv{address.version} to "true"',
            )
    if is_calico and asked.fixed:
        # Calico's main plugin asks once for each fixed address, and wants nothing else then.
        return {}
    fixed = [address.version for address in asked.fixed]
    return {version: 1 for version in asked.families if version not in fixed}


def _find_namespace(context: Context) -> Namespace | None:
    """The pod's namespace, unread; None if there is no pod or no API server to ask."""
    if context.arguments.pod is None:
        return None
    workloads = context.api()
    return None if workloads is None else Namespace(workloads, context.arguments.pod[0])


def _find_annotated(context: Context, namespace: Namespace | None) -> Annotated | None:
    """What annotations ask for; None if there is nobody to tell of any."""
    place, texts = _find_pod_annotations(context)
    if texts is None:
        return None
    # Most calls of a node without Kubernetes end above, and need none of this.
    from cni_ipam.workload.annotations import Annotations, parse_namespace, parse_pod

    said = parse_pod(
        Annotations(place, texts),
        ip_addrs_no_ipam=context.netconf.ip_addrs_no_ipam,
        floating_ips=context.netconf.floating_ips,
    )
    if namespace is None or not said.leaves_open:
        return said
    found = Annotations(f"namespace {namespace.name}", namespace.texts("annotations"))
    return parse_namespace(found, said)


def _find_pod_annotations(context: Context) -> tuple[str, Json | None]:
    """The pod's name for messages, and its annotations: the runtime's, else the API server's."""
    pod = context.arguments.pod
    place = f"pod {pod[0]}/{pod[1]}" if pod else "the pod"
    passed = context.netconf.pod_annotations
    workloads = context.api() if passed is None and pod else None
    if workloads is None or pod is None:
        return place, passed
    try:
        metadata = _metadata(workloads.get_pod(*pod))
    except CniIpamError as error:
        error.msg = f"failed to get {place}: {error.msg}"
        raise
    annotations = metadata.get("annotations") or {}
    uid, mirrored = metadata.get("uid"), annotations.get(_MIRROR)
    _require_same(context.arguments.pod_uid, uid, mirrored, place)
    # Events about a static pod have its own UID, and that is by which kubectl looks for them.
    context.pod_uid = context.pod_uid or mirrored or uid or ""
    return place, annotations


def _require_same(asked: str, found: object, mirrored: object, place: str) -> None:
    """Raises TryAgainLater if the API server's pod is not the runtime's but another one of its
    name. A static pod has a UID of its own, which its mirror in the API server tells."""
    if asked and found and asked not in (found, mirrored):
        raise TryAgainLater(
            f"{place} is another one by now: the API server has UID {found}, "
            f"the runtime asks for {asked}",
            "a pod of that name was made anew; the runtime will ask for it, too",
        )


def _metadata(found: Json) -> Json:
    metadata: Json = found.get("metadata") or {}
    return metadata
