"""cni-protocol.json: rows run against the built program, under the name `calico-ipam`.

Each row has a datastore of its own, a SQLite file in a temporary folder, which its stdin names.
Before a verb that looks at an attachment or takes one away, an ADD of the same attachment is run;
so it shows whether the verb reached its handler: what is allocated before and after tells.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_ipam.datastore.port import Range
from cni_ipam.datastore.sqlite import SqliteDatastore

from .cni_expectations import Answer, Trial, check
from .departures import adapt

Row = dict[str, Any]

BUILT = Path(__file__).resolve().parents[2] / "dist" / "cni-ipam" / "calico-ipam"
TIMEOUT_SECONDS = 60
NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*"
IFNAME = r"[a-zA-Z0-9]{1,15}"
BLOCKS = "/calico/ipam/v2/assignment/"
KEYS = {
    "id",
    "what",
    "why",
    "source",
    "origin",
    "note",
    "applies_to",
    "env",
    "stdin",
    "given",
    "expect",
}
POOLS: list[Row] = [
    {"name": "default", "spec": {"cidr": "192.168.0.0/16"}},
    {"name": "default-v6", "spec": {"cidr": "fd00:192:168::/64"}},
]
TINY_POOL: Row = {"name": "tiny", "spec": {"cidr": "192.168.0.0/32", "blockSize": 32}}
ATTACHMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/var/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG: Row = {
    "cniVersion": "1.0.0",
    "name": "net1",
    "type": "calico",
    "ipam": {"type": "calico-ipam"},
}


def run_row(row: Row) -> list[str]:
    """Run the row's call in a datastore of its own, and compare all that the row expects."""
    program = find_program()
    if not program.is_file():
        return [f"{program} is not there: `make build` makes it, CNI_IPAM_PROGRAM names another"]
    unknown = row.keys() - KEYS
    if unknown:
        return [f"keys that the runner does not know: {sorted(unknown)}"]
    row = adapt(row)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        try:
            return check(_try(Place(program, Path(folder), _pools_of(row)), row), row["expect"])
        except NotRun as error:
            return [str(error)]


def find_program() -> Path:
    """The program under test; CNI_IPAM_PROGRAM names another than the built one."""
    return Path(os.environ.get("CNI_IPAM_PROGRAM") or BUILT)


class NotRun(Exception):
    """The row could not be run as it asks."""


@dataclass(frozen=True)
class Place:
    """A program with an empty datastore of its own."""

    program: Path
    folder: Path
    pools: list[Row]

    def call(self, env: dict[str, str], stdin: object) -> Answer:
        """Run the program once. Raises NotRun if it does not end in time."""
        env = {"PATH": os.defpath, **env}
        if env.get("CNI_NETNS") == "<own netns>":
            env["CNI_NETNS"] = "/proc/self/ns/net"
        with ExitStack() as stack:
            try:
                ended = subprocess.run(
                    [self.program],
                    env=env,
                    stdin=self._open_stdin(stdin, stack),
                    capture_output=True,
                    timeout=TIMEOUT_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise NotRun(f"did not end within {TIMEOUT_SECONDS} s") from None
        out, err = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
        return Answer(ended.returncode, out, err)

    def count_allocated(self) -> int:
        """How many addresses are allocated, in all blocks."""
        store = SqliteDatastore(str(self.folder / "ipam.db"), create=False)
        try:
            (blocks,) = store.read([Range(BLOCKS, prefix=True)])
        finally:
            store.close()
        allocations = [json.loads(block.value)["allocations"] for block in blocks]
        return sum(index is not None for block in allocations for index in block)

    def _open_stdin(self, stdin: object, stack: ExitStack) -> int:
        """A descriptor from which the program reads what the row's `stdin` says."""
        if stdin == "<read error>":
            unreadable = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, unreadable)
            return unreadable
        if stdin == "<never closed>":
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            return reader
        if isinstance(stdin, str) and stdin.startswith("<") and stdin.endswith(">"):
            raise NotRun(f"a special stdin that the runner does not know: {stdin}")
        path = self.folder / "stdin"
        path.write_bytes(self._encode(stdin))
        readable = os.open(path, os.O_RDONLY)
        stack.callback(os.close, readable)
        return readable

    def _encode(self, stdin: object) -> bytes:
        if stdin is None:
            return b""
        if isinstance(stdin, str):
            return stdin.encode("utf-8", "surrogateescape")
        if isinstance(stdin, dict):
            stdin = {**self._settings(), **stdin}
        return json.dumps(stdin).encode("utf-8")

    def _settings(self) -> Row:
        """What keeps the call within this place."""
        return {
            "datastore_type": "sqlite",
            "sqlite_path": str(self.folder / "ipam.db"),
            "ipam_lock_file": str(self.folder / "ipam.lock"),
            "nodename": "node1",
            "agent": "off",
            "default_pools": self.pools,
        }


