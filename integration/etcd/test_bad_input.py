"""Settings of etcd that cannot be used: each by its name and value, before anything is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.etcd.node import EtcdNode, put_node, put_pool, read_records
from integration.etcd.proxy import Proxy
from integration.etcd.refusal import assert_refused, at_once, unchanged
from integration.etcd.servers import VERSIONS, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("cni-ipam", "calico-ipam")
VERBS = ("ADD", "DEL", "CHECK", "GC")
SECRET = "correct-horse-battery-staple"
GOOD = "http://127.0.0.1:1"
NO_ENDPOINTS = "no etcd endpoints specified: "
PORT = "its port is not a number from 1 to 65535"
BRACKETS = "there is no IPv6 address in its brackets"
SCHEME = "it does not begin with http:// or https://"
ENDPOINTS = {
    "": NO_ENDPOINTS,
    " , ,": NO_ENDPOINTS,
    "etcd": SCHEME,
    "127.0.0.1:2379": SCHEME,
    "unix:///run/etcd.sock": SCHEME,
    "ftp://127.0.0.1:2379": SCHEME,
    "http:/127.0.0.1:2379": SCHEME,
    "http://127.0.0.1": "it names no port",
    "http://": "it names no port",
    "http://:2379": "it names no host",
    "http://127.0.0.1:": PORT,
    "http://127.0.0.1:0": PORT,
    "http://127.0.0.1:65536": PORT,
    "http://127.0.0.1:-1": PORT,
    "http://127.0.0.1:2379x": PORT,
    "http://127.0.0.1:\u0662\u0663": PORT,
    "http://127.0.0.1:2379/v3": "it has a path",
    "http://127.0.0.1:2379?x=1": "it has a path",
    "http://127.0.0.1:2379 http://127.0.0.1:2380": "",
    "http://etcd_1 .example:2379": "it names no host",
    "http://::1:2379": "an IPv6 address stands in brackets",
    "http://fd00::1": "an IPv6 address stands in brackets",
    "http://[::1]": "it names no port",
    "http://[::1:2379": "it names no port",
    "http://[127.0.0.1]:2379": BRACKETS,
    "http://[fd00::g]:2379": BRACKETS,
}


@pytest.fixture(params=NAMES)
def node(request, tmp_path) -> EtcdNode:
    """The plugin under each of its names, on its way to an etcd."""
    return EtcdNode(tmp_path, [], name=request.param)


def call(node: EtcdNode, verb: str, *, variables: dict[str, str] | None = None, **keys: object):
    keys = {"cniVersion": "1.1.0", "datastore_type": "etcdv3"} | keys
    netconf = node.netconf(**{"cni.dev/valid-attachments": [], **keys})
    with at_once():
        return node.call(verb, "c1", netconf, **(variables or {}))


# Endpoints.


@pytest.mark.parametrize(("text", "why"), ENDPOINTS.items())
def test_endpoints_that_are_none_are_told(node, text, why):
    """Where they stand, what they are, and what would be right."""
    answer = call(node, "ADD", etcd_endpoints=text)
    assert_refused(answer, 7, '"etcd_endpoints" is ', why, "it must be a list such as https://")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_needs_endpoints(node, verb):
    """A DEL, too, since nobody could say where the address was."""
    assert_refused(call(node, verb, etcd_endpoints=""), 7, NO_ENDPOINTS)


@pytest.mark.parametrize("text", ["", "etcd", f"{GOOD},https://127.0.0.1:2"])
def test_status_tells_that_no_add_can_be_served(node, text):
    """Always: this is no outage that passes."""
    assert_refused(call(node, "STATUS", etcd_endpoints=text), 50, "etcd_endpoints")


def test_the_second_endpoint_is_told_by_its_number(node):
    """One wrong one spoils the list."""
    answer = call(node, "ADD", etcd_endpoints=f"{GOOD},etcd")
    assert_refused(answer, 7, f'endpoint 2 of "etcd_endpoints" is "etcd": {SCHEME}')


def test_mixed_schemes_are_told(node):
    """A password would go in the clear to some."""
    answer = call(node, "ADD", etcd_endpoints=f"https://127.0.0.1:2,{GOOD}")
    assert_refused(answer, 7, '"etcd_endpoints" mixes http and https: https://127.0.0.1:2 and')


@pytest.mark.parametrize(
    "text",
    [
        f"http://root:{SECRET}@127.0.0.1:2379",
        f"{GOOD},http://root:{SECRET}@127.0.0.1:2379",
        f"root:{SECRET}@127.0.0.1",
        f"http://127.0.0.1:2379/{SECRET}@",
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_password_in_an_endpoint_is_not_repeated(node, verb, text):
    """Not in the answer, nor in the log at its most talkative."""
    log = node.folder / "log"
    loud = {"log_level": "debug", "log_file_path": str(log)}
    answer = call(node, verb, etcd_endpoints=text, **loud)
    assert_refused(answer, 7, "is not shown", secrets=[SECRET])
    assert SECRET not in (log.read_text() if log.exists() else "")


@pytest.mark.parametrize("prefix", ["", "CALICO_"])
def test_a_wrong_variable_is_told_by_its_name(node, prefix):
    """Code 4: it is the environment that is wrong."""
    variables = {f"{prefix}ETCD_ENDPOINTS": "etcd", f"{prefix}DATASTORE_TYPE": "etcdv3"}
    answer = call(node, "ADD", variables=variables, etcd_endpoints="")
    assert_refused(answer, 4, f'endpoint 1 of {prefix}ETCD_ENDPOINTS is "etcd": ')


def test_discovery_is_not_supported(node):
    """Whether or not there are endpoints, too."""
    for endpoints in ("", GOOD):
        answer = call(node, "ADD", etcd_discovery_srv="example.org", etcd_endpoints=endpoints)
        assert_refused(
            answer, 2, '"etcd_discovery_srv" is "example.org"', "not supported", "etcd_endpoints"
        )


# What goes together.


@pytest.mark.parametrize(
    ("said", "missing"),
    [("etcd_cert_file", "etcd_key_file"), ("etcd_key_file", "etcd_cert_file")],
)
def test_half_a_pair_of_files_is_told(node, said, missing):
    """Whichever is missing."""
    answer = call(node, "ADD", etcd_endpoints="https://127.0.0.1:2", **{said: "/nonexistent"})
    assert_refused(answer, 7, f'"{said}" is set, but "{missing}" is not')


@pytest.mark.parametrize("said", ["ETCD_USERNAME", "ETCD_PASSWORD", "CALICO_ETCD_PASSWORD"])
def test_half_a_user_is_told_without_its_value(node, said):
    """Calico would ignore it in silence, and then be refused for another reason."""
    answer = call(node, "ADD", variables={said: SECRET}, etcd_endpoints=GOOD)
    assert_refused(answer, 4, f"{said} is set, but ", secrets=[SECRET])


def test_a_key_where_a_path_belongs_is_not_repeated(node):
    """It is the private key."""
    text = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"
    answer = call(node, "ADD", etcd_endpoints="https://127.0.0.1:2", etcd_key_file=text)
    assert_refused(answer, 7, '"etcd_key_file" holds a PEM text', secrets=[SECRET])


# What looks wrong but is not.


@pytest.fixture(scope="module")
def etcd6(tmp_path_factory) -> Iterator[Cluster]:
    """A member on ::1."""
    with Cluster("3.5", tmp_path_factory.mktemp("etcd6"), host="::1") as cluster:
        put_pool(cluster, "pool1", "10.0.0.0/24", blockSize=29)
        put_node(cluster, "node1")
        yield cluster


def test_an_ipv6_literal_in_brackets_is_an_endpoint(etcd6, node):
    """Both names of the plugin use it; without the brackets it is refused."""
    assert etcd6.endpoints[0].startswith("http://[::1]:")
    address = call(node, "ADD", etcd_endpoints=etcd6.endpoints[0]).address
    assert {address: "net.c1"} == read_records(etcd6).allocations
    assert 0 == call(node, "DEL", etcd_endpoints=etcd6.endpoints[0]).status
    bare = etcd6.endpoints[0].replace("[", "").replace("]", "")
    with unchanged(etcd6):
        answer = call(node, "ADD", etcd_endpoints=bare)
    assert_refused(answer, 7, "an IPv6 address stands in brackets: http://[fd00::1]:2379")


@pytest.mark.parametrize("version", VERSIONS)
def test_blanks_slashes_and_repetitions_do_no_harm(lasting, node, version):
    """As Calico takes them, and names as well as addresses."""
    cluster = lasting(f"etcd-{version}", version)
    put_pool(cluster, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(cluster, "node1")
    with Proxy(cluster.endpoints[0]) as proxy:
        name = proxy.endpoint.replace("127.0.0.1", "localhost")
        text = f" {proxy.endpoint}/ , {proxy.endpoint.upper()},,{name} "
        assert 0 == call(node, "ADD", etcd_endpoints=text).status
        assert 0 == call(node, "DEL", etcd_endpoints=text).status


def test_nothing_of_a_refused_call_stays_behind(node, tmp_path: Path):
    """It comes before the lock file is made."""
    call(node, "ADD", etcd_endpoints="etcd")
    assert [] == list(tmp_path.iterdir())
