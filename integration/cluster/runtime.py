"""Waits until containerd has taken up a network list: `python runtime.py SOCKET FILE`.

A process of its own, because gRPC's threads and the forks of other tests don't go together.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import grpc

METHOD = "/runtime.v1.RuntimeService/Status"
VERBOSE_REQUEST = b"\x08\x01"
PATIENCE_SECONDS = 60.0


def wait_for_network(socket: str, text: str) -> bool:
    """Ask containerd for its state until that holds `text`, the network list as it was written."""
    # Within containerd's JSON the list is a string.
    wanted = json.dumps(text)[1:-1].encode()
    deadline = time.monotonic() + PATIENCE_SECONDS
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        ask = channel.unary_unary(METHOD)
        while time.monotonic() < deadline:
            answer: bytes = ask(VERBOSE_REQUEST, wait_for_ready=True, timeout=PATIENCE_SECONDS)
            if wanted in answer:
                return True
            time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(not wait_for_network(sys.argv[1], Path(sys.argv[2]).read_text()))
