"""The event at a pod whose ADD failed because of pools or annotations: the CNI error's own words.

For who has the role (`cni-ipam-events` in conf/rbac.yaml); without it there is none. An event is a
courtesy: whatever becomes of it, the answer to the runtime is the same, and at most a second later.
"""

from __future__ import annotations

from binascii import crc32

from cni_ipam.core.moment import SECOND, rfc3339
from cni_ipam.datastore.kubernetes_client import LostAnswer, Refused, quote_name
from cni_ipam.datastore.open import open_api
from cni_ipam.errors import CniIpamError
from cni_ipam.lean import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_ipam.plugin.context import Context

REASON = "IPAMFailed"
COMPONENT = "cni-ipam"
LIMIT_SECONDS = 1.0
# client-go lets a source repeat itself about one object once in five minutes; the kubelet asks
# again every few seconds, and its own event counts that.
PERIOD_SECONDS = 300
# The limit of events.k8s.io, through which the same events are read.
_MESSAGE_BYTES = 1024
_POD_NAME_LENGTH = 230


def tell(context: Context, error: CniIpamError) -> None:
    """Make the event, unless the pod or the API server is unknown, or the same words have been
    said of the pod within `PERIOD_SECONDS`. Whatever the API server makes of it is logged alone."""
    pod, access = context.arguments.pod, context.netconf.datastore.kubernetes
    if pod is None or access is None:
        return
    try:
        api = open_api(access, limit_seconds=LIMIT_SECONDS, is_short_lived=True)
        try:
            path = f"/api/v1/namespaces/{quote_name(pod[0])}/events"
            api.ask("POST", path, make_event(context, pod, error))
        finally:
            api.close()
    except (CniIpamError, Refused, LostAnswer) as failure:
        log.debug("event.not_made", pod=f"{pod[0]}/{pod[1]}", cause=failure)


def make_event(context: Context, pod: tuple[str, str], error: CniIpamError) -> dict[str, Any]:
    """The event as an object of core/v1.

    Its name is made of what it says and when, so that the API server itself refuses a repetition:
    one request, and no verb but `create`."""
    namespace, name = pod
    uid = context.pod_uid
    same = crc32(f"{namespace}/{name}/{uid}/{error.code}/{error.msg}".encode("utf-8", "replace"))
    period = context.now // (PERIOD_SECONDS * SECOND)
    pod_reference = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name}
    if uid:
        pod_reference["uid"] = uid
    moment = rfc3339(context.now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{name[:_POD_NAME_LENGTH].rstrip('-.')}.{same:08x}{period:08x}",
            "namespace": namespace,
        },
        "involvedObject": pod_reference,
        "type": "Warning",
        "reason": REASON,
        "message": _find_message(error),
        "source": {"component": COMPONENT, "host": context.netconf.node_name},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _find_message(error: CniIpamError) -> str:
    """The error in one text, as the CNI library prints it."""
    text = f"{error.msg}; {error.details}" if error.details else error.msg
    data = text.encode("utf-8", "replace")
    if len(data) <= _MESSAGE_BYTES:
        return data.decode()
    return data[: _MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "..."
