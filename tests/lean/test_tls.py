"""TLS against the standard library's own server, with certificates made for the run."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from cni_ipam.lean import http
from cni_ipam.lean.http import Answer, Connection, Credentials, Endpoint, Failed, Request
from cni_ipam.lean.tls import BadCredentials, Tls
from tests.lean.servers import answer

RESET, GOOD_ORDER = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
PASSPHRASE = b"correct-horse-battery-staple"
NO_CERTIFICATE = "there is no certificate in PEM in it"
NO_KEY = "there is no private key in PEM in it"


class Authority:
    """A CA, and what it has signed, as texts."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.pem = self.authority.cert_pem.bytes().decode()

    def issue(self, name: str = "127.0.0.1", *, days: int = 1) -> trustme.LeafCert:
        """A certificate for `name` that runs out in so many days."""
        return self.authority.issue_cert(name, not_after=datetime.now(UTC) + timedelta(days=days))


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def leaf(ours: Authority) -> trustme.LeafCert:
    return ours.issue()


def cert_of(leaf: trustme.LeafCert) -> str:
    return "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)


def key_of(leaf: trustme.LeafCert) -> str:
    return leaf.private_key_pem.bytes().decode()


def encrypted_key_of(leaf: trustme.LeafCert, form: serialization.PrivateFormat) -> str:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(PASSPHRASE)
    ).decode()


class TlsServer:
    """Answers each connection's first request with "hello", if the handshake succeeds."""

    def __init__(
        self, leaf: trustme.LeafCert, client_ca: Authority | None = None, **options: object
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(self._context)
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            client_ca.authority.configure_trust(self._context)
        for name, value in options.items():
            setattr(self._context, name, value)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("https", "127.0.0.1", self._listener.getsockname()[1])
        self.has_refused = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                raw.settimeout(10)
                try:
                    self._talk(raw)
                except OSError:
                    raw.close()
                    self.has_refused.set()

    def _talk(self, raw: socket.socket) -> None:
        with self._context.wrap_socket(
            raw, server_side=True, do_handshake_on_connect=False
        ) as channel:
            raw.close()
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            channel.do_handshake()
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, GOOD_ORDER)
            data = channel.recv(65_536)
            while not data.endswith(b"{}"):
                data += channel.recv(65_536)
            channel.sendall(answer(b"hello"))


def ask(endpoint: Endpoint, credentials: Credentials) -> Answer:
    """What a server says to a new connection."""
    connection = Connection(endpoint, Tls(credentials))
    try:
        return connection.ask(Request("POST", "/p", "", b"{}"), 5.0, time.monotonic() + 10)
    finally:
        connection.close()


def refuse(server: TlsServer, credentials: Credentials) -> Failed:
    """How a request fails."""
    with server, pytest.raises(Failed) as caught:
        ask(server.endpoint, credentials)
    return caught.value


def refuse_untrusted(server: TlsServer, credentials: Credentials) -> str:
    """Why one side refuses the other, which no repetition helps."""
    failed = refuse(server, credentials)
    assert failed.is_untrusted
    return failed.why


def find_fault(**credentials: str) -> BadCredentials:
    with pytest.raises(BadCredentials) as caught:
        Tls(Credentials(**credentials))
    return caught.value


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


# Both sides trust each other.


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_of_our_authority_is_asked(ours, leaf, newest):
    """By TLS 1.3, or by 1.2 where the server knows nothing newer; an address is a name, too."""
    with TlsServer(leaf, maximum_version=newest) as server:
        assert Answer(200, b"hello", {"content-length": "5"}) == ask(
            server.endpoint, Credentials(ca=ours.pem)
        )


def test_a_client_shows_its_certificate(ours, leaf):
    """As texts."""
    shown = Credentials(ca=ours.pem, cert=cert_of(leaf), key=key_of(leaf))
    with TlsServer(leaf, ours) as server:
        assert b"hello" == ask(server.endpoint, shown).body


