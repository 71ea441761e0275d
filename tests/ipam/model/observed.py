"""What really lies in the datastore, beside what `Plain` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_ipam.core.check import check_datastore
from cni_ipam.core.moment import rfc3339
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import Range

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni_ipam.core.block import Block
    from cni_ipam.datastore.port import Datastore, Entry
    from tests.ipam.model.plain import Plain

RANGES = [
    Range(prefix, prefix=True) for prefix in (keys.BLOCKS, keys.HOST_AFFINITIES, keys.HANDLES)
]


class Comparison:
    """Compares after each step; what did not change since is not decoded again."""

    def __init__(self, store: Datastore, plain: Plain) -> None:
        self.store = store
        self.plain = plain
        self._decoded: dict[str, tuple[int, Any]] = {}
        self._sequence: dict[int, int] = {}
        self._past: dict[int, int] = {}

    def check(self) -> None:
        """Sound, nothing left over, and exactly what `Plain` says."""
        blocks, affinities, handles = self.store.read(RANGES)
        self._blocks = [self._decode(codec.decode_block, entry) for entry in blocks]
        self._affinities = [self._decode(codec.decode_affinity, entry) for entry in affinities]
        self._handles = [self._decode(codec.decode_handle, entry) for entry in handles]
        findings = check_datastore(self._blocks, self._affinities, self._handles, self.plain.now)
        assert [] == [str(finding) for finding in findings]
        self._compare_owners()
        for block in self._blocks:
            self._compare_queue(block)
        self._compare_sequences()
        self._compare_addresses()
        self._compare_handles()

    def _decode(self, decode: Callable[[Entry], Any], entry: Entry) -> Any:
        revision, former = self._decoded.get(entry.key, (0, None))
        if revision == entry.revision:
            return former
        decoded = decode(entry)
        if former is not None and decode is codec.decode_block and former != decoded:
            assert former.sequence_number < decoded.sequence_number
        self._decoded[entry.key] = (entry.revision, decoded)
        return decoded

    def _compare_owners(self) -> None:
        wanted = {
            cidr: (
                block.owner and f"host:{block.owner}",
                rfc3339(block.claimed) if block.owner else None,
            )
            for cidr, block in self.plain.blocks.items()
        }
        assert wanted == {b.cidr: (b.affinity, b.claim_time) for b in self._blocks}
        claims = {(cidr, owner) for cidr, (owner, _) in wanted.items() if owner}
        assert claims == {(a.cidr, a.owner) for a in self._affinities}

    def _compare_queue(self, block: Block) -> None:
        """What was there keeps its place; what has rested comes behind it."""
        former = self.plain.blocks[block.cidr].queue
        queue = [block.cidr.base + ordinal for ordinal in block.unallocated]
        assert former == queue[: len(former)], "a free address has lost its place in the queue"
        tail = queue[len(former) :]
        assert sorted(tail) == tail
        for address in tail:
            assert self.plain.has_rested(address), "an address came back before its cooldown"
            del self.plain.cooling[address]
        self.plain.blocks[block.cidr].queue = queue

    def _compare_sequences(self) -> None:
        """An allocation keeps its number; the next one of the address has a higher one."""
        former, self._sequence = self._sequence, {}
        for block in self._blocks:
            for ordinal, owner in block.allocated():
                address, number = block.cidr.base + ordinal, block.allocation_sequence[ordinal]
                if owner.released_at is None:
                    self._sequence[address] = number
                elif address in former:
                    assert former[address] < number
        for address, number in self._sequence.items():
            if address in former:
                assert former[address] == number
            else:
                assert self._past.get(address, 0) < number, "a sequence number is used twice"
        self._past |= former

    def _compare_addresses(self) -> None:
        held, cooling = {}, {}
        for block in self._blocks:
            for ordinal, owner in block.allocated():
                address = block.cidr.base + ordinal
                if owner.released_at is None:
                    held[address] = (owner.handle_id, owner.get("node"), owner.get("ifname"))
                else:
                    cooling[address] = owner.released_at
        plain = self.plain
        assert {a: (h.handle, h.host, h.ifname) for a, h in plain.held.items()} == held
        assert {a: rfc3339(when) for a, when in plain.cooling.items()} == cooling

    def _compare_handles(self) -> None:
        counts: dict[str, dict[object, int]] = {}
        for block in self._blocks:
            for _, owner in block.allocated():
                if owner.released_at is None:
                    of_handle = counts.setdefault(owner.handle_id or "", {})
                    of_handle[block.cidr] = of_handle.get(block.cidr, 0) + 1
        assert counts == {handle.id: handle.blocks for handle in self._handles}

    def sequence_of(self, address: int) -> int | None:
        """The sequence number of an allocation."""
        return self._sequence.get(address)
