"""Wishes that are content with a part, as Calico's library serves them; blocks ahead of need."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.datastore import keys
from cni_ipam.errors import BlockLimit, NoQualifiedPool, PoolExhausted
from cni_ipam.ipam.assign import ensure_block
from tests.ipam.world import (
    add,
    ask,
    entries,
    findings,
    make_wish,
    put,
    put_pool,
    put_reservation,
    refusal,
    survey,
    texts,
)


def ask_for_part(store, **fields):
    """What there is of a wish."""
    return ask(store, whole=False, repeats=False, **fields)


def test_a_part_is_given_with_messages(store):
    """Four of six, and why there are no more."""
    put_pool(store, "pool1", "10.0.0.0/30", blockSize=30)
    outcome = ask_for_part(store, counts={4: 6})
    assert (4, None) == (len(outcome.assigned), outcome.error)
    assert ("No IPs available in pools: [10.0.0.0/30]",) == outcome.messages[4]
    assert [] == findings(store)


def test_the_block_limit_comes_with_what_was_found(store):
    """One block of four addresses."""
    outcome = ask_for_part(store, counts={4: 6}, max_blocks=1)
    assert (4, BlockLimit) == (len(outcome.assigned), type(outcome.error))
    assert [] == findings(store)


def test_a_second_family_that_is_refused_leaves_the_first(store):
    """There is no IPv6 pool."""
    outcome = ask_for_part(store, counts={4: 1, 6: 1})
    assert (1, NoQualifiedPool) == (len(outcome.assigned), type(outcome.error))
    assert texts(outcome.assigned) == [str(b.cidr.address(0)) for b in survey(store).blocks]


def test_a_second_family_that_is_refused_leaves_the_messages_of_the_first(store):
    """Which found nothing, without being refused."""
    put_reservation(store, "10.0.0.0/28")
    outcome = ask_for_part(store, counts={4: 1, 6: 1})
    assert ((), NoQualifiedPool) == (outcome.assigned, type(outcome.error))
    assert ("No IPs available in pools: [10.0.0.0/28]",) == outcome.messages[4]


def test_a_first_family_that_is_refused_ends_it(store):
    """The second one is not tried."""
    put_pool(store, "pool1", "10.0.0.0/28", blockSize=30, disabled=True)
    put_pool(store, "pool6", "fd00::/120", blockSize=122)
    error = refusal(store, whole=False, counts={4: 1, 6: 1})
    assert isinstance(error, NoQualifiedPool)


def test_a_block_is_ensured_once(store):
    """And an address comes from it."""
    cidr = ensure_block(store, make_wish())
    assert cidr == ensure_block(store, make_wish())
    assert [cidr] == [block.cidr for block in survey(store).blocks]
    (address,) = add(store)
    assert str(cidr.address(0)) == address
    assert [] == findings(store)


def test_an_ensured_block_has_room(store):
    """Two addresses at the start and one at the end are its host's, and the third is reserved in
    each block but one; no other block is claimed."""
    put_reservation(store, "10.0.0.2/32", "10.0.0.6/32", "10.0.0.14/32")
    cidr = ensure_block(store, make_wish(host_reserved=(2, 1)))
    assert parse_cidr("10.0.0.8/30") == cidr
    assert [cidr] == [block.cidr for block in survey(store).blocks]
    assert [] == findings(store)


def test_no_block_with_room_is_an_error(store):
    """And nothing is claimed."""
    put_reservation(store, "10.0.0.0/28")
    before = entries(store)
    with pytest.raises(PoolExhausted):
        ensure_block(store, make_wish())
    assert before == entries(store)


def test_an_ensured_block_is_confirmed(store):
    """A crash had left its affinity pending."""
    cidr = ensure_block(store, make_wish())
    put(store, keys.affinity_key("node1", cidr), {"state": "pending"})
    assert cidr == ensure_block(store, make_wish())
    assert [] == findings(store)
