"""packaging/install-node.sh killed before its 1st, 2nd, … command, with all that it started."""

import json
import os
import shutil
from functools import partial

import pytest

from integration.network import becomes_true
from integration.node_container import (
    COMMANDS,
    END_SECONDS,
    LIST,
    NAME,
    ApiServer,
    Pod,
    find_session,
    write_tool,
)
from integration.test_install import list_tree, make_bundle

PATIENCE_SECONDS = 120


@pytest.fixture
def api():
    server = ApiServer()
    yield server
    server.close()


@pytest.fixture
def pod(tmp_path, api):
    return Pod(tmp_path, api)


@pytest.mark.parametrize("start", ["nothing", "older version"])
def test_an_install_killed_at_any_step_leaves_a_node_that_works(pod, tmp_path, start):
    """Before its 1st, 2nd, … command all of it is killed. There is the old state or the new one;
    where there is a network list, there is all that it needs; and the next call finishes."""
    tools = make_killing_tools(tmp_path)
    newer = json.dumps({"name": "newer", "plugins": [{"type": "ptp"}]})
    for step in range(1, 100):
        shutil.rmtree(pod.node)
        pod.node.mkdir()
        if start == "older version":
            make_bundle(pod.image, "a" * 12)
            pod.list.unlink(missing_ok=True)
            pod.run("install")
        make_bundle(pod.image, "b" * 12)
        pod.list.write_text(newer)
        done = call_and_kill(pod, tools, "install", step)
        assert_usable(pod)
        assert start == "nothing" or (pod.node / LIST).exists()
        pod.run("install")
        assert_usable(pod)
        assert f"cni-ipam {'b' * 12}" == pod.call_plugin()
        assert newer == (pod.node / LIST).read_text()
        assert not list((pod.node / "etc/cni/net.d").glob("*.new"))
        if done.returncode == 0:
            break
    assert 0 == done.returncode
    assert step > 25, "it has that many commands"


def test_an_uninstall_killed_at_any_step_can_be_repeated(pod, tmp_path):
    """The network list goes first, so nobody calls what is not whole any more."""
    tools = make_killing_tools(tmp_path)
    for step in range(1, 100):
        pod.run("install")
        done = call_and_kill(pod, tools, "uninstall", step)
        assert_usable(pod)
        pod.run("uninstall")
        assert [] == [path for path in list_tree(pod.node) if not (pod.node / path).is_dir()]
        if done.returncode == 0:
            break
    assert 0 == done.returncode
    assert step > 8, "it has that many commands"


def test_a_renewal_killed_at_any_step_leaves_a_kubeconfig(pod, tmp_path, api):
    """The old token or the new one."""
    pod.run("install")
    tools = make_killing_tools(tmp_path)
    for step in range(1, 100):
        (tools / "count").write_text("0")
        process = pod.start("token", PATH=f"{tools}:{os.environ['PATH']}", STEP=str(step))
        assert becomes_true(partial(is_idle_or_gone, process), PATIENCE_SECONDS)
        assert pod.read_token() in {f"token-{number}" for number in range(1, api.given + 1)}
        if process.poll() is None:
            break
        process.communicate()
    process.terminate()
    process.communicate(timeout=END_SECONDS)
    assert f"token-{api.given}" == pod.read_token()
    assert step > 8, "it has that many commands"


def is_idle_or_gone(process):
    return process.poll() is not None or "sleep" in find_session(process.pid)


def assert_usable(pod):
    """A runtime that finds the network list finds all that it names."""
    if not (pod.node / LIST).exists():
        return
    assert json.loads((pod.node / LIST).read_text())["plugins"]
    assert pod.call_plugin().startswith("cni-ipam ")
    assert pod.read_token().startswith("token-")
    assert "node1" == (pod.node / NAME).read_text()


def make_killing_tools(tmp_path):
    """Stand-ins for the commands: the STEP-th call of any kills the script with all it started."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in COMMANDS:
        write_tool(
            tools,
            name,
            f"count=$(($(<{tools}/count) + 1)); echo $count >{tools}/count\n"
            '[ "$count" != "$STEP" ] || kill -9 0\n'
            f'exec {shutil.which(name)} "$@"',
        )
    return tools


def call_and_kill(pod, tools, verb, step):
    (tools / "count").write_text("0")
    return pod.call(verb, PATH=f"{tools}:{os.environ['PATH']}", STEP=str(step))
