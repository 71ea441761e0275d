"""ipam show, check and release."""

from __future__ import annotations

import json

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.block import new_block
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from tests.ctl.conftest import NOW

RESERVED = '{"metadata":{"name":"r"},"spec":{"reservedCIDRs":["10.0.0.214/31"]}}'
WHO = {"namespace": "default", "node": "node1", "pod": "web-1"}


@pytest.fixture
def busy(pool):
    """Two blocks in use, two addresses reserved."""
    pool.write(Write(keys.RESERVATIONS + "r", RESERVED, ABSENT))
    pool.claim("10.0.0.208/29", count=3, handle="k8s-pod-network.c2", **WHO)
    pool.claim("10.0.0.8/29", "node2", count=1, handle="k8s-pod-network.c1", **WHO)
    return pool


def test_usage_of_pools(busy):
    """The table of calicoctl, numbers to the right."""
    expected = """\
+----------+-------------+-----------+------------+--------------+-----------+
| GROUPING | CIDR        | IPS TOTAL | IPS IN USE | IPS RESERVED | IPS FREE  |
+----------+-------------+-----------+------------+--------------+-----------+
| IP Pool  | 10.0.0.0/24 |       256 |     4 (2%) |       2 (1%) | 250 (98%) |
+----------+-------------+-----------+------------+--------------+-----------+
"""
    assert expected == busy.types("ipam", "show").out


def test_usage_of_blocks(busy):
    """Blocks by key; the block of a deleted pool at the end, without a pool."""
    busy.claim("10.9.0.0/30", None, count=1, handle="k8s-pod-network.c9")
    expected = """\
+----------+---------------+-----------+------------+--------------+-----------+
| GROUPING | CIDR          | IPS TOTAL | IPS IN USE | IPS RESERVED | IPS FREE  |
+----------+---------------+-----------+------------+--------------+-----------+
| IP Pool  | 10.0.0.0/24   |       256 |     4 (2%) |       2 (1%) | 250 (98%) |
| Block    | 10.0.0.208/29 |         8 |    3 (38%) |      2 (25%) |   3 (38%) |
| Block    | 10.0.0.8/29   |         8 |    1 (12%) |       0 (0%) |   7 (88%) |
| Block    | 10.9.0.0/30   |         4 |    1 (25%) |       0 (0%) |   3 (75%) |
+----------+---------------+-----------+------------+--------------+-----------+
"""
    assert expected == busy.types("ipam", "show", "--show-blocks").out


def test_large_numbers_are_printed_as_go_does(operator):
    """Five digits, then an exponent."""
    text = """\
apiVersion: projectcalico.org/v3
kind: IPPoolList
items:
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: a}, spec: {cidr: 10.64.0.0/15}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: b}, spec: {cidr: "fd00::/65"}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: c}, spec: {cidr: 10.9.0.0/16}}
"""
    assert 0 == operator.types("create", "-f", "-", stdin=text).status
    rows = [line.split("|") for line in operator.types("ipam", "show").out.splitlines()[3:6]]
    assert ["1.3107e+05", "9.2234e+18", "65536"] == [row[3].strip() for row in rows]
    assert ["1.3107e+05 (100%)", "9.2234e+18 (100%)", "65536 (100%)"] == [
        row[6].strip() for row in rows
    ]


def test_an_empty_table_has_its_headings(operator):
    """No pool, no row."""
    assert "| GROUPING | CIDR | IPS TOTAL |" in operator.types("ipam", "show").out


def test_an_address_in_use(busy):
    """Handle and attributes, sorted."""
    expected = """\
IP 10.0.0.209 is in use
Handle ID: k8s-pod-network.c2
Active Owner Attributes:
  namespace: default
  node: node1
  pod: web-1
"""
    assert expected == busy.types("ipam", "show", "--ip=10.0.0.209").out


def test_an_address_without_handle_and_attributes(pool):
    """Both are told."""
    pool.claim("10.0.0.0/29", count=1, handle="")
    expected = "IP 10.0.0.0 is in use\nHandle ID: <none>\nNo Active Owner attributes defined\n"
    assert expected == pool.types("ipam", "show", "--ip", "10.0.0.0").out


