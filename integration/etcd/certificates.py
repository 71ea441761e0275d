"""Certificates for tests of TLS, made anew for each run; only their owner can read the files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """What a cluster shows (`server`) and trusts (`ca`), and what clients may come with.

    `dataclasses.replace(certificates, server=certificates.expired)` is a cluster whose own
    certificate has run out.
    """

    ca: Path
    server: Pair
    client: Pair
    expired: Pair
    foreign_ca: Path
    foreign_client: Pair

    def server_flags(self, *, client_cert_auth: bool) -> list[str]:
        """What an etcd is started with; with `client_cert_auth` clients have to come with one."""
        flags = [f"--cert-file={self.server.cert}", f"--key-file={self.server.key}"]
        if client_cert_auth:
            flags += ["--client-cert-auth", f"--trusted-ca-file={self.ca}"]
        return flags


def make_certificates(folder: Path, addresses: Iterable[str] = LOOPBACK) -> Certificates:
    """Write them all below `folder`; the server's are good for `addresses`.

    A server's certificate is good for clients too: etcd's JSON gateway dials its own gRPC port
    with it.
    """
    names = list(addresses)
    ca = trustme.CA(organization_name="the test")
    foreign = trustme.CA(organization_name="somebody else")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return Certificates(
        ca=_write(folder / "ca.pem", ca.cert_pem),
        server=_write_pair(folder, "server", ca.issue_cert(*names)),
        client=_write_pair(folder, "client", ca.issue_cert("client.test")),
        expired=_write_pair(folder, "expired", ca.issue_cert(*names, not_after=yesterday)),
        foreign_ca=_write(folder / "foreign-ca.pem", foreign.cert_pem),
        foreign_client=_write_pair(folder, "foreign-client", foreign.issue_cert("client.test")),
    )


def _write_pair(folder: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    return Pair(
        cert=_write(folder / f"{name}.pem", *leaf.cert_chain_pems),
        key=_write(folder / f"{name}-key.pem", leaf.private_key_pem),
    )


def _write(path: Path, *blobs: trustme.Blob) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(b"".join(blob.bytes() for blob in blobs))
    return path
