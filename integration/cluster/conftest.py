"""A cluster for every test that asks for it: it starts once, and each test finds it cleared.

Where a test fails, the ends of the logs of all parts are shown with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster.cluster import Cluster, find_cluster_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        report.sections += [
            (f"ip {what}", cluster.machine.run("ip", what, check=False).stdout)
            for what in ("address", "route", "neigh")
        ]
        report.sections += [
            (f"log {process.log}", process.read_tail()) for process in cluster.machine.processes
        ]
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node that is ready, with the reference plugins' network."""
    obstacle = find_cluster_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(autouse=True)
def _clear(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clears the cluster after each test that had it."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").clear()
