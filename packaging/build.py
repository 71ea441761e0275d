"""Makes the bundle `dist/cni-ipam` with PyInstaller: two programs, four names, one folder.

`cni-ipam` with its contents in `_lean`, `ipamctl` with its own in `_internal`, and beside them
the links `calico-ipam` and `cni-ipam-agent`. Nothing is done when the sources are those that the
bundle was made of. A new bundle is made aside and changes places with the old one in one rename,
so there is never half a bundle.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bootloader import BootloaderError, get_bootloader

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "pyinstaller"
BUNDLE = ROOT / "dist" / "cni-ipam"
CACHE = Path(os.environ.get("CNI_IPAM_CACHE") or Path.home() / ".cache" / "cni-ipam")
CONFLIST = ROOT / "conf" / "10-cni-ipam.conflist"
ID_FILE = "BUILD-ID"
AT_FDCWD = -100
RENAME_EXCHANGE = 2


def main() -> None:
    """Build the bundle unless it is up to date."""
    build_id = compute_build_id()
    shown = BUNDLE.relative_to(ROOT)
    if find_build_id(BUNDLE) == build_id:
        print(f"{shown} is up to date ({build_id})")
        return
    WORK.parent.mkdir(exist_ok=True)
    with (WORK.parent / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find_build_id(BUNDLE) != build_id:
            build(build_id)
    print(f"{shown} built ({build_id})")


def build(build_id: str) -> None:
    """Make the bundle; the caller holds the lock, since all builds share their folders."""
    shutil.rmtree(WORK, ignore_errors=True)
    loader = find_loader()
    for program in ("lean", "full"):
        run_pyinstaller(program, loader)
    fresh = assemble()
    link_same_files(fresh / "_lean", fresh / "_internal")
    (fresh / ID_FILE).write_text(build_id + "\n")
    exchange(fresh, BUNDLE)


def compute_build_id() -> str:
    """A hash of all that the bundle is made of."""
    sources = [ROOT / "pyproject.toml", CONFLIST]
    for room in ("cni_ipam", "packaging"):
        sources += sorted((ROOT / room).rglob("*.*"))
    digest = hashlib.sha256(f"{sys.version} {version('pyinstaller')}".encode())
    for path in sources:
        if path.is_file() and path.suffix not in {".pyc", ".sh"}:
            digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def find_build_id(bundle: Path) -> str | None:
    """The hash that `bundle` was made of; None where there is no bundle."""
    try:
        return (bundle / ID_FILE).read_text().strip()
    except FileNotFoundError:
        return None


def find_loader() -> Path | None:
    """The loader without restart; None, with a word about it, where it cannot be built."""
    try:
        return get_bootloader(version("pyinstaller"), CACHE)
    except (BootloaderError, OSError) as error:
        print(f"note: PyInstaller's own loader is used, it starts slower: {error}", file=sys.stderr)
        return None


def run_pyinstaller(program: str, loader: Path | None) -> None:
    """Run one spec file; its folder is then `WORK/dist/<program>`. Exits if it fails."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONHASHSEED="0")
    environment.pop("CNI_IPAM_BOOTLOADER", None)
    if loader:
        environment["CNI_IPAM_BOOTLOADER"] = str(loader)
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR"]
    command += [f"--workpath={WORK}", f"--distpath={WORK / 'dist'}"]
    command.append(f"packaging/{program}.spec")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"PyInstaller failed on packaging/{program}.spec:\n{done.stdout}{done.stderr}")


def assemble() -> Path:
    """Put both programs and their other names into one new folder beside the bundle's place."""
    BUNDLE.parent.mkdir(exist_ok=True)
    fresh = BUNDLE.with_name(f".{BUNDLE.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for program in ("lean", "full"):
        shutil.copytree(WORK / "dist" / program, fresh, symlinks=True, dirs_exist_ok=True)
    (fresh / "calico-ipam").symlink_to("cni-ipam")
    (fresh / "cni-ipam-agent").symlink_to("ipamctl")
    for contents in ("_lean", "_internal"):
        free_from_this_machine(fresh / contents)
    if CONFLIST.exists():
        shutil.copy(CONFLIST, fresh)
    return fresh


def free_from_this_machine(contents: Path) -> None:
    """Let every shared library of a program find the others by its own place alone.

    DT_RPATH and not DT_RUNPATH, so that the caller's LD_LIBRARY_PATH does not come first. Entries
    of a wheel that are relative to the library stay.
    """
    for path in sorted(contents.rglob("*.so*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.name.startswith("libpython") or path.parent.name == "lib-dynload":
            subprocess.run(["strip", "--strip-unneeded", path], check=True)
        shown = subprocess.run(
            ["patchelf", "--print-rpath", path], check=True, capture_output=True, text=True
        )
        kept = [entry for entry in shown.stdout.strip().split(":") if entry.startswith("$ORIGIN")]
        up = os.path.relpath(contents, path.parent)
        own = "$ORIGIN" if up == "." else f"$ORIGIN/{up}"
        rpath = ":".join(dict.fromkeys([own, *kept]))
        subprocess.run(["patchelf", "--force-rpath", "--set-rpath", rpath, path], check=True)


def link_same_files(lean: Path, full: Path) -> None:
    """Make each shared library of `full` that `lean` has too a link to that one."""
    for path in sorted(lean.rglob("*.so*")):
        twin = full / path.relative_to(lean)
        if twin.is_file() and not twin.is_symlink() and twin.read_bytes() == path.read_bytes():
            twin.unlink()
            twin.symlink_to(os.path.relpath(path, twin.parent))


def exchange(fresh: Path, place: Path) -> None:
    """Let the folder `fresh` be `place` in one step and delete what was there."""
    if not place.exists():
        fresh.rename(place)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(fresh), os.fsencode(place)
    if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(place))
    shutil.rmtree(fresh)


if __name__ == "__main__":
    main()
