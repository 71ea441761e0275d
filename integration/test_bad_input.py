"""What a runtime or an administrator can get wrong: a clear error, and nothing changed.

After every case stdout holds one JSON object with code and msg, the status is 1, the datastore is
what it was to the byte, and no secret of the netconf is in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni_ipam.datastore import codec, keys
from cni_ipam.datastore.port import ABSENT, Write
from cni_ipam.datastore.sqlite import SqliteDatastore
from integration.mistakes import HELD, SECRET, Case, check, named, store_in_use
from integration.network import find_obstacle
from integration.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

MEGABYTES = 1024 * 1024


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Cases change nothing, so they share one."""
    with store_in_use(tmp_path_factory.mktemp("store")) as program:
        yield program


def at_each_depth(depth: int, inner: bytes, left: bytes, right: bytes) -> bytes:
    return left * depth + inner + right * depth


DEEP = at_each_depth(10_000, b"1", b"[", b"]")
STDIN = {
    "empty": Case(6, "unexpected end of JSON input", stdin=b""),
    "blank": Case(6, "unexpected end of JSON input", stdin=b" \n\t "),
    "not JSON": Case(6, "error unmarshall network config", stdin=f"token={SECRET}".encode()),
    "cut off": Case(6, "error unmarshall network config", stdin=f'{{"token":"{SECRET}'.encode()),
    "two documents": Case(6, "error unmarshall network config", stdin=b'{"name":"net"}{}'),
    "a list": Case(6, "cannot unmarshal array", stdin=b"[1]"),
    "a string": Case(6, "cannot unmarshal string", stdin=b'"net"'),
    "null": Case(6, "cannot unmarshal null", stdin=b"null"),
    "NaN": Case(6, "error unmarshall network config", stdin=b'{"name":"net","mtu":NaN}'),
    "10 MB of spaces": Case(6, "stdin is too long", stdin=b" " * (10 * MEGABYTES)),
    "10 MB of JSON": Case(6, "too long", stdin=b'{"name":"' + b"n" * (10 * MEGABYTES) + b'"}'),
    "deep lists": Case(6, "error unmarshall network config", stdin=DEEP),
    "deep lists in a key": Case(6, "network config", stdin=b'{"name":"net","x":' + DEEP + b"}"),
    "deep objects": Case(
        6, "error unmarshall network config", stdin=at_each_depth(10_000, b"1", b'{"a":', b"}")
    ),
    "unclosed lists": Case(6, "error unmarshall network config", stdin=b"[" * 10_000),
    "not UTF-8": Case(6, "error unmarshall network config", stdin=b'{"name":"n\xff"}'),
    "half a character": Case(6, "error unmarshall network config", stdin=b'{"name":"n\xe2\x82"}'),
    "UTF-16": Case(6, "error unmarshall network config", stdin='{"name":"net"}'.encode("utf-16")),
    "NUL bytes": Case(6, "error unmarshall network config", stdin=b"\0" * 100),
    "NUL in a string": Case(6, "error unmarshall network config", stdin=b'{"name":"n\0"}'),
    "NUL at the end": Case(6, "error unmarshall network config", stdin=b'{"name":"net"}\0'),
}


@named(STDIN)
def test_stdin_that_is_no_network_configuration(program, case):
    """Whatever a pipe can hold."""
    check(program, case)


