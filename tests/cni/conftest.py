"""What the tests of the wire share: a call as a runtime makes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cni_ipam.cni.netconf import Netconf, parse_netconf
from cni_ipam.cni.request import Request

Json = dict[str, Any]


@pytest.fixture
def netconf_of(tmp_path: Any) -> Callable[..., Netconf]:
    """Parse a configuration: a minimal one with the given keys over it, as any program and verb."""

    def parse(
        conf: Json | bytes | None = None,
        *,
        command: str = "ADD",
        called_as: str = "cni-ipam",
        environ: dict[str, str] | None = None,
        **keys: Any,
    ) -> Netconf:
        if conf is None:
            conf = {
                "cniVersion": "1.1.0",
                "name": "net1",
                "type": "ptp",
                "ipam": {"type": called_as},
                "nodename_file": str(tmp_path / "absent"),
                "nodename": "node-1",
                **keys,
            }
        stdin = conf if isinstance(conf, bytes) else json.dumps(conf).encode()
        request = Request(command, "c1", "/run/netns/x", "eth0", "", "/opt/cni/bin", stdin)
        return parse_netconf(request, called_as, environ or {})

    return parse
