"""A SQLite file that is broken, newer or another's, on a disk that is full or read-only: a clear
error, and nothing is changed or lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from integration.netns import Lab
from integration.network import find_obstacle
from integration.program import Program, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netns import Namespace
    from integration.program import Answer, Json

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

VERBS = ("ADD", "DEL", "CHECK", "GC")
PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with Lab() as lab:
        yield lab.namespace("host")


@pytest.fixture
def program(host: Namespace, tmp_path: Path) -> Program:
    """A plugin on a store that holds one address, all of it in the file and none in a log."""
    program = Program(tmp_path, inside(host))
    assert program.call("ADD", "holder").status == 0
    program.dump()
    assert ["ipam.db", "ipam.db.lock"] == sorted(p.name for p in program.database.parent.iterdir())
    return program


class Mounts:
    """A mount namespace of its own, alive as long as the `with` block, in which folders of the test
    lie on a small file system; from outside they are seen below `root`."""

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(["unshare", "--mount", "sleep", "600"])
        self.root = Path(f"/proc/{self._holder.pid}/root")
        self.wrapper = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--")
        own = os.readlink("/proc/self/ns/mnt")
        while os.readlink(f"/proc/{self._holder.pid}/ns/mnt") == own:
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.wait()

    def attach(self, *argv: str) -> None:
        """Run mount(8) with `argv` inside."""
        subprocess.run([*self.wrapper, "mount", *argv], check=True)

    def see(self, path: Path) -> Path:
        """The path by which the test sees what lies at `path` inside."""
        return self.root / path.relative_to("/")


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with Mounts() as mounts:
        yield mounts


class SmallDisk:
    """A plugin whose store would lie on a file system of 256 KiB, and has not been made."""

    def __init__(self, program: Program, mounts: Mounts) -> None:
        self.program = program
        self.folder = mounts.see(program.database.parent)
        program.database.parent.mkdir()
        mounts.attach("-t", "tmpfs", "-o", "size=256k", "none", str(program.database.parent))

    def fill(self, free_kib: int = 0) -> None:
        """Leave `free_kib` of room."""
        status = os.statvfs(self.folder)
        room = status.f_bavail * status.f_frsize - free_kib * 1024
        (self.folder / "filling").write_bytes(b"x" * room)

    def make_room(self) -> None:
        """Undo `fill`."""
        (self.folder / "filling").unlink()

    def look(self) -> Program:
        """The store as a copy that can be read outside: SQLite does not follow /proc/PID/root."""
        copy = self.program.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy / "store", ignore=shutil.ignore_patterns("filling"))
        return Program(copy)


@pytest.fixture
def disk(host: Namespace, mounts: Mounts, tmp_path: Path) -> SmallDisk:
    return SmallDisk(Program(tmp_path, (*inside(host), *mounts.wrapper)), mounts)


def call(program: Program, verb: str, container: str = "c1", netconf: Json | None = None) -> Answer:
    netconf = netconf or program.netconf()
    return program.call(verb, container, netconf | {"cni.dev/valid-attachments": []})


def assert_refused(answer: Answer, code: int, phrase: str) -> None:
    """One document on stdout with code and msg, status 1, and no surprise in the log."""
    assert (1, code) == (answer.status, answer.document["code"]), answer.stdout
    assert phrase in answer.document["msg"]
    assert "Traceback" not in answer.stderr


def snapshot(program: Program) -> dict[str, bytes]:
    """What the files of the store hold, to the byte; not the lock, nor SQLite's index of the log,
    which holds nothing of its own, nor a log without records."""
    files = {path.name: path.read_bytes() for path in program.database.parent.iterdir()}
    return {name: data for name, data in files.items() if data and not name.endswith("-shm")}


# Files that are not what they should be


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "content",
    [b"not a database" * 1000, b"\0" * 8192, b"x\n", b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["text", "zeros", "a line", "a header with garbage"],
)
def test_garbage_is_told_and_left_alone(program, verb, content):
    """Perhaps it is something that somebody needs."""
    program.database.write_bytes(content)
    before = snapshot(program)
    assert_refused(call(program, verb), 111, str(program.database))
    assert before == snapshot(program)


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.5, 0.6, 0.75])
def test_file_that_was_cut_off_is_told(program, kept):
    """A copy that was not finished."""
    os.truncate(program.database, int(program.database.stat().st_size * kept))
    before = snapshot(program)
    assert_refused(call(program, "ADD"), 111, str(program.database))
    assert before == snapshot(program)


@pytest.mark.parametrize("filler", ["zeros", "noise"])
@pytest.mark.parametrize("page", range(2))
def test_page_that_was_lost_is_told(program, page, filler):
    """What a bad disk does: the first page is SQLite's own, the second holds our records."""
    noise = random.Random(7).randbytes(PAGE_BYTES)
    with program.database.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(noise if filler == "noise" else bytes(PAGE_BYTES))
    before = snapshot(program)
    assert_refused(call(program, "ADD"), 111, str(program.database))
    assert before == snapshot(program)


