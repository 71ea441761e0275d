"""What is sound, and each way not to be."""

from __future__ import annotations

import pytest

from cni_ipam.core.address import parse_cidr
from cni_ipam.core.affinity import CONFIRMED, PENDING, PENDING_DELETION, Affinity
from cni_ipam.core.block import WINDOWS_RESERVED_HANDLE, Attribute, new_block
from cni_ipam.core.check import LEFTOVER, UNSOUND, check_block, check_datastore
from cni_ipam.core.handle import Handle
from cni_ipam.core.moment import SECOND
from cni_ipam.core.reservation import Reservations
from cni_ipam.lean.record import replace

NOW = 1_800_000_000 * SECOND
CIDR = parse_cidr("10.0.0.0/30")
OWNER = Attribute("net.c1", {"node": "node1"})
AFFINITY = Affinity("host", "node1", CIDR)
HANDLE = Handle("net.c1", {CIDR: 2})


def block_of(cidr=CIDR, affinity="host:node1", count=2, owner=OWNER):
    """A block of which `owner` has `count` addresses."""
    return new_block(cidr, affinity, NOW).assign(count, owner, Reservations())[0]


def found(blocks, affinities=(AFFINITY,), handles=(HANDLE,)):
    """The findings as texts."""
    return [str(finding) for finding in check_datastore(blocks, affinities, handles, NOW)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"allocations": (0, 5, None, None)},
            ["allocation 1 indexes a nonexistent attribute 5"],
        ),
        (
            {"allocations": (0, -1, None, None)},
            ["allocation 1 indexes a nonexistent attribute -1"],
        ),
        (
            {"attributes": (OWNER, Attribute("net.c2"))},
            ["attribute index 1 exists but is not indexed by an allocation"],
        ),
        (
            {"unallocated": (2, 4)},
            ["ordinal 4 appears in the Unallocated array but is out of the block"],
        ),
        (
            {"unallocated": (2, -1)},
            ["ordinal -1 appears in the Unallocated array but is out of the block"],
        ),
        (
            {"unallocated": (2, 2)},
            ["ordinal 2 appears more than once in Unallocated array"],
        ),
        (
            {"unallocated": (1, 2)},
            ["ordinal 1 is allocated but appears in Unallocated"],
        ),
        (
            {"unallocated": (2,)},
            ["expected 4 addresses in this block, but Unallocated (1) + Allocated (2) = 3"],
        ),
        (
            {"allocations": (0, 0, None), "unallocated": (2, 3)},
            ["expected 4 addresses in this block, but Unallocated (2) + Allocated (2) = 4"],
        ),
    ],
)
def test_a_broken_block_is_described_in_calicos_words(changes, expected):
    """Facts 7.6."""
    assert expected == check_block(replace(block_of(), **changes))


def test_a_sound_block_has_no_finding():
    """Full, partly used, cooling, empty."""
    full = block_of(count=4)
    for block in (full, block_of(), full.release([1], NOW, 60), block_of(count=0)):
        assert [] == check_block(block, NOW)


def test_a_release_in_the_future_suggests_clock_skew():
    """Only who brings a clock can see that."""
    block = block_of().release([0], NOW + 60 * SECOND, 60)
    expected = ["attribute index 1 has releasedAt in the future, suggesting clock skew"]
    assert expected == check_block(block, NOW)
    assert [] == check_block(block)


def test_an_unreadable_release_time_is_a_finding():
    """And not an error of the check."""
    block = block_of().release([0], NOW, 60)
    block = replace(block, attributes=(OWNER, Attribute(released_at="yesterday")))
    assert ["attribute index 1 has the unreadable releasedAt 'yesterday'"] == check_block(
        block, NOW
    )
    assert [] == check_block(block)


def test_a_sound_datastore_has_no_finding():
    """Confirmed affinity, right count, other hosts' blocks, blocks without owner."""
    other = block_of(parse_cidr("10.0.0.4/30"), "host:node2", 1)
    orphan = block_of(parse_cidr("fd00::/126"), None, 1)
    handle = Handle("net.c1", {CIDR: 2, other.cidr: 1, orphan.cidr: 1})
    affinities = [AFFINITY, Affinity("host", "node2", other.cidr, "")]
    assert [] == found([block_of(), other, orphan], affinities, [handle])


