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
    assert expected == IpamConfig(max_blocks_per_host=configured).limit_blocks()


@pytest.mark.parametrize(
    ("configured", "requested", "expected"), [(0, 1, 1), (5, 1, 1), (5, 9, 5), (0, 256, 256)]
)
def test_a_request_may_only_lower_the_limit(configured, requested, expected):
    """Unless the record leaves it open (facts 2.5)."""
    config = IpamConfig(max_blocks_per_host=configured)
    assert expected == config.limit_blocks(requested)
