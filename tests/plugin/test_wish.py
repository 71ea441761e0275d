"""Who asks, and what for: which source is asked, in which order, and how seldom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni_ipam.cni.netconf import parse_netconf
from cni_ipam.cni.request import Request
from cni_ipam.core.address import parse_address
from cni_ipam.errors import DatastoreUnavailable, NetconfError, TryAgainLater, Unauthorized
from cni_ipam.lean.lock import HostLock
from cni_ipam.plugin.context import Context
from cni_ipam.plugin.main import serve
from cni_ipam.plugin.wish import find_asked, make_wish

PREFIX = "cni.projectcalico.org/"
POD_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"
ALL_KINDS = {"ipFamilies": '["IPv4"]', "ipv4pools": '["pool2"]'}
POOLS = [
    {"name": "pool1", "spec": {"cidr": "10.1.0.0/24"}},
    {"name": "pool2", "spec": {"cidr": "10.2.0.0/24"}},
    {"name": "pool6", "spec": {"cidr": "fd00::/64"}},
]


class Cluster:
    """A stand-in for the API server that keeps a record of what it was asked."""

    def __init__(self, pod: dict[str, Any] | None, namespace: dict[str, Any] | None) -> None:
        self.objects = {"pod": pod, "namespace": namespace}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.look = lambda: None

    def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        return self._get("pod", f"pod {namespace}/{name}")

    def get_namespace(self, name: str) -> dict[str, Any]:
        return self._get("namespace", f"namespace {name}")

    def _get(self, kind: str, request: str) -> dict[str, Any]:
        self.asked.append(request)
        self.look()
        found = self.objects[kind]
        if self.error is not None or found is None:
            raise self.error or TryAgainLater("not found")
        return found


def made(*, uid: str = "u1", labels: Any = None, **annotations: str) -> dict[str, Any]:
    """An object of the API server with these annotations."""
    texts = {PREFIX + key: text for key, text in annotations.items()}
    return {"metadata": {"uid": uid, "labels": labels, "annotations": texts}}


class Node:
    """The plugin on a file of its own, beside the cluster."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.lock_file = str(folder / "lock")

    def netconf(self, called_as: str, **keys: Any) -> bytes:
        """A configuration for the program; without routes, as it needs no root then."""
        conf = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "ptp",
            "ipam": {"type": called_as},
            "nodename": "node1",
            "datastore_type": "sqlite",
            "sqlite_path": str(self.folder / "ipam.db"),
            "ipam_lock_file": self.lock_file,
            "default_pools": POOLS,
            "routes": {"host": False, "blackhole": False},
            **keys,
        }
        return json.dumps(conf).encode()

    def context(self, args: str = POD_ARGS, called_as: str = "cni-ipam", **keys: Any) -> Context:
        """The context of an ADD."""
        stdin = self.netconf(called_as, **keys)
        request = Request("ADD", "c1", "/nowhere", "eth0", args, "/nowhere", stdin)
        return Context(request, parse_netconf(request, called_as, {}))

    def call(
        self, verb: str, args: str = POD_ARGS, called_as: str = "cni-ipam", **keys: Any
    ) -> tuple[dict[str, Any], int]:
        """What one call of the plugin prints."""
        environ = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/nowhere",
            "CNI_PATH": "/nowhere",
            "CNI_ARGS": args,
        }
        stdin = self.netconf(called_as, **keys)
        text, status = serve(environ, called_as, lambda: stdin)
        return (json.loads(text) if text else {}), status


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with a pod and a namespace that ask for nothing; the plugin is told of it."""
    cluster = Cluster(made(), made())
    monkeypatch.setattr(Context, "api", lambda _: cluster)
    return cluster


def passed(**annotations: str) -> dict[str, Any]:
    """The runtime's own word on the pod's annotations."""
    texts = {PREFIX + key: text for key, text in annotations.items()}
    return {"io.kubernetes.cri.pod-annotations": texts}


def texts_of(answer: dict[str, Any]) -> list[str]:
    return [entry["address"] for entry in answer["ips"]]


def test_without_an_api_server_the_netconf_says_all(node):
    """The pod's name alone asks nobody."""
    ipam = {"type": "cni-ipam", "assign_ipv6": "true", "ipv4_pools": ["pool1"]}
    asked = find_asked(node.context(ipam=ipam))
    assert ((4, 6), {4: ("pool1",), 6: ()}, ()) == (asked.families, asked.pools, asked.fixed)
    assert asked.namespace_labels is None


