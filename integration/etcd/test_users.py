"""Users of etcd's: one request more, and whoever may not is told so, without his password."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from cni_ipam.datastore import keys
from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.lean.http import parse_endpoint
from integration.etcd.gateway import encode, end_of_prefix
from integration.etcd.node import EtcdNode, put_node, put_pool, read_records
from integration.etcd.proxy import Proxy
from integration.etcd.refusal import assert_refused, at_once, unchanged
from integration.etcd.servers import VERSIONS
from integration.etcd.users import CALICO, PREFIXES, READER, ROOT_USER, User
from integration.network import BUNDLE, becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.etcd.servers import Cluster
    from integration.program import Answer

VERBS = ("ADD", "DEL", "CHECK", "GC")
UNAUTHORIZED = "connection is unauthorized: "
AUTHENTICATE = "/v3/auth/authenticate"
# Not root's tokens, which end a moment before.
DELETED = re.compile(f'deleted .*token.*"{CALICO.name}"')
AWKWARD = User("päul", "a\"b\\c,d:e@f g\u20ac'")


@pytest.fixture
def etcd(etcd_auth) -> Cluster:
    """Users are on; there are a pool and a node."""
    put_pool(etcd_auth, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(etcd_auth, "node1")
    return etcd_auth


@pytest.fixture
def proxy(etcd) -> Iterator[Proxy]:
    with Proxy(etcd.endpoints[0]) as proxy:
        yield proxy


def variables(user: User, prefix: str = "") -> dict[str, str]:
    """The environment that names a user."""
    return {f"{prefix}ETCD_USERNAME": user.name, f"{prefix}ETCD_PASSWORD": user.password}


MARKER = keys.DEFAULT_POOLS_MADE + "pool"


def call(node: EtcdNode, verb: str, user: User | None = None, container: str = "c1") -> Answer:
    netconf = node.netconf(**{"cni.dev/valid-attachments": []})
    return node.call(verb, container, netconf, **(variables(user) if user else {}))


def add_user(etcd: Cluster, user: User, *prefixes: str) -> User:
    """A user who may write below `prefixes`; that there is one already is fine."""
    token = etcd.login(ROOT_USER)
    found = etcd.post("/v3/auth/user/list", {}, token=token)
    if user.name in found.get("users", []):
        return user
    etcd.post("/v3/auth/user/add", user._asdict(), token=token)
    etcd.post("/v3/auth/role/add", {"name": user.name}, token=token)
    etcd.post("/v3/auth/user/grant", {"user": user.name, "role": user.name}, token=token)
    for prefix in prefixes:
        place = {"key": encode(prefix), "range_end": end_of_prefix(prefix)}
        held = {"permType": "READWRITE"} | place
        etcd.post("/v3/auth/role/grant", {"name": user.name, "perm": held}, token=token)
    return user


# Who may.


@pytest.mark.parametrize("name", ["cni-ipam", "calico-ipam"])
def test_an_attachment_lives_and_goes(etcd, proxy, tmp_path, name):
    """Under both names, by environment alone."""
    node = EtcdNode(tmp_path, [proxy.endpoint], name=name)
    address = call(node, "ADD", CALICO).address
    assert {address: "net.c1"} == read_records(etcd).allocations
    for verb in ("CHECK", "DEL"):
        assert 0 == call(node, verb, CALICO).status
    assert ({}, []) == (read_records(etcd).allocations, read_records(etcd).findings)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_user_costs_one_request(proxy, tmp_path, verb):
    """For the token; the others are as many as without users."""
    node = EtcdNode(tmp_path, [proxy.endpoint])
    call(node, "ADD", CALICO, "c0")
    proxy.clear()
    assert 0 == call(node, verb, CALICO, "c1" if verb == "ADD" else "c0").status
    assert (1, 4) == (proxy.count(AUTHENTICATE), proxy.count())


def test_the_prefixed_variables_win(proxy, tmp_path):
    """As in Calico's client."""
    node = EtcdNode(tmp_path, [proxy.endpoint])
    wrong = variables(User("nobody", "wrong"))
    assert 0 == node.call("ADD", "c1", **wrong, **variables(CALICO, "CALICO_")).status
    answer = node.call(
        "ADD", "c1", **variables(CALICO), **variables(User("nobody", "x"), "CALICO_")
    )
    assert_refused(answer, 110)


def test_any_letters_may_stand_in_a_name_and_a_password(etcd, proxy, tmp_path):
    """Quotes, commas, other alphabets."""
    user = add_user(etcd, AWKWARD, *PREFIXES)
    assert 0 == call(EtcdNode(tmp_path, [proxy.endpoint]), "ADD", user).status


