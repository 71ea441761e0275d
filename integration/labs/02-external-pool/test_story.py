"""The story: for either owner of the blackholes, twice, side by side, and nothing is left of it."""

import importlib
import os
import subprocess
import sys

import pytest

from integration.labs.lab import find_lab_obstacle
from integration.labs.test_harness import list_remains
from integration.network import ROOT
from integration.test_demo import look_at_machine

OBSTACLE = find_lab_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

story = importlib.import_module("integration.labs.02-external-pool.story")
END_SECONDS = 540


def start(owner):
    """What `make lab LAB=02-external-pool` runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "integration.labs.run", "02-external-pool"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"LAB_BLACKHOLES": owner},
    )


def finish(*processes):
    """What they printed; they succeed, and when all have ended nothing is left of them."""
    try:
        outputs = [process.communicate(timeout=END_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()  # it has ended if all is well
    for process, output in zip(processes, outputs, strict=True):
        assert 0 == process.returncode, output
        assert [] == list_remains(process.pid)
    return outputs


def test_two_labs_tell_the_story_side_by_side_and_leave_nothing():
    """One for each owner of the blackholes; what both print teaches, without colours."""
    before = look_at_machine()

    outputs = finish(*[start(owner) for owner in story.OWNERS])

    assert before == look_at_machine()
    for owner, output in zip(story.OWNERS, outputs, strict=True):
        assert f" proto {story.PROTOCOLS[owner]}: the prefix that node" in output
        assert "\033" not in output


@pytest.mark.parametrize("owner", story.OWNERS)
def test_the_story_can_be_told_again(owner):
    """And again nothing is left."""
    before = look_at_machine()

    finish(start(owner))

    assert before == look_at_machine()