def test_flipped_bits_never_surprise(program):
    """SQLite keeps no checksums, so a flipped letter can pass unseen; but what is seen is told in
    words, and no bit makes the plugin stumble."""
    chance = random.Random(7)
    good = program.database.read_bytes()
    for _ in range(60):
        broken = bytearray(good)
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        for path in program.database.parent.glob("ipam.db-*"):
            path.unlink()
        program.database.write_bytes(broken)
        answer = program.call("ADD", "c1")
        assert answer.status == 0 or answer.document["code"] in {7, 11, 100, 111}, answer.stdout
        assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_newer_schema_is_refused(program, verb):
    """An upgraded file is not for an older program; what to do is said."""
    execute(program.database, "PRAGMA user_version=99")
    before = snapshot(program)
    answer = call(program, verb)
    assert_refused(answer, 7, "schema version 99 is newer")
    assert "later" in answer.document["details"]
    assert before == snapshot(program)


@pytest.mark.parametrize("verb", VERBS)
def test_database_of_another_application_is_left_alone(program, verb):
    """A wrong sqlite_path must not cost somebody their data."""
    program.database.unlink()
    execute(program.database, "CREATE TABLE customers(name); INSERT INTO customers VALUES('me')")
    before = snapshot(program)
    assert_refused(call(program, verb), 7, "a database of another application")
    assert before == snapshot(program)


def test_broken_record_does_not_stop_the_others(program):
    """A block that cannot be read is passed over and named in the log; new ones still serve."""
    execute(program.database, "UPDATE kv SET value='{' WHERE key LIKE '%/assignment/%'")
    before = program.dump()
    answer = program.call("ADD", "c1")
    assert answer.status == 0
    assert "/calico/ipam/v2/assignment/" in answer.stderr
    assert set(before) - {("", "", before[0][2])} <= set(program.dump())


def test_folder_in_place_of_the_file_is_told(program):
    """SQLite cannot open it."""
    netconf = program.netconf(ipam={"sqlite_path": str(program.folder)})
    assert_refused(call(program, "ADD", netconf=netconf), 5, str(program.folder))


def test_file_in_place_of_the_folder_is_told(program):
    """No folder can be made there."""
    path = f"{program.database}/ipam.db"
    netconf = program.netconf(ipam={"sqlite_path": path})
    assert_refused(call(program, "ADD", netconf=netconf), 5, str(program.database))


def test_lock_file_that_cannot_be_made_is_told(program):
    """It is named, and so is the key."""
    netconf = program.netconf(ipam={"ipam_lock_file": f"{program.database}/lock"})
    before = program.dump()
    assert_refused(call(program, "ADD", netconf=netconf), 5, "cannot open the lock file")
    assert before == program.dump()


# File systems that do not take what is written


def test_read_only_folder_is_told(program, mounts):
    """Root ignores modes, but not a mount that is read-only."""
    folder = str(program.database.parent)
    mounts.attach("--bind", folder, folder)
    mounts.attach("-o", "remount,bind,ro", folder)
    lock = {"ipam_lock_file": str(program.folder / "lock")}
    before = program.dump()
    answer = program.call("ADD", "c1", program.netconf(ipam=lock), wrapper=mounts.wrapper)
    assert_refused(answer, 5, str(program.database))
    assert before == program.dump()


def test_read_only_file_is_told(program, mounts):
    """The folder can be written, the file cannot."""
    file = str(program.database)
    mounts.attach("--bind", file, file)
    mounts.attach("-o", "remount,bind,ro", file)
    before = program.dump()
    answer = program.call("ADD", "c1", wrapper=mounts.wrapper)
    assert_refused(answer, 5, file)
    assert before == program.dump()


def test_read_only_folder_without_a_store_is_told(host, mounts, tmp_path):
    """The first ADD cannot make it."""
    program = Program(tmp_path, (*inside(host), *mounts.wrapper))
    program.database.parent.mkdir()
    mounts.attach("-t", "tmpfs", "-o", "ro", "none", str(program.database.parent))
    assert_refused(call(program, "ADD"), 5, str(program.database.parent))


@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC"])
def test_full_disk_is_told(disk, verb):
    """Nothing is changed, and when there is room again the same call succeeds."""
    container = "c1" if verb == "ADD" else "c0"
    held = call(disk.program, "ADD", "c0").address
    disk.fill()
    before = disk.look().dump()
    assert_refused(call(disk.program, verb, container), 5, str(disk.program.database))
    assert before == disk.look().dump()
    disk.make_room()
    assert 0 == call(disk.program, verb, container).status
    assert (verb == "ADD") == (held in disk.look().survey().allocations)


def test_full_disk_before_the_first_add(disk):
    """No half-made store stands in the way later."""
    disk.fill()
    assert_refused(call(disk.program, "ADD"), 5, str(disk.program.database))
    disk.make_room()
    assert 0 == call(disk.program, "ADD").status
    assert [] == disk.look().survey().findings


@pytest.mark.parametrize("free_kib", [4, 12, 24, 36, 48, 60, 72, 84])
def test_disk_that_fills_up_in_between(disk, free_kib):
    """Whichever write it is that fails: the call fails as a whole, or succeeds as a whole."""
    disk.fill(free_kib)
    answer = call(disk.program, "ADD", "c0")
    disk.make_room()
    recorded = disk.look().survey().allocations
    if answer.status == 0:
        assert {answer.address: "net.c0"} == recorded
    else:
        assert_refused(answer, 5, str(disk.program.database))
    again = call(disk.program, "ADD", "c0").address
    assert recorded.items() <= {again: "net.c0"}.items()
    assert {again: "net.c0"} == disk.look().survey().allocations
    assert [] == disk.look().survey().findings


def execute(path: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
