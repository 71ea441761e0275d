"""Where each record lies: Calico's etcd keys, and back from a key to what it names."""

from __future__ import annotations

from cni_ipam.core.address import Cidr, parse_cidr

POOLS = "/calico/resources/v3/projectcalico.org/ippools/"
RESERVATIONS = "/calico/resources/v3/projectcalico.org/ipreservations/"
BGP_CONFIGURATIONS = "/calico/resources/v3/projectcalico.org/bgpconfigurations/"
BGP_PEERS = "/calico/resources/v3/projectcalico.org/bgppeers/"
NODES = "/calico/resources/v3/projectcalico.org/nodes/"
CLUSTER_INFORMATION = "/calico/resources/v3/projectcalico.org/clusterinformations/default"
CONFIG = "/calico/ipam/v2/config"
HANDLES = "/calico/ipam/v2/handle/"
BLOCKS = "/calico/ipam/v2/assignment/"
HOST_AFFINITIES = "/calico/ipam/v2/host/"
VIRTUAL_AFFINITIES = "/calico/ipam/v2/virtual/"
# Not Calico's: remembers that a default pool was made once, so that a deleted one stays deleted.
DEFAULT_POOLS_MADE = "/cni-ipam/v1/default-pools/"


def block_key(cidr: Cidr) -> str:
    """The key of the block `cidr`."""
    return f"{blocks_prefix(cidr.version)}{_name(cidr)}"


def blocks_prefix(version: int) -> str:
    """What the keys of all blocks of one family begin with."""
    return f"{BLOCKS}ipv{version}/block/"


def affinity_key(host: str, cidr: Cidr, kind: str = "host") -> str:
    """The key of a host's affinity to the block `cidr`."""
    return f"{affinities_prefix(host, cidr.version, kind)}{_name(cidr)}"


def affinities_prefix(host: str, version: int, kind: str = "host") -> str:
    """What the keys of a host's affinities of one family begin with."""
    return f"/calico/ipam/v2/{kind}/{host}/ipv{version}/block/"


def handle_key(handle_id: str) -> str:
    """The key of a handle."""
    return HANDLES + handle_id


def find_block(key: str) -> Cidr | None:
    """The block that a key names; None if it is not a block's key."""
    parts = key.split("/")
    if len(parts) != 8 or key[: len(BLOCKS)] != BLOCKS or parts[6] != "block":
        return None
    return _cidr(parts[7])


def find_affinity(key: str) -> tuple[str, str, Cidr] | None:
    """Kind, host and block that an affinity's key names; None if it is not one."""
    parts = key.split("/")
    if len(parts) != 9 or parts[4] not in ("host", "virtual") or parts[7] != "block":
        return None
    cidr = _cidr(parts[8])
    return None if cidr is None else (parts[4], parts[5], cidr)


def last_part(key: str) -> str:
    """The name at the end of a key: a pool's, a node's, a handle's."""
    return key.rpartition("/")[2]


def _name(cidr: Cidr) -> str:
    return str(cidr).replace("/", "-", 1)


def _cidr(name: str) -> Cidr | None:
    try:
        return parse_cidr(name.replace("-", "/", 1))
    except ValueError:
        return None
