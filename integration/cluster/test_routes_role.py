"""`ipamctl routes watch --bird` on a Kubernetes node, as the plugin's account: what it asks of the
API server is what conf/rbac-routes.yaml grants, and no verb of that is without use."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from integration.cluster.node import (
    ACCOUNT,
    CONF,
    GROUP,
    ApiNode,
    clear_records,
    create,
    custom_resources,
    put_pool,
    wait_until_expired,
)
from integration.cluster.pods import NODE
from integration.cluster.proxy import ApiProxy
from integration.daemon import Daemon
from integration.network import BUNDLE, becomes_true
from integration.program import inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.cluster.cluster import Cluster
    from integration.network import Done

ROLE = next(iter(yaml.safe_load_all((CONF / "rbac-routes.yaml").read_text())))
GRANTED = {(rule["resources"][0], verb) for rule in ROLE["rules"] for verb in rule["verbs"]}
OF_THE_PLUGIN = {("ippools", "list"), ("ipamblocks", "list"), ("blockaffinities", "list")}
ADDRESS = "192.0.2.1/24"
PEER = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "BGPPeer",
    "metadata": {"name": "router"},
    "spec": {"peerIP": "192.0.2.200", "asNumber": 64513},
}


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    """Calico's resources and the roles; the node says its address as Calico's nodes do."""
    with custom_resources(cluster, "rbac-routes.yaml"):
        note = f"projectcalico.org/IPv4Address={ADDRESS}"
        cluster.kubectl("annotate", "node", NODE, note)
        yield cluster
        cluster.kubectl("annotate", "node", NODE, "projectcalico.org/IPv4Address-")


@pytest.fixture
def ready(prepared: Cluster) -> Iterator[Cluster]:
    put_pool(prepared, "first", "10.77.0.0/28", blockSize=29)
    yield prepared
    clear_records(prepared)


def ipamctl(cluster: Cluster, *words: str, stdin: str = "") -> str:
    """What an administrator is told."""
    done = try_ipamctl(cluster, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def try_ipamctl(cluster: Cluster, *words: str, stdin: str = "") -> Done:
    """The same, whether it succeeds or not."""
    administrator = str(cluster.kubeconfig())
    return subprocess.run(
        [*inside(cluster.machine.namespace), str(BUNDLE / "ipamctl"), *words],
        input=stdin,
        env={
            "PATH": os.environ["PATH"],
            "DATASTORE_TYPE": "kubernetes",
            "KUBECONFIG": administrator,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_node_of_the_cluster_is_not_deleted(ready):
    """It is Kubernetes' own: nothing that it holds is given up either."""
    held = {
        "spec": {"cidr": "10.77.0.0/29", "node": NODE, "state": "confirmed", "deleted": "false"}
    }
    held |= {"kind": "BlockAffinity", "metadata": {"name": f"{NODE}-10-77-0-0-29"}}
    create(ready, f"{GROUP}/blockaffinities", held | {"apiVersion": GROUP.removeprefix("/apis/")})

    done = try_ipamctl(ready, "delete", "node", NODE)

    assert 1 == done.returncode
    assert f"operation delete is not supported on Node({NODE})" in done.stderr
    assert "use `kubectl delete node`" in done.stderr
    assert 1 == len(ready.get(f"{GROUP}/blockaffinities")["items"])
    assert NODE == ready.get(f"/api/v1/nodes/{NODE}")["metadata"]["name"]


def test_what_a_node_of_the_cluster_holds_is_given_up_by_force_alone(ready):
    """Its pods may be running; a node that is deleted is gone."""
    spec = {"cidr": "10.77.0.0/29", "node": NODE, "state": "confirmed", "deleted": "false"}
    held = {"kind": "BlockAffinity", "metadata": {"name": f"{NODE}-10-77-0-0-29"}, "spec": spec}
    create(ready, f"{GROUP}/blockaffinities", held | {"apiVersion": GROUP.removeprefix("/apis/")})

    refused = try_ipamctl(ready, "ipam", "release", "--node", NODE)
    forced = try_ipamctl(ready, "ipam", "release", "--node", NODE, "--force")

    assert (1, 0) == (refused.returncode, forced.returncode), forced.stderr
    assert f"Node({NODE}) is still there" in refused.stderr
    assert [] == ready.get(f"{GROUP}/blockaffinities")["items"]


