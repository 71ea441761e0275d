"""A draft: the writes of one operation in the making, put into an order that is safe to cut short.

1. records that others only read (Node, pools, reservations)
2. affinities on their way: `pending` before a claim, `pendingDeletion` before a release
3. handles that will count more           handle before block …
4. blocks
5. handles that count less                … block before handle on release
6. affinities at their end: `confirmed`, or gone
"""

from __future__ import annotations

from cni_ipam.core.affinity import CONFIRMED, PENDING, PENDING_DELETION
from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, SAME, Write
from cni_ipam.lean.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni_ipam.core.address import Cidr
    from cni_ipam.core.affinity import Affinity
    from cni_ipam.core.block import Block
    from cni_ipam.core.handle import Handle
    from cni_ipam.datastore.port import Entry


class Draft:
    """Collects what an operation changes; `writes()` lays it out. Nothing here touches a store."""

    def __init__(self) -> None:
        self._records: list[Write] = []
        self._underway: list[Write] = []
        self._raised: list[Write] = []
        self._blocks: dict[Cidr, Write] = {}
        self._lowered: list[Write] = []
        self._settled: list[Write] = []

    def writes(self) -> list[Write]:
        """Every write so far, in the order of the opening comment."""
        return [
            *self._records,
            *self._underway,
            *self._raised,
            *self._blocks.values(),
            *self._lowered,
            *self._settled,
        ]

    def create(self, key: str, value: str) -> None:
        """A record that must not exist yet."""
        self._records.append(Write(key, value, ABSENT))

    def remove(self, entry: Entry) -> None:
        """Remove a record that others only read."""
        self._records.append(Write(entry.key, None, entry.revision))

    def put_block(self, block: Block, revision: int) -> None:
        """Store `block` in place of the one that was read at `revision` (0: none was)."""
        write = Write(keys.block_key(block.cidr), codec.encode_block(block), revision)
        self._blocks[block.cidr] = write

    def delete_block(self, cidr: Cidr, revision: int) -> None:
        """Remove the block."""
        self._blocks[cidr] = Write(keys.block_key(cidr), None, revision)

    def confirm(self, affinity: Affinity, revision: int) -> None:
        """Take `affinity` through pending to confirmed around the write of its block.

        One that is pending is written again: it may be gone since it was read, and then the block
        must not be written."""
        self._move(affinity, revision, PENDING)
        key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
        confirmed = codec.encode_affinity(replace(affinity, state=CONFIRMED))
        self._settled.append(Write(key, confirmed, SAME))

    def give_up(self, affinity: Affinity, revision: int) -> None:
        """Take `affinity` through pendingDeletion to nothing around the write of its block.

        One that is on its way already is not touched again: two hosts that end the same affinity
        would otherwise undo each other's revision for ever."""
        if affinity.state == PENDING_DELETION:
            self.drop_stale(affinity, revision)
            return
        self._move(affinity, revision, PENDING_DELETION)
        key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
        self._settled.append(Write(key, None, SAME))

    def drop_stale(self, affinity: Affinity, revision: int) -> None:
        """Remove an affinity whose block is another's."""
        key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
        self._settled.append(Write(key, None, revision))

    def raise_handle(self, handle: Handle, revision: int) -> None:
        """Store a handle that counts more, before the blocks."""
        self._raised.append(_handle_write(handle, revision))

    def lower_handle(self, handle: Handle, revision: int) -> None:
        """Store a handle that counts less, or remove it, after the blocks."""
        self._lowered.append(_handle_write(handle, revision))

    def _move(self, affinity: Affinity, revision: int, state: str) -> None:
        key = keys.affinity_key(affinity.host, affinity.cidr, affinity.kind)
        value = codec.encode_affinity(replace(affinity, state=state))
        self._underway.append(Write(key, value, revision))


def _handle_write(handle: Handle, revision: int) -> Write:
    value = None if handle.is_empty else codec.encode_handle(handle)
    return Write(keys.handle_key(handle.id), value, revision)