NAMES = {
    "no name": Case(7, "missing network name", keys={"name": ...}),
    "empty name": Case(7, "missing network name", keys={"name": ""}),
    "name of another type": Case(6, "cannot unmarshal number", keys={"name": 7}),
    "name with a slash": Case(7, "invalid characters found in network name", keys={"name": "a/b"}),
    "name that climbs": Case(7, "invalid characters", keys={"name": "../x"}),
    "name with NUL": Case(7, "invalid characters", keys={"name": "a\0b"}),
    "name with a line end": Case(7, "invalid characters", keys={"name": "net\n"}),
    "unknown version": Case(1, "incompatible CNI versions", keys={"cniVersion": "9.9.9"}),
    "nonsense version": Case(1, "incompatible CNI versions", keys={"cniVersion": "new"}),
    "version of another type": Case(6, "decoding version", keys={"cniVersion": 1.1}),
    "CHECK before its time": Case(1, "does not allow CHECK", "CHECK", keys={"cniVersion": "0.3.1"}),
    "GC before its time": Case(1, "does not allow GC", "GC", keys={"cniVersion": "1.0.0"}),
    "no ipam": Case(7, '"ipam"', keys={"ipam": ...}),
    "ipam null": Case(7, '"ipam"', keys={"ipam": None}),
    "ipam of another type": Case(7, '"ipam"', keys={"ipam": "cni-ipam"}),
    "ipam a list": Case(7, '"ipam"', keys={"ipam": []}),
    "ipam empty": Case(7, '"ipam.type"', keys={"ipam": {}}),
    "ipam.type of another type": Case(7, '"ipam.type"', ipam={"type": 7}),
    "ipam.type empty": Case(7, '"ipam.type"', ipam={"type": ""}),
    "GC without a list": Case(7, "cni.dev/valid-attachments", "GC"),
    "GC with half a list": Case(7, "ifname", "GC", keys={
        "cni.dev/valid-attachments": [{"containerID": "holder"}]}),
    "GC with no list": Case(7, "a list of", "GC", keys={"cni.dev/valid-attachments": "none"}),
}  # fmt: skip


@named(NAMES)
def test_network_configuration_without_its_bones(program, case):
    """Name, version, ipam; and for GC what is alive."""
    check(program, case)


VARIABLES = {
    "unknown verb": Case(4, "unknown CNI_COMMAND: PLEASE", "PLEASE"),
    "verb in small letters": Case(4, "unknown CNI_COMMAND: add", "add"),
    "no container": Case(4, "CNI_CONTAINERID", variables={"CNI_CONTAINERID": None}),
    "empty container": Case(4, "CNI_CONTAINERID", variables={"CNI_CONTAINERID": ""}),
    "no namespace": Case(4, "CNI_NETNS", variables={"CNI_NETNS": None}),
    "no interface": Case(4, "CNI_IFNAME", variables={"CNI_IFNAME": None}),
    "no path": Case(4, "CNI_PATH", variables={"CNI_PATH": None}),
    "nothing": Case(
        4,
        "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing",
        variables=dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")),
    ),
    "DEL without container": Case(4, "CNI_CONTAINERID", "DEL", variables={"CNI_CONTAINERID": None}),
    "DEL without interface": Case(4, "CNI_IFNAME", "DEL", variables={"CNI_IFNAME": None}),
    "CHECK without namespace": Case(4, "CNI_NETNS", "CHECK", variables={"CNI_NETNS": None}),
    "GC without path": Case(4, "CNI_PATH", "GC", variables={"CNI_PATH": None}),
    "STATUS without path": Case(4, "CNI_PATH", "STATUS", variables={"CNI_PATH": None}),
}
VARIABLES |= {
    f"container {value[:20]!r}": Case(4, "invalid characters in containerID", verb, variables={
        "CNI_CONTAINERID": value})
    for verb in ("ADD", "DEL")
    for value in ("../x", "a/b", ".hidden", "-x", "a b", "a;b", "a\n", "ü", "a%00", "a:b")
}  # fmt: skip
VARIABLES |= {
    f"interface {value[:20]!r}": Case(4, phrase, verb, variables={"CNI_IFNAME": value})
    for verb in ("ADD", "DEL")
    for value, phrase in {
        "e" * 16: "interface name is too long",
        "e" * 300: "interface name is too long",
        "üüüüüüüü": "interface name is too long",
        ".": "interface name is . or ..",
        "..": "interface name is . or ..",
        "../x": "interface name contains / or : or whitespace",
        "a:b": "interface name contains / or : or whitespace",
        "a b": "interface name contains / or : or whitespace",
        "eth0\n": "interface name contains / or : or whitespace",
        "eth\udcff": "interface name is not UTF-8",
    }.items()
}