def test_certificates_may_lie_in_files(ours, leaf, tmp_path):
    """Read once, so they may go afterwards."""
    shown = Credentials(
        write(tmp_path, "ca", ours.pem),
        write(tmp_path, "cert", cert_of(leaf)),
        write(tmp_path, "key", key_of(leaf)),
    )
    with TlsServer(leaf, ours) as server:
        tls = Tls(shown)
        for path in tmp_path.iterdir():
            path.unlink()
        connection = Connection(server.endpoint, tls)
        assert (
            b"hello"
            == connection.ask(Request("POST", "/p", "", b"{}"), 5, time.monotonic() + 10).body
        )
        connection.close()


@pytest.mark.parametrize("turn", [1, -1])
def test_one_of_several_authorities_is_enough(ours, theirs, leaf, turn):
    """A file that holds the old one and the new one; its comments may be in any language."""
    pems = [f"# Zertifizierungsstelle für Prüfungen\n{a.pem}" for a in (ours, theirs)][::turn]
    with TlsServer(leaf) as server:
        assert b"hello" == ask(server.endpoint, Credentials(ca="".join(pems))).body


def test_an_authority_that_is_not_a_root_is_enough(theirs):
    """Who stands in the file is trusted, whoever has signed it."""
    middle = theirs.authority.create_child_ca()
    pem = middle.cert_pem.bytes().decode()
    with TlsServer(middle.issue_cert("127.0.0.1")) as server:
        assert b"hello" == ask(server.endpoint, Credentials(ca=pem)).body


def test_the_final_dot_of_a_name_is_dnss_alone(ours, monkeypatch):
    """No certificate has it."""
    with TlsServer(ours.issue("etcd.test")) as server:
        place = ("127.0.0.1", server.endpoint.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place)]
        monkeypatch.setattr(http, "_find_addresses", lambda _: found)
        endpoint = Endpoint("https", "etcd.test.", server.endpoint.port)
        assert b"hello" == ask(endpoint, Credentials(ca=ours.pem)).body


def test_certificate_and_key_may_lie_in_one_file(ours, leaf, tmp_path):
    """As some tools write them."""
    both = write(tmp_path, "both.pem", key_of(leaf) + cert_of(leaf))
    with TlsServer(leaf, ours) as server:
        shown = Credentials(ca=ours.pem, cert_file=both, key_file=both)
        assert b"hello" == ask(server.endpoint, shown).body


# We do not trust the server.


def test_a_server_of_another_authority_is_refused(ours, theirs):
    """Whoever signed it is not ours."""
    why = refuse_untrusted(TlsServer(theirs.issue()), Credentials(ca=ours.pem))
    assert "the server's certificate is not trusted: " in why
    assert "issuer certificate" in why


def test_a_certificate_that_has_run_out_is_refused(ours):
    """With that reason."""
    why = refuse_untrusted(TlsServer(ours.issue(days=-1)), Credentials(ca=ours.pem))
    assert "the server's certificate is not trusted: certificate has expired" == why


@pytest.mark.parametrize("name", ["other.test", "127.0.0.2"])
def test_a_certificate_for_another_name_is_refused(ours, name):
    """An address counts only as an address."""
    why = refuse_untrusted(TlsServer(ours.issue(name)), Credentials(ca=ours.pem))
    assert "mismatch, certificate is not valid for '127.0.0.1'" in why


def test_a_name_is_looked_for_in_the_certificate(ours):
    """`localhost` leads to the same server, whose certificate names only the address."""
    with TlsServer(ours.issue()) as server, pytest.raises(Failed) as caught:
        ask(Endpoint("https", "localhost", server.endpoint.port), Credentials(ca=ours.pem))
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in caught.value.why


def test_without_authorities_those_of_the_system_count(leaf):
    """Which do not know the test's."""
    assert "not trusted" in refuse_untrusted(TlsServer(leaf), Credentials())


