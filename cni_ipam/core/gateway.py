"""Gateways: what a pool keeps back when its pods need one.

With a gateway a pool is a subnet like any other. Its first address names the subnet, the second is
the gateway, on every node the same, and the last IPv4 one is the broadcast. No pod ever gets one
of them, on request neither. Without a gateway (Calico's way) all addresses of a pool are given out.
"""

from __future__ import annotations

from cni_ipam.core.address import BITS, Address, Cidr, parse_address

NONE = "none"
RESERVATION_PREFIX = "cni-ipam-"

_LONGEST_NAME = 253
_LONGEST_ADDRESS = 39


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
    return _cut(f"{RESERVATION_PREFIX}{pool_name}", _LONGEST_NAME)


def further_reservation_name(pool_name: str, missing: Cidr) -> str:
    """The IPReservation for what the first one lacks: that may be left from a former pool of this
    name, or from another gateway, and nodes may make reservations, but not change them."""
    dashed = str(missing.address(0)).replace(".", "-").replace(":", "-")
    # A name ends with a letter or digit, and `fd00::0` is `fd00::` as well.
    return _further_stem(pool_name) + (f"{dashed}0" if dashed.endswith("-") else dashed)


def is_reservation_of(name: str, pool_name: str) -> bool:
    """Whether an IPReservation of this name is the pool's first or a further one."""
    stem = _further_stem(pool_name)
    is_further = name.startswith(stem) and _is_dashed_address(name[len(stem) :])
    return is_further or name == reservation_name(pool_name)


def _further_stem(pool_name: str) -> str:
    return _cut(reservation_name(pool_name), _LONGEST_NAME - _LONGEST_ADDRESS - 1) + "-"


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[:length].rstrip("-.")


def _is_dashed_address(text: str) -> bool:
    for separator in (".", ":"):
        try:
            parse_address(text.replace("-", separator))
        except ValueError:
            continue
        return True
    return False


def prefix_of(pool: Cidr | None, block: Cidr, mask: str, *, fixed: bool) -> int:
    """The prefix length that a pod's address carries; a fixed one gets Calico's full length."""
    if mask == "pool" and pool is not None:
        return pool.prefix
    if mask == "host" or fixed:
        return BITS[block.version]
    return block.prefix
