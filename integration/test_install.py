"""packaging/install.sh into a staging area, with a bundle of three small files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL = b"\x7fELF the calico-ipam that was there"


@pytest.fixture
def project(tmp_path):
    """A clone with a bundle, without the time that a real one takes."""
    project = tmp_path / "project"
    (project / "packaging").mkdir(parents=True)
    shutil.copy(ROOT / "packaging" / "install.sh", project / "packaging")
    make_bundle(project, "a" * 12)
    return project


@pytest.fixture
def staging(tmp_path):
    staging = tmp_path / "a staging area"
    staging.mkdir()
    return staging


def make_bundle(project, build_id):
    bundle = project / "dist" / "cni-ipam"
    shutil.rmtree(bundle, ignore_errors=True)
    bundle.mkdir(parents=True)
    for name in ("cni-ipam", "ipamctl"):
        (bundle / name).write_text(f"#!/bin/sh\necho {name} {build_id}\n")
        (bundle / name).chmod(0o755)
    (bundle / "calico-ipam").symlink_to("cni-ipam")
    (bundle / "10-cni-ipam.conflist").write_text(f'{{"name": "{build_id}"}}\n')
    (bundle / "BUILD-ID").write_text(build_id + "\n")


def install_command(project, verb, staging):
    return ["bash", str(project / "packaging" / "install.sh"), verb, str(staging)]


def run_install(project, verb, staging):
    return subprocess.run(
        install_command(project, verb, staging), check=True, capture_output=True, text=True
    ).stdout


def list_tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def call_installed(staging, link):
    """Call what the absolute link `link` leads to once the staging area is the root."""
    target = os.readlink(staging / link)
    return subprocess.run(
        [f"{staging}{target}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def place_original(staging):
    place = staging / "opt/cni/bin/calico-ipam"
    place.parent.mkdir(parents=True)
    place.write_bytes(ORIGINAL)
    place.chmod(0o751)
    return place


def test_install_links_both_programs(project, staging):
    """`cni-ipam` is where runtimes look for plugins and `ipamctl` where operators do."""
    run_install(project, "install", staging)
    assert f"cni-ipam {'a' * 12}" == call_installed(staging, "opt/cni/bin/cni-ipam")
    assert f"ipamctl {'a' * 12}" == call_installed(staging, "usr/local/bin/ipamctl")
    assert not (staging / "opt/cni/bin/calico-ipam").exists()


def test_install_puts_the_conflist_as_an_example(project, staging):
    """A runtime takes any .conflist in the folder, so ours must not end so."""
    run_install(project, "install", staging)
    assert ["10-cni-ipam.conflist.example"] == os.listdir(staging / "etc/cni/net.d")


def test_install_never_overwrites_an_edited_example(project, staging):
    """What someone has written stays, through an upgrade and through uninstall."""
    run_install(project, "install", staging)
    example = staging / "etc/cni/net.d/10-cni-ipam.conflist.example"
    example.write_text("mine")
    make_bundle(project, "b" * 12)
    run_install(project, "install", staging)
    run_install(project, "uninstall", staging)
    assert "mine" == example.read_text()


def test_upgrade_refreshes_an_example_that_nobody_edited(project, staging):
    """An example that is still ours follows the version."""
    run_install(project, "install", staging)
    make_bundle(project, "b" * 12)
    run_install(project, "install", staging)
    example = staging / "etc/cni/net.d/10-cni-ipam.conflist.example"
    assert f'{{"name": "{"b" * 12}"}}\n' == example.read_text()


def test_upgrade_switches_and_keeps_one_version_back(project, staging):
    """The version before stays for processes that run from it; the one before that goes."""
    for build_id in ("a" * 12, "b" * 12, "c" * 12):
        make_bundle(project, build_id)
        run_install(project, "install", staging)
    versions = {path.name[:21] for path in (staging / "opt").glob("cni-ipam-*")}
    assert {"cni-ipam-" + "b" * 12, "cni-ipam-" + "c" * 12} == versions
    assert f"cni-ipam {'c' * 12}" == call_installed(staging, "opt/cni/bin/cni-ipam")


def test_drop_in_twice_keeps_the_original(project, staging):
    """The second drop-in does not take our own link for the original."""
    place = place_original(staging)
    run_install(project, "install-drop-in", staging)
    run_install(project, "install-drop-in", staging)
    assert "/opt/cni-ipam/calico-ipam" == os.readlink(place)
    assert ORIGINAL == place.with_name("calico-ipam.orig").read_bytes()


def test_drop_in_over_a_newer_original_keeps_the_newer_one(project, staging):
    """Calico's own installer may have come by between two drop-ins."""
    place = place_original(staging)
    run_install(project, "install-drop-in", staging)
    place.unlink()
    place.write_bytes(b"newer")
    run_install(project, "install-drop-in", staging)
    run_install(project, "uninstall", staging)
    assert b"newer" == place.read_bytes()


