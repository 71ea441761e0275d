"""A pool for administrators: the document "Calico IPPool dedicado para Infraestrutura"."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from integration.labs.look import expect_nothing_recorded, show_refusal, show_routes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from integration.labs.lab import Lab

NAMESPACE = "gitlab-runners"
RUNNER = "runner-hfuy2bn3-project-19241-concurrent-0629tc"
ADDRESSES = (
    "kubectl get pods -o jsonpath=\"{range .items[*]}{.status.podIP}:{.metadata.name}{'\\n'}{end}\""
)
ANNOTATION = """cni.projectcalico.org/ipv4pools: '["infraestrutura"]'"""
TIMED_OUT = 28  # curl's status
NODE, INTRANET = "192.168.1.2", "192.168.1.1"


def tell(lab: Lab) -> None:
    """The whole story."""
    show_the_tenants_pool(lab)
    create_the_pool(lab)
    addresses = run_the_pods(lab)
    show_the_node(lab, addresses)
    ask_the_intranet(lab, addresses)
    name_a_pool_that_is_not_there(lab)
    tidy_up(lab)


def show_the_tenants_pool(lab: Lab) -> None:
    """What there is before."""
    lab.page.head("The tenants' pool")
    lab.page.say(
        "Tenants' pods have addresses that the whole intranet knows. They are not many, and they "
        "are not translated, so that everybody can see who asks."
    )
    lab.type("node1", "calicoctl get ippool -o wide")


def create_the_pool(lab: Lab) -> None:
    """The document's manifest, what is wrong with it, and the right one."""
    lab.page.head("A pool for infrastructure")
    lab.page.say(
        "Pods of administrators get addresses that nobody outside knows, and leave the node with "
        "the node's own. The selector !all() keeps the pool from everybody who does not name it."
    )
    lab.type("node1", "cat ippool.yaml")
    refused = lab.type("node1", "calicoctl apply -f ippool.yaml", status=1)
    lab.expect("write '!all()'" in refused, "the manifest is refused, and the error says the fix")
    lab.page.say(
        "Without quotes !all() is a tag of YAML's on an empty text. Calico's calicoctl takes that "
        "for all(): a pool for everybody. The other thing is that the API has the object under a "
        "name of its own, which operators do not use."
    )
    lab.type("node1", "diff ippool.yaml infraestrutura.yaml", status=1)
    lab.type("node1", "calicoctl apply -f infraestrutura.yaml")
    pools = lab.type("node1", "calicoctl get ippools")
    lab.expect(
        ["infraestrutura", "172.16.0.0/16", "!all()"]
        in [line.split() for line in pools.split("\n")],
        "the pool is there, and no node takes blocks of it by itself",
    )


def run_the_pods(lab: Lab) -> dict[str, str]:
    """The pods of GitLab's runner; the address of each by its name."""
    lab.page.head("Two kinds of pods on one node")
    lab.page.say("GitLab's runner is an ordinary workload. It lets each job run in a pod.")
    lab.type("node1", "kubectl create -f runners.yaml")
    lab.wait_for_pods(4, NAMESPACE)
    lab.type("node1", f"kubectl config set-context --current --namespace={NAMESPACE}")
    lab.page.say(
        "The job's pod is annotated. The document's command leaves out the end of its name, which "
        "the API server appends to generateName; below the namespace it shows no more of the pod."
    )
    shown = lab.type("node1", f"kubectl get pod {RUNNER} -o yaml | sed '/namespace:/q'")
    lab.expect(ANNOTATION in shown, "the pod names the pool infraestrutura")
    shown = lab.type("node1", ADDRESSES)
    addresses = {name: address for address, _, name in (s.partition(":") for s in shown.split())}
    infrastructure = {name for name, ip in addresses.items() if ip.startswith("172.16.")}
    workload = {name for name, ip in addresses.items() if ip.startswith("10.10.100.")}
    lab.expect(infrastructure == {RUNNER}, f"the annotated pod has {addresses[RUNNER]}")
    lab.expect(len(workload) == 3, "the three others have addresses of the tenants' pool")
    return addresses


