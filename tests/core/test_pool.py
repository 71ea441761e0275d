"""Which pools a request may use, and what is said when there is none."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.pool import Pool, PoolRequest, choose_pools, find_pool
from cni_ipam.errors import NetconfError, NoQualifiedPool, ValidationError


def pool(name, cidr, **fields):
    """A pool with Calico's defaults but for `fields`."""
    parsed = parse_cidr(cidr)
    return Pool(name, parsed, fields.pop("block_size", {4: 26, 6: 122}[parsed.version]), **fields)


A = pool("a", "10.1.0.0/16")
B = pool("b", "10.2.0.0/16")
V6 = pool("six", "fd00::/64")


def chosen(pools, version=4, **request):
    """The names of the pools that a request of node1 may use."""
    return [p.name for p in choose_pools(pools, PoolRequest(version, node="node1", **request))]


def refusal(pools, version=4, **request):
    """The error for a request that may use none."""
    with pytest.raises(NoQualifiedPool) as raised:
        chosen(pools, version, **request)
    return raised.value


def test_all_enabled_pools_of_the_family_serve_in_order():
    """Order is that of the datastore."""
    assert ["a", "b"] == chosen([A, V6, B])
    assert ["six"] == chosen([A, V6, B], version=6)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"disabled": True}, "disabled"),
        ({"deleting": True}, "being deleted"),
        ({"allocatable": False}, "not allocatable (condition Allocatable is False)"),
    ],
)
def test_pools_that_give_nothing_are_named_with_the_reason(fields, reason):
    """Facts 2.1, 2.3.2: Calico's message, and what it does not tell."""
    error = refusal([pool("p", "10.1.0.0/16", **fields)])
    advice = "enable or create an IPv4 pool that selects this node"
    assert ("cannot find a qualified ippool", f"{advice}; p (10.1.0.0/16): {reason}") == (
        error.msg,
        error.details,
    )


def test_a_pool_that_is_off_is_passed_over():
    """While others serve."""
    assert ["b"] == chosen([pool("a", "10.1.0.0/16", disabled=True), B])


@pytest.mark.parametrize("version", [4, 6])
def test_no_pool_at_all_is_said(version):
    """The details name the family."""
    error = refusal([A] if version == 6 else [V6], version)
    advice = f"enable or create an IPv{version} pool that selects this node"
    assert f"{advice}; there is no IPv{version} pool" == error.details


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"assignment_mode": "Manual"}, "assignmentMode is Manual"),
        (
            {"node_selector": "rack == '1'"},
            "nodeSelector rack == '1' does not select node node1",
        ),
        (
            {"namespace_selector": "team == 'x'"},
            "namespaceSelector team == 'x' does not select the namespace",
        ),
    ],
)
def test_pools_that_select_otherwise_are_named_with_the_reason(fields, reason):
    """Facts 2.3.5, 2.4.2."""
    error = refusal([pool("p", "10.1.0.0/16", **fields)])
    advice = "request an enabled pool by name, or create one that selects this node"
    assert (
        "no configured Calico pools for node node1",
        f"{advice}; p (10.1.0.0/16): {reason}",
    ) == (
        error.msg,
        error.details,
    )


@pytest.mark.parametrize("labels", [{"rack": "1"}, {"rack": "1", "other": "2"}])
def test_node_selector_chooses_by_the_nodes_labels(labels):
    """A pool without selector serves everyone."""
    pools = [pool("rack1", "10.3.0.0/16", node_selector="rack == '1'"), B]
    assert ["rack1", "b"] == chosen(pools, node_labels=labels)
    assert ["b"] == chosen(pools)
    assert ["b"] == chosen(pools, node_labels={"rack": "2"})


def test_namespace_selector_chooses_by_the_namespaces_labels():
    """Unknown labels count as none."""
    pools = [pool("team", "10.3.0.0/16", namespace_selector="team == 'x'"), B]
    assert ["team", "b"] == chosen(pools, namespace_labels={"team": "x"})
    assert ["b"] == chosen(pools, namespace_labels={})
    assert ["b"] == chosen(pools)


@pytest.mark.parametrize("selector", ["", "all()"])
def test_an_empty_selector_selects_everything(selector):
    """Empty and all() need no parsing."""
    both = pool("p", "10.1.0.0/16", node_selector=selector, namespace_selector=selector)
    assert ["p"] == chosen([both])


@pytest.mark.parametrize("field", ["nodeSelector", "namespaceSelector"])
def test_an_unreadable_selector_is_an_error_that_names_its_pool(field):
    """Facts 2.3.5: it aborts the request; the message says where to correct what."""
    name = {"nodeSelector": "node_selector", "namespaceSelector": "namespace_selector"}[field]
    with pytest.raises(NetconfError) as raised:
        chosen([A, pool("p", "10.3.0.0/16", **{name: "rack =="})])
    assert f"{field} 'rack ==' of pool p cannot be parsed" in raised.value.msg
    assert f"spec.{field}" in raised.value.details


def test_a_request_overrides_selectors_and_mode():
    """Facts 2.3.4: whoever names a pool gets it, in the order named, duplicates kept."""
    odd = pool(
        "odd",
        "10.3.0.0/16",
        node_selector="rack == '1'",
        namespace_selector="team == 'x'",
        assignment_mode="Manual",
    )
    assert ["odd", "a", "odd"] == chosen([A, odd], requested=("odd", "10.1.0.0/16", "odd"))


