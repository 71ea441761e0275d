"""The bundle dist/cni-ipam as it is shipped: what is in it, and that it runs anywhere."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

BUNDLE = Path(__file__).resolve().parent.parent / "dist" / "cni-ipam"
PROGRAMS = [BUNDLE / "cni-ipam", BUNDLE / "ipamctl"]
BINARIES = PROGRAMS + sorted(path for path in BUNDLE.rglob("*.so*") if path.is_file())


def ask_version(program, **options):
    """The VERSION verb's answer of a plugin, called with nothing else in the environment."""
    options.setdefault("env", {"CNI_COMMAND": "VERSION"})
    done = subprocess.run(
        [program],
        input=b'{"cniVersion":"1.1.0"}',
        capture_output=True,
        check=True,
        **options,
    )
    return json.loads(done.stdout)


def trace_calls(calls, program, tmp_path):
    log = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-e", f"trace={calls}", "-o", log, program],
        input=b'{"cniVersion":"1.1.0"}',
        env={"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    return log.read_text()


def print_rpath(path):
    return subprocess.run(
        ["patchelf", "--print-rpath", path], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_bundle_holds_four_names():
    """Two programs, and one relative link to each."""
    links = {name: os.readlink(BUNDLE / name) for name in ("calico-ipam", "cni-ipam-agent")}
    assert {"calico-ipam": "cni-ipam", "cni-ipam-agent": "ipamctl"} == links


@pytest.mark.parametrize("name", ["cni-ipam", "calico-ipam"])
def test_version_answers_without_an_environment(name):
    """No HOME, no PATH, no locale: what a runtime may leave out."""
    assert "1.1.0" in ask_version(BUNDLE / name)["supportedVersions"]


def test_version_answers_in_a_foreign_locale():
    """UTF-8 inside, whatever the node is set to."""
    environment = {"CNI_COMMAND": "VERSION", "LC_ALL": "de_DE.ISO-8859-15", "PYTHONHOME": "/x"}
    assert "1.1.0" in ask_version(BUNDLE / "cni-ipam", env=environment)["supportedVersions"]


def test_a_callers_libraries_do_not_come_first(tmp_path):
    """LD_LIBRARY_PATH with broken copies of what we bring does no harm."""
    for path in (BUNDLE / "_lean").glob("*.so*"):
        (tmp_path / path.name).write_bytes(b"broken")
    environment = {"CNI_COMMAND": "VERSION", "LD_LIBRARY_PATH": f"{tmp_path}"}
    assert "1.1.0" in ask_version(BUNDLE / "cni-ipam", env=environment)["supportedVersions"]


@pytest.mark.parametrize("name", ["cni-ipam", "calico-ipam"])
def test_it_runs_through_a_link_in_a_plugin_folder(tmp_path, name):
    """As `make install` puts it into /opt/cni/bin."""
    (tmp_path / name).symlink_to(BUNDLE / name)
    assert "1.1.0" in ask_version(tmp_path / name, cwd="/")["supportedVersions"]


def test_it_runs_from_another_place_that_cannot_be_written(tmp_path):
    """On a read-only file system, and not where it was built."""
    place, empty = tmp_path / "opt", tmp_path / "empty"
    empty.mkdir()
    script = (
        f'mkdir "{place}" && mount -t tmpfs none "{place}" && cp -a "{BUNDLE}/." "{place}"'
        f' && mount -o remount,ro "{place}" && mount --bind "{empty}" "{BUNDLE}"'
        f' && exec "{place}/cni-ipam"'
    )
    command = ["unshare", "--mount", "sh", "-c", script]
    answer = subprocess.run(
        command,
        input=b'{"cniVersion":"1.1.0"}',
        env={"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    assert "1.1.0" in json.loads(answer.stdout)["supportedVersions"]


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: str(path.relative_to(BUNDLE)))
def test_a_binary_finds_its_own_kind_alone(path):
    """Each entry of its search path starts from its own place, not from the builder's machine."""
    assert all(entry.startswith("$ORIGIN") for entry in print_rpath(path).split(":"))


@pytest.mark.parametrize("path", BINARIES, ids=lambda path: str(path.relative_to(BUNDLE)))
def test_a_binary_finds_all_that_it_needs(path):
    """What is not the C library's is in the bundle."""
    shown = subprocess.run(
        ["ldd", path], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    ).stdout
    assert "not found" not in shown
    foreign = [line for line in shown.splitlines() if " => " in line and str(BUNDLE) not in line]
    system = re.compile(r"\s*(libc|libm|libdl|libpthread|librt|libutil)\.so")
    assert [] == [line for line in foreign if not system.match(line)]


def test_the_lean_program_runs_no_hooks():
    """A runtime hook for `inspect` alone would triple its start; nor is the module there."""
    assert b"pyi_rth" not in (BUNDLE / "cni-ipam").read_bytes()
    assert [] == list((BUNDLE / "_lean").rglob("inspect*"))


def test_the_lean_program_names_nothing_of_the_builder():
    """Tracebacks name modules by their place in the package."""
    program = (BUNDLE / "cni-ipam").read_bytes()
    assert str(BUNDLE.parent.parent).encode() not in program
    assert b"cni_ipam/plugin/main.py" in program


def test_the_lean_program_executes_itself_once(tmp_path):
    """PyInstaller's own loader, the fallback when ours could not be built, does it twice."""
    assert 1 == trace_calls("execve", BUNDLE / "cni-ipam", tmp_path).count("execve(")


def test_the_lean_program_reads_nothing_of_the_host(tmp_path):
    """Its modules come from the bundle; only the C library is the machine's."""
    trace = trace_calls("openat", BUNDLE / "cni-ipam", tmp_path)
    opened = re.findall(r'openat\([^"]*"([^"]+)"[^\n]* = \d', trace)
    system = re.compile(
        r"/etc/ld\.so|.*/lib(c|m|dl|pthread)\.so|/etc/localtime|/usr/lib/locale|/proc/|/dev/"
    )
    foreign = [path for path in opened if not path.startswith(f"{BUNDLE}/")]
    assert [] == [path for path in foreign if not system.match(path)]
