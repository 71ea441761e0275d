"""What a reconciliation costs the kernel: the netlink messages that are really sent, as strace sees
them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.network import BUNDLE, find_obstacle
from integration.routes.keeping import KeptNode

if TYPE_CHECKING:
    from pathlib import Path

    from integration.netns import Lab

pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason=str(find_obstacle()))

BLOCKS = 200
# linux/rtnetlink.h; strace knows no names for requests of all families at once.
NAMES = {"0x1a": "RTM_GETROUTE", "0x12": "RTM_GETLINK", "0x16": "RTM_GETADDR"}
_MESSAGE = re.compile(r"nlmsg_len=\d+, nlmsg_type=(\w+)")


@pytest.fixture
def kept(lab: Lab, tmp_path: Path) -> KeptNode:
    """A node with 200 blocks and no route."""
    kept = KeptNode(lab, tmp_path)
    kept.make_pool(cidr="10.9.0.0/20")
    assert 128 == len(kept.claim("10.9.0.0/22"))
    assert 72 == len([block for part in range(9) for block in kept.claim(f"10.9.{4 + part}.0/26")])
    return kept


def count_messages(kept: KeptNode, *words: str) -> dict[str, int]:
    """How many requests of each kind one call of `ipamctl routes` sends."""
    trace = kept.var_lib / "trace"
    calls = ("strace", "-f", "-qq", "-e", "trace=sendto,sendmsg,sendmmsg,write", "-o", str(trace))
    program = (str(BUNDLE / "ipamctl"), "routes", *words)
    done = kept.run(*calls, *program, CNI_NETCONF_DIR=str(kept.networks))
    assert 0 == done.returncode, done.stderr
    return dict(Counter(NAMES.get(kind, kind) for kind in _MESSAGE.findall(trace.read_text())))


def test_200_missing_blackholes_take_one_dump_and_200_changes(kept):
    """No more, and the kernel has them all."""
    counts = count_messages(kept, "repair")

    assert {"RTM_GETROUTE": 1, "RTM_NEWROUTE": BLOCKS} == counts
    assert BLOCKS == len(kept.ours())


def test_200_blackholes_in_order_take_one_dump(kept):
    """Nothing else is asked, and nothing changed."""
    kept.repair()

    assert {"RTM_GETROUTE": 1} == count_messages(kept, "repair")


def test_only_what_is_needed_is_changed(kept):
    """Three are missing, and two are left behind."""
    kept.repair()
    for number in (0, 8, 248):
        kept.ip("route", "del", "blackhole", f"10.9.1.{number}/29")
    for number in (0, 8):
        kept.ip("route", "add", "blackhole", f"10.9.15.{number}/29", "proto", "85")

    counts = count_messages(kept, "repair")

    assert {"RTM_GETROUTE": 1, "RTM_NEWROUTE": 3, "RTM_DELROUTE": 2} == counts
    assert BLOCKS == len(kept.ours())


def test_where_pods_are_is_asked_once_for_each_namespace(lab, tmp_path):
    """One dump of the interfaces, and one of the addresses of each pod's namespace."""
    kept = KeptNode(lab, tmp_path)
    for _ in range(2):
        kept.add_pod()
    kept.flush()

    counts = count_messages(kept, "repair")

    asked = {"RTM_GETROUTE": 1, "RTM_GETLINK": 1, "RTM_GETADDR": 2}
    assert asked | {"RTM_NEWROUTE": 3} == counts
