"""Records against frozen dataclasses."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.lean.record import record, replace

VALUES = st.none() | st.integers() | st.text(max_size=3)


@record
class Point:
    """A record with a default, a method and a property."""

    x: object
    y: object = 0

    def swapped(self) -> Point:
        return Point(self.y, self.x)

    @property
    def both(self) -> tuple[object, object]:
        return self.x, self.y


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """What the standard library makes of the same fields."""

    x: object
    y: object = 0


@record
class Other:
    """Another class with the same fields."""

    x: object
    y: object = 0


@record
class Spelled:
    """A record with a text of its own."""

    text: str

    def __repr__(self) -> str:
        return f"<{self.text}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spelled) and self.text.lower() == other.text.lower()

    def __hash__(self) -> int:
        return hash(self.text.lower())


@given(VALUES, VALUES, VALUES, VALUES)
def test_behaves_as_a_frozen_dataclass(a: object, b: object, c: object, d: object) -> None:
    """Equality, hash and repr."""
    ours, standard = (Point(a, b), Point(c, d)), (Standard(a, b), Standard(c, d))
    assert (ours[0] == ours[1]) == (standard[0] == standard[1])
    assert hash(standard[0]) == hash(ours[0])
    assert repr(standard[0]).replace("Standard", "Point") == repr(ours[0])


def test_fields_come_by_place_or_by_name() -> None:
    """And defaults where nothing is given."""
    assert Point(1, 2) == Point(x=1, y=2) == Point(1, y=2)
    assert (1, 0) == Point(1).both


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (Point, "Point lacks its field 'x'"),
        (lambda: Point(1, 2, 3), "Point takes 2 fields, got 3"),
        (lambda: Point(1, z=3), "Point has no field 'z' to set"),
        (lambda: Point(1, x=3), "Point has no field 'x' to set"),
    ],
)
def test_refuses_wrong_fields(build: object, problem: str) -> None:
    """The message names the class and the field."""
    with pytest.raises(TypeError) as caught:
        build()
    assert problem == str(caught.value)


def test_is_immutable() -> None:
    """Fields can be neither set, added nor removed."""
    point = Point(1, 2)
    for change in (
        lambda: setattr(point, "x", 3),
        lambda: setattr(point, "z", 3),
        lambda: delattr(point, "x"),
    ):
        with pytest.raises(AttributeError, match=r"Point is immutable: use replace\(\)"):
            change()
    assert (1, 2) == point.both


def test_replace_leaves_the_original() -> None:
    """A copy with one field changed."""
    point = Point(1, 2)
    assert (Point(1, 3), Point(1, 2)) == (replace(point, y=3), point)


def test_is_never_equal_to_another_class() -> None:
    """Nor to a tuple."""
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)


def test_has_no_dict() -> None:
    """Slots alone."""
    assert not hasattr(Point(1), "__dict__")


def test_methods_and_patterns_work() -> None:
    """As in any class."""
    match Point(1, 2).swapped():
        case Point(x, y):
            assert (2, 1) == (x, y)


def test_is_copied_and_pickled() -> None:
    """Between processes too."""
    point = Point(1, [2])
    assert point == copy.deepcopy(point) == pickle.loads(pickle.dumps(point))


def test_own_methods_win() -> None:
    """A class may spell, compare and hash itself."""
    assert "<A>" == repr(Spelled("A"))
    assert Spelled("A") == Spelled("a")
    assert 1 == len({Spelled("A"), Spelled("a")})