@pytest.mark.parametrize("verb", VERBS)
def test_a_user_where_none_is_needed_does_no_harm(etcd34, etcd35, tmp_path, verb):
    """Calico's client goes on without a token, too."""
    for cluster in (etcd34, etcd35):
        put_pool(cluster, "pool1", "10.0.0.0/24", blockSize=29)
        put_node(cluster, "node1")
        with Proxy(cluster.endpoints[0]) as proxy:
            node = EtcdNode(tmp_path, [proxy.endpoint])
            assert 0 == call(node, "ADD").status
            assert 0 == call(node, verb, CALICO).status


# Who may not.


@pytest.mark.parametrize(
    ("user", "why"),
    [
        (User(CALICO.name, "wrong-horse"), "authentication failed, invalid user ID or password"),
        (User("nobody", "wrong-horse"), "authentication failed, invalid user ID or password"),
        (None, "user name is empty"),
    ],
    ids=["wrong password", "unknown", "none"],
)
def test_who_is_not_known_is_refused(etcd, proxy, tmp_path, user, why):
    """By every verb, at once; the message is etcd's and names where users are set."""
    node = EtcdNode(tmp_path, [proxy.endpoint])
    call(node, "ADD", CALICO)
    for verb in VERBS:
        with unchanged(etcd), at_once():
            answer = call(node, verb, user)
        assert_refused(answer, 110, UNAUTHORIZED, why, "ETCD_USERNAME", secrets=["wrong-horse"])


def test_who_may_only_read_changes_nothing(etcd, proxy, tmp_path):
    """He can CHECK; DEL of what is not there needs no permission to write."""
    node = EtcdNode(tmp_path, [proxy.endpoint])
    call(node, "ADD", CALICO, "c0")
    with unchanged(etcd), at_once():
        assert_refused(call(node, "ADD", READER), 110, UNAUTHORIZED + "etcdserver: permission")
        assert_refused(call(node, "DEL", READER, "c0"), 110, "permission denied")
        assert_refused(call(node, "GC", READER), 110, "permission denied")
        assert 0 == call(node, "CHECK", READER, "c0").status
        assert 0 == call(node, "DEL", READER, "never").status


@pytest.mark.parametrize("prefixes", [("/cni-ipam/",), ("/calico/resources/",), ("/calico/ipam/",)])
def test_who_lacks_a_prefix_is_refused(etcd, proxy, tmp_path, prefixes):
    """An ADD needs pools, nodes and records."""
    user = User(f"part{''.join(prefixes).replace('/', '-')}", "part-of-the-test")
    node = EtcdNode(tmp_path, [proxy.endpoint])
    add_user(etcd, user, *prefixes)
    with unchanged(etcd), at_once():
        answer = call(node, "ADD", user)
    assert_refused(answer, 110, "permission denied", *PREFIXES, secrets=[user.password])


def test_who_has_the_prefix_of_calico_serves_its_pools(etcd, proxy, tmp_path):
    """Ours in place of Calico's plugin, with Calico's own user: no other key is touched."""
    user = User("calico-alone", "part-of-the-test")
    node = EtcdNode(tmp_path, [proxy.endpoint], name="calico-ipam")
    add_user(etcd, user, "/calico/")
    for verb in ("ADD", "DEL"):
        assert 0 == call(node, verb, user).status


@pytest.mark.parametrize("is_told", [False, True])
def test_status_tells_it_only_where_that_is_asked_for(proxy, tmp_path, is_told):
    """A wrong password must not take every node down by default."""
    node = EtcdNode(tmp_path, [proxy.endpoint], status_when_unreachable=is_told)
    with at_once(2):
        answer = call(node, "STATUS", User(CALICO.name, "wrong-horse"))
    if is_told:
        assert_refused(answer, 50, "invalid user ID or password")
    else:
        assert (0, b"") == (answer.status, answer.stdout)
        assert "invalid user ID or password" in answer.stderr


# Tokens that end.


def open_long_lived(proxy: Proxy) -> EtcdDatastore:
    """A client that has a token."""
    endpoints = [parse_endpoint(proxy.endpoint)]
    store = EtcdDatastore(endpoints, username=CALICO.name, password=CALICO.password)
    store.read([Range(keys.POOLS, prefix=True)])
    assert 1 == proxy.count(AUTHENTICATE)
    return store


@pytest.fixture
def store(proxy) -> Iterator[EtcdDatastore]:
    store = open_long_lived(proxy)
    yield store
    store.close()


