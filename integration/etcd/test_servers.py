"""The harness itself: the servers are what it says they are, and fail in the way it says."""

from __future__ import annotations

import dataclasses
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
import urllib.request
from http import HTTPStatus
from pathlib import Path
from urllib.error import URLError

import pytest

from integration.etcd.gateway import ANSWER_SECONDS, GatewayError, decode, encode, request
from integration.etcd.servers import VERSIONS, Cluster
from integration.etcd.users import CALICO, PREFIXES, READER, User
from integration.network import ROOT, becomes_true

VALUE = encode("value")
PUT = {"key": encode("/calico/key"), "value": VALUE}
RANGE = {"key": encode("/calico/key")}


def read_keys(cluster):
    return cluster.etcdctl("get", "", "--prefix", "--keys-only").stdout.split()


def ask_health(cluster, cafile, pair=None):
    """What a client says and gets that trusts `cafile` and comes with `pair`, or with nothing."""
    context = ssl.create_default_context(cafile=str(cafile))
    if pair:
        context.load_cert_chain(pair.cert, pair.key)
    with urllib.request.urlopen(
        f"{cluster.endpoints[0]}/health", timeout=ANSWER_SECONDS, context=context
    ) as answer:
        return answer.read().decode()


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_ended(pid):
    """Also a process that nobody has waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


# One member


def test_each_version_is_what_it_says(etcd):
    """The server under test is 3.4 or 3.5 as its fixture is named."""
    status = etcd.post("/v3/maintenance/status", {})
    assert etcd.version == status["version"].rpartition(".")[0]


def test_etcdctl_and_the_gateway_see_the_same_keys(etcd):
    """What one writes the other reads."""
    etcd.etcdctl("put", "/calico/key", "value")
    found = etcd.post("/v3/kv/range", RANGE)["kvs"]
    assert ["value"] == [decode(entry["value"]) for entry in found]


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_no_keys(etcd, turn):
    """What the other turn left is gone."""
    found = read_keys(etcd)
    etcd.post("/v3/kv/put", PUT)
    assert [] == found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_the_server_at_work(etcd34, turn, number):
    """Though the other turn killed or stopped it."""
    assert "kvs" not in etcd34.post("/v3/kv/range", RANGE)
    etcd34.kill(etcd34.members[0], number)


def test_a_restarted_member_has_its_data(etcd):
    """Killed without a chance to write anything, it knows what it had acknowledged."""
    etcd.post("/v3/kv/put", PUT)
    etcd.kill(etcd.members[0])
    etcd.restart(etcd.members[0])
    assert ["/calico/key"] == read_keys(etcd)


def test_a_stopped_member_does_not_answer(etcd35):
    """Until it is continued."""
    member = etcd35.members[0]
    etcd35.kill(member, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            etcd35.post("/v3/kv/range", RANGE)
    finally:
        etcd35.kill(member, signal.SIGCONT)
    assert "kvs" not in etcd35.post("/v3/kv/range", RANGE)


def test_compacted_revisions_are_refused(etcd):
    """The present one can be read, the one before no more."""
    etcd.post("/v3/kv/put", PUT)
    etcd.post("/v3/kv/put", PUT)
    revision = etcd.compact()
    assert "1" == etcd.post("/v3/kv/range", RANGE | {"revision": revision})["count"]
    with pytest.raises(GatewayError, match="has been compacted"):
        etcd.post("/v3/kv/range", RANGE | {"revision": revision - 1})


def test_the_alarm_refuses_a_put_until_it_is_disarmed(etcd):
    """Reading goes on."""
    etcd.arm_no_space()
    with pytest.raises(GatewayError, match="database space exceeded"):
        etcd.post("/v3/kv/put", PUT)
    assert "kvs" not in etcd.post("/v3/kv/range", RANGE)
    etcd.disarm()
    etcd.post("/v3/kv/put", PUT)
    assert ["/calico/key"] == read_keys(etcd)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_small_quota_fills_up_and_is_made_free_again(version, tmp_path):
    """The real thing: the alarm comes from etcd."""
    with Cluster(version, tmp_path, quota_bytes=2**20, unsafe_no_fsync=True) as cluster:
        cluster.fill()
        assert "NOSPACE" in cluster.etcdctl("alarm", "list").stdout
        with pytest.raises(GatewayError, match="database space exceeded"):
            cluster.post("/v3/kv/put", PUT)
        cluster.make_room()
        cluster.post("/v3/kv/put", PUT)
        assert ["/calico/key"] == read_keys(cluster)


def test_a_server_listens_on_ipv6(tmp_path):
    """Its endpoint is an IPv6 literal."""
    with Cluster("3.5", tmp_path, host="::1") as cluster:
        assert cluster.endpoints[0].startswith("http://[::1]:")
        assert "kvs" not in cluster.post("/v3/kv/range", RANGE)


def test_a_server_that_cannot_start_says_why(tmp_path):
    """The end of its log is in the error, and nothing is left running."""
    cluster = Cluster("3.4", tmp_path, flags=["--no-such-flag"])
    with pytest.raises(AssertionError, match="no-such-flag"), cluster:
        pass
    assert not cluster.members[0].is_running


def test_nothing_is_left_of_a_cluster_but_its_log(tmp_path):
    """Also when the test fails."""
    cluster = Cluster("3.4", tmp_path)
    with pytest.raises(ZeroDivisionError), cluster:
        raise ZeroDivisionError
    assert not exists(cluster.members[0].pid)
    assert [cluster.members[0].log] == list(tmp_path.iterdir())


def test_a_server_ends_with_the_run_that_started_it(tmp_path):
    """A pytest that is killed leaves no etcd behind."""
    lines = (
        "import os, pathlib, signal, sys",
        "from integration.etcd.servers import Cluster",
        "cluster = Cluster('3.4', pathlib.Path(sys.argv[1])).__enter__()",
        "print(cluster.members[0].pid, flush=True)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert -signal.SIGKILL == done.returncode
    pid = int(done.stdout)
    assert becomes_true(lambda: has_ended(pid))


def test_a_server_is_not_started_by_a_thread(etcd34):
    """It would end with that thread, not with the run."""
    raised = []

    def restart():
        try:
            etcd34.restart(etcd34.members[0])
        except AssertionError as error:
            raised.append(str(error))

    thread = threading.Thread(target=restart)
    thread.start()
    thread.join()
    assert 1 == len(raised)


# TLS


def test_tls_lets_a_client_in_with_its_certificate(etcd_tls, certificates):
    """Over TLS that the client verifies."""
    assert '"health":"true"' in ask_health(etcd_tls, certificates.ca, certificates.client)
    etcd_tls.etcdctl("put", "/calico/key", "value")
    assert "1" == etcd_tls.post("/v3/kv/range", RANGE)["count"]


@pytest.mark.parametrize("come_with", ["nothing", "foreign"])
def test_tls_refuses_a_client_without_a_certificate_of_the_ca(etcd_tls, certificates, come_with):
    """None at all, or one of somebody else's CA."""
    pair = certificates.foreign_client if come_with == "foreign" else None
    with pytest.raises((URLError, ssl.SSLError, ConnectionError)):
        ask_health(etcd_tls, certificates.ca, pair)


