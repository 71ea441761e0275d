"""Affinities: who owns a block, and who does not yet."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import CONFIRMED, PENDING, PENDING_DELETION, Affinity, owner_of

CIDR = parse_cidr("10.0.0.0/29")


@pytest.mark.parametrize(
    ("state", "expected"),
    [(CONFIRMED, True), ("", True), (PENDING, False), (PENDING_DELETION, False)],
)
def test_pending_is_absent(state, expected):
    """Only a confirmed affinity owns; an empty state is a legacy one and means confirmed."""
    assert expected == Affinity("host", "node1", CIDR, state).is_confirmed


def test_owner_is_the_text_that_the_block_holds():
    """Byte for byte, the host's name as it stands in the key."""
    assert "host:Node1" == Affinity("host", "Node1", CIDR).owner == owner_of("Node1")
    assert "virtual:load-balancer" == Affinity("virtual", "load-balancer", CIDR).owner