# The server does not trust us.


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_asks_for_a_certificate_gets_none(ours, leaf, newest):
    """By TLS 1.2 that is told in the handshake, by 1.3 only after it."""
    why = refuse_untrusted(TlsServer(leaf, ours, maximum_version=newest), Credentials(ca=ours.pem))
    alert = {"TLSv1_2": "handshake failure", "TLSv1_3": "certificate required"}[newest.name]
    assert why.endswith(alert)
    assert why.startswith("the server ")


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_our_certificate_may_be_of_an_authority_that_the_server_does_not_know(
    ours, theirs, leaf, newest
):
    """It says so in an alert."""
    foreign = theirs.issue()
    shown = Credentials(ca=ours.pem, cert=cert_of(foreign), key=key_of(foreign))
    why = refuse_untrusted(TlsServer(leaf, ours, maximum_version=newest), shown)
    assert "the server refuses our certificate: unknown ca" == why


def test_our_certificate_may_have_run_out(ours, leaf):
    """It says so in an alert, too."""
    old = ours.issue(days=-1)
    shown = Credentials(ca=ours.pem, cert=cert_of(old), key=key_of(old))
    why = refuse_untrusted(TlsServer(leaf, ours), shown)
    assert "the server refuses our certificate: certificate expired" == why


def test_a_refusal_is_heard_also_before_the_request_is_written(ours, leaf):
    """By TLS 1.3 the server may have hung up by then."""

    class Slow(Tls):
        def shake_hands(self, sock, host):
            channel = super().shake_hands(sock, host)
            assert server.has_refused.wait(10)
            return channel

    with TlsServer(leaf, ours) as server:
        connection = Connection(server.endpoint, Slow(Credentials(ca=ours.pem)))
        with pytest.raises(Failed) as caught:
            connection.ask(Request("POST", "/p", "", b"{}"), 5.0, time.monotonic() + 10)
    assert "the server refuses our certificate: certificate required" == caught.value.why


# There is no TLS with that server.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_that_is_too_old_is_refused(ours, leaf):
    """1.1 and before are broken."""
    old = TlsServer(
        leaf, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
    )
    why = refuse_untrusted(old, Credentials(ca=ours.pem))
    assert "the server does not speak TLS, or none in common with us: " in why


@pytest.mark.parametrize(
    "banner",
    [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"220 mail ESMTP\r\n"],
)
def test_a_server_without_tls_is_told(ours, banner):
    """A reason that says what to look at, and no repetition."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as client:
                client.recv(65_536)
                client.sendall(banner)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(Failed) as caught:
            ask(Endpoint("https", "127.0.0.1", listener.getsockname()[1]), Credentials(ca=ours.pem))
        thread.join()
    assert caught.value.is_untrusted
    assert caught.value.why.startswith("the server does not speak TLS, or none in common with us")


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_server_that_hangs_up_may_be_asked_again(ours, is_reset):
    """Perhaps it is being started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with listener.accept()[0] as client:
                client.recv(65_536)
                if is_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Failed) as caught:
            ask(Endpoint("https", "127.0.0.1", listener.getsockname()[1]), Credentials(ca=ours.pem))
        thread.join()
    assert (False, False) == (caught.value.is_untrusted, caught.value.is_sent)
    why = "Connection reset by peer" if is_reset else "the server hung up during the TLS handshake"
    assert why == caught.value.why


# Files and texts that are of no use.


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
@pytest.mark.parametrize(
    "text", ["", "hello\n", "\xff\xfe\0", "-----BEGIN CERTIFICATE-----\nMII\n"]
)
def test_a_file_without_pem_is_named(ours, leaf, tmp_path, part, text):
    """By the part that it is, whichever of the three."""
    texts = {"ca": ours.pem, "cert": cert_of(leaf), "key": key_of(leaf), part: text}
    paths = {f"{name}_file": write(tmp_path, name, held) for name, held in texts.items()}
    bad = find_fault(**paths)
    why = NO_KEY if part == "key" else NO_CERTIFICATE
    assert (part, why, False) == (bad.part, bad.why, bad.is_unreadable)


