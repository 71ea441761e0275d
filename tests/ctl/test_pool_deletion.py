"""What goes with a pool when it is deleted, and what stays."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.ctl.deletion import delete_record
from cni_ipam.ctl.resources import get_kind
from cni_ipam.datastore import keys
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import NotFound, RouteError
from cni_ipam.routes import rtnl
from tests.ctl.conftest import NOW

RESERVATION = keys.RESERVATIONS + "cni-ipam-pool1"


class FakeRoutes:
    """A kernel with some blackholes of ours."""

    held: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    refusal: RouteError | None = None

    def __init__(self, settings) -> None:
        assert 85 == settings.proto

    def list_blackholes(self):
        return [parse_cidr(text) for text in self.held]

    def remove_blackhole(self, cidr):
        if self.refusal is not None:
            raise self.refusal
        type(self).removed += (str(cidr),)

    def close(self):
        pass


@pytest.fixture
def kernel(monkeypatch):
    """The kernel of this node, as far as ipamctl sees it."""
    monkeypatch.setattr(rtnl, "RtnlRoutes", FakeRoutes)
    monkeypatch.setattr(FakeRoutes, "held", ("10.0.0.0/29", "10.0.0.8/29", "10.7.0.0/29"))
    monkeypatch.setattr(FakeRoutes, "removed", ())
    return FakeRoutes


def reserve(operator, *cidrs: str, labels: str = "{}", key: str = RESERVATION) -> None:
    texts = ",".join(f'"{cidr}"' for cidr in cidrs)
    value = f'{{"metadata":{{"labels":{labels}}},"spec":{{"reservedCIDRs":[{texts}]}}}}'
    operator.write(Write(key, value, ABSENT))


@pytest.mark.usefixtures("kernel")
def test_all_hosts_give_up_their_blocks_in_the_pool(pool):
    """Virtual hosts too; blocks of other pools stay."""
    pool.claim("10.0.0.0/29")
    pool.claim("10.0.0.8/29", "node2", count=2)
    pool.claim("10.0.0.16/29", "load-balancer", kind="virtual")
    pool.claim("10.7.0.0/29")
    assert 0 == pool.types("delete", "ippool", "pool1").status
    assert pool.value(keys.POOLS + "pool1") is None
    assert pool.value(keys.BLOCKS + "ipv4/block/10.0.0.0-29") is None
    assert pool.value(keys.BLOCKS + "ipv4/block/10.0.0.16-29") is None
    assert '"affinity":null' in pool.value(keys.BLOCKS + "ipv4/block/10.0.0.8-29")
    assert pool.value(keys.HOST_AFFINITIES + "node2/ipv4/block/10.0.0.8-29") is None
    assert '"host:node1"' in pool.value(keys.BLOCKS + "ipv4/block/10.7.0.0-29")


def test_addresses_in_use_are_released_later(pool, kernel):
    """The block without owner goes with its last address."""
    del kernel
    pool.claim("10.0.0.0/29", count=1)
    pool.types("delete", "ippool", "pool1")
    assert 0 == pool.types("ipam", "release", "--ip=10.0.0.0").status
    assert pool.value(keys.BLOCKS + "ipv4/block/10.0.0.0-29") is None
    assert pool.value(keys.HANDLES + "net.c1") is None


def test_blackholes_of_lost_blocks_go(pool, kernel):
    """Those of other blocks stay."""
    pool.claim("10.0.0.0/29")
    assert 0 == pool.types("delete", "ippool", "pool1").status
    assert ("10.0.0.0/29",) == kernel.removed


def test_a_route_that_stays_is_told_and_the_deletion_stands(pool, kernel, monkeypatch):
    """The pool is gone, whatever the kernel says."""
    refusal = RouteError("cannot remove blackhole route 10.0.0.0/29: Operation not permitted")
    monkeypatch.setattr(kernel, "refusal", refusal)
    pool.claim("10.0.0.0/29")
    result = pool.types("delete", "ippool", "pool1")
    assert (0, "Successfully deleted 1 'IPPool' resource(s)\n") == (result.status, result.out)
    assert f"the blackhole routes of lost blocks remain: {refusal}\n" == result.err
    assert pool.value(keys.POOLS + "pool1") is None


@pytest.mark.parametrize(
    "cidrs",
    [
        ("10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32"),
        ("10.0.0.0/32", "10.0.0.77/32", "10.0.0.255/32"),
        ("10.0.0.0/32", "10.0.0.255/32"),
    ],
)
def test_our_own_reservation_goes_with_the_pool(pool, cidrs):
    """With the usual gateway, with another one, and with one outside of the pool."""
    reserve(pool, *cidrs)
    pool.types("delete", "ippool", "pool1")
    assert pool.value(RESERVATION) is None


@pytest.mark.parametrize(
    ("name", "cidrs"),
    [
        ("cni-ipam-pool1-10-0-0-0", ("10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32")),
        ("cni-ipam-pool1-10-0-0-7", ("10.0.0.7/32",)),
    ],
)
def test_further_reservations_go_with_the_pool(pool, name, cidrs):
    """That of a pool made anew under its name, and that of another gateway."""
    reserve(pool, "10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32")
    reserve(pool, *cidrs, key=keys.RESERVATIONS + name)
    assert 0 == pool.types("delete", "ippool", "pool1").status
    assert pool.value(RESERVATION) is None
    assert pool.value(keys.RESERVATIONS + name) is None


@pytest.mark.parametrize(
    ("name", "cidrs"),
    [
        ("cni-ipam-pool1-10-0-0-7", ("10.0.0.7/32", "10.0.0.64/28")),
        ("cni-ipam-pool1-10-0-0-7", ("10.0.0.7/32", "10.0.0.8/32")),
        ("cni-ipam-pool1-10-9-0-0", ("10.9.0.0/32",)),
        ("cni-ipam-pool1-b", ("10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32")),
    ],
)
def test_a_further_reservation_of_others_stays(pool, name, cidrs):
    """One that was changed, one of a former pool, and that of a pool with a longer name."""
    reserve(pool, *cidrs, key=keys.RESERVATIONS + name)
    assert 0 == pool.types("delete", "ippool", "pool1").status
    assert pool.value(keys.RESERVATIONS + name) is not None


def test_a_reservation_that_somebody_changed_stays(pool):
    """It is the operator's then."""
    reserve(pool, "10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32", "10.0.0.64/28")
    pool.types("delete", "ippool", "pool1")
    assert pool.value(RESERVATION) is not None


