"""Pools and what one does with them: the document "`ippool`", section by section."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from integration.documents.shell import rows_of
from integration.labs.look import expect_nothing_recorded, is_in, show_refusal, show_routes

if TYPE_CHECKING:
    from integration.cluster.machine import Process
    from integration.labs.lab import Lab

EXTRA = """cat << EOF | calicoctl apply -f -
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: extra-ippool
spec:
  cidr: 192.168.0.0/20
  blockSize: 26
  vxlanMode: Always
  natOutgoing: true{selector}
EOF"""
AGAIN = """calicoctl create -f -<<EOF
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: default-ipv4-ippool
spec:
  blockSize: 27   # change blockSize from 26 to 27
  cidr: 192.0.0.0/16
  ipipMode: Always
  natOutgoing: true
EOF"""
DISABLE = """calicoctl patch ippool {} -p '{{"spec": {{"disabled": true}}}}'"""
SHOWN = ["NAME", "CIDR", "NAT", "IPIPMODE", "DISABLED"]
FITTING = 5
EXTRA_CIDR = "192.168.0.0/20"


def tell(lab: Lab) -> None:
    """The whole story."""
    look_at_the_default_pool(lab)
    run_out_of_addresses(lab)
    filter_by_node(lab)
    filter_by_namespace_and_pod(lab)
    keep_a_pool_from_pods(lab)
    watch = serve_something(lab)
    change_the_block_size(lab, watch)
    return_to_the_pool(lab, watch)
    migrate(lab, watch)
    end_the_watch(lab, watch)
    answer_questions(lab)
    tidy_up(lab)


def look_at_the_default_pool(lab: Lab) -> None:
    """The fields that the document explains."""
    lab.page.head("ippool")
    lab.page.say(
        "A pool is a set of addresses for pods. It is cut into blocks, and a node takes whole "
        "blocks, so that other machines need one route for each block and none for a pod."
    )
    shown = lab.type("node1", "calicoctl get ippools  default-ipv4-ippool -o yaml")
    lab.expect("blockSize: 26" in shown, "a block has 2^(32-26) = 64 addresses unless one says so")


def run_out_of_addresses(lab: Lab) -> None:
    """A pod that nothing is left for, until there is another pool."""
    lab.page.head("Several default pools")
    lab.page.say("To run out of addresses we take a smaller default pool.")
    lab.type("node1", "calicoctl delete ippool default-ipv4-ippool")
    lab.type("node1", "calicoctl create -f small-pool.yaml")
    for number in range(1, FITTING + 1):
        lab.make_pod("node1", "default", f"pod-{number}")
    lab.wait_for_pods(FITTING, "default")
    lab.make_pod("node1", "default", "pod-6")
    show_refusal(lab, "default", "pod-6", "the sixth pod gets no address, and its events say why")
    lab.page.say("A further pool is enough: the pod is tried again, and starts by itself.")
    lab.type("node1", EXTRA.format(selector=""))
    lab.expect_soon(lambda: bool(lab.pod_addresses("default", "pod-6")), "the sixth pod runs")
    lab.type("node1", "kubectl get pods -o wide")
    expect_in(lab, "default", "pod-5", "10.244.0.0/29")
    expect_in(lab, "default", "pod-6", EXTRA_CIDR)
    expect_answer(lab, "default", "pod-5")
    expect_answer(lab, "default", "pod-6")


def filter_by_node(lab: Lab) -> None:
    """By a selector on the nodes' labels."""
    lab.page.head("Which nodes a pool is for")
    lab.page.say(
        "Calico's records know the nodes, too. On a cluster Calico's controllers copy the labels "
        "of Kubernetes to them; here the second command does it."
    )
    lab.type("node1", "kubectl label nodes node1 type=test")
    lab.type("node1", "calicoctl label nodes node1 type=test")
    before = lab.pod_addresses("default", "pod-6")
    lab.type("node1", EXTRA.format(selector='\n  nodeSelector: type=="test"'))
    lab.type("node1", "calicoctl get ippools")
    lab.expect(before == lab.pod_addresses("default", "pod-6"), "pods that run are not affected")
    lab.run_pod("node1", "default", "on-node1")
    expect_in(lab, "default", "on-node1", EXTRA_CIDR)
    lab.make_pod("node2", "default", "on-node2")
    show_refusal(lab, "default", "on-node2", "on node2 nothing is left for a pod")
    lab.type("node1", "kubectl delete pod on-node2")


