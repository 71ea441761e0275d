"""A node with a real CNI runtime, and a pod, for every test that asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.netns import Lab
from integration.network import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Namespace


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Network namespaces that go with the test."""
    with Lab() as made:
        yield made


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Node:
    """A node without networks."""
    return Node(lab, tmp_path)


@pytest.fixture
def pod(lab: Lab) -> Namespace:
    """A pod without interfaces."""
    return lab.namespace("pod")
