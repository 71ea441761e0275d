"""Pools, reservations, ClusterInformation, nodes and markers as objects of Kubernetes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.kubernetes_objects import GROUPS, find_place, to_entry, to_object
from cni_ipam.datastore.kubernetes_records import V1, V3
from cni_ipam.datastore.kubernetes_resources import reverse_uid
from cni_ipam.datastore.port import Entry
from cni_ipam.errors import OperatorError
from tests.datastore.golden import BGP_CONFIGURATION, CLUSTER, PEER, POOL, RESERVATION
from tests.datastore.golden_kubernetes import REAL_UID, SHOWN_UID, stored

POOL_KEY = keys.POOLS + "pool1"
WRAPPER = "projectcalico.org/metadata"


def pool(group, metadata=None, **fields):
    """A pool as the API server gives it, with more metadata and other fields."""
    plain = {"name": "pool1", "uid": REAL_UID, "resourceVersion": "7"}
    plain |= {"creationTimestamp": "2026-11-21T10:26:23Z", "generation": 2, "managedFields": [{}]}
    found = {
        "kind": "IPPool",
        "apiVersion": group,
        "metadata": plain | (metadata or {}),
        "spec": {"blockSize": 29, "cidr": "10.0.0.0/24"},
    }
    return found | fields


def seen(found, group):
    """The metadata that users see of an object."""
    return json.loads(to_entry(found, group).value)["metadata"]


def value(**metadata):
    """A pool's value with this metadata."""
    fields = {"metadata": {"name": "pool1", **metadata}, "spec": {"cidr": "10.0.0.0/24"}}
    return json.dumps(fields)


# --- the UID


def test_users_of_the_older_group_see_another_uid():
    """Facts 1.12: its vector, both ways."""
    assert SHOWN_UID == reverse_uid(REAL_UID)
    assert REAL_UID == reverse_uid(SHOWN_UID)


@given(st.uuids(version=4))
def test_the_other_uid_is_a_uuid_of_the_same_version(uid):
    """Version and variant stay; twice is nothing."""
    turned = reverse_uid(str(uid))
    assert str(uid) == reverse_uid(turned)
    assert (str(uid)[14], str(uid)[19]) == (turned[14], turned[19])


@pytest.mark.parametrize("uid", ["", "1e2f", "pool1"])
def test_what_is_not_a_uuid_stays(uid):
    """Nothing depends on it, so no pool is refused for it."""
    assert uid == reverse_uid(uid)


# --- written


@pytest.mark.parametrize(
    ("key", "text", "kind"),
    [
        (POOL_KEY, POOL, "IPPool"),
        (keys.RESERVATIONS + "r", RESERVATION, "IPReservation"),
        (keys.CLUSTER_INFORMATION, CLUSTER, "ClusterInformation"),
        (keys.BGP_PEERS + "router", PEER, "BGPPeer"),
        (keys.BGP_CONFIGURATIONS + "default", BGP_CONFIGURATION, "BGPConfiguration"),
    ],
)
@pytest.mark.parametrize("group", GROUPS)
def test_a_resource_comes_back(key, text, kind, group):
    """All but the UID, which the API server gives."""
    made = to_object(key, text, group)
    name = keys.last_part(key)
    assert (kind, group, name) == (made["kind"], made["apiVersion"], made["metadata"]["name"])
    assert "uid" not in made["metadata"]
    entry = to_entry(stored(made), group)
    expected = json.loads(text)
    expected["metadata"]["uid"] = {V1: SHOWN_UID, V3: REAL_UID}[group]
    assert (key, 7) == (entry.key, entry.revision)
    assert expected == json.loads(entry.value)


def test_a_pools_fields_stand_in_calicos_order():
    """Facts 1.7, although the API server sorts them."""
    entry = to_entry(stored(to_object(POOL_KEY, POOL, V3)), V3)
    assert POOL.replace('"1e2f"', f'"{REAL_UID}"') == entry.value


def test_the_older_group_wraps_what_users_see():
    """Facts 1.12: all in the annotation; beside it only labels and annotations of Calico's own."""
    labels = {"projectcalico.org/a": "1", "mine": "2"}
    annotations = {"operator.tigera.io/b": "3", "example.org/c": "4"}
    created = "2026-11-21T10:26:22Z"
    text = value(uid=SHOWN_UID, creationTimestamp=created, labels=labels, annotations=annotations)
    metadata = to_object(POOL_KEY, text, V1)["metadata"]
    wrapped = json.loads(metadata["annotations"].pop(WRAPPER))
    assert {
        "creationTimestamp": created,
        "labels": labels,
        "annotations": annotations,
    } == wrapped
    assert {
        "name": "pool1",
        "labels": {"projectcalico.org/a": "1"},
        "annotations": {"operator.tigera.io/b": "3"},
    } == metadata


def test_nothing_to_wrap_is_an_empty_object():
    """Facts 1.12, as Calico's master writes it."""
    metadata = to_object(POOL_KEY, value(), V1)["metadata"]
    assert {"name": "pool1", "annotations": {WRAPPER: "{}"}} == metadata


