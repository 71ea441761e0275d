"""conf/ on a real cluster: custom resources, roles, and the DaemonSets with the image's own script.

The image is put together from this machine's files, of what packaging/Dockerfile names; the bundle
in it is the real one. What is in these manifests otherwise: integration/test_manifests.py.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from integration.cluster.image import make_image
from integration.cluster.node import wait_heeded, wait_served
from integration.network import BUNDLE, ROOT, becomes_true

IMAGE = "docker.io/library/cni-ipam:0.1.0"
# What Debian's base image has of which the scripts make use, and what the Dockerfile adds.
TOOLS = [
    *(
        "bash",
        "base64",
        "basename",
        "cat",
        "chmod",
        "chown",
        "cmp",
        "cp",
        "curl",
        "diff",
        "dirname",
    ),
    *("env", "find", "flock", "id", "jq", "ln", "mkdir", "mktemp", "mv", "readlink", "rm", "rmdir"),
    *("sed", "sleep", "stat", "sync", "tac"),
]
CONF = ROOT / "conf"
KUBECONFIG = "/etc/cni/net.d/cni-ipam-kubeconfig"
NETWORK_LIST = "/etc/cni/net.d/10-cni-ipam.conflist"
PATIENCE_SECONDS = 180


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """The archive of the image."""
    archive = tmp_path_factory.mktemp("image") / "cni-ipam.tar"
    make_node_image(archive)
    return archive


@pytest.fixture(scope="module")
def prepared(cluster, image):
    """The cluster with the image, the custom resources and the roles."""
    cluster.load_image(image)
    apply(cluster, CONF / "crds", CONF / "rbac.yaml")
    wait_served(cluster)
    wait_heeded(cluster, (CONF / "rbac.yaml").read_text())
    yield cluster
    for manifest in ("rbac.yaml", "crds"):
        cluster.kubectl("delete", "-f", str(CONF / manifest))


@pytest.fixture
def ready(cluster, prepared):
    """The prepared cluster, without a DaemonSet and pools afterwards."""
    yield cluster
    cluster.kubectl("delete", "daemonset", "cni-ipam", "-n", "kube-system", "--ignore-not-found")
    cluster.kubectl("delete", "ippools", "--all")


def make_node_image(archive):
    """As the Dockerfile's last stage: tools, scripts, network list, bundle."""
    files, links = {"tmp/": b"", "host/": b""}, {}
    for merged in ("bin", "lib", "lib64"):
        links[merged] = f"usr/{merged}"
    for tool in TOOLS:
        path = shutil.which(tool, path="/usr/bin:/bin")
        files[f"usr/bin/{tool}"] = Path(path).read_bytes()
        for library in list_libraries(path):
            files[f"usr/{library.removeprefix('/usr').lstrip('/')}"] = Path(library).read_bytes()
    for source, place in (
        (ROOT / "packaging" / "install.sh", "cni-ipam/packaging/install.sh"),
        (ROOT / "packaging" / "install-node.sh", "cni-ipam/packaging/install-node.sh"),
        (CONF / "30-kubernetes.conflist", "cni-ipam/conf/30-kubernetes.conflist"),
    ):
        files[place] = source.read_bytes()
    for path in sorted(BUNDLE.rglob("*")):
        place = f"cni-ipam/dist/cni-ipam/{path.relative_to(BUNDLE)}"
        if path.is_symlink():
            links[place] = str(path.readlink())
        elif path.is_file():
            files[place] = path.read_bytes()
    make_image(
        archive,
        IMAGE,
        files,
        links,
        entrypoint=("/cni-ipam/packaging/install-node.sh",),
        variables=("PATH=/usr/bin",),
    )


def list_libraries(program):
    done = subprocess.run(["ldd", program], check=True, capture_output=True, text=True)
    words = [word for line in done.stdout.splitlines() for word in line.split()]
    return [word for word in words if word.startswith("/")]


def apply(cluster, *paths):
    for path in paths:
        cluster.kubectl("apply", "-f", str(path))


def roll_out(cluster, manifest):
    apply(cluster, CONF / manifest)
    done = cluster.kubectl(
        *("rollout", "status", "daemonset", "cni-ipam", "-n", "kube-system"),
        f"--timeout={PATIENCE_SECONDS}s",
        check=False,
    )
    assert 0 == done.returncode, (done.stderr, describe(cluster))


def describe(cluster):
    return cluster.kubectl("describe", "pods", "-n", "kube-system").stdout[-4000:]


def read_token(cluster):
    config = yaml.safe_load(cluster.machine.path(KUBECONFIG).read_text())
    return config["users"][0]["user"]["token"]


@pytest.mark.parametrize(
    "manifest",
    [
        *("crds", "rbac.yaml", "rbac-default-pools.yaml"),
        *("daemonset.yaml", "40-under-calico.yaml", "uninstall.yaml"),
    ],
)
def test_the_api_server_takes_the_manifest_without_a_warning(cluster, manifest):
    """Every field is one that it knows, and has a value that it allows."""
    done = cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", str(CONF / manifest)
    )
    assert "" == done.stderr