def filter_by_namespace_and_pod(lab: Lab) -> None:
    """The annotations, which count before a selector."""
    lab.page.head("Which namespaces and pods")
    lab.page.say("Who names a pool may have its addresses on every node, whatever its selector is.")
    lab.type("node1", "kubectl create namespace test-ns")
    annotation = """"cni.projectcalico.org/ipv4pools"='["extra-ippool"]'"""
    lab.type("node1", f"kubectl annotate namespace test-ns {annotation}")
    lab.run_pod("node2", "test-ns", "tenant")
    expect_in(lab, "test-ns", "tenant", EXTRA_CIDR)
    expect_answer(lab, "test-ns", "tenant")
    lab.page.say("On a pod the annotation counts when the pod is made, and not later.")
    lab.type("node1", "kubectl delete pod pod-1")
    lab.run_pod("node1", "default", "test-pod")
    lab.type("node1", f"kubectl annotate pod  test-pod {annotation}")
    expect_in(lab, "default", "test-pod", "10.244.0.0/29")


def keep_a_pool_from_pods(lab: Lab) -> None:
    """By what its addresses may be used for."""
    lab.page.head("What a pool is used for")
    lab.page.say("A pool without the use Workload is not for pods, not even for one that names it.")
    lab.type("node1", "calicoctl create -f tunnels.yaml")
    wish = {"cni.projectcalico.org/ipv4pools": '["tunnels"]'}
    lab.make_pod("node1", "default", "in-a-tunnel", annotations=wish)
    said = show_refusal(lab, "default", "in-a-tunnel", "the pod does not start")
    lab.expect("allowedUses is [Tunnel]" in said, "the reason is the pool's use")
    lab.type("node1", "kubectl delete pod --all")
    lab.type("node1", "kubectl delete pod --all -n test-ns")
    lab.type("node1", "calicoctl delete ippool default-ipv4-ippool extra-ippool tunnels")


def serve_something(lab: Lab) -> Process:
    """The document's pool, a deployment with pods of it, and a client that asks all the time."""
    lab.page.head("Something that has to be served")
    lab.type("node1", "calicoctl create -f old-pool.yaml")
    lab.type("node1", "kubectl apply -f web.yaml")
    lab.wait_for_pods(2, "default", "app=web")
    expect_all_in(lab, "192.168.0.0/16", 26)
    lab.page.say("A client asks for its page all the time, from now on until the last change.")
    watch = lab.machines["client"].start("watch", [str(lab.folder / "watch.sh")])
    expect_served(lab, watch, "192.168.0.0/16")
    return watch


def expect_served(lab: Lab, watch: Process, cidr: str) -> None:
    """The client that asks all the time gets answers from this network."""
    lab.expect_soon(
        lambda: any(
            is_in(answer, cidr) for answer in watch.log.read_text().split() if answer != "none"
        ),
        f"the client that asks all the time has answers from {cidr}",
    )


def change_the_block_size(lab: Lab, watch: Process) -> None:
    """The document's flow, as far as the temporary pool."""
    lab.page.head("Another block size: over a temporary pool")
    lab.page.say("blockSize cannot be changed, so the pool is made anew, and its pods are, too.")
    lab.type("node1", "calicoctl create -f temporary-pool.yaml")
    before = addresses_of_web(lab)
    lab.type("node1", DISABLE.format("default-ipv4-ippool"))
    show_pools(
        lab,
        "default-ipv4-ippool   192.168.0.0/16   true   Always     true",
        "temporary-pool        10.0.0.0/16      true   Always     false",
    )
    lab.expect(before == addresses_of_web(lab), "pods of the disabled pool keep their addresses")
    for pod in lab.pods("default", "app=web"):
        expect_answer(lab, "default", pod["metadata"]["name"])
    lab.page.say(
        "The document deletes all pods at once, and warns of the break. One by one, each after the "
        "one before has its successor, there is none."
    )
    replace_pods(lab, watch, "10.0.0.0/16", 26)
    lab.type("node1", "calicoctl delete ippool default-ipv4-ippool")
    show_pools(lab, "temporary-pool   10.0.0.0/16   true   Always     false")
    keep_routes(lab)
    expect_no_route(lab, "192.168.0.0/16")