def test_the_newer_group_stores_metadata_as_they_are():
    """But for what the API server alone says."""
    text = value(uid="u", labels={"a": "b"}, annotations={"c": "d"}, generation=2)
    metadata = to_object(POOL_KEY, text, V3)["metadata"]
    assert {"name": "pool1", "labels": {"a": "b"}, "annotations": {"c": "d"}} == metadata


@pytest.mark.parametrize("group", GROUPS)
def test_an_update_keeps_uid_and_revision_of_what_it_replaces(group):
    """The real UID, not the one that users see; labels are those of the new value alone."""
    found = pool(group, {"labels": {"projectcalico.org/old": "x"}, "finalizers": ["a/b"]})
    text = value(uid=SHOWN_UID, labels={"new": "y"}, finalizers=["a/b"])
    metadata = to_object(POOL_KEY, text, group, existing=found)["metadata"]
    assert (REAL_UID, "7") == (metadata["uid"], metadata["resourceVersion"])
    assert "projectcalico.org/old" not in metadata.get("labels", {})
    assert ["a/b"] == metadata["finalizers"]
    assert "managedFields" not in metadata


@pytest.mark.parametrize("group", GROUPS)
def test_that_it_is_being_deleted_is_the_api_servers_to_say(group):
    """Written back it would be wrapped, and stay when the pool is made anew."""
    found = pool(group, {"deletionTimestamp": "2026-11-21T10:30:00Z"})
    made = to_object(POOL_KEY, to_entry(found, group).value, group, existing=found)
    assert "deletionTimestamp" not in json.dumps(made)


# --- read


def test_wrapped_metadata_beat_the_objects_own():
    """Facts 1.12: labels and annotations are merged; the wrapper itself is not seen."""
    wrapped = {
        "creationTimestamp": "2026-11-21T10:26:22Z",
        "labels": {"a": "wrapped"},
        "annotations": {"c": "wrapped"},
    }
    annotations = {"c": "own", "d": "own", WRAPPER: json.dumps(wrapped)}
    found = pool(V1, {"labels": {"a": "own", "b": "own"}, "annotations": annotations})
    assert {
        "name": "pool1",
        "uid": SHOWN_UID,
        "creationTimestamp": "2026-11-21T10:26:22Z",
        "labels": {"a": "wrapped", "b": "own"},
        "annotations": {"c": "wrapped", "d": "own"},
    } == seen(found, V1)


@pytest.mark.parametrize("wrapped", ["{}", "null", '{"creationTimestamp":null}'])
def test_an_empty_wrapper_leaves_the_objects_own_time(wrapped):
    """Facts 1.12: builds on an older library wrote null."""
    found = pool(V1, {"annotations": {WRAPPER: wrapped}})
    expected = {"name": "pool1", "uid": SHOWN_UID, "creationTimestamp": "2026-11-21T10:26:23Z"}
    assert expected == seen(found, V1)


def test_a_pool_made_by_kubectl_needs_no_wrapper():
    """Facts 1.12; the revision is not part of the value, nor who wrote which field."""
    metadata = seen(pool(V1, {"labels": {"a": "b"}}), V1)
    assert ({"a": "b"}, SHOWN_UID) == (metadata["labels"], metadata["uid"])
    assert not {"resourceVersion", "managedFields"} & set(metadata)


@pytest.mark.parametrize("group", GROUPS)
def test_a_pool_that_is_being_deleted_is_not_used(group):
    """The API server says so, whatever is wrapped."""
    dying = {"deletionTimestamp": "2026-11-21T10:30:00Z", "annotations": {WRAPPER: "{}"}}
    assert codec.decode_pool(to_entry(pool(group, dying), group)).deleting
    assert not codec.decode_pool(to_entry(pool(group), group)).deleting


@pytest.mark.parametrize("group", GROUPS)
def test_a_pools_status_is_read(group):
    """Facts 1.7: a pool that is not allocatable."""
    status = {"conditions": [{"type": "Allocatable", "status": "False"}]}
    assert not codec.decode_pool(to_entry(pool(group, status=status), group)).allocatable


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"annotations": {WRAPPER: "{"}}, WRAPPER),
        ({"annotations": {WRAPPER: "[]"}}, WRAPPER),
        ({"annotations": []}, "annotations"),
        ({"labels": "x", "annotations": {WRAPPER: "{}"}}, "labels"),
    ],
)
def test_metadata_that_cannot_be_read_are_told(metadata, problem):
    """As a ValueError that names the field."""
    with pytest.raises(ValueError, match=problem):
        to_entry(pool(V1, metadata), V1)


def test_a_resource_without_a_spec_is_left_to_the_codec():
    """Which names the key."""
    entry = to_entry(pool(V3, spec=None), V3)
    assert (POOL_KEY, {}) == (entry.key, json.loads(entry.value)["spec"])


# --- nodes


