"""The block: assign, release, rest, collect; one sequence test against a plain model of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.core.address import parse_address, parse_cidr
from cni_ipam.core.block import WINDOWS_RESERVED_HANDLE, Attribute, new_block
from cni_ipam.core.check import check_block
from cni_ipam.core.moment import SECOND, rfc3339
from cni_ipam.core.reservation import Reservations
from cni_ipam.lean.record import replace

NOW = 1_795_256_819 * SECOND + 938_437_476
CIDR = parse_cidr("10.0.0.208/29")
NONE = Reservations()
OWNERS = [Attribute(f"net.c{n}", {"node": "node1", "pod": f"p{n}"}) for n in range(4)]


def fresh(cidr=CIDR, affinity="host:node1"):
    return new_block(cidr, affinity, NOW)


def filled(*counts):
    """A block from whose queue each owner in turn took so many addresses."""
    block = fresh()
    for count, owner in zip(counts, OWNERS, strict=False):
        block, taken = block.assign(count, owner, NONE)
        assert count == len(taken)
    return block


class Model:
    """What a block is to its users: who holds what since when, and the order of the rest."""

    def __init__(self):
        self.queue = list(range(CIDR.size))
        self.holders = {}
        self.numbers = {}
        self.sequence = NOW

    def take(self, ordinals, owner):
        for ordinal in ordinals:
            self.queue.remove(ordinal)
            self.holders[ordinal] = owner
            self.numbers[ordinal] = self.sequence
        self.sequence += 1

    def release(self, ordinals, now, cooldown):
        for ordinal in ordinals:
            self.holders[ordinal] = now // SECOND
            self.numbers[ordinal] = self.sequence
        self.sequence += 1
        self.collect(now, cooldown)

    def collect(self, now, cooldown):
        for ordinal in sorted(self.holders):
            since = self.holders[ordinal]
            if isinstance(since, int) and (
                not cooldown or since * SECOND < now - cooldown * SECOND
            ):
                del self.holders[ordinal], self.numbers[ordinal]
                self.queue.append(ordinal)

    def matches(self, block):
        """Whether `block` holds exactly this."""
        holders = {
            ordinal: owner if owner.released_at is None else owner.released_at
            for ordinal, owner in block.allocated()
        }
        mine = {
            o: rfc3339(h * SECOND) if isinstance(h, int) else h for o, h in self.holders.items()
        }
        return (tuple(self.queue), mine, self.numbers, self.sequence) == (
            block.unallocated,
            holders,
            block.allocation_sequence,
            block.sequence_number,
        )


STEPS = st.one_of(
    st.tuples(
        st.just("assign"),
        st.integers(1, 4),
        st.sampled_from(OWNERS),
        st.sampled_from(["10.0.0.208/32", "10.0.0.212/31", "10.9.0.0/16", "10.0.0.0/8"]),
    ),
    st.tuples(st.just("assign_ordinal"), st.integers(0, 7), st.sampled_from(OWNERS)),
    st.tuples(st.just("release"), st.sets(st.integers(0, 7), max_size=4), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 29, 30, 31, 90])),
    st.tuples(st.just("collect"), st.booleans()),
    st.tuples(st.just("touch")),
)


@given(st.lists(STEPS, max_size=25))
def test_any_sequence_of_steps_keeps_the_block_sound(steps):
    """After each step the block is sound, compact, and says what the model says."""
    block, model, now = fresh(), Model(), NOW
    for name, *arguments in steps:
        before = block
        if name == "assign":
            count, owner, held = arguments
            reserved = NONE.plus([parse_cidr(held)])
            free = [o for o in model.queue if not reserved.contains(CIDR.address(o))]
            block, taken = block.assign(count, owner, reserved)
            assert free[:count] == taken
            if taken:
                model.take(taken, owner)
            else:
                assert before is block
        elif name == "assign_ordinal" and arguments[0] in model.queue:
            block = block.assign_ordinal(*arguments)
            model.take([arguments[0]], arguments[1])
        elif name == "release":
            ordinals = block.find_ordinals(lambda _: True)
            wanted, cooling = [o for o in arguments[0] if o in ordinals], 30 * arguments[1]
            block = block.release(wanted, now, cooling)
            model.release(wanted, now, cooling)
        elif name == "wait":
            now += arguments[0] * SECOND
        elif name == "collect":
            block = block.collect(now, 30 * arguments[0])
            model.collect(now, 30 * arguments[0])
        elif name == "touch":
            block = block.touch()
            model.sequence += 1
        assert [] == check_block(block, now)
        assert model.matches(block)
        owners = [repr(a) for a in block.attributes if a.released_at is None]
        assert len(owners) == len(set(owners))


def test_a_new_block_is_empty_and_claimed_now():
    """Its number is the clock's, so a block that is made again never repeats one."""
    block = fresh()
    assert (None,) * 8 == block.allocations
    assert tuple(range(8)) == block.unallocated
    assert (NOW, "2026-11-21T10:26:59Z", {}) == (
        block.sequence_number,
        block.claim_time,
        block.allocation_sequence,
    )
    assert block.is_empty