def return_to_the_pool(lab: Lab, watch: Process) -> None:
    """The same pool, made anew with other blocks."""
    lab.page.head("Another block size: back to the pool")
    lab.type("node1", AGAIN)
    lab.type("node1", DISABLE.format("temporary-pool"))
    show_pools(
        lab,
        "default-ipv4-ippool   192.0.0.0/16   true   Always     false",
        "temporary-pool        10.0.0.0/16    true   Always     true",
    )
    replace_pods(lab, watch, "192.0.0.0/16", 27)
    lab.type("node1", "calicoctl delete ippool temporary-pool")
    show_pools(lab, "default-ipv4-ippool   192.0.0.0/16   true   Always     false")
    expect_no_route(lab, "10.0.0.0/16")


def keep_routes(lab: Lab) -> None:
    """What a node misses that was not there when a pool was deleted."""
    lab.page.say(
        "With the pool its blocks are gone. This node's blackholes went with them, as the command "
        "was typed here; the other node has to find out."
    )
    lab.type("node2", "ipamctl routes check", status=1)
    lab.type("node2", "ipamctl routes repair")
    lab.page.say("From now on both nodes look after their routes: ipamctl routes watch")
    for node in ("node1", "node2"):
        lab.machines[node].start("routes", ["ipamctl", "routes", "watch"])


def migrate(lab: Lab, watch: Process) -> None:
    """From one pool to another."""
    lab.page.head("From one pool to another")
    lab.page.say(
        "The new pool first, and what is in it is tried, before the old one goes. Then nobody who "
        "asks notices."
    )
    lab.type("node1", "calicoctl create -f new-pool.yaml")
    lab.type("node1", DISABLE.format("default-ipv4-ippool"))
    show_pools(
        lab,
        "default-ipv4-ippool   192.0.0.0/16    true   Always     true",
        "new-ippool            10.128.0.0/16   true   Always     false",
    )
    lab.run_pod("node2", "default", "trial")
    expect_in(lab, "default", "trial", "10.128.0.0/16")
    expect_answer(lab, "default", "trial")
    lab.type("node1", "kubectl delete pod trial")
    replace_pods(lab, watch, "10.128.0.0/16", 26)
    lab.type("node1", "calicoctl delete ippool default-ipv4-ippool")
    show_pools(lab, "new-ippool   10.128.0.0/16   true   Always     false")
    expect_no_route(lab, "192.0.0.0/16")


def replace_pods(lab: Lab, watch: Process, cidr: str, block_size: int) -> None:
    """Delete the pods of `web` one by one; the next goes when the new one answers the client."""
    for pod in lab.pods("default", "app=web"):
        lab.type("node1", f"kubectl delete pod {pod['metadata']['name']}")
        for found in lab.wait_for_pods(2, "default", "app=web"):
            expect_answer(lab, "default", found["metadata"]["name"])
    expect_all_in(lab, cidr, block_size)
    expect_served(lab, watch, cidr)


def end_the_watch(lab: Lab, watch: Process) -> None:
    """What the client has seen."""
    watch.kill()
    answers = watch.log.read_text().split()
    lab.expect(
        "none" not in answers and len(answers) > 20,
        f"the client had {len(answers)} answers, and none was missing",
    )
    pools = ("192.168.0.0/16", "10.0.0.0/16", "192.0.0.0/16", "10.128.0.0/16")
    lab.expect(
        all(any(is_in(answer, cidr) for answer in answers) for cidr in pools),
        "they came from pods of all four pools",
    )


