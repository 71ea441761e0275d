"""get: tables, YAML, JSON and names, to the byte."""

from __future__ import annotations

import json

import pytest

from cni_ipam.datastore import keys
from cni_ipam.datastore.port import ABSENT, Write

UID = "8e2f2f0c-7d0c-4a4e-9a0f-0c9e3b1a2d4f"
STORED = (
    '{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool1",'
    f'"uid":"{UID}","creationTimestamp":"2026-11-21T10:26:22Z"}},"spec":{{"cidr":"10.0.0.0/24",'
    '"vxlanMode":"Never","ipipMode":"Always","natOutgoing":true,"blockSize":29,'
    '"nodeSelector":"rack == \'1\' || !has(x) && y < 2","allowedUses":["Workload","Tunnel"]}}'
)
JSON = f"""\
{{
  "kind": "IPPool",
  "apiVersion": "projectcalico.org/v3",
  "metadata": {{
    "name": "pool1",
    "uid": "{UID}",
    "resourceVersion": "1",
    "creationTimestamp": "2026-11-21T10:26:22Z"
  }},
  "spec": {{
    "cidr": "10.0.0.0/24",
    "vxlanMode": "Never",
    "ipipMode": "Always",
    "natOutgoing": true,
    "blockSize": 29,
    "nodeSelector": "rack == '1' || !has(x) \\u0026\\u0026 y \\u003c 2",
    "allowedUses": [
      "Workload",
      "Tunnel"
    ],
    "assignmentMode": "Automatic"
  }}
}}"""
YAML = f"""\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  creationTimestamp: "2026-11-21T10:26:22Z"
  name: pool1
  resourceVersion: "1"
  uid: {UID}
spec:
  allowedUses:
  - Workload
  - Tunnel
  assignmentMode: Automatic
  blockSize: 29
  cidr: 10.0.0.0/24
  ipipMode: Always
  natOutgoing: true
  nodeSelector: rack == '1' || !has(x) && y < 2
  vxlanMode: Never
"""


@pytest.fixture
def stored(operator):
    """A pool that Calico stored, without the assignment mode that came later."""
    operator.write(Write(keys.POOLS + "pool1", STORED, ABSENT))
    return operator


def test_a_table_is_calicoctls(pool):
    """Three blanks behind each column, the last too, and an empty line at the end."""
    expected = "NAME    CIDR          SELECTOR   \npool1   10.0.0.0/24   all()      \n\n"
    assert expected == pool.types("get", "ippool").out


def test_a_wide_table_is_calicoctls(pool):
    """All of a pool's columns."""
    expected = (
        "NAME    CIDR          NAT    IPIPMODE   VXLANMODE   DISABLED   DISABLEBGPEXPORT   "
        "SELECTOR   ASSIGNMENTMODE   \n"
        "pool1   10.0.0.0/24   true   Always     Never       false      false              "
        "all()      Automatic        \n\n"
    )
    assert expected == pool.types("get", "ippool", "-o", "wide").out


def test_each_name_has_a_table(pool):
    """And a name that is not there an error, after the tables."""
    table = "NAME    CIDR          SELECTOR   \npool1   10.0.0.0/24   all()      \n\n"
    result = pool.types("get", "ippool", "pool1", "nope", "pool1")
    assert table * 2 == result.out
    expected = "resource does not exist: IPPool(nope) with error: <nil>\n"
    assert (1, expected) == (result.status, result.err)


def test_an_empty_list_has_its_headings(operator):
    """Also where there is no datastore yet, and none is made."""
    assert "NAME   CIDR   SELECTOR   \n\n" == operator.types("get", "ippools").out
    assert not (operator.folder / "ipam.db").exists()


def test_json_is_in_gos_order_and_has_no_newline(stored):
    """Kind first; what was not stored has its default; `<` is escaped as Go does."""
    assert JSON == stored.types("get", "ippool", "pool1", "-o", "json").out


@pytest.mark.parametrize("form", ["yaml", "yml"])
def test_yaml_has_sorted_keys(stored, form):
    """Texts that YAML could take for times or numbers are quoted."""
    assert YAML == stored.types("get", "ippool", "pool1", "-o", form).out


def test_a_list_has_items_and_a_version(stored):
    """A kind without a name gives a list object."""
    shown = json.loads(stored.types("get", "ippool", "-o", "json").out)
    assert ["kind", "apiVersion", "metadata", "items"] == list(shown)
    assert ("IPPoolList", {"resourceVersion": "1"}) == (shown["kind"], shown["metadata"])
    assert [json.loads(JSON)] == shown["items"]


