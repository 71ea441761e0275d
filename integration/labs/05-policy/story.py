"""Policies by hand: the recipes of the document "Calico basic" as rules for addresses of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.labs.look import expect_nothing_recorded

if TYPE_CHECKING:
    from integration.cluster.machine import Process
    from integration.labs.lab import Lab

REFUSED = 7  # curl's status
FIRST = {"jpython": "japp", "tester": "test", "developer": "dev", "jnginx": "web"}
NAMESPACES = FIRST | {"db": "default", "frontend": "default", "worker": "project"}
OUTSIDE = "192.168.1.1"
EVERYBODY = {"tester", "developer", "jnginx", "client"}
# An address is that of the machine `client`.
WITHIN, EXCEPT = "172.17.0.10", "172.17.1.10"
SAMPLE = {"frontend", "worker", "tester", WITHIN, EXCEPT}
SAMPLE_OUTSIDE = "10.0.0.10"


def tell(lab: Lab) -> None:
    """The whole story."""
    second = run_the_pods(lab)
    deny_everything(lab)
    allow_by_namespace(lab)
    allow_by_port(lab)
    allow_what_goes_out(lab)
    replace_the_tester(lab)
    third = take_the_sample(lab)
    tidy_up(lab, second, third)


def run_the_pods(lab: Lab) -> Process:
    """No policy, no isolation; the process that answers on port 8080 as well."""
    lab.page.head("Pods without policies")
    lab.page.say("Unless a policy selects a pod, everybody may talk to it.")
    lab.type("node1", "kubectl apply -f pods.yaml")
    lab.wait_for_pods(4)
    lab.type("node1", "kubectl get pods -A -o wide")
    lab.page.say("jpython answers on the ports 80 and 8080.")
    second = listen(lab, "jpython", 8080)
    lab.expect_soon(lambda: reaches(lab, "client", 8080), "the second port answers, too")
    expect_callers(lab, 80, EVERYBODY)
    return second


def deny_everything(lab: Lab) -> None:
    """The sets, and the first recipe."""
    lab.page.head("Deny all traffic")
    lab.page.say(
        "The document's manifest is for an engine; the API server takes it but for a word."
    )
    lab.type("node1", "kubectl apply -f default-deny.yaml", status=1)
    lab.type("node1", "sed s/egress/Egress/ default-deny.yaml | kubectl apply -f -")
    lab.page.say(
        "There is no engine here, so we do its work: rules in the kernel, and sets of the "
        "addresses that selectors mean. Whose an address is, IPAM's records say."
    )
    shown = lab.type("node1", "ipamctl ipam check --show-all-ips | grep allocated")
    lab.expect(
        all(
            f"  {lab.pod_addresses(namespace, name)[0]} allocated; attrs Main:" in shown
            and f"namespace={namespace},network=lab,node=node1,pod={name}," in shown
            for name, namespace in FIRST.items()
        ),
        "the records name the pod of each address",
    )
    lab.type("node1", "nft -f policy.nft && ./fill-sets.sh")
    take(lab, "default-deny")
    expect_callers(lab, 80, set())
    expect_outside(lab, {80: False, 8080: False})
    lab.page.say(
        "The node itself still reaches its pods, as Kubernetes wants it for its probes. That is "
        "also why requests to a node's port seem to pass in spite of a policy: they come from the "
        "node."
    )
    lab.expect(reaches(lab, "node1", 80), "the node reaches jpython")


def allow_by_namespace(lab: Lab) -> None:
    """Selectors of namespaces."""
    lab.page.head("Allow traffic from namespaces")
    take(lab, "allow-jnginx")
    expect_callers(lab, 80, {"jnginx"})
    take(lab, "allow-from-all-ns")
    expect_callers(lab, 80, {"tester", "developer", "jnginx"})
    take(lab, "allow-ingress-test-ns")
    expect_callers(lab, 80, {"tester"})
    take(lab, "allow-ingress-test-dev-ns")
    expect_callers(lab, 80, {"tester", "developer"})


def allow_by_port(lab: Lab) -> None:
    """Ports, with and without a selector."""
    lab.page.head("Allow traffic to a port")
    take(lab, "allow-ingress-8080")
    expect_callers(lab, 8080, {"tester"})
    expect_callers(lab, 80, set())
    take(lab, "allow-tcp-80")
    expect_callers(lab, 80, EVERYBODY)
    expect_callers(lab, 8080, set())
    take(lab, "default-allow")
    expect_callers(lab, 8080, EVERYBODY)


def allow_what_goes_out(lab: Lab) -> None:
    """The other direction."""
    lab.page.head("Allow what goes out to ports 80 and 443")
    take(lab, "allow-egress-http-https")
    expect_outside(lab, {80: True, 8080: False})


def replace_the_tester(lab: Lab) -> None:
    """What a set has to follow."""
    lab.page.head("A pod that is made anew")
    lab.page.say(
        "An address is a pod's as long as the pod lives, so a set holds until a pod comes or goes. "
        "Then it has to follow, which is an engine's daily work."
    )
    take(lab, "allow-ingress-test-ns")
    before = lab.pod_addresses("test", "tester")
    lab.type("node1", "kubectl delete pod tester -n test")
    lab.type("node1", "kubectl apply -f pods.yaml")
    after = lab.wait_for_pod("test", "tester")
    lab.expect(
        before != after, f"{after[0]} is the new address; {before[0]} rests at the end of the queue"
    )
    expect_callers(lab, 80, set())
    lab.type("node1", "./fill-sets.sh")
    expect_callers(lab, 80, {"tester"})


def take_the_sample(lab: Lab) -> Process:
    """Ranges, ports and both directions in one; the process that answers for db."""
    lab.page.head("The sample: ranges with exceptions, and both directions")
    lab.page.say(
        "The ranges are of addresses outside of the cluster: the client has one of 172.17.0.0/16, "
        "and one of the part that is excepted. First the sets follow the new pods."
    )
    lab.type("node1", "kubectl apply -f sample-pods.yaml")
    lab.wait_for_pods(2, "default")
    lab.wait_for_pods(1, "project")
    third = listen(lab, "db", 6379)
    lab.expect_soon(lambda: reaches(lab, "client", 6379, "db"), "db answers on port 6379, too")
    lab.type("node1", "./fill-sets.sh")
    expect_callers(lab, 6379, SAMPLE, "db", SAMPLE)
    take(lab, "test-network-policy")
    expect_callers(lab, 6379, {"frontend", "worker", WITHIN}, "db", SAMPLE)
    expect_callers(lab, 80, set(), "db", SAMPLE)
    expect_outside(lab, {5978: True, 80: False}, "db", SAMPLE_OUTSIDE)
    expect_outside(lab, {5978: False}, "db", OUTSIDE)
    return third


def tidy_up(lab: Lab, *servers: Process) -> None:
    """Everything goes."""
    lab.page.head("The end")
    for server in servers:
        server.kill()
    lab.type("node1", "nft delete table inet pods")
    expect_callers(lab, 80, EVERYBODY)
    lab.type("node1", "kubectl delete pod jpython -n japp")
    lab.type("node1", "kubectl delete pod tester -n test")
    lab.type("node1", "kubectl delete pod developer -n dev")
    lab.type("node1", "kubectl delete pod jnginx -n web")
    lab.type("node1", "kubectl delete -f sample-pods.yaml")
    expect_nothing_recorded(lab)


def take(lab: Lab, recipe: str) -> None:
    """Show a recipe and put it in force."""
    lab.type("node1", f"cat {recipe}.nft")
    lab.type("node1", f"nft -f {recipe}.nft")


def listen(lab: Lab, name: str, port: int) -> Process:
    """Let a pod answer on a further port."""
    namespace = NAMESPACES[name]
    server = f"busybox httpd -f -p {port} -h /run/pods/{namespace}.{name}"
    inside = lab.in_pod(namespace, name, server)
    return lab.machines["node1"].start(f"{name}-{port}", inside.split())


def expect_callers(
    lab: Lab,
    port: int,
    allowed: set[str],
    target: str = "jpython",
    everybody: set[str] = EVERYBODY,
) -> None:
    """All of `everybody` ask a pod; say who has its page. Raises Broken if it is somebody else."""
    found = {name for name in everybody if reaches(lab, name, port, target)}
    who = "everybody" if allowed == EVERYBODY else ", ".join(sorted(allowed)) or "nobody"
    lab.expect(allowed == found, f"on port {port} {target} answers {who}")


def expect_outside(
    lab: Lab, ports: dict[int, bool], name: str = "jpython", address: str = OUTSIDE
) -> None:
    """A pod asks the client on each port; say whether it has an answer."""
    for port, passes in ports.items():
        ask = f"curl -s --max-time 5 http://{address}:{port}/"
        inside = lab.in_pod(NAMESPACES[name], name, ask)
        seen = lab.type("node1", inside, status=0 if passes else REFUSED)
        verb = "passes" if passes else "is refused"
        lab.expect(
            passes == (seen.strip() == "outside"),
            f"what goes out to {address}, port {port}, {verb}",
        )


def reaches(lab: Lab, caller: str, port: int, target: str = "jpython") -> bool:
    """Whether a pod, a machine or an address of the client's has a pod's page; a refusal comes at
    once."""
    [address] = lab.pod_addresses(NAMESPACES[target], target)
    ask = f"curl -s --max-time 5 http://{address}:{port}/"
    if caller in NAMESPACES:
        done = lab.attempt("node1", lab.in_pod(NAMESPACES[caller], caller, ask))
    elif caller in lab.machines:
        done = lab.attempt(caller, ask)
    else:
        done = lab.attempt("client", f"{ask} --interface {caller}")
    assert done.returncode in {0, REFUSED}, done.stdout
    return done.stdout.strip() == target
