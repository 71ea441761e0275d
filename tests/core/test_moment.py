"""Moments and their texts, against datetime."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.moment import SECOND, go_time, parse_rfc3339, rfc3339

SECONDS = st.integers(0, int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()))


@given(SECONDS, st.integers(0, SECOND - 1))
def test_rfc3339_has_whole_seconds(seconds, nanoseconds):
    """The fraction is cut off, not rounded."""
    expected = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert expected == rfc3339(seconds * SECOND + nanoseconds)


@given(SECONDS)
def test_rfc3339_is_read_back(seconds):
    """Every text that we write we can read."""
    assert seconds * SECOND == parse_rfc3339(rfc3339(seconds * SECOND))


@given(
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["seconds", "microseconds"]),
)
def test_offsets_and_fractions_are_understood(naive, offset_minutes, precision):
    """Others may write local time, and fractions, which are dropped."""
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    expected = (moment.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    assert int(expected) * SECOND == parse_rfc3339(moment.isoformat(timespec=precision))


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-01-02", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z",
     "2026-00-02T03:04:05Z", "2026-01-32T03:04:05Z", "2026-01-02T03:04Z", "2026-01-02T03:04:05",
     "2026-01-02T03:04:05+0100", "2026-01-02TZ", "2026-01-02T03:04:05*01:00", "2026-01T03:04:05Z"],
)  # fmt: skip
def test_unreadable_times_are_refused(text):
    """As a ValueError and nothing else."""
    with pytest.raises(ValueError):  # noqa: PT011
        parse_rfc3339(text)


@given(st.text(alphabet="0123456789-:TZ+. x", max_size=30))
def test_no_text_raises_anything_else(text):
    """Whatever stands in a record, reading it gives a number or a ValueError."""
    with suppress(ValueError):
        assert isinstance(parse_rfc3339(text), int)


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (938437476, "2026-11-21 10:26:59.938437476 +0000 UTC"),
        (0, "2026-11-21 10:26:59 +0000 UTC"),
        (500000000, "2026-11-21 10:26:59.5 +0000 UTC"),
        (1, "2026-11-21 10:26:59.000000001 +0000 UTC"),
        (120, "2026-11-21 10:26:59.00000012 +0000 UTC"),
    ],
)
def test_go_time_is_what_go_prints(nanoseconds, expected):
    """Nine digits at most, trailing zeros trimmed, no point where nothing follows it."""
    second = parse_rfc3339("2026-11-21T10:26:59Z")
    assert expected == go_time(second + nanoseconds)
