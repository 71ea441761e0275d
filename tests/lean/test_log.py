"""Log lines: what they look like, who gets them, what becomes of old ones."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.lean import log

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    log.configure()
    yield
    log.configure()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "cni.log"


def rotated(path: Path) -> list[Path]:
    return sorted(p for p in path.parent.iterdir() if p != path)


class TestLines:
    """Their form."""

    def test_a_line_has_time_level_event_and_fields(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """In this order, on stderr."""
        log.info("assign.complete", block="10.0.0.0/26", ordinals=7)
        line = capfd.readouterr().err
        assert re.fullmatch(
            STAMP + r" INFO  assign\.complete block=10\.0\.0\.0/26 ordinals=7\n", line
        )

    def test_the_time_is_utc_to_the_millisecond(self) -> None:
        """With leading zeros."""
        now_ns = 1795257779_007_999_999
        assert b"2026-11-21T10:42:59.007Z DEBUG x\n" == log._format(now_ns, 0, "x", {})

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("plain-1.2:3/4", "plain-1.2:3/4"),
            ("é", "é"),
            ("", '""'),
            ("two words", '"two words"'),
            ("a=b", '"a=b"'),
            ('say "x"', r'"say \"x\""'),
            ("back\\slash", r'"back\\slash"'),
            ("a\nINFO  forged", r'"a\nINFO  forged"'),
            ("\x1b[31m", r'"\u001b[31m"'),
            ("a\u2028b", r'"a\u2028b"'),
            ("a\x85b", r'"a\u0085b"'),
            ("\ud800", r'"\ud800"'),
            (None, "None"),
            (7, "7"),
        ],
    )
    def test_a_value_cannot_be_taken_for_more(self, value: object, text: str) -> None:
        """Whatever could end a value or a line, or move a terminal's cursor, is quoted."""
        assert log._format(0, 1, "x", {"v": value}).decode().endswith(f"x v={text}\n")

    @given(st.text(), st.text())
    def test_a_line_is_one_line(self, event: str, value: str) -> None:
        """For every text; and the words of a line are its fields."""
        line = log._format(0, 1, event, {"v": value, "w": 1}).decode()
        assert line[:-1].isprintable()
        assert line.endswith(" w=1\n")

    @given(st.text())
    def test_a_value_can_be_read_back(self, value: str) -> None:
        """It is plain, or a JSON string if it begins with a quote."""
        text = log._format(0, 1, "x", {"v": value}).decode().partition(" v=")[2].rstrip("\n")
        assert value == (json.loads(text) if text.startswith('"') else text)


class TestLevels:
    """What is written."""

    @pytest.mark.parametrize(
        ("level", "written"),
        [
            ("debug", ["DEBUG", "INFO", "ERROR"]),
            ("info", ["INFO", "ERROR"]),
            ("error", ["ERROR"]),
            ("ERROR", ["ERROR"]),
            ("Debug", ["DEBUG", "INFO", "ERROR"]),
            ("warning", ["INFO", "ERROR"]),
            ("", ["INFO", "ERROR"]),
        ],
    )
    def test_a_level_lets_through_what_is_as_grave(
        self, capfd: pytest.CaptureFixture[str], level: str, written: list[str]
    ) -> None:
        """In any case; what is no level is info, as in Calico."""
        log.configure(level)
        log.debug("x")
        log.info("x")
        log.error("x")
        assert written == [line.split()[1] for line in capfd.readouterr().err.splitlines()]


class TestFile:
    """The log file."""

    def test_gets_the_lines_of_stderr(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """The same lines, in a file of 0600 in a folder of 0700."""
        log.configure("info", str(path))
        log.info("one")
        log.error("two", n=2)
        assert capfd.readouterr().err == path.read_text()
        assert 2 == len(path.read_text().splitlines())
        modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent)]
        assert [0o600, 0o700] == modes

    def test_is_appended_to(self, path: Path) -> None:
        """What an earlier process wrote stays."""
        path.parent.mkdir()
        path.write_text("earlier\n")
        log.configure("info", str(path))
        log.info("later")
        assert ["earlier", "later"] == [line.split()[-1] for line in path.read_text().splitlines()]

    @pytest.mark.parametrize("place", ["folder", "file/cni.log", "fifo"])
    def test_that_cannot_be_written_is_reported_once(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
    ) -> None:
        """One line on stderr, and logging goes on there."""
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        os.mkfifo(tmp_path / "fifo")
        log.configure("info", str(tmp_path / place))
        log.info("one")
        log.info("two")
        events = [line.split()[2] for line in capfd.readouterr().err.splitlines()]
        assert ["log.unwritable", "one", "two"] == sorted(events)

    def test_nobody_need_listen_on_stderr(self, path: Path) -> None:
        """With stderr closed, or its reader gone, the file still gets its lines."""
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "import posix\n"
            "from cni_ipam.lean import log\n"
            "log.configure('info', sys.argv[1])\n"
            "posix.close(2); log.info('closed')\n"
            "reader, writer = posix.pipe(); posix.dup2(writer, 2); posix.close(reader)\n"
            "log.info('broken')\n"
        )
        subprocess.run([sys.executable, "-I", "-S", "-c", program, str(path)], check=True)
        assert ["closed", "broken"] == [line.split()[2] for line in path.read_text().splitlines()]

    def test_lines_of_parallel_processes_are_whole(self, path: Path) -> None:
        """8 processes write 50 long lines each, while each start may rotate: none is lost."""
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from cni_ipam.lean import log\n"
            "for n in range(50):\n"
            "    log.configure('info', sys.argv[1], 1, 30, 100)\n"
            "    log.info('line', who=sys.argv[2], n=n, pad='x' * 5000)\n"
        )
        path.parent.mkdir()
        path.write_text("first\n")
        children = [
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program, str(path), str(number)],
                stderr=subprocess.DEVNULL,
            )
            for number in range(8)
        ]
        assert [0] * 8 == [child.wait() for child in children]
        lines = path.read_text().splitlines()
        for old in rotated(path):
            lines += gzip.decompress(old.read_bytes()).decode().splitlines()
        pattern = re.compile(STAMP + r" INFO  line who=(\d) n=(\d+) pad=x{5000}")
        found = [match.groups() for match in map(pattern.fullmatch, lines) if match]
        assert {(str(who), str(n)) for who in range(8) for n in range(50)} == set(found)
        assert 401 == len(lines)
        assert len(rotated(path)) >= 1


