"""A node with a real CNI runtime, and a pod, for every test that asks for them; and which tests
stay together where several processes share the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from integration.netns import Lab
from integration.network import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.netns import Namespace

# Whose tests share servers that last. They take longest, so they begin first.
SHARING = ("integration/cluster/", "integration/etcd/")


class Sides(LoadScopeScheduling):
    """Which tests go to one process, where several share the work (`-n 2`)."""

    def _split_scope(self, nodeid: str) -> str:
        return find_side(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return Sides(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """What looks at a whole run comes last on its side."""
    ranks = {side: rank for rank, side in enumerate(SHARING)}
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
    items.sort(key=lambda item: ranks.get(find_side(item.nodeid), len(ranks)))


def find_side(nodeid: str) -> str:
    """What has to stay together with a test: all that shares its servers, else its file."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in SHARING if file.startswith(folder)), file)


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
