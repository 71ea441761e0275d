"""create, apply, replace, delete and patch: their texts and what they store."""

from __future__ import annotations

import json

import pytest

from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Write
from tests.ctl.conftest import POOL

KEY = keys.POOLS + "pool1"


def pool_text(name: str, cidr: str, **spec: object) -> str:
    """A pool as JSON."""
    return json.dumps(
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": {"cidr": cidr, **spec},
        }
    )


def test_create_says_how_many(operator):
    """One object, one kind: both are told."""
    result = operator.types("create", "-f", "-", stdin=POOL)
    assert "Successfully created 1 'IPPool' resource(s)\n" == result.out
    assert (0, "") == (result.status, result.err)


def test_create_stores_what_calico_would(pool):
    """Fields in Calico's order, defaults filled in, no resourceVersion."""
    stored = json.loads(pool.value(KEY))
    uid, made = stored["metadata"]["uid"], stored["metadata"]["creationTimestamp"]
    expected = (
        '{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool1",'
        f'"uid":"{uid}","creationTimestamp":"{made}"}},"spec":{{"cidr":"10.0.0.0/24",'
        '"vxlanMode":"Never","ipipMode":"Always","natOutgoing":true,"blockSize":29,'
        '"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}'
    )
    assert expected == pool.value(KEY)


def test_create_of_an_existing_object_fails(pool):
    """The text is Calico's, brackets and <nil> included."""
    result = pool.types("create", "-f", "-", stdin=POOL)
    expected = (
        "failed to create 'IPPool' resource: "
        "[resource already exists: IPPool(pool1) with error: <nil>]\n"
    )
    assert (1, "", expected) == (result.status, result.out, result.err)


def test_create_can_skip_what_exists(pool):
    """--skip-exists counts it as created."""
    result = pool.types("create", "-f", "-", "--skip-exists", stdin=POOL)
    assert (0, "Successfully created 1 'IPPool' resource(s)\n") == (result.status, result.out)


def test_create_refuses_overlapping_pools(pool):
    """The rules see the pools that are there."""
    result = pool.types("create", "-f", "-", stdin=pool_text("pool2", "10.0.0.0/16"))
    expected = (
        "failed to create 'IPPool' resource: [error with field IPPool.Spec.CIDR = '10.0.0.0/16' "
        "(IPPool(pool2) CIDR overlaps with IPPool(pool1) CIDR 10.0.0.0/24)]\n"
    )
    assert (1, expected) == (result.status, result.err)
    assert pool.value(keys.POOLS + "pool2") is None


def test_create_refuses_another_size_than_leftover_blocks_have(operator):
    """Blocks of a deleted pool keep their size."""
    operator.claim("10.5.0.0/26", None, count=1)
    result = operator.types("create", "-f", "-", stdin=pool_text("p", "10.5.0.0/16", blockSize=28))
    assert "(IPPool blocksSize conflicts with existing allocations" in result.err


def test_create_goes_on_after_an_error(operator):
    """What can be created is, and the count tells so."""
    documents = "\n---\n".join(
        [pool_text("a", "10.1.0.0/24"), pool_text("b", "nonsense"), pool_text("c", "10.2.0.0/24")]
    )
    result = operator.types("create", "-f", "-", stdin=documents)
    expected = "Partial success: created the first 2 out of 3 'IPPool' resources:\n"
    assert expected == result.out
    assert result.err.startswith("hit error: [error with field IPPool.Spec.CIDR = 'nonsense' (")
    assert operator.value(keys.POOLS + "c") is not None


def test_create_tells_when_nothing_could_be_created(operator):
    """Several objects, all of them wrong."""
    documents = pool_text("a", "x") + "\n---\n" + pool_text("b", "y")
    result = operator.types("create", "-f", "-", stdin=documents)
    assert result.err.startswith("failed to create any 'IPPool' resources: [error with field ")


def test_several_kinds_are_not_named(operator):
    """With more than one kind the text has no kind."""
    node = '{"apiVersion":"projectcalico.org/v3","kind":"Node","metadata":{"name":"n1"}}'
    result = operator.types("create", "-f", "-", stdin=f"{POOL}---\n{node}")
    assert "Successfully created 2 resource(s)\n" == result.out


