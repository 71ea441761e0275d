"""The checker of what is written: Calico's own values pass, and each single fault is named."""

from __future__ import annotations

import copy

import pytest

from integration.etcd.golden import (
    FULL,
    GOLDEN,
    IPAM,
    MAPS,
    OPTIONAL,
    OPTIONAL_METADATA,
    OWNERS,
    V3,
    changed,
    names,
    pick,
    spelled,
    walk,
    with_value,
)
from integration.etcd.schema import check_all, find_schema_problems
from integration.etcd.shape import spell

PATHS = [(kind, path) for kind, (_, document) in FULL.items() for path in walk(document)]
RECORD_FIELDS = [
    (kind, path)
    for kind, path in PATHS
    if isinstance(path[-1], str) and (len(path) < 2 or path[-2] not in (*MAPS, *OWNERS))
    # Without it the cap on blocks is wrong, which has a test of its own.
    if path != ("strict_affinity",)
]
OBJECTS = [
    (kind, path)
    for kind, path in [*((kind, ()) for kind in FULL), *PATHS]
    if isinstance(pick(FULL[kind][1], path), dict) and (not path or path[-1] not in MAPS)
]


FOLLOWED = [
    (kind, path)
    for kind, path in PATHS
    if isinstance(path[-1], str) and list(pick(FULL[kind][1], path[:-1]))[-1] != path[-1]
]


def named(cases: list) -> list:
    return [pytest.param(*case, id=f"{case[0]} {spelled(case[1])}") for case in cases]


def is_nullable(path: tuple) -> bool:
    return path in {("affinity",), ("attributes",)} or (path[0] == "allocations" and len(path) == 2)


@pytest.mark.parametrize(("key", "value"), GOLDEN.values(), ids=GOLDEN)
def test_what_calico_writes_passes(key, value):
    """The checker has nothing to say about Calico's own values."""
    assert [] == find_schema_problems(key, value)


@pytest.mark.parametrize("kind", FULL)
def test_every_field_that_there_is_passes(kind):
    """The examples on which the faults below are tried have none themselves."""
    key, document = FULL[kind]
    assert [] == find_schema_problems(key, spell(document))


@pytest.mark.parametrize(("kind", "path"), named(PATHS))
def test_a_value_of_another_type_is_named(kind, path):
    """Null, booleans, numbers, texts, lists, objects where the field is none of these."""
    right = pick(FULL[kind][1], path)
    for wrong in (None, True, 7, 1.5, "x", [], {}):
        if type(wrong) is type(right) or (wrong is None and is_nullable(path)):
            continue
        if right is None and type(wrong) is int:
            continue  # an ordinal may be free or not: other rules look at the number
        problems = find_schema_problems(*with_value(kind, path, wrong))
        assert any(p.startswith(f"{spelled(path)}: is ") for p in problems), (wrong, problems)


@pytest.mark.parametrize(
    ("kind", "path"), named([c for c in PATHS if type(pick(FULL[c[0]][1], c[1])) is int])
)
def test_a_float_is_no_integer(kind, path):
    """1.0 is not 1."""
    wrong = float(pick(FULL[kind][1], path))
    assert names(find_schema_problems(*with_value(kind, path, wrong)), spelled(path))


@pytest.mark.parametrize(("kind", "path"), named(RECORD_FIELDS))
def test_a_field_that_is_missing_is_named_if_it_is_required(kind, path):
    """And only then; what has neither is fine."""
    problems = find_schema_problems(*changed(kind, path, lambda holder, last: holder.pop(last)))
    allowed = OPTIONAL[kind] | OPTIONAL_METADATA
    if spelled(path) in allowed:
        assert [] == problems
    else:
        assert names(problems, spelled(path)), problems


@pytest.mark.parametrize(("kind", "path"), named(FOLLOWED))
def test_fields_and_keys_out_of_order_are_named(kind, path):
    """Each field changes places with the one that follows it."""

    def change(holder, last):
        order = list(holder)
        place = order.index(last)
        order[place], order[place + 1] = order[place + 1], last
        former = dict(holder)
        holder.clear()
        holder.update({name: former[name] for name in order})

    problems = find_schema_problems(*changed(kind, path, change))
    is_data = path[:-1] and path[-2] in (*MAPS, *OWNERS)
    assert names(problems, spelled(path[:-1] if is_data else path)), problems


@pytest.mark.parametrize(("kind", "path"), named(OBJECTS))
def test_a_field_that_nobody_knows_is_named(kind, path):
    """At every depth; unless it is allowed as somebody else's."""
    extra = (*path, "zz")
    key, value = with_value(kind, extra, "x")
    assert [spelled(extra)] == [p.partition(":")[0] for p in find_schema_problems(key, value)]
    assert [] == find_schema_problems(key, value, foreign=["zz"])


