"""Every key of the network configuration: its default, its values, and its refusal."""

from __future__ import annotations

import pytest

from cni_ipam.cni.netconf import DefaultPool
from cni_ipam.cni.settings import DatastoreSettings, LogSettings
from cni_ipam.core.address import parse_address
from cni_ipam.errors import NetconfError
from cni_ipam.routes.plan import RouteSettings


def test_our_name_brings_a_gateway_routes_and_a_file(netconf_of):
    """The defaults of design.md 2 for a node without any server."""
    netconf = netconf_of()
    expected = ("1.1.0", "net1", False, True, False, "auto", "pool", "auto", 60.0, "node-1")
    assert expected == (
        netconf.cni_version,
        netconf.name,
        netconf.chained,
        netconf.ipv4,
        netconf.ipv6,
        netconf.gateway,
        netconf.mask,
        netconf.agent,
        netconf.lock_timeout_seconds,
        netconf.node_name,
    )
    assert RouteSettings(host=True, blackhole=True, proto=85, table=254) == netconf.routes
    assert DatastoreSettings("sqlite", "/var/lib/cni-ipam/ipam.db") == netconf.datastore
    assert "/var/lib/cni-ipam/ipam.db.lock" == netconf.lock_file
    assert LogSettings("info", "", 100, 30, 10) == netconf.log


def test_calicos_name_brings_calicos_own_result(netconf_of):
    """No gateway, the block's mask, no routes of ours, and never the file by default."""
    netconf = netconf_of(called_as="calico-ipam")
    assert ("none", "block", "calico-ipam") == (netconf.gateway, netconf.mask, netconf.called_as)
    assert RouteSettings(host=False, blackhole=False) == netconf.routes
    assert "kubernetes" == netconf.datastore.kind
    assert "/var/run/calico/ipam.lock" == netconf.lock_file


@pytest.mark.parametrize("routes", [[], [{"dst": "0.0.0.0/0"}]])
@pytest.mark.parametrize("beside", [{}, {"routes": {"proto": 86}}])
def test_calicos_name_takes_host_locals_routes_as_absent(netconf_of, routes, beside):
    """Calico ignores keys that it doesn't know, so pods would lose their network by our program."""
    ipam = {"type": "calico-ipam", "routes": routes}
    expected = RouteSettings(host=False, blackhole=False, **beside.get("routes", {}))
    assert expected == netconf_of(called_as="calico-ipam", ipam=ipam, **beside).routes


@pytest.mark.parametrize("routes", ["none", 7, {"host": "yes"}])
def test_under_calicos_name_other_routes_are_refused_all_the_same(netconf_of, routes):
    """They can only be meant for us."""
    with pytest.raises(NetconfError, match=r'"ipam.routes(\.host)?" is '):
        netconf_of(called_as="calico-ipam", ipam={"type": "calico-ipam", "routes": routes})


def test_nothing_is_wished_for_by_default(netconf_of):
    """Lists are empty, switches are off."""
    netconf = netconf_of()
    assert ((), (), (), ()) == (
        netconf.ipv4_pools,
        netconf.ipv6_pools,
        netconf.requested,
        netconf.default_pools,
    )
    assert not netconf.create_default_pools
    assert not netconf.status_when_unreachable
    assert not netconf.status_when_exhausted
    assert netconf.prev_result is None
    assert netconf.attachments is None


@pytest.mark.parametrize(
    ("ipam", "expected"),
    [
        ({}, (True, False)),
        ({"assign_ipv4": "false"}, (False, False)),
        ({"assign_ipv4": "False"}, (True, False)),
        ({"assign_ipv4": "0"}, (True, False)),
        ({"assign_ipv6": "true"}, (True, True)),
        ({"assign_ipv6": "True"}, (True, False)),
        ({"assign_ipv4": None}, (True, False)),
    ],
)
def test_families_are_switched_by_two_exact_words(netconf_of, ipam, expected):
    """Calico compares with "false" and "true", and takes anything else as the default."""
    netconf = netconf_of(ipam={"type": "cni-ipam", **ipam})
    assert expected == (netconf.ipv4, netconf.ipv6)


