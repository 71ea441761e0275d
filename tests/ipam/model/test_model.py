"""The engine against `Plain`: 2,000 random stories, told to every kind of store.

The stories are the same each time. MODEL_EXAMPLES=10000 makes them new ones, that many per store.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.sqlite import SqliteDatastore
from tests.ipam.model.machine import Machine

pytestmark = pytest.mark.proof


WANTED = int(os.environ.get("MODEL_EXAMPLES", "0"))
# Where the fsync of each commit costs nothing, if there is such a place.
MEMORY_DISK = "/dev/shm"


class InOrder(Machine):
    """On a store that applies the writes of a commit one by one."""

    def make_store(self):
        return MemoryDatastore(atomic=False)


class OnDisk(Machine):
    """On SQLite."""

    def make_store(self):
        disk = MEMORY_DISK if Path(MEMORY_DISK).is_dir() else None
        self.folder = TemporaryDirectory(dir=disk)
        return SqliteDatastore(f"{self.folder.name}/ipam.db")

    def teardown(self):
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize(
    ("machine", "examples"),
    [
        pytest.param(Machine, 1100, id="memory"),
        pytest.param(InOrder, 600, id="memory-in-order"),
        pytest.param(OnDisk, 300, id="sqlite"),
    ],
)
def test_the_engine_does_what_the_plain_rules_say(machine, examples):
    """After each step the records are sound, and hold what sets and dicts would hold."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=WANTED or examples,
            stateful_step_count=20,
            derandomize=not WANTED,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
        ),
    )
