"""For the tests of every folder."""

from __future__ import annotations

from integration.pulse import start_pulse


def pytest_configure() -> None:
    """Before anything else."""
    start_pulse()