def test_apply_creates_and_then_replaces(operator):
    """The spec is replaced as a whole; uid and creation time stay."""
    first = operator.types("apply", "-f", "-", stdin=POOL)
    uid = json.loads(operator.value(KEY))["metadata"]["uid"]
    text = POOL.replace("  natOutgoing: true\n", "  disabled: true\n")
    second = operator.types("apply", "-f", "-", stdin=text)
    assert "Successfully applied 1 'IPPool' resource(s)\n" == first.out == second.out
    stored = json.loads(operator.value(KEY))
    assert uid == stored["metadata"]["uid"]
    assert stored["spec"]["disabled"] is True
    assert "natOutgoing" not in stored["spec"]


def test_apply_replaces_labels_and_annotations_only(pool):
    """Labels that the new object lacks go; other metadata cannot be changed."""
    labels = "  labels: {a: b}\n  uid: mine\n"
    pool.types("apply", "-f", "-", stdin=POOL.replace("spec:", labels + "spec:"))
    with_labels = json.loads(pool.value(KEY))["metadata"]
    pool.types("apply", "-f", "-", stdin=POOL)
    without = json.loads(pool.value(KEY))["metadata"]
    assert {"a": "b"} == with_labels["labels"]
    assert "mine" != with_labels["uid"] == without["uid"]
    assert "labels" not in without


def test_apply_refuses_another_cidr(pool):
    """A pool's CIDR is for ever."""
    result = pool.types("apply", "-f", "-", stdin=POOL.replace("10.0.0.0/24", "10.9.0.0/24"))
    expected = (
        "failed to apply 'IPPool' resource: [error with field IPPool.Spec.CIDR = '10.9.0.0/24' "
        "(IPPool CIDR cannot be modified)]\n"
    )
    assert expected == result.err


def test_apply_of_an_old_version_is_a_conflict(pool):
    """Who names a resourceVersion wants to change exactly that."""
    text = POOL.replace("  name: pool1", '  name: pool1\n  resourceVersion: "77"')
    result = pool.types("apply", "-f", "-", stdin=text)
    expected = (
        "failed to apply 'IPPool' resource: [update conflict: IPPool(pool1): resource version '77' "
        "is out of date (latest: 1). Update the resource YAML/JSON in order to make changes]\n"
    )
    assert (1, expected) == (result.status, result.err)


def test_what_get_shows_can_be_applied(pool):
    """The output of get -o yaml is input, its resourceVersion the latest."""
    shown = pool.types("get", "ippool", "pool1", "-o", "yaml").out
    assert 0 == pool.types("apply", "-f", "-", stdin=shown).status


def test_replace_says_how_many(pool):
    """An object that exists is replaced."""
    result = pool.types("replace", "-f", "-", stdin=POOL)
    assert "Successfully replaced 1 'IPPool' resource(s)\n" == result.out


def test_replace_counts_as_calicoctl_does(operator):
    """It counts failed ones and tells the last error."""
    result = operator.types("replace", "-f", "-", stdin=POOL)
    out = "Partial success: replaced the first 1 out of 1 'IPPool' resources:\n"
    err = "hit error: resource does not exist: IPPool(pool1) with error: <nil>\n"
    assert (1, out, err) == (result.status, result.out, result.err)


def test_delete_of_what_is_not_there_fails(operator):
    """With an empty line behind it, as calicoctl."""
    result = operator.types("delete", "ippool", "nope")
    expected = (
        "Failed to delete 'IPPool' resource: "
        "resource does not exist: IPPool(nope) with error: <nil>\n\n"
    )
    assert (1, "", expected) == (result.status, result.out, result.err)


@pytest.mark.parametrize("option", ["-s", "--skip-not-exists"])
def test_delete_can_skip_what_is_not_there(operator, option):
    """It counts as deleted."""
    result = operator.types("delete", "pool", "nope", option)
    assert (0, "Successfully deleted 1 'IPPool' resource(s)\n") == (result.status, result.out)


def test_delete_goes_on_after_an_error(pool):
    """What can be deleted is."""
    result = pool.types("delete", "pool", "nope", "pool1")
    assert "Successfully deleted 1 'IPPool' resource(s)\n" == result.out
    assert 1 == result.status
    assert pool.value(KEY) is None


def test_delete_takes_a_file(pool):
    """Kind and name are the file's."""
    assert 0 == pool.types("delete", "-f", "-", stdin=POOL).status
    assert pool.value(KEY) is None


