"""The netconf as a whole: what is not one, the role it gives us, and what each verb needs."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_ipam.cni.netconf import Netconf, parse_netconf
from cni_ipam.cni.request import Request
from cni_ipam.errors import CniIpamError, DecodeError, NetconfError, VersionError
from cni_ipam.routes.plan import RouteSettings

PREV_RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b" \n",
        b"{",
        b"{} {}",
        b"nul",
        b"null",
        b"[]",
        b"1",
        b'"name"',
        b"\xff\xfe{\x00}\x00",
        b'{"name": "\xff"}',
        b'{"name": "a\x00b"}',
        b"\x00",
        b'{"name": "net1"}\x00',
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"name": "net1", "a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"x" * 4_000_000,
    ],
    ids=range(22),
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_what_is_no_json_object_is_refused(netconf_of, stdin, command):
    """Code 6 for every verb, in a message of a readable length that begins as the library's."""
    with pytest.raises(DecodeError) as raised:
        netconf_of(stdin, command=command)
    assert raised.value.msg.startswith("error unmarshall network config: ")
    assert len(raised.value.msg) < 300


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        (None, 7, "missing network name"),
        ("", 7, "missing network name"),
        ("te%%st", 7, "invalid characters found in network name"),
        ("-net", 7, "invalid characters found in network name"),
        ("a/../b", 7, "invalid characters found in network name"),
        ("é", 7, "invalid characters found in network name"),
        (1, 6, "json: cannot unmarshal number into Go struct field .name of type string"),
        ([], 6, "json: cannot unmarshal array into Go struct field .name of type string"),
    ],
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_a_network_has_a_name(netconf_of, name, code, text, command):
    """Rows cni-041 to cni-061; a name of another type is not decoded, as in the library."""
    with pytest.raises(CniIpamError) as raised:
        netconf_of(name=name, command=command)
    assert code == raised.value.code
    assert text in raised.value.msg


@pytest.mark.parametrize("version", [1, 1.0, True, [], {}])
def test_a_version_of_another_type_is_not_decoded(netconf_of, version):
    """Row cni-048."""
    with pytest.raises(DecodeError, match="decoding version from network config"):
        netconf_of(cniVersion=version)


@pytest.mark.parametrize("version", [None, ""])
def test_no_version_is_the_oldest(netconf_of, version):
    """As Go's library decodes it."""
    assert "0.1.0" == netconf_of(cniVersion=version).cni_version


def test_the_name_is_judged_before_the_version(netconf_of):
    """The library's order."""
    with pytest.raises(NetconfError):
        netconf_of(name="te%%st", cniVersion="9.9.9")


def test_the_version_is_judged_before_the_rest(netconf_of):
    """A configuration from the future may hold anything."""
    with pytest.raises(VersionError):
        netconf_of(cniVersion="9.9.9", ipam=5)


