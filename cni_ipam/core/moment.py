"""Moments as nanoseconds since the epoch, and the texts that Calico's records hold.

The clock itself is never read here: `now` is an argument everywhere below the process edge.
"""

from __future__ import annotations

import time

SECOND = 1_000_000_000


def rfc3339(now: int) -> str:
    """`2026-01-02T03:04:05Z`: whole seconds, as Go's metav1.Time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now // SECOND))


def go_time(now: int) -> str:
    """`2026-11-21 10:26:59.938437476 +0000 UTC`, as Go's time.Time.String() in UTC."""
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now // SECOND))
    fraction = f"{now % SECOND:09d}".rstrip("0")
    return f"{text}.{fraction} +0000 UTC" if fraction else f"{text} +0000 UTC"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch; a fraction is dropped. Raises ValueError."""
    date, letter, clock = text.partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    clock, offset = _split_offset(clock)
    hour, minute, second = (int(part) for part in clock.partition(".")[0].split(":"))
    if not letter or not (1 <= month <= 12 and 1 <= day <= 31):
        raise ValueError(f"invalid time: {text}")
    seconds = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset
    return seconds * SECOND


def _split_offset(clock: str) -> tuple[str, int]:
    if clock.endswith(("Z", "z")):
        return clock[:-1], 0
    body, sign, offset = clock[:-6], clock[-6:-5], clock[-5:]
    hours, colon, minutes = offset.partition(":")
    if sign not in ("+", "-") or not colon:
        raise ValueError(f"invalid time: {clock}")
    seconds = int(hours) * 3600 + int(minutes) * 60
    return body, seconds if sign == "+" else -seconds


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar, years counted from March."""
    year -= month < 3
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    leap_days = year_of_era // 4 - year_of_era // 100
    return era * 146097 + year_of_era * 365 + leap_days + day_of_year - 719468