def test_without_a_pod_nobody_is_asked(node, cluster):
    """A container that no Kubernetes started."""
    find_asked(node.context(args=""))
    assert [] == cluster.asked


def test_pod_and_namespace_are_read_once(node, cluster):
    """Each in one request, first the pod."""
    find_asked(node.context())
    assert ["pod shop/web", "namespace shop"] == cluster.asked


def test_the_runtimes_word_saves_the_request_for_the_pod(node, cluster):
    """Even if it is that there are no annotations."""
    find_asked(node.context(runtimeConfig=passed()))
    assert ["namespace shop"] == cluster.asked


def test_the_runtimes_word_counts_without_an_api_server(node):
    """A kubelet on a single node with its addresses in a file."""
    asked = find_asked(node.context(runtimeConfig=passed(**ALL_KINDS)))
    assert ((4,), ("pool2",)) == (asked.families, asked.pools[4])


def test_the_namespace_is_not_read_where_the_pod_says_all(node, cluster):
    """Nothing of it could count."""
    cluster.objects["pod"] = made(**ALL_KINDS)
    find_asked(node.context())
    assert ["pod shop/web"] == cluster.asked


@pytest.mark.parametrize(
    "conf", [{"called_as": "calico-ipam", "type": "calico"}, {"policy": {"type": "none"}}]
)
def test_nothing_is_read_where_annotations_are_not_heeded(node, cluster, conf):
    """Behind Calico's main plugin stdin is final; another policy has no annotations."""
    cluster.objects = {"pod": made(ipv4pools="{"), "namespace": made(ipv4pools="{")}
    asked = find_asked(node.context(**conf))
    assert ([], {4: (), 6: ()}) == (cluster.asked, asked.pools)


def test_pod_over_namespace_over_netconf(node, cluster):
    """Each kind on its own."""
    cluster.objects = {
        "pod": made(ipv4pools='["pod4"]'),
        "namespace": made(ipv4pools='["ns4"]', ipv6pools='["ns6"]'),
    }
    ipam = {"ipv4_pools": ["conf4"], "ipv6_pools": ["conf6"], "assign_ipv6": "true"}
    asked = find_asked(node.context(ipam={"type": "cni-ipam", **ipam}))
    assert ((4, 6), {4: ("pod4",), 6: ("ns6",)}) == (asked.families, asked.pools)


def test_an_empty_list_overrides_the_netconf(node, cluster):
    """Any pool that selects the node, then."""
    cluster.objects["namespace"] = made(ipv4pools="[]")
    asked = find_asked(node.context(ipam={"type": "cni-ipam", "ipv4_pools": ["conf4"]}))
    assert () == asked.pools[4]


@pytest.mark.parametrize("called_as", ["cni-ipam", "calico-ipam"])
def test_fixed_addresses_of_a_pod_are_all_that_it_gets(node, cluster, called_as):
    """Whatever families the network has, and whatever CNI_ARGS ask for."""
    cluster.objects["pod"] = made(ipAddrs='["10.1.0.9","fd00::9"]')
    context = node.context(args=f"IP=10.2.0.7;{POD_ARGS}", called_as=called_as)
    wish = make_wish(context, find_asked(context))
    fixed = (parse_address("10.1.0.9"), parse_address("fd00::9"))
    assert (fixed, {}) == (wish.fixed, wish.counts)
    assert ["pod shop/web"] == cluster.asked