def test_a_block_without_owner_has_no_claim_time():
    """Claim time belongs to the affinity."""
    assert new_block(CIDR, None, NOW).claim_time is None


def test_assignment_takes_from_the_head_of_the_queue():
    """Each allocation keeps the number that stood before the write."""
    block = filled(1, 1)
    assert (0, 1, *[None] * 6) == block.allocations
    assert {0: NOW, 1: NOW + 1} == block.allocation_sequence
    assert NOW + 2 == block.sequence_number


def test_a_freed_address_rests_as_long_as_the_others_last():
    """Release appends to the tail: the next seven assignments get other addresses."""
    block = filled(1).release([0], NOW, 0)
    assert (1, 2, 3, 4, 5, 6, 7, 0) == block.unallocated
    _, taken = block.assign(8, OWNERS[0], NONE)
    assert 0 == taken[-1]


def test_the_golden_release_is_reproduced():
    """Facts 10.4: indexes compacted, the ordinal at the tail without its number, the block's +1."""
    block = filled(1, 1, 1)
    released = block.release([0], NOW, 0)
    assert (None, 0, 1, *[None] * 5) == released.allocations
    assert (3, 4, 5, 6, 7, 0) == released.unallocated
    assert {1: NOW + 1, 2: NOW + 2} == released.allocation_sequence
    assert NOW + 4 == released.sequence_number
    assert tuple(OWNERS[1:3]) == released.attributes


def test_reserved_ordinals_keep_their_place():
    """Facts 10.8: with 4 and 5 reserved the queue's other ordinals go first, in order."""
    block = replace(filled(3), unallocated=(3, 4, 5, 6, 7))
    reserved = NONE.plus([parse_cidr("10.0.0.212/31")])
    block, taken = block.assign(2, OWNERS[3], reserved)
    assert [3, 6] == taken
    assert (4, 5, 7) == block.unallocated


def test_a_full_block_gives_nothing_and_stays_the_same():
    """No write is needed then."""
    block = filled(8)
    assert (block, []) == block.assign(1, OWNERS[1], NONE)


def test_addresses_of_one_call_share_an_attribute():
    """And so does a later call with deeply equal attributes."""
    block = filled(3)
    again, _ = block.assign(1, Attribute("net.c0", {"node": "node1", "pod": "p0"}), NONE)
    assert 1 == len(block.attributes) == len(again.attributes)


def test_different_attributes_are_not_shared():
    """Another pod under the same handle is another owner."""
    block, _ = filled(1).assign(1, Attribute("net.c0", {"node": "node1", "pod": "other"}), NONE)
    assert 2 == len(block.attributes)


def test_a_cooling_address_is_not_given():
    """With a cooldown a released ordinal stays allocated, to an attribute of its own."""
    block = filled(1).release([0], NOW, 60)
    assert 0 not in block.unallocated
    assert (Attribute(released_at="2026-11-21T10:26:59Z"),) == block.attributes
    assert {0: NOW + 1} == block.allocation_sequence
    assert [] == block.find_ordinals(lambda _: True)


@pytest.mark.parametrize(
    ("waited", "rested"),
    [(0, False), (59, False), (60, True), (61, True)],
)
def test_cooldown_ends_after_its_seconds(waited, rested):
    """Strictly later than the recorded second plus the cooldown, as Calico compares."""
    block = filled(1).release([0], NOW, 60)
    assert rested == (0 in block.collect(NOW + waited * SECOND, 60).unallocated)


