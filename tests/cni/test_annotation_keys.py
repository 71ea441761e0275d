"""The keys of the network configuration that are about a pod's annotations."""

from __future__ import annotations

import pytest

from cni_ipam.errors import NetconfError

KEY = "io.kubernetes.cri.pod-annotations"


def test_nothing_is_said_of_annotations_by_default(netconf_of):
    """They are heeded, the runtime passes none, and no feature is enabled."""
    netconf = netconf_of()
    assert (None, True, False, False) == (
        netconf.pod_annotations,
        netconf.heeds_annotations,
        netconf.ip_addrs_no_ipam,
        netconf.floating_ips,
    )


@pytest.mark.parametrize("passed", [{}, {"a": "b"}])
def test_the_runtime_may_pass_the_pods_annotations(netconf_of, passed):
    """None at all are not the same as not being told."""
    assert passed == netconf_of(runtimeConfig={KEY: passed}).pod_annotations


@pytest.mark.parametrize("key", ["ip_addrs_no_ipam", "floating_ips"])
def test_features_are_switched_on_one_by_one(netconf_of, key):
    """As in Calico's network configuration."""
    netconf = netconf_of(feature_control={key: True})
    found = {name: getattr(netconf, name) for name in ("ip_addrs_no_ipam", "floating_ips")}
    assert {"ip_addrs_no_ipam": False, "floating_ips": False, key: True} == found


@pytest.mark.parametrize(
    ("called_as", "kind", "policy", "expected"),
    [
        ("cni-ipam", "ptp", {"type": "k8s"}, True),
        ("cni-ipam", "ptp", {}, True),
        ("cni-ipam", "ptp", {"type": ""}, False),
        ("cni-ipam", "calico", {"type": "k8s"}, True),
        ("calico-ipam", "ptp", {"type": "k8s"}, True),
        ("calico-ipam", "calico", {"type": "k8s"}, False),
    ],
)
def test_who_heeds_annotations(netconf_of, called_as, kind, policy, expected):
    """Not behind Calico's main plugin, which has done so, nor where the policy is not k8s."""
    netconf = netconf_of(called_as=called_as, type=kind, policy=policy)
    assert expected == netconf.heeds_annotations


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"runtimeConfig": {KEY: []}}, f"runtimeConfig.{KEY}"),
        ({"feature_control": []}, "feature_control"),
        ({"feature_control": {"floating_ips": "true"}}, "feature_control.floating_ips"),
        ({"policy": "k8s"}, "policy"),
        ({"policy": {"type": 1}}, "policy.type"),
    ],
)
def test_a_wrong_type_is_refused_by_its_path(netconf_of, keys, path):
    """But not by DEL, which has no use for it."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(**keys)
    assert f'"{path}" is ' in raised.value.msg + raised.value.details
    assert netconf_of(**keys, command="DEL").heeds_annotations
