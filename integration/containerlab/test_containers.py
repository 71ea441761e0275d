"""Lab 02's topology in containers, where a Docker engine is: the whole story, as in namespaces."""

import importlib

import pytest

from integration.labs.container import Container, find_docker_obstacle
from integration.labs.lab import Lab, find_lab_obstacle
from integration.network import ROOT
from integration.page import Page

OBSTACLE = find_lab_obstacle() or find_docker_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

story = importlib.import_module("integration.labs.02-external-pool.story")


def test_the_story_holds_in_containers():
    """With nothing in the image but this machine's own programs."""
    folder = ROOT / "integration" / "labs" / "02-external-pool"
    with Lab(folder, Page(), machine=Container) as lab:
        story.tell(lab, "bird")
