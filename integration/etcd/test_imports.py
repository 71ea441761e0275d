"""What the plugin imports where its datastore is etcd: the list of SQLite with other doors."""

from __future__ import annotations

import pytest

from integration.etcd.node import put_node, put_pool
from tests.imported import find_imports, foreign, own
from tests.test_imports import EXPECTED, FOREIGN

PLAIN = {"datastore.sqlite": "datastore.etcd", "lean.sqlite": "lean.http"}
ADDED = {"cni.etcd_settings", "datastore.etcd_client"}
C_MODULES = FOREIGN - {"_sqlite3", "_functools"} | {"_socket", "binascii"}
NEVER_ASKED = {"VERSION"}
# Pools are ready in etcd: the first ADD has none to make.
SAME_AS = {"first ADD": "ADD"}


def expected(verb: str, *more: str) -> set[str]:
    """Our modules for a verb."""
    names = set(EXPECTED[SAME_AS.get(verb, verb)].split())
    if verb in NEVER_ASKED:
        return names
    return {PLAIN.get(name, name) for name in names} | ADDED | set(more)


@pytest.fixture(scope="module")
def imports(tmp_path_factory, lasting):
    """The imports of each verb without TLS, in the life of one attachment."""
    cluster = lasting("etcd-3.4", "3.4")
    put_pool(cluster, "pool1", "10.0.0.0/24")
    put_node(cluster, "node1")
    conf = {"etcd_endpoints": ",".join(cluster.endpoints)}
    return find_imports(conf, tmp_path_factory.mktemp("imports"))


@pytest.fixture(scope="module")
def imports_tls(tmp_path_factory, lasting, certificates):
    """The same with TLS."""
    cluster = lasting("etcd-tls-3.4", "3.4", tls=certificates)
    put_pool(cluster, "pool1", "10.0.0.0/24")
    put_node(cluster, "node1")
    conf = {
        "etcd_endpoints": ",".join(cluster.endpoints),
        "etcd_ca_cert_file": str(certificates.ca),
        "etcd_cert_file": str(certificates.client.cert),
        "etcd_key_file": str(certificates.client.key),
    }
    return find_imports(conf, tmp_path_factory.mktemp("imports-tls"))


@pytest.mark.parametrize("verb", EXPECTED)
def test_a_verb_imports_its_list_of_our_modules(verb, imports):
    """No more, and no less: TLS is not among them."""
    assert expected(verb) == own(imports[verb])


@pytest.mark.parametrize("verb", EXPECTED)
def test_a_verb_imports_nothing_else_but_c(verb, imports):
    """No module of the standard library in Python."""
    assert foreign(imports[verb]) <= C_MODULES


@pytest.mark.parametrize("verb", sorted(EXPECTED.keys() - NEVER_ASKED))
def test_encryption_takes_one_module_more(verb, imports_tls):
    """Of ours, and one in C."""
    assert expected(verb, "lean.tls") == own(imports_tls[verb])
    assert foreign(imports_tls[verb]) <= C_MODULES | {"_ssl"}
