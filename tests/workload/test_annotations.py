"""What annotations ask for: syntax, precedence and errors are Calico's."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import parse_address
from cni_ipam.errors import NetconfError
from cni_ipam.workload.annotations import Annotated, Annotations, parse_namespace, parse_pod

PREFIX = "cni.projectcalico.org/"
NOT_A_LIST = "json: cannot unmarshal string into Go value of type []string"


def pod_of(*, no_ipam: bool = True, floating: bool = True, **texts: object) -> Annotated:
    """What a pod with these annotations asks for."""
    pod = annotations("pod shop/web", texts)
    return parse_pod(pod, ip_addrs_no_ipam=no_ipam, floating_ips=floating)


def namespace_of(pod: Annotated, **texts: object) -> Annotated:
    """What remains to be asked for if its namespace has these."""
    return parse_namespace(annotations("namespace shop", texts), pod)


def annotations(place: str, texts: dict[str, object]) -> Annotations:
    return Annotations(place, {PREFIX + key: text for key, text in texts.items()})


def refusal_of(**texts: object) -> NetconfError:
    """The error for a pod with these annotations, where no feature is enabled."""
    with pytest.raises(NetconfError) as raised:
        pod_of(no_ipam=False, floating=False, **texts)
    return raised.value


def addresses(*texts: str) -> tuple[object, ...]:
    return tuple(map(parse_address, texts))


def test_no_annotation_asks_for_nothing():
    """Others' annotations are none of ours."""
    pod = parse_pod(
        Annotations("pod shop/web", {"ipv4pools": "[", "projectcalico.org/ipv4pools": "["}),
        ip_addrs_no_ipam=False,
        floating_ips=False,
    )
    assert Annotated(None, {}) == pod
    assert pod.leaves_open


def test_pools_are_names_and_cidrs_in_their_order():
    """Which of the two a text is depends on the pools that there are."""
    pod = pod_of(ipv4pools='["pool2","172.16.0.0/16"]', ipv6pools='[ "fd80::/64" ]')
    assert {4: ("pool2", "172.16.0.0/16"), 6: ("fd80::/64",)} == pod.pools


@pytest.mark.parametrize("text", ["[]", "null", " [ ] "])
def test_an_empty_list_overrides(text):
    """No restriction, whatever the namespace says."""
    said = namespace_of(pod_of(ipv4pools=text), ipv4pools='["pool1"]', ipv6pools='["pool6"]')
    assert {4: (), 6: ("pool6",)} == said.pools


def test_an_empty_text_falls_back():
    """In each kind."""
    pod = pod_of(ipv4pools="", ipFamilies="", ipAddrs="", ipAddrsNoIpam="", floatingIPs="")
    said = namespace_of(pod, ipv4pools='["pool1"]', ipFamilies='["IPv6"]')
    assert Annotated((6,), {4: ("pool1",)}) == said


def test_the_pod_comes_before_its_namespace_in_each_kind_on_its_own():
    """IPv4 from the pod, IPv6 and the families from the namespace."""
    pod = pod_of(ipv4pools='["pool2"]')
    said = namespace_of(
        pod, ipv4pools='["pool1"]', ipv6pools='["pool6"]', ipFamilies='["IPv4","IPv6"]'
    )
    assert Annotated((4, 6), {4: ("pool2",), 6: ("pool6",)}) == said


def test_what_the_pod_overrides_may_be_malformed():
    """Calico does not look at it either."""
    pod = pod_of(ipv4pools="[]", ipFamilies='["IPv4"]')
    assert pod == namespace_of(pod, ipv4pools="{", ipFamilies="IPv5")


@pytest.mark.parametrize("key", ["ipAddrs", "ipAddrsNoIpam", "floatingIPs"])
def test_a_namespace_has_no_addresses(key):
    """They would be those of one pod."""
    assert Annotated(None, {}) == namespace_of(pod_of(), **{key: "malformed"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["IPv4"]', (4,)),
        ('["IPv6"]', (6,)),
        ('["IPv6","IPv4"]', (4, 6)),
        ('["IPv4","IPv4"]', (4,)),
        ("[]", ()),
        ("null", ()),
    ],
)
def test_families_are_switched_by_their_names(text, expected):
    """In any order; an empty list switches both off."""
    assert expected == pod_of(ipFamilies=text).families


@pytest.mark.parametrize("text", ['["ipv4"]', '["IPv4","IPv5"]', '["IPv4 "]', "[null]"])
def test_an_unknown_family_is_refused(text):
    """In Calico's words, and the details say where it stands and what would be right."""
    error = refusal_of(ipFamilies=text)
    assert f"error parsing ipFamilies: {text}" == error.msg
    assert (
        f'annotation "{PREFIX}ipFamilies" of pod shop/web is {text}; '
        'right is ["IPv4"], ["IPv6"] or ["IPv4","IPv6"]'
    ) == error.details


@pytest.mark.parametrize("key", ["ipv4pools", "ipv6pools", "ipFamilies"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("172.16.0.0/16", "invalid character '.' after top-level value"),
        ('["a"', "unexpected end of JSON input"),
        ('"a"', NOT_A_LIST),
        ("[1]", "json: cannot unmarshal number into Go value of type string"),
        ("[" * 300 + "]" * 300, "nested deeper than 200 at line 1, column 1"),
    ],
)
def test_what_is_no_list_is_told_with_gos_reason(key, text, expected):
    """Which annotation, whose, and why."""
    error = refusal_of(**{key: text})
    assert f'cannot read annotation "{PREFIX}{key}" of pod shop/web: {expected}' == error.msg


