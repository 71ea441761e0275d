"""Blocks that are there already, when none is unclaimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.ipam.affinity import claim_blocks
from tests.ipam.world import NOW, Overtaken, add, blocks_of, findings, put_config, put_pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_ipam.datastore.port import Entry, Range


class Late(Overtaken):
    """The port over a store, where somebody else does the deed right after the first read."""

    def read(self, ranges: Sequence[Range]) -> list[list[Entry]]:
        found = super().read(ranges)
        if self._deeds:
            self._deeds.pop()()
        return found


@pytest.mark.parametrize("strict", [False, True])
def test_blocks_that_the_host_claimed_meanwhile_serve(store, strict):
    """Other processes of this host were faster to claim the last blocks, which have room."""
    put_pool(store, "pool1", "10.0.0.0/29", blockSize=30)
    put_config(store, strict_affinity=strict)
    late = Late(store, lambda: claim_blocks(store, "node1", parse_cidr("10.0.0.0/29"), NOW))
    assert 1 == len(add(late))
    assert 2 == len(blocks_of(store, "node1"))
    assert [] == findings(store)