def node(**metadata):
    """A node of Kubernetes, as an item of a list: without its kind."""
    return {
        "metadata": {"name": "node1", "uid": REAL_UID, "resourceVersion": "7", **metadata},
        "spec": {"podCIDR": "10.1.0.0/24"},
        "status": {"nodeInfo": {}},
    }


def test_a_node_is_calicos_node():
    """Facts 1.9: labels, tunnel addresses, and whose it is."""
    annotations = {
        "projectcalico.org/labels": '{"rack":"calico","zone":"a"}',
        "projectcalico.org/IPv4Address": "192.168.0.1/24",
        "projectcalico.org/ASNumber": "64512",
        "projectcalico.org/IPv4IPIPTunnelAddr": "10.0.0.1",
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.0.0.2",
        "projectcalico.org/IPv6VXLANTunnelAddr": "fd00::2",
        "projectcalico.org/IPv4WireguardInterfaceAddr": "10.0.0.3",
        "projectcalico.org/IPv6WireguardInterfaceAddr": "fd00::3",
        "other": "x",
    }
    created = "2026-11-21T10:26:22Z"
    labels = {"rack": "1", "kubernetes.io/hostname": "node1"}
    found = node(labels=labels, annotations=annotations, creationTimestamp=created)
    entry = to_entry(found, V1, "Node")
    assert (keys.NODES + "node1", 7) == (entry.key, entry.revision)
    assert {
        "kind": "Node",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": "node1",
            "uid": REAL_UID,
            "creationTimestamp": created,
            "labels": {"rack": "1", "zone": "a", "kubernetes.io/hostname": "node1"},
        },
        "spec": {
            "bgp": {
                "asNumber": "64512",
                "ipv4Address": "192.168.0.1/24",
                "ipv4IPIPTunnelAddr": "10.0.0.1",
            },
            "ipv4VXLANTunnelAddr": "10.0.0.2",
            "ipv6VXLANTunnelAddr": "fd00::2",
            "orchRefs": [{"nodeName": "node1", "orchestrator": "k8s"}],
            "wireguard": {"interfaceIPv4Address": "10.0.0.3", "interfaceIPv6Address": "fd00::3"},
        },
        "status": {},
    } == json.loads(entry.value)


@pytest.mark.parametrize("text", ["65000.1", "x"])
def test_a_nodes_as_number_is_passed_on(text):
    """Who speaks BGP reads it, in every form that Calico takes, and tells what is none."""
    entry = to_entry(node(annotations={"projectcalico.org/ASNumber": text}), V1, "Node")
    assert {"asNumber": text} == json.loads(entry.value)["spec"]["bgp"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_plain_node_has_no_tunnels(group):
    """And no labels, which a selector can be asked about all the same."""
    entry = to_entry({**node(), "kind": "Node", "apiVersion": "v1"}, group)
    assert {} == codec.decode_labels(entry)
    spec = {"orchRefs": [{"nodeName": "node1", "orchestrator": "k8s"}]}
    assert spec == json.loads(entry.value)["spec"]


@pytest.mark.parametrize("text", ["{bad", "[]", '"x"', '{"zone":1}', '{"zone":{}}', "[" * 9999])
def test_labels_that_calico_cannot_read_leave_the_nodes_own(text):
    """As Calico does, so that no annotation ends every ADD on the node."""
    annotations = {"projectcalico.org/labels": text}
    entry = to_entry(node(labels={"rack": "1"}, annotations=annotations), V1, "Node")
    assert {"rack": "1"} == codec.decode_labels(entry)


def test_a_label_of_calicos_that_is_null_is_empty():
    """As Go reads it."""
    entry = to_entry(node(annotations={"projectcalico.org/labels": '{"zone":null}'}), V1, "Node")
    assert {"zone": ""} == codec.decode_labels(entry)


def test_a_node_is_never_written():
    """It is Kubernetes' own."""
    assert find_place(keys.NODES + "node1").is_read_only
    with pytest.raises(OperatorError, match="node1"):
        to_object(keys.NODES + "node1", "{}", V1)


# --- markers


@pytest.mark.parametrize("group", GROUPS)
def test_a_marker_is_a_config_map(group):
    """In a namespace that every cluster has; it says nothing but that it is there."""
    key = keys.DEFAULT_POOLS_MADE + "10-0-0-0-24"
    made = to_object(key, "{}", group)
    assert ("ConfigMap", "v1") == (made["kind"], made["apiVersion"])
    assert "cni-ipam-default-pool-10-0-0-0-24" == made["metadata"]["name"]
    assert "kube-system" == made["metadata"]["namespace"]
    made["metadata"]["resourceVersion"] = "7"
    assert Entry(key, "{}", 7) == to_entry(made, group)


def test_other_config_maps_are_no_markers():
    """Told, should one ever come back."""
    found = {"kind": "ConfigMap", "metadata": {"name": "kubeadm-config", "resourceVersion": "7"}}
    with pytest.raises(ValueError, match="cni-ipam-default-pool-"):
        to_entry(found, V1)
