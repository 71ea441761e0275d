"""The stores on which the engine must behave alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.sqlite import SqliteDatastore
from tests.ipam.world import furnish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni_ipam.datastore.port import Datastore


@pytest.fixture(params=["memory", "memory in order", "sqlite"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Datastore]:
    """A store with nothing in it: with transactions, without, and on the disk."""
    if request.param == "sqlite":
        store: Datastore = SqliteDatastore(str(tmp_path / "ipam.db"))
    else:
        store = MemoryDatastore(atomic=request.param == "memory")
    yield store
    store.close()


@pytest.fixture
def store(empty: Datastore) -> Datastore:
    """A pool 10.0.0.0/28 of four blocks, and three nodes."""
    return furnish(empty)
