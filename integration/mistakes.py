"""A mistake of a runtime or an administrator, and everything that must hold after it.

Stdout holds one JSON object with code and msg, the status is 1, the datastore is what it was to
the byte, and no secret of the netconf is in an answer or in the log.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean.record import record
from integration.netns import Lab
from integration.program import Program, inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from integration.program import Answer, Json

SECRET = "correct-horse-battery-staple"
HELD = "10.77.0.77"
POOLS = [
    {"name": "pool", "spec": {"cidr": "10.77.0.0/24", "blockSize": 26}},
    {"name": "off", "spec": {"cidr": "10.78.0.0/24", "disabled": True}},
]


@record
class Case:
    """A mistake, and the code and a part of the message that it gets.

    `stdin` goes in as it is; `keys` and `ipam` go over the values of a good netconf, where `...`
    takes a key away."""

    code: int
    phrase: str
    verb: str = "ADD"
    stdin: bytes | None = None
    keys: Json | None = None
    ipam: Json | None = None
    variables: dict[str, str | None] | None = None


@contextlib.contextmanager
def store_in_use(folder: Path) -> Iterator[Program]:
    """A plugin on a store with two pools, one of them disabled, and an address that is held."""
    with Lab() as lab:
        program = Program(folder, inside(lab.namespace("host")))
        netconf = program.netconf(ipam={"default_pools": POOLS})
        assert HELD == program.call("ADD", "holder", netconf, CNI_ARGS=f"IP={HELD}").address
        yield program


def call(program: Program, case: Case) -> Answer:
    """The answer to a case; the netconf has a secret in each of its halves, and a log file."""
    log = {"log_file_path": str(program.folder / "log"), "default_pools": POOLS}
    netconf = program.netconf(ipam={**log, "etcd_key_file": SECRET, **(case.ipam or {})})
    netconf |= {"policy": {"k8s_auth_token": SECRET}, **(case.keys or {})}
    kept = {key: value for key, value in netconf.items() if value is not ...}
    stdin = json.dumps(kept).encode() if case.stdin is None else case.stdin
    return program.call(case.verb, "c1", stdin, **(case.variables or {}))


def check(program: Program, case: Case) -> Answer:
    """Everything that must hold after a case."""
    before = program.dump()
    answer = call(program, case)
    assert (1, case.code) == (answer.status, answer.document["code"]), answer.stdout
    assert case.phrase in answer.document["msg"]
    assert {"cniVersion", "code", "msg"} <= answer.document.keys()
    assert before == program.dump()
    assert "Traceback" not in answer.stderr
    log = program.folder / "log"
    said = answer.stdout.decode() + answer.stderr + (log.read_text() if log.exists() else "")
    assert SECRET not in said
    return answer


def named(cases: dict[str, Case]) -> Any:
    """A test's parameter: the cases by name."""
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())