def test_delete_of_an_old_version_is_a_conflict(pool):
    """A resourceVersion in the file is honoured."""
    text = POOL.replace("  name: pool1", '  name: pool1\n  resourceVersion: "77"')
    result = pool.types("delete", "-f", "-", stdin=text)
    assert "update conflict: IPPool(pool1)" in result.err
    assert pool.value(KEY) is not None


def test_delete_without_a_name_is_refused(pool):
    """Never all of them."""
    result = pool.types("delete", "ippool")
    assert (1, "resource name may not be empty\n") == (result.status, result.err)


def test_patch_changes_single_fields(pool):
    """Maps are merged, lists replaced, null removes."""
    change = '{"spec":{"disabled":true,"allowedUses":["Tunnel"],"natOutgoing":null}}'
    result = pool.types("patch", "ippool", "pool1", "-p", change)
    assert "Successfully patched 1 'IPPool' resource\n" == result.out
    spec = json.loads(pool.value(KEY))["spec"]
    assert (True, ["Tunnel"], 29) == (spec["disabled"], spec["allowedUses"], spec["blockSize"])
    assert "natOutgoing" not in spec


def test_patch_keeps_what_a_newer_peer_stored(pool):
    """A field that we do not know survives."""
    stored = json.loads(pool.value(KEY))
    stored["spec"]["tomorrow"] = 1
    store = pool.store()
    revision = next(store.pages(KEY, 1))[0].revision
    store.commit([Write(KEY, json.dumps(stored), revision)])
    store.close()
    assert 0 == pool.types("patch", "pool", "pool1", "-p", '{"spec":{"disabled":true}}').status
    spec = json.loads(pool.value(KEY))["spec"]
    assert (1, True) == (spec["tomorrow"], spec["disabled"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("{", "hit error: performing strategic merge patch: "),
        ("[]", "hit error: performing strategic merge patch: the patch is not a JSON object\n"),
        (
            '{"spec":{"blockSize":28}}',
            (
                "hit error: updating existing resource: error with field "
                "IPPool.Spec.BlockSize = '28' (IPPool BlockSize cannot be modified)\n"
            ),
        ),
        (
            '{"spec":{"foo":1}}',
            "field in document is not recognized or is in the wrong location: foo\n",
        ),
        (
            '{"metadata":{"name":"b"}}',
            "hit error: a patch cannot change an object's kind or name\n",
        ),
        ('{"metadata":{"resourceVersion":"9"}}', "hit error: update conflict: IPPool(pool1): "),
    ],
)
def test_a_wrong_patch_changes_nothing(pool, change, expected):
    """Each with its reason."""
    before = pool.value(KEY)
    result = pool.types("patch", "ippool", "pool1", "-p", change)
    assert 1 == result.status
    assert result.err.startswith(expected)
    assert before == pool.value(KEY)


def test_patch_of_what_is_not_there_fails(operator):
    """With Calico's text."""
    result = operator.types("patch", "ippool", "nope", "-p", "{}")
    expected = "hit error: resource does not exist: IPPool(nope) with error: <nil>\n"
    assert (1, expected) == (result.status, result.err)


def test_unknown_kinds_are_named(operator):
    """Get says a little more than the others."""
    delete = operator.types("delete", "foo", "x")
    get = operator.types("get", "foo")
    assert (1, "resource type 'foo' is not supported\n") == (delete.status, delete.err)
    expected = "failed to get resources: resource type 'foo' is not supported\n"
    assert (1, expected) == (get.status, get.err)


def test_cluster_information_is_read_only(operator):
    """calico-node manages it."""
    text = '{"apiVersion":"projectcalico.org/v3","kind":"ClusterInformation","metadata":{}}'
    result = operator.types("apply", "-f", "-", stdin=text)
    expected = "operation apply is not supported on ClusterInformation: resource is readonly"
    assert f"failed to apply 'ClusterInformation' resource: [{expected}]\n" == result.err


