"""The main job: two pods through ptp and through bridge, at each version, in each family.

A story is told once for each combination (networks cost seconds, IPv6's even more) and the tests
look at what was seen in it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean.record import record
from integration.netns import Lab
from integration.network import ROOT, Node, find_obstacle, pings

if TYPE_CHECKING:
    from typing import Any

    from integration.netns import Namespace
    from integration.network import Done, Json

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
WITH_CHECK = VERSIONS[1:]
FAMILIES = {"IPv4": (4,), "IPv6": (6,), "dual": (4, 6)}
POOLS = {
    4: {"name": "four", "spec": {"cidr": "10.88.0.0/16", "blockSize": 26}},
    6: {"name": "six", "spec": {"cidr": "fd00:88::/64", "blockSize": 122}},
}
PREFIX = {4: 16, 6: 64}
GATEWAY = {4: "10.88.0.1", 6: "fd00:88::1"}
KEPT_BACK = {"10.88.0.0", "10.88.0.1", "10.88.255.255", "fd00:88::", "fd00:88::1"}
DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}
HOST_ROUTE_SCOPE = {4: "link", 6: "global"}  # the kernel knows no scope of IPv6 routes
POD_INDEX = {"ptp": 1, "bridge": 2}


@record
class Sight:
    """What a look at the node shows: addresses by container, routes by family."""

    addresses: dict[str, list[str]]
    handles: int
    findings: list[str]
    host_routes: dict[int, list[tuple[str, str, str, str]]]
    blackholes: dict[int, list[str]]
    blocks: dict[int, list[str]]
    links: list[str]


@record
class Story:
    """Two pods come, are looked at, and go."""

    containers: list[str]
    results: list[Json]
    during: Sight
    silent: list[str]
    checks: list[Done]
    deletes: list[Done]
    after: Sight
    pod_links: list[str]
    second_deletes: list[Done]


def network(plugin: str, version: str, families: tuple[int, ...]) -> Json:
    """The network list of a story: the interface plugin with our IPAM, and we again behind it."""
    ipam = {"type": "cni-ipam", "default_pools": [POOLS[family] for family in families]}
    ipam |= {f"assign_ipv{family}": str(family in families).lower() for family in POOLS}
    interface: dict[str, Any] = {"type": plugin, "ipam": ipam}
    if plugin == "bridge":
        interface |= {"bridge": "cni0", "isGateway": True}
    return {"cniVersion": version, "name": "net", "plugins": [interface, {"type": "cni-ipam"}]}


def container_of(pod: Namespace) -> str:
    """The container id that cnitool makes of the namespace's path."""
    return f"cnitool-{hashlib.sha512(pod.path.encode()).hexdigest()[:20]}"


def look(node: Node, containers: list[str]) -> Sight:
    store = node.read_store()
    given = store.allocations
    cidrs = [block.cidr for block in store.blocks]
    return Sight(
        addresses={
            container: [a for a, handle in given.items() if handle == f"net.{container}"]
            for container in containers
        },
        handles=len(store.handles),
        findings=store.findings,
        host_routes={family: sorted(node.host_routes(family)) for family in POOLS},
        blackholes={family: sorted(node.blackholes(family)) for family in POOLS},
        blocks={family: sorted(str(c) for c in cidrs if c.version == family) for family in POOLS},
        links=node.links(),
    )


def find_silent(node: Node, pods: list[Namespace], sight: Sight, families: list[int]) -> list[str]:
    """The pings without an answer: pod to pod, host to pod, pod to host."""
    roads = [
        (source, address)
        for pod, other in itertools.permutations(pods)
        for address in sight.addresses[container_of(pod)]
        for source in (other, node.namespace)
    ]
    roads += [(pod, GATEWAY[family]) for pod in pods for family in families]
    return [
        f"{source.name} to {address}" for source, address in roads if not pings(source, address)
    ]


@functools.cache
def tell(plugin: str, version: str, families: tuple[int, ...]) -> Story:
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        node = Node(lab, Path(folder))
        node.write_network(network(plugin, version, families))
        pods = [lab.namespace("pod1"), lab.namespace("pod2")]
        containers = [container_of(pod) for pod in pods]
        results = [node.add("net", pod) for pod in pods]
        during = look(node, containers)
        return Story(
            containers=containers,
            results=results,
            during=during,
            silent=find_silent(node, pods, during, list(families)),
            checks=[node.cnitool("check", "net", pod) for pod in pods],
            deletes=[node.cnitool("del", "net", pod) for pod in pods],
            after=look(node, containers),
            pod_links=[link["ifname"] for pod in pods for link in pod.ip_json("link", "show")],
            second_deletes=[node.cnitool("del", "net", pod) for pod in pods],
        )


@pytest.fixture(params=["ptp", "bridge"])
def plugin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(FAMILIES.values()), ids=list(FAMILIES))
def families(request: pytest.FixtureRequest) -> tuple[int, ...]:
    found: tuple[int, ...] = request.param
    return found