def test_the_daemonset_installs_a_working_plugin(ready):
    """On a node without a network of ours: plugin, name, kubeconfig, and the list last."""
    roll_out(ready, "daemonset.yaml")
    assert "node1" == ready.machine.path("/var/lib/cni-ipam/nodename").read_text()
    installed = ready.machine.path(NETWORK_LIST).read_text()
    assert (CONF / "30-kubernetes.conflist").read_text() == installed
    version = ready.machine.run("env", "CNI_COMMAND=VERSION", "/opt/cni/bin/cni-ipam").stdout
    assert "1.1.0" in json.loads(version)["supportedVersions"]


def test_the_nodes_kubeconfig_has_the_plugins_rights(ready):
    """It may list the pools, as the network plugin must, and nothing that it need not."""
    roll_out(ready, "daemonset.yaml")
    token = read_token(ready)
    pools = "/apis/crd.projectcalico.org/v1/ippools"
    assert 200 == ready.request("GET", pools, token=token)[0]
    assert 403 == ready.request("GET", "/api/v1/secrets", token=token)[0]


def test_the_token_outlives_the_pod_that_fetched_it(ready):
    """While the DaemonSet is replaced, or its image is pulled, pods come and go."""
    roll_out(ready, "daemonset.yaml")
    token = read_token(ready)
    ready.kubectl("delete", "-f", str(CONF / "daemonset.yaml"))
    ready.delete_pods("kube-system")
    pools = "/apis/crd.projectcalico.org/v1/ippools"
    assert 200 == ready.request("GET", pools, token=token)[0]


def test_a_new_network_list_comes_by_configmap_and_restart(ready):
    """As the comment in conf/daemonset.yaml says."""
    roll_out(ready, "daemonset.yaml")
    own = json.loads((CONF / "30-kubernetes.conflist").read_text())
    own["plugins"].pop()
    ready.kubectl(
        *("create", "configmap", "cni-ipam", "-n", "kube-system"),
        f"--from-literal=network.conflist={json.dumps(own)}",
    )
    try:
        ready.kubectl("rollout", "restart", "daemonset", "cni-ipam", "-n", "kube-system")
        roll_out(ready, "daemonset.yaml")
        assert own == json.loads(ready.machine.path(NETWORK_LIST).read_text())
    finally:
        ready.kubectl("delete", "configmap", "cni-ipam", "-n", "kube-system")


def test_uninstall_takes_everything_away(ready):
    """In the three steps that conf/uninstall.yaml names; the node's other network serves again."""
    before = sorted(path.name for path in ready.machine.path("/etc/cni/net.d").iterdir())
    roll_out(ready, "daemonset.yaml")
    roll_out(ready, "uninstall.yaml")
    ready.kubectl("delete", "-f", str(CONF / "uninstall.yaml"))
    after = sorted(path.name for path in ready.machine.path("/etc/cni/net.d").iterdir())
    assert before == after
    assert not ready.machine.path("/opt/cni-ipam").is_symlink()
    assert not ready.machine.path("/var/lib/cni-ipam/nodename").exists()


def test_under_calico_the_drop_in_comes_and_goes(ready):
    """It comes back when Calico's installer replaces it; uninstall puts Calico's newest back."""
    place = ready.machine.path("/opt/cni/bin/calico-ipam")
    place.unlink(missing_ok=True)
    place.write_bytes(b"Calico's")
    roll_out(ready, "40-under-calico.yaml")
    assert place.is_symlink()
    newer = place.with_name("calico-ipam.tmp")
    newer.write_bytes(b"Calico's newer one")
    newer.rename(place)
    assert becomes_true(place.is_symlink, PATIENCE_SECONDS)
    roll_out(ready, "uninstall.yaml")
    assert b"Calico's newer one" == place.read_bytes()


