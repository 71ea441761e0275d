"""Lab 02's topology in containers: the whole story, as in namespaces."""

import contextlib
import importlib

import pytest

from integration.labs.container import Container, find_docker_obstacle
from integration.labs.engine import Engine, NoEngine
from integration.labs.lab import Lab, find_lab_obstacle
from integration.network import ROOT, find_missing
from integration.page import Page

OBSTACLE = find_lab_obstacle()
MISSING = find_docker_obstacle() and find_missing("docker")
pytestmark = [
    pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or ""),
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
]

story = importlib.import_module("integration.labs.02-external-pool.story")


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The Docker engine that answers here, or else one of this test."""
    with contextlib.ExitStack() as stack:
        if find_docker_obstacle() is not None:
            try:
                made = stack.enter_context(Engine(tmp_path))
            except NoEngine as error:
                pytest.skip(f"no Docker engine starts here: {error}")
            for name, value in made.environment.items():
                monkeypatch.setenv(name, value)
        yield


@pytest.mark.usefixtures("engine")
def test_the_story_holds_in_containers():
    """With nothing in the image but this machine's own programs."""
    folder = ROOT / "integration" / "labs" / "02-external-pool"
    with Lab(folder, Page(), machine=Container) as lab:
        story.tell(lab, "bird")
