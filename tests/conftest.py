"""What all tests share: a hypothesis that keeps no files and knows that machines can be busy."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