def test_a_boolean_for_a_family_is_refused_in_calicos_words(netconf_of):
    """People search the web for this message; the details say what is right."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(ipam={"type": "calico-ipam", "assign_ipv4": True})
    expected = (
        "failed to load netconf: json: cannot unmarshal bool into "
        "Go struct field NetConf.ipam.assign_ipv4 of type string"
    )
    assert (7, expected) == (raised.value.code, raised.value.msg)
    assert '"ipam.assign_ipv4" is true, but must be a string' == raised.value.details


def test_pools_are_taken_from_ipam_alone(netconf_of):
    """Calico knows them only there."""
    ipam = {"type": "cni-ipam", "ipv4_pools": ["a", "10.0.0.0/16"], "ipv6_pools": ["b"]}
    netconf = netconf_of(ipam=ipam, ipv4_pools=["other"])
    assert (("a", "10.0.0.0/16"), ("b",)) == (netconf.ipv4_pools, netconf.ipv6_pools)


@pytest.mark.parametrize(
    ("pools", "text"),
    [
        ("a", "cannot unmarshal string into Go struct field NetConf.ipam.ipv4_pools of type []str"),
        ([1], "cannot unmarshal number into Go struct field NetConf.ipam.ipv4_pools of type str"),
        ({}, "cannot unmarshal object into Go struct field NetConf.ipam.ipv4_pools of type []str"),
    ],
)
def test_pools_are_a_list_of_strings(netconf_of, pools, text):
    """Anything else is refused in Calico's words."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(ipam={"type": "cni-ipam", "ipv4_pools": pools})
    assert text in raised.value.msg


def test_a_key_inside_ipam_beats_one_beside_it(netconf_of):
    """Ours may stand at either place."""
    assert "none" == netconf_of(gateway="none").gateway
    ipam = {"type": "cni-ipam", "gateway": "auto"}
    assert "auto" == netconf_of(gateway="none", ipam=ipam).gateway


def test_keys_match_as_in_go(netconf_of):
    """Without regard to case, but an exact key comes first."""
    assert "none" == netconf_of(Gateway="none").gateway
    assert "none" == netconf_of(GATEWAY="auto", gateway="none").gateway


def test_unknown_keys_are_ignored_at_both_levels(netconf_of):
    """The upper plugin's keys come along, and Calico's that its main plugin reads."""
    unknown = {"mtu": "a lot", "mode": 5, "mtu_file": [], "capabilities": {"ips": True}}
    netconf = netconf_of(**unknown, ipam={"type": "cni-ipam", "ranges": [[{}]], **unknown})
    assert netconf_of() == netconf


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"runtimeConfig": {"ips": ["10.0.0.7/24", "fd00::7"]}}, ["10.0.0.7", "fd00::7"]),
        ({"args": {"cni": {"ips": ["10.0.0.8"]}}}, ["10.0.0.8"]),
        (
            {"runtimeConfig": {"ips": ["10.0.0.7"]}, "args": {"cni": {"ips": ["10.0.0.8"]}}},
            ["10.0.0.7"],
        ),
        ({"runtimeConfig": {"ips": []}, "args": {"cni": {"ips": ["10.0.0.8"]}}}, ["10.0.0.8"]),
        ({"runtimeConfig": None, "args": {"cni": None}}, []),
        ({"runtimeConfig": {"mac": "x"}, "args": {"org.apache.mesos": {}}}, []),
    ],
)
def test_addresses_are_requested_by_capability_or_args(netconf_of, keys, expected):
    """CONVENTIONS' order of authority."""
    assert tuple(map(parse_address, expected)) == netconf_of(**keys).requested