def test_cni_args_ask_where_the_pod_does_not(node, cluster):
    """The other family comes from a pool."""
    ipam = {"type": "cni-ipam", "assign_ipv6": "true"}
    context = node.context(args=f"IP=10.2.0.7;{POD_ARGS}", ipam=ipam)
    wish = make_wish(context, find_asked(context))
    assert ((parse_address("10.2.0.7"),), {6: 1}) == (wish.fixed, wish.counts)


@pytest.mark.parametrize("called_as", ["cni-ipam", "calico-ipam"])
def test_no_family_is_nothing_to_ask_for(node, cluster, called_as):
    """In the words with which Calico's main plugin refuses it."""
    cluster.objects["pod"] = made(ipFamilies="[]")
    answer, _ = node.call("ADD", called_as=called_as)
    assert 7 == answer["code"]
    assert "missing IP config" in answer["msg"]


def test_addresses_without_ipam_are_recorded_nowhere(node, cluster, monkeypatch):
    """The result has them; the datastore is not even opened."""
    cluster.objects["pod"] = made(ipAddrsNoIpam='["203.0.113.9"]')
    monkeypatch.setattr(Context, "store", None)
    answer, status = node.call("ADD", feature_control={"ip_addrs_no_ipam": True})
    assert (0, ["203.0.113.9/32"]) == (status, texts_of(answer))


def test_nothing_needs_to_be_recorded_for_a_del(node, cluster):
    """After an ADD without IPAM."""
    cluster.objects["pod"] = made(ipAddrsNoIpam='["203.0.113.9"]')
    feature = {"feature_control": {"ip_addrs_no_ipam": True}}
    node.call("ADD", **feature)
    assert ({}, 0) == node.call("DEL", **feature)


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_only_an_add_reads_pods_and_namespaces(node, cluster, verb):
    """What is there is in the datastore, and must go even if the API server is away."""
    result, _ = node.call("ADD")
    cluster.asked.clear()
    cluster.objects = {"pod": None, "namespace": None}
    extra = {
        "CHECK": {"prevResult": result},
        "GC": {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]},
    }
    assert ({}, 0) == node.call(verb, **extra.get(verb, {}))
    assert [] == cluster.asked


@pytest.mark.parametrize(
    ("labels", "expected"), [({"team": "a"}, "10.3."), ({"team": "b"}, "10.4."), (None, None)]
)
@pytest.mark.parametrize("called_as", ["cni-ipam", "calico-ipam"])
def test_a_namespace_selector_meets_the_namespaces_labels(
    node, cluster, called_as, labels, expected
):
    """Behind Calico's main plugin, too: it passes on annotations, not labels."""
    cluster.objects["namespace"] = made(labels=labels)
    pools = [
        {
            "name": f"of-{team}",
            "spec": {
                "cidr": cidr,
                "namespaceSelector": f"team == '{team}'",
                "allowedUses": ["Workload"],
            },
        }
        for team, cidr in (("a", "10.3.0.0/24"), ("b", "10.4.0.0/24"))
    ]
    kind = "calico" if called_as == "calico-ipam" else "ptp"
    answer, _ = node.call("ADD", called_as=called_as, type=kind, default_pools=pools)
    found = texts_of(answer)[0][:5] if "ips" in answer else None
    assert (expected, 1) == (found, cluster.asked.count("namespace shop"))


def test_labels_are_not_read_without_a_namespace_selector(node, cluster):
    """Nobody looks for one."""
    cluster.objects["pod"] = made(ipFamilies='["IPv4"]', ipv4pools="[]")
    assert 0 == node.call("ADD")[1]
    assert ["pod shop/web"] == cluster.asked