def test_uninstall_restores_the_original(project, staging):
    """Byte for byte, with its mode, and with nothing of ours beside it."""
    place = place_original(staging)
    before = list_tree(staging), place.stat().st_mode, place.stat().st_mtime_ns
    run_install(project, "install-drop-in", staging)
    run_install(project, "install-drop-in", staging)
    run_install(project, "uninstall", staging)
    assert ORIGINAL == place.read_bytes()
    assert before == (list_tree(staging), place.stat().st_mode, place.stat().st_mtime_ns)


def test_uninstall_leaves_nothing(project, staging):
    """Folders that install made go too, those that were there stay."""
    (staging / "etc/cni/net.d").mkdir(parents=True)
    before = list_tree(staging)
    run_install(project, "install-drop-in", staging)
    make_bundle(project, "b" * 12)
    run_install(project, "install", staging)
    run_install(project, "uninstall", staging)
    assert before == list_tree(staging)


def test_uninstall_keeps_data(project, staging):
    """Addresses outlive the program, and uninstall says where they are."""
    database = staging / "var/lib/cni-ipam/ipam.db"
    database.parent.mkdir(parents=True)
    database.write_text("records")
    run_install(project, "install", staging)
    assert f"data in {staging}/var/lib/cni-ipam" in run_install(project, "uninstall", staging)
    assert "records" == database.read_text()


def test_uninstall_without_install_changes_nothing(project, staging):
    """It can be called at any time."""
    run_install(project, "uninstall", staging)
    assert [] == list_tree(staging)


def test_uninstall_leaves_a_calico_ipam_that_is_not_ours(project, staging):
    """Without a drop-in, Calico's plugin is none of our business."""
    place = place_original(staging)
    run_install(project, "install", staging)
    run_install(project, "uninstall", staging)
    assert ORIGINAL == place.read_bytes()


def test_install_refuses_a_folder_that_is_not_ours(project, staging):
    """/opt/cni-ipam that someone made by hand is neither merged with nor deleted."""
    (staging / "opt/cni-ipam").mkdir(parents=True)
    done = subprocess.run(
        install_command(project, "install", staging), check=False, capture_output=True, text=True
    )
    assert (1, True) == (done.returncode, "not a link of ours" in done.stderr)


COMMANDS = ["mkdir", "mktemp", "cp", "chown", "chmod", "sync", "ln", "mv", "cmp", "rm", "rmdir"]


@pytest.mark.parametrize("verb", ["install-drop-in", "uninstall"])
def test_a_kill_at_any_step_leaves_a_version_that_works(project, staging, tmp_path, verb):
    """The script is killed before its 1st, 2nd, … command that writes, until it gets through."""
    place = place_original(staging)
    run_install(project, "install-drop-in", staging)
    make_bundle(project, "b" * 12)
    tools = make_killing_tools(tmp_path)
    for step in range(1, 100):
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "STEP": str(step)}
        (tools / "count").write_text("0")
        done = subprocess.run(
            install_command(project, verb, staging),
            env=environment,
            check=False,
            capture_output=True,
        )
        assert_calico_ipam_works(staging, place)
        if done.returncode == 0:
            break
        if verb == "uninstall":
            run_install(project, "install-drop-in", staging)
    assert 0 == done.returncode
    run_install(project, "uninstall", staging)
    assert ORIGINAL == place.read_bytes()
    assert ["opt", "opt/cni", "opt/cni/bin", "opt/cni/bin/calico-ipam"] == list_tree(staging)


def make_killing_tools(tmp_path):
    """Stand-ins for the commands that write: the STEP-th call of any kills the script."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in COMMANDS:
        (tools / name).write_text(
            "#!/bin/bash\n"
            f"count=$(($(<{tools}/count) + 1)); echo $count >{tools}/count\n"
            '[ "$count" != "$STEP" ] || { kill -9 $PPID; exit 1; }\n'
            f'exec {shutil.which(name)} "$@"\n'
        )
        (tools / name).chmod(0o755)
    return tools


def assert_calico_ipam_works(staging, place):
    """The place holds the original, or our link with a whole version behind it."""
    if place.is_symlink():
        assert call_installed(staging, "opt/cni/bin/calico-ipam").startswith("cni-ipam ")
    else:
        assert ORIGINAL == place.read_bytes()