def test_several_names_give_an_array(stored):
    """In JSON and in YAML."""
    shown = json.loads(stored.types("get", "pool", "pool1", "pool1", "-o", "json").out)
    assert [json.loads(JSON)] * 2 == shown
    text = stored.types("get", "pool", "pool1", "pool1", "-o", "yaml").out
    assert text.startswith("- apiVersion: projectcalico.org/v3\n  kind: IPPool\n")


def test_names_are_one_a_line(pool):
    """Kind and name."""
    assert "ippool/pool1\n" == pool.types("get", "pools", "-o", "name").out


def test_export_leaves_out_what_belongs_to_this_datastore(stored):
    """So that it can be created elsewhere."""
    shown = json.loads(stored.types("get", "pool", "pool1", "--export", "-o", "json").out)
    assert {"name": "pool1"} == shown["metadata"]


def test_export_of_a_list_changes_nothing(stored):
    """As calicoctl: only with names."""
    shown = json.loads(stored.types("get", "pool", "--export", "-o", "json").out)
    assert UID == shown["items"][0]["metadata"]["uid"]


def test_columns_can_be_chosen(pool):
    """In any order."""
    result = pool.types("get", "pool", "-o", "custom-columns=CIDR,NAME")
    assert "CIDR          NAME    \n10.0.0.0/24   pool1   \n\n" == result.out


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("foo", "unrecognized output format 'foo'\n"),
        ("custom-columns=", "need to specify at least one column\n"),
        (
            "custom-columns=X",
            (
                "unknown heading X, valid values are: NAME, CIDR, NAT, IPIPMODE, VXLANMODE, "
                "DISABLED, DISABLEBGPEXPORT, SELECTOR, ASSIGNMENTMODE\n"
            ),
        ),
        (
            "go-template={{.}}",
            "output format 'go-template' is not supported: use json and a JSON tool\n",
        ),
    ],
)
def test_unknown_formats_are_refused(pool, form, expected):
    """With calicoctl's words."""
    result = pool.types("get", "pool", "-o", form)
    assert (1, "", expected) == (result.status, result.out, result.err)


def test_get_takes_a_file(pool):
    """The stored object is shown, not the file's."""
    text = '{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"pool1"}}'
    shown = pool.types("get", "-f", "-", "-o", "json", stdin=text).out
    assert "10.0.0.0/24" == json.loads(shown)["spec"]["cidr"]


def test_a_broken_record_does_not_hide_the_others(pool):
    """It is named on stderr."""
    pool.write(Write(keys.POOLS + "broken", "[", ABSENT))
    result = pool.types("get", "pool", "-o", "name")
    assert (1, "ippool/pool1\n") == (result.status, result.out)
    assert f"the record {keys.POOLS}broken is not JSON" in result.err


def test_reservations_show_their_cidrs(operator):
    """Cut at 80 characters."""
    cidrs = ",".join(f'"10.0.{i}.0/30"' for i in range(9))
    value = f'{{"metadata":{{"name":"r"}},"spec":{{"reservedCIDRs":[{cidrs}]}}}}'
    operator.write(Write(keys.RESERVATIONS + "r", value, ABSENT))
    expected = (
        "r      10.0.0.0/30,10.0.1.0/30,10.0.2.0/30,10.0.3.0/30,10.0.4.0/30,10.0.5.0/30,10.0....   "
    )
    assert expected == operator.types("get", "reservations", "-o", "wide").out.splitlines()[1]


def test_nodes_show_their_bgp_settings(operator):
    """A node without an AS number of its own has the default one."""
    value = '{"metadata":{"name":"n1"},"spec":{"bgp":{"ipv4Address":"192.168.0.1/24"}}}'
    operator.write(Write(keys.NODES + "n1", value, ABSENT))
    operator.write(Write(keys.NODES + "n2", '{"metadata":{"name":"n2"}}', ABSENT))
    expected = (
        "NAME   ASN       IPV4             IPV6   \n"
        "n1     (64512)   192.168.0.1/24          \n"
        "n2                                       \n\n"
    )
    assert expected == operator.types("get", "nodes", "-o", "wide").out


def test_settings_show_what_calico_left_out_as_false(operator):
    """In Calico's record of the settings an absent field is false."""
    operator.write(Write(keys.CONFIG, '{"strict_affinity":true}', ABSENT))
    expected = (
        "NAME      STRICTAFFINITY   AUTOALLOCATEBLOCKS   MAXBLOCKSPERHOST   \n"
        "default   true             false                0                  \n\n"
    )
    assert expected == operator.types("get", "ipamconfig", "-o", "wide").out
