"""docs/routes.md, "BGP with BIRD 2": its commands, as they stand but for where BIRD's file is."""

from __future__ import annotations

import os
import re

import pytest

from integration.bird import Bird, with_bird
from integration.network import BUNDLE, ROOT, Node, find_obstacle

OBSTACLE = find_obstacle()
pytestmark = [with_bird, pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")]

CHAPTER = (ROOT / "docs" / "routes.md").read_text().partition("\n## BGP with BIRD 2\n")[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", CHAPTER, re.DOTALL)
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "net",
    "plugins": [
        {
            "type": "ptp",
            "ipam": {
                "type": "cni-ipam",
                "nodename": "node1",
                "default_pools": [{"name": "pool", "spec": {"cidr": "198.19.24.0/21"}}],
            },
        },
        {"type": "cni-ipam", "nodename": "node1"},
    ],
}


def test_the_commands_give_bird_its_file(lab, pod, tmp_path):
    """A peer from the first block, a configuration that BIRD takes from the second."""
    node = Node(lab, tmp_path)
    node.write_network(NETWORK)
    node.add("net", pod)
    said = follow(node, BLOCKS[0])
    assert "Successfully patched 1 'Node' resource\n" in said
    assert "Successfully applied 1 'BGPPeer' resource(s)\n" in said
    assert "router   192.0.2.254   (global)   64513   \n" in said
    with Bird("node1", node.namespace, tmp_path) as bird:
        first, second = BLOCKS[1].splitlines()
        follow(node, first.replace("/etc/bird/bird.conf", str(bird.config)))
        assert second == "ipamctl routes watch --bird /etc/bird/bird.conf"
        bird.start()
        assert "Global_192_0_2_254" in bird.protocols()


def follow(node: Node, commands: str) -> str:
    """What a shell on the node prints."""
    path = f"{BUNDLE}:{os.environ['PATH']}"
    done = node.run(
        "sh", "-ec", f"PATH={path}\n{commands}", CNI_NETCONF_DIR=str(node.networks), COLUMNS="120"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
