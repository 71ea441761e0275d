"""What the plugin imports in a fresh process, verb by verb: a list, since imports are its start-up.

A name that appears here by surprise costs every pod of every node; one that is meant to be there
is added to the list, with a look at what it takes (`python -X importtime`).
"""

from __future__ import annotations

import pytest

from tests.imported import find_imports, foreign, own

# Modules in C, which load in a tenth of a millisecond, and the one in Python that has no code.
FOREIGN = {"__future__", "_functools", "_json", "_sqlite3", "errno", "fcntl"}

ALWAYS = """
cni.fields cni.netconf cni.request cni.result cni.settings cni.version
core.address core.handle datastore.open errors
lean.folder lean.json lean.lock lean.log lean.record
plugin.context plugin.main routes.plan workload.arguments
"""
WITH_STORE = f"""{ALWAYS}
core.affinity core.block core.check core.config core.moment core.pool core.reservation
datastore.codec datastore.keys datastore.port datastore.sqlite
ipam.view lean.sqlite
"""
ADD = f"""{WITH_STORE}
core.gateway core.walk
ipam.assign ipam.claim ipam.draft ipam.fixed ipam.labels ipam.pools ipam.retry ipam.wish
plugin.add plugin.recorded plugin.wish
"""
DEL = f"""{WITH_STORE}
ipam.draft ipam.release ipam.retry plugin.delete
"""
EXPECTED = {
    "VERSION": ALWAYS,
    # The rules of pools are needed once in a datastore's life.
    "first ADD": f"{ADD} core.names core.pool_rules core.selector",
    "ADD": ADD,
    "CHECK": f"{WITH_STORE} cni.result plugin.check plugin.recorded",
    "DEL": DEL,
    "GC": f"{DEL} ipam.collect plugin.gc",
    "STATUS": f"{WITH_STORE} core.gateway core.utilization plugin.status",
}


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The imports of each verb, in the life of one attachment."""
    folder = tmp_path_factory.mktemp("imports")
    pool = {"name": "pool1", "spec": {"cidr": "10.0.0.0/24"}}
    conf = {"sqlite_path": str(folder / "ipam.db"), "default_pools": [pool]}
    return find_imports(conf, folder)


@pytest.mark.parametrize("verb", EXPECTED)
def test_a_verb_imports_its_list_of_our_modules(verb, imports):
    """No more, and no less, so that the list stays true."""
    assert set(EXPECTED[verb].split()) == own(imports[verb])


@pytest.mark.parametrize("verb", EXPECTED)
def test_a_verb_imports_nothing_else_but_c(verb, imports):
    """No module of the standard library in Python."""
    assert foreign(imports[verb]) <= FOREIGN