def test_a_namespaces_annotation_is_told_as_its():
    """So that people look in the right place."""
    with pytest.raises(NetconfError, match="of namespace shop: invalid character 'p'"):
        namespace_of(pod_of(), ipv6pools="pool6")


def test_fixed_addresses_come_in_the_order_of_families():
    """At most one of each; the pools must be readable all the same."""
    pod = pod_of(ipAddrs='["fd00::5","10.0.0.5"]', ipv4pools='["nosuch"]')
    assert addresses("10.0.0.5", "fd00::5") == pod.fixed
    assert () == pod.without_ipam


@pytest.mark.parametrize("key", ["ipAddrs", "ipAddrsNoIpam"])
def test_with_addresses_of_its_own_the_namespace_does_not_matter(key):
    """The pod wants these and no others."""
    assert not pod_of(**{key: '["10.0.0.5"]'}).leaves_open


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"ipFamilies": '["IPv4"]', "ipv4pools": '["a"]'}, False),
        ({"ipFamilies": '["IPv4"]', "ipv6pools": '["a"]'}, True),
        ({"ipFamilies": '["IPv4","IPv6"]', "ipv4pools": '["a"]'}, True),
        ({"ipv4pools": '["a"]', "ipv6pools": '["b"]'}, True),
        ({"ipFamilies": "[]"}, False),
    ],
)
def test_the_namespace_matters_where_the_pod_leaves_something_open(texts, expected):
    """Pools of a family that the pod does not want are nothing to ask for."""
    assert expected == pod_of(**texts).leaves_open


@pytest.mark.parametrize("key", ["ipAddrs", "ipAddrsNoIpam"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", 'annotation "{key}" specified but empty'),
        ("null", 'annotation "{key}" specified but empty'),
        ('["10.0.0.1/32"]', "invalid IP format: 10.0.0.1/32"),
        ('["10.0.0.300"]', "invalid IP format: 10.0.0.300"),
        ("[null]", "invalid IP format: "),
        (
            '["10.0.0.1","10.0.0.2"]',
            'cannot have more than one IPv4 address for "{key}" annotation',
        ),
        ('["fd00::1","fd00::2"]', 'cannot have more than one IPv6 address for "{key}" annotation'),
        (
            '["10.0.0.1","::ffff:10.0.0.2"]',
            'cannot have more than one IPv4 address for "{key}" annotation',
        ),
        (
            "20.0.0.1",
            (
                'failed to parse IPs 20.0.0.1 for annotation "{key}": failed to parse '
                "'20.0.0.1' as JSON: invalid character '.' after top-level value"
            ),
        ),
        (
            '"20.0.0.1"',
            (
                'failed to parse IPs "20.0.0.1" for annotation "{key}": '
                f"failed to parse '\"20.0.0.1\"' as JSON: {NOT_A_LIST}"
            ),
        ),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(key, text, expected):
    """In Calico's words, both kinds alike."""
    with pytest.raises(NetconfError) as raised:
        pod_of(**{key: text})
    assert expected.replace("{key}", PREFIX + key) == raised.value.msg
    assert f'annotation "{PREFIX}{key}" of pod shop/web is {text}' in raised.value.details


@pytest.mark.parametrize(
    ("key", "feature"), [("ipAddrsNoIpam", "ip_addrs_no_ipam"), ("floatingIPs", "floating_ips")]
)
def test_a_feature_must_be_enabled(key, feature):
    """Whatever the annotation holds; the details tell the switch."""
    error = refusal_of(**{key: "malformed"})
    assert f"requested feature is not enabled: {feature}" == error.msg
    assert f'"feature_control": {{"{feature}": true}}' in error.details


def test_addresses_without_ipam_are_answered_only():
    """They are not among those to assign."""
    pod = pod_of(ipAddrsNoIpam='["203.0.113.9"]')
    assert (addresses("203.0.113.9"), ()) == (pod.without_ipam, pod.fixed)


def test_floating_addresses_are_the_interface_plugins():
    """Once they are enabled they are none of IPAM's business."""
    assert Annotated(None, {}) == pod_of(floatingIPs='["1.2.3.4"]')


def test_addresses_with_and_without_ipam_exclude_each_other():
    """This comes before the question whether the feature is enabled."""
    error = refusal_of(ipAddrs='["10.0.0.1"]', ipAddrsNoIpam='["10.0.0.1"]')
    expected = "can't have both annotations: 'ipAddrs' and 'ipAddrsNoIpam' in use at the same time"
    assert expected == error.msg


@pytest.mark.parametrize("value", [1, True, [], {}])
def test_an_annotation_is_a_text(value):
    """A runtime could pass anything."""
    error = refusal_of(ipv4pools=value)
    assert f'annotation "{PREFIX}ipv4pools" of pod shop/web is not a text' == error.msg


def test_a_long_annotation_is_shortened():
    """An annotation may have 256 KiB, which nobody reads in an error."""
    error = refusal_of(ipFamilies=f'["{"x" * 100_000}"]')
    assert len(error.msg) < 300
    assert len(error.details) < 500


@given(st.dictionaries(st.sampled_from(["ipv4pools", "ipFamilies", "ipAddrs"]), st.text()))
def test_any_text_is_read_or_refused(texts):
    """Nothing but the one error comes out."""
    with suppress(NetconfError):
        pod_of(**texts)