def test_peers_and_settings_live_in_a_cluster(ready):
    """By calicoctl's commands, and `kubectl` sees them."""
    settings = {"kind": "BGPConfiguration", "metadata": {"name": "default"}}
    settings |= {"apiVersion": PEER["apiVersion"], "spec": {"nodeToNodeMeshEnabled": False}}
    documents = json.dumps([PEER, settings])
    assert ipamctl(ready, "apply", "-f", "-", stdin=documents) == (
        "Successfully applied 2 resource(s)\n"
    )
    patch = ("patch", "bgppeer", "router", "-p", '{"spec": {"asNumber": "1.10"}}')
    assert "Successfully patched 1 'BGPPeer' resource\n" == ipamctl(ready, *patch)
    (found,) = ready.get(f"{GROUP}/bgppeers")["items"]
    assert {"peerIP": "192.0.2.200", "asNumber": 65546} == found["spec"]
    assert ["router", "192.0.2.200", "(global)", "65546"] == (
        ipamctl(ready, "get", "bgppeer", "-o", "wide").splitlines()[1].split()
    )
    shown = ipamctl(ready, "get", "bgpconfig").splitlines()[1].split()
    assert ["default", "false", "-"] == shown
    assert "Successfully deleted 1 " in ipamctl(ready, "delete", "bgppeer", "router")
    assert [] == ready.get(f"{GROUP}/bgppeers")["items"]


def test_the_watch_needs_what_its_role_grants(ready, tmp_path):
    """Nothing that it asks is refused, and it asks for all of it; the file follows a new peer."""
    file = tmp_path / "bird.conf"
    with ApiProxy(ready) as proxy:
        kubeconfig = ready.kubeconfig(ACCOUNT, token=ready.token(ACCOUNT), server=proxy.endpoint)
        write_network(ready, tmp_path, kubeconfig)
        watch = start_watch(ready, tmp_path)
        try:
            assert becomes_true(lambda: asks(proxy) >= {*GRANTED, *OF_THE_PLUGIN}), (
                {*GRANTED, *OF_THE_PLUGIN} - asks(proxy),
                watch.read_tail(),
            )
            # The first file comes after the requests for it.
            assert becomes_true(file.exists), watch.read_tail()
            assert f"router id {ADDRESS.partition('/')[0]};" in file.read_text()
            ipamctl(ready, "apply", "-f", "-", stdin=json.dumps(PEER))
            assert becomes_true(lambda: "Global_192_0_2_200" in file.read_text()), watch.read_tail()
        finally:
            watch.kill(signal.SIGTERM)
        refused = [one.what for one in proxy.seen if one.status == http.client.FORBIDDEN]
        assert [] == refused


def test_the_watch_goes_on_with_a_renewed_kubeconfig(ready, tmp_path):
    """As the installer renews it on each node, long before the token in it has run out."""
    former = ready.token(ACCOUNT, seconds=30)  # in which the watch must have begun
    kubeconfig = ready.kubeconfig(ACCOUNT, token=former)
    write_network(ready, tmp_path, kubeconfig)
    watch, file = start_watch(ready, tmp_path), tmp_path / "bird.conf"
    try:
        assert becomes_true(file.exists), watch.read_tail()
        ready.kubeconfig(ACCOUNT).replace(kubeconfig)
        wait_until_expired(ready, former)
        ipamctl(ready, "apply", "-f", "-", stdin=json.dumps(PEER))
        assert becomes_true(lambda: "Global_192_0_2_200" in file.read_text()), watch.read_tail()
    finally:
        watch.kill(signal.SIGTERM)
    assert "connection is unauthorized" in watch.read_tail()


def write_network(cluster: Cluster, folder: Path, kubeconfig: Path) -> None:
    """The network list that the watch finds."""
    networks = folder / "net.d"
    networks.mkdir()
    netconf = ApiNode(folder, cluster, kubeconfig).netconf()
    conflist = {"cniVersion": "1.1.0", "name": "net", "plugins": [netconf]}
    (networks / "net.conflist").write_text(json.dumps(conflist))


def start_watch(cluster: Cluster, folder: Path) -> Daemon:
    """The command on the cluster's node."""
    watch = Daemon("watch", folder / "watch.log", cluster.machine.namespace)
    words = ("--node", NODE, "--bird", str(folder / "bird.conf"))
    words += ("--bird-socket", str(folder / "none.ctl"))
    command = [str(BUNDLE / "ipamctl"), "routes", "watch", *words]
    watch.spawn(command, {"CNI_NETCONF_DIR": str(folder / "net.d")})
    return watch


def asks(proxy: ApiProxy) -> set[tuple[str, str]]:
    """Resource and verb of each request that was granted, as roles call them."""
    return {
        (one.what.split()[1], verb_of(one.path))
        for one in proxy.seen
        if one.method == "GET" and one.status == http.client.OK
    }


def verb_of(path: str) -> str:
    """What Kubernetes calls a GET: a watch, of a list, or of one object."""
    parts = urlsplit(path)
    if parse_qs(parts.query).get("watch"):
        return "watch"
    words = parts.path.strip("/").split("/")
    is_one = len(words) > (4 if words[0] == "apis" else 3)
    return "get" if is_one else "list"
