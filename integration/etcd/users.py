"""The users and roles of tests with passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from integration.etcd.gateway import encode, end_of_prefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class User(NamedTuple):
    """A user of etcd's own."""

    name: str
    password: str


ROOT_USER = User("root", "root-of-the-test")
CALICO = User("calico", "calico-of-the-test")
READER = User("reader", "reader-of-the-test")
PREFIXES = ("/calico/", "/cni-ipam/")


def create_users(post: Callable[[str, dict[str, Any]], object]) -> None:
    """Turn users on, by the JSON gateway: root may do all, `CALICO` may write below `PREFIXES`,
    `READER` may read there."""
    for user in (ROOT_USER, CALICO, READER):
        post("/v3/auth/user/add", user._asdict())
        post("/v3/auth/role/add", {"name": user.name})
        post("/v3/auth/user/grant", {"user": user.name, "role": user.name})
    for user, permission in ((CALICO, "READWRITE"), (READER, "READ")):
        for prefix in PREFIXES:
            place = {"key": encode(prefix), "range_end": end_of_prefix(prefix)}
            held = {"permType": permission} | place
            post("/v3/auth/role/grant", {"name": user.name, "perm": held})
    post("/v3/auth/enable", {})