def _try(place: Place, row: Row) -> Trial:
    """Prepare what the row is about, make its call, and look at what is allocated."""
    env, stdin = row["env"], row.get("stdin")
    verb = env.get("CNI_COMMAND", "")
    attachment, config = _attachment_of(env), _config_of(stdin)
    if row.get("given", {}).get("pools") == "exhausted":
        _prepare(place, {**ATTACHMENT, "CNI_CONTAINERID": "filler"}, config)
    if verb in ("DEL", "CHECK", "GC", "STATUS"):
        _prepare(place, attachment, config)
    before = place.count_allocated()
    answer = place.call(env, stdin)
    after = after_del = place.count_allocated()
    if verb == "ADD" and "after_del_allocated" in row["expect"]:
        place.call({**env, "CNI_COMMAND": "DEL"}, stdin)
        after_del = place.count_allocated()
    kept = before - 1 if verb == "DEL" else int(_is_listed(attachment, stdin))
    return Trial(answer, before, after, after_del, kept)


def _prepare(place: Place, env: dict[str, str], config: Row) -> None:
    answer = place.call(env, config)
    if answer.exit != 0:
        raise NotRun(f"the ADD before it failed with {answer.exit}: {answer.stdout}{answer.stderr}")


def _attachment_of(env: dict[str, str]) -> dict[str, str]:
    """The environment of an ADD of the attachment that the row names, as far as it names one."""
    named = {
        key: env[key]
        for key, pattern in (("CNI_CONTAINERID", NAME), ("CNI_IFNAME", IFNAME))
        if re.fullmatch(pattern, env.get(key, ""))
    }
    return {**ATTACHMENT, **named}


def _config_of(stdin: object) -> Row:
    """The network configuration of that ADD."""
    name = stdin.get("name") if isinstance(stdin, dict) else None
    if isinstance(name, str) and re.fullmatch(NAME, name):
        return {**CONFIG, "name": name}
    return CONFIG


def _is_listed(attachment: dict[str, str], stdin: object) -> bool:
    """Whether a GC's input lists the attachment as a valid one."""
    valid = stdin.get("cni.dev/valid-attachments") if isinstance(stdin, dict) else None
    return any(
        entry.get("containerID") == attachment["CNI_CONTAINERID"]
        and entry.get("ifname") == attachment["CNI_IFNAME"]
        for entry in valid or []
    )


def _pools_of(row: Row) -> list[Row]:
    given = row.get("given", {})
    pools = given.get("pools", POOLS)
    if pools == "exhausted":
        return [TINY_POOL]
    if pools == "none":
        return []
    if given.keys() - {"pools"} or not isinstance(pools, list):
        raise ValueError(f"a state that the runner cannot make: given {given}")
    return [pool if "spec" in pool else _pool(**pool) for pool in pools]


def _pool(name: str = "", **spec: object) -> Row:
    return {"name": name, "spec": spec} if name else {"spec": spec}
