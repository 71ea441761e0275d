"""The network of members in namespaces, and the firewall that cuts one off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.netns import Lab, Namespace

PEER_PORT = 2380
LAN_ADDRESS = "192.0.2.1"
MEMBER_ADDRESSES = ("192.0.2.11", "192.0.2.12", "192.0.2.13")


class Lan:
    """A bridge in a `namespace` of its own, which has an address on it: 192.0.2.1/24."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.namespace = lab.namespace("lan")
        lab.bridge(self.namespace, "lan")
        self.namespace.ip("address", "add", f"{LAN_ADDRESS}/24", "dev", "lan")

    def connect(self, namespace: Namespace, address: str, ifname: str = "etcd0") -> None:
        """Give `namespace` an interface on the bridge, with this address."""
        port = f"p{address.rsplit('.', 1)[1]}"
        self._lab.veth(self.namespace, port, namespace, ifname)
        self.namespace.ip("link", "set", port, "master", "lan")
        namespace.ip("address", "add", f"{address}/24", "dev", ifname)

    def make_members(self, count: int) -> list[Namespace]:
        """A namespace for each member, with that of `MEMBER_ADDRESSES` as its address."""
        made = []
        for number, address in enumerate(MEMBER_ADDRESSES[:count], 1):
            namespace = self._lab.namespace(f"m{number}")
            self.connect(namespace, address)
            made.append(namespace)
        return made


def drop_traffic(namespace: Namespace, *, only_peers: bool) -> None:
    """Drop what comes and goes, but for what the member says to itself; or only its peers'."""
    tcp = f"tcp dport {PEER_PORT} drop; tcp sport {PEER_PORT} drop;"
    outgoing, incoming = (tcp, tcp) if only_peers else ("oif != lo drop;", "iif != lo drop;")
    rules = f"""table inet cut {{
        chain outgoing {{ type filter hook output priority 0; {outgoing} }}
        chain incoming {{ type filter hook input priority 0; {incoming} }}
    }}"""
    namespace.run("nft", "-f", "-", input=rules)


def let_traffic_pass(namespace: Namespace) -> None:
    """Take back `drop_traffic`."""
    namespace.run("nft", "delete", "table", "inet", "cut")
