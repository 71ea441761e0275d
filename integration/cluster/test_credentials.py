"""How the plugin says who it is, and whom it trusts; and what it says when the API server is away.

No answer and no line of the log shows a token.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest

from cni_ipam.cni.kubernetes_settings import KubernetesSettings, parse_api_server
from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes import KubernetesDatastore
from cni_ipam.datastore.kubernetes_client import KubernetesClient
from cni_ipam.datastore.port import Range
from cni_ipam.lean.http import Credentials
from integration.cluster.node import (
    ACCOUNT,
    ApiNode,
    clear_records,
    create,
    custom_resources,
    put_pool,
    serves,
    wait_until_expired,
)
from integration.network import becomes_true
from integration.program import inside, run_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from integration.cluster.cluster import Cluster
    from integration.program import Answer

    Json = dict[str, Any]

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
# An address of the API server that its certificate does not have.
UNNAMED = "https://127.0.0.2:443"
NOBODY = "https://127.0.0.1:9"
VERBS = ("ADD", "DEL", "CHECK", "GC")
# Where a pod has its token and the CA; what else is in /run is out of sight.
AS_POD = """
mount -t tmpfs run /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount &&
cp "$0"/* /run/secrets/kubernetes.io/serviceaccount && exec "$@"
"""


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    with custom_resources(cluster):
        yield cluster


@pytest.fixture
def ready(prepared: Cluster) -> Iterator[Cluster]:
    """There is a pool."""
    put_pool(prepared, "pool", "10.77.0.0/24")
    yield prepared
    clear_records(prepared)


@pytest.fixture
def bound_user(ready: Cluster) -> Iterator[str]:
    """A user, by name, who has the plugin's role."""
    body = {
        "kind": "ClusterRoleBinding",
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "test"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cni-ipam",
        },
        "subjects": [{"kind": "User", "name": "plugin", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    create(ready, BINDINGS, body)
    token = ready.token("plugin")
    assert becomes_true(lambda: serves(ready, token))
    yield "plugin"
    ready.request("DELETE", f"{BINDINGS}/test")


def change(kubeconfig: Path, **settings: Any) -> Path:
    """Change the kubeconfig's cluster; what is None goes."""
    document = json.loads(kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"] | settings
    kept = {key: value for key, value in cluster.items() if value is not None}
    document["clusters"][0]["cluster"] = kept
    kubeconfig.write_text(json.dumps(document))
    return kubeconfig


def assert_refused(answer: Answer, code: int, *words: str) -> None:
    """An error with the code, which says all of that."""
    assert (1, code) == (answer.status, answer.document["code"]), answer.stdout
    said = answer.document["msg"] + answer.document.get("details", "")
    assert [] == [word for word in words if word not in said], said


# Tokens


def test_an_expired_token_is_refused(ready, tmp_path):
    """As unauthorized, at once, and the token is not shown."""
    token = ready.token(ACCOUNT, seconds=1)
    wait_until_expired(ready, token)
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT, token=token))
    for verb in ("ADD", "DEL"):
        started = time.monotonic()
        answer = node.call(verb)
        assert_refused(answer, 110, "connection is unauthorized")
        assert time.monotonic() - started < 5
        assert token not in answer.stdout.decode() + answer.stderr


def test_the_next_call_takes_up_a_rotated_token(ready, tmp_path):
    """The file is the kubeconfig's `tokenFile`."""
    file = tmp_path / "token"
    file.write_text("no longer valid".replace(" ", "-"))
    kubeconfig = ready.kubeconfig(ACCOUNT, token_file=file)
    node = ApiNode(tmp_path, ready, kubeconfig)
    assert_refused(node.call("ADD"), 110, "connection is unauthorized")
    file.write_text(ready.token(ACCOUNT) + "\n")
    assert node.call("ADD").address.startswith("10.77.0.")


def test_a_long_lived_client_takes_up_a_rotated_token(ready, tmp_path):
    """Over the same connection, when the one that it has is refused."""
    file = tmp_path / "token"
    former = ready.token(ACCOUNT, seconds=20)
    file.write_text(former)
    settings = KubernetesSettings(
        parse_api_server(ready.server),
        Credentials(ca_file=str(ready.ca)),
        token_file=str(file),
        origin="the test",
    )
    wanted = [Range(keys.POOLS, prefix=True)]
    store = KubernetesDatastore(KubernetesClient(settings))
    with ready.machine.network(), contextlib.closing(store):
        (before,) = store.read(wanted)
        file.write_text(ready.token(ACCOUNT))
        wait_until_expired(ready, former)
        assert [before] == store.read(wanted)
    assert ["pool"] == [entry.key.removeprefix(keys.POOLS) for entry in before]


def test_a_token_file_that_is_gone_is_named(ready, tmp_path):
    """It cannot be read."""
    file = tmp_path / "no-such-token"
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT, token_file=file))
    for verb, code in (("ADD", 5), ("STATUS", 50)):
        assert_refused(node.call(verb), code, str(file), "No such file or directory")


# Certificates


def test_a_server_of_another_ca_is_not_trusted(ready, tmp_path):
    """The message names the server, and where the CA is said."""
    kubeconfig = ready.kubeconfig(ACCOUNT, ca=ready.authority.foreign_ca)
    node = ApiNode(tmp_path, ready, kubeconfig)
    words = ("192.0.2.1", "certificate is not trusted", str(kubeconfig))
    assert_refused(node.call("ADD"), 110, *words)


def test_a_server_of_another_name_is_not_trusted(ready, tmp_path):
    """Its certificate has not the address by which it is reached."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig(ACCOUNT, server=UNNAMED))
    assert_refused(node.call("ADD"), 110, "127.0.0.2", "certificate is not trusted", "mismatch")


def test_the_name_to_expect_can_be_said(ready, tmp_path):
    """`tls-server-name` of the kubeconfig."""
    kubeconfig = ready.kubeconfig(ACCOUNT, server=UNNAMED)
    node = ApiNode(tmp_path, ready, change(kubeconfig, **{"tls-server-name": "kubernetes"}))
    assert 0 == node.call("ADD").status


def test_any_certificate_will_do_if_so_said(ready, tmp_path):
    """`insecure-skip-tls-verify`; together with a CA it is a mistake."""
    kubeconfig = ready.kubeconfig(ACCOUNT, server=UNNAMED)
    node = ApiNode(tmp_path, ready, change(kubeconfig, **{"insecure-skip-tls-verify": True}))
    assert_refused(node.call("ADD"), 7, "insecure-skip-tls-verify")
    change(kubeconfig, **{"certificate-authority": None})
    assert 0 == node.call("ADD").status


def test_a_client_certificate_is_a_user(ready, tmp_path, bound_user):
    """It may do what the user's role grants."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig(bound_user, certificate=True))
    assert node.call("ADD").address.startswith("10.77.0.")


def test_a_user_without_a_role_is_told_so(ready, tmp_path):
    """In the API server's words."""
    node = ApiNode(tmp_path, ready, ready.kubeconfig("nobody", certificate=True))
    assert_refused(node.call("ADD"), 110, 'User "nobody" cannot', "conf/rbac.yaml")


def test_a_pods_own_files_will_do(ready, tmp_path):
    """Where nothing is said: the variables and files that every pod has."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(ready.token(ACCOUNT))
    (folder / "ca.crt").write_bytes(ready.ca.read_bytes())
    node = ApiNode(tmp_path, ready, "")
    node.settings.pop("kubernetes")
    node.wrapper = (
        *inside(ready.machine.namespace),
        *("unshare", "--mount", "sh", "-c", AS_POD, str(folder)),
    )
    variables = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert node.call("ADD", **variables).address.startswith("10.77.0.")


# A server that is away


def call_each(cluster: Cluster, folder: Path, server: str) -> list[tuple[Answer, float]]:
    """The answers of all verbs, which are called at once, each on a node of its own; with how long
    the slowest took."""
    kubeconfig = cluster.kubeconfig(ACCOUNT, token="not-asked-for", server=server)
    result = {"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.1/32"}]}
    calls = []
    for verb in VERBS:
        node = ApiNode(folder, cluster, kubeconfig, f"node-{verb.lower()}")
        more = {"cni.dev/valid-attachments": [], "prevResult": result}
        calls.append(node.start(verb, "" if verb == "GC" else "c1", node.netconf(**more)))
    started = time.monotonic()
    answers = run_at_once(calls)
    return [(answer, time.monotonic() - started) for answer in answers]


@contextlib.contextmanager
def hung(cluster: Cluster) -> Iterator[None]:
    """Within the block the API server does nothing; the kernel takes its connections."""
    cluster.apiserver.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.apiserver.kill(signal.SIGCONT)


def test_nobody_listens(ready, tmp_path):
    """Every verb tries again for a while, and says who does not serve, and why."""
    for answer, seconds in call_each(ready, tmp_path, NOBODY):
        assert_refused(answer, 11, NOBODY, "refused", "kubeconfig")
        assert seconds < 30


def test_the_server_hangs(ready, tmp_path):
    """It takes connections, and no more is heard of it."""
    with hung(ready):
        found = call_each(ready, tmp_path, ready.server)
    for answer, seconds in found:
        assert_refused(answer, 11, "192.0.2.1:443", "kubeconfig")
        assert seconds < 45


@pytest.mark.parametrize("how", ["nobody listens", "it hangs"])
def test_status_is_soon_told(ready, tmp_path, how):
    """Within two seconds: by default that is no reason for the node to be unfit."""
    server = NOBODY if how == "nobody listens" else ready.server
    kubeconfig = ready.kubeconfig(ACCOUNT, token="not-asked-for", server=server)
    node = ApiNode(tmp_path, ready, kubeconfig)
    demanding = node.netconf(ipam={"type": "cni-ipam", "status_when_unreachable": True})
    with hung(ready) if how == "it hangs" else contextlib.nullcontext():
        content, seconds = call_quickly(node, "STATUS", node.netconf())
        refusing, more_seconds = call_quickly(node, "STATUS", demanding)
    assert 0 == content.status
    assert_refused(refusing, 50, server.removeprefix("https://"))
    assert max(seconds, more_seconds) < 2


def call_quickly(node: ApiNode, verb: str, netconf: Json) -> tuple[Answer, float]:
    """The quickest of three answers, as this machine may be busy, and how long it took."""
    found = []
    for _ in range(3):
        started = time.monotonic()
        found.append((node.call(verb, "", netconf), time.monotonic() - started))
    return min(found, key=lambda answered: answered[1])
