"""CNI_ARGS: the grammar of the reference library, and what of it we know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import parse_address
from cni_ipam.errors import EnvironmentInvalid
from cni_ipam.workload.arguments import Arguments, parse_arguments

CRI = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c1"


def refusal_of(text: str, *, for_removal: bool = False) -> str:
    """The message with which `text` is refused, always with code 4."""
    with pytest.raises(EnvironmentInvalid) as raised:
        parse_arguments(text, for_removal=for_removal)
    return raised.value.msg


def test_no_arguments_are_fine() -> None:
    """An empty text is an absent one."""
    assert Arguments() == parse_arguments("")


def test_what_a_kubelet_passes_is_read() -> None:
    """The pod's keys, in any order, with others beside them (cni-071)."""
    expected = Arguments(
        pod_name="p",
        pod_namespace="ns",
        infra_container_id="c1",
        pod_uid="u",
        ignore_unknown=True,
    )
    assert expected == parse_arguments(f"K8S_POD_UID=u;UNKNOWN=1;{CRI}")


def test_the_pods_keys_need_no_ignore_unknown() -> None:
    """Calico's IPAM plugin fails over them; we know them."""
    arguments = parse_arguments("K8S_POD_NAME=p;K8S_POD_NAMESPACE=ns")
    assert ("ns", "p") == arguments.pod


@pytest.mark.parametrize("for_removal", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IgnoreUnknown=1;FOO", 'ARGS: invalid pair "FOO"'),
        ("IgnoreUnknown=1;FOO=a=b", 'ARGS: invalid pair "FOO=a=b"'),
        ("IgnoreUnknown=1;", 'ARGS: invalid pair ""'),
        (";", 'ARGS: invalid pair ""'),
        (
            "IgnoreUnknown=maybe;UNKNOWN=1",
            (
                'ARGS: error parsing value of pair "IgnoreUnknown=maybe": '
                "boolean unmarshal error: invalid input maybe"
            ),
        ),
        (
            "IP=10.0.0.300",
            'ARGS: error parsing value of pair "IP=10.0.0.300": invalid IP address: 10.0.0.300',
        ),
        (
            "IP=10.0.0.3/24",
            'ARGS: error parsing value of pair "IP=10.0.0.3/24": invalid IP address: 10.0.0.3/24',
        ),
    ],
)
def test_a_malformed_piece_is_refused(text: str, expected: str, *, for_removal: bool) -> None:
    """Rows cni-073 to cni-079, for every verb."""
    assert expected == refusal_of(text, for_removal=for_removal)


def test_unknown_keys_are_listed() -> None:
    """Row cni-069, in the words of the reference library."""
    assert 'ARGS: unknown args ["UNKNOWN=1" "X=2"]' == refusal_of("UNKNOWN=1;IP=10.0.0.1;X=2")


def test_a_removal_ignores_unknown_keys() -> None:
    """They cannot matter to what is given back."""
    assert Arguments() == parse_arguments("UNKNOWN=1", for_removal=True)


@pytest.mark.parametrize("value", ["1", "true", "True", "TRUE"])
@pytest.mark.parametrize("form", ["IgnoreUnknown={};UNKNOWN=1", "UNKNOWN=1;IgnoreUnknown={}"])
def test_unknown_keys_may_be_allowed_anywhere(value: str, form: str) -> None:
    """Rows cni-070 and cni-071: position and case of the value don't matter."""
    assert parse_arguments(form.format(value)).ignore_unknown


@pytest.mark.parametrize("value", ["0", "false", "False"])
def test_unknown_keys_may_be_forbidden(value: str) -> None:
    """Which is what happens without the word, too."""
    assert "ARGS: unknown args" in refusal_of(f"IgnoreUnknown={value};UNKNOWN=1")


def test_keys_are_case_sensitive() -> None:
    """Row cni-077: `ip` is not `IP`."""
    assert parse_arguments("IgnoreUnknown=1;ip=192.168.1.1").ip is None
    assert "ARGS: unknown args" in refusal_of("ip=192.168.1.1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IP=192.168.123.123", "192.168.123.123"),
        ("IP=fd00::1", "fd00::1"),
        ("IP=::ffff:10.0.0.1", "10.0.0.1"),
        ("IP=10.0.0.1;IP=10.0.0.2", "10.0.0.2"),
    ],
)
def test_an_address_can_be_wished_for(text: str, expected: str) -> None:
    """Row cni-080; the last one counts."""
    assert parse_address(expected) == parse_arguments(text).ip


def test_an_empty_address_is_none() -> None:
    """Go's net.IP takes an empty text as nil."""
    assert parse_arguments("IP=").ip is None


@pytest.mark.parametrize("text", ["K8S_POD_NAME=p", "K8S_POD_NAMESPACE=ns", "K8S_POD_NAME="])
def test_half_a_pod_is_no_pod(text: str) -> None:
    """Calico records pod and namespace only if it has both."""
    arguments = parse_arguments(text)
    assert ("cni", None) == (arguments.orchestrator, arguments.pod)


def test_a_whole_pod_is_kubernetes() -> None:
    """The orchestrator follows from the names."""
    arguments = parse_arguments(CRI)
    assert ("k8s", ("ns", "p")) == (arguments.orchestrator, arguments.pod)


def test_arguments_outside_utf_8_are_refused() -> None:
    """The pod's name goes into JSON."""
    assert "ARGS: CNI_ARGS is not UTF-8" == refusal_of("K8S_POD_NAME=\udcff")


def test_a_long_piece_is_shortened() -> None:
    """A message stays readable."""
    assert len(refusal_of("X" * 100_000)) < 200


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but the one error comes out, and a removal is never stricter."""
    try:
        parse_arguments(text)
    except EnvironmentInvalid:
        return
    parse_arguments(text, for_removal=True)
