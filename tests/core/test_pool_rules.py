"""The rules for pools and reservations, beyond what the tables of tests/conformance show."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.names import (
    ANNOTATIONS_BYTES,
    check_metadata,
    find_qualified_name_error,
    is_label_value,
    is_subdomain,
)
from cni_ipam.core.pool_rules import (
    FieldError,
    check_pool,
    check_pool_creation,
    check_pool_update,
    check_reservation,
    format_errors,
    same_cidr,
    with_pool_defaults,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = [
    *("cidr", "vxlanMode", "ipipMode", "natOutgoing", "disabled", "disableBGPExport", "blockSize"),
    *("nodeSelector", "namespaceSelector", "allowedUses", "assignmentMode", "colour"),
]
SPECS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | st.dictionaries(
    st.sampled_from(FIELDS), JSON, max_size=5
).map(lambda spec: {**spec, "cidr": "10.0.0.0/24"})
RESOURCES = JSON | st.fixed_dictionaries(
    {},
    optional={
        "kind": JSON | st.just("IPPool"),
        "metadata": JSON | st.just({"name": "p"}),
        "spec": JSON | SPECS,
    },
)


def pool(name="p", **spec):
    return {"kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": "10.0.0.0/24", **spec}}


def reservation(*cidrs, name="r"):
    return {
        "kind": "IPReservation",
        "metadata": {"name": name},
        "spec": {"reservedCIDRs": list(cidrs)},
    }


def overlap(other):
    return (
        "IPPool.Spec.CIDR = '10.0.0.0/24' "
        f"(IPPool(p) CIDR overlaps with IPPool({other['metadata']['name']}) "
        f"CIDR {other['spec']['cidr']})"
    )


def texts(errors):
    return [str(error) for error in errors]


def test_one_error_is_one_line():
    """A field with its value and the reason."""
    error = FieldError("IPPool.Spec.CIDR", "10.5.0.0/24", "IPPool CIDR is not strictly masked")
    assert (
        "error with field IPPool.Spec.CIDR = '10.5.0.0/24' (IPPool CIDR is not strictly masked)"
        == format_errors([error])
    )


def test_several_errors_are_a_list():
    """A line for each, and a newline at the end, as Calico has it."""
    errors = [FieldError("a", None, "b"), FieldError("c", "d", "e")]
    assert "error with the following fields:\n-  a (b)\n-  c = 'd' (e)\n" == format_errors(errors)


def test_defaults_leave_the_input_alone():
    """The pool with defaults is another one."""
    given_pool = pool(cidr="2001:DB8::1/64", allowedUses=None)
    before = deepcopy(given_pool)
    spec = with_pool_defaults(given_pool)["spec"]
    assert before == given_pool
    assert {
        "cidr": "2001:db8::/64",
        "blockSize": 122,
        "nodeSelector": "all()",
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "assignmentMode": "Automatic",
        "allowedUses": ["Workload", "Tunnel"],
    } == spec


def test_unreadable_cidr_has_no_block_size():
    """The family decides it, so nothing is filled in that might be wrong."""
    spec = with_pool_defaults(pool(cidr="rubbish"))["spec"]
    assert "rubbish" == spec["cidr"]
    assert "blockSize" not in spec


def test_defaults_are_filled_in_once():
    """A pool with defaults has nothing left to fill in."""
    once = with_pool_defaults(pool())
    assert once == with_pool_defaults(once)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"cidr": 5}, "spec.cidr = '5' (must be a string)"),
        ({"allowedUses": "Workload"}, "spec.allowedUses = 'Workload' (must be a list)"),
        ({"allowedUses": [5]}, "spec.allowedUses[0] = '5' (must be a string)"),
        ({"disabled": "yes"}, "spec.disabled = 'yes' (must be true or false)"),
        ({"disabled": 1}, "spec.disabled = '1' (must be true or false)"),
        ({"blockSize": "26"}, "spec.blockSize = '26' (must be an integer)"),
        ({"blockSize": 26.5}, "spec.blockSize = '26.5' (must be an integer)"),
        ({"blockSize": True}, "spec.blockSize = 'true' (must be an integer)"),
        ({"nodeSelector": {"a": "b"}}, "spec.nodeSelector = '{…}' (must be a string)"),
        ({"ipipMode": ["Always"]}, "spec.ipipMode = '[…]' (must be a string)"),
        (
            {"foo": "x"},
            "spec.foo = 'x' (field in document is not recognized or is in the wrong location: foo)",
        ),
    ],
)
def test_wrong_types_are_named(spec, text):
    """The field, what it is, and what it should be."""
    assert [text] == texts(check_pool(pool(**spec)))
    assert [text] == texts(check_pool_creation(pool(**spec), [], []))
    assert [text] == texts(check_pool_update(pool(), pool(**spec)))


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        ([], "resource = '[…]' (must be a map)"),
        ({"spec": {}}, "metadata (is missing: an IPPool has metadata and spec)"),
        ({"metadata": {}}, "spec (is missing: an IPPool has metadata and spec)"),
        ({**pool(), "spec": []}, "spec = '[…]' (must be a map)"),
        ({**pool(), "metadata": "p"}, "metadata = 'p' (must be a map)"),
        ({**pool(), "kind": "Node"}, "kind = 'Node' (must be IPPool)"),
        ({**pool(), "apiVersion": "v1"}, "apiVersion = 'v1' (must be projectcalico.org/v3)"),
        (
            {**pool(), "cidr": "10.0.0.0/24"},
            (
                "cidr = '10.0.0.0/24' "
                "(field in document is not recognized or is in the wrong location: cidr)"
            ),
        ),
        ({**pool(), "metadata": {"name": 5}}, "metadata.name = '5' (must be a string)"),
        (
            {**pool(), "metadata": {"name": "p", "labels": {"a": 5}}},
            "metadata.labels.a = '5' (must be a string)",
        ),
        (
            {**pool(), "metadata": {"name": "p", "annotations": {"a": None}}},
            "metadata.annotations.a = 'null' (must be a string)",
        ),
    ],
)
def test_wrong_shape_is_named(resource, text):
    """Whatever the document is, the answer is an error that names the place."""
    assert [text] == texts(check_pool(resource))


@given(RESOURCES, RESOURCES)
def test_nothing_that_a_document_holds_is_a_crash(resource, other):
    """Checks of any document end with a list of errors."""
    for errors in (
        check_pool(resource),
        check_pool_creation(resource, [other] if isinstance(other, dict) else [], []),
        check_pool_update(pool(), resource),
        check_reservation(resource),
    ):
        assert all(isinstance(str(error), str) for error in errors)


@given(SPECS)
def test_accepted_pool_stays_accepted_with_its_defaults(spec):
    """What creation accepts, the stateless rules accept once the defaults are in."""
    resource = pool(**spec)
    if not check_pool_creation(resource, [], []):
        assert [] == check_pool(with_pool_defaults(resource))


def test_null_is_as_good_as_no_field():
    """A key without a value, as YAML files have it, is a key that is not there."""
    assert [] == check_pool(pool(blockSize=None, disabled=None, allowedUses=None))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"cidr": ""}, "IPPool.Spec.CIDR = '' (IPPool CIDR must be specified)"),
        (
            {"cidr": "10.0.0.1"},
            "IPPool.Spec.CIDR = '10.0.0.1' (IPPool CIDR must be a valid subnet)",
        ),
        (
            {"cidr": "::ffff:10.0.0.0/120"},
            "IPPool.Spec.CIDR = '::ffff:10.0.0.0/120' (IPPool CIDR must be a valid subnet)",
        ),
        (
            {"cidr": "10.5.0.1/24"},
            "IPPool.Spec.CIDR = '10.5.0.0/24' (IPPool CIDR is not strictly masked)",
        ),
        (
            {"nodeSelector": "a ="},
            (
                "NodeSelector = 'a =' (Reason: failed to validate Field: NodeSelector because of "
                "Tag: selector : expected ==)"
            ),
        ),
        (
            {"namespaceSelector": "a"},
            "spec (IP Pool with AllowedUse Tunnel cannot have namespaceSelector)",
        ),
        (
            {"allowedUses": ["LoadBalancer"], "disableBGPExport": True},
            "spec (LoadBalancer IP pools cannot disable BGP export)",
        ),
        (
            {"allowedUses": ["Workload", "Workload"]},
            'spec.allowedUses[1] (duplicate value: "Workload")',
        ),
    ],
)
def test_creation_refuses_in_calico_s_words(spec, text):
    """The first thing that is wrong, once the defaults are filled in."""
    assert text in texts(check_pool_creation(pool(**spec), [], []))


def test_more_than_ten_uses_are_too_many():
    """The list is limited as in the schema."""
    errors = check_pool(pool(allowedUses=["Workload"] * 11))
    assert "spec.allowedUses = '11' (must have at most 10 items)" in texts(errors)


def test_each_overlapping_pool_is_named():
    """Disabled pools count; a pool of the same name and an unreadable one do not."""
    disabled, inside = pool("a", cidr="10.0.0.0/16", disabled=True), pool("b", cidr="10.0.0.128/25")
    others = [pool("p"), disabled, inside, pool("c", cidr="10.0.1.0/24"), pool("d", cidr="rubbish")]
    assert [overlap(disabled), overlap(inside)] == texts(
        check_pool_creation(pool(), [*others, {"metadata": None, "spec": None}], [])
    )


def test_leftover_blocks_of_another_size_bar_creation():
    """A block of the same size, of the other family or elsewhere does not."""
    blocks = [parse_cidr("10.0.0.0/26"), parse_cidr("fd00::/122"), parse_cidr("10.1.0.0/28")]
    assert [] == check_pool_creation(pool(blockSize=26), [], blocks)
    assert [
        (
            "IPPool.Spec.BlockSize = '28' (IPPool blocksSize conflicts with existing allocations "
            "that use a different blockSize)"
        )
    ] == texts(check_pool_creation(pool(blockSize=28), [], blocks))


def test_creation_takes_no_resource_version():
    """A new object has none."""
    resource = pool()
    resource["metadata"]["resourceVersion"] = "7"
    assert ["Metadata.ResourceVersion = '7' (field must not be set for a Create request)"] == texts(
        check_pool_creation(resource, [], [])
    )


def test_update_names_everything_that_cannot_change():
    """CIDR and block size."""
    assert [
        "IPPool.Spec.CIDR = '10.1.0.0/24' (IPPool CIDR cannot be modified)",
        "IPPool.Spec.BlockSize = '28' (IPPool BlockSize cannot be modified)",
    ] == texts(check_pool_update(pool(), pool(cidr="10.1.0.0/24", blockSize=28)))


def test_update_of_a_load_balancer_pool_stops_there():
    """Its use cannot become another."""
    old = pool(allowedUses=["LoadBalancer"])
    new = pool(allowedUses=["LoadBalancer", "Workload"])
    assert [
        (
            "IPPool.Spec.AllowedUses = '[LoadBalancer Workload]' "
            "(IPPool allowed use cannot be changed from LoadBalacer to Workload or Tunnel)"
        )
    ] == texts(check_pool_update(old, new))


def test_update_keeps_the_rules_of_one_pool():
    """What may change must still be sound, with its defaults and its mask."""
    assert [] == check_pool_update(pool(), pool(disabled=True, natOutgoing=True))
    assert ["spec (ipipMode and vxlanMode cannot both be enabled)"] == texts(
        check_pool_update(pool(), pool(ipipMode="Always", vxlanMode="Always"))
    )
    assert ["IPPool.Spec.CIDR = '10.0.0.0/24' (IPPool CIDR is not strictly masked)"] == texts(
        check_pool_update(pool(), pool(cidr="10.0.0.9/24"))
    )


def test_update_mends_an_old_spelling():
    """A stored CIDR in another spelling may become canonical, not the other way round."""
    assert same_cidr("2001:CAFE::/56", "2001:cafe::/56")
    assert not same_cidr("2001:cafe::/56", "2001:CAFE::/56")
    assert same_cidr("rubbish", "rubbish")
    assert [] == check_pool_update(pool(cidr="2001:CAFE::/56"), pool(cidr="2001:cafe::/56"))


def test_reservation_names_each_bad_entry():
    """Its place in the list, its text, and what would be right."""
    assert [] == check_reservation(reservation("10.0.0.1", "10.0.0.9/24", "fe80::1"))
    assert [
        (
            "spec.reservedCIDRs[1] = ' 10.0.0.0/24' "
            "(must be a CIDR or an IP address, as in 10.0.0.0/30 or 10.0.0.1)"
        )
    ] == texts(check_reservation(reservation("::/0", " 10.0.0.0/24")))
    assert ["spec.reservedCIDRs[0] = '5' (must be a string)"] == texts(
        check_reservation(reservation(5))
    )


def test_names_are_subdomains():
    """Parts of lower case letters, digits and dashes, 253 characters in all."""
    for good in ("a", "a.b", "1-a.b-2", "a" * 253):
        assert is_subdomain(good), good
    for bad in ("", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "é", "a" * 254, "a b"):
        assert not is_subdomain(bad), bad


def test_long_name_says_how_much_too_long():
    """Calico counts the bytes that are too many."""
    errors = check_metadata({"name": "a" * 255})
    assert ["name is too long by 2 bytes"] == [error.reason for error in errors]


def test_missing_name_is_told():
    """An object without a name cannot be created."""
    assert ["Metadata.Name (field must be set for a Create request)"] == texts(check_metadata({}))


def test_label_keys_are_qualified_names():
    """An optional subdomain, and a name of at most 63 characters."""
    for good in ("a", "A_b.c-d", "k8s.io/A", "a" * 63, f"{'a' * 253}/{'b' * 63}"):
        assert find_qualified_name_error(good) is None, good
    for bad in ("", "/a", "a/", "a/b/c", "-a", "a-", "K8s.io/a", "a" * 64, f"{'a' * 254}/b", "é"):
        assert find_qualified_name_error(bad), bad


def test_label_values_are_short_words():
    """Empty, or at most 63 characters that begin and end with a letter or a digit."""
    assert all(is_label_value(text) for text in ("", "a", "A_b.c-1", "a" * 63))
    assert not any(is_label_value(text) for text in ("-a", "a.", "a b", "a" * 64, "é"))


def test_bad_labels_are_told():
    """The key by its rule, the value by the label's name."""
    names = [error.value for error in check_metadata({"name": "a", "labels": {"-a": "-b"}})]
    assert ["-a", "-b"] == names


def test_annotation_keys_may_be_upper_case():
    """Kubernetes lowers them before it looks; anything else of a qualified name holds."""
    assert [] == check_metadata({"name": "a", "annotations": {"K8s.io/A": "any text é\n"}})
    assert check_metadata({"name": "a", "annotations": {"a b": ""}})


def test_annotations_have_a_limit_together():
    """256 KiB of keys and values, in bytes."""
    fits = {"a": "x" * (ANNOTATIONS_BYTES - 1)}
    assert [] == check_metadata({"name": "a", "annotations": fits})
    assert ["Metadata.Annotations (total size of annotations is too large by 2 bytes)"] == texts(
        check_metadata({"name": "a", "annotations": {**fits, "b": "x"}})
    )
