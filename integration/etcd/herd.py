"""Pods of many nodes that come and go at once, with a book of who has which address."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from integration.etcd.node import EtcdNode
from integration.program import NETWORK

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from integration.etcd.proxy import Proxy
    from integration.program import Answer

    Step = tuple[Callable[["Pod"], None], "Pod"]

# The proxy keeps all that passes until it is cleared, for which nothing may be on its way.
ROUND_SECONDS = 5.0
NAMES = ("cni-ipam", "calico-ipam")
EXHAUSTED = 101


class Pod(NamedTuple):
    """A container, and the node on which it is."""

    node: EtcdNode
    container: str

    @property
    def handle(self) -> str:
        """Under which its address is recorded."""
        return f"{NETWORK}.{self.container}"


class Tally:
    """What the proxy counted: requests, swaps, those that were lost, and the worst process."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.requests = self.swaps = self.lost = self.most_lost = 0

    def take(self) -> None:
        """Count what has passed since, and let the proxy forget it."""
        self.proxy.settle()
        for exchanges in self.proxy.by_connection().values():
            swaps = [e for e in exchanges if e.path == "/v3/kv/txn" and b'"compare":' in e.body]
            lost = sum(not swap.succeeded for swap in swaps)
            self.requests += len(exchanges)
            self.swaps += len(swaps)
            self.lost += lost
            self.most_lost = max(self.most_lost, lost)
        self.proxy.clear()

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.lost} of {self.swaps} swaps lost, "
            f"at most {self.most_lost} by one process"
        )


class Herd:
    """`pods` containers on each of `nodes` nodes, every other one of which calls us calico-ipam.

    All addresses come from `pool` and from none of `reserved`. Whatever else is wrong with an
    answer is a complaint, too; that there is none left only if `may_be_full` is not set."""

    def __init__(
        self,
        proxy: Proxy,
        folder: Path,
        pool: str,
        *,
        nodes: int,
        pods: int,
        reserved: Sequence[str] = (),
        at_once: int = 16,
        may_be_full: bool = False,
    ) -> None:
        self.nodes = [
            EtcdNode(folder, [proxy.endpoint], f"node{n}", name=NAMES[n % len(NAMES)])
            for n in range(nodes)
        ]
        self.pods = [Pod(node, f"{node.node}-c{n}") for n in range(pods) for node in self.nodes]
        self.pool = ipaddress.ip_network(pool)
        self.reserved = [ipaddress.ip_network(cidr) for cidr in reserved]
        self.at_once = at_once
        self.may_be_full = may_be_full
        self.tally = Tally(proxy)
        self.book: dict[str, str] = {}
        self.complaints: list[str] = []
        self.calls: Counter[str] = Counter()
        self._addresses: dict[Pod, str] = {}
        self._busy: set[Pod] = set()
        self._lock = threading.Lock()

    def find_available(self) -> set[str]:
        """Every address of the pool that is not reserved."""
        kept = {address for cidr in self.reserved for address in cidr}
        return {str(address) for address in self.pool if address not in kept}

    def run(self, work: Iterator[Step], seconds: float = float("inf")) -> float:
        """Work on, so many calls at once, until there is none left, the time is up or something
        is wrong; how many calls there were per second."""
        started, calls, busy = time.monotonic(), self.calls.total(), 0.0
        end = started + seconds
        is_over = False
        while not is_over and not self.complaints and time.monotonic() < end:
            began = time.monotonic()
            is_over = self._run_round(work, min(end, began + ROUND_SECONDS))
            busy += time.monotonic() - began
            self.tally.take()
        return (self.calls.total() - calls) / busy

    def _run_round(self, work: Iterator[Step], end: float) -> bool:
        """Whether all work is done."""
        over = threading.Event()

        def go_on() -> None:
            while time.monotonic() < end and not self.complaints:
                with self._lock:
                    step = next(work, None)
                if step is None:
                    over.set()
                    return
                verb, pod = step
                verb(pod)
                self._busy.discard(pod)

        with ThreadPoolExecutor(self.at_once) as crowd:
            for future in [crowd.submit(go_on) for _ in range(self.at_once)]:
                future.result()
        return over.is_set()

    def add(self, pod: Pod) -> None:
        """ADD, perhaps once more: the book has what it answers, and nobody else has that."""
        answer = self._call("ADD", pod)
        if self.may_be_full and answer.status and answer.document["code"] == EXHAUSTED:
            return
        if answer.status != 0:
            self.complaints.append(f"ADD {pod.container}: {answer.stdout.decode()}{answer.stderr}")
            return
        address = ipaddress.ip_address(answer.address)
        with self._lock:
            other = self.book.setdefault(str(address), pod.handle)
            known = self._addresses.setdefault(pod, str(address))
        if other != pod.handle or known != str(address):
            self.complaints.append(f"{address} for {pod.handle}, not {known}; {other} has it")
        if address not in self.pool or any(address in cidr for cidr in self.reserved):
            self.complaints.append(f"{address} for {pod.handle} is not to be given")

    def delete(self, pod: Pod) -> None:
        """DEL, perhaps once more: from its beginning on another may get the address."""
        with self._lock:
            self.book.pop(self._addresses.pop(pod, ""), None)
        answer = self._call("DEL", pod)
        if answer.status != 0:
            self.complaints.append(f"DEL {pod.container}: {answer.stdout.decode()}{answer.stderr}")

    def come_and_go(self, chance: random.Random, most_missing: int) -> Iterator[Step]:
        """DELs and ADDs at random without an end; at most so many pods are without an address.

        One in ten is a repetition. A pod whose call is under way is left alone."""
        while True:
            resting = [pod for pod in self.pods if pod not in self._busy]
            having = [pod for pod in resting if pod in self._addresses]
            missing = [pod for pod in resting if pod not in self._addresses]
            is_add = len(missing) > most_missing or chance.random() < 0.5
            is_repeated = chance.random() < 0.1
            choice = missing if is_add != is_repeated else having
            if choice:
                pod = chance.choice(choice)
                self._busy.add(pod)
                yield (self.add if is_add else self.delete), pod

    def _call(self, verb: str, pod: Pod) -> Answer:
        with self._lock:
            self.calls[verb] += 1
        return pod.node.call(verb, pod.container)

    def tell(self, text: str) -> None:
        """Print a figure with the counts so far."""
        print(f"{text}; {dict(self.calls)} calls so far, {self.tally}")
