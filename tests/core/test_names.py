"""The shape of objects."""

from __future__ import annotations

import pytest

from cni_ipam.core.names import FieldError, check_fields


@pytest.mark.parametrize("value", [True, 1, 1.5, "x", [], {}])
def test_a_field_of_any_type_takes_everything(value):
    """Its own rule says what it may be."""
    assert [] == check_fields("spec", {"a": value}, {"a": object})


def test_true_is_no_integer():
    """Although Python says so."""
    expected = [FieldError("spec.a", "true", "must be an integer")]
    assert expected == check_fields("spec", {"a": True}, {"a": int})
