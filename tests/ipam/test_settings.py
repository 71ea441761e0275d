"""The cluster-wide settings: rules, and what lies in the datastore (facts 1.6)."""

from __future__ import annotations

import pytest

from cni_ipam.core.config import IpamConfig
from cni_ipam.datastore import keys
from cni_ipam.errors import CorruptRecord, ValidationError
from cni_ipam.ipam.settings import change_config, read_config, write_config
from tests.ipam.world import Overtaken, entries, find, put, put_config


def test_without_a_record_there_are_defaults(empty):
    """Reading them stores nothing."""
    assert IpamConfig() == read_config(empty)
    assert [] == entries(empty)


@pytest.mark.parametrize(
    "config",
    [
        IpamConfig(),
        IpamConfig(strict_affinity=True, auto_allocate_blocks=False),
        IpamConfig(True, True, 3, 60, "Disabled"),
        IpamConfig(extra={"ofANewerPeer": 1}),
    ],
)
def test_what_was_written_is_read_back(empty, config):
    """Also when it is written a second time."""
    write_config(empty, IpamConfig(cooldown_seconds=7))
    write_config(empty, config)
    assert config == read_config(empty)


def test_it_is_stored_as_calico_does(empty):
    """Its spelling and order."""
    write_config(empty, IpamConfig(True, True, 2, 60, "Enabled"))
    expected = (
        '{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":2,'
        '"kubeVirtVMAddressPersistence":"Enabled","ipCooldownSeconds":60}'
    )
    assert expected == find(empty, keys.CONFIG).value


def test_switching_new_blocks_off_survives(empty):
    """Calico leaves out what is false; without a record it would be true."""
    write_config(empty, IpamConfig(strict_affinity=True, auto_allocate_blocks=False))
    assert '{"strict_affinity":true}' == find(empty, keys.CONFIG).value
    assert not read_config(empty).auto_allocate_blocks


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (IpamConfig(auto_allocate_blocks=False), "Cannot disable 'StrictAffinity' and"),
        (IpamConfig(max_blocks_per_host=1), "MaxBlocksPerHost requires StrictAffinity"),
        (IpamConfig(cooldown_seconds=1201), "IPCooldownSeconds is 1201"),
    ],
)
def test_what_breaks_a_rule_is_not_written(empty, config, expected):
    """The error names the rule."""
    with pytest.raises(ValidationError, match=expected):
        write_config(empty, config)
    assert [] == entries(empty)


def test_settings_that_cannot_be_understood_are_replaced(empty):
    """That is how they are mended."""
    put(empty, keys.CONFIG, "{")
    write_config(empty, IpamConfig())
    assert IpamConfig() == read_config(empty)


def test_a_change_leaves_the_others(store):
    """A newer peer's fields as well."""
    put_config(store, ipCooldownSeconds=30, ofANewerPeer=1)
    changed = change_config(store, strict_affinity=True)
    expected = IpamConfig(True, True, 0, 30, extra={"ofANewerPeer": 1})
    assert expected == changed == read_config(store)


def test_a_change_is_judged_by_its_outcome(store):
    """What is broken already can be mended, one field at a time or not."""
    put_config(store, maxBlocksPerHost=3)
    with pytest.raises(ValidationError, match="requires StrictAffinity"):
        change_config(store, cooldown_seconds=5)
    assert 3 == change_config(store, strict_affinity=True).max_blocks_per_host


def test_settings_that_cannot_be_understood_are_not_changed(store):
    """What they said is not known."""
    put(store, keys.CONFIG, "{")
    with pytest.raises(CorruptRecord):
        change_config(store, strict_affinity=True)


def test_two_changes_at_once_both_stay(empty):
    """The slower one decides anew."""
    others = Overtaken(empty, lambda: change_config(empty, cooldown_seconds=9))
    change_config(others, strict_affinity=True)
    assert IpamConfig(strict_affinity=True, cooldown_seconds=9) == read_config(empty)


def test_of_two_who_write_everything_the_last_one_is_heard(empty):
    """Whoever replaces all settings need not know the former ones."""
    others = Overtaken(empty, lambda: write_config(empty, IpamConfig(cooldown_seconds=9)))
    write_config(others, IpamConfig(strict_affinity=True))
    assert IpamConfig(strict_affinity=True) == read_config(empty)
