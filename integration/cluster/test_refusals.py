"""Pods that can have no address: they wait, an event says what to do, and when it is done they
start without help. Nothing is left of the tries that failed."""

from __future__ import annotations

from integration.cluster.node import (
    ACCOUNT,
    CONF,
    ApiNode,
    put_pool,
    read_records,
    wait_allowed,
)
from integration.cluster.own_network import (
    ANNOTATION,
    ask_for,
    becomes_empty,
    find_pod_addresses,
    granted,
    ready,
)
from integration.network import becomes_true

__all__ = ["granted", "ready"]

OURS, KUBELETS = "IPAMFailed", "FailedCreatePodSandBox"
BINDING = "cni-ipam-events"
REFUSED = {
    "unknown": ask_for(ipv4pools=["later"]),
    "malformed": {ANNOTATION + "ipv4pools": "later"},
    "full": ask_for(ipv4pools=["small"]),
    "disabled": ask_for(ipv4pools=["retired"]),
    "taken": ask_for(ipAddrs=["10.12.0.5"]),
}
ENABLED = '{"spec":{"disabled":false}}'
# What each pod's owner reads: what is wrong, and what to do about it.
TOLD = {
    "unknown": (
        'error parsing pool "later": invalid CIDR address: later',
        "no pool has that name; name another pool, or create one; pools: ",
    ),
    "malformed": (
        f'cannot read annotation "{ANNOTATION}ipv4pools" of pod default/malformed: invalid',
        'right is a JSON list of names or CIDRs of pools, such as ["pool1","10.0.0.0/16"]',
    ),
    "full": (
        "No IPs available in pools: [10.9.0.0/30]; free addresses, or name another pool; ",
        "1 in use, 3 reserved, 0 cooling, 0 free",
    ),
    "disabled": (
        "the given pool (10.11.0.0/24) does not exist, or is not enabled; ",
        f"enable pool retired (`ipamctl patch ippool retired -p '{ENABLED}'`), or name another one",
        "retired (10.11.0.0/24): disabled",
    ),
    "taken": ("10.12.0.5", "is held by pod default/second on node1"),
}


def find_events(cluster, name, reason):
    """What the events about a pod say for this reason, each once."""
    return [
        said.removeprefix(f"{reason}: ")
        for said in cluster.events(name)
        if said.startswith(f"{reason}: ")
    ]


def find_phases(cluster):
    """The state in which each refused pod's container waits."""
    return {
        found["metadata"]["name"]: [
            status["state"].get("waiting", {}).get("reason")
            for status in found["status"].get("containerStatuses", [])
        ]
        for found in cluster.list_pods("default")
        if found["metadata"]["name"] in REFUSED
    }


def mend(cluster):
    """Do what the events say, for every pod."""
    put_pool(cluster, "later", "10.10.0.0/24")
    text = ask_for(ipv4pools=["later"])
    (key,) = text
    cluster.kubectl("annotate", "--overwrite", "pod", "malformed", f"{key}={text[key]}")
    cluster.kubectl("patch", "ippool", "retired", "--type=merge", f"-p={ENABLED}")
    cluster.delete("pod", "first")
    cluster.delete("pod", "second")


def test_refused_pods_say_what_to_do_and_start_when_it_is_done(ready):
    """An unknown pool, a malformed annotation, a full pool, a disabled one, an address in use."""
    put_pool(ready, "small", "10.9.0.0/30", blockSize=30, nodeSelector="!all()")
    put_pool(ready, "fixed", "10.12.0.0/24", nodeSelector="!all()")
    put_pool(ready, "retired", "10.11.0.0/24", disabled=True)
    ready.start_pod("first", annotations=ask_for(ipv4pools=["small"]))
    ready.start_pod("second", annotations=REFUSED["taken"])
    for name in ("first", "second"):
        ready.wait_running(name)
    for name, asked in REFUSED.items():
        ready.start_pod(name, annotations=asked)
    told = becomes_true(lambda: all(find_events(ready, name, OURS) for name in REFUSED))
    events = {name: find_events(ready, name, OURS) for name in REFUSED}
    assert told, events
    wrong = {
        name: said
        for name, said in events.items()
        if not all(words in text for words in TOLD[name] for text in said)
    }
    assert {} == wrong
    waiting = {name: ["ContainerCreating"] for name in REFUSED}
    assert becomes_true(lambda: waiting == find_phases(ready)), find_phases(ready)
    assert ["10.12.0.5", "10.9.0.2"] == find_pod_addresses(read_records(ready))
    assert 2 == len(read_records(ready).handles)
    mend(ready)
    for name in REFUSED:
        ready.wait_running(name)
    addresses = sorted(ready.pod_ip(name) for name in REFUSED)
    assert addresses == find_pod_addresses(read_records(ready))
    assert [] == read_records(ready).findings
    ready.delete_pods()
    assert becomes_empty(lambda: read_records(ready)), read_records(ready).findings


def test_kubectl_describe_shows_the_event(ready):
    """It looks for events by the pod's UID. The API server keeps one, however often the kubelet
    asks: two if five minutes end meanwhile."""
    ready.start_pod("described", annotations=REFUSED["unknown"])

    def is_told_again() -> bool:
        """A plugin that cannot tell within a second goes on without; the next call tries again."""
        return count_tries(ready, "described") >= 2 and bool(find_events(ready, "described", OURS))

    assert becomes_true(is_told_again), ready.events("described")
    assert len(find_events(ready, "described", OURS)) in {1, 2}
    described = ready.kubectl("describe", "pod", "described").stdout
    (line, *_) = [line for line in described.splitlines() if OURS in line]
    assert line.split()[:2] == ["Warning", OURS]
    assert 'cni-ipam  error parsing pool "later"' in line


def test_kubectl_describe_shows_the_event_of_a_runtime_that_tells_no_uid(ready, tmp_path):
    """The plugin has read the pod, and takes the UID from there."""
    ready.start_pod("untold", nodeName=None, schedulerName="nobody", annotations=REFUSED["unknown"])
    kubeconfig = ready.kubeconfig("untold", token=ready.token(ACCOUNT))
    node = ApiNode(tmp_path, ready, kubeconfig)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=untold"
    assert 100 == node.call("ADD", "c1", CNI_ARGS=args).document["code"]
    described = ready.kubectl("describe", "pod", "untold").stdout
    assert 'cni-ipam  error parsing pool "later"' in described


def test_without_the_role_there_is_no_event(ready):
    """The kubelet's own has the same words."""
    ready.kubectl("delete", "clusterrolebinding", BINDING)
    asked = {"resource": "events", "verb": "create"}
    try:
        wait_allowed(ready, ACCOUNT, asked, is_granted=False)
        ready.start_pod("ungranted", annotations=REFUSED["unknown"])
        told = becomes_true(lambda: bool(find_events(ready, "ungranted", KUBELETS)))
        assert told, ready.events("ungranted")
        assert 'error parsing pool "later"' in find_events(ready, "ungranted", KUBELETS)[0]
        assert [] == find_events(ready, "ungranted", OURS)
    finally:
        ready.kubectl("apply", "-f", str(CONF / "rbac.yaml"))
        wait_allowed(ready, ACCOUNT, asked)


def count_tries(cluster, name):
    """How often the kubelet has said that a pod's network could not be set up."""
    path = f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}"
    found = [event for event in cluster.get(path)["items"] if event["reason"] == KUBELETS]
    return sum(event.get("count") or 1 for event in found)
