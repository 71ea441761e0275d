"""Lab 02 without containerlab: its topology and the script's `test`, on the labs' machines.

`docker` is a stand-in that enters them. What it can't show: the images, and containerlab itself.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from integration.cluster.machine import NAMESPACES
from integration.labs.lab import Lab, find_lab_obstacle
from integration.network import ROOT
from integration.page import Page

SCRIPT = Path(__file__).with_name("run.sh")
OBSTACLE = find_lab_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")


@pytest.fixture
def lab():
    """The lab, without what its Kubernetes has in it from the beginning."""
    with Lab(ROOT / "integration" / "labs" / "02-external-pool", Page()) as made:
        made.ask("node1", "ipamctl delete ippool default-ipv4-ippool")
        yield made


@pytest.fixture
def docker(lab, tmp_path):
    """A PATH on which `docker exec [-i] clab-external-pool-NAME WORD…` enters a machine."""
    tools = tmp_path / "tools"
    tools.mkdir()
    cases = "".join(
        f'clab-external-pool-{name}) exec {shlex.join(machine.entrance(*NAMESPACES))} "$@" ;;\n'
        for name, machine in lab.machines.items()
    )
    (tools / "docker").write_text(
        "#!/bin/bash\n"
        '[ "$1" = exec ] && shift\n[ "$1" = -i ] && shift\n'
        f"name=$1\nshift\ncase $name in\n{cases}esac\nexit 1\n"
    )
    (tools / "docker").chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def test_the_client_reaches_the_external_pods_of_both_nodes_and_no_other(docker):
    """The script's own smoke test, up to the withdrawal of the last route."""
    done = subprocess.run(
        [SCRIPT, "test"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": docker},
        timeout=500,
    )
    assert (0, "containerlab: all is well") == (
        done.returncode,
        done.stdout.splitlines()[-1],
    ), done.stdout + done.stderr
