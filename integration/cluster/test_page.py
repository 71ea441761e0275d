"""docs/kubernetes.md: its five commands, from nothing to a pod with an address of the named pool.

The pod's image is another, as there is no registry here.
"""

import re
import shlex

from integration.cluster.image import POD_IMAGE
from integration.cluster.test_daemonset import PATIENCE_SECONDS, image, prepared, ready
from integration.network import ROOT, becomes_true

__all__ = ["image", "prepared", "ready"]

PAGE = ROOT / "docs" / "kubernetes.md"


def read_commands():
    """The page's first block of commands."""
    (block, *_) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def test_the_five_commands(ready):
    """The pod has an address of the pool in its annotation, a plain one has the default's."""
    commands = read_commands()
    assert 5 == len(commands)
    run_web(ready, commands[:4])
    shown = follow(ready, commands[4])
    assert re.search(r"\b172\.16\.\d+\.\d+\b", shown)
    assert ready.run_pod("plain").startswith("10.244.")
    assert ready.pings("plain", ready.pod_ip("web"))


def test_a_pod_that_goes_leaves_no_address(ready):
    """Its block knows it no more, and its handle is gone."""
    run_web(ready, read_commands()[:4])
    ready.delete("pod", "web")
    handles = "/apis/crd.projectcalico.org/v1/ipamhandles"
    assert becomes_true(lambda: ready.get(handles)["items"] == [], PATIENCE_SECONDS)


def run_web(cluster, commands):
    """Follow the first four commands; with the last, the pod, when our network is there."""
    for command in commands[:3]:
        follow(cluster, command)
    cluster.kubectl(
        *("rollout", "status", "daemonset", "cni-ipam", "-n", "kube-system"),
        f"--timeout={PATIENCE_SECONDS}s",
    )
    follow(cluster, commands[3])
    cluster.wait_running("web")


def follow(cluster, command):
    """Run a command of the page, in the project's folder, with the image that is there."""
    assert "kubectl" == command[0]
    words = [
        f"--image={POD_IMAGE}"
        if word.startswith("--image=")
        else re.sub("^(conf|integration)/", f"{ROOT}/\\1/", word)
        for word in command[1:]
    ]
    words = ["60" if word == "86400" else word for word in words]
    return cluster.kubectl(*words).stdout