class TestRotation:
    """What becomes of a file that has grown."""

    def fill(self, path: Path, text: bytes = b"old\n") -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.ljust(MEGABYTE, b"."))

    def test_a_full_file_is_put_aside_and_compressed(self, path: Path) -> None:
        """Under its name with the time; a new file begins."""
        self.fill(path)
        log.configure("info", str(path), 1)
        log.info("new")
        (old,) = rotated(path)
        assert re.fullmatch(r"cni-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log\.gz", old.name)
        assert gzip.decompress(old.read_bytes()).startswith(b"old\n")
        assert 0o600 == stat.S_IMODE(old.stat().st_mode)
        assert 1 == len(path.read_text().splitlines())

    def test_a_smaller_file_is_left(self, path: Path) -> None:
        """Below the size nothing happens; 100 MB are the default."""
        self.fill(path)
        for size in (2, 100, 0, -1):
            log.configure("info", str(path), size)
        assert [] == rotated(path)

    def test_a_name_without_extension_works(self, tmp_path: Path) -> None:
        """And one that begins with a dot."""
        for name in ("calico", ".hidden"):
            path = tmp_path / name / name
            self.fill(path)
            log.configure("info", str(path), 1)
            assert [True] == [
                p.name.startswith(f"{name}-2") and p.name.endswith(".gz") for p in rotated(path)
            ]

    def old(self, path: Path, number: int, days: float = 0) -> Path:
        file = path.parent / f"cni-2020-01-0{number}T00-00-00.000.log.gz"
        file.write_bytes(gzip.compress(b""))
        when = time.time() - days * 86400
        os.utime(file, (when, when))
        return file

    def test_the_oldest_of_too_many_are_removed(self, path: Path) -> None:
        """`max_count` old files stay, the newest."""
        self.fill(path)
        files = [self.old(path, number) for number in range(1, 5)]
        log.configure("info", str(path), 1, 30, 3)
        assert files[2:] == rotated(path)[:-1]

    def test_those_too_old_are_removed(self, path: Path) -> None:
        """Whatever their number."""
        self.fill(path)
        self.old(path, 1, days=8)
        young = self.old(path, 2, days=6)
        log.configure("info", str(path), 1, 7, 10)
        assert [young] == rotated(path)[:-1]

    def test_other_files_are_left(self, path: Path) -> None:
        """Only names that a rotation gives are touched."""
        self.fill(path)
        names = [
            "cni-old.log",
            "cni-2020.log.gz",
            "other-2020-01-01T00-00-00.000.log.gz",
            "cni.log.1",
        ]
        for name in names:
            (path.parent / name).touch()
        log.configure("info", str(path), 1, 1, 1)
        assert set(names) <= {p.name for p in rotated(path)}

    def test_what_a_killed_process_left_is_compressed(self, path: Path) -> None:
        """A file that was put aside and not compressed, beside half of its compressed one."""
        self.fill(path)
        left = path.parent / "cni-2026-01-01T00-00-00.000.log"
        left.write_text("left")
        (path.parent / f"{left.name}.part").write_text("half")
        log.configure("info", str(path), 1, 3000)
        assert not left.exists()
        assert b"left" == gzip.decompress((path.parent / f"{left.name}.gz").read_bytes())
        assert not (path.parent / f"{left.name}.part").exists()

    def test_a_line_amid_a_rotation_goes_to_the_new_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the old one it could come after all was compressed."""
        self.fill(path)
        old = path.with_name("old")
        monkeypatch.setattr(log.time, "sleep", lambda _: path.rename(old))
        log.configure("info", str(path))
        with path.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            log.info("new")
        assert MEGABYTE == old.stat().st_size
        assert path.read_text().endswith(" INFO  new\n")

    def test_who_meets_a_rotation_does_not_wait_for_long(self, path: Path) -> None:
        """Neither to rotate nor to write."""
        self.fill(path)
        with path.open() as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            log.configure("info", str(path), 1)
            log.info("new")
        assert [] == rotated(path)
        assert path.read_text().endswith(" INFO  new\n")

    def test_who_cannot_rotate_goes_on_without(
        self, path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One line says so; nothing is raised."""
        self.fill(path)

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(log.posix, "rename", refuse)
        log.configure("info", str(path), 1)
        assert 'cause="Permission denied"' in capfd.readouterr().err