def test_tls_is_refused_by_a_client_that_trusts_another_ca(etcd_tls, certificates):
    """The client's side of it."""
    with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
        ask_health(etcd_tls, certificates.foreign_ca, certificates.client)


def test_a_server_may_do_without_clients_certificates(tmp_path, certificates):
    """TLS of one side, as with users and passwords."""
    with Cluster("3.4", tmp_path, tls=certificates, client_cert_auth=False) as cluster:
        assert '"health":"true"' in ask_health(cluster, certificates.ca)


def test_an_expired_server_runs_but_is_not_believed(tmp_path, certificates):
    """Its cluster is up all the same."""
    expired = dataclasses.replace(certificates, server=certificates.expired)
    with (
        Cluster("3.5", tmp_path, tls=expired) as cluster,
        pytest.raises(URLError, match="certificate has expired"),
    ):
        ask_health(cluster, certificates.ca, certificates.client)


def test_certificates_can_be_read_by_their_owner_only(certificates):
    """As etcd's own advice is."""
    files = list(certificates.ca.parent.iterdir())
    assert 10 == len(files)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files}


# Users


def test_auth_refuses_a_request_without_a_token(etcd_auth):
    """Whoever does not log in reads nothing."""
    with pytest.raises(GatewayError, match="user name is empty"):
        etcd_auth.post("/v3/kv/range", RANGE)


