"""ipamctl on a datastore that Calico's programs write to as well."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.handle import TUNNEL_HANDLES
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write

RESOURCE = "/calico/resources/v3/projectcalico.org/ipamconfigurations/default"
NODE = """\
apiVersion: projectcalico.org/v3
kind: Node
metadata:
  name: node1
  labels: {rack: "1"}
spec:
  bgp: {ipv4Address: 192.168.0.1/24}
"""


def resource(**spec):
    """The resource as `calicoctl apply`, or calico-node at its start, writes it."""
    metadata = {"name": "default", "uid": "u", "creationTimestamp": "2026-11-21T10:26:22Z"}
    document = {"kind": "IPAMConfiguration", "apiVersion": "projectcalico.org/v3"}
    return Write(RESOURCE, json.dumps({**document, "metadata": metadata, "spec": spec}), ABSENT)


def settings(operator):
    """What `ipam show` says about the settings on stderr, and `ipam check` on stdout."""
    shown = operator.types("ipam", "show", "--show-configuration")
    checked = operator.types("ipam", "check")
    assert (0, 0) == (shown.status, checked.status)
    return shown.err, [line for line in checked.out.splitlines() if "IPAMConfiguration" in line]


def test_settings_that_nobody_heeds_are_told(pool):
    """Facts 1.6: `calicoctl apply` writes them where no assignment looks."""
    pool.write(resource(strictAffinity=True, autoAllocateBlocks=True, maxBlocksPerHost=2))
    shown, checked = settings(pool)
    assert 1 == shown.count("\n")
    assert RESOURCE in shown
    assert "strictAffinity=true (in force: false)" in shown
    assert "maxBlocksPerHost=2 (in force: 0)" in shown
    assert "autoAllocateBlocks" not in shown
    assert "`ipamctl apply`" in shown
    assert [f"  leftover: IPAMConfiguration(default): {shown.rstrip()}"] == checked


def test_to_apply_the_same_object_by_ipamctl_mends_it(pool):
    """It goes where assignments look, and what is told is told no more."""
    pool.write(resource(strictAffinity=True, autoAllocateBlocks=True, maxBlocksPerHost=2))
    text = json.dumps(
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPAMConfiguration",
            "metadata": {"name": "default"},
            "spec": {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 2},
        }
    )
    assert 0 == pool.types("apply", "-f", "-", stdin=text).status
    expected = '{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":2}'
    assert expected == pool.value(keys.CONFIG)
    assert ("", []) == settings(pool)


@pytest.mark.parametrize(
    ("stored", "spec"),
    [
        (None, {"strictAffinity": False, "autoAllocateBlocks": True}),
        (None, {"strictAffinity": False, "autoAllocateBlocks": True, "maxBlocksPerHost": 0}),
        (None, {}),
        (
            '{"auto_allocate_blocks":true,"ipCooldownSeconds":5}',
            {"strictAffinity": False, "autoAllocateBlocks": True},
        ),
        (None, {"kubeVirtVMAddressPersistence": "Enabled"}),
        (None, {"aFieldOfALaterRelease": 7}),
    ],
)
def test_settings_that_say_the_same_are_no_matter(pool, stored, spec):
    """calico-node makes the resource in every cluster."""
    pool.write(resource(**spec))
    if stored is not None:
        pool.write(Write(keys.CONFIG, stored, ABSENT))
    assert ("", []) == settings(pool)


@pytest.mark.parametrize(
    "spec", [{"kubeVirtVMAddressPersistence": "Disabled"}, {"ipCooldownSeconds": 60}]
)
def test_every_setting_is_compared(pool, spec):
    """The name of the one that differs, and both values."""
    pool.write(resource(**spec))
    ((name, value),) = spec.items()
    assert f"{name}={value} (in force: " in settings(pool)[0]


@pytest.mark.parametrize("value", ["{", '{"spec":7}', '{"spec":{"strictAffinity":"yes"}}'])
def test_settings_that_nobody_heeds_may_be_broken(pool, value):
    """They decide nothing, so nothing fails for their sake; but they are told."""
    pool.write(Write(RESOURCE, value, ABSENT))
    shown, checked = settings(pool)
    assert RESOURCE in shown
    assert 1 == len(checked)


@pytest.mark.parametrize("value", ["{}", "", '{"ipCooldownSeconds":5}'])
def test_settings_without_auto_allocation_are_suspicious(pool, value):
    """Facts 1.6: an absent field is false, so no node gets a block; `ipam configure` cannot
    change that, `apply` can."""
    pool.write(Write(keys.CONFIG, value, ABSENT))
    shown, checked = settings(pool)
    for text in (shown, *checked):
        assert "autoAllocateBlocks" in text
        assert "`ipamctl apply`" in text
    assert 1 == len(checked)


def test_settings_are_shown_from_where_they_count(pool):
    """Not from the resource."""
    pool.write(resource(strictAffinity=True, autoAllocateBlocks=True))
    assert 1 == pool.types("get", "ipamconfig", "default").status
    pool.write(Write(keys.CONFIG, '{"auto_allocate_blocks":true}', ABSENT))
    shown = json.loads(pool.types("get", "ipamconfig", "default", "-o", "json").out)
    assert (False, True) == (shown["spec"]["strictAffinity"], shown["spec"]["autoAllocateBlocks"])


def test_a_node_is_made_as_calicoctl_makes_it(operator):
    """In Go's order, with what its clients need to update it."""
    assert 0 == operator.types("create", "-f", "-", stdin=NODE).status
    text = operator.value(keys.NODES + "node1")
    fields = json.loads(text)
    assert ["kind", "apiVersion", "metadata", "spec", "status"] == list(fields)
    assert ["name", "uid", "creationTimestamp", "labels"] == list(fields["metadata"])
    assert {"bgp": {"ipv4Address": "192.168.0.1/24"}} == fields["spec"]
    assert ({}, {"rack": "1"}) == (fields["status"], fields["metadata"]["labels"])
    assert 36 == len(fields["metadata"]["uid"])


