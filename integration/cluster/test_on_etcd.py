"""The same with etcd as the datastore: the API server serves for annotations alone.

The cluster's own etcd holds the records, too, under Calico's keys beside Kubernetes's own; the
role is that of conf/rbac.yaml, of which only pods and namespaces are used.
"""

from __future__ import annotations

import pytest

from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.lean.http import parse_endpoint
from integration.cluster.node import GROUP, RECORDS
from integration.cluster.own_network import (
    ask_for,
    becomes_empty,
    find_pod_addresses,
    granted,
    install_network,
    read_network,
)
from integration.cluster.pods import NODE
from integration.network import Records, becomes_true

__all__ = ["granted"]


class Stock:
    """What lies in etcd."""

    def __init__(self, cluster):
        self.cluster = cluster

    def _call(self, function):
        store = EtcdDatastore([parse_endpoint(self.cluster.etcd)])
        with self.cluster.machine.network():
            try:
                return function(store)
            finally:
                store.close()

    def put(self, kind, key, spec):
        """Create a resource as calicoctl writes it."""
        name = keys.last_part(key)
        value = codec.new_resource(kind, name, spec, 0, b"0123456789abcdef")
        self._call(lambda store: store.commit([Write(key, value, ABSENT)]))

    def put_pool(self, name, cidr):
        """An IPPool."""
        self.put("IPPool", keys.POOLS + name, {"cidr": cidr, "nodeSelector": "all()"})

    def read(self):
        """Every record, as the product reads it."""
        return self._call(Records)

    def clear(self):
        """Remove all of Calico's keys."""

        def remove(store):
            found = store.read([Range("/calico/", prefix=True)])[0]
            for entry in found:
                store.commit([Write(entry.key, None, entry.revision)])

        self._call(remove)


@pytest.fixture
def stock(granted):
    """A network with its records in etcd, two pools and the node; emptied afterwards."""
    network = read_network()
    for plugin in network["plugins"][:2]:
        plugin["etcd_endpoints"] = granted.etcd
    install_network(granted, network)
    made = Stock(granted)
    made.put("Node", keys.NODES + NODE, {})
    made.put_pool("pool-1", "10.1.0.0/24")
    made.put_pool("pool-2", "10.2.0.0/24")
    yield made
    granted.delete_pods()
    granted.wait_unplugged()
    made.clear()


def test_annotations_count_and_the_records_are_in_etcd(granted, stock):
    """The namespace's count, the pod's before them; pods reach each other; Kubernetes has none of
    the records."""
    granted.create_namespace("team", ask_for(ipv4pools=["pool-2"]))
    granted.start_pod("of-namespace", namespace="team")
    granted.start_pod("of-both", namespace="team", annotations=ask_for(ipv4pools=["pool-1"]))
    for name in ("of-namespace", "of-both"):
        granted.wait_running(name, "team")
    of_namespace = granted.pod_ip("of-namespace", "team")
    of_both = granted.pod_ip("of-both", "team")
    assert of_namespace.startswith("10.2.0.")
    assert of_both.startswith("10.1.0.")
    assert "of-both" == granted.fetch("of-namespace", of_both, "team")
    assert sorted([of_namespace, of_both]) == find_pod_addresses(stock.read())
    for kind in RECORDS:
        assert [] == granted.get(f"{GROUP}/{kind}")["items"]
    granted.delete_pods()
    assert becomes_empty(stock.read), stock.read().findings


def test_a_refused_pod_is_told_and_starts_when_it_can(granted, stock):
    """The pool that it names is made later; nothing of the failed tries is left."""
    granted.start_pod("early", annotations=ask_for(ipv4pools=["later"]))

    def is_told():
        return any(event.startswith("IPAMFailed: ") for event in granted.events("early"))

    assert becomes_true(is_told), granted.events("early")
    (said, *_) = [event for event in granted.events("early") if event.startswith("IPAMFailed: ")]
    assert 'error parsing pool "later"' in said
    assert ([], []) == (stock.read().handles, find_pod_addresses(stock.read()))
    stock.put_pool("later", "10.3.0.0/24")
    granted.wait_running("early")
    assert [granted.pod_ip("early")] == find_pod_addresses(stock.read())
    assert granted.pod_ip("early").startswith("10.3.0.")
