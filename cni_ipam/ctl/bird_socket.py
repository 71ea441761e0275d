"""BIRD's control socket, as birdc speaks to it: a line there, coded lines back.

`2002-Name …` goes on, `0003 Reconfigured` is the last line of an answer, and a line that begins
with a blank has the code of the one before. Codes from 8000 are errors.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_ipam.errors import OperatorError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

DEFAULT_SOCKET = "/run/bird/bird.ctl"
READY = 1
FIRST_ERROR = 8000
_LONGEST_ANSWER = 16 * 1024 * 1024


class BirdDown(OperatorError):
    """Nobody answers at BIRD's socket."""


@dataclass(frozen=True)
class Answer:
    """What BIRD said: code and text of each line."""

    lines: tuple[tuple[int, str], ...]

    @property
    def is_error(self) -> bool:
        """Whether BIRD refused."""
        return any(code >= FIRST_ERROR for code, _ in self.lines)

    @property
    def text(self) -> str:
        """BIRD's words."""
        return "\n".join(text for _, text in self.lines)


class BirdSocket:
    """A connection to BIRD; raises BirdDown when BIRD does not answer."""

    def __init__(self, path: str = DEFAULT_SOCKET, limit_seconds: float = 10.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(limit_seconds)
        self._received = b""
        try:
            self._socket.connect(path)
            self._read_answer()
        except OSError as error:
            self._socket.close()
            raise self._down(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, command: str) -> Answer:
        """The answer to one command. Raises BirdDown."""
        try:
            self._socket.sendall(f"{command}\n".encode())
            return self._read_answer()
        except OSError as error:
            raise self._down(error) from error

    def _read_answer(self) -> Answer:
        lines: list[tuple[int, str]] = []
        while True:
            line = self._read_line()
            if line.startswith(" "):
                lines.append((lines[-1][0] if lines else 0, line[1:]))
                continue
            code, mark, text = line[:4], line[4:5], line[5:]
            if not code.isdigit() or mark not in ("-", " ", ""):
                raise ConnectionError(f"it is not BIRD who answers {line[:60]!r}")
            lines.append((int(code), text))
            if mark != "-":
                return Answer(tuple(lines))

    def _read_line(self) -> str:
        while b"\n" not in self._received:
            piece = self._socket.recv(65536)
            if not piece or len(self._received) > _LONGEST_ANSWER:
                raise ConnectionError("it ended in the middle of an answer")
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        return line.decode(errors="replace")

    def _down(self, error: OSError) -> BirdDown:
        reason = error.strerror or str(error)
        return BirdDown(
            f"BIRD does not answer at {self._path}: {reason}",
            "start it, or name its control socket with --bird-socket",
        )