@pytest.mark.parametrize(
    ("ipam", "text"),
    [
        (None, '"ipam" is missing, but must be an object with "type"'),
        ([], '"ipam" is an array'),
        ("cni-ipam", '"ipam" is "cni-ipam"'),
        ({}, '"ipam.type" is missing'),
        ({"type": ""}, '"ipam.type" is ""'),
        ({"type": 5}, '"ipam.type" is 5'),
    ],
)
def test_a_delegates_add_wants_ipam(netconf_of, ipam, text):
    """Without it nothing says that the addresses are wanted from us."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(ipam=ipam)
    assert text in raised.value.msg


@pytest.mark.parametrize("ipam", [None, [], "cni-ipam", {}, {"type": 5}])
@pytest.mark.parametrize("command", ["DEL", "CHECK", "GC", "STATUS"])
def test_the_other_verbs_do_without_ipam(netconf_of, ipam, command):
    """What they need is the name and the datastore."""
    assert "net1" == netconf_of(ipam=ipam, command=command).name


def test_a_removal_needs_name_type_and_version(netconf_of):
    """Row cni-090."""
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "calico"}
    netconf = netconf_of(conf, command="DEL", called_as="calico-ipam")
    assert ("net1", "1.0.0", False) == (netconf.name, netconf.cni_version, netconf.chained)


@pytest.mark.parametrize(
    ("keys", "chained"),
    [
        ({"type": "cni-ipam", "ipam": None}, True),
        ({"type": "cni-ipam", "ipam": {}}, True),
        ({"type": "cni-ipam", "ipam": {"type": "host-local"}}, True),
        ({"type": "cni-ipam", "ipam": {"type": "cni-ipam"}}, False),
        ({"type": "ptp", "ipam": {"type": "cni-ipam"}}, False),
        ({"type": "calico", "ipam": {"type": "calico-ipam"}}, False),
    ],
)
def test_an_object_of_our_own_type_is_chained(netconf_of, keys, chained):
    """Unless it delegates to us as well."""
    assert chained == netconf_of(**keys).chained


def test_the_previous_result_is_kept_whole(netconf_of):
    """A chained plugin drops nothing of it."""
    prev_result = {**PREV_RESULT, "newer": {"deep": [None, 1]}}
    assert prev_result == netconf_of(type="cni-ipam", prevResult=prev_result).prev_result


@pytest.mark.parametrize(
    "keys",
    [
        {"prevResult": 5},
        {"runtimeConfig": 5},
        {"args": {"cni": {"ips": "x"}}},
        {"ipam": {"type": "cni-ipam", "assign_ipv4": True, "ipv4_pools": 1}},
        {"default_pools": 1},
        {"gateway": 1},
        {"mask": "x"},
        {"routes": {"proto": 80}},
        {"agent": 1},
        {"log_level": 1},
        {"ipam_lock_timeout": -1},
        {"ipam_lock_file": 1},
        {"status_when_exhausted": 1},
    ],
)
def test_a_removal_is_not_stopped_by_a_wish(netconf_of, keys):
    """DEL never fails for what could not have been added; ADD does."""
    assert netconf_of() == netconf_of(**keys, command="DEL")
    with pytest.raises(NetconfError):
        netconf_of(**keys)


def test_a_removal_keeps_the_sound_wishes(netconf_of):
    """One bad key doesn't hide where the routes are."""
    netconf = netconf_of(mask="x", routes={"table": 100}, command="DEL")
    assert RouteSettings(host=True, blackhole=True, table=100) == netconf.routes


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"cni.dev/valid-attachments": []}, ()),
        ({"cni.dev/valid-attachments": None}, ()),
        (
            {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]},
            (("c1", "eth0"),),
        ),
        ({"cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}]}, (("c1", "eth0"),)),
        (
            {
                "cni.dev/attachments": [],
                "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0", "x": 1}],
            },
            (("c1", "eth0"),),
        ),
        ({"cni.dev/valid-attachments": None, "cni.dev/attachments": [{}]}, ()),
    ],
)
def test_gc_is_told_what_is_alive(netconf_of, keys, expected):
    """An absent list is None; an empty one, or null, names nothing (cni-062)."""
    assert expected == netconf_of(**keys, command="GC").attachments


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ({}, '"cni.dev/valid-attachments" is an object'),
        ("c1", '"cni.dev/valid-attachments" is "c1"'),
        (["c1"], '"cni.dev/valid-attachments[0]" is "c1"'),
        ([{"containerID": "c1"}], '"cni.dev/valid-attachments[0].ifname" is missing'),
        ([{"containerID": "", "ifname": "eth0"}], "[0].containerID"),
        ([{"containerID": 1, "ifname": "eth0"}], "[0].containerID"),
    ],
)
def test_gc_refuses_an_unclear_list(netconf_of, items, text):
    """A misread one would release the addresses of living pods."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(command="GC", **{"cni.dev/valid-attachments": items})
    assert text in raised.value.msg


def test_only_gc_reads_attachments(netconf_of):
    """Other verbs have no business with them."""
    assert netconf_of(**{"cni.dev/valid-attachments": 5}).attachments is None


def parse(stdin, command):
    request = Request(command, "c1", "/run/netns/x", "eth0", "", "/opt/cni/bin", stdin)
    return parse_netconf(request, "cni-ipam", {"CALICO_DATASTORE_TYPE": "sqlite"})


@given(st.binary(), st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]))
def test_random_bytes_give_code_6_or_7(stdin, command):
    """No other exception leaves the wire."""
    with pytest.raises((DecodeError, NetconfError)):
        parse(stdin, command)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "cniVersion",
        "name",
        "type",
        "ipam",
        "prevResult",
        "runtimeConfig",
        "args",
        "gateway",
        "mask",
        "routes",
        "agent",
        "sqlite_path",
        "datastore_type",
        "etcd_endpoints",
        "etcd_discovery_srv",
        "kubernetes",
        "nodename",
        "nodename_file",
        "hostname",
        "default_pools",
        "ipam_lock_file",
        "ipam_lock_timeout",
        "log_level",
        "log_file_max_size",
        "assign_ipv4",
        "ipv4_pools",
        "create_default_pools",
        "cni.dev/valid-attachments",
        "Name",
        "IPAM",
        "spec",
        "cidr",
        "ips",
        "cni",
    ]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES)),
    st.dictionaries(KEYS, VALUES),
    st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]),
)
def test_random_values_are_taken_or_refused(keys, ipam, command):
    """Whatever stands under our keys, there is a netconf or an error of ours."""
    conf = {
        "cniVersion": "1.1.0",
        "name": "net1",
        "ipam": {"type": "cni-ipam", **ipam},
        "nodename_file": "/nonexistent/nodename",
        **keys,
    }
    outcome = None
    try:
        outcome = parse(json.dumps(conf).encode(), command)
    except CniIpamError as error:
        outcome = error
    assert isinstance(outcome, Netconf) or 1 <= outcome.code <= 7