def test_a_calico_node_keeps_what_apply_does_not_name(operator):
    """uid, creation time and status are the datastore's own; labels are the file's."""
    status = {"wireguardPublicKey": "k"}
    metadata = {"name": "node1", "uid": "u1", "creationTimestamp": "2026-11-21T10:26:22Z"}
    metadata["labels"] = {"old": "1"}
    stored = {"kind": "Node", "metadata": metadata, "spec": {}, "status": status}
    operator.write(Write(keys.NODES + "node1", json.dumps(stored), ABSENT))
    assert 0 == operator.types("apply", "-f", "-", stdin=NODE).status
    fields = json.loads(operator.value(keys.NODES + "node1"))
    assert metadata | {"labels": {"rack": "1"}} == fields["metadata"]
    assert status == fields["status"]
    shown = operator.types("get", "node", "node1", "-o", "yaml").out
    assert 'rack: "1"' in shown or "rack: '1'" in shown
    assert "uid: u1" in shown


def test_a_deleted_node_leaves_no_tunnel_address_behind(operator):
    """Nobody else would release them; pods keep theirs, in a block without owner."""
    operator.write(Write(keys.NODES + "node1", '{"metadata":{"name":"node1"}}', ABSENT))
    operator.write(Write(keys.HOST_AFFINITIES + "node1", "{}", ABSENT))
    for number, prefix in enumerate(TUNNEL_HANDLES):
        who = {"handle": f"{prefix}node1", "node": "node1", "type": "aTunnel"}
        operator.claim(f"10.0.0.{number * 8}/29", count=1, **who)
    operator.claim("10.0.0.64/29", count=1, handle="net.c1", node="node1")
    operator.claim("10.0.0.72/29", "node2", count=1, handle="vxlan-tunnel-addr-node2")
    assert 0 == operator.types("delete", "node", "node1").status
    store = operator.store()
    blocks = [codec.decode_block(e) for e in store.read([Range(keys.BLOCKS, prefix=True)])[0]]
    store.close()
    assert {"10.0.0.64/29": None, "10.0.0.72/29": "host:node2"} == {
        str(block.cidr): block.affinity for block in blocks
    }
    assert operator.value(keys.HOST_AFFINITIES + "node1") is None
    assert operator.value(keys.handle_key("net.c1")) is not None


def test_a_node_whose_address_cannot_be_released_stays(operator):
    """So that the same command can finish what it began."""
    operator.write(Write(keys.NODES + "node1", '{"metadata":{"name":"node1"}}', ABSENT))
    operator.claim("10.0.0.0/29", count=1, handle="vxlan-tunnel-addr-node1", node="node1")
    key = keys.block_key(parse_cidr("10.0.0.0/29"))
    store = operator.store()
    (entry,) = store.read([Range(key)])[0]
    store.close()
    operator.write(Write(key, "{", entry.revision))
    result = operator.types("delete", "node", "node1")
    assert 1 == result.status
    assert key in result.err
    assert operator.value(keys.NODES + "node1") is not None


def test_check_knows_whom_calico_gives_addresses_to(pool):
    """Tunnels, services, machines, virtual affinities: all sound."""
    pool.claim("10.0.0.0/29", count=1, handle="vxlan-tunnel-addr-node1", node="node1")
    pool.claim("10.0.0.8/29", "load-balancer", count=1, kind="virtual", handle="lb-Ab3")
    pool.claim("10.0.0.16/29", count=2, handle="net.vmi.ns.vm", node="node2")
    pool.claim("10.0.0.24/29", count=4, handle="")
    pool.write(Write(keys.HOST_AFFINITIES + "node1", "{}", ABSENT))
    legacy = keys.affinity_key("node1", parse_cidr("10.0.0.0/29"))
    store = pool.store()
    (entry,) = store.read([Range(legacy)])[0]
    store.close()
    pool.write(Write(legacy, "", entry.revision))
    result = pool.types("ipam", "check")
    assert "Check complete; found 0 problems." in result.out


def test_borrowed_addresses_of_virtual_machines(pool):
    """Calico names a machine by `vmi-name`."""
    who = {"node": "node2", "namespace": "ns", "pod": "virt-launcher-vm-x", "vmi-name": "vm"}
    pool.claim("10.0.0.0/29", count=1, handle="net.vmi.ns.vm", **who)
    row = pool.types("ipam", "show", "--show-borrowed").out.splitlines()[3]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert ["10.0.0.0", "node2", "10.0.0.0/29", "node1", "vmi", "ns/vm"] == cells


def test_a_block_of_another_size_is_shown_and_asked_about(pool):
    """In its pool, and by the address."""
    pool.claim("10.0.0.0/28", count=1, handle="net.c1", node="node1")
    assert "| Block    | 10.0.0.0/28 |" in pool.types("ipam", "show", "--show-blocks").out
    assert "Handle ID: net.c1" in pool.types("ipam", "show", "--ip=10.0.0.0").out
    assert 0 == pool.types("ipam", "release", "--ip=10.0.0.0").status
