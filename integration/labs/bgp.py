"""BGP in a lab: BIRD on its nodes, and what the machine `router` has been told by them."""

from __future__ import annotations

import ipaddress
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.labs.lab import Lab

    Told = dict[ipaddress.IPv4Network, list[str]]

CONFIG = "/etc/bird/bird.conf"
PERIOD_SECONDS = 0.1


def start_bird(lab: Lab, node: str) -> None:
    """Start BIRD on a node, with the configuration that is there."""
    lab.type(node, "bird -R -P /run/bird/bird.pid 2>/run/bird/log")


def start_watch(lab: Lab, node: str) -> None:
    """Keep BIRD's configuration on a node true from now on, and our routes."""
    lab.type(node, f"ipamctl routes watch --bird {CONFIG} >/run/watch.log 2>&1 &")
    lab.ask(node, "pgrep -f 'routes [w]atch' >/run/watch.pid")


def is_watched(lab: Lab, node: str) -> bool:
    """Whether `start_watch` still holds."""
    return lab.attempt(node, "kill -0 $(cat /run/watch.pid)").returncode == 0


def end_watch(lab: Lab, node: str) -> None:
    """Undo `start_watch`."""
    lab.ask(node, "kill $(cat /run/watch.pid)")
    assert becomes_true(lambda: not is_watched(lab, node)), "the watch goes on"


def list_routes(lab: Lab, machine: str) -> list[str]:
    """The lines of `ip route`."""
    return [line.strip() for line in lab.ask(machine, "ip route").splitlines()]


def read_router(lab: Lab) -> Told:
    """The prefixes that the router has from nodes, each with the sessions that told them."""
    found: Told = {}
    prefix = None
    for line in lab.ask("router", "birdc show route").splitlines():
        if start := re.match(r"([\d.]+/\d+)\s", line):
            prefix = ipaddress.IPv4Network(start[1])
        if prefix and (told := re.search(r"\[(node\d) ", line)):
            found.setdefault(prefix, []).append(told[1])
    return found


def expect_sessions(lab: Lab) -> None:
    """The router's sessions come up, and that of the nodes."""
    for machine in ("router", "node1"):
        lab.expect_soon(
            lambda m=machine: lab.ask(m, "birdc show protocols").count("Established") == 2,
            f"{machine} has two sessions, established",
        )


def expect_router(
    lab: Lab,
    wanted: dict[ipaddress.IPv4Network, str],
    among: set[ipaddress.IPv4Network] | None = None,
) -> None:
    """The router gets to know these prefixes from these nodes, and no others (of `among`)."""
    expected = {prefix: [node] for prefix, node in wanted.items()}

    def is_so() -> bool:
        found = read_router(lab)
        return expected == {p: n for p, n in found.items() if among is None or p in among}

    words = [f"{prefix} from {node}" for prefix, node in sorted(wanted.items())]
    lab.expect_soon(is_so, f"the router knows {', '.join(words) or 'no route of the nodes'}")


@contextmanager
def watched(lab: Lab) -> Iterator[list[Told]]:
    """What the router knew, again and again within the block."""
    seen: list[Told] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(PERIOD_SECONDS):
            seen.append(read_router(lab))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
