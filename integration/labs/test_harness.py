"""The harness of the labs: what a newcomer meets before a story, and what is left after it."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from integration.labs.lab import Lab, find_lab_obstacle, remove_leftovers
from integration.labs.run import KEPT, list_labs
from integration.network import ROOT
from integration.page import Broken, Page
from integration.test_demo import look_at_machine

OBSTACLE = find_lab_obstacle()
with_lab = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

NAME = "02-external-pool"
FOLDER = Path(__file__).with_name(NAME)
COMMAND = [sys.executable, "-m", "integration.labs.run"]
END_SECONDS = 240


def run(*arguments, **variables):
    """What `make lab` runs."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )


@contextlib.contextmanager
def started(**options):
    """What `make lab` runs, as a process; a test that fails before its end interrupts it."""
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *COMMAND, NAME],  # whoever runs the tests may ignore it
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=END_SECONDS)


def list_remains(pid):
    """What is left of the labs of a process: machines' networks, control groups, folders; other
    processes have theirs, which come and go meanwhile."""
    machines = f"cni-machine-{pid}-"
    cgroups = [
        Path(folder, name) for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names
    ]
    return sorted(
        str(path)
        for path in (
            *Path("/run/netns").glob(f"{machines}*"),
            *(path for path in cgroups if path.name.startswith(machines)),
            *Path(tempfile.gettempdir()).glob(f"cni-lab-{pid}-*"),
            *(path.parent for path in KEPT.glob("*/pid") if is_of(path, pid)),
        )
    )


def is_of(file, pid):
    """Whether a kept lab is that of a process."""
    with contextlib.suppress(FileNotFoundError):
        return file.read_text() == str(pid)
    return False


def test_a_lab_that_is_not_there_is_refused_with_those_that_are():
    """So `make lab` alone says what there is."""
    done = run()
    assert (1, "") == (done.returncode, done.stderr)
    assert NAME in list_labs()
    assert f"there is no lab '', but {', '.join(list_labs())}." in done.stdout


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("boxes", "LAB_MACHINES is 'boxes', but there are namespaces and containers"),
        ("containers", "no Docker engine answers"),
    ],
)
@with_lab
def test_machines_that_cannot_be_had_are_refused_with_the_reason(wish, words):
    """Before anything is made; here no engine listens where DOCKER_HOST says."""
    done = run(NAME, LAB_MACHINES=wish, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert 1 == done.returncode
    assert words in done.stdout or "there is no docker" in done.stdout


@with_lab
def test_pods_come_and_go_with_kubernetes_objects():
    """A deployment's pods run on both nodes, answer, and are taken down again."""
    with Lab(FOLDER, Page()) as lab:
        lab.ask("node1", "kubectl create deployment web --image=web --replicas=2")
        pods = lab.wait_for_pods(2, "default", "app=web")
        assert ["node1", "node2"] == sorted(pod["spec"]["nodeName"] for pod in pods)
        for pod in pods:
            name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
            assert lab.fetches(node, pod["status"]["podIP"], name)
        lab.ask("node1", "kubectl scale deployment web --replicas=0")
        assert [] == lab.wait_for_pods(0, "default", "app=web")
        assert "" == lab.ask("node1", "ip route show proto 85 scope link; ip netns list")


@with_lab
def test_the_plugins_refusal_reaches_the_pods_events():
    """In its own words, and `wait_for_pod` raises them."""
    with Lab(FOLDER, Page()) as lab:
        wish = {"cni.projectcalico.org/ipv4pools": '["no-such-pool"]'}
        with pytest.raises(Broken, match="no-such-pool"):
            lab.run_pod("node1", "default", "wishful", annotations=wish)
        assert "no-such-pool" in lab.ask("node1", "kubectl describe pod wishful")


@with_lab
def test_two_labs_side_by_side_do_not_meet():
    """The same lab twice: the same names and networks, and neither sees the other's objects."""
    with Lab(FOLDER, Page()) as one, Lab(FOLDER, Page()) as other:
        address = one.run_pod("node1", "default", "ours")
        assert one.fetches("node1", address, "ours")
        assert not other.fetches("node1", address, "ours")
        assert [] == other.pods()
        assert address not in other.ask("node1", "ipamctl ipam show --show-blocks; ip route")


@with_lab
def test_nothing_is_left_of_a_lab_that_fails():
    """Neither processes nor networks, control groups, folders."""
    before = look_at_machine(), list_remains(os.getpid())
    pids = []

    def fail():
        with Lab(FOLDER, Page()) as lab:
            lab.run_pod("node1", "default", "web")
            machines = lab.machines.values()
            pids.extend(process.pid for machine in machines for process in machine.processes)
            lab.expect(False, "pigs fly")

    with pytest.raises(Broken, match="pigs fly"):
        fail()
    assert len(pids) > 3
    assert [] == [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert before == (look_at_machine(), list_remains(os.getpid()))


@with_lab
def test_a_kept_lab_can_be_entered_and_ended():
    """LAB_KEEP=1: the scripts that it names lead into a machine, and end it all."""
    before = look_at_machine()
    output = ""
    with started(env=os.environ | {"LAB_KEEP": "1"}) as process:
        while "ip netns" not in output.rpartition("\n\n")[2]:
            line = process.stdout.readline()
            assert line, output
            output += line
        enter, end = re.findall(r"^ +(build/\S+)", output, re.MULTILINE)
        inside = subprocess.run(
            [enter, "node1", "-c", "hostname; calicoctl get ippools; kubectl get nodes -o name"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        subprocess.run([end], cwd=ROOT, check=True)
        rest, _ = process.communicate(timeout=END_SECONDS)

    assert 0 == process.returncode
    assert inside.stdout.startswith("node1\nNAME ")
    assert "node/node1\nnode/node2\n" in inside.stdout
    assert rest.endswith("All that was made is removed.\n")
    assert before == look_at_machine()
    assert [] == list_remains(process.pid)


@with_lab
def test_an_interrupted_lab_tidies_up():
    """Ctrl-C amid its story, which goes to its children too."""
    before = look_at_machine()
    with started(start_new_session=True) as process:
        # Too small for the story's output, so it waits for us in one of its steps.
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        while not process.stdout.readline().startswith("=== 1."):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)

        output, _ = process.communicate(timeout=END_SECONDS)

    assert 130 == process.returncode, output
    assert before == look_at_machine()
    assert [] == list_remains(process.pid)


@with_lab
def test_what_a_killed_lab_leaves_goes_with_the_next():
    """Its folder and the names of its networks; the labs of processes that live stay."""
    with started(start_new_session=True) as process:
        while not process.stdout.readline().startswith("=== 1."):
            assert process.poll() is None
        remove_leftovers()
        assert any(f"/cni-lab-{process.pid}-" in path for path in list_remains(process.pid))
        process.kill()
        process.communicate(timeout=END_SECONDS)

    with Lab(FOLDER, Page()):
        assert [] == list_remains(process.pid)
