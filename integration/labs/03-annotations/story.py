"""Ranges of addresses for old firewalls: "Interoperate with legacy firewalls using IP ranges"."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from integration.labs.look import expect_nothing_recorded, is_in, show_refusal, show_routes
from integration.network import becomes_true

if TYPE_CHECKING:
    from integration.labs.lab import Lab

SERVERS = {4: "192.168.2.10", 6: "[fd00:168:2::10]"}
LEDGER = "the ledger"
REFUSED = 7  # curl's status
CONFLIST = "/etc/cni/net.d/10-cni-ipam.conflist"
POOLS = {
    "default-ipv4-ippool": "10.244.0.0/16",
    "default-ipv6-ippool": "fd00:10:244::/64",
    "pool-1": "10.1.0.0/29",
    "pool-1-v6": "fd00:10:1::/112",
    "pool-2": "10.2.0.0/24",
}
DEFAULTS = ("default-ipv4-ippool", "default-ipv6-ippool")
FIRSTS = ("pool-1", "pool-1-v6")
ANNOTATE = (
    """kubectl annotate pod plain 'cni.projectcalico.org/ipv4pools=["pool-1"]' """
    """'cni.projectcalico.org/ipv6pools=["pool-1-v6"]'"""
)
TURNED = (
    """kubectl run turned --image=main --annotations="""
    """'cni.projectcalico.org/ipv4pools=["pool-2", "pool-1"]'"""
)


def tell(lab: Lab) -> None:
    """The whole story."""
    look_at_the_configuration(lab)
    show_the_firewall(lab)
    annotate_a_pod(lab)
    name_two_pools(lab)
    annotate_a_namespace(lab)
    annotate_a_running_pod(lab)
    forget_the_quotes(lab)
    tidy_up(lab)


def look_at_the_configuration(lab: Lab) -> None:
    """Which IPAM is at work."""
    lab.page.head("Which IPAM is it?")
    lab.page.say(
        "The document looks for calico-ipam in /etc/cni/net.d/10-calico.conflist. Here the file "
        "has another name, and the type is ours. It heeds the same annotations, and reads them "
        "with the kubeconfig."
    )
    lab.type("node1", "ls /etc/cni/net.d")
    shown = lab.type("node1", f"cat {CONFLIST}")
    lab.expect('"ipam": {"type": "cni-ipam"' in shown, "addresses are given by cni-ipam")


def show_the_firewall(lab: Lab) -> None:
    """Rules by ranges, and the pools that have these ranges."""
    lab.page.head("A firewall that knows ranges of addresses")
    lab.page.say(
        "Pods come and go, and their addresses with them. The firewall before the legacy system "
        "cannot follow: it has rules for ranges. So a pool is made for each range."
    )
    rules = lab.type("firewall", "nft list ruleset")
    lab.expect("10.1.0.0/29" in rules, "who comes from 10.1.0.0/29 may pass, all others may not")
    lab.type("node1", "calicoctl apply -f pools.yaml")
    lab.type("node1", "calicoctl get ippools")


def annotate_a_pod(lab: Lab) -> None:
    """One pod with the annotation, one without."""
    lab.page.head("Restrict a pod to a range")
    lab.page.say(
        "There is an annotation for each family. It is a list of pools. Inside of its quotes those "
        "of the names need a backslash."
    )
    lab.type("node1", "head -n 9 pods.yaml")
    lab.type("node1", "kubectl apply -f pods.yaml")
    lab.wait_for_pods(2, "default")
    lab.type("node1", "kubectl get pods -o wide")
    expect_pools(lab, "default", "annotated", *FIRSTS)
    expect_pools(lab, "default", "plain", *DEFAULTS)
    show_the_routes(lab)
    lab.page.say("Now both ask the legacy system.")
    ask(lab, "default", "annotated", passes={4, 6})
    ask(lab, "default", "plain", passes=set())
    lab.expect(count_refused(lab) >= 2, "it was the firewall that refused")


def show_the_routes(lab: Lab) -> None:
    """Of each family: a route to each pod, a blackhole for each block."""
    pods = [lab.pod_addresses("default", name) for name in ("annotated", "plain")]
    blocks = [
        [str(ipaddress.ip_network(f"{address}/{size}", strict=False)) for address, size in pairs]
        for pairs in (zip(pods[0], (29, 124), strict=True), zip(pods[1], (26, 122), strict=True))
    ]
    for version, end in ((4, "scope link"), (6, "metric 1024 pref medium")):
        family = 0 if version == 4 else 1
        device = "" if version == 4 else " dev lo metric 1024 pref medium"
        expected = [f"{addresses[family]} dev veth {end}" for addresses in pods]
        expected += [f"blackhole {cidrs[family]}{device}" for cidrs in blocks]
        found = show_routes(lab, "node1", f"ip -{version} route show proto 85")
        lab.expect(sorted(expected) == found, f"the IPv{version} routes are those of two blocks")


def name_two_pools(lab: Lab) -> None:
    """One is full, the other goes on; and what the order of the names means."""
    lab.page.head("Two ranges for one pod")
    lab.page.say(
        "pool-1 has eight addresses. Pods get five of them: the first, the second and the last are "
        "kept back, for the network, its gateway and broadcasts. One is taken."
    )
    lab.type("node1", "grep -A 1 annotations: reports.yaml")
    lab.type("node1", "kubectl apply -f reports.yaml")
    pods = lab.wait_for_pods(5, "default", "app=reports")
    lab.type("node1", "kubectl get pods -l app=reports -o wide")
    names: dict[bool, list[str]] = {True: [], False: []}
    for pod in pods:
        names[is_in(pod["status"]["podIP"], POOLS["pool-1"])].append(pod["metadata"]["name"])
    lab.expect(
        len(names[True]) == 4, "four of the five have addresses of pool-1, which is full now"
    )
    [last] = names[False]
    expect_pools(lab, "default", last, "pool-2", "default-ipv6-ippool")
    lab.page.say("The firewall has no rule for pool-2. Who names two pools needs rules for both.")
    ask(lab, "default", names[True][0], passes={4})
    ask(lab, "default", last, passes=set())
    lab.type("node1", "kubectl delete -f reports.yaml")
    lab.wait_for_pods(0, "default", "app=reports")
    lab.page.say(
        "The order of the names is that in which the node looks for a new block. A block that it "
        "has already, in any of these pools, comes before: here the one of pool-1."
    )
    lab.type("node1", TURNED)
    lab.wait_for_pod("default", "turned")
    expect_pools(lab, "default", "turned", "pool-1", "default-ipv6-ippool")
    lab.type("node1", "kubectl delete pod turned")


def annotate_a_namespace(lab: Lab) -> None:
    """The namespace's annotation is for all its pods; the pod's takes precedence."""
    lab.page.head("Restrict all pods of a namespace")
    lab.page.say(
        "If both the pod and its namespace have the annotation, the pod's takes precedence: here "
        "for IPv4, of which it speaks. For IPv6 the namespace's still counts."
    )
    lab.type("node1", "cat namespace.yaml")
    lab.type("node1", "kubectl apply -f namespace.yaml")
    lab.wait_for_pods(2, "billing")
    lab.type("node1", "kubectl get pods -n billing -o wide")
    expect_pools(lab, "billing", "invoice", *FIRSTS)
    expect_pools(lab, "billing", "archive", "pool-2", "pool-1-v6")
    ask(lab, "billing", "invoice", passes={4, 6})
    ask(lab, "billing", "archive", passes={6})


def annotate_a_running_pod(lab: Lab) -> None:
    """It has no effect until the pod is made anew."""
    lab.page.head("An annotation that comes too late")
    lab.page.say("Adding it to an existing pod has no effect.")
    before = lab.pod_addresses("default", "plain")
    lab.type("node1", ANNOTATE)
    lab.expect(before == lab.pod_addresses("default", "plain"), "the pod keeps its addresses")
    ask(lab, "default", "plain", passes=set())
    lab.page.say("A new pod of that name, with the annotation from the start, is let through.")
    lab.type("node1", "kubectl delete pod plain")
    lab.type("node1", "kubectl apply -f plain-again.yaml")
    lab.wait_for_pods(2, "default")
    expect_pools(lab, "default", "plain", *FIRSTS)
    ask(lab, "default", "plain", passes={4, 6})


def forget_the_quotes(lab: Lab) -> None:
    """What a malformed annotation leads to."""
    lab.page.head("An annotation that is no JSON")
    lab.type("node1", "grep -A 1 annotations: unquoted.yaml")
    lab.type("node1", "kubectl apply -f unquoted.yaml")
    sentence = "the pod does not start: it gets no address of another pool instead"
    said = show_refusal(lab, "default", "unquoted", sentence)
    lab.expect("right is a JSON list" in said, "the error says what would be right")


def tidy_up(lab: Lab) -> None:
    """Everything goes."""
    lab.page.head("The end")
    lab.type("node1", "kubectl delete pod --all")
    lab.type("node1", "kubectl delete pod --all -n billing")
    lab.type("node1", "calicoctl delete -f pools.yaml")
    expect_nothing_recorded(lab)
    routes = lab.ask("node1", "ip route; ip -6 route")
    lab.expect(
        not re.search(r"10\.[12]\.0\.|fd00:10:[12]:", routes), "no route of the pools is left"
    )


def expect_pools(lab: Lab, namespace: str, name: str, four: str, six: str) -> None:
    """Say which pool each of a pod's addresses is of. Raises Broken if it is not."""
    addresses = lab.pod_addresses(namespace, name)
    ranges = (POOLS[four], POOLS[six])
    lab.expect(
        all(is_in(address, cidr) for address, cidr in zip(addresses, ranges, strict=True)),
        f"{namespace}/{name} has {addresses[0]} of {four} and {addresses[1]} of {six}",
    )


def ask(lab: Lab, namespace: str, name: str, *, passes: set[int]) -> None:
    """A pod asks the legacy system over each family; those in `passes` have an answer."""
    tentative = lab.in_pod(namespace, name, "ip -6 address show tentative")
    assert becomes_true(lambda: lab.ask("node1", tentative) == ""), "IPv6 becomes usable"
    for version, server in SERVERS.items():
        command = lab.in_pod(namespace, name, f"curl -s --max-time 5 http://{server}/")
        if version in passes:
            page = lab.type("node1", command).strip()
            lab.expect(page == LEDGER, f"{name} is let through over IPv{version}")
        else:
            page = lab.type("node1", command, status=REFUSED)
            lab.expect(page == "", f"{name} is refused over IPv{version}")


def count_refused(lab: Lab) -> int:
    """How many packets the firewall has refused."""
    [found] = re.findall(r"counter packets (\d+) .*reject", lab.ask("firewall", "nft list ruleset"))
    return int(found)
