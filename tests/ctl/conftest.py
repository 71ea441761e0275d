from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import Affinity
from cni_ipam.core.block import Attribute, new_block
from cni_ipam.core.handle import Handle
from cni_ipam.core.reservation import Reservations
from cni_ipam.ctl.main import run
from cni_ipam.ctl.session import Session
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000_000_000_000

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: pool1
spec:
  cidr: 10.0.0.0/24
  blockSize: 29
  ipipMode: Always
  natOutgoing: true
"""


@dataclass
class Result:
    """What a command left behind."""

    status: int
    out: str
    err: str


class Operator:
    """Types commands, and can look at and into the datastore that they work on."""

    def __init__(self, folder: Path, capsys, monkeypatch) -> None:
        self.folder = folder
        self.path = str(folder / "ipam.db")
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.environ = {"CNI_NETCONF_DIR": str(folder / "net.d")}

    def types(self, *words: str, stdin: str | bytes = "") -> Result:
        """The result of one command on the datastore of this test."""
        return self.types_bare("--sqlite-path", self.path, *words, stdin=stdin)

    def types_bare(self, *words: str, stdin: str | bytes = "") -> Result:
        """The result of one command as it stands."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        self._capsys.readouterr()
        status = run(words, self.environ)
        output = self._capsys.readouterr()
        return Result(status, output.out, output.err)

    def store(self) -> SqliteDatastore:
        return SqliteDatastore(self.path)

    def write(self, *writes: Write) -> None:
        store = self.store()
        store.commit(writes)
        store.close()

    def value(self, key: str) -> str | None:
        """What is stored under a key, None if nothing is."""
        store = self.store()
        entries = store.read([Range(key)])[0]
        store.close()
        return entries[0].value if entries else None

    def claim(
        self,
        cidr: str,
        host: str | None = "node1",
        *,
        count: int = 0,
        kind: str = "host",
        **who: str,
    ) -> None:
        """A block of `host`, with `count` addresses of one owner."""
        block = new_block(parse_cidr(cidr), host and f"{kind}:{host}", NOW)
        writes = []
        if count:
            handle = who.pop("handle", "net.c1")
            owner = Attribute(handle or None, who or None)
            block, _ = block.assign(count, owner, Reservations())
            if handle:
                value = codec.encode_handle(Handle(handle, {block.cidr: count}))
                writes.append(Write(keys.handle_key(handle), value, ABSENT))
        writes.append(Write(keys.block_key(block.cidr), codec.encode_block(block), ABSENT))
        if host is not None:
            affinity = Affinity(kind, host, block.cidr)
            key = keys.affinity_key(host, block.cidr, kind)
            writes.append(Write(key, codec.encode_affinity(affinity), ABSENT))
        self.write(*writes)


@pytest.fixture
def operator(tmp_path, capsys, monkeypatch):
    """Somebody at a terminal, with an empty datastore, who never has to wait."""
    monkeypatch.setattr(Session, "wait", lambda _self, _seconds: None)
    return Operator(tmp_path, capsys, monkeypatch)


@pytest.fixture
def pool(operator):
    """The same with the pool `pool1`, 10.0.0.0/24 in blocks of eight."""
    assert operator.types("create", "-f", "-", stdin=POOL).status == 0
    return operator
