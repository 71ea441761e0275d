"""packaging/install-node.sh on a folder that stands for a node. What it does on a real cluster:
integration/cluster/test_daemonset.py; killed at any step: test_node_install_killed.py."""

import json
import os
import shutil
import stat
from base64 import b64decode
from functools import partial
from pathlib import Path

import pytest
import trustme
import yaml

from integration.network import ROOT, becomes_true
from integration.node_container import (
    COMMANDS,
    KUBECONFIG,
    LIST,
    NAME,
    ApiServer,
    Pod,
    find_session,
    write_tool,
)
from integration.test_install import list_tree, make_bundle

SERVICE_ACCOUNT_PATH = "/api/v1/namespaces/kube-system/serviceaccounts/cni-ipam/token"
PATIENCE_SECONDS = 120


@pytest.fixture
def api():
    server = ApiServer()
    yield server
    server.close()


@pytest.fixture
def pod(tmp_path, api):
    return Pod(tmp_path, api)


def test_install_puts_everything_in_place(pod):
    """The plugin, the node's name, the kubeconfig and the network list."""
    pod.run("install")
    assert f"cni-ipam {'a' * 12}" == pod.call_plugin()
    assert "node1" == (pod.node / NAME).read_text()
    assert (ROOT / "conf/30-kubernetes.conflist").read_text() == (pod.node / LIST).read_text()
    assert "token-1" == pod.read_token()


def test_what_the_node_gets_is_for_root_alone(pod):
    """A kubeconfig holds a token, and a network list may."""
    pod.run("install")
    modes = {stat.S_IMODE((pod.node / path).stat().st_mode) for path in (LIST, KUBECONFIG, NAME)}
    assert {0o600} == modes


def test_the_kubeconfig_is_one_that_clients_read(pod, api):
    """One context with the server as the node reaches it, its authority, and the token."""
    pod.run("install")
    config = yaml.safe_load((pod.node / KUBECONFIG).read_text())
    ca = (Path(pod.environment["OWN_SERVICE_ACCOUNT_FOLDER"]) / "ca.crt").read_bytes()
    assert ca == b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    assert f"https://127.0.0.1:{api.port}" == config["clusters"][0]["cluster"]["server"]
    assert config["contexts"][0]["name"] == config["current-context"]


def test_the_token_is_asked_for_with_the_pods_own(pod, api):
    """For the plugin's service account, for a day, and bound to no pod."""
    pod.run("install")
    expected = (
        SERVICE_ACCOUNT_PATH,
        "Bearer own-token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 86400},
        },
    )
    assert [expected] == api.requests


def test_an_ipv6_api_server_stands_in_brackets(tmp_path):
    """A URL needs them, the variable has none."""
    api = ApiServer.__new__(ApiServer)
    api.authority = trustme.CA()
    api.port = 1
    pod = Pod(tmp_path, api, host="fd00::1")
    tools = tmp_path / "tools"
    tools.mkdir()
    write_tool(tools, "curl", """cat >/dev/null; printf '%s' '{"status": {"token": "x"}}'""")
    pod.run("install", PATH=f"{tools}:{os.environ['PATH']}")
    config = yaml.safe_load((pod.node / KUBECONFIG).read_text())
    assert "https://[fd00::1]:1" == config["clusters"][0]["cluster"]["server"]


def test_no_secret_is_an_argument(pod, tmp_path):
    """Everybody on the node sees the arguments of a process."""
    tools = tmp_path / "tools"
    tools.mkdir()
    seen = tmp_path / "seen"
    for name in COMMANDS:
        write_tool(tools, name, f'echo {name} "$@" >>{seen}; exec {shutil.which(name)} "$@"')
    pod.run("install", PATH=f"{tools}:{os.environ['PATH']}")
    assert "curl" in seen.read_text()
    assert "own-token" not in seen.read_text()
    assert "token-1" not in seen.read_text()


