"""What several stories look at: routes, events, and the records at the end."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.labs.lab import Lab


def show_routes(lab: Lab, machine: str, command: str = "ip route") -> list[str]:
    """Show a machine's routes; its lines, sorted, with `veth` for the name of each veth."""
    shown = re.sub(r"veth\w+", "veth", lab.type(machine, command))
    return sorted(line.rstrip() for line in shown.splitlines())


def show_refusal(lab: Lab, namespace: str, name: str, sentence: str) -> str:
    """Wait until a pod is refused, say so, and show its event; the plugin's words."""
    events = f"kubectl get events -n {namespace} --field-selector involvedObject.name={name}"
    events += ",reason=IPAMFailed"
    # The kubelet's event, and the plugin's own, which may fall out for want of time.
    lab.expect_soon(
        lambda: bool(lab.refusals(namespace, name)) and "IPAMFailed" in lab.ask("node1", events),
        sentence,
    )
    return lab.type("node1", events)


def expect_nothing_recorded(lab: Lab) -> str:
    """Check the records, and say that no address is given out; what was shown."""
    checked = lab.type("node1", "ipamctl ipam check")
    lab.expect("IPAM blocks record 0 allocations." in checked, "no address is given out any more")
    lab.expect("Check complete; found 0 problems." in checked, "the records agree")
    return checked


def is_in(address: str, cidr: str) -> bool:
    """Whether an address or network lies in a network."""
    return ipaddress.ip_network(address).subnet_of(ipaddress.ip_network(cidr))