def test_alternate_owners_are_shown(pool):
    """Where a virtual machine moves."""
    pool.claim("10.0.0.0/29", count=1, node="node1")
    key = keys.BLOCKS + "ipv4/block/10.0.0.0-29"
    stored = json.loads(pool.value(key))
    stored["attributes"][0]["alternateOwnerAttrs"] = {"node": "node2"}
    store = pool.store()
    store.commit([Write(key, json.dumps(stored), store.read([Range(key)])[0][0].revision)])
    store.close()
    text = pool.types("ipam", "show", "--ip=10.0.0.0").out
    assert text.endswith("  node: node1\nAlternate Owner Attributes:\n  node: node2\n")


@pytest.mark.parametrize("text", ["10.0.0.7", "9.9.9.9", "fd00::1"])
def test_an_address_that_nobody_has(busy, text):
    """In a pool or outside, in a block or not: the same words, and no error."""
    result = busy.types("ipam", "show", f"--ip={text}")
    assert (0, f"{text} is not assigned\n") == (result.status, result.out)


def test_an_address_of_a_disabled_pool_is_not_assigned(busy):
    """As calicoctl, which looks at enabled pools only."""
    busy.types("patch", "pool", "pool1", "-p", '{"spec":{"disabled":true}}')
    assert "10.0.0.209 is not assigned\n" == busy.types("ipam", "show", "--ip=10.0.0.209").out


@pytest.mark.parametrize("verb", ["show", "release"])
def test_a_malformed_address(operator, verb):
    """Told on stdout, as calicoctl does."""
    result = operator.types("ipam", verb, "--ip=foo")
    expected = "Error executing command: invalid IP address specified: foo\n"
    assert (1, expected) == (result.status, result.out)


def test_a_cooling_address(busy):
    """It is nobody's and cannot be had yet."""
    busy.write(Write(keys.CONFIG, '{"auto_allocate_blocks":true,"ipCooldownSeconds":600}', ABSENT))
    assert 0 == busy.types("ipam", "release", "--ip=10.0.0.209").status
    shown = busy.types("ipam", "show", "--ip=10.0.0.209")
    again = busy.types("ipam", "release", "--ip=10.0.0.209")
    assert (1, "address 10.0.0.209 is in cooldown\n") == (shown.status, shown.err)
    assert (1, "IP address 10.0.0.209 is not assigned\n") == (again.status, again.err)


def test_borrowed_addresses(busy):
    """Those whose node is not their block's owner; the others cannot be told."""
    busy.claim("10.0.0.16/29", None, count=1, handle="t", node="node3", type="ipipTunnelAddress")
    busy.claim("10.0.0.24/29", count=2, handle="old")
    expected = """\
+-----------+----------------+--------------+-------------+-------------------+---------------+
| IP        | BORROWING-NODE | BLOCK        | BLOCK OWNER | TYPE              | ALLOCATED-TO  |
+-----------+----------------+--------------+-------------+-------------------+---------------+
| 10.0.0.16 | node3          | 10.0.0.16/29 |             | ipipTunnelAddress |               |
| 10.0.0.8  | node1          | 10.0.0.8/29  | node2       | pod               | default/web-1 |
+-----------+----------------+--------------+-------------+-------------------+---------------+

Note: found 2 IP allocations without an explicit node association. \
Unable to determine if they are borrowed.
"""
    assert expected == busy.types("ipam", "show", "--show-borrowed").out


def test_the_settings(operator):
    """The defaults, and what is stored."""
    operator.write(Write(keys.CONFIG, '{"strict_affinity":true,"maxBlocksPerHost":3}', ABSENT))
    expected = """\
+------------------------------+---------+
| PROPERTY                     | VALUE   |
+------------------------------+---------+
| StrictAffinity               | true    |
| AutoAllocateBlocks           | false   |
| MaxBlocksPerHost             | 3       |
| KubeVirtVMAddressPersistence | Enabled |
| IPCooldownSeconds            | 0       |
+------------------------------+---------+
"""
    assert expected == operator.types("ipam", "show", "--show-configuration").out


def test_release_frees_an_address(busy):
    """Its handle goes with its last address; the block stays with its owner."""
    result = busy.types("ipam", "release", "--ip=10.0.0.8")
    assert (0, "Successfully released IP address 10.0.0.8\n") == (result.status, result.out)
    assert busy.value(keys.HANDLES + "k8s-pod-network.c1") is None
    assert '"unallocated":[1,2,3,4,5,6,7,0]' in busy.value(keys.BLOCKS + "ipv4/block/10.0.0.8-29")