def test_labels_are_a_mapping(node, cluster):
    """Which is true before it is read, so that asking for that reads nothing."""
    cluster.objects = {"pod": made(**ALL_KINDS), "namespace": made(labels={"team": "a"})}
    labels = find_asked(node.context()).namespace_labels
    assert labels
    assert ["pod shop/web"] == cluster.asked
    assert ({"team": "a"}, 1) == ({name: labels[name] for name in labels}, len(labels))
    assert ("team" in labels, "other" in labels) == (True, False)
    assert ["pod shop/web", "namespace shop"] == cluster.asked


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("pod", "failed to get pod shop/web: "), ("namespace", "failed to get namespace shop: ")],
)
@pytest.mark.parametrize(
    "error", [Unauthorized("forbidden"), DatastoreUnavailable("no answer"), TryAgainLater("gone")]
)
def test_what_cannot_be_read_fails_the_add(node, cluster, kind, expected, error):
    """With the reason's own code, and nothing is assigned."""
    cluster.error = error
    code, reason = error.code, error.msg
    conf = {} if kind == "pod" else {"runtimeConfig": passed()}
    answer, _ = node.call("ADD", **conf)
    assert (code, expected + reason) == (answer["code"], answer["msg"])
    assert not (node.folder / "ipam.db").exists()


def test_another_pod_of_the_same_name_is_not_asked(node, cluster):
    """The pod was deleted and made anew between two calls: the runtime will be back."""
    cluster.objects["pod"] = made(uid="u2", ipv4pools='["pool2"]')
    with pytest.raises(TryAgainLater) as raised:
        find_asked(node.context(args=f"{POD_ARGS};K8S_POD_UID=u1"))
    assert (
        "pod shop/web is another one by now: the API server has UID u2, the runtime asks for u1"
    ) == raised.value.msg


@pytest.mark.parametrize("args", [POD_ARGS, f"{POD_ARGS};K8S_POD_UID=u1"])
def test_the_same_pod_is_asked(node, cluster, args):
    """Known by its UID, or taken for it where the runtime does not tell that."""
    cluster.objects["pod"] = made(uid="u1", **ALL_KINDS)
    assert ("pool2",) == find_asked(node.context(args=args)).pools[4]


def test_a_static_pod_is_known_by_its_mirror(node, cluster):
    """Its UID is the kubelet's own; the API server's copy of it has another."""
    cluster.objects["pod"] = made(uid="u2", **ALL_KINDS)
    cluster.objects["pod"]["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "u1"
    context = node.context(args=f"{POD_ARGS};K8S_POD_UID=u1")
    assert ("pool2",) == find_asked(context).pools[4]


@pytest.mark.parametrize("empty", [{}, {"metadata": None}, {"metadata": {"annotations": None}}])
def test_objects_without_annotations_ask_for_nothing(node, cluster, empty):
    """The API server leaves out what is empty."""
    cluster.objects = {"pod": empty, "namespace": empty}
    assert {4: (), 6: ()} == find_asked(node.context()).pools


def test_a_malformed_annotation_names_whose_it_is(node, cluster):
    """The pod's, by its name."""
    cluster.objects["pod"] = made(ipv4pools="pool1")
    with pytest.raises(NetconfError, match="of pod shop/web: invalid character 'p'"):
        find_asked(node.context())


def test_the_api_server_is_asked_before_the_lock_is_taken(node, cluster):
    """One that is slow must not hold up the node's other calls."""

    def look() -> None:
        with HostLock(node.lock_file, 0.01):
            pass

    cluster.look = look
    assert 0 == node.call("ADD")[1]
    assert ["pod shop/web", "namespace shop"] == cluster.asked


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("nosuch", (100, 'error parsing pool "nosuch": invalid CIDR address: nosuch')),
        ("pool1", (7, '"10.1.0.0" isn\'t a IPv6 address')),
        ("10.9.0.0/16", (7, '"10.9.0.0" isn\'t a IPv6 address')),
        ("fd00:9::/64", None),
    ],
)
def test_pools_of_a_family_that_is_not_wanted_must_be_known(node, cluster, pool, expected):
    """As in Calico, which looks the names up before it counts what is wanted."""
    cluster.objects["pod"] = made(ipv6pools=json.dumps([pool]))
    answer, _ = node.call("ADD")
    assert expected == ((answer["code"], answer["msg"]) if "code" in answer else None)