def test_auth_refuses_a_wrong_password(etcd_auth):
    """There is no token for it."""
    with pytest.raises(GatewayError, match="invalid user ID or password"):
        etcd_auth.login(User("calico", "wrong"))


def test_calico_may_write_below_its_prefixes(etcd_auth):
    """Below each of them."""
    for prefix in PREFIXES:
        etcd_auth.etcdctl("put", f"{prefix}key", "value", user=CALICO)
    assert sorted(f"{prefix}key" for prefix in PREFIXES) == read_keys(etcd_auth)


def test_calico_may_not_write_elsewhere(etcd_auth):
    """Its role ends with the prefixes."""
    token = etcd_auth.login(CALICO)
    with pytest.raises(GatewayError, match="permission denied"):
        etcd_auth.post("/v3/kv/put", {"key": encode("/other"), "value": VALUE}, token=token)


def test_the_reader_may_read_and_not_write(etcd_auth):
    """What Calico's user wrote."""
    etcd_auth.post("/v3/kv/put", PUT, token=etcd_auth.login(CALICO))
    token = etcd_auth.login(READER)
    assert "1" == etcd_auth.post("/v3/kv/range", RANGE, token=token)["count"]
    with pytest.raises(GatewayError, match="permission denied"):
        etcd_auth.post("/v3/kv/put", PUT, token=token)


def test_expired_tokens_are_refused(etcd_auth):
    """A new login with the same password is needed, and enough."""
    token = etcd_auth.login(CALICO)
    etcd_auth.expire_tokens(CALICO)
    with pytest.raises(GatewayError, match="invalid auth token"):
        etcd_auth.post("/v3/kv/range", RANGE, token=token)
    assert "kvs" not in etcd_auth.post("/v3/kv/range", RANGE, token=etcd_auth.login(CALICO))


# Three members


def test_another_member_leads_when_the_leader_is_killed(cluster):
    """The others serve on, and the killed one learns what it missed."""
    killed = cluster.leader()
    cluster.kill(killed)
    leader = cluster.leader(besides=killed)
    cluster.administer("/v3/kv/put", PUT, member=leader)
    cluster.restart(killed)
    assert "1" == cluster.administer("/v3/kv/range", RANGE, member=killed)["count"]
    assert {member.name for member in cluster.members} == {"m1", "m2", "m3"}


@pytest.mark.parametrize("cluster", ["3.5"], indirect=True)
def test_a_member_that_is_cut_off_does_not_answer(cluster):
    """The leader even: the others go on, and it follows when it is back."""
    cut = cluster.leader()
    cluster.cut_off(cut)
    with pytest.raises(TimeoutError):
        cluster.post("/v3/kv/range", RANGE, member=cut)
    leader = cluster.leader(besides=cut)
    cluster.administer("/v3/kv/put", PUT, member=leader)
    cluster.rejoin(cut)
    assert "1" == cluster.administer("/v3/kv/range", RANGE, member=cut)["count"]


def test_a_member_cut_off_from_its_peers_knows_no_leader(cluster):
    """It answers clients: that it can't serve them."""
    cut = cluster.followers()[0]
    cluster.cut_off(cut, only_peers=True)
    words = ("--command-timeout=1s", "get", "/calico/key")
    assert cluster.etcdctl(*words, endpoints=[cut.url], check=False).returncode != 0
    status, _ = cluster.call(request, cut.url, "GET", "/metrics", None, {}, None)
    assert 200 == status
    cluster.rejoin(cut)
    assert "kvs" not in cluster.administer("/v3/kv/range", RANGE, member=cut)


def test_a_node_of_the_tests_reaches_every_member(cluster, lab):
    """From a namespace of its own, with a route to nothing else."""
    node = lab.namespace("node")
    cluster.connect(node, "192.0.2.50")

    def serves(url: str) -> bool:
        status, _ = node.call(request, url, "GET", "/health", None, {}, None)
        return status == HTTPStatus.OK

    for url in cluster.endpoints:
        assert becomes_true(lambda url=url: serves(url)), url
