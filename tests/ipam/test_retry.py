"""Optimism with an end."""

from __future__ import annotations

import pytest

from cni_ipam.errors import Conflict, RetriesExhausted
from cni_ipam.ipam.retry import ATTEMPTS, retry


def losing(times):
    """A step that loses so many swaps before it succeeds; it counts its calls."""
    calls = []

    def step():
        calls.append(len(calls))
        if len(calls) <= times:
            raise Conflict(f"/key/{len(calls)}")
        return "done"

    return step, calls


@pytest.mark.parametrize("times", [0, 1, ATTEMPTS - 1])
def test_a_lost_swap_is_decided_anew(times):
    """Until it succeeds."""
    step, calls = losing(times)
    assert "done" == retry(step)
    assert times + 1 == len(calls)


def test_too_many_lost_swaps_end_it():
    """With Calico's text (facts 2.6, 2.10); the details name the key."""
    step, calls = losing(ATTEMPTS)
    with pytest.raises(RetriesExhausted) as raised:
        retry(step)
    assert "Max retries hit - excessive concurrent IPAM requests" == raised.value.msg
    assert f"/key/{ATTEMPTS}" in raised.value.details
    assert (100, 11) == (len(calls), raised.value.code)


def test_other_errors_are_not_tried_again():
    """They would come again."""

    def step():
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        retry(step)
