"""The newer group, projectcalico.org/v3: where it is the only one, and where it is named.

Its definitions are those of conf/crds under the other names, with the one field that differs.
"""

from __future__ import annotations

import http.client

import pytest

from integration.cluster.node import (
    ACCOUNT,
    NAMES,
    ApiNode,
    create,
    read_records,
    wait_heeded,
    wait_served,
)
from integration.cluster.proxy import ApiProxy
from integration.network import ROOT, becomes_true

NEWER = "projectcalico.org/v3"
PATH = f"/apis/{NEWER}"
OLDER = "crd.projectcalico.org/v1"
# The affinity's field `deleted`, a text in the older group.
TEXT = '                  type: string\n                  enum: ["true", "false", ""]\n'
BOOLEAN = "                  type: boolean\n"


def translate(text: str) -> str:
    """A definition, or the roles, for the newer group."""
    for older, newer in (
        ("crd.projectcalico.org", "projectcalico.org"),
        ("ipamconfigs", "ipamconfigurations"),
        ("singular: ipamconfig\n", "singular: ipamconfiguration\n"),
        ("kind: IPAMConfig\n", "kind: IPAMConfiguration\n"),
        ("listKind: IPAMConfigList\n", "listKind: IPAMConfigurationList\n"),
        ("name: v1\n", "name: v3\n"),
        (TEXT, BOOLEAN),
    ):
        text = text.replace(older, newer)
    return text


@pytest.fixture(scope="module")
def newer(cluster):
    """The cluster with the newer group alone, and a role that names no other."""
    conf = ROOT / "conf"
    texts = [path.read_text() for path in sorted((conf / "crds").iterdir())]
    assert any(TEXT in text for text in texts)
    definitions = "\n---\n".join(translate(text) for text in texts)
    roles = translate((conf / "rbac.yaml").read_text())
    cluster.kubectl("apply", "-f", "-", stdin=definitions)
    cluster.kubectl("apply", "-f", "-", stdin=roles)
    wait_served(cluster, [translate(name) for name in NAMES])
    wait_heeded(cluster, roles)
    # The definitions of other modules go in the background.
    assert becomes_true(lambda: not is_served(cluster, OLDER))
    pool = {"cidr": "10.77.0.0/24", "blockSize": 29, "nodeSelector": "all()"}
    body = {"apiVersion": NEWER, "kind": "IPPool", "metadata": {"name": "pool"}, "spec": pool}
    create(cluster, f"{PATH}/ippools", body)
    yield cluster
    cluster.kubectl("delete", "-f", "-", stdin=roles)
    cluster.kubectl("delete", "-f", "-", stdin=definitions)


@pytest.fixture
def proxy(newer):
    with ApiProxy(newer) as proxy:
        yield proxy


@pytest.fixture
def make_node(newer, proxy, tmp_path):
    """Makes a node whose requests the proxy sees; afterwards there are no records."""

    def make(**settings):
        kubeconfig = newer.kubeconfig(ACCOUNT, token=newer.token(ACCOUNT), server=proxy.endpoint)
        return ApiNode(tmp_path, newer, kubeconfig, **settings)

    yield make
    for plural in ("ipamhandles", "ipamblocks", "blockaffinities"):
        newer.request("DELETE", f"{PATH}/{plural}")


def is_served(cluster, group):
    return http.client.OK == cluster.request("GET", f"/apis/{group}")[0]


def list_paths(proxy):
    return [exchange.path for exchange in proxy.seen]


@pytest.mark.parametrize("settings", [{}, {"calico_api_group": NEWER}])
def test_an_attachment_lives_in_the_newer_group(newer, make_node, settings):
    """Its address, its block's affinity with `deleted` as a boolean; all of it goes again."""
    node = make_node(**settings)
    assert node.call("ADD", "c1").address.startswith("10.77.0.")
    (affinity,) = newer.get(f"{PATH}/blockaffinities")["items"]
    assert (False, "confirmed") == (affinity["spec"]["deleted"], affinity["spec"]["state"])
    assert "projectcalico.org/affinity-type" in affinity["metadata"]["labels"]
    (handle,) = newer.get(f"{PATH}/ipamhandles")["items"]
    assert "annotations" not in handle["metadata"]
    assert [] == read_records(newer).findings
    assert 0 == node.call("DEL", "c1").status
    assert [] == newer.get(f"{PATH}/ipamhandles")["items"]
    assert {} == read_records(newer).allocations


def test_the_only_group_is_found_by_three_requests(make_node, proxy):
    """The one that is refused, and a look at each group; the rest is as with the older."""
    assert 0 == make_node().call("ADD", "c1").status
    paths = list_paths(proxy)
    assert [f"/apis/{OLDER}", PATH] == paths[1:3]
    assert OLDER in paths[0]
    assert [] == [path for path in paths[3:] if OLDER in path]


def test_a_group_that_is_named_is_not_looked_for(make_node, proxy):
    """Nothing is asked of the other."""
    assert 0 == make_node(calico_api_group=NEWER).call("ADD", "c1").status
    assert [] == [path for path in list_paths(proxy) if OLDER in path or path == PATH]


def test_a_block_is_given_up_in_two_steps(newer, make_node):
    """By its second node's wish: as in the older group, the object goes in the end."""
    node = make_node()
    for container in ("c1", "c2"):
        assert 0 == node.call("ADD", container).status
    for container in ("c1", "c2"):
        assert 0 == node.call("DEL", container).status
    assert [] == newer.get(f"{PATH}/ipamhandles")["items"]
    assert [] == read_records(newer).findings


def test_a_named_group_that_is_not_served_is_told(make_node):
    """The role does not know it either, and rights are looked at first."""
    answer = make_node(calico_api_group=OLDER).call("ADD", "c1")
    assert 110 == answer.document["code"]
    assert "crd.projectcalico.org" in answer.document["msg"]


def test_a_group_that_nobody_has_is_refused(make_node):
    """With the two that there are."""
    answer = make_node(calico_api_group="projectcalico.org/v4").call("ADD", "c1")
    assert 7 == answer.document["code"]
    assert NEWER in answer.document["details"]