@pytest.mark.parametrize(
    ("ips", "text"),
    [
        (["10.0.0.300"], '"runtimeConfig.ips[0]" is "10.0.0.300"'),
        (["10.0.0.3/33"], '"runtimeConfig.ips[0]" is "10.0.0.3/33"'),
        (["10.0.0.3", "10.0.0.4"], '"runtimeConfig.ips[1]" is "10.0.0.4", but must be the only'),
        ([10], '"runtimeConfig.ips[0]" is 10, but must be a string'),
        ("10.0.0.3", '"runtimeConfig.ips" is "10.0.0.3", but must be a list'),
    ],
)
def test_a_requested_address_is_an_address(netconf_of, ips, text):
    """At most one of each family, each with or without a prefix."""
    with pytest.raises(NetconfError, match="failed to load netconf") as raised:
        netconf_of(runtimeConfig={"ips": ips})
    assert text in raised.value.msg


@pytest.mark.parametrize(
    ("pool", "name"),
    [
        ({"spec": {"cidr": "10.0.0.0/24"}}, "10-0-0-0-24"),
        ({"spec": {"cidr": "10.0.0.9/24"}}, "10-0-0-0-24"),
        ({"spec": {"cidr": "fd00::/64"}}, "fd00---64"),
        ({"name": "mine", "spec": {"cidr": "fd00::/64", "blockSize": 122}}, "mine"),
    ],
)
def test_a_default_pool_is_named_for_its_cidr(netconf_of, pool, name):
    """Unless it has a name; its spec is handed on as it is."""
    expected = (DefaultPool(name, pool["spec"]),)
    assert expected == netconf_of(default_pools=[pool]).default_pools


@pytest.mark.parametrize(
    ("pools", "text"),
    [
        ({}, '"default_pools" is an object'),
        (["10.0.0.0/24"], '"default_pools[0]" is "10.0.0.0/24"'),
        ([{}], '"default_pools[0].spec.cidr" is missing'),
        ([{"spec": []}], '"default_pools[0].spec" is an array'),
        ([{"spec": {"cidr": "10.0.0.0"}}], '"default_pools[0].spec.cidr" is "10.0.0.0"'),
        ([{"name": 1, "spec": {"cidr": "10.0.0.0/24"}}], '"default_pools[0].name" is 1'),
        ([{"spec": {"cidr": "10.0.0.0/24"}}] * 2, '"default_pools[1].name" is "10-0-0-0-24"'),
    ],
)
def test_a_default_pool_has_a_cidr_and_a_name_of_its_own(netconf_of, pools, text):
    """The rest of its spec is judged where pools are."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(default_pools=pools)
    assert text in raised.value.msg


@pytest.mark.parametrize(
    ("keys", "gateway", "mask"),
    [
        ({"gateway": "auto"}, "auto", "pool"),
        ({"gateway": "none"}, "none", "block"),
        ({"gateway": ""}, "auto", "pool"),
        ({"gateway": "10.0.0.1"}, parse_address("10.0.0.1"), "pool"),
        ({"gateway": "fe80::1", "mask": "pool"}, parse_address("fe80::1"), "pool"),
        ({"gateway": "none", "mask": "host"}, "none", "host"),
        ({"gateway": "none", "mask": "block"}, "none", "block"),
        ({"gateway": "none", "mask": "pool"}, "none", "pool"),
    ],
)
def test_the_mask_follows_the_gateway(netconf_of, keys, gateway, mask):
    """A gateway has to lie inside of the pod's prefix."""
    netconf = netconf_of(**keys)
    assert (gateway, mask) == (netconf.gateway, netconf.mask)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"gateway": "first"}, '"gateway" is "first", but must be "auto", "none" or an IP'),
        ({"gateway": "10.0.0.1/24"}, '"gateway" is "10.0.0.1/24"'),
        ({"gateway": False}, '"gateway" is false, but must be a string'),
        ({"mask": "subnet"}, '"mask" is "subnet", but must be "pool", "block" or "host"'),
        ({"mask": "block"}, '"mask" is "block", but must be "pool" unless "gateway" is "none"'),
        ({"mask": "host", "gateway": "10.0.0.1"}, '"mask" is "host"'),
        ({"mask": 24}, '"mask" is 24'),
        ({"routes": []}, '"routes" is an array, but must be an object'),
        ({"routes": {"host": "yes"}}, '"routes.host" is "yes", but must be true or false'),
        ({"routes": {"proto": 80}}, '"routes.proto" is 80'),
        ({"routes": {"proto": 12}}, '"routes.proto" is 12'),
        ({"routes": {"proto": 0}}, '"routes.proto" is 0'),
        ({"routes": {"proto": 2}}, '"routes.proto" is 2'),
        ({"routes": {"proto": 256}}, '"routes.proto" is 256, but must be a whole number'),
        ({"routes": {"proto": 1.5}}, '"routes.proto" is 1.5'),
        ({"routes": {"proto": True}}, '"routes.proto" is true'),
        ({"routes": {"table": 0}}, '"routes.table" is 0'),
        ({"routes": {"table": 2**32}}, '"routes.table" is 4294967296'),
        ({"agent": "on"}, '"agent" is "on", but must be "auto", "off" or an absolute path'),
        ({"agent": 1}, '"agent" is 1'),
        ({"status_when_unreachable": "true"}, '"status_when_unreachable" is "true"'),
        ({"status_when_exhausted": 1}, '"status_when_exhausted" is 1'),
        ({"create_default_pools": "yes"}, '"create_default_pools" is "yes"'),
        ({"ipam_lock_timeout": 0}, '"ipam_lock_timeout" is 0, but must be a number of seconds'),
        ({"ipam_lock_timeout": "60"}, '"ipam_lock_timeout" is "60"'),
        ({"ipam_lock_timeout": True}, '"ipam_lock_timeout" is true'),
        ({"prevResult": []}, '"prevResult" is an array, but must be an object'),
        ({"log_file_max_size": -1}, '"log_file_max_size" is -1'),
        ({"sqlite_path": "ipam.db"}, '"sqlite_path" is "ipam.db", but must be an absolute path'),
        ({"sqlite_path": "/a\0b"}, '"sqlite_path" is "/a\\u0000b", but must be a path without'),
        ({"nodename": "a/b"}, 'the node\'s name from nodename is "a/b"'),
        ({"nodename": "a\n"}, 'the node\'s name from nodename is "a\\n"'),
        ({"nodename": "x" * 254}, "the node's name from nodename is"),
    ],
)
def test_a_wrong_value_is_named(netconf_of, keys, text):
    """The message names the key, the value, and what would be right."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(**keys)
    assert text in raised.value.msg
    assert 7 == raised.value.code


def test_routes_are_merged_with_their_defaults(netconf_of):
    """One key doesn't clear the others; libcni may print whole numbers as floats."""
    netconf = netconf_of(routes={"host": False, "proto": 86, "table": 100.0})
    assert RouteSettings(host=False, blackhole=True, proto=86, table=100) == netconf.routes