@named(VARIABLES)
def test_environment_that_breaks_the_rules(program, case):
    """Verb, missing variables, names of containers and interfaces."""
    check(program, case)


def arguments(text: str, code: int, phrase: str, verb: str = "ADD") -> Case:
    return Case(code, phrase, verb, variables={"CNI_ARGS": text})


ARGUMENTS = {
    "two equals": arguments("A=b=c", 4, 'ARGS: invalid pair "A=b=c"'),
    "two equals for DEL": arguments("A=b=c", 4, 'ARGS: invalid pair "A=b=c"', "DEL"),
    "no equals": arguments("A", 4, 'ARGS: invalid pair "A"'),
    "semicolon at the end": arguments("IgnoreUnknown=1;", 4, 'ARGS: invalid pair ""'),
    "semicolon at the start": arguments(";IP=10.77.0.9", 4, 'ARGS: invalid pair ""'),
    "unknown key": arguments("COLOUR=red", 4, "ARGS: unknown args"),
    "key in other case": arguments("ip=10.77.0.9", 4, "ARGS: unknown args"),
    "unknown key, not ignored": arguments("IgnoreUnknown=0;COLOUR=red", 4, "ARGS: unknown args"),
    "no boolean": arguments("IgnoreUnknown=perhaps", 4, "boolean unmarshal error"),
    "not UTF-8": arguments("A=\udcff", 4, "CNI_ARGS is not UTF-8"),
    "no address": arguments("IP=10.77.0", 4, "invalid IP address: 10.77.0"),
    "address with a mask": arguments("IP=10.77.0.9/24", 4, "invalid IP address"),
    "two addresses": arguments("IP=10.77.0.9,10.77.0.10", 4, "invalid IP address"),
    "outside every pool": arguments("IP=10.200.0.9", 105, "not in a configured pool"),
    "in a disabled pool": arguments("IP=10.78.0.9", 105, "not in a configured pool"),
    "the pool's first": arguments("IP=10.77.0.0", 106, "kept back in pool pool"),
    "the gateway": arguments("IP=10.77.0.1", 106, "kept back in pool pool"),
    "the broadcast": arguments("IP=10.77.0.255", 106, "kept back in pool pool"),
    "in use": arguments(f"IP={HELD}", 104, "Address already assigned in block"),
    "family that is off": arguments("IP=fd00::9", 7, "IPv6 is off for this network"),
    "unspecified": arguments("IP=0.0.0.0", 105, "not in a configured pool"),
}


@named(ARGUMENTS)
def test_arguments_that_cannot_be_met(program, case):
    """The grammar of CNI_ARGS, and an address that this container cannot have."""
    check(program, case)


def test_family_without_a_pool_is_told(program):
    """IPv6 is on, but its address lies nowhere."""
    case = Case(105, "not in a configured pool", ipam={"assign_ipv6": "true"}, variables={
        "CNI_ARGS": "IP=fd00::9"})  # fmt: skip
    assert "no IPv6 pool" in check(program, case).document["details"]


def test_who_has_an_address_is_told(program):
    """The details name the holder."""
    answer = check(program, arguments(f"IP={HELD}", 104, "already exists"))
    assert "net.holder" in answer.document["details"]


CHOICES = {
    "unknown pool": Case(100, "nowhere", ipam={"ipv4_pools": ["nowhere"]}),
    "unknown CIDR": Case(100, "10.200.0.0/24", ipam={"ipv4_pools": ["10.200.0.0/24"]}),
    "disabled pool": Case(
        100, "(10.78.0.0/24) does not exist, or is not enabled", ipam={"ipv4_pools": ["off"]}
    ),
    "a good one and an unknown one": Case(100, "", ipam={"ipv4_pools": ["pool", "nowhere"]}),
    "no pool of the other family": Case(
        107, "cannot find a qualified ippool", ipam={"assign_ipv6": "true"}
    ),
    "no family": Case(7, "both families are switched off", ipam={"assign_ipv4": "false"}),
}


