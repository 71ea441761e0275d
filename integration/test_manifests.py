"""conf/, packaging/Dockerfile, kind/ and containerlab/: that they agree with each other, with the
scripts and with the project. What an API server says of them: cluster/test_daemonset.py."""

import ipaddress
import json
import re
import subprocess
import tomllib

import pytest
import yaml

from integration.network import ROOT

CONF = ROOT / "conf"
SCRIPT = (ROOT / "packaging" / "install-node.sh").read_text()
ROLES = ("rbac.yaml", "rbac-default-pools.yaml", "rbac-routes.yaml")
DAEMONSETS = ("daemonset.yaml", "40-under-calico.yaml", "uninstall.yaml")
CRD = "crd.projectcalico.org"
RESOURCES = {
    "bgpconfigurations": "BGPConfiguration",
    "bgppeers": "BGPPeer",
    "blockaffinities": "BlockAffinity",
    "clusterinformations": "ClusterInformation",
    "ipamblocks": "IPAMBlock",
    "ipamconfigs": "IPAMConfig",
    "ipamhandles": "IPAMHandle",
    "ippools": "IPPool",
    "ipreservations": "IPReservation",
}
WRITES = ["create", "update", "delete"]
# calico.md 11, and what the roles are for.
PLUGIN_VERBS = {
    "pods": ["get"],
    "namespaces": ["get"],
    "nodes": ["get"],
    "ippools": ["list"],
    "ipreservations": ["list"],
    "ipamconfigs": ["get"],
    "clusterinformations": ["get"],
    "blockaffinities": ["get", "list", *WRITES],
    "ipamblocks": ["get", "list", *WRITES],
    "ipamhandles": ["get", *WRITES],
}


def load(path):
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def load_daemonset(name):
    return load(CONF / name)[0]


def pod_spec(name):
    return load_daemonset(name)["spec"]["template"]["spec"]


def find_role(name):
    (role,) = [
        found
        for manifest in ROLES
        for found in load(CONF / manifest)
        if found["kind"] in {"Role", "ClusterRole"} and found["metadata"]["name"] == name
    ]
    return role


# Custom resources


def test_there_are_the_nine_resources_that_ipam_and_its_routes_touch():
    """With Calico's names, so that its programs find their own."""
    found = {}
    for path in sorted((CONF / "crds").iterdir()):
        (definition,) = load(path)
        names = definition["spec"]["names"]
        assert f"{names['plural']}.yaml" == path.name
        assert f"{names['plural']}.{CRD}" == definition["metadata"]["name"]
        assert (f"{names['kind']}List", names["kind"].lower()) == (
            names["listKind"],
            names["singular"],
        )
        found[names["plural"]] = names["kind"]
    assert RESOURCES == found


