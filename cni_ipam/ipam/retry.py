"""Optimism with an end: decide, swap, and if another was first, decide anew."""

from __future__ import annotations

from cni_ipam.errors import Conflict, RetriesExhausted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

ATTEMPTS = 100


def retry(step: Callable[[], T]) -> T:
    """What `step` returns, called again after each lost swap. Raises RetriesExhausted."""
    lost = ""
    for _ in range(ATTEMPTS):
        try:
            return step()
        except Conflict as conflict:
            lost = conflict.key
    raise RetriesExhausted(
        "Max retries hit - excessive concurrent IPAM requests",
        f"{ATTEMPTS} swaps were lost, the last one of {lost}; try again",
    )
