"""Who is who in the cluster: its certificates, its users, the tokens of its service accounts."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import TYPE_CHECKING

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    Json = dict[str, Any]

ISSUER = "https://kubernetes.default.svc"
ADMIN = "admin"
NODE_GROUP = "system:nodes"


class Authority:
    """Writes below `folder`: `ca`, `server_cert` and `server_key`, `account_key`, `tokens`.

    `foreign_ca` is a CA that has signed nothing here. `users` are known by a token that does not
    expire; they may do what RBAC grants their name, `admin` and the node's own more.
    """

    def __init__(self, folder: Path, addresses: Sequence[str], node: str, users: Sequence[str]):
        folder.mkdir(parents=True)
        self._folder = folder
        self._ca = trustme.CA(organization_name="the test's cluster")
        self._account_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._groups = {ADMIN: "system:masters", f"system:node:{node}": NODE_GROUP}
        self.static_tokens = {name: secrets.token_hex(16) for name in (*self._groups, *users)}
        server = self._ca.issue_cert(*addresses)
        foreign = trustme.CA(organization_name="somebody else")
        self.ca = self._write("ca.pem", self._ca.cert_pem.bytes())
        self.foreign_ca = self._write("foreign-ca.pem", foreign.cert_pem.bytes())
        self.server_cert = self._write(
            "server.pem", *(pem.bytes() for pem in server.cert_chain_pems)
        )
        self.server_key = self._write("server-key.pem", server.private_key_pem.bytes())
        self.account_key = self._write("account-key.pem", _to_pem(self._account_key))
        rows = (
            f'{token},{name},{name},"{self._groups.get(name, "")}"\n'
            for name, token in self.static_tokens.items()
        )
        self.tokens = self._write("tokens.csv", "".join(rows).encode())

    def issue_client_certificate(self, user: str, group: str = "") -> tuple[Path, Path]:
        """A certificate and its key, with which a client is `user`."""
        leaf = self._ca.issue_cert(
            "client.test", common_name=user, organization_name=group or "none"
        )
        name = user.replace(":", "-")
        cert = self._write(f"{name}.pem", *(pem.bytes() for pem in leaf.cert_chain_pems))
        return cert, self._write(f"{name}-key.pem", leaf.private_key_pem.bytes())

    def sign_account_token(self, namespace: str, name: str, uid: str, seconds: float) -> str:
        """A service account's token as the API server makes them, good for `seconds` more; to
        within ten, for so long the server remembers a token. It grants none below 600 itself."""
        # The server tolerates clocks that are a minute apart.
        expires = int(time.time() + seconds - 60)
        account = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        claims = {
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "iat": expires - 3600,
            "nbf": expires - 3600,
            "exp": expires,
            "kubernetes.io": account,
        }
        signed = f"{_encode({'alg': 'RS256', 'typ': 'JWT'})}.{_encode(claims)}"
        signature = self._account_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_to_text(signature)}"

    def _write(self, name: str, *blobs: bytes) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(b"".join(blobs))
        return path


def make_kubeconfig(server: str, ca: Path, user: Json) -> str:
    """A kubeconfig's text; `user` is its user's content: `token`, `tokenFile`, certificates."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [
                {"name": "test", "cluster": {"server": server, "certificate-authority": str(ca)}}
            ],
            "users": [{"name": "test", "user": user}],
        },
        indent=2,
    )


def _encode(part: Json) -> str:
    return _to_text(json.dumps(part).encode())


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _to_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
