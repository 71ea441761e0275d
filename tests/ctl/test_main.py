"""ipamctl as a whole: options, errors, the datastore's state, versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from uuid import UUID

import pytest

from cni_ipam import __version__
from cni_ipam.agent import main as agent
from cni_ipam.cni.etcd_settings import EtcdSettings
from cni_ipam.cni.kubernetes_settings import ApiServer, KubernetesSettings
from cni_ipam.cni.settings import DatastoreSettings
from cni_ipam.ctl import main as ctl
from cni_ipam.ctl.cluster import set_ready
from cni_ipam.ctl.main import with_shared_options_first
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.kubernetes import KubernetesDatastore
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.datastore.open import open_datastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from cni_ipam.errors import NetconfError
from cni_ipam.lean.http import Endpoint
from tests.ctl.conftest import NOW


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["get", "pool", "-c", "f"], ["-c", "f", "get", "pool"]),
        (["get", "--config=f", "pool"], ["--config=f", "get", "pool"]),
        (["get", "-cf", "-ldebug", "pool"], ["-cf", "-ldebug", "get", "pool"]),
        (
            ["get", "--allow-version-mismatch", "--context", "x", "-o", "yaml"],
            ["--allow-version-mismatch", "--context", "x", "get", "-o", "yaml"],
        ),
        (["get", "--", "-c", "f"], ["get", "--", "-c", "f"]),
        (["get", "-c"], ["-c", "get"]),
    ],
)
def test_shared_options_may_stand_anywhere(given, expected):
    """As calicoctl takes them behind the command, others before it."""
    assert expected == with_shared_options_first(given)


def test_options_behind_the_command(pool):
    """As an alias for calicoctl needs them."""
    words = ("get", "pool", "-o", "name", "--sqlite-path", pool.path, "--allow-version-mismatch")
    assert "ippool/pool1\n" == pool.types_bare(*words).out


@pytest.mark.parametrize("words", [("foo",), ("get", "--foo"), ("patch", "pool"), ("ipam", "x")])
def test_a_wrong_command_ends_with_1(operator, words):
    """On stderr, with a hint."""
    result = operator.types(*words)
    assert (1, "") == (result.status, result.out)
    assert "use 'ipamctl --help' to read about the commands\n" in result.err


def test_help_is_no_error(operator):
    """Asked for, or where a command is missing."""
    assert operator.types_bare("--help").out.startswith("Usage: ipamctl ")
    assert "show" in operator.types_bare("ipam").out
    assert (0, 0) == (operator.types_bare("--help").status, operator.types_bare("ipam").status)


def test_a_file_that_is_no_datastore_is_told_without_a_trace(operator):
    """It is somebody's."""
    (operator.folder / "ipam.db").write_text("not a database, but long enough to be looked at " * 9)
    result = operator.types("get", "pool")
    assert 1 == result.status
    assert result.err.startswith(f"sqlite_path {operator.path}: ")
    assert "Traceback" not in result.err


def test_main_ends_the_process(monkeypatch, capsys, tmp_path):
    """With the status of its command."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/ipamctl", "get", "foo"])
    with pytest.raises(SystemExit) as caught:
        ctl.main()
    assert 1 == caught.value.code
    expected = "failed to get resources: resource type 'foo' is not supported\n"
    assert expected == capsys.readouterr().err


def test_an_argument_that_is_not_utf8_is_refused(operator):
    """No name is spelled like that; Python has a lone surrogate for such a byte."""
    result = operator.types("get", "ippool", "a\udcff")
    expected = "the argument 'a\\xff' is not UTF-8, but all arguments must be\n"
    assert (1, "", expected) == (result.status, result.out, result.err)
    assert "IPPool(é\\xff)" in operator.types("get", "ippool", "é\\xff").err


def test_a_relative_path_without_a_working_folder_is_refused(operator, monkeypatch):
    """Somebody deleted the folder; nobody can tell where the file would be."""
    folder = operator.folder / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    result = operator.types_bare("get", "pool", "--sqlite-path", "ipam.db")
    expected = "--sqlite-path is ipam.db, but the working folder is gone: give an absolute path\n"
    assert (1, "", expected) == (result.status, result.out, result.err)


def in_a_shell(operator, line: str) -> tuple[int, str, str]:
    """Status, output and errors of a process; in the line `ipamctl` works on the test's
    datastore."""
    function = f'ipamctl() {{ {sys.executable} -m cni_ipam.ctl.main --sqlite-path "$0" "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", function + line, operator.path],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "status", "err"),
    [
        ("get pool -o yaml", 1, "stdout: No space left on device\n"),
        ("get pool pool1 none -o yaml", 1, "{missing}stdout: No space left on device\n"),
        ("get foo", 1, "failed to get resources: resource type 'foo' is not supported\n"),
    ],
)
def test_output_that_finds_no_space(pool, words, status, err):
    """One line, and what else went wrong is told nevertheless."""
    missing = "resource does not exist: IPPool(none) with error: <nil>\n"
    expected = (status, "", err.format(missing=missing))
    assert expected == in_a_shell(pool, f"ipamctl {words} >/dev/full")


def test_much_output_that_finds_no_space(pool):
    """It is lost before the end already."""
    objects = [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPReservation",
            "metadata": {"name": f"r{number}"},
            "spec": {"reservedCIDRs": [f"10.{number}.0.0/16"]},
        }
        for number in range(200)
    ]
    assert 0 == pool.types("create", "-f", "-", stdin=json.dumps(objects)).status
    expected = (1, "", "stdout: No space left on device\n")
    assert expected == in_a_shell(pool, "ipamctl get ipreservations -o yaml >/dev/full")


def test_a_reader_that_has_enough_is_no_matter(pool):
    """Nothing is said about it."""
    line = "exec 3> >(:); wait $!; ipamctl get {} -o yaml >&3"
    assert (1, "", "") == in_a_shell(pool, line.format("pool"))
    assert (1, "", "") == in_a_shell(pool, line.format("pool pool1 none"))


def test_without_an_output_a_command_works_silently(pool):
    """The caller closed it; its number is not the datastore's then."""
    assert (0, "", "") == in_a_shell(pool, "ipamctl get pool >&-")
    assert (0, "", "") == in_a_shell(pool, "ipamctl label pool pool1 a=b <&- >&- 2>&-")
    assert (1, "", "") == in_a_shell(pool, "ipamctl get foo 2>&-")
    assert "a: b" in pool.types("get", "pool", "-o", "yaml").out