def test_cooldown_comparison_is_strict():
    """In the very nanosecond it still rests."""
    block = filled(1).release([0], NOW // SECOND * SECOND, 60)
    end = NOW // SECOND * SECOND + 60 * SECOND
    assert 0 not in block.collect(end, 60).unallocated
    assert 0 in block.collect(end + 1, 60).unallocated


def test_collecting_does_not_raise_the_number():
    """It is part of the write that follows."""
    block = filled(1).release([0], NOW, 60)
    assert block.sequence_number == block.collect(NOW + 100 * SECOND, 60).sequence_number


def test_collecting_nothing_returns_the_same_block():
    """So that a caller sees that there is nothing to write."""
    block = filled(2)
    assert block is block.collect(NOW, 60)


def test_several_rested_ordinals_return_in_ascending_order():
    """Facts 2.13."""
    block = filled(4).release([2], NOW, 60).release([1, 3], NOW, 60)
    assert (4, 5, 6, 7, 1, 2, 3) == block.collect(NOW + 90 * SECOND, 60).unallocated


@pytest.mark.parametrize("cooldown", [0, -5])
def test_without_cooldown_everything_returns_at_once(cooldown):
    """Also what a former cooldown still held."""
    block = filled(2).release([0], NOW, 600)
    assert (2, 3, 4, 5, 6, 7, 0, 1) == block.release([1], NOW, cooldown).unallocated


def test_an_unreadable_time_holds_no_address_for_ever():
    """A foreign writer's nonsense is as good as rested."""
    block = filled(1)
    block = replace(block, attributes=(Attribute(released_at="yesterday"),))
    assert (1, 2, 3, 4, 5, 6, 7, 0) == block.collect(NOW, 60).unallocated


def test_a_block_is_empty_but_for_windows_own_reservations():
    """Those count as nothing; cooling addresses count as in use."""
    windows = Attribute(WINDOWS_RESERVED_HANDLE.upper(), {"note": "windows host rsvd"})
    block, _ = fresh().assign(3, windows, NONE)
    assert block.is_empty
    assert not filled(1).is_empty
    assert not filled(1).release([0], NOW, 60).is_empty
    assert filled(1).release([0], NOW, 0).is_empty


def test_a_disowned_block_keeps_its_addresses():
    """No affinity, no claim time, one more update."""
    block = filled(2)
    disowned = block.disown()
    assert (None, None, block.sequence_number + 1) == (
        disowned.affinity,
        disowned.claim_time,
        disowned.sequence_number,
    )
    assert list(block.allocated()) == list(disowned.allocated())


def test_an_owner_is_replaced_for_all_addresses_of_its_call():
    """Nobody else's changes, and no allocation's number."""
    block, _ = filled(1).assign(2, OWNERS[1], NONE)
    changed = block.with_owner(2, OWNERS[3])
    assert [OWNERS[0], OWNERS[3], OWNERS[3]] == [owner for _, owner in changed.allocated()]
    assert block.allocation_sequence == changed.allocation_sequence
    assert block.sequence_number + 1 == changed.sequence_number


def test_a_handle_ends_at_a_carriage_return():
    """Old releases left handles with a tail from there on."""
    assert "net.c1" == Attribute("net.c1\r\njunk").handle
    assert Attribute().handle is None


def test_an_attribute_gives_its_owner_attributes():
    """None for what is not recorded."""
    assert ("node1", None, None) == (
        OWNERS[0].get("node"),
        OWNERS[0].get("ifname"),
        Attribute().get("node"),
    )


def test_ordinals_and_addresses_agree():
    """Counted from the block's base."""
    block = filled(2)
    assert 3 == block.ordinal_of(parse_address("10.0.0.211"))
    assert OWNERS[1] != block.attribute_of(1) == OWNERS[0]
    assert block.attribute_of(5) is None


def test_transitions_leave_the_former_block_alone():
    """A lost swap leaves nothing half-changed."""
    block = filled(2)
    copy = replace(block)
    block.assign(3, OWNERS[3], NONE)
    block.release([0, 1], NOW, 0)
    block.disown()
    assert copy == block


@pytest.mark.parametrize(
    ("secondary", "expected"),
    [
        ({"node": "node1", "ifname": "eth0"}, True),
        ({"node": "node1"}, True),
        ({"ifname": "eth0"}, True),
        (None, True),
        ({"node": "node2", "ifname": "eth0"}, False),
        ({"node": "node1", "ifname": "eth1"}, False),
    ],
)
def test_what_an_owner_does_not_say_is_no_difference(secondary, expected):
    """Calico's records name no interface, and old ones no node."""
    assert expected == Attribute("net.c1", secondary).is_on("node1", "eth0")