def test_release_counts_what_the_handle_still_has(busy):
    """Two of three are left."""
    assert 0 == busy.types("ipam", "release", "--ip=10.0.0.209").status
    assert '"10.0.0.208/29":2' in busy.value(keys.HANDLES + "k8s-pod-network.c2")


@pytest.mark.parametrize("text", ["10.0.0.15", "10.9.0.1"])
def test_release_of_an_address_that_nobody_has(busy, text):
    """In a block or not."""
    result = busy.types("ipam", "release", f"--ip={text}")
    assert (1, f"IP address {text} is not assigned\n") == (result.status, result.err)


def test_release_of_nothing(operator):
    """As calicoctl: silent success."""
    result = operator.types("ipam", "release")
    assert (0, "", "") == (result.status, result.out, result.err)


def test_check_of_a_sound_datastore(busy):
    """What there is, and that nothing is wrong."""
    expected = """\
Checking IPAM for inconsistencies...

Loading all IPAM blocks...
Found 2 IPAM blocks.
 IPAM block 10.0.0.208/29 affinity=host:node1:
 IPAM block 10.0.0.8/29 affinity=host:node2:
IPAM blocks record 4 allocations.

Loading all IPAM pools...
  10.0.0.0/24
Found 1 active IP pools.

Validating IPAMBlock structures...
Found 0 invalid IPAMBlocks.

Check complete; found 0 problems.
"""
    result = busy.types("ipam", "check")
    assert (0, expected) == (result.status, result.out)


def test_check_shows_whose_each_address_is(busy):
    """In calicoctl's words, the attributes sorted; an address that rests is nobody's."""
    busy.types("ipam", "configure", "--ip-cooldown-seconds=60")
    busy.types("ipam", "release", "--ip=10.0.0.8")
    whose = "Extra:namespace=default,node=node1,pod=web-1"
    result = busy.types("ipam", "check", "--show-all-ips")
    assert (
        f"""\
 IPAM block 10.0.0.208/29 affinity=host:node1:
  10.0.0.208 allocated; attrs Main:k8s-pod-network.c2 {whose}
  10.0.0.209 allocated; attrs Main:k8s-pod-network.c2 {whose}
  10.0.0.210 allocated; attrs Main:k8s-pod-network.c2 {whose}
 IPAM block 10.0.0.8/29 affinity=host:node2:
  10.0.0.8 in cooldown; attrs Main:<none> Extra:
"""
        in result.out
    )


def test_check_finds_an_address_that_nobody_could_release(busy):
    """That is unsound, and the exit status says so."""
    key = keys.HANDLES + "k8s-pod-network.c2"
    store = busy.store()
    store.commit([Write(key, None, store.read([Range(key)])[0][0].revision)])
    store.close()
    result = busy.types("ipam", "check")
    expected = (
        "  unsound: k8s-pod-network.c2: counts 0 of its 3 addresses in 10.0.0.208/29\n"
        "Check complete; found 1 problems.\n"
    )
    assert 1 == result.status
    assert result.out.endswith(expected)


def test_check_tells_what_a_crash_left(busy):
    """It harms nobody, so it is no failure."""
    value = '{"block":{"10.0.0.8/29":1}}'
    busy.write(Write(keys.HANDLES + "gone", value, ABSENT))
    result = busy.types("ipam", "check")
    assert 0 == result.status
    assert "  leftover: gone: counts 1 addresses in 10.0.0.8/29, has 0\n" in result.out


def test_check_names_the_pod_that_has_a_gateway_address(busy):
    """A peer may have given it before the pool had a gateway; no address is in danger."""
    held = RESERVED.replace("10.0.0.214/31", "10.0.0.9/32")
    busy.write(Write(keys.RESERVATIONS + "cni-ipam-pool1", held, ABSENT))
    busy.claim("10.0.0.16/29", count=1, handle="k8s-pod-network.c3", **WHO)
    held = held.replace("10.0.0.9/32", "10.0.0.16/32")
    busy.write(Write(keys.RESERVATIONS + "cni-ipam-pool2", held, ABSENT))
    result = busy.types("ipam", "check")
    expected = (
        "  leftover: 10.0.0.16: is kept back by its pool, but held by pod default/web-1, "
        "handle k8s-pod-network.c3; make the pod anew"
    )
    assert [expected] == [line for line in result.out.splitlines() if "kept back" in line]
    assert 0 == result.status


def old_reservations(operator):
    """What `ipam check` says about reservations; it harms nobody."""
    result = operator.types("ipam", "check")
    assert 0 == result.status
    return [line.strip() for line in result.out.splitlines() if "IPReservation(" in line]