def test_a_token_that_etcd_takes_back_is_replaced(etcd, proxy, store):
    """For reading and for writing; each time one more request for it."""
    etcd.expire_tokens(CALICO)
    assert [keys.POOLS + "pool1"] == [
        e.key for e in store.read([Range(keys.POOLS, prefix=True)])[0]
    ]
    etcd.expire_tokens(CALICO)
    store.commit([Write(MARKER, "{}", ABSENT)])
    assert [["{}"]] == [[e.value for e in found] for found in store.read([Range(MARKER)])]
    assert 3 == proxy.count(AUTHENTICATE)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_token_that_has_run_out_is_replaced(lasting, version):
    """As after five minutes without a request; here it is three seconds."""
    flags = ["--bcrypt-cost=4", "--auth-token-ttl=3", "--logger=zap"]
    cluster = lasting(f"etcd-short-tokens-{version}", version, auth=True, flags=flags)
    member = cluster.members[0]
    with ExitStack() as stack, Proxy(cluster.endpoints[0]) as proxy:
        known = len(DELETED.findall(member.log.read_text()))
        stack.callback((store := open_long_lived(proxy)).close)
        assert becomes_true(lambda: len(DELETED.findall(member.log.read_text())) > known)
        store.commit([Write(MARKER, "{}", ABSENT)])
        assert 2 == proxy.count(AUTHENTICATE)


def test_a_password_that_was_changed_is_told(etcd, proxy, store):
    """The token is gone, and there is no other."""
    token = etcd.login(ROOT_USER)
    change = "/v3/auth/user/changepw"
    etcd.post(change, {"name": CALICO.name, "password": "changed"}, token=token)
    try:
        with pytest.raises(Exception, match="invalid user ID or password") as caught:
            store.read([Range(keys.POOLS, prefix=True)])
    finally:
        etcd.post(change, CALICO._asdict(), token=etcd.login(ROOT_USER))
    assert 110 == caught.value.code
    assert [keys.POOLS + "pool1"] == [
        e.key for e in store.read([Range(keys.POOLS, prefix=True)])[0]
    ]


# The operator's tool.


def ipamctl(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], "COLUMNS": "200", "CNI_NETCONF_DIR": str(folder)}
    return subprocess.run(
        [str(BUNDLE / "ipamctl"), *words],
        env=own | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write_config(folder: Path, proxy: Proxy, user: User) -> str:
    spec = {"datastoreType": "etcdv3", "etcdEndpoints": proxy.endpoint}
    spec |= {"etcdUsername": user.name, "etcdPassword": user.password}
    head = {"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "metadata": {}}
    path = folder / "calicoctl.cfg"
    path.write_text(yaml.safe_dump({**head, "spec": spec}))
    return str(path)


def test_the_operator_is_a_user_by_environment(proxy, tmp_path):
    """Or is not."""
    known = {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": proxy.endpoint}
    done = ipamctl(tmp_path, "get", "ippool", **known, **variables(CALICO))
    assert (0, True) == (done.returncode, "pool1" in done.stdout), done.stderr
    done = ipamctl(tmp_path, "get", "ippool", **known, **variables(User("nobody", "wrong-horse")))
    assert (1, True) == (done.returncode, "invalid user ID or password" in done.stderr)
    assert "wrong-horse" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_operator_is_a_user_by_config_file(proxy, tmp_path):
    """With calicoctl's words."""
    done = ipamctl(tmp_path, "-c", write_config(tmp_path, proxy, CALICO), "get", "ippool")
    assert (0, True) == (done.returncode, "pool1" in done.stdout), done.stderr
    user = User(CALICO.name, "wrong-horse")
    done = ipamctl(tmp_path, "-c", write_config(tmp_path, proxy, user), "get", "ippool")
    assert (1, True) == (done.returncode, "invalid user ID or password" in done.stderr)
    assert "wrong-horse" not in done.stdout + done.stderr


# Secrets.


@pytest.mark.parametrize("password", [CALICO.password, "wrong-horse"])
def test_the_password_is_nowhere_to_be_read(proxy, tmp_path, password):
    """Not in answers, the log at its most talkative, or what others see of a running process."""
    log = tmp_path / "log"
    node = EtcdNode(tmp_path, [proxy.endpoint], log_level="debug", log_file_path=str(log))
    said = ""
    for verb in (*VERBS, "STATUS"):
        fault = proxy.hold_answer(1)
        netconf = node.netconf(**{"cni.dev/valid-attachments": []})
        call = node.start(verb, "c1", netconf, **variables(User(CALICO.name, password)))
        call.give()
        fault.wait()
        said += Path(f"/proc/{call._process.pid}/cmdline").read_text()
        fault.forward()
        answer = call.answer()
        said += answer.stdout.decode() + answer.stderr
    said += log.read_text()
    assert "ADD" in said
    assert password not in said
    assert encode(password) not in said
