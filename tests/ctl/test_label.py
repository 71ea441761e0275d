"""label: set, overwrite, remove."""

from __future__ import annotations

import json

import pytest

from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Write


@pytest.fixture
def node(operator):
    """A node with one label."""
    value = '{"metadata":{"name":"node1","labels":{"rack":"1"}},"spec":{}}'
    operator.write(Write(keys.NODES + "node1", value, ABSENT))
    return operator


def labels(operator) -> dict[str, str]:
    metadata = json.loads(operator.value(keys.NODES + "node1"))["metadata"]
    return metadata.get("labels", {})


def test_a_new_label_is_set(node):
    """Beside the others."""
    result = node.types("label", "nodes", "node1", "zone=a")
    assert (0, "Successfully set label zone on nodes node1\n") == (result.status, result.out)
    assert {"rack": "1", "zone": "a"} == labels(node)


def test_a_label_is_not_changed_by_accident(node):
    """Only with --overwrite."""
    result = node.types("label", "node", "node1", "rack=2")
    expected = (
        "failed to update label of node node1, key rack is already present. "
        "please use '--overwrite' to set a new value\n"
    )
    assert (1, expected) == (result.status, result.err)
    assert {"rack": "1"} == labels(node)


def test_a_label_is_changed_on_wish(node):
    """And that is told as an update."""
    result = node.types("label", "node", "node1", "rack=2", "--overwrite")
    assert (0, "Successfully updated label rack on node node1\n") == (result.status, result.out)
    assert {"rack": "2"} == labels(node)


def test_the_same_value_needs_no_wish(node):
    """Nothing changes."""
    result = node.types("label", "node", "node1", "rack=1")
    assert (0, "Successfully updated label rack on node node1\n") == (result.status, result.out)


def test_a_label_is_removed(node):
    """By its key."""
    result = node.types("label", "node", "node1", "rack", "--remove")
    assert (0, "Successfully removed label rack from node node1\n") == (result.status, result.out)
    assert {} == labels(node)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("node1", "zone", "--remove"),
            "cannot remove label of node node1, key zone does not exist",
        ),
        (("node1", "zone"), "invalid label zone"),
        (("node9", "a=b"), "node node9 not found"),
        (("node1", "a b=c"), "failed to update node node1, label not changed"),
        (("node1", "zone=no blank"), "failed to update node node1, label not changed"),
    ],
)
def test_a_wrong_wish_changes_nothing(node, words, expected):
    """Each with its reason."""
    result = node.types("label", "node", *words)
    assert 1 == result.status
    assert expected == result.err.splitlines()[0]
    assert {"rack": "1"} == labels(node)


def test_a_pool_can_be_labelled(pool):
    """Kinds are named as the operator names them."""
    result = pool.types("label", "ippool", "pool1", "a=")
    assert (0, "Successfully set label a on ippool pool1\n") == (result.status, result.out)


def test_settings_cannot_be_labelled(operator):
    """Their record has no place for it, so it is refused instead of lost."""
    stored = '{"strict_affinity":true,"auto_allocate_blocks":true}'
    operator.write(Write(keys.CONFIG, stored, ABSENT))
    result = operator.types("label", "ipamconfig", "default", "a=b")
    expected = (
        "failed to update ipamconfig default, label not changed\n"
        "error with field metadata.labels = 'a=b' "
        "(an IPAMConfiguration is stored without labels: leave them out)\n"
    )
    assert (1, "", expected) == (result.status, result.out, result.err)
    assert stored == operator.value(keys.CONFIG)


def test_labels_are_stored_in_order(operator):
    """As Go writes a map, and the fields of what lies inside in Calico's order."""
    document = """
        apiVersion: projectcalico.org/v3
        kind: Node
        metadata: {name: node1, labels: {zone: a, rack: "1"}}
        spec: {bgp: {ipv4Address: 192.0.2.1/24, asNumber: 64512}}
    """
    assert 0 == operator.types("create", "-f", "-", stdin=document).status
    stored = operator.value(keys.NODES + "node1")
    assert '"labels":{"rack":"1","zone":"a"}' in stored
    assert '"bgp":{"asNumber":64512,"ipv4Address":"192.0.2.1/24"}' in stored
