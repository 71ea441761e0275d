"""PyInstaller's loader without its second exec.

The stock loader of a folder bundle sets LD_LIBRARY_PATH and executes itself again, which costs
a fifth of the start of an empty program and leaks the variable to every child. Our shared
libraries find each other by `$ORIGIN`, so the restart is left out: one word of the loader's
source, which is built with gcc in seconds and cached.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

STOCK = """\
                /* Other POSIX systems - mark as the parent/launcher
                 * that needs to restart itself. */
                pyi_ctx->process_level = PYI_PROCESS_LEVEL_PARENT_NEEDS_RESTART;"""
# The loader itself needs zlib.
OWN_LIBRARIES = "$ORIGIN/_lean:$ORIGIN/_internal"
WITHOUT_RESTART = STOCK.replace("PARENT_NEEDS_RESTART", "MAIN")


class BootloaderError(Exception):
    """The loader could not be built; the message says which step failed."""


def get_bootloader(version: str, cache: Path) -> Path:
    """The patched loader of PyInstaller `version`, built now if `cache` does not hold it.

    Raises BootloaderError where the source cannot be had, has changed, or does not compile.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    loader = cache / f"bootloader-{version}-{platform.machine()}-{recipe}" / "run"
    if not loader.exists():
        loader.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=loader.parent) as work:
            _build(version, Path(work)).replace(loader)
    return loader


def _build(version: str, work: Path) -> Path:
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    _run([*download, "--no-binary", "pyinstaller", f"pyinstaller=={version}"], work)
    archive = next(work.glob("pyinstaller-*.tar.gz"))
    _run(["tar", "-xzf", str(archive)], work)
    folder = work / archive.name.removesuffix(".tar.gz") / "bootloader"
    main = folder / "src" / "pyi_main.c"
    text = main.read_text()
    if text.count(STOCK) != 1:
        message = f"PyInstaller {version}: pyi_main.c does not read as expected"
        raise BootloaderError(message)
    main.write_text(text.replace(STOCK, WITHOUT_RESTART))
    _run([sys.executable, "./waf", "configure", "build_release"], folder)
    loader = folder / "build" / "release" / "run"
    _run(["patchelf", "--force-rpath", "--set-rpath", OWN_LIBRARIES, str(loader)], folder)
    return loader


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-500:]}"
        raise BootloaderError(message)
