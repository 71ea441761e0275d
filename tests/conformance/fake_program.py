"""A stand-in for the plugin, with which the runner is tried: it answers a few rows as they wish.

It allocates one address per container and verb ADD, and gives it back on DEL and GC.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cni_ipam.datastore.port import Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore

BLOCK = "/calico/ipam/v2/assignment/ipv4/block/192.168.0.0-26"


def allocate(path: str, number: int) -> None:
    """Let the one block have `number` allocations."""
    store = SqliteDatastore(path)
    ((entry, *_),) = store.read([Range(BLOCK)]) if os.path.exists(path) else [[None]]
    revision = entry.revision if entry else 0
    store.commit([Write(BLOCK, json.dumps({"allocations": [0] * number}), revision)])
    store.close()


def main() -> int:
    """Answer the verb of the environment."""
    verb = os.environ["CNI_COMMAND"]
    if verb == "VERSION":
        versions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
        sys.stdout.write(json.dumps({"cniVersion": "1.1.0", "supportedVersions": versions}))
        return 0
    try:
        config = json.loads(sys.stdin.read())
    except OSError:
        sys.stdout.write(json.dumps({"code": 5, "msg": "error reading from stdin: EBADF"}))
        return 1
    if not os.environ.get("CNI_CONTAINERID") and verb in ("ADD", "DEL"):
        msg = "required env variables [CNI_CONTAINERID] missing"
        sys.stdout.write(json.dumps({"code": 4, "msg": msg}))
        return 1
    if verb != "STATUS":
        allocate(config["sqlite_path"], 1 if verb == "ADD" else 0)
    if verb == "ADD":
        address = {"address": "192.168.0.5/26"}
        routes = [{"dst": "192.168.0.5/26"}]
        result = {"cniVersion": config["cniVersion"], "ips": [address], "routes": routes}
        sys.stdout.write(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