@pytest.mark.parametrize(
    ("part", "other", "why"),
    [("ca", "key", NO_CERTIFICATE), ("cert", "key", NO_CERTIFICATE), ("key", "cert", NO_KEY)],
)
def test_a_mix_up_is_named(ours, leaf, part, other, why):
    """A key where a certificate belongs, and the other way round."""
    texts = {"ca": ours.pem, "cert": cert_of(leaf), "key": key_of(leaf)}
    bad = find_fault(**{**texts, part: texts[other]})
    assert (part, why) == (bad.part, bad.why)


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.exists, "No such file or directory"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "it is too large for what its name says"),
    ],
    ids=["missing", "directory", "loop", "endless"],
)
def test_a_file_that_cannot_be_read_is_named(ours, leaf, tmp_path, part, make, why):
    """With the system's reason."""
    texts = {"ca": ours.pem, "cert": cert_of(leaf), "key": key_of(leaf)}
    paths = {f"{name}_file": write(tmp_path, name, text) for name, text in texts.items()}
    bad_path = tmp_path / "bad"
    make(bad_path)
    bad = find_fault(**{**paths, f"{part}_file": str(bad_path)})
    assert (part, why, True) == (bad.part, bad.why, bad.is_unreadable)


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_pipe_is_not_waited_for(ours, leaf, tmp_path, part):
    """Nobody will ever write to it."""
    os.mkfifo(tmp_path / "pipe")
    texts = {"ca": ours.pem, "cert": cert_of(leaf), "key": key_of(leaf)}
    paths = {f"{name}_file": write(tmp_path, name, text) for name, text in texts.items()}
    assert part == find_fault(**{**paths, f"{part}_file": str(tmp_path / "pipe")}).part


def test_the_key_of_another_certificate_is_told(ours, leaf):
    """Both are good, but not together."""
    bad = find_fault(ca=ours.pem, cert=cert_of(leaf), key=key_of(ours.issue()))
    assert ("key", "not the key of the certificate") == (bad.part, bad.why)


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_an_encrypted_key_is_told_and_not_asked_for(leaf, tmp_path, form):
    """Also with a terminal at hand, where OpenSSL would ask."""
    cert = write(tmp_path, "cert", cert_of(leaf))
    key = write(tmp_path, "key", encrypted_key_of(leaf, form))
    script = (
        "import sys\n"
        "from cni_ipam.lean.http import Credentials\n"
        "from cni_ipam.lean.tls import BadCredentials, Tls\n"
        "try:\n"
        "    Tls(Credentials(cert_file=sys.argv[1], key_file=sys.argv[2]))\n"
        "except BadCredentials as bad:\n"
        "    print(bad.part, bad.why, file=open(sys.argv[3], 'w'))\n"
    )
    outcome = tmp_path / "outcome"
    controller, terminal = pty.openpty()
    try:
        subprocess.run(
            ["setsid", "--ctty", "--wait", sys.executable, "-c", script, cert, key, str(outcome)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            timeout=20,
            check=True,
        )
        os.set_blocking(controller, False)
        with pytest.raises(BlockingIOError):
            os.read(controller, 1)
    finally:
        os.close(controller)
        os.close(terminal)
    expected = "key it is encrypted, and nobody is there to ask for its password\n"
    assert expected == outcome.read_text()


def test_no_secret_is_in_an_error(ours, leaf):
    """Not a line of a key."""
    secret = key_of(leaf).splitlines()[1]
    for texts in (
        {"cert": cert_of(leaf), "key": key_of(leaf)[:100]},
        {"cert": key_of(leaf), "key": key_of(leaf)},
        {"cert": cert_of(ours.issue()), "key": key_of(leaf)},
    ):
        bad = find_fault(ca=ours.pem, **texts)
        assert secret[:20] not in f"{bad.part}{bad.why}{bad!r}"


def test_nothing_is_left_open(ours, leaf, tmp_path):
    """Neither files of ours nor the anonymous ones, whether it succeeds or not."""
    before = os.listdir("/proc/self/fd")
    shown = Credentials(ca=ours.pem, cert=cert_of(leaf), key=key_of(leaf))
    assert Tls(shown)
    find_fault(ca=ours.pem, cert=cert_of(leaf), key="none")
    find_fault(ca_file=str(tmp_path))
    assert before == os.listdir("/proc/self/fd")
