"""Gateways: what a pool keeps back when its pods need one.

With a gateway a pool is a subnet like any other. Its first address names the subnet, the second is
the gateway, on every node the same, and the last IPv4 one is the broadcast. No pod ever gets one
of them, on request neither. Without a gateway (Calico's way) all addresses of a pool are given out.
"""

from __future__ import annotations

from cni_ipam.core.address import BITS, Address, Cidr

NONE = "none"
RESERVATION_PREFIX = "cni-ipam-"


def gateway_of(pool: Cidr, setting: str | Address) -> Address | None:
    """The gateway of the pods of `pool`: none, an address given for its family, or base + 1."""
    if setting == NONE:
        return None
    if isinstance(setting, Address) and setting.version == pool.version:
        return setting
    return pool.address(1)


def kept_back(pool: Cidr, setting: str | Address) -> list[Cidr]:
    """What no pod gets of `pool`: its base, the gateway, and the last address of an IPv4 pool."""
    gateway = gateway_of(pool, setting)
    if gateway is None:
        return []
    addresses = {pool.base, gateway.value}
    if pool.version == 4:
        addresses.add(pool.last)
    held = [Address(pool.version, value) for value in sorted(addresses)]
    return [address.host_cidr for address in held if pool.contains(address)]


def reservation_name(pool_name: str) -> str:
    """The IPReservation that keeps Calico's own nodes off the addresses kept back."""
    name = f"{RESERVATION_PREFIX}{pool_name}"
    return name if len(name) <= 253 else name[:253].rstrip("-.")


def prefix_of(pool: Cidr | None, block: Cidr, mask: str, *, fixed: bool) -> int:
    """The prefix length that a pod's address carries; a fixed one gets Calico's full length."""
    if mask == "pool" and pool is not None:
        return pool.prefix
    if mask == "host" or fixed:
        return BITS[block.version]
    return block.prefix