def test_a_broken_block_ends_the_check():
    """Nothing can be concluded from it; every broken one is named."""
    broken = replace(block_of(), unallocated=())
    expected = (
        "unsound: 10.0.0.0/30: "
        "expected 4 addresses in this block, but Unallocated (0) + Allocated (2) = 2"
    )
    assert [expected] == found([broken], [], [])


def test_overlapping_blocks_are_unsound():
    """One address would be in two of them."""
    small = block_of(parse_cidr("10.0.0.2/31"), "host:node2", 0)
    affinities = [AFFINITY, Affinity("host", "node2", small.cidr)]
    assert ["unsound: 10.0.0.0/30: overlaps with block 10.0.0.2/31"] == found(
        [small, block_of()], affinities
    )


@pytest.mark.parametrize("owner", [None, "host:node2"])
def test_a_confirmed_affinity_to_anothers_block_is_unsound(owner):
    """Two hosts would advertise one route."""
    affinities = [AFFINITY, Affinity("host", "node2", CIDR)]
    expected = (
        "unsound: 10.0.0.0/30 of host:node1: confirmed affinity without a block of that owner"
    )
    assert expected in found([block_of(affinity=owner)], affinities)


@pytest.mark.parametrize("state", [CONFIRMED, ""])
def test_a_confirmed_affinity_without_block_is_unsound(state):
    """The block must come first."""
    expected = [
        "unsound: 10.0.0.0/30 of host:node1: confirmed affinity without a block of that owner"
    ]
    assert expected == found([], [replace(AFFINITY, state=state)], [])


@pytest.mark.parametrize("state", [PENDING, PENDING_DELETION])
def test_an_affinity_on_its_way_is_a_leftover(state):
    """With its block or without."""
    affinity = replace(AFFINITY, state=state)
    expected = [f"leftover: 10.0.0.0/30 of host:node1: affinity is {state}"]
    assert expected == found([block_of()], [affinity])
    assert expected == found([], [affinity], [])


def test_a_block_whose_owner_has_no_affinity_is_unsound():
    """Nobody would ever release it."""
    assert ["unsound: 10.0.0.0/30: host:node1 has no affinity for it"] == found([block_of()], [])


def test_an_empty_block_that_nobody_owns_is_a_leftover():
    """The next release of it would have removed it."""
    empty = block_of(affinity=None, count=0)
    assert ["leftover: 10.0.0.0/30: an empty block that nobody owns"] == found([empty], [], [])


@pytest.mark.parametrize(
    ("handles", "known"), [([], 0), ([Handle("net.c1", {})], 0), ([Handle("net.c1", {CIDR: 1})], 1)]
)
def test_a_handle_that_counts_too_little_is_unsound(handles, known):
    """What it does not count nobody could release."""
    expected = f"unsound: net.c1: counts {known} of its 2 addresses in 10.0.0.0/30"
    assert expected in found([block_of()], handles=handles)


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        (Handle("net.c1", {CIDR: 3}), "net.c1: counts 3 addresses in 10.0.0.0/30, has 2"),
        (Handle("net.c2", {CIDR: 1}), "net.c2: counts 1 addresses in 10.0.0.0/30, has 0"),
        (Handle("net.c2", {}), "net.c2: counts no address"),
    ],
)
def test_a_handle_that_counts_too_much_is_a_leftover(handle, expected):
    """The repeated call mends it."""
    handles = [handle] if handle.id == "net.c1" else [HANDLE, handle]
    assert [f"leftover: {expected}"] == found([block_of()], handles=handles)


@pytest.mark.parametrize("handle", [None, WINDOWS_RESERVED_HANDLE.upper()])
def test_some_allocations_need_no_handle(handle):
    """Cooling ones, those of old without one, and Windows' own."""
    block = block_of(owner=Attribute(handle, {"note": "x"}))
    assert [] == found([block], handles=[])


def test_cooling_addresses_count_for_nobody():
    """Their handle has let go of them."""
    assert [] == found([block_of().release([0, 1], NOW, 60)], handles=[])


def test_severities_are_two():
    """Unsound must never be, a leftover goes by itself."""
    assert ("unsound", "leftover") == (UNSOUND, LEFTOVER)