def test_a_second_install_changes_nothing_but_the_token(pod):
    """The init container runs again whenever the node starts."""
    pod.run("install")
    before = {
        path: path.lstat() for path in pod.node.rglob("*") if path.name != Path(KUBECONFIG).name
    }
    pod.run("install")
    after = {
        path: path.lstat() for path in pod.node.rglob("*") if path.name != Path(KUBECONFIG).name
    }
    assert [(p, s.st_ino) for p, s in before.items() if p.is_file() and not p.is_symlink()] == [
        (p, s.st_ino) for p, s in after.items() if p.is_file() and not p.is_symlink()
    ]
    assert "token-2" == pod.read_token()


def test_without_a_token_the_network_list_is_not_written(pod, api):
    """A runtime that saw it would call a plugin that can't work."""
    api.status = 403
    done = pod.call("install")
    assert 1 == done.returncode
    assert "no token for cni-ipam" in done.stderr
    assert "no such luck" in done.stderr
    assert not (pod.node / LIST).exists()


def test_without_a_token_a_node_that_works_goes_on(pod, api):
    """An upgrade that finds no API server leaves the kubeconfig and the list as they are."""
    pod.run("install")
    before = (pod.node / LIST).read_text(), (pod.node / KUBECONFIG).read_text()
    api.status = 500
    assert 1 == pod.call("install").returncode
    assert before == ((pod.node / LIST).read_text(), (pod.node / KUBECONFIG).read_text())


def test_the_clusters_network_list_comes_before_the_images(pod):
    """It comes from the ConfigMap."""
    own = {"cniVersion": "1.0.0", "name": "mine", "plugins": [{"type": "ptp"}]}
    pod.list.write_text(json.dumps(own))
    pod.run("install")
    assert own == json.loads((pod.node / LIST).read_text())


PTP = '{"name": "x", "plugins": [{"type": "ptp"}]}'


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", "{", "{}", "[]", "[1]", PTP * 2, f"[{PTP}]", f"\ufeff{PTP}"),
        *('{"name": "x", "plugins": []}', '{"name": "x", "plugins": "abc"}'),
        *('{"name": "x", "plugins": {"type": "ptp"}}', '{"name": "x", "plugins": [{}]}'),
        *(
            '{"name": "", "plugins": [{"type": "ptp"}]}',
            '{"name": 1, "plugins": [{"type": "ptp"}]}',
        ),
    ],
)
def test_a_network_list_that_is_none_is_refused_before_anything_changes(pod, text):
    """It would take the node's other networks with it."""
    pod.list.write_text(text)
    done = pod.call("install")
    assert 1 == done.returncode
    assert "is not a network list" in done.stderr
    assert [] == list_tree(pod.node)


def test_a_list_under_another_name_is_not_passed_over(pod):
    """The ConfigMap was made from a file that is called otherwise."""
    pod.list.with_name("my.conflist").write_text(PTP)
    done = pod.call("install")
    assert 1 == done.returncode
    assert "the ConfigMap has my.conflist, but no network.conflist" in done.stderr
    assert [] == list_tree(pod.node)


@pytest.mark.parametrize("name", ["NODE_NAME", "KUBERNETES_SERVICE_HOST"])
def test_a_missing_variable_is_named(pod, name):
    """Nothing changes then."""
    done = pod.call("install", **{name: ""})
    assert (1, f"install: {name} is not set\n") == (done.returncode, done.stderr)
    assert [] == list_tree(pod.node)


def test_the_token_is_renewed(pod):
    """The container that stays does so again and again."""
    pod.run("install")
    with pod.running("token", RENEW_SECONDS="0.1"):
        assert becomes_true(lambda: int(pod.read_token()[6:]) >= 4, PATIENCE_SECONDS)


def test_a_reader_never_finds_half_a_kubeconfig(pod):
    """It is replaced by a rename, as the plugin may read it at any time."""
    pod.run("install")
    read = set()
    with pod.running("token", RENEW_SECONDS="0"):
        assert becomes_true(lambda: read.add(pod.read_token()) or len(read) > 20, PATIENCE_SECONDS)
    assert all(token.startswith("token-") for token in read)