def test_a_reservation_with_labels_stays(pool):
    """Somebody means something by them."""
    reserve(pool, "10.0.0.0/32", "10.0.0.1/32", "10.0.0.255/32", labels='{"a":"b"}')
    pool.types("delete", "ippool", "pool1")
    assert pool.value(RESERVATION) is not None


def test_a_broken_block_leaves_the_pool_disabled(pool):
    """The other blocks are given up all the same, and the command can be repeated."""
    pool.claim("10.0.0.0/29")
    pool.claim("10.0.0.8/29")
    key = keys.BLOCKS + "ipv4/block/10.0.0.0-29"
    store = pool.store()
    entry = store.read([Range(key)])[0][0]
    store.commit([Write(key, "{", entry.revision)])
    store.close()
    result = pool.types("delete", "ippool", "pool1")
    assert 1 == result.status
    assert key in result.err
    assert '"disabled":true' in pool.value(keys.POOLS + "pool1")
    assert pool.value(keys.BLOCKS + "ipv4/block/10.0.0.8-29") is None


def test_a_pool_that_cannot_be_understood_can_be_deleted(operator):
    """It must be possible to be rid of it."""
    operator.write(Write(keys.POOLS + "broken", "[", ABSENT))
    assert 0 == operator.types("delete", "ippool", "broken").status
    assert operator.value(keys.POOLS + "broken") is None


def test_a_pool_is_disabled_before_its_blocks_go():
    """While ADDs may still act on what they read, nothing is released."""
    store = MemoryDatastore()
    key = keys.POOLS + "p"
    value = '{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/24"}}'
    store.commit([Write(key, value, ABSENT)])
    seen = []

    def wait(seconds: float) -> None:
        seen.append((seconds, '"disabled":true' in store.read([Range(key)])[0][0].value))

    resource = {"metadata": {"name": "p"}}
    assert [] == delete_record(store, get_kind("ippool"), resource, NOW, wait)
    assert [(0.5, True)] == seen
    with pytest.raises(NotFound):
        delete_record(store, get_kind("ippool"), resource, NOW, wait)
