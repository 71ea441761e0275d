"""The golden transcript: what calico-ipam left in etcd after each of nine steps, ours leaves too.

All keys below /calico/ipam are compared after each step, with their values as texts. What differs
on purpose (`transcript.py` has the details):

* Our walk through a pool begins elsewhere than Go's math/rand (DESIGN.md), so node1 claims another
  block than 10.0.0.208/29. The transcript's addresses of that block, and no others, are moved.
* Each allocation has two attributes more, `ifname` and `network`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean.record import record
from integration.etcd.gateway import decode, encode, end_of_prefix
from integration.etcd.node import RESOURCES, EtcdNode, put_node, put_pool
from integration.etcd.proxy import Proxy
from integration.etcd.servers import VERSIONS
from integration.etcd.transcript import (
    ADDRESSES,
    ERRORS,
    IPAM,
    STORED_POOL,
    STORED_RESERVATION,
    TRANSCRIPT,
    move,
    tell_transcript,
)
from integration.network import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.etcd.servers import Cluster
    from integration.program import Answer

NETWORK = "k8s-pod-network"
SMALL = {"ipv4_pools": ["10.9.0.0/30"]}
SECOND = 10**9


@record
class Clock:
    """A time in a record, and the call that made it; all in nanoseconds."""

    what: str
    since: int
    found: int
    until: int


class Masks:
    """Puts names in place of times and sequence numbers, and remembers what they stood for."""

    def __init__(self) -> None:
        self.clocks: dict[str, Clock] = {}
        self._made: dict[str, int] = {}

    def hide(self, value: str, since: int, until: int) -> str:
        """A value as the transcript has it."""
        found = re.match(r'\{"cidr":"([^"]+)"', value)
        if not found:
            return re.sub(
                r'("uid":)"[0-9a-f-]{36}"(,"creationTimestamp":)"[-0-9T:]{19}Z"',
                r'\1"<uid>"\2"<made>"',
                value,
            )
        cidr = found[1]
        number = int(re.findall(r'"sequenceNumber":(\d+)', value)[0])
        # A block is made and assigned from in one commit, so it is first seen with S+1.
        made = self._made.setdefault(cidr, number - 1)
        self._note(f"{cidr} made", since, made, until)

        def claimed(match: re.Match[str]) -> str:
            self._note(f"{cidr} claimed", since // SECOND * SECOND, _nanoseconds(match[2]), until)
            return f'{match[1]}"<claimed>"'

        def assigned(match: re.Match[str]) -> str:
            self._note(f"{match[2]} assigned", since, _nanoseconds(match[3]), until)
            return f'{match[1]}"<assigned>"'

        value = re.sub(r'("affinity_claim_time":)"([-0-9]+T[0-9:]+)Z"', claimed, value)
        value = re.sub(
            r'("handle_id":"([^"]+)","secondary":\{[^}]*"timestamp":)"([-0-9]+ [0-9:.]+)'
            r' \+0000 UTC"',
            assigned,
            value,
        )
        return re.sub(r"\b\d{10,20}\b", lambda match: _from(made, int(match[0])), value)

    def _note(self, what: str, since: int, found: int, until: int) -> None:
        """A time is that of the call after which it is first seen, and never changes."""
        first = self.clocks.setdefault(what, Clock(what, since, found, until))
        assert first.found == found, f"{what}: {first.found} has become {found}"


def _from(made: int, number: int) -> str:
    return f"S+{number - made}" if number != made else "S"


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.replace("T", " ").partition(".")
    assert not fraction.endswith("0"), f"Go trims the zeros of {text}"
    moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND + int(fraction.ljust(9, "0"))


@record
class Story:
    """The nine steps as they went: all keys and the last answer after each, and the pool's text."""

    sights: dict[str, dict[str, str]]
    answers: dict[str, Answer]
    results: dict[str, Answer]
    resources: dict[str, str]
    clocks: list[Clock]

    @property
    def offset(self) -> int:
        """How far our block of node1 lies from Calico's."""
        (address,) = self.results["c1"].addresses
        return int(address.rpartition(".")[2]) - 208


