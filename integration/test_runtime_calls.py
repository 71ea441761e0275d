"""What a runtime may do besides ADD and DEL in their order: wishes, failures, GC and STATUS."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from integration.network import find_obstacle, pings

if TYPE_CHECKING:
    from typing import Any

    from integration.netns import Lab, Namespace
    from integration.network import Json, Node

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

POOL = {"name": "pool", "spec": {"cidr": "10.88.0.0/16", "blockSize": 26}}
ONE_ADDRESS = {"name": "pool", "spec": {"cidr": "10.88.0.0/30", "blockSize": 30}}


@pytest.fixture
def node(node: Node) -> Node:
    """A node with a network of ptp, and a pool."""
    node.write_network(network())
    return node


def network(plugin: str = "ptp", pool: Json = POOL, version: str = "1.1.0", **keys: Any) -> Json:
    """A network list with one pool; `keys` go into the `ipam` object."""
    interface: dict[str, Any] = {"type": plugin, "capabilities": {"ips": True}}
    interface["ipam"] = {"type": "cni-ipam", "default_pools": [pool]} | keys
    if plugin == "bridge":
        interface |= {"bridge": "cni0", "isGateway": True}
    return {"cniVersion": version, "name": "net", "plugins": [interface, {"type": "cni-ipam"}]}


# Wishes


@pytest.mark.parametrize(
    "wish",
    [
        {"CNI_ARGS": "IP=10.88.0.77"},
        {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.88.0.77"},
        {"CAP_ARGS": '{"ips": ["10.88.0.77"]}'},
        {"CAP_ARGS": '{"ips": ["10.88.0.77/16"]}'},
        {"CAP_ARGS": '{"ips": ["10.88.0.77"]}', "CNI_ARGS": "IP=10.88.0.99"},
    ],
    ids=["IP=", "IP= among others", "ips", "ips with a mask", "ips before IP="],
)
def test_requested_address_is_given(node: Node, pod: Namespace, wish: dict[str, str]) -> None:
    """By CNI_ARGS or by the capability `ips`, which comes first; and the pod is reached by it."""
    result = node.add("net", pod, **wish)

    assert ["10.88.0.77/16"] == [ip["address"] for ip in result["ips"]]
    assert pings(node.namespace, "10.88.0.77")


@pytest.mark.parametrize("address", ["10.88.0.0", "10.88.0.1", "10.88.255.255"])
def test_kept_back_address_is_refused(node: Node, pod: Namespace, address: str) -> None:
    """Not even on request does a pod get the subnet's name, its gateway or its broadcast."""
    done = node.cnitool("add", "net", pod, CNI_ARGS=f"IP={address}")

    assert 1 == done.returncode
    assert address in done.stderr
    assert {} == node.read_store().allocations


def test_each_interface_is_an_attachment_of_its_own(node: Node, pod: Namespace) -> None:
    """One pod twice in one network: deleting the second leaves the first its address."""
    first = node.add("net", pod)["ips"][0]["address"]
    # ptp gives the pod its route to the gateway once, so the second gets another gateway.
    conf = network(gateway="10.88.0.9")
    second = json.loads(node.call_plugin("ADD", delegate_of(conf), ifname="eth1").stdout)
    node.call_plugin("DEL", delegate_of(conf), ifname="eth1")

    assert first != second["ips"][0]["address"]
    assert [first.partition("/")[0]] == list(node.read_store().allocations)


def delegate_of(conf: Json) -> Json:
    """The netconf that the interface plugin hands to its IPAM."""
    interface: Json = conf["plugins"][0]
    return {"cniVersion": conf["cniVersion"], "name": conf["name"]} | interface


# Failures


@pytest.mark.parametrize(
    "keys",
    [{"gateway": "198.51.100.1"}, {"gateway": "none"}, {"gateway": "none", "mask": "host"}],
    ids=["a gateway out of reach", "no gateway", "no subnet"],
)
def test_address_comes_back_if_the_interface_plugin_fails(
    node: Node, pod: Namespace, keys: dict[str, Any]
) -> None:
    """With such a result ptp cannot work; after the runtime's DEL nothing is left of it."""
    node.write_network(network(**keys))

    added = node.cnitool("add", "net", pod)
    deleted = node.cnitool("del", "net", pod)

    store = node.read_store()
    assert (1, 0, "") == (added.returncode, deleted.returncode, deleted.stdout)
    assert 1 == len(store.blocks)  # so it had an address
    assert ({}, []) == (store.allocations, store.findings)