@pytest.fixture
def story(plugin: str, version: str, families: tuple[int, ...]) -> Story:
    return tell(plugin, version, families)


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


def succeeded(calls: list[Done]) -> list[str]:
    """What failed calls said, one empty text for each that did not fail."""
    return [done.stderr or "failed" if done.returncode else "" for done in calls]


def test_each_pod_has_one_address_of_each_family(story: Story, families: tuple[int, ...]) -> None:
    """All of them different, all recorded, none of those that the pool keeps back."""
    given = [address for found in story.during.addresses.values() for address in found]

    assert [list(families)] * 2 == [
        sorted(map(family_of, found)) for found in story.during.addresses.values()
    ]
    assert len(given) == len(set(given) - KEPT_BACK)


def test_result_has_what_is_recorded(
    story: Story, plugin: str, version: str, families: tuple[int, ...]
) -> None:
    """Each address with the pool's mask, its gateway and the pod's interface, IPv4 first."""
    for container, result in zip(story.containers, story.results, strict=True):
        expected = [
            {
                "address": f"{address}/{PREFIX[family_of(address)]}",
                "gateway": GATEWAY[family_of(address)],
                "interface": POD_INDEX[plugin],
            }
            | ({"version": str(family_of(address))} if version < "1" else {})
            for address in sorted(story.during.addresses[container], key=family_of)
        ]
        assert (version, expected) == (result["cniVersion"], result["ips"])
        assert [{"dst": DEFAULT_ROUTE[family]} for family in families] == result["routes"]


def test_everyone_answers_everyone(story: Story) -> None:
    """Pod to pod, pod to host, host to pod, in each family."""
    assert [] == story.silent


def test_check_passes_where_there_is_one(story: Story, version: str) -> None:
    """From 0.4.0; below, the runtime itself refuses."""
    if version in WITH_CHECK:
        assert ["", ""] == succeeded(story.checks)
    else:
        assert all("does not support the CHECK command" in done.stderr for done in story.checks)


def test_one_host_route_leads_to_each_address(story: Story, plugin: str) -> None:
    """Ours alone, to the pod's veth, or to the bridge whose port that is."""
    expected: dict[int, list[tuple[str, str, str, str]]] = {4: [], 6: []}
    for container, result in zip(story.containers, story.results, strict=True):
        device = result["interfaces"][0]["name"]
        for address in story.during.addresses[container]:
            family = family_of(address)
            expected[family].append((address, device, "85", HOST_ROUTE_SCOPE[family]))

    assert {family: sorted(routes) for family, routes in expected.items()} == (
        story.during.host_routes
    )
    assert plugin == "ptp" or {"cni0"} == {r[1] for f in expected.values() for r in f}


def test_each_block_is_held_by_a_blackhole(story: Story, families: tuple[int, ...]) -> None:
    """One block of each family, and exactly its blackhole."""
    assert story.during.blocks == story.during.blackholes
    assert [4 in families, 6 in families] == [len(story.during.blocks[f]) for f in (4, 6)]


def test_deleted_pods_leave_nothing(story: Story) -> None:
    """No address, no handle, no host route, no interface."""
    assert ["", ""] == succeeded(story.deletes)
    assert [[], []] == list(story.after.addresses.values())
    assert 0 == story.after.handles
    assert {4: [], 6: []} == story.after.host_routes
    assert [] == [link for link in story.after.links if link not in ("lo", "cni0")]
    assert ["lo", "lo"] == story.pod_links


def test_blackholes_stay_with_the_affinity(story: Story) -> None:
    """The node keeps its blocks, pods or not."""
    assert story.during.blocks == story.after.blocks
    assert story.during.blackholes == story.after.blackholes


def test_second_delete_is_fine(story: Story) -> None:
    """What is gone cannot make DEL fail."""
    assert ["", ""] == succeeded(story.second_deletes)


def test_store_is_sound(story: Story) -> None:
    """With pods and without, and nothing is left over."""
    assert [] == story.during.findings
    assert [] == story.after.findings


@pytest.mark.parametrize("name", ["10-cni-ipam.conflist", "11-cni-ipam-bridge.conflist"])
def test_ready_network_list_works_as_it_is(name: str, tmp_path: Path) -> None:
    """Those in conf/ that need nothing but a node: add, ping, check, delete."""
    conflist = json.loads((ROOT / "conf" / name).read_text())
    with Lab() as lab:
        node, pod = Node(lab, tmp_path), lab.namespace("pod")
        node.write_network(conflist)
        address = node.add(conflist["name"], pod)["ips"][0]["address"].partition("/")[0]

        assert pings(node.namespace, address)
        assert pings(pod, "10.244.0.1")
        assert ["", ""] == succeeded(
            [node.cnitool(verb, conflist["name"], pod) for verb in ("check", "del")]
        )
        assert {} == node.read_store().allocations
