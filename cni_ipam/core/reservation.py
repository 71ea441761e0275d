"""IPReservations: addresses that auto-assignment never gives out.

Held as sorted, merged spans per family, so that a reservation of a whole /8 costs as much as one
of a single address. They bar auto-assignment only; a fixed address may be reserved
(`facts`: Calico 2.18), and what is allocated already stays so.
"""

from __future__ import annotations

from cni_ipam.core.address import Address, Cidr, parse_address, parse_cidr
from cni_ipam.lean.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


@record
class Reservations:
    """Merged spans (first, last) in ascending order for each family."""

    v4: tuple[tuple[int, int], ...] = ()
    v6: tuple[tuple[int, int], ...] = ()

    def contains(self, address: Address) -> bool:
        """Whether `address` is reserved."""
        return self._covers(address.version, address.value, address.value)

    def covers(self, cidr: Cidr) -> bool:
        """Whether every address of `cidr` is reserved."""
        return self._covers(cidr.version, cidr.base, cidr.last)

    def count(self, cidr: Cidr) -> int:
        """How many addresses of `cidr` are reserved."""
        spans = self.v4 if cidr.version == 4 else self.v6
        return sum(
            max(0, min(last, cidr.last) - max(first, cidr.base) + 1) for first, last in spans
        )

    def plus(self, cidrs: Iterable[Cidr]) -> Reservations:
        """These and `cidrs` together."""
        spans = {4: list(self.v4), 6: list(self.v6)}
        for cidr in cidrs:
            spans[cidr.version].append((cidr.base, cidr.last))
        return Reservations(_merge(spans[4]), _merge(spans[6]))

    def _covers(self, version: int, first: int, last: int) -> bool:
        spans = self.v4 if version == 4 else self.v6
        low, high = 0, len(spans)
        while low < high:
            middle = (low + high) // 2
            if spans[middle][0] <= first:
                low = middle + 1
            else:
                high = middle
        return low > 0 and last <= spans[low - 1][1]


def parse_reserved(text: str) -> Cidr | None:
    """The CIDR that an entry of `reservedCIDRs` names; None for blanks and malformed ones.

    Calico's reader trims blanks, takes bare addresses, and skips what it cannot parse."""
    text = text.strip()
    try:
        return parse_cidr(text) if "/" in text else parse_address(text).host_cidr
    except ValueError:
        return None


def _merge(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