class Teller:
    """Runs the steps one after another against one etcd."""

    def __init__(self, etcd: Cluster, endpoint: str, folder: Path) -> None:
        self._etcd = etcd
        self._environment = {
            "PATH": os.environ["PATH"],
            "DATASTORE_TYPE": "etcdv3",
            "ETCD_ENDPOINTS": endpoint,
        }
        self._nodes = {
            name: EtcdNode(folder, [endpoint], name, name="calico-ipam")
            for name in ("node1", "node2")
        }
        self._steps = iter(TRANSCRIPT)
        self._masks = Masks()
        self._since = time.time_ns()
        self.story = Story({}, {}, {}, {}, [])

    def call(
        self, verb: str, container: str, node: str = "node1", args: str = "", **ipam
    ) -> Answer:
        """One call of calico-ipam."""
        program = self._nodes[node]
        netconf = program.netconf(NETWORK, ipam=ipam)
        return program.call(verb, container, netconf, CNI_ARGS=args or None)

    def add(self, container: str, node: str = "node1", args: str = "", **ipam) -> Answer:
        answer = self.story.results[container] = self.call("ADD", container, node, args, **ipam)
        return answer

    def ipamctl(self, *words: str, document: object = None) -> None:
        done = subprocess.run(
            [str(BUNDLE / "ipamctl"), *words],
            env=self._environment,
            input=json.dumps(document),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"ipamctl {words}: {done.stdout}{done.stderr}"

    def end_step(self, answer: Answer | None = None) -> None:
        """Look at what there is; `answer` is that of the step's call."""
        step = next(self._steps)
        until = time.time_ns()
        if answer:
            self.story.answers[step] = answer
        self.story.sights[step] = self.read(f"{IPAM}/", until)
        self._since = until

    def read(self, prefix: str, until: int = 0) -> dict[str, str]:
        """The keys below a prefix, in order, with their values."""
        wanted = {"key": encode(prefix), "range_end": end_of_prefix(prefix)}
        found = self._etcd.post("/v3/kv/range", wanted).get("kvs", [])
        return {
            decode(kv["key"]): self._masks.hide(decode(kv["value"]), self._since, until)
            for kv in found
        }

    def finish(self) -> Story:
        assert next(self._steps, None) is None, "a step was left out"
        self.story.clocks.extend(self._masks.clocks.values())
        return self.story


def resource(kind: str, name: str, **spec: object) -> dict[str, object]:
    """What an operator writes."""
    head = {"apiVersion": "projectcalico.org/v3", "kind": kind}
    return head | {"metadata": {"name": name}, "spec": spec}


def make_pool(teller: Teller, etcd: Cluster, writer: str) -> None:
    """Step 1's pool, by calicoctl's own text or by our tool."""
    if writer == "calicoctl":
        put_pool(etcd, "pool1", "10.0.0.0/24", blockSize=29)
        return
    pool = resource(
        "IPPool", "pool1", cidr="10.0.0.0/24", blockSize=29, ipipMode="Always", natOutgoing=True
    )
    teller.ipamctl("apply", "-f", "-", document=pool)


def tell_first_steps(teller: Teller) -> None:
    """1 to 5: one pool, a claim, releases, a fixed address."""
    pod = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="
    for container, args in (("c1", f"{pod}p1"), ("c2", f"{pod}p2"), ("c3", "")):
        teller.end_step(teller.add(container, args=args))
    for _ in range(2):
        teller.end_step(teller.call("DEL", "c1", args=f"{pod}p1"))
    teller.end_step(teller.add("c4", "node2", "IP=10.0.0.250"))


def tell_full_pool(teller: Teller, etcd: Cluster) -> None:
    """6 and 7: a pool of four addresses that only node1 may claim from."""
    put_pool(etcd, "small", "10.9.0.0/30", blockSize=31, nodeSelector="rack == '1'")
    for number in range(1, 5):
        teller.end_step(teller.add(f"s{number}", **SMALL))
    teller.end_step(teller.call("ADD", "s5", **SMALL))
    teller.end_step(teller.call("DEL", "s1"))
    teller.end_step(teller.add("b1", "node2", **SMALL))
    for setting in ("--strictaffinity=true", "--max-blocks-per-host=1"):
        teller.ipamctl("ipam", "configure", setting)
        teller.end_step(teller.call("ADD", "s5", **SMALL))


def tell_last_steps(teller: Teller) -> None:
    """8 and 9: a reservation in the middle of a block, and the end of the pool."""
    teller.ipamctl("ipam", "configure", "--strictaffinity=false", "--max-blocks-per-host=0")
    teller.end_step(teller.call("DEL", "c3"))
    kept = move("10.0.0.212/31", teller.story.offset)
    document = resource("IPReservation", "kept", reservedCIDRs=[kept])
    teller.ipamctl("create", "-f", "-", document=document)
    for container in ("c5", "c6"):
        teller.end_step(teller.add(container))
    teller.story.resources.update(teller.read(f"{RESOURCES}/"))
    teller.ipamctl("delete", "ippool", "pool1")
    teller.end_step()
    for container, node in (("c2", "node1"), ("c5", "node1"), ("c6", "node1"), ("c4", "node2")):
        teller.end_step(teller.call("DEL", container, node))


@pytest.fixture(scope="session")
def stories() -> dict[tuple[str, str], Story]:
    """Those that have been told in this run."""
    return {}


@pytest.fixture(params=zip(VERSIONS, ("calicoctl", "ipamctl"), strict=True), ids="-".join)
def story(
    request: pytest.FixtureRequest,
    lasting: Callable[..., Cluster],
    stories: dict[tuple[str, str], Story],
    tmp_path: Path,
) -> Story:
    """The nine steps, told once for each version of etcd, and with it each writer of the pool."""
    version, writer = request.param
    if request.param not in stories:
        etcd = lasting(f"etcd-{version}", version)
        put_node(etcd, "node1", rack="1")
        put_node(etcd, "node2")
        with Proxy(etcd.endpoints[0]) as proxy:
            teller = Teller(etcd, proxy.endpoint, tmp_path)
            make_pool(teller, etcd, writer)
            tell_first_steps(teller)
            tell_full_pool(teller, etcd)
            tell_last_steps(teller)
            stories[request.param] = teller.finish()
    return stories[request.param]


@pytest.mark.parametrize("step", TRANSCRIPT)
def test_records_are_calicos(story: Story, step: str) -> None:
    """Every key and value after each step, as Calico left them."""
    assert tell_transcript(story.offset)[step] == story.sights[step]


def test_block_of_node1_is_one_of_the_pool(story: Story) -> None:
    """The one departure: another block of the same pool."""
    first = 208 + story.offset
    assert (0, True) == (first % 8, 0 <= first < 256)


def test_results_are_calicos(story: Story) -> None:
    """The addresses of the transcript, with its masks."""
    expected = {name: move(address, story.offset) for name, address in ADDRESSES.items()}
    assert expected == {
        container: answer.document["ips"][0]["address"]
        for container, answer in story.results.items()
    }


@pytest.mark.parametrize("step", ERRORS)
def test_message_has_calicos_words(story: Story, step: str) -> None:
    """What people search the web for."""
    answer = story.answers[step]
    assert 1 == answer.status
    assert ERRORS[step] in answer.document["msg"]


def test_other_calls_succeed(story: Story) -> None:
    """Also the second DEL of what is gone, and without a word: a DEL has no result."""
    calm = {step: answer for step, answer in story.answers.items() if step not in ERRORS}
    assert dict.fromkeys(calm, 0) == {step: answer.status for step, answer in calm.items()}
    assert {b""} == {answer.stdout for step, answer in calm.items() if "DEL" in step}


def test_times_are_those_of_the_calls(story: Story) -> None:
    """A block's first number and the times of claims and assignments, in Go's forms."""
    assert [] == [clock for clock in story.clocks if not clock.since <= clock.found <= clock.until]
    assert {"10.9.0.0/31 made", "10.9.0.0/31 claimed", "k8s-pod-network.b1 assigned"} < {
        clock.what for clock in story.clocks
    }


def test_resources_are_as_calicoctl_keeps_them(story: Story) -> None:
    """The pool as it was made, whoever made it, and the reservation."""
    stored = story.resources
    assert STORED_POOL == stored[f"{RESOURCES}/ippools/pool1"]
    assert move(STORED_RESERVATION, story.offset) == stored[f"{RESOURCES}/ipreservations/kept"]
