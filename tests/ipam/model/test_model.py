"""The engine against `Plain`, on every kind of store."""

import os

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.ipam.model.machine import Machine


def test_memory():
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(os.environ.get("N", "100")),
            stateful_step_count=20,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
