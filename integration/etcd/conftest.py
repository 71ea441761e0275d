"""Real etcd servers for every test that asks for them; none starts before.

Those of one member start once and serve the whole run; each test finds them running, without keys,
without alarms. Where a test fails, the ends of the servers' logs are shown with it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from integration.daemon import read_tail
from integration.etcd.certificates import LOOPBACK, make_certificates
from integration.etcd.lan import MEMBER_ADDRESSES
from integration.etcd.servers import VERSIONS, Cluster
from integration.network import find_obstacle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from integration.etcd.certificates import Certificates
    from integration.netns import Lab

CHEAP_PASSWORDS = "--bcrypt-cost=4"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        arguments = getattr(item, "funcargs", {})
        logs = {
            member.log
            for cluster in arguments.values()
            if isinstance(cluster, Cluster)
            for member in cluster.members
        }
        if "tmp_path" in arguments:
            logs.update(arguments["tmp_path"].rglob("m[123].log"))
        report.sections += [(f"etcd's log {log}", read_tail(log)) for log in sorted(logs)]
    return report


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA, what servers on the loopback and in namespaces show, what clients come with."""
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificates(folder, LOOPBACK + MEMBER_ADDRESSES)


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    """Starts a server under a name, or finds that which has been started, and clears it."""
    started: dict[str, Cluster] = {}
    with ExitStack() as stack:

        def get_cluster(name: str, version: str, **options: Any) -> Cluster:
            if name not in started:
                made = Cluster(version, tmp_path_factory.mktemp(name), **options)
                started[name] = stack.enter_context(made)
            started[name].clear()
            return started[name]

        yield get_cluster


@pytest.fixture
def etcd34(lasting: Callable[..., Cluster]) -> Cluster:
    """One member of 3.4, without TLS and users."""
    return lasting("etcd-3.4", "3.4")


@pytest.fixture
def etcd35(lasting: Callable[..., Cluster]) -> Cluster:
    """One member of 3.5, without TLS and users."""
    return lasting("etcd-3.5", "3.5")


@pytest.fixture(params=VERSIONS)
def etcd(request: pytest.FixtureRequest, lasting: Callable[..., Cluster]) -> Cluster:
    """One member, without TLS and users: of 3.4, and of 3.5."""
    return lasting(f"etcd-{request.param}", request.param)


@pytest.fixture(params=VERSIONS)
def etcd_tls(
    request: pytest.FixtureRequest, lasting: Callable[..., Cluster], certificates: Certificates
) -> Cluster:
    """One member that takes only clients with a certificate: of 3.4, and of 3.5."""
    return lasting(f"etcd-tls-{request.param}", request.param, tls=certificates)


@pytest.fixture(params=VERSIONS)
def etcd_auth(request: pytest.FixtureRequest, lasting: Callable[..., Cluster]) -> Cluster:
    """One member that takes only users: of 3.4, and of 3.5."""
    name = f"etcd-auth-{request.param}"
    return lasting(name, request.param, auth=True, flags=[CHEAP_PASSWORDS])


@pytest.fixture
def cluster(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Cluster]:
    """Three members in namespaces, the test's own; of 3.4, or of `indirect` parameters."""
    obstacle = find_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    version = getattr(request, "param", "3.4")
    with Cluster(version, tmp_path / "etcd", members=3, lab=lab, unsafe_no_fsync=True) as made:
        yield made