@pytest.mark.parametrize("plural", RESOURCES)
def test_a_definition_may_take_the_place_of_calicos(plural):
    """The same group, scope and storage version, and no field is lost that it does not know."""
    spec = load(CONF / "crds" / f"{plural}.yaml")[0]["spec"]
    (version,) = spec["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert (CRD, "Cluster") == (spec["group"], spec["scope"])
    assert ("v1", True, True) == (version["name"], version["served"], version["storage"])
    assert schema["x-kubernetes-preserve-unknown-fields"]


def test_an_affinitys_deleted_is_a_text_and_the_others_a_truth_value():
    """Calico's v1 group has it so, and readers of the other kind fail."""
    found = {}
    for plural in ("blockaffinities", "ipamblocks", "ipamhandles"):
        version = load(CONF / "crds" / f"{plural}.yaml")[0]["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        found[plural] = schema["properties"]["deleted"]["type"]
    assert {"blockaffinities": "string", "ipamblocks": "boolean", "ipamhandles": "boolean"} == found


# Roles


def test_the_plugin_may_do_what_it_must():
    """Verb by verb."""
    rules = find_role("cni-ipam")["rules"]
    assert PLUGIN_VERBS == {rule["resources"][0]: rule["verbs"] for rule in rules}


@pytest.mark.parametrize("manifest", ROLES)
def test_a_rule_is_about_one_resource_and_names_its_verbs(manifest):
    """So that a verb can be taken away by itself, and nothing is granted by an asterisk."""
    for role in load(CONF / manifest):
        for rule in role.get("rules", []):
            assert (1, 1) == (len(rule["apiGroups"]), len(rule["resources"]))
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert rule["apiGroups"] == ([CRD] if rule["resources"][0] in RESOURCES else [""])


def test_every_role_is_bound_to_a_service_account_that_is_there():
    """A binding to a name that nobody has is granted to whoever makes it."""
    documents = [document for manifest in ROLES for document in load(CONF / manifest)]
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    roles = {(d["kind"], d["metadata"]["name"]) for d in documents if d["kind"].endswith("Role")}
    bindings = [d for d in documents if d["kind"].endswith("Binding")]
    assert {"cni-ipam", "cni-ipam-agent", "cni-ipam-gc"} == accounts
    assert roles == {(d["roleRef"]["kind"], d["roleRef"]["name"]) for d in bindings}
    subjects = [subject for binding in bindings for subject in binding["subjects"]]
    assert accounts == {subject["name"] for subject in subjects}
    assert {"kube-system"} == {subject["namespace"] for subject in subjects}


# The DaemonSets and the image


@pytest.mark.parametrize("name", DAEMONSETS)
def test_a_daemonset_calls_the_scripts_verbs_in_this_versions_image(name):
    """The image is the one that the Dockerfile's first lines build."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = f"cni-ipam:{version}"
    assert (
        f"docker build -f packaging/Dockerfile -t {image} ."
        in (ROOT / "packaging" / "Dockerfile").read_text()
    )
    for container in pod_spec(name)["initContainers"] + pod_spec(name)["containers"]:
        (verb,) = container["args"]
        assert image == container["image"]
        assert f"\n{verb}) " in SCRIPT


@pytest.mark.parametrize("name", DAEMONSETS)
def test_a_daemonset_needs_no_network_and_runs_everywhere(name):
    """It makes the network, so it waits neither for one nor for a node that is ready."""
    spec = pod_spec(name)
    assert spec["hostNetwork"]
    assert [{"operator": "Exists"}] == spec["tolerations"]
    assert "system-node-critical" == spec["priorityClassName"]


@pytest.mark.parametrize("name", DAEMONSETS)
def test_a_container_has_no_more_than_it_needs(name):
    """Not privileged, nothing in the image can be written, three capabilities."""
    for container in pod_spec(name)["initContainers"] + pod_spec(name)["containers"]:
        context = container["securityContext"]
        assert "privileged" not in context
        assert not context["allowPrivilegeEscalation"]
        assert context["readOnlyRootFilesystem"]
        assert {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]} == context[
            "capabilities"
        ]


@pytest.mark.parametrize("name", DAEMONSETS)
def test_the_hosts_folders_lie_where_the_script_looks(name):
    """Below /host, under their own names."""
    spec = pod_spec(name)
    paths = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
    for container in spec["initContainers"] + spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] in paths:
                assert f"/host{paths[mount['name']]}" == mount["mountPath"]
    assert "HOST=${HOST:-/host}" in SCRIPT


def test_uninstall_replaces_either_daemonset_and_reaches_all_that_they_wrote():
    """The same name and selector, and every folder that one of them mounts."""
    identities = {
        json.dumps([load_daemonset(name)["metadata"], load_daemonset(name)["spec"]["selector"]])
        for name in DAEMONSETS
    }
    assert 1 == len(identities)
    mounted = {
        name: {v["hostPath"]["path"] for v in pod_spec(name)["volumes"] if "hostPath" in v}
        for name in DAEMONSETS
    }
    assert mounted["daemonset.yaml"] | mounted["40-under-calico.yaml"] == mounted["uninstall.yaml"]


def test_the_daemonsets_account_makes_the_tokens_of_the_plugins():
    """And of no other account."""
    (rule,) = find_role("cni-ipam-agent")["rules"]
    assert "cni-ipam-agent" == pod_spec("daemonset.yaml")["serviceAccountName"]
    assert "SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-cni-ipam}" in SCRIPT
    assert (["serviceaccounts/token"], ["cni-ipam"], ["create"]) == (
        rule["resources"],
        rule["resourceNames"],
        rule["verbs"],
    )


def test_the_network_list_names_the_files_that_the_script_writes():
    """In both of our entries, for the runtime shows each its own part only."""
    content = json.loads((CONF / "30-kubernetes.conflist").read_text())
    ours = [
        plugin
        for plugin in content["plugins"]
        if "cni-ipam" in (plugin["type"], plugin.get("ipam", {}).get("type"))
    ]
    assert "networks=$HOST/etc/cni/net.d\nkubeconfig=$networks/cni-ipam-kubeconfig" in SCRIPT
    assert "name_file=$HOST/var/lib/cni-ipam/nodename" in SCRIPT
    assert 2 == len(ours)
    for plugin in ours:
        assert {"kubeconfig": "/etc/cni/net.d/cni-ipam-kubeconfig"} == plugin["kubernetes"]
        assert "/var/lib/cni-ipam/nodename" == plugin["nodename_file"]


def test_the_network_list_serves_older_runtimes_too():
    """What containerd 1.x speaks is 1.0.0; newer ones take 1.1.0, with GC and STATUS."""
    content = json.loads((CONF / "30-kubernetes.conflist").read_text())
    assert ("1.0.0", ["1.0.0", "1.1.0"]) == (content["cniVersion"], content["cniVersions"])


def test_the_image_is_made_of_files_that_are_there():
    """And what it leaves out of the build's context is none of them."""
    sources = [
        source
        for line in (ROOT / "packaging" / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    kept = (ROOT / "packaging" / "Dockerfile.dockerignore").read_text().split()
    assert 9 == len(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in kept


# kind and containerlab


@pytest.mark.parametrize(
    "script",
    ["packaging/install-node.sh", "integration/kind/run.sh", "integration/containerlab/run.sh"],
)
def test_a_script_is_clean(script):
    """In the eyes of shellcheck."""
    done = subprocess.run(
        ["shellcheck", ROOT / script], check=False, capture_output=True, text=True
    )
    assert "" == done.stdout


def test_every_file_that_the_kind_script_applies_is_there():
    """Each by its path from the project's folder."""
    text = (ROOT / "integration/kind/run.sh").read_text().replace("$here", "integration/kind")
    paths = set(re.findall(r'(?:-f|--config) "?([a-z]+/[^\s"]+)', text))
    assert {"conf/crds", "conf/rbac.yaml", "conf/daemonset.yaml"} < paths
    assert [] == [path for path in paths if not (ROOT / path).exists()]


def test_the_kind_cluster_has_no_network_of_its_own():
    """Or kindnet would give the addresses."""
    (cluster,) = load(ROOT / "integration/kind/cluster.yaml")
    assert ("Cluster", "kind.x-k8s.io/v1alpha4") == (cluster["kind"], cluster["apiVersion"])
    assert cluster["networking"]["disableDefaultCNI"]
    (default, named) = load(ROOT / "integration/kind/pools.yaml")
    assert cluster["networking"]["podSubnet"] == default["spec"]["cidr"]
    assert "!all()" == named["spec"]["nodeSelector"]


TOPOLOGIES = sorted((ROOT / "integration" / "labs").glob("*/*.clab.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.parent.name)
def test_a_labs_links_join_machines_that_are_there(path):
    """Each end once; every machine has an address of its own in the management network."""
    (lab,) = load(path)
    nodes = lab["topology"]["nodes"]
    ends = [end for link in lab["topology"]["links"] for end in link["endpoints"]]
    assert len(ends) == len(set(ends))
    assert {end.split(":")[0] for end in ends} <= set(nodes)
    network = ipaddress.IPv4Network(lab["mgmt"]["ipv4-subnet"])
    addresses = {ipaddress.IPv4Address(node["mgmt-ipv4"]) for node in nodes.values()}
    assert len(nodes) == len(addresses)
    assert all(address in network for address in addresses)
    assert {"linux"} == {node["kind"] for node in nodes.values()}


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.parent.name)
def test_a_labs_files_are_there(path):
    """What is bound into a machine lies beside the topology."""
    (lab,) = load(path)
    binds = [bind for node in lab["topology"]["nodes"].values() for bind in node.get("binds", [])]
    assert binds
    assert [] == [bind for bind in binds if not (path.parent / bind.split(":")[0]).exists()]


def test_the_containerlab_script_names_files_that_are_there():
    """The topology and the manifests of lab 02, and the image's description."""
    folder = ROOT / "integration" / "labs" / "02-external-pool"
    text = (ROOT / "integration/containerlab/run.sh").read_text()
    names = set(re.findall(r"[\w./-]+\.(?:yaml|yml)\b|[./]+[\w/]+Dockerfile", text))
    assert "external-pool.clab.yaml" in names
    assert [] == [name for name in names if not (folder / name).resolve().exists()]


# The page


def test_the_page_names_files_that_are_there():
    """In its links and in its commands."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page)
    commands = re.findall(r"-f ((?:conf|integration|packaging)/[^\s`*,]+)", page)
    assert [] == [link for link in links if not (ROOT / "docs" / link).resolve().exists()]
    assert [] == [path for path in commands if not (ROOT / path).exists()]
    assert len(links) > 8
    assert len(commands) > 8
