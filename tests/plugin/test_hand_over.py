"""The lean program lets the full one serve in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cni_ipam.errors import InputOutputError, UnsupportedError
from cni_ipam.plugin import hand_over as module
from cni_ipam.plugin.hand_over import FULL_PROGRAM, hand_over
from cni_ipam.plugin.main import serve

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle's folder, of which we are the lean program."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "cni-ipam").touch()
    (tmp_path / "exe").symlink_to(folder / "cni-ipam")
    monkeypatch.setattr(module, "OWN_PROGRAM", str(tmp_path / "exe"))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    return folder


def test_the_full_program_has_our_input_and_environment_and_the_plugins_name(bundle):
    """An interpreter in its place runs what it finds on stdin."""
    (bundle / FULL_PROGRAM).symlink_to(PYTHON)
    stdin = b"import os, sys; print(sys.orig_argv, os.environ['WORD'], os.getpid())"
    stdin += b"#" * 200_000
    code = f"""
import sys
sys.frozen = True
from cni_ipam.plugin import hand_over
hand_over.OWN_PROGRAM = {module.OWN_PROGRAM!r}
hand_over.hand_over("why", {stdin!r}, "calico-ipam", {{b"WORD": b"sesame"}})
"""
    with subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        answer = process.communicate(code.encode(), timeout=20)[0]
    assert f"['calico-ipam'] sesame {process.pid}\n" == answer.decode()
    assert 0 == process.returncode


def call():
    hand_over("kubeconfig /k has a plugin", b"{}", "cni-ipam", {})


def test_without_the_full_program_the_reason_is_told(bundle):
    """And where it belongs."""
    with pytest.raises(UnsupportedError) as raised:
        call()
    assert "kubeconfig /k has a plugin: for that the full program is needed, " in raised.value.msg
    assert f"ipamctl of the bundle belongs beside {bundle}/cni-ipam" in raised.value.details


def test_the_full_program_does_not_hand_over_to_itself(bundle, tmp_path):
    """Or it would never end."""
    (bundle / FULL_PROGRAM).symlink_to(PYTHON)
    (tmp_path / "exe").unlink()
    (tmp_path / "exe").symlink_to(bundle / FULL_PROGRAM)
    with pytest.raises(UnsupportedError):
        call()


def test_an_interpreter_does_not_run_what_lies_beside_it(bundle, monkeypatch):
    """That is no part of ours."""
    (bundle / FULL_PROGRAM).symlink_to(PYTHON)
    monkeypatch.delattr(sys, "frozen")
    with pytest.raises(UnsupportedError):
        call()


def test_what_cannot_be_executed_is_told(bundle, capfd):
    """With the kernel's reason."""
    (bundle / FULL_PROGRAM).write_bytes(b"\x7fELF is not all it takes")
    (bundle / FULL_PROGRAM).chmod(0o755)
    before = os.dup(0)
    try:
        with pytest.raises(InputOutputError, match=r"cannot execute .*/ipamctl: Exec format error"):
            call()
    finally:
        os.dup2(before, 0)
        os.close(before)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_the_lean_program_answers_where_it_cannot_hand_over(monkeypatch, tmp_path, command):
    """It has no `kubernetes` package; the runtime learns what is missing."""
    monkeypatch.setitem(sys.modules, "cni_ipam.cni.kubernetes_package", None)
    path = tmp_path / "kubeconfig"
    path.write_text("current-context: &anchor here\n")
    conf = {
        "cniVersion": "1.0.0",
        "name": "net1",
        "type": "ptp",
        "ipam": {"type": "cni-ipam"},
        "kubernetes": {"kubeconfig": str(path)},
    }
    environ = {
        b"CNI_COMMAND": command.encode(),
        b"CNI_CONTAINERID": b"c1",
        b"CNI_NETNS": b"/run/netns/x",
        b"CNI_IFNAME": b"eth0",
        b"CNI_PATH": b"/opt/cni/bin",
    }
    output, status = serve(environ, "cni-ipam", json.dumps(conf).encode)
    answer = json.loads(output)
    assert (1, 2) == (status, answer["code"])
    assert answer["msg"].startswith(f"kubeconfig {path} is not plain YAML: line 1: ")
