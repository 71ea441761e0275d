"""Calico's own plugin beside ours with a gateway: it never gives what the pool keeps back, also
when that has changed."""

from __future__ import annotations

import pytest

from integration.etcd.calico import Mixed, resource, with_calico
from integration.etcd.proxy import Proxy

pytestmark = with_calico


@pytest.fixture
def mixed(etcd34, tmp_path):
    """A pool of two blocks that a pod of ours has been in, and two nodes."""
    with Proxy(etcd34.endpoints[0]) as proxy:
        mixed = Mixed(etcd34, proxy, tmp_path)
        for name in ("node1", "node2"):
            mixed.calicoctl.give("create", resource("Node", name, {}))
        put_pool(mixed, "10.49.0.0/29")
        assert add(mixed, "auto").startswith("10.49.0.")
        assert 0 == mixed.ours("node1").call("DEL", "c1").status
        yield mixed


def put_pool(mixed, cidr):
    spec = {"cidr": cidr, "blockSize": 30, "nodeSelector": "all()"}
    mixed.calicoctl.give("create", resource("IPPool", "four", spec))


def add(mixed, gateway):
    """The address that our plugin gives, with that gateway in the network list."""
    node = mixed.ours("node1")
    node.settings["gateway"] = gateway
    return node.call("ADD", "c1").address.partition("/")[0]


def fill_as_calico(mixed):
    """What Calico's plugin gives until it has nothing left."""
    theirs = mixed.theirs("node2")
    answers = [theirs.call("ADD", f"their{number}") for number in range(8)]
    return {answer.address.partition("/")[0] for answer in answers if answer.status == 0}


def test_calico_never_gives_the_gateway_of_a_pool_that_was_made_again(mixed):
    """With another CIDR, by calicoctl; ipamctl names what is left of the former pool, and takes
    the reservation of this one away with it."""
    mixed.calicoctl.say("delete", "ippool", "four")
    put_pool(mixed, "10.50.0.0/29")
    ours = add(mixed, "auto")
    assert {f"10.50.0.{number}" for number in range(2, 7)} - {ours} == fill_as_calico(mixed)
    assert "`ipamctl delete ipreservation cni-ipam-four`" in mixed.ipamctl.say("ipam", "check")
    mixed.ipamctl.say("delete", "ipreservation", "cni-ipam-four")
    assert "Check complete; found 0 problems." in mixed.ipamctl.say("ipam", "check")
    mixed.ipamctl.say("delete", "ippool", "four")
    assert "cni-ipam-" not in mixed.calicoctl.say("get", "ipreservation")


def test_calico_never_gives_another_gateway(mixed):
    """That a network list names since; nothing is wrong, and all goes with the pool."""
    ours = add(mixed, "10.49.0.5")
    assert {f"10.49.0.{number}" for number in (2, 3, 4, 6)} - {ours} == fill_as_calico(mixed)
    assert "Check complete; found 0 problems." in mixed.ipamctl.say("ipam", "check")
    mixed.ipamctl.say("delete", "ippool", "four")
    assert "cni-ipam-" not in mixed.calicoctl.say("get", "ipreservation")