def test_exhausted_pool_is_told(lab: Lab, node: Node, pod: Namespace) -> None:
    """The runtime's message has Calico's words and the numbers."""
    node.write_network(network(pool=ONE_ADDRESS))
    node.add("net", pod)

    done = node.cnitool("add", "net", lab.namespace("other"))

    assert 1 == done.returncode
    assert "10.88.0.0/30" in done.stderr
    assert ["10.88.0.2"] == list(node.read_store().allocations)


def test_pool_of_four_has_one_address(lab: Lab, node: Node, pod: Namespace) -> None:
    """It is given again to the next pod once the first is gone."""
    node.write_network(network(pool=ONE_ADDRESS))

    first = node.add("net", pod)
    node.cnitool("del", "net", pod)
    second = node.add("net", lab.namespace("other"))

    assert ["10.88.0.2/30"] * 2 == [result["ips"][0]["address"] for result in (first, second)]


# DEL


@pytest.mark.parametrize("plugin", ["ptp", "bridge"])
def test_delete_without_the_namespace(node: Node, pod: Namespace, plugin: str) -> None:
    """The pod's namespace was removed first, as after a crash of the node."""
    node.write_network(network(plugin))
    node.add("net", pod)
    pod.remove()

    done = node.cnitool("del", "net", pod)

    assert 0 == done.returncode, done.stderr
    assert {} == node.read_store().allocations
    assert [] == node.host_routes(4)


@pytest.mark.parametrize("plugin", ["ptp", "bridge"])
def test_delete_without_the_cache(node: Node, pod: Namespace, plugin: str) -> None:
    """No prevResult, for the delegate or for the chained one: the datastore tells the addresses."""
    node.write_network(network(plugin))
    node.add("net", pod)
    shutil.rmtree(node.var_lib / "cni")

    done = node.cnitool("del", "net", pod)

    assert 0 == done.returncode, done.stderr
    assert {} == node.read_store().allocations
    assert [] == node.host_routes(4)


# CHECK


def test_check_notices_a_released_address(node: Node, pod: Namespace) -> None:
    """Somebody gave the address back behind the pod's back."""
    node.add("net", pod)
    handle = next(iter(node.read_store().allocations.values())) or ""
    container = handle.partition(".")[2]
    node.call_plugin("DEL", delegate_of(network()), container=container)

    done = node.cnitool("check", "net", pod)

    assert 1 == done.returncode
    assert f"no address is recorded for eth0 of {handle}" in done.stderr


@pytest.mark.parametrize("kind", ["blackhole", "unicast"])
def test_check_notices_a_missing_route(node: Node, pod: Namespace, kind: str) -> None:
    """The block's blackhole, or the pod's host route."""
    node.add("net", pod)
    [route] = node.namespace.routes(4, "type", kind, "proto", "85")
    node.namespace.ip("route", "del", *(["blackhole"] if kind == "blackhole" else []), route["dst"])

    done = node.cnitool("check", "net", pod)

    assert 1 == done.returncode
    assert f"{route['dst']}" in done.stderr
    assert "is missing" in done.stderr


# GC and STATUS


def test_gc_of_a_runtime_without_a_list(node: Node, pod: Namespace) -> None:
    """It deletes what is in its cache and names no attachment: what it does not know stays."""
    node.add("net", pod)
    kept = json.loads(node.call_plugin("ADD", delegate_of(network()), container="c1").stdout)

    done = node.cnitool("gc", "net", pod)

    assert "cni.dev/valid-attachments" in done.stderr
    assert [kept["ips"][0]["address"].partition("/")[0]] == list(node.read_store().allocations)
    assert [] == node.host_routes(4)


def test_status_of_a_new_node(node: Node, pod: Namespace) -> None:
    """It can serve, though there is no datastore yet, and makes none."""
    done = node.cnitool("status", "net", pod)

    assert 0 == done.returncode, done.stderr
    assert not node.database.exists()


def test_status_of_an_unusable_configuration(node: Node, pod: Namespace) -> None:
    """An ADD could not be served."""
    node.write_network(network(mask="wide"))

    done = node.cnitool("status", "net", pod)

    assert 1 == done.returncode
    assert '"ipam.mask"' in done.stderr


@pytest.mark.parametrize(("asked", "status"), [(True, 1), (False, 0)])
def test_status_of_an_exhausted_pool(node: Node, pod: Namespace, asked: bool, status: int) -> None:
    """It is an error only where the configuration asks for it: it makes the node NotReady."""
    node.write_network(network(pool=ONE_ADDRESS, status_when_exhausted=asked))
    node.add("net", pod)

    assert status == node.cnitool("status", "net", pod).returncode
