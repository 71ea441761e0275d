"""The cluster-wide settings and their defaults."""

from __future__ import annotations

import pytest

from cni_ipam.core.config import IpamConfig


def test_defaults_are_those_of_an_absent_record():
    """Facts 1.6."""
    assert IpamConfig(False, True, 0, 0) == IpamConfig()


@pytest.mark.parametrize(("configured", "expected"), [(0, 20), (1, 1), (20, 20), (500, 500)])
def test_block_limit_of_nothing_is_twenty(configured, expected):
    """As Calico's maxBlocksPerHost 0 does."""
    assert expected == IpamConfig(max_blocks_per_host=configured).block_limit