def test_switches_and_paths_are_taken(netconf_of):
    """The rest of the table of design.md 2."""
    netconf = netconf_of(
        agent="/run/other.sock",
        status_when_unreachable=True,
        status_when_exhausted=True,
        create_default_pools=True,
        ipam_lock_timeout=0.5,
        ipam_lock_file="/tmp/lock",
        sqlite_path="/tmp/ipam.db",
    )
    assert ("/run/other.sock", True, True, True, 0.5, "/tmp/lock", "/tmp/ipam.db") == (
        netconf.agent,
        netconf.status_when_unreachable,
        netconf.status_when_exhausted,
        netconf.create_default_pools,
        netconf.lock_timeout_seconds,
        netconf.lock_file,
        netconf.datastore.sqlite_path,
    )


@pytest.mark.parametrize(
    ("keys", "hidden"),
    [
        ({"etcd_key_file": 987654}, "987654"),
        ({"kubernetes": ["hush"]}, "hush"),
        ({"policy": {"k8s_auth_token": "hush"}, "gateway": {"token": "hush"}}, "hush"),
    ],
)
def test_secrets_are_never_shown(netconf_of, keys, hidden):
    """Neither the value of a key nor what an object may hold."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(**keys)
    assert hidden not in raised.value.msg + raised.value.details


def test_a_long_value_is_shortened(netconf_of):
    """A message stays readable."""
    with pytest.raises(NetconfError) as raised:
        netconf_of(gateway="x" * 100_000)
    assert len(raised.value.msg) < 200
