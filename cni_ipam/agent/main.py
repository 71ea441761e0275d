"""Where the node agent starts. This release does all of its work in the plugin's own process."""

from __future__ import annotations

import sys

from cni_ipam import __version__


def main() -> None:
    """Say which version this is, or that there is no agent to run yet, and end the process."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"cni-ipam-agent v{__version__}\n")
        sys.exit(0)
    sys.exit(
        "cni-ipam-agent: the node agent is not part of this release; "
        "the plugin does its work in its own process"
    )