def test_host_bits_of_a_request_are_masked_away():
    """Facts 2.2.1."""
    assert ["a"] == chosen([A, B], requested=("10.1.2.3/16",))


def test_a_part_of_a_pool_is_not_the_pool():
    """Facts 2.3.3, and the details list the pools that there are."""
    error = refusal([A, B], requested=("10.1.0.0/24",))
    assert "the given pool (10.1.0.0/24) does not exist, or is not enabled" == error.msg
    assert (
        "name another pool, or create one; "
        "a (10.1.0.0/16): not requested; b (10.2.0.0/16): not requested"
    ) == error.details


def test_a_requested_pool_must_be_enabled():
    """By name as by CIDR; the reason is in the details, and the command that enables it."""
    command = """ipamctl patch ippool a -p '{"spec":{"disabled":false}}'"""
    pools = [pool("a", "10.1.0.0/16", disabled=True), B]
    for text in ("a", "10.1.0.0/16"):
        error = refusal(pools, requested=(text,))
        assert "the given pool (10.1.0.0/16) does not exist, or is not enabled" == error.msg
        assert (
            f"enable pool a (`{command}`), or name another one; "
            "a (10.1.0.0/16): disabled; b (10.2.0.0/16): not requested"
        ) == error.details


@pytest.mark.parametrize(
    "fields",
    [
        {"deleting": True},
        {"allocatable": False},
        {"block_size": 8},
        {"disabled": True, "deleting": True},
    ],
)
def test_to_enable_a_pool_is_advised_only_if_it_helps(fields):
    """Else there is another pool to be had."""
    error = refusal([pool("a", "10.1.0.0/16", **fields), B], requested=("a",))
    assert error.details.startswith("name another pool, or create one; a (10.1.0.0/16): ")


def test_an_unknown_name_is_said_with_the_names_that_there_are():
    """Facts 2.2.3."""
    error = refusal([A, V6], requested=("nope",))
    assert 'error parsing pool "nope": invalid CIDR address: nope' == error.msg
    advice = "name another pool, or create one"
    assert f"no pool has that name; {advice}; pools: a, six" == error.details
    assert "pools: none" in refusal([], requested=("nope",)).details


@pytest.mark.parametrize(
    ("version", "text", "msg"),
    [
        (4, "six", '"fd00::" isn\'t a IPv4 address'),
        (4, "fd00::/64", '"fd00::" isn\'t a IPv4 address'),
        (6, "a", '"10.1.0.0" isn\'t a IPv6 address'),
    ],
)
def test_a_pool_of_the_other_family_is_refused(version, text, msg):
    """Facts 2.2.4."""
    with pytest.raises(NetconfError) as raised:
        chosen([A, V6], version, requested=(text,))
    assert msg == raised.value.msg


@pytest.mark.parametrize("requested", [(), ("p",)])
def test_a_pool_must_allow_the_use(requested):
    """Facts 2.4.3: also one that was asked for."""
    tunnel = pool("p", "10.1.0.0/16", allowed_uses=("Tunnel", "LoadBalancer"))
    error = refusal([tunnel], requested=requested)
    expected = "cannot find a qualified ippool, no pools match the required use (Workload)"
    assert expected == error.msg
    assert (
        "request or create a pool whose allowedUses has Workload; "
        "p (10.1.0.0/16): allowedUses is [Tunnel LoadBalancer]"
    ) == error.details
    assert ["p"] == chosen([tunnel], requested=requested, use="Tunnel")


@pytest.mark.parametrize("block_size", [33, 15, -1])
def test_a_block_that_does_not_fit_qualifies_no_pool(block_size):
    """Facts 2.3.1: longer than an address, or shorter than the pool's own prefix."""
    error = refusal([pool("p", "10.1.0.0/16", block_size=block_size)])
    assert "cannot find a qualified ippool" == error.msg
    assert error.details.endswith(f"; p (10.1.0.0/16): blockSize {block_size} does not fit")


def test_a_pool_whose_blocks_do_not_fit_is_passed_over():
    """It has no block that anyone could claim; others serve."""
    assert ["b"] == chosen([pool("p", "10.1.0.0/16", block_size=33), B])


def test_find_pool_looks_at_disabled_ones_too():
    """An address stays its pool's when that is switched off."""
    off = pool("off", "10.1.0.0/16", disabled=True)
    assert off is find_pool([V6, off, B], parse_address("10.1.2.3"))
    assert find_pool([V6, B], parse_address("10.1.2.3")) is None


def test_a_block_must_hold_more_than_its_host_keeps():
    """Facts 2.19: three addresses at the start and one at the end need blocks of eight."""
    pools = [
        pool("small", "10.1.0.0/16", block_size=30),
        pool("fits", "10.2.0.0/16", block_size=29),
    ]
    assert ["fits"] == chosen(pools, host_reserved=4)
    error = refusal(pools, host_reserved=4, requested=("small",))
    assert "the given pool (10.1.0.0/16) does not exist, or is not enabled" == error.msg
    assert "blockSize 30 leaves no room beside the host's own addresses" in error.details


def test_a_request_says_what_for():
    """Facts 2.4.3: no use is not any use."""
    with pytest.raises(ValidationError, match="must specify the intended use"):
        chosen([A], use="")