def test_a_settings_object_is_what_the_engine_reads(operator):
    """IPAMConfiguration lies where allocations look, in its own spelling."""
    text = (
        "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: default}\n"
        "spec: {strictAffinity: true, maxBlocksPerHost: 3}\n"
    )
    assert 0 == operator.types("apply", "-f", "-", stdin=text).status
    expected = '{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":3}'
    assert expected == operator.value(keys.CONFIG)
    assert 0 == operator.types("delete", "ipamconfig", "default").status
    assert operator.value(keys.CONFIG) is None


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("other", "{}", 'IPAMConfiguration resource with a name other than "default"'),
        (
            "default",
            "{strictAffinity: true, maxBlocksPerHost: -1}",
            "MaxBlocksPerHost = '-1' (must be greater than or equal to 0)",
        ),
        ("default", "{maxBlocksPerHost: 1}", "MaxBlocksPerHost requires StrictAffinity"),
        ("default", "{autoAllocateBlocks: false}", "Cannot disable 'StrictAffinity' and"),
        ("default", "{ipCooldownSeconds: 9999}", "must be between 0 and 1200"),
    ],
)
def test_wrong_settings_are_refused(operator, name, spec, expected):
    """The schema's rules and those of the engine."""
    text = (
        "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\n"
        f"metadata: {{name: {name}}}\nspec: {spec}\n"
    )
    result = operator.types("apply", "-f", "-", stdin=text)
    assert expected in result.err
    assert operator.value(keys.CONFIG) is None


SETTINGS = """\
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata:
  name: default
spec:
  strictAffinity: true
"""


@pytest.mark.parametrize("part", ["labels", "annotations"])
def test_settings_with_what_their_record_cannot_hold_are_refused(operator, part):
    """Nothing is said to be applied that would be lost, be the record there or not."""
    text = SETTINGS.replace("spec:", f"  {part}: {{a: b, c: d}}\nspec:")
    reason = f"an IPAMConfiguration is stored without {part}: leave them out"
    expected = (
        "failed to apply 'IPAMConfiguration' resource: "
        f"[error with field metadata.{part} = 'a=b,c=d' ({reason})]\n"
    )
    first = operator.types("apply", "-f", "-", stdin=text)
    assert (1, expected, None) == (first.status, first.err, operator.value(keys.CONFIG))
    assert 0 == operator.types("apply", "-f", "-", stdin=SETTINGS).status
    second = operator.types("apply", "-f", "-", stdin=text)
    assert (1, expected) == (second.status, second.err)


def test_a_patch_of_settings_with_a_label_is_refused(operator):
    """Also one that changes something else besides."""
    operator.types("apply", "-f", "-", stdin=SETTINGS)
    changes = '{"metadata": {"labels": {"a": "b"}}, "spec": {"maxBlocksPerHost": 3}}'
    result = operator.types("patch", "ipamconfig", "default", "-p", changes)
    assert 1 == result.status
    assert "error with field metadata.labels = 'a=b' (" in result.err
    assert "maxBlocksPerHost" not in operator.value(keys.CONFIG)


def test_settings_can_be_applied_as_they_are_shown(operator):
    """By us, with the revision, and by calicoctl, with a UID and a date."""
    operator.types("apply", "-f", "-", stdin=SETTINGS)
    stored = operator.value(keys.CONFIG)
    ours = operator.types("get", "ipamconfig", "default", "-o", "yaml").out
    date = '  creationTimestamp: "2026-11-21T10:26:22Z"\n'
    calicos = SETTINGS.replace("  name: default\n", f"{date}  name: default\n  uid: u\n")
    applied = [operator.types("apply", "-f", "-", stdin=text).status for text in (ours, calicos)]
    assert ([0, 0], stored) == (applied, operator.value(keys.CONFIG))


def test_deleting_a_node_gives_up_its_blocks(operator):
    """Empty ones vanish, others live on without owner."""
    operator.write(Write(keys.NODES + "node1", '{"metadata":{"name":"node1"}}', ABSENT))
    operator.claim("10.0.0.0/29")
    operator.claim("10.0.0.8/29", count=1)
    operator.claim("10.0.0.16/29", "node2")
    assert 0 == operator.types("delete", "node", "node1").status
    assert operator.value(keys.NODES + "node1") is None
    assert operator.value(keys.BLOCKS + "ipv4/block/10.0.0.0-29") is None
    assert '"affinity":null' in operator.value(keys.BLOCKS + "ipv4/block/10.0.0.8-29")
    assert '"host:node2"' in operator.value(keys.BLOCKS + "ipv4/block/10.0.0.16-29")