def answer_questions(lab: Lab) -> None:
    """What is refused."""
    lab.page.head("Q&A")
    lab.page.say("1. May pools overlap? No.")
    said = lab.type("node1", "calicoctl create -f overlapping-pool.yaml", status=1)
    lab.expect(
        said.strip() == "failed to create 'IPPool' resource: [error with field IPPool.Spec.CIDR = "
        "'10.128.128.0/17' (IPPool(overlapping) CIDR overlaps with IPPool(new-ippool) CIDR "
        "10.128.0.0/16)]",
        "the other pool is named",
    )
    lab.page.say("2. Can blockSize be changed once the pool is there? No.")
    patch = """calicoctl patch ippool new-ippool -p '{"spec": {"blockSize": 27}}'"""
    said = lab.type("node1", patch, status=1)
    lab.expect("(IPPool BlockSize cannot be modified)" in said, "a patch is refused")
    again = "sed '/cidr/i\\  blockSize: 27' new-pool.yaml | calicoctl apply -f -"
    said = lab.type("node1", again, status=1)
    lab.expect("'27' (IPPool blocksSize conflicts with" in said, "and so is another manifest")


def tidy_up(lab: Lab) -> None:
    """Everything goes."""
    lab.page.head("The end")
    lab.type("node1", "kubectl delete -f web.yaml")
    lab.wait_for_pods(0, "default", "app=web")
    lab.type("node1", "calicoctl delete ippool new-ippool")
    lab.expect("Found 0 IPAM blocks." in expect_nothing_recorded(lab), "no block is left")
    expect_no_route(lab, "10.128.0.0/16")


def show_pools(lab: Lab, *rows: str) -> None:
    """Show the pools, and say that they are these. Raises Broken if they are others."""
    shown = lab.type("node1", "calicoctl get ippool -o wide")
    expected = [dict(zip(SHOWN, row.split(), strict=True)) for row in rows]
    lab.expect(expected == rows_of(shown, SHOWN), "these are the pools, as the document has them")


def expect_in(lab: Lab, namespace: str, name: str, cidr: str) -> None:
    """Say that a pod's address is of this network."""
    [address] = lab.pod_addresses(namespace, name)
    lab.expect(is_in(address, cidr), f"{name} has {address}, of {cidr}")


def expect_answer(lab: Lab, namespace: str, name: str) -> None:
    """Say that the client gets a pod's page, once its block is routed."""
    [address] = lab.pod_addresses(namespace, name)
    sentence = f"the client has the page of {name}"
    lab.expect_soon(lambda: lab.fetches("client", address, name), sentence)


def expect_all_in(lab: Lab, cidr: str, block_size: int) -> None:
    """Say that all pods of `web` are of this network, in blocks of this size, and that these are
    routed: on the pods' nodes and by the client."""
    pods = lab.pods("default", "app=web")
    wanted: dict[str, set[str]] = {}
    blocks = set()
    for pod in pods:
        address, node = pod["status"]["podIP"], pod["spec"]["nodeName"]
        block = str(ipaddress.ip_network(f"{address}/{block_size}", strict=False))
        blocks.add(block)
        lines = {f"{address} dev veth scope link", f"blackhole {block}"}
        wanted[node] = wanted.get(node, set()) | lines
    lab.expect(all(is_in(pod["status"]["podIP"], cidr) for pod in pods), f"both pods are of {cidr}")
    for node, lines in sorted(wanted.items()):
        found = show_routes(lab, node, "ip route show proto 85")
        lab.expect(
            lines.issubset(found), f"{node} has the routes of its pods, and of blocks of that size"
        )
    lab.expect_soon(
        lambda: blocks <= find_blocks(lab), f"the client knows {' and '.join(sorted(blocks))}"
    )


def expect_no_route(lab: Lab, cidr: str) -> None:
    """Say that no machine has a route of this network any more."""
    lab.expect_soon(
        lambda: (
            not any(
                is_in(line.split()[1 if line.startswith("blackhole") else 0], cidr)
                for machine in ("node1", "node2", "client")
                for line in lab.ask(machine, "ip route").splitlines()
            )
        ),
        f"no route of {cidr} is left, on the nodes and with the client",
    )


def find_blocks(lab: Lab) -> set[str]:
    """The blocks to which the client has a route by BGP."""
    return {line.split()[0] for line in lab.ask("client", "ip route show proto bird").splitlines()}


def addresses_of_web(lab: Lab) -> list[str]:
    """The addresses of the pods of `web`, sorted."""
    return sorted(pod["status"]["podIP"] for pod in lab.pods("default", "app=web"))
