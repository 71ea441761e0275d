"""The lab in whose folder a test lies, up for that test alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.labs.lab import Lab, find_lab_obstacle
from integration.page import Page

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Before its story begins."""
    obstacle = find_lab_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    with Lab(request.path.parent, Page()) as made:
        yield made
