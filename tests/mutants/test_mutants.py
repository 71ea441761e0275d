"""The teeth of the suites: bugs that people make here, and that one of the suites must notice.

A mutant whose text is not found any more has been outrun by a change of the code: give it the new
text. One that survives shows that a suite has lost its bite.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cni_ipam.core.block import Block, _has_rested
from cni_ipam.core.handle import Handle
from cni_ipam.datastore.memory import MemoryDatastore
from cni_ipam.errors import CniIpamError
from cni_ipam.ipam import affinity, borrow, claim, collect, fixed, free, release
from cni_ipam.ipam.assign import Attempt
from cni_ipam.ipam.draft import Draft
from tests.ipam import test_crash, world
from tests.ipam.model.machine import Machine
from tests.ipam.turns import race, schedules
from tests.mutants.mutant import Mutant

pytestmark = pytest.mark.proof


EXAMPLES = 400


def by_model() -> None:
    """Random stories beside plain rules."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            derandomize=True,
            phases=[Phase.generate],
            print_blob=False,
        ),
    )


def by_crashes() -> None:
    """Operations cut after each write."""
    for name in ("first ADD, with a claim", "ADD in the own block", "DEL", "GC"):
        scene = test_crash.Scene(*test_crash.SCENES[name])
        test_crash.test_every_prefix_is_safe(scene)
        test_crash.test_what_a_crash_left_goes_with_del_and_gc(scene)


def by_races() -> None:
    """Two nodes' operations, call by call."""
    for schedule in schedules(range(4), range(4)):
        store = world.furnish(MemoryDatastore())
        adds = [lambda s: world.add(s, "c1"), lambda s: world.add(s, "c2")]
        first, second = race(store, adds, schedule)
        assert first != second
        assert {*first, *second} == set(world.holders(store))
        assert [] == world.unsound(store)


CAUGHT_BY_MODEL = (
    (
        "an assignment does not raise the block's sequence number",
        Block._take,
        "sequence_number=self.sequence_number + 1",
        "sequence_number=self.sequence_number",
    ),
    (
        "the allocation's sequence number is forgotten",
        Block._take,
        "sequence[ordinal] = self.sequence_number",
        "sequence[ordinal] = 1",
    ),
    (
        "taken from the tail",
        Block.free_ordinals,
        "in self.unallocated",
        "in self.unallocated[::-1]",
    ),
    (
        "a release sorts the queue",
        Block.collect,
        "unallocated=(*self.unallocated, *rested)",
        "unallocated=tuple(sorted([*self.unallocated, *rested]))",
    ),
    (
        "unused attributes stay",
        Block.collect,
        "if index in used]",
        "]",
    ),
    ("the cooldown is ignored", _has_rested, "cooldown_seconds <= 0", "cooldown_seconds >= 0"),
    (
        "reserved addresses are given",
        Attempt.reservations,
        "self.view.reservations.plus(held)",
        "type(self.view.reservations)().plus(held)",
    ),
    (
        "addresses kept back for the gateway are given",
        Attempt.reservations,
        "self.view.reservations.plus(held)",
        "self.view.reservations",
    ),
    (
        "strictAffinity does not keep from borrowing",
        borrow.assign_from_others,
        "strict = attempt.view.config.strict_affinity",
        "strict = False",
    ),
    (
        "strictAffinity does not keep a fixed address from another's block",
        fixed._check_affinity,
        "not attempt.view.config.strict_affinity or",
        "True or",
    ),
    (
        "a block is taken back as soon as it is empty",
        borrow._is_idle,
        "attempt.wish.now - IDLE_SECONDS * SECOND",
        "attempt.wish.now",
    ),
    ("one block more than the limit", claim.require_claims, ">= limit", "> limit"),
    (
        "the handle counts one address for many",
        Attempt._count,
        "handle.with_count(cidr, len(mine))",
        "handle.with_count(cidr, 1)",
    ),
    ("a handle counts itself out", Handle.with_count, "if count:", "if count > 1:"),
    ("DEL takes all of the container", release._Removal._is_meant, "and test(owner)", ""),
    (
        "a release does not look at the handle",
        free._is_allocated,
        "request.handle is not None and",
        "False and",
    ),
    (
        "a release does not look at the sequence number",
        free._is_allocated,
        "request.sequence is not None and",
        "False and",
    ),
    (
        "GC takes what other nodes' pods have",
        collect.Living.is_dead,
        'owner.get("node") != self.node or',
        "",
    ),
    (
        "a block in use goes with its affinity",
        affinity._release,
        "if block.is_empty:",
        "if True:",
    ),
)

MUTANTS = [
    *[Mutant(*mutation, by_model) for mutation in CAUGHT_BY_MODEL],
    Mutant(
        "an affinity is confirmed before its block is there",
        Draft.writes,
        "        *self._blocks.values(),\n        *self._lowered,\n        *self._settled,",
        "        *self._settled,\n        *self._blocks.values(),\n        *self._lowered,",
        by_crashes,
    ),
    Mutant(
        "block before handle when assigning",
        Draft.writes,
        "        *self._raised,\n        *self._blocks.values(),",
        "        *self._blocks.values(),\n        *self._raised,",
        by_crashes,
    ),
    Mutant(
        "handle before block when releasing",
        Draft.writes,
        "        *self._blocks.values(),\n        *self._lowered,",
        "        *self._lowered,\n        *self._blocks.values(),",
        by_crashes,
    ),
    Mutant(
        "a lost swap is not noticed",
        MemoryDatastore._expect,
        "if revision !=",
        "if False and revision !=",
        by_races,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug)
def test_a_bug_is_noticed(mutant, monkeypatch):
    """With the bug in, the suite fails by what it asserts or by what the engine refuses."""
    mutant.plant(monkeypatch)
    with pytest.raises((AssertionError, CniIpamError)):
        mutant.catch()


@pytest.mark.parametrize("catch", [by_crashes, by_races], ids=lambda catch: catch.__name__)
def test_without_a_bug_nothing_is_noticed(catch):
    """The suites do not cry wolf; for `by_model` its own test shows it."""
    catch()
