"""TLS on real servers: what is wrong with a certificate or a key is told at once, by its setting
and its endpoint; nothing is written.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from cni_ipam.datastore import keys
from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.datastore.port import Range
from cni_ipam.errors import Unauthorized
from cni_ipam.lean.http import Credentials, parse_endpoint
from integration.etcd.certificates import Pair, make_certificates
from integration.etcd.node import EtcdNode, put_node, put_pool, read_records
from integration.etcd.refusal import assert_refused, at_once, unchanged
from integration.etcd.servers import VERSIONS, Cluster
from integration.network import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.etcd.certificates import Certificates

VERBS = ("ADD", "DEL", "CHECK", "GC")
CA, CERT, KEY = "etcd_ca_cert_file", "etcd_cert_file", "etcd_key_file"
UNTRUSTED = "connection is unauthorized: "
PASSPHRASE = b"correct-horse-battery-staple"


@pytest.fixture(scope="module")
def own_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A set of this file's own, whose server's files change: etcd reads them for each client."""
    return make_certificates(tmp_path_factory.mktemp("own-certificates"))


@pytest.fixture(params=VERSIONS)
def etcd(request, lasting, own_certificates) -> Cluster:
    """A member that takes only clients with a certificate, with a pool and a node."""
    cluster = lasting(f"etcd-own-tls-{request.param}", request.param, tls=own_certificates)
    put_pool(cluster, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(cluster, "node1")
    return cluster


@pytest.fixture
def settings(own_certificates) -> dict[str, str]:
    """The three files as they should be."""
    client = own_certificates.client
    return {CA: str(own_certificates.ca), CERT: str(client.cert), KEY: str(client.key)}


@pytest.fixture
def refuse(etcd, tmp_path) -> Callable[..., None]:
    """Calls the plugin with settings, each verb with its code in time; `code` is ADD's."""

    def call(settings, code, *phrases, endpoint="", verbs=("ADD",)):
        node = EtcdNode(tmp_path, [endpoint or etcd.endpoints[0]], **settings)
        with unchanged(etcd):
            for verb in verbs:
                netconf = node.netconf(**{"cni.dev/valid-attachments": []})
                with at_once():
                    answer = node.call(verb, "c1", netconf)
                assert_refused(answer, code, *phrases)

    return call


@contextlib.contextmanager
def shown(certificates: Certificates, pair: Pair) -> Iterator[None]:
    """The server shows `pair` meanwhile."""
    server = certificates.server
    good = (server.cert.read_bytes(), server.key.read_bytes())
    try:
        copy(pair, server)
        yield
    finally:
        server.cert.write_bytes(good[0])
        server.key.write_bytes(good[1])


# What works.


@pytest.mark.parametrize("name", ["cni-ipam", "calico-ipam"])
def test_an_attachment_lives_and_goes(etcd_tls, certificates, tmp_path, name):
    """With a CA and a client's certificate, under both names."""
    put_pool(etcd_tls, "pool1", "10.0.0.0/24", blockSize=29)
    put_node(etcd_tls, "node1")
    client = certificates.client
    files = {CA: str(certificates.ca), CERT: str(client.cert), KEY: str(client.key)}
    node = EtcdNode(tmp_path, etcd_tls.endpoints, name=name, **files)
    address = node.call("ADD", "c1").address
    assert {address: "net.c1"} == read_records(etcd_tls).allocations
    assert 0 == node.call("CHECK", "c1").status
    assert 0 == node.call("DEL", "c1").status
    assert ([], {}) == (read_records(etcd_tls).findings, read_records(etcd_tls).allocations)


@pytest.mark.parametrize("order", [1, -1])
def test_one_authority_of_several_is_enough(etcd, own_certificates, settings, tmp_path, order):
    """A file that holds an old one and a new one, with comments."""
    texts = [own_certificates.ca.read_text(), own_certificates.foreign_ca.read_text()][::order]
    both = tmp_path / "both.pem"
    both.write_text("# Zertifizierungsstellen der Prüfung\n" + "\n".join(texts))
    assert 0 == EtcdNode(tmp_path, etcd.endpoints, **settings | {CA: str(both)}).call("ADD").status


@pytest.mark.parametrize("prefix", ["", "CALICO_"])
def test_the_environment_names_the_files_too(etcd, settings, tmp_path, prefix):
    """As calicoctl and Calico's plugin take them; the prefixed ones beat the netconf."""
    variables = {prefix + key.upper(): value for key, value in settings.items()}
    wrong = dict.fromkeys(settings, "/nonexistent") if prefix else {}
    node = EtcdNode(tmp_path, etcd.endpoints, **wrong)
    assert 0 == node.call("ADD", "c1", **variables).status


def test_texts_in_the_config_file_serve_the_operator(etcd, settings, tmp_path):
    """`ipamctl` takes the PEM itself where calicoctl does."""
    texts = zip(("etcdCACert", "etcdCert", "etcdKey"), settings.values(), strict=True)
    done = ipamctl(etcd, tmp_path, **{key: Path(path).read_text() for key, path in texts})
    assert (0, True) == (done.returncode, "10.0.0.0/24" in done.stdout), done.stderr


def test_files_in_the_config_file_serve_the_operator(etcd, settings, tmp_path):
    """By calicoctl's names for them."""
    paths = zip(("etcdCACertFile", "etcdCertFile", "etcdKeyFile"), settings.values(), strict=True)
    done = ipamctl(etcd, tmp_path, **dict(paths))
    assert (0, True) == (done.returncode, "10.0.0.0/24" in done.stdout), done.stderr


def ipamctl(etcd: Cluster, folder: Path, **spec: str) -> subprocess.CompletedProcess[str]:
    config = folder / "calicoctl.cfg"
    spec = {"datastoreType": "etcdv3", "etcdEndpoints": etcd.endpoints[0], **spec}
    head = {"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig"}
    config.write_text(yaml.safe_dump({**head, "metadata": {}, "spec": spec}))
    return subprocess.run(
        [str(BUNDLE / "ipamctl"), "-c", str(config), "get", "ippool", "-o", "wide"],
        env={"PATH": os.environ["PATH"], "COLUMNS": "200", "CNI_NETCONF_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# The server is not trusted.


def test_a_server_of_another_authority_is_refused(refuse, etcd, own_certificates, settings):
    """By every verb."""
    files = settings | {CA: str(own_certificates.foreign_ca)}
    refuse(files, 110, UNTRUSTED + etcd.endpoints[0], "not trusted", CA, verbs=VERBS)


def test_without_an_authority_those_of_the_system_count(refuse, settings):
    """They do not know the test's."""
    del settings[CA]
    refuse(settings, 110, UNTRUSTED, "the server's certificate is not trusted: ", CA)


def test_a_server_whose_certificate_has_run_out_is_refused(refuse, own_certificates, settings):
    """With that reason."""
    with shown(own_certificates, own_certificates.expired):
        refuse(settings, 110, "the server's certificate is not trusted: certificate has expired")


def test_a_server_whose_certificate_signs_itself_is_refused(
    refuse, own_certificates, settings, tmp_path
):
    """Unless it is the authority that we name: then it is the server's turn to refuse."""
    cert, key = tmp_path / "self.pem", tmp_path / "self-key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=e"
    files = ["-keyout", str(key), "-out", str(cert), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    with shown(own_certificates, Pair(cert, key)):
        refuse(settings, 110, "the server's certificate is not trusted: self", "signed certificate")
        del settings[CERT], settings[KEY]
        refuse(settings | {CA: str(cert)}, 110, "the server refuses our certificate: ")


def test_a_server_with_anothers_name_is_refused(refuse, own_certificates, settings, tmp_path):
    """Though its certificate is good, it is not who we wanted."""
    others = make_certificates(tmp_path, ["other.test"])
    with shown(own_certificates, others.server):
        files = settings | {CA: str(others.ca)}
        refuse(files, 110, "mismatch, certificate is not valid for '127.0.0.1'")


def test_a_name_that_leads_there_is_not_enough(refuse, etcd, settings):
    """127.1 is the same address in another spelling, which the certificate does not have."""
    endpoint = etcd.endpoints[0].replace("127.0.0.1", "127.1")
    refuse(settings, 110, f"{endpoint}: the server's", "'127.1'", endpoint=endpoint)


@pytest.mark.parametrize("turn", range(2))
def test_other_members_serve_where_one_is_not_trusted(etcd, settings, tmp_path, turn):
    """Whichever is asked first."""
    good = etcd.endpoints[0]
    endpoints = [good.replace("127.0.0.1", "127.1"), good]
    node = EtcdNode(tmp_path, endpoints[:: 1 - 2 * turn], **settings)
    with at_once():
        answers = [node.call("ADD", f"c{i}") for i in range(4)]
    assert 4 == len({answer.address for answer in answers})
    assert [] == read_records(etcd).findings


# The server does not trust us.


def test_a_client_without_a_certificate_is_refused(refuse, etcd, settings):
    """By every verb; the reason is the server's own word."""
    only_ca = {CA: settings[CA]}
    refused = f"{UNTRUSTED}{etcd.endpoints[0]}: the server refuses our certificate: "
    refuse(only_ca, 110, refused, CERT, KEY, verbs=VERBS)


@pytest.mark.parametrize("which", ["foreign_client", "expired"])
def test_a_client_that_etcd_does_not_trust_is_refused(refuse, own_certificates, settings, which):
    """Of another authority, or run out."""
    pair = getattr(own_certificates, which)
    files = settings | {CERT: str(pair.cert), KEY: str(pair.key)}
    refuse(files, 110, UNTRUSTED, "the server refuses our certificate: ", CERT, KEY)


def test_a_long_lived_client_takes_up_a_renewed_certificate(etcd, own_certificates, tmp_path):
    """Under the same names, once the former one is refused."""
    given = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    files = Credentials(
        ca_file=str(own_certificates.ca), cert_file=str(given.cert), key_file=str(given.key)
    )
    copy(own_certificates.foreign_client, given)
    store = EtcdDatastore([parse_endpoint(etcd.endpoints[0])], files)
    with contextlib.closing(store):
        with pytest.raises(Unauthorized, match="the server refuses our certificate"):
            store.read([Range(keys.POOLS, prefix=True)])
        copy(own_certificates.client, given)
        ((entry,),) = store.read([Range(keys.POOLS, prefix=True)])
    assert f"{keys.POOLS}pool1" == entry.key


def copy(pair: Pair, place: Pair) -> None:
    """Certificate and key stand there, too."""
    place.cert.write_bytes(pair.cert.read_bytes())
    place.key.write_bytes(pair.key.read_bytes())


# Not the scheme that the server speaks.


def test_https_to_a_server_without_tls_is_told(etcd34, etcd35, settings, tmp_path):
    """It hangs up, too."""
    for cluster in (etcd34, etcd35):
        endpoint = cluster.endpoints[0].replace("http:", "https:")
        node = EtcdNode(tmp_path, [endpoint], status_when_unreachable=True, **settings)
        with at_once(), unchanged(cluster):
            answer = node.call("STATUS", "")
        assert_refused(answer, 50, f"{endpoint}: the server hung up during the TLS handshake")


def test_http_to_a_server_with_tls_is_told(etcd, tmp_path):
    """It hangs up, as one that is being started may: the details say what else it can be."""
    endpoint = etcd.endpoints[0].replace("https:", "http:")
    node = EtcdNode(tmp_path, [endpoint], status_when_unreachable=True)
    with at_once(), unchanged(etcd):
        answer = node.call("STATUS", "")
    assert_refused(answer, 50, f"{endpoint}: ", "by https:// where they use TLS")


# Files.


@pytest.mark.parametrize("key", [CA, CERT, KEY])
@pytest.mark.parametrize(
    ("make", "code", "why"),
    [
        (Path.exists, 5, "No such file or directory"),
        (Path.mkdir, 5, "Is a directory"),
        (lambda path: path.symlink_to("/proc/self/mem"), 5, "Input/output error"),
        (lambda path: path.write_text(""), 7, "in PEM"),
        (lambda path: path.write_text("hello\n"), 7, "in PEM"),
        (lambda path: path.write_bytes(b"\x30\x82\x01\xff" * 40), 7, "in PEM"),
        (os.mkfifo, 7, "in PEM"),
    ],
    ids=["missing", "folder", "unreadable", "empty", "text", "binary", "pipe"],
)
def test_a_file_that_is_no_use_is_named(etcd35, settings, tmp_path, key, make, code, why):
    """With its setting and its path, before the server is asked."""
    path = tmp_path / "bad"
    make(path)
    endpoint = etcd35.endpoints[0].replace("http:", "https:")
    with at_once():
        answer = EtcdNode(tmp_path, [endpoint], **settings | {key: str(path)}).call("ADD", "c1")
    assert_refused(answer, code, f"{key} {path}: ", why)


@pytest.mark.parametrize(("make", "code"), [(Path.touch, 7), (Path.exists, 5)])
@pytest.mark.parametrize("verb", [*VERBS, "STATUS"])
def test_every_verb_names_the_file(etcd35, settings, tmp_path, verb, make, code):
    """STATUS as a configuration with which no ADD can be served."""
    endpoint = etcd35.endpoints[0].replace("http:", "https:")
    path = tmp_path / "bad"
    make(path)
    node = EtcdNode(tmp_path, [endpoint], **settings | {CA: str(path)})
    answer = node.call(verb, "c1", node.netconf(**{"cni.dev/valid-attachments": []}))
    assert_refused(answer, 50 if verb == "STATUS" else code, f"{CA} {path}: ")


def test_the_key_of_another_certificate_is_told(refuse, own_certificates, settings):
    """Its setting and path, and that it does not fit."""
    key = str(own_certificates.foreign_client.key)
    refuse(settings | {KEY: key}, 7, f"{KEY} {key}: not the key of the certificate")


def test_an_encrypted_key_is_told_and_not_asked_for(etcd, settings, tmp_path):
    """Also where there is a terminal, on which OpenSSL would wait for ever."""
    key = serialization.load_pem_private_key(Path(settings[KEY]).read_bytes(), None)
    path = tmp_path / "encrypted.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSPHRASE),
        )
    )
    controller, terminal = pty.openpty()
    wrapper = ["sh", "-c", 'exec setsid --wait sh -c \': <"$0"; exec "$@"\' "$0" "$@"']
    try:
        node = EtcdNode(
            tmp_path,
            etcd.endpoints,
            wrapper=[*wrapper, os.ttyname(terminal)],
            **settings | {KEY: str(path)},
        )
        with at_once(), unchanged(etcd):
            answer = node.call("ADD", "c1")
        os.set_blocking(controller, False)
        with pytest.raises(BlockingIOError):
            os.read(controller, 1)
    finally:
        os.close(controller)
        os.close(terminal)
    assert_refused(answer, 7, f"{KEY} {path}: it is encrypted")


def test_no_key_is_shown(etcd, settings, own_certificates, tmp_path):
    """Not in an answer, nor in the log at its most talkative."""
    log = tmp_path / "log"
    lines = Path(settings[KEY]).read_text().splitlines()[1:-1]
    for wrong in (
        {CERT: settings[KEY]},
        {KEY: str(own_certificates.server.key)},
        {CA: settings[KEY]},
        {},
    ):
        loud = {"log_level": "debug", "log_file_path": str(log)}
        answer = EtcdNode(tmp_path, etcd.endpoints, **settings | wrong, **loud).call("ADD", "c1")
        said = answer.stdout.decode() + answer.stderr + log.read_text()
        assert not [line for line in lines if line in said]


def test_a_text_in_the_config_file_that_is_no_use_is_named(etcd, settings, tmp_path):
    """`ipamctl` names the setting, not the text."""
    texts = zip(("etcdCACert", "etcdCert", "etcdKey"), settings.values(), strict=True)
    spec = {key: Path(path).read_text() for key, path in texts}
    secret = spec["etcdKey"].splitlines()[1]
    done = ipamctl(etcd, tmp_path, **spec | {"etcdCert": spec["etcdKey"]})
    assert 1 == done.returncode
    assert re.search("etcd_?cert", done.stderr, re.IGNORECASE)
    assert "Traceback" not in done.stderr
    assert secret not in done.stderr + done.stdout