def reserve(operator, name, *cidrs):
    """An IPReservation."""
    value = json.dumps({"metadata": {"name": name}, "spec": {"reservedCIDRs": cidrs}})
    operator.write(Write(keys.RESERVATIONS + name, value, ABSENT))


@pytest.mark.parametrize("name", ["cni-ipam-pool1", "cni-ipam-pool1-10-9-0-0"])
def test_check_finds_a_reservation_of_a_former_pool(busy, name):
    """The pool was made again with another CIDR, past ipamctl."""
    reserve(busy, name, "10.9.0.0/32", "10.9.0.1/32", "10.0.0.0/32", "10.9.0.15/32")
    expected = (
        f"leftover: IPReservation({name}): reserves 10.9.0.0/32, 10.9.0.1/32, 10.9.0.15/32 outside "
        "of its pool 10.0.0.0/24, left from a former pool of that name; remove it: "
        f"`ipamctl delete ipreservation {name}`, "
        "and the next ADD reserves again what the pool needs"
    )
    assert [expected] == old_reservations(busy)
    assert 0 == busy.types("delete", "ipreservation", name).status
    assert [] == old_reservations(busy)


def test_check_finds_a_reservation_whose_pool_is_gone(busy):
    """Of many addresses it tells the first; one that holds nothing harms nobody."""
    reserve(busy, "cni-ipam-old", *[f"10.0.0.{number}/32" for number in range(100, 104)])
    reserve(busy, "cni-ipam-older")
    expected = (
        "leftover: IPReservation(cni-ipam-old): reserves 10.0.0.100/32, 10.0.0.101/32, "
        "10.0.0.102/32, …, but its pool is gone; remove it: "
        "`ipamctl delete ipreservation cni-ipam-old`"
    )
    assert [expected] == old_reservations(busy)


def test_check_leaves_reservations_alone_that_are_not_old(busy):
    """The pool's own, those for a pool that cannot be understood, and those of other names."""
    reserve(busy, "cni-ipam-pool1", "10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32")
    reserve(busy, "cni-ipam-pool1-10-0-0-7", "10.0.0.7/32")
    reserve(busy, "cni-ipam-broken", "10.7.0.0/32")
    reserve(busy, "mine", "10.7.0.0/32")
    busy.write(Write(keys.POOLS + "broken", "[", ABSENT))
    result = busy.types("ipam", "check")
    assert "IPReservation(" not in result.out


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (keys.NODES + "node9", "{"),
        (keys.NODES + "node9", '{"metadata":{"labels":{"a":5}}}'),
        (keys.CLUSTER_INFORMATION, '{"spec":{"datastoreReady":"no"}}'),
    ],
)
def test_check_finds_what_else_an_add_cannot_read(busy, key, value):
    """As the error of that ADD says."""
    busy.write(Write(key, value, ABSENT))
    result = busy.types("ipam", "check")
    assert 1 == result.status
    assert f"unsound: {key}: " in result.out
    assert "Check complete; found 1 problems.\n" in result.out


def test_check_finds_a_block_that_contradicts_itself(busy):
    """In Calico's words; its neighbours are not compared with what is missing."""
    block = json.loads(codec.encode_block(new_block(parse_cidr("10.0.0.16/30"), None, NOW)))
    block["allocations"][0] = 99
    block["unallocated"] = [1, 2, 3]
    key = keys.block_key(parse_cidr("10.0.0.16/30"))
    busy.write(Write(key, json.dumps(block), ABSENT))
    result = busy.types("ipam", "check")
    assert 1 == result.status
    assert "Found 1 invalid IPAMBlocks.\n" in result.out
    assert "allocation 0 indexes a nonexistent attribute 99" in result.out
    assert "Check complete; found 1 problems.\n" in result.out


def test_check_finds_a_clock_that_went_back(pool):
    """An address that was released in the future."""
    pool.claim("10.0.0.0/29", count=1)
    key = keys.BLOCKS + "ipv4/block/10.0.0.0-29"
    stored = json.loads(pool.value(key))
    stored["attributes"] = [{"releasedAt": "2999-01-01T00:00:00Z"}]
    store = pool.store()
    store.commit([Write(key, json.dumps(stored), store.read([Range(key)])[0][0].revision)])
    store.close()
    result = pool.types("ipam", "check")
    assert "attribute index 0 has releasedAt in the future, suggesting clock skew" in result.out