@named(CHOICES)
def test_pool_that_cannot_be_used(program, case):
    """Each with its name."""
    check(program, case)


def test_full_pool_says_how_full(program, tmp_path):
    """Eight addresses, three of them kept back for the subnet, five in use."""
    program = Program(tmp_path, program.wrapper)
    pool = {"name": "tiny", "spec": {"cidr": "10.79.0.0/29", "blockSize": 29}}
    netconf = program.netconf(ipam={"default_pools": [pool], "ipv4_pools": ["tiny"]})
    for number in range(5):
        assert program.call("ADD", f"t{number}", netconf).status == 0
    before = program.dump()
    answer = program.call("ADD", "t5", netconf)
    assert (1, 101) == (answer.status, answer.document["code"])
    assert "IPv4 addresses: Assigned 0 out of 1" in answer.document["msg"]
    assert "10.79.0.0/29" in answer.document["details"]
    assert "5 in use" in answer.document["details"]
    assert before == program.dump()


def test_no_pool_at_all_is_told(program, tmp_path):
    """A store that is new, and a netconf without default pools."""
    program = Program(tmp_path, program.wrapper)
    netconf = program.netconf(ipam={"default_pools": []})
    answer = program.call("ADD", "c1", netconf)
    assert (1, 100) == (answer.status, answer.document["code"])
    assert "cannot find a qualified ippool" in answer.document["msg"]
    assert program.dump() is None


def test_own_network_namespace_is_refused(program):
    """What a runtime's mistake would do to the node's own interfaces."""
    namespace = program.wrapper[1].partition("=")[2]
    case = Case(8, "netns", variables={"CNI_NETNS": namespace})
    check(program, case)


def test_own_network_namespace_may_be_wanted(program):
    """CNI_NETNS_OVERRIDE, as in the reference library."""
    namespace = program.wrapper[1].partition("=")[2]
    answer = program.call("ADD", "odd", CNI_NETNS=namespace, CNI_NETNS_OVERRIDE="1")
    assert answer.status == 0
    assert 0 == program.call("DEL", "odd").status


def test_reserved_address_is_given_on_request(program):
    """As in Calico: a reservation binds auto-assignment alone; the container is none the wiser."""
    reserve(program, "10.77.0.42/32")
    assert "10.77.0.42" == program.call("ADD", "wants", CNI_ARGS="IP=10.77.0.42").address
    assert 0 == program.call("DEL", "wants").status


def test_long_names_are_no_mistake(program):
    """The rules limit the letters of a container's name, not their number."""
    container = "c" * 300
    answer = program.call("ADD", container)
    assert {answer.address: f"net.{container}"}.items() <= program.survey().allocations.items()
    assert 0 == program.call("DEL", container).status


def test_log_file_that_cannot_be_written_fails_nobody(program):
    """It is said on stderr, and the address is given."""
    netconf = program.netconf(ipam={"log_file_path": f"{program.database}/log"})
    answer = program.call("ADD", "logged", netconf)
    assert answer.status == 0
    assert "log.unwritable" in answer.stderr
    assert 0 == program.call("DEL", "logged", netconf).status


@pytest.mark.parametrize("stdin", [b"", b"junk", b"\xff" * 100])
def test_version_needs_no_stdin(program, stdin):
    """VERSION answers whatever comes."""
    answer = program.call("VERSION", stdin=stdin)
    assert (0, "1.1.0") == (answer.status, answer.document["cniVersion"])


def reserve(program: Program, cidr: str) -> None:
    """Put an IPReservation into the store, as an administrator does."""
    store = SqliteDatastore(str(program.database))
    value = codec.new_resource("IPReservation", "kept", {"reservedCIDRs": [cidr]}, 1, bytes(16))
    store.commit([Write(keys.RESERVATIONS + "kept", value, ABSENT)])
    store.close()