AFFINITY = GOLDEN["affinity"][1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("/calico/ipam/v2/unknown", "{}"),
        ("calico/ipam/v2/config", GOLDEN["config"][1]),
        (f"{IPAM}/config/", GOLDEN["config"][1]),
        (f"{IPAM}/host/node1", "{}"),
        (f"{V3}/ipamconfigurations/default", "{}"),
        (f"{V3}/clusterinformations/other", GOLDEN["cluster"][1]),
        (f"{IPAM}/assignment/ipv4/block/10.0.0.208-29/", GOLDEN["block with one allocation"][1]),
        (f"{IPAM}/assignment/ipv6/block/10.0.0.208-29", GOLDEN["block with one allocation"][1]),
        (f"{IPAM}/assignment/ipv4/block/10.0.0.209-29", GOLDEN["block with one allocation"][1]),
        (f"{IPAM}/host/node1/ipv6/block/10.0.0.0-26", AFFINITY),
        (f"{IPAM}/host/node1/ipv4/block/10.0.0.1-26", AFFINITY),
        (f"{IPAM}/host/node1/ipv4/block/10.0.0.0-8", AFFINITY),
        (f"{IPAM}/host/node1/ipv6/block/FD00::-122", AFFINITY),
        (f"{IPAM}/host/node1/ipv6/block/fd00:0::-122", AFFINITY),
        (f"{IPAM}/host/node1/ipv6/block/fd00::-115", AFFINITY),
        (f"{IPAM}/host/node 1/ipv4/block/10.0.0.0-26", AFFINITY),
        (f"{IPAM}/virtual/node1/ipv4/block/10.0.0.0-26", AFFINITY),
        (f"{IPAM}/handle/", GOLDEN["handle"][1]),
        (f"{IPAM}/handle/a/b", GOLDEN["handle"][1]),
        ("/cni-ipam/v1/default-pools/Pool", "{}"),
        ("/cni-ipam/v1/default-pools/", "{}"),
    ],
)
def test_a_key_that_cannot_be_is_named(key, value):
    """Its value is none of the problems; and it must not be deleted either."""
    for written in (value, None):
        problems = find_schema_problems(key, written)
        assert names(problems, "key"), problems


@pytest.mark.parametrize(
    "value",
    [
        "",
        "null",
        "[]",
        "{",
        '{"state": "confirmed","deleted":false}',
        '{"state":"confirmed","deleted":false}\n',
        ' {"state":"confirmed","deleted":false}',
        '{"state":"confirmed","state":"confirmed","deleted":false}',
        '{"state":"\\u0063onfirmed","deleted":false}',
        '{"state":NaN,"deleted":false}',
        '{"state":"confirmed","deleted":false}x',
        '{"state":"\udc80","deleted":false}',
        '{"state":"\\ud800","deleted":false}',
    ],
)
def test_what_go_would_not_write_is_named(value):
    """Not JSON, not an object, blanks, a field twice, needless escapes, broken Unicode."""
    problems = find_schema_problems(GOLDEN["affinity"][0], value)
    assert names(problems, "value"), problems


@pytest.mark.parametrize("character", ["<", ">", "&", "\u2028", "\u2029"])
def test_characters_that_go_escapes_must_be_escaped(character):
    """In Go's spelling, which is that of Calico's own values."""
    key, document = FULL["pool"]
    document = copy.deepcopy(document)
    document["spec"]["nodeSelector"] = f"a {character}"
    right = spell(document)
    escape = f"\\u{ord(character):04x}"
    assert escape in right
    assert [] == find_schema_problems(key, right)
    assert names(find_schema_problems(key, right.replace(escape, character)), "value")


def test_other_characters_must_not_be_escaped():
    """Go writes them as they are."""
    key, document = FULL["pool"]
    document = copy.deepcopy(document)
    document["spec"]["nodeSelector"] = "ä"
    right = spell(document)
    assert [] == find_schema_problems(key, right)
    assert names(find_schema_problems(key, right.replace("ä", "\\u00e4")), "value")


def test_everything_that_was_written_is_counted_by_kind():
    """Deletions apart."""
    writes = [(key, value, number) for number, (key, value) in enumerate(GOLDEN.values())]
    expected = {"block": 4, "affinity": 3, "handle": 1, "config": 1, "pool": 1}
    expected |= {"reservation": 1, "node": 1, "cluster": 1, "marker": 1, "deletions": 1}
    assert expected == check_all([*writes, (GOLDEN["handle"][0], None, 99)])


def test_all_problems_are_told_at_once():
    """With key, revision and value of each."""
    affinity, marker = GOLDEN["affinity"][0], GOLDEN["marker"][0]
    with pytest.raises(AssertionError) as caught:
        check_all([(affinity, "{}", 7), (marker, "[]", 8), (affinity, "{}", 9), ("/x", None, 10)])
    message = str(caught.value)
    for told in ("3 values", f"{affinity} at revision 7", "state: is missing", marker, "'/x'"):
        assert told in message
    assert "revision 9" not in message
