"""The cluster-wide settings and their defaults."""

from __future__ import annotations

import pytest

from cni_ipam.core.config import IpamConfig, find_config_problems


def test_defaults_are_those_of_an_absent_record():
    """Facts 1.6."""
    assert IpamConfig(False, True, 0, 0) == IpamConfig()


@pytest.mark.parametrize(
    ("configured", "expected"), [(0, 20), (1, 1), (20, 20), (500, 500), (-1, 20)]
)
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


@pytest.mark.parametrize(
    "config",
    [
        IpamConfig(),
        IpamConfig(strict_affinity=True, auto_allocate_blocks=False),
        IpamConfig(strict_affinity=True, max_blocks_per_host=2**31 - 1),
        IpamConfig(cooldown_seconds=1200),
        IpamConfig(vm_persistence="Enabled"),
        IpamConfig(vm_persistence="Disabled"),
    ],
)
def test_settings_within_the_rules(config):
    """The bounds belong to them."""
    assert [] == find_config_problems(config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            IpamConfig(auto_allocate_blocks=False),
            "Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time",
        ),
        (
            IpamConfig(max_blocks_per_host=1),
            "MaxBlocksPerHost requires StrictAffinity to be enabled",
        ),
        (
            IpamConfig(strict_affinity=True, max_blocks_per_host=-1),
            "MaxBlocksPerHost is -1, it must be between 0 and 2147483647",
        ),
        (
            IpamConfig(strict_affinity=True, max_blocks_per_host=2**31),
            "MaxBlocksPerHost is 2147483648, it must be between 0 and 2147483647",
        ),
        (
            IpamConfig(cooldown_seconds=-1),
            "IPCooldownSeconds is -1, it must be between 0 and 1200",
        ),
        (
            IpamConfig(cooldown_seconds=1201),
            "IPCooldownSeconds is 1201, it must be between 0 and 1200",
        ),
        (
            IpamConfig(vm_persistence="enabled"),
            "KubeVirtVMAddressPersistence is 'enabled', it must be Enabled or Disabled",
        ),
    ],
)
def test_each_broken_rule_is_told(config, expected):
    """Those of Calico's library and of its schema (facts 1.6)."""
    assert [expected] == find_config_problems(config)


def test_all_broken_rules_are_told():
    """Not one after the other."""
    config = IpamConfig(False, False, 5, 5000, "no")
    assert 4 == len(find_config_problems(config))