def test_a_token_that_can_not_be_renewed_stays(pod, api):
    """It is good for most of a day; renewing it is tried again until it succeeds."""
    pod.run("install")
    api.status = 503
    with pod.running("token", RETRY_SECONDS="0.1"):
        assert becomes_true(lambda: len(api.requests) > 2, PATIENCE_SECONDS)
        assert "token-1" == pod.read_token()
        api.status = 201
        assert becomes_true(lambda: pod.read_token() == "token-2", PATIENCE_SECONDS)


def test_containers_end_on_sigterm_without_children(pod):
    """A pod that has to be killed takes its grace period for nothing."""
    pod.run("install-drop-in")
    for verb in ("token", "keep-drop-in", "idle"):
        with pod.running(verb) as process:
            assert becomes_true(lambda: "sleep" in find_session(process.pid), PATIENCE_SECONDS)
        assert 0 == process.returncode
        # Who has closed the pipes to us may still be about to end.
        assert becomes_true(partial(has_ended, process.pid), PATIENCE_SECONDS)


def has_ended(leader):
    return find_session(leader) == {}


def test_an_upgrade_leaves_running_plugins_their_bundle(pod):
    """What was started from the old bundle may still read it; the next upgrade takes it away."""
    pod.run("install")
    old = (pod.node / "opt/cni-ipam").resolve()
    make_bundle(pod.image, "b" * 12)
    pod.run("install")
    pod.run("install")
    assert f"cni-ipam {'b' * 12}" == pod.call_plugin()
    assert (old / "cni-ipam").exists()
    make_bundle(pod.image, "c" * 12)
    pod.run("install")
    assert not old.exists()


def test_uninstall_leaves_nothing(pod):
    """Not even the folders that install made, but for those that are mounted in the pod."""
    pod.run("install")
    pod.run("uninstall")
    assert [] == [path for path in list_tree(pod.node) if not (pod.node / path).is_dir()]
    assert not (pod.node / "opt").exists()


def test_uninstall_leaves_what_others_put_there(pod):
    """Other plugins, other networks, the data of the default datastore."""
    others = {
        "opt/cni/bin/ptp": "theirs",
        "etc/cni/net.d/20-other.conflist": "theirs",
        "var/lib/cni-ipam/ipam.db": "records",
    }
    for path, text in others.items():
        (pod.node / path).parent.mkdir(parents=True, exist_ok=True)
        (pod.node / path).write_text(text)
    pod.run("install")
    pod.run("uninstall")
    files = [path for path in list_tree(pod.node) if not (pod.node / path).is_dir()]
    assert sorted(others) == files


def test_drop_in_replaces_calico_ipam_and_uninstall_puts_it_back(pod):
    """Nothing else is put on the node: Calico's own network list and kubeconfig serve."""
    place = put_calico_ipam(pod, b"calico")
    pod.run("install-drop-in")
    assert "/opt/cni-ipam/calico-ipam" == os.readlink(place)
    assert not (pod.node / "etc").exists()
    pod.run("uninstall")
    assert b"calico" == place.read_bytes()


def test_drop_in_comes_back_when_calico_replaces_it(pod):
    """Calico's node image does so at each start; what it brought is what uninstall puts back."""
    place = put_calico_ipam(pod, b"calico")
    pod.run("install-drop-in")
    with pod.running("keep-drop-in", RETRY_SECONDS="0.1"):
        newer = place.with_name(".calico-ipam.tmp")
        newer.write_bytes(b"newer")
        newer.rename(place)
        assert becomes_true(place.is_symlink, PATIENCE_SECONDS)
    pod.run("uninstall")
    assert b"newer" == place.read_bytes()


def put_calico_ipam(pod, content):
    place = pod.node / "opt/cni/bin/calico-ipam"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place
