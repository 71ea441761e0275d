"""The lab without containerlab: its topology and its script's `test`, on machines of our own.

`docker` is a stand-in that enters them. What it can't show: the images, and containerlab itself.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from integration.cluster.machine import NAMESPACES, Machine, find_cgroup_obstacle
from integration.etcd.member import find_programs
from integration.netns import Lab
from integration.network import BUNDLE, TOOLS, becomes_true, find_obstacle

FOLDER = Path(__file__).parent
BIRD = shutil.which("bird") or shutil.which("bird", path="/usr/sbin")
OBSTACLE = find_obstacle() or find_cgroup_obstacle() or ("" if BIRD else "there is no BIRD")
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE)


@pytest.fixture
def machines(tmp_path):
    """The machines of the topology, linked, with its files, after its commands."""
    topology = yaml.safe_load((FOLDER / "cni-ipam.clab.yaml").read_text())["topology"]
    made = {}
    try:
        for name in topology["nodes"]:
            programs = (Path(BIRD).parent, Path(find_programs("3.4").etcd).parent, BUNDLE)
            made[name] = Machine(name, tmp_path / name, programs)
            made[name].__enter__()
        link(made, topology)
        for name, node in topology["nodes"].items():
            prepare(made[name], node)
        yield made
    finally:
        for machine in made.values():
            machine.stop()


def link(machines, topology):
    """The links, and the management network, which hangs on etcd's machine."""
    lab = Lab()
    for ends in (found["endpoints"] for found in topology["links"]):
        (one, device), (other, peer) = (end.split(":") for end in ends)
        lab.veth(machines[one].namespace, device, machines[other].namespace, peer)
    hub = machines["etcd"].namespace
    hub.ip("link", "add", "eth0", "type", "bridge")
    hub.ip("link", "set", "eth0", "up")
    for name in machines:
        if name != "etcd":
            lab.veth(hub, name, machines[name].namespace, "eth0")
            hub.ip("link", "set", name, "master", "eth0")
    for name, node in topology["nodes"].items():
        machines[name].namespace.ip("address", "add", f"{node['mgmt-ipv4']}/24", "dev", "eth0")


def prepare(machine, node):
    """The image's files, the topology's, and its commands."""
    plugins = machine.path("/opt/cni/bin")
    plugins.mkdir(parents=True, exist_ok=True)
    for source in (BUNDLE / "cni-ipam", TOOLS / "ptp", TOOLS / "cnitool"):
        (plugins / source.name).unlink(missing_ok=True)
        (plugins / source.name).symlink_to(source.resolve())
    machine.path("/run/bird").mkdir()
    for bind in node.get("binds", []):
        source, target, _ = bind.split(":")
        place = machine.path(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FOLDER / source, place)
    for command in node["exec"]:
        machine.run(*shlex.split(command))


@pytest.fixture
def docker(machines, tmp_path):
    """A PATH on which `docker exec [-i] clab-cni-ipam-NAME WORD…` enters a machine."""
    tools = tmp_path / "tools"
    tools.mkdir()
    cases = "".join(
        f'clab-cni-ipam-{name}) exec {shlex.join(machine.entrance(*NAMESPACES))} "$@" ;;\n'
        for name, machine in machines.items()
    )
    (tools / "docker").write_text(
        "#!/bin/bash\n"
        '[ "$1" = exec ] && shift\n[ "$1" = -i ] && shift\n'
        f"name=$1\nshift\ncase $name in\n{cases}esac\nexit 1\n"
    )
    (tools / "docker").chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def test_pods_of_two_nodes_reach_each_other_by_way_of_the_router(machines, docker):
    """The lab's own smoke test: BGP carries the blocks, and the router knows of no pod."""
    etcd = ("etcdctl", "--endpoints=http://172.20.20.11:2379", "endpoint", "health")
    assert becomes_true(
        lambda: machines["node1"].run("env", "ETCDCTL_API=3", *etcd, check=False).returncode == 0,
        30,
    )
    done = subprocess.run(
        [FOLDER / "run.sh", "test"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": docker},
        timeout=120,
    )
    assert (0, "containerlab: all is well") == (
        done.returncode,
        done.stdout.splitlines()[-1],
    ), done.stdout + done.stderr
