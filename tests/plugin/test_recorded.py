"""When a call looks after blackhole routes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cni_ipam.plugin.recorded import holds_blocks
from cni_ipam.routes.plan import RouteSettings


@pytest.mark.parametrize(
    ("kind", "chained", "host", "expected"),
    [
        ("ptp", False, True, True),
        ("ptp", False, False, True),
        ("bridge", False, True, False),
        ("cni-ipam", True, True, True),
        ("cni-ipam", True, False, False),
    ],
)
def test_blocks_are_held_where_the_pods_have_routes_of_their_own(kind, chained, host, expected):
    """Under a bridge those are the chained role's; a blackhole would cut off pods without them."""
    routes = RouteSettings(host=host, blackhole=True)
    netconf = SimpleNamespace(type=kind, chained=chained, routes=routes)

    assert expected == holds_blocks(SimpleNamespace(netconf=netconf))


def test_no_block_is_held_if_blackholes_are_switched_off():
    """They may be BIRD's."""
    routes = RouteSettings(host=True, blackhole=False)
    netconf = SimpleNamespace(type="ptp", chained=False, routes=routes)

    assert not holds_blocks(SimpleNamespace(netconf=netconf))
