"""Values of the wrong kind in each key of the network configuration: the message names the key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.mistakes import Case, check, store_in_use
from integration.network import find_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from integration.program import Program

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

WRONG: dict[str, list[Any]] = {
    "agent": [7, "localhost", [], "/a\0b"],
    "assign_ipv4": [True, 1, []],
    "assign_ipv6": [False, {}],
    "create_default_pools": ["yes", 1],
    "datastore_type": [7, "mysql", ["sqlite"]],
    "default_pools": [
        {}, "pool", [7], [{}], [{"spec": 7}], [{"spec": {"cidr": 7}}], [{"spec": {"cidr": "x"}}],
        [{"name": 7, "spec": {"cidr": "10.99.0.0/24"}}],
        [{"name": "../x", "spec": {"cidr": "10.99.0.0/24"}}],
        [{"spec": {"cidr": "10.99.0.0/24", "blockSize": 40}}],
        [{"spec": {"cidr": "10.99.0.0/24", "blockSize": "26"}}],
        [{"spec": {"cidr": "10.77.0.0/25"}}],
    ],
    "etcd_endpoints": [7, ["http://127.0.0.1:2379"]],
    "gateway": [7, "first", "10.77.0.1/24", []],
    "hostname": [7],
    "ipam_lock_file": [7, "/a\0b"],
    "ipam_lock_timeout": ["60", 0, -1, True],
    "ipv4_pools": ["pool", [7], {}],
    "ipv6_pools": [7, [None]],
    "kubernetes": ["x", [], 7],
    "log_file_max_age": ["30", -1, 1.5],
    "log_file_max_count": [[], -1],
    "log_file_max_size": [True, 10**12],
    "log_file_path": [7, "/a\0b"],
    "log_level": [7],
    "mask": [7, "24", "host"],
    "nodename": [7, "a/b", "a\nb", "n" * 300],
    "nodename_file": [7],
    "routes": [
        7, [], {"host": "yes"}, {"blackhole": 1}, {"proto": 80}, {"proto": 2}, {"proto": 256},
        {"proto": "85"}, {"table": 0}, {"table": 1.5}, {"table": 2**40},
    ],
    "sqlite_path": [7, "ipam.db", "/a\0b"],
    "status_when_exhausted": ["true"],
    "status_when_unreachable": [0],
}  # fmt: skip
OUTER: dict[str, list[Any]] = {
    "args": [7, {"cni": 7}, {"cni": {"ips": 7}}, {"cni": {"ips": ["10.77.0.300"]}}],
    "prevResult": ["x", [], 7],
    "runtimeConfig": [
        7, [], {"ips": "10.77.0.9"}, {"ips": [7]}, {"ips": ["10.77.0.9/33"]},
        {"ips": ["10.77.0.9", "10.77.0.10"]},
    ],
    "type": [7, {}],
}  # fmt: skip
TYPES = {
    **{
        f"ipam.{key}={json.dumps(value)[:50]}": (key, Case(7, key, ipam={key: value}))
        for key, values in WRONG.items()
        for value in values
    },
    **{
        f"{key}={json.dumps(value)[:50]}": (key, Case(7, key, keys={key: value}))
        for key, values in OUTER.items()
        for value in values
    },
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Cases change nothing, so they share one."""
    with store_in_use(tmp_path_factory.mktemp("store")) as program:
        yield program


@pytest.mark.parametrize(("key", "case"), TYPES.values(), ids=TYPES.keys())
def test_value_of_the_wrong_kind(program, key, case):
    """The message names the key."""
    if key == "datastore_type" and "mysql" in str(case.ipam):
        case = Case(7, "unknown datastore type: mysql", ipam=case.ipam)
    check(program, case)