POOL = {"cidr": "10.0.0.0/16"}
LOAD_BALANCER = {**POOL, "allowedUses": ["LoadBalancer"]}
TOO_SMALL = (
    "IP pool size is too small for use with Calico IPAM."
    " It must be equal to or greater than the block size."
)
SIZES = "blockSize must be between 20 and 32 for IPv4 pools, and between 116 and 128 for IPv6 pools"
REFUSED = [
    ({}, "Required value"),
    ({"cidr": "10.0.0.1"}, "IPPool CIDR must be a valid subnet"),
    ({"cidr": "10.0.0.1/16"}, "IPPool CIDR must be strictly masked"),
    ({"cidr": "169.254.1.0/24"}, "overlaps with IPv4 link local range 169.254.0.0/16"),
    ({"cidr": "169.0.0.0/8"}, "overlaps with IPv4 link local range 169.254.0.0/16"),
    ({"cidr": "fe80:1::/64"}, "overlaps with IPv6 link local range fe80::/10"),
    ({**POOL, "blockSize": 19}, SIZES),
    ({**POOL, "blockSize": 33}, SIZES),
    ({"cidr": "fd00::/64", "blockSize": 115}, SIZES),
    ({"cidr": "fd00::/64", "blockSize": 26}, SIZES),
    ({"cidr": "10.0.0.0/28"}, TOO_SMALL),
    ({"cidr": "fd00::/123"}, TOO_SMALL),
    ({**POOL, "ipipMode": "always"}, "Unsupported value"),
    ({**POOL, "allowedUses": ["Foo"]}, "Unsupported value"),
    (
        {**POOL, "ipipMode": "Always", "vxlanMode": "Always"},
        "ipipMode and vxlanMode cannot both be enabled",
    ),
    ({"cidr": "fd00::/64", "ipipMode": "Always"}, "IPIP is not supported on IPv6 pools"),
    (
        {**POOL, "allowedUses": ["LoadBalancer", "Workload"]},
        "LoadBalancer cannot be combined with Workload or Tunnel allowed uses",
    ),
    ({**LOAD_BALANCER, "vxlanMode": "Always"}, "LoadBalancer IP pool cannot have IPIP or VXLAN"),
    ({**LOAD_BALANCER, "disableBGPExport": True}, "pools cannot disable BGP export"),
    ({**LOAD_BALANCER, "nodeSelector": "!all()"}, "must have nodeSelector set to all()"),
    ({**POOL, "namespaceSelector": "all()"}, "Tunnel cannot have namespaceSelector"),
    (
        {**POOL, "nodeSelector": "global()"},
        "global() selector is not valid for IPPool nodeSelector",
    ),
]


DAEMONSETS = ("daemonset.yaml", "40-under-calico.yaml", "uninstall.yaml")


def make_daemonset(manifest):
    """One that selects no node, so nothing runs."""
    document = yaml.safe_load((CONF / manifest).read_text())
    document["metadata"]["name"] = "nowhere"
    document["spec"]["template"]["spec"]["nodeSelector"] = {"no": "where"}
    return json.dumps(document)


@pytest.mark.parametrize("following", DAEMONSETS)
@pytest.mark.parametrize("former", DAEMONSETS)
def test_a_daemonset_takes_the_place_of_another_however_that_was_made(cluster, former, following):
    """`kubectl create` leaves no trace by which `apply` would know what to take away."""
    cluster.kubectl("create", "-f", "-", stdin=make_daemonset(former))
    try:
        cluster.kubectl("apply", "-f", "-", stdin=make_daemonset(following))
        found = cluster.get("/apis/apps/v1/namespaces/kube-system/daemonsets/nowhere")
    finally:
        cluster.kubectl("delete", "daemonset", "nowhere", "-n", "kube-system")
    expected = yaml.safe_load((CONF / following).read_text())
    assert identify(expected) == identify(found)


def identify(daemonset):
    """What it runs, and as whom."""
    spec = daemonset["spec"]["template"]["spec"]
    verbs = [c["args"] for c in spec["initContainers"] + spec["containers"]]
    return verbs, spec["serviceAccountName"], spec["automountServiceAccountToken"]


def make_pool(spec):
    return json.dumps(
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPPool",
            "metadata": {"name": "a"},
            "spec": spec,
        }
    )


def test_pools_that_break_a_rule_are_refused_in_calicos_words(ready):
    """Those rules that concern one pool alone."""
    answers = [
        ready.kubectl("create", "-f", "-", check=False, stdin=make_pool(spec)).stderr
        for spec, _ in REFUSED
    ]
    wrong = [
        (spec, answer)
        for (spec, message), answer in zip(REFUSED, answers, strict=True)
        if message not in answer
    ]
    assert [] == wrong


def test_a_pool_without_a_spec_is_refused(ready):
    """A field that is indented too little is no field of the spec, and dropped."""
    pool = json.loads(make_pool({}))
    del pool["spec"]
    done = ready.kubectl("create", "-f", "-", check=False, stdin=json.dumps(pool))
    assert 1 == done.returncode
    assert "spec: Required value" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cidr": "10.0.0.0/17"}, "IPPool CIDR cannot be modified"),
        ({"cidr": "10.0.0.0/16", "blockSize": 27}, "IPPool BlockSize cannot be modified"),
        ({"cidr": "10.0.0.0/16", "blockSize": 26, "disabled": True}, ""),
    ],
)
def test_cidr_and_block_size_of_a_pool_stay(ready, change, message):
    """What is not set has the default, so setting that changes nothing."""
    ready.kubectl("apply", "-f", "-", stdin=make_pool(POOL))
    done = ready.kubectl("apply", "-f", "-", check=False, stdin=make_pool(change))
    assert (0 if message == "" else 1) == done.returncode
    assert message in done.stderr


def test_fields_that_are_not_listed_are_kept(ready):
    """Calico's own objects survive a definition that knows less of them."""
    spec = {**POOL, "ipip": {"enabled": True}, "nat-outgoing": True}
    ready.kubectl("create", "-f", "-", stdin=make_pool(spec))
    assert spec == ready.get("/apis/crd.projectcalico.org/v1/ippools/a")["spec"]
