"""Which interface of the node leads to a pod, asked of a real kernel by both adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.errors import RouteError

if TYPE_CHECKING:
    from typing import Any

    from integration.routes.conftest import Node


def test_host_device_is_the_peer_of_the_pods_interface(node: Node) -> None:
    """Two pods with the same interface name each lead to their own peer."""
    first, second = node.add_pod("veth0"), node.add_pod("veth1")

    found = [node.do("find_host_device", pod.path, "eth0") for pod in (first, second)]

    assert ["veth0", "veth1"] == found


def test_host_device_is_found_by_the_interface_name_in_the_pod(node: Node) -> None:
    """A pod may have several interfaces."""
    pod = node.add_pod("veth0", "eth0")
    node.lab.veth(node.host, "veth1", pod, "net1")

    found = [node.do("find_host_device", pod.path, name) for name in ("eth0", "net1")]

    assert ["veth0", "veth1"] == found


def test_host_device_is_found_though_nobody_has_listed_it(node: Node) -> None:
    """The kernel gives a namespace its id when asked for its links: the adapter has to ask."""
    pod = node.lab.namespace("pod")
    pod.ip("link", "add", "eth0", "type", "veth", "peer", "name", "veth0", "netns", node.host.name)

    found = node.do("find_host_device", pod.path, "eth0")

    assert "veth0" == found


def test_host_device_is_the_bridge_whose_port_the_peer_is(node: Node) -> None:
    """A route to the port would not be used: the port belongs to the bridge."""
    pod = node.add_pod("veth0")
    node.lab.bridge(node.host, "cni0", "veth0")

    found = node.do("find_host_device", pod.path, "eth0")

    assert "cni0" == found


def test_macvlan_has_no_host_device(node: Node) -> None:
    """Its parent is not its peer."""
    node.add_pod("veth0")
    pod = node.lab.namespace("macvlan")
    node.host.ip("link", "add", "mac0", "link", "veth0", "type", "macvlan", "mode", "bridge")
    node.host.ip("link", "set", "mac0", "netns", pod.name, "name", "eth0")

    found = node.do("find_host_device", pod.path, "eth0")

    assert found is None


def test_interface_whose_peer_is_elsewhere_has_no_host_device(node: Node) -> None:
    """Both ends in other namespaces, though an interface of ours leads into the pod as well."""
    pod, elsewhere = node.add_pod("veth0"), node.lab.namespace("elsewhere")
    node.lab.veth(elsewhere, "veth0", pod, "net1")

    found = node.do("find_host_device", pod.path, "net1")

    assert found is None


def test_missing_interface_has_no_host_device(node: Node) -> None:
    """The pod is there; the interface is not."""
    pod = node.add_pod()

    found = node.do("find_host_device", pod.path, "net9")

    assert found is None


def test_missing_namespace_has_no_host_device(node: Node, tmp_path: Any) -> None:
    """Neither a path that is gone, nor the plain file that a removed namespace may leave."""
    left = tmp_path / "netns"
    left.write_bytes(b"")

    found = [node.do("find_host_device", path, "eth0") for path in ("/run/netns/-", str(left))]

    assert [None, None] == found


def test_pod_without_any_interface_of_ours_has_no_host_device(node: Node) -> None:
    """Its namespace has no id here."""
    pod = node.lab.namespace("pod")

    found = node.do("find_host_device", pod.path, "lo")

    assert found is None


def test_own_namespace_has_no_host_device(node: Node) -> None:
    """A pod of the host's network has no host side."""
    node.add_pod()

    found = node.do("find_host_device", node.host.path, "veth0")

    assert found is None


def test_host_device_without_the_capability_is_refused(node: Node) -> None:
    """The kernel shows another namespace to its administrator alone."""
    pod = node.add_pod()

    with pytest.raises(RouteError, match=f"cannot find the host side of eth0 in {pod.path}"):
        node.do_unprivileged("find_host_device", pod.path, "eth0")