def test_without_an_input_there_is_nothing_to_apply(pool):
    """And that is told; a command that reads nothing works."""
    closed = "failed to execute command: - is standard input, which is closed: name a file\n"
    assert (1, "", closed) == in_a_shell(pool, "ipamctl apply -f - <&-")
    assert (0, "ippool/pool1\n", "") == in_a_shell(pool, "ipamctl get pool -o name <&-")


def test_lock_and_unlock(operator):
    """ClusterInformation is made where there is none."""
    first = operator.types("datastore", "lock")
    locked = json.loads(operator.value(keys.CLUSTER_INFORMATION))
    second = operator.types("datastore", "migrate", "unlock")
    unlocked = json.loads(operator.value(keys.CLUSTER_INFORMATION))
    assert ("Datastore locked.\n", "Datastore unlocked.\n") == (first.out, second.out)
    assert (False, True) == tuple(o["spec"]["datastoreReady"] for o in (locked, unlocked))
    guid = locked["spec"]["clusterGUID"]
    assert (guid, 4) == (unlocked["spec"]["clusterGUID"], UUID(guid).version)
    assert guid == UUID(guid).hex
    assert locked["metadata"] == unlocked["metadata"]


def test_a_lock_is_what_the_plugin_looks_at():
    """Other fields of ClusterInformation stay."""
    store = MemoryDatastore()
    value = '{"metadata":{"name":"default"},"spec":{"calicoVersion":"v3.32.1"}}'
    store.commit([Write(keys.CLUSTER_INFORMATION, value, ABSENT)])
    set_ready(store, ready=False, now=NOW, seed=bytes(16))
    entry = store.read([Range(keys.CLUSTER_INFORMATION)])[0][0]
    assert not codec.is_ready(entry)
    assert "v3.32.1" in entry.value


def test_version(operator):
    """Ours, and the cluster's where it says one."""
    unknown = operator.types("version").out
    value = '{"spec":{"calicoVersion":"v3.32.1","clusterType":"k8s"}}'
    operator.write(Write(keys.CLUSTER_INFORMATION, value, ABSENT))
    known = operator.types("version").out.splitlines()
    assert unknown.endswith("Cluster Version:   unknown\nCluster Type:      unknown\n")
    assert f"Client Version:    v{__version__}" == known[0]
    assert ["Cluster Version:   v3.32.1", "Cluster Type:      k8s"] == known[2:]


def test_upgrade_of_a_datastore_that_is_new_enough(pool):
    """Nothing is done."""
    result = pool.types("datastore", "upgrade")
    assert (0, "The datastore has schema version 1 already.\n") == (result.status, result.out)


def test_upgrade_of_an_older_datastore(pool, monkeypatch):
    """From which version to which."""
    monkeypatch.setattr(SqliteDatastore, "upgrade", lambda _self: (1, 2))
    expected = "Upgraded the datastore from schema version 1 to 2.\n"
    assert expected == pool.types("datastore", "upgrade").out


def test_the_table_of_adapters(tmp_path):
    """Those that are there, and one that nobody knows. None is asked anything."""
    path = str(tmp_path / "ipam.db")
    etcd = EtcdSettings((Endpoint("http", "192.0.2.1", 2379),))
    server = KubernetesSettings(ApiServer("https", "192.0.2.1", 6443))
    for settings, adapter in (
        (DatastoreSettings("sqlite", path), SqliteDatastore),
        (DatastoreSettings("etcdv3", path, etcd), EtcdDatastore),
        (DatastoreSettings("kubernetes", path, None, server), KubernetesDatastore),
    ):
        store = open_datastore(settings)
        assert isinstance(store, adapter)
        store.close()
    with pytest.raises(NetconfError, match="no configuration has been provided"):
        open_datastore(DatastoreSettings("kubernetes", path))
    with pytest.raises(NetconfError, match="unknown datastore type: mysql"):
        open_datastore(DatastoreSettings("mysql", path))


def test_the_agent_says_its_version(monkeypatch, capsys):
    """And nothing else."""
    monkeypatch.setattr(sys, "argv", ["cni-ipam-agent", "--version"])
    with pytest.raises(SystemExit) as caught:
        agent.main()
    assert 0 == caught.value.code
    assert f"cni-ipam-agent v{__version__}\n" == capsys.readouterr().out


def test_the_agent_is_not_here_yet(monkeypatch):
    """One clear line; Python prints it on stderr and ends with 1."""
    monkeypatch.setattr(sys, "argv", ["cni-ipam-agent"])
    with pytest.raises(SystemExit, match="the node agent is not part of this release"):
        agent.main()