def show_the_node(lab: Lab, addresses: dict[str, str]) -> None:
    """Blocks and routes."""
    lab.page.head("What the node has")
    lab.page.say("One block of each pool: 64 addresses for tenants, 128 for infrastructure.")
    blocks = lab.type("node1", "calicoctl ipam show --show-blocks")
    prefixes = {
        line.split("|")[2].strip().rpartition("/")[2]
        for line in blocks.split("\n")
        if "Block" in line
    }
    lab.expect(prefixes == {"25", "26"}, "the blocks have the sizes that their pools say")
    lab.expect(
        expected_routes(addresses.values()) == show_routes(lab, "node1"),
        "to each pod leads a route of its own; what no pod has goes nowhere, for a blackhole holds "
        "each block",
    )


def expected_routes(addresses: Iterable[str]) -> list[str]:
    """The lines of `ip route` on the node, sorted, with `veth` for the name of each."""
    blocks = {
        ipaddress.ip_network(f"{ip}/{25 if ip.startswith('172.16.') else 26}", strict=False)
        for ip in addresses
    }
    return sorted(
        [
            *(f"{address} dev veth proto 85 scope link" for address in addresses),
            *(f"blackhole {block} proto 85" for block in blocks),
            "172.20.20.0/24 dev eth0 proto kernel scope link src 172.20.20.21",
            f"192.168.1.0/24 dev eth1 proto kernel scope link src {NODE}",
        ]
    )


def ask_the_intranet(lab: Lab, addresses: dict[str, str]) -> None:
    """Real requests, with and without translation."""
    lab.page.head("Who asks the intranet?")
    workload = next(name for name in addresses if name != RUNNER)
    ask = f"curl -s --max-time 5 http://{INTRANET}/cgi-bin/whoami"
    lab.page.say("The server of the intranet answers with the address that it is asked from.")
    seen = lab.type("node1", lab.in_pod(NAMESPACE, workload, ask))
    lab.expect(seen.strip() == addresses[workload], "a tenant's pod comes with its own address")
    seen = lab.type("node1", lab.in_pod(NAMESPACE, RUNNER, ask), status=TIMED_OUT)
    lab.expect(not seen, "no answer comes to the runner: the intranet does not know its address")
    lab.page.say("The pool says natOutgoing. Felix would make the rule; here it is by hand.")
    lab.type("node1", "nft -f nat-outgoing.nft")
    seen = lab.type("node1", lab.in_pod(NAMESPACE, RUNNER, ask))
    lab.expect(seen.strip() == NODE, "now the runner comes with the address of its node")
    seen = lab.type("node1", lab.in_pod(NAMESPACE, workload, ask))
    lab.expect(seen.strip() == addresses[workload], "and the tenants' pods still with their own")
    between = lab.in_pod(NAMESPACE, RUNNER, f"curl -s http://{addresses[workload]}/")
    lab.expect(
        lab.type("node1", between).strip() == workload, "pods of both kinds reach each other"
    )


def name_a_pool_that_is_not_there(lab: Lab) -> None:
    """What a pod is told that names a pool by a wrong name."""
    lab.page.head("A name that is wrong")
    lab.type("node1", "kubectl apply -f wrong-name.yaml")
    said = show_refusal(
        lab, NAMESPACE, "wrong-name", "the pod does not start, and its events say why"
    )
    lab.expect("no pool has that name" in said, "the error names the pools that there are")


def tidy_up(lab: Lab) -> None:
    """Everything goes."""
    lab.page.head("The end")
    lab.type("node1", "kubectl delete deployment,pod --all --cascade=foreground")
    lab.wait_for_pods(0, NAMESPACE)
    lab.type("node1", "calicoctl delete ippool infraestrutura")
    expect_nothing_recorded(lab)
    routes = lab.type("node1", "ip route")
    lab.expect("172.16." not in routes, "with the pool its block went, and the block's blackhole")
