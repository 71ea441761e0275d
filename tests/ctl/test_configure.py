"""ipam configure: the cluster-wide settings (facts 7.5)."""

from __future__ import annotations

import json

import pytest

from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Write


def settings(operator):
    return json.loads(operator.value(keys.CONFIG))


@pytest.mark.parametrize(
    ("option", "expected", "stored"),
    [
        ("--strictaffinity=true", "StrictAffinity to: true", {"strict_affinity": True}),
        ("--strictaffinity=1", "StrictAffinity to: true", {"strict_affinity": True}),
        ("--strictaffinity=T", "StrictAffinity to: true", {"strict_affinity": True}),
        ("--strictaffinity=F", "StrictAffinity to: false", {}),
        ("--strictaffinity=0", "StrictAffinity to: false", {}),
        ("--max-blocks-per-host=0", "MaxBlocksPerHost to: 0", {}),
        (
            "--kubevirt-ip-persistence=Disabled",
            "KubeVirtVMAddressPersistence to: Disabled",
            {"kubeVirtVMAddressPersistence": "Disabled"},
        ),
        ("--ip-cooldown-seconds=60", "IPCooldownSeconds to: 60", {"ipCooldownSeconds": 60}),
        ("--ip-cooldown-seconds=1200", "IPCooldownSeconds to: 1200", {"ipCooldownSeconds": 1200}),
    ],
)
def test_a_setting_is_stored_and_told(operator, option, expected, stored):
    """In calicoctl's words; new blocks stay allowed."""
    result = operator.types("ipam", "configure", option)
    assert (0, f"Successfully set {expected}\n") == (result.status, result.out)
    assert {"auto_allocate_blocks": True, **stored} == settings(operator)


def test_several_settings_in_one_call(operator):
    """Judged together: the limit needs the strictness."""
    result = operator.types("ipam", "configure", "--max-blocks-per-host=3", "--strictaffinity=true")
    expected = "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 3\n"
    assert (0, expected) == (result.status, result.out)


def test_other_settings_stay(operator):
    """Those of a newer peer as well."""
    stored = '{"auto_allocate_blocks":true,"ipCooldownSeconds":30,"later":1}'
    operator.write(Write(keys.CONFIG, stored, ABSENT))
    assert 0 == operator.types("ipam", "configure", "--strictaffinity=true").status
    assert {**json.loads(stored), "strict_affinity": True} == settings(operator)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--strictaffinity=yes", "invalid value. Use true or false to set strictaffinity"),
        ("--max-blocks-per-host=many", "invalid value for maxblockhost. Use a valid number"),
        (
            "--max-blocks-per-host=3",
            "error: MaxBlocksPerHost requires StrictAffinity to be enabled",
        ),
        ("--max-blocks-per-host=-1", "MaxBlocksPerHost is -1, it must be between 0 and"),
        ("--ip-cooldown-seconds=99999", "IPCooldownSeconds is 99999, it must be between 0 and"),
        ("--ip-cooldown-seconds=-2", "IPCooldownSeconds is -2, it must be between 0 and"),
        ("--ip-cooldown-seconds=soon", "invalid value 'soon' for ip-cooldown-seconds"),
        ("--kubevirt-ip-persistence=on", "invalid value 'on' for kubevirt-ip-persistence"),
    ],
)
def test_a_wrong_setting_is_refused(operator, option, expected):
    """And nothing is stored (calicoctl stores some of these)."""
    result = operator.types("ipam", "configure", option)
    assert (1, "") == (result.status, result.out)
    assert expected in result.err
    assert operator.value(keys.CONFIG) is None


@pytest.mark.parametrize("options", [[], ["--ip-cooldown-seconds=-1"]])
def test_nothing_to_set_is_refused(operator, options):
    """A cooldown of -1 is calicoctl's word for none."""
    result = operator.types("ipam", "configure", *options)
    assert (1, "at least one configuration option must be specified\n") == (
        result.status,
        result.err,
    )


def test_the_help_warns_of_a_cooldown_among_old_peers(operator):
    """They would never free an address again."""
    text = " ".join(operator.types("ipam", "configure", "--help").out.split())
    assert "Calico up to 3.32 never frees an address that rests" in text


def test_settings_against_the_rules_are_told(pool):
    """Whoever wrote them, and both where they are shown and where all is checked."""
    pool.write(Write(keys.CONFIG, '{"auto_allocate_blocks":true,"maxBlocksPerHost":3}', ABSENT))
    problem = "MaxBlocksPerHost requires StrictAffinity to be enabled"
    shown = pool.types("ipam", "show", "--show-configuration")
    checked = pool.types("ipam", "check")
    told = f"these settings break a rule: {problem}; see `ipamctl ipam configure`\n"
    assert (0, told) == (shown.status, shown.err)
    assert f"  leftover: IPAMConfiguration(default): {problem}; see" in checked.out
    assert "Check complete; found 1 problems." in checked.out
