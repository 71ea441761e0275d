"""Where the full program starts.

Called `cni-ipam-agent` it is the agent; called `cni-ipam` or `calico-ipam` it is the plugin, to
which the lean program hands over what it cannot serve; otherwise it is `ipamctl`.
"""

import sys

name = sys.argv[0].rpartition("/")[2]
if name == "cni-ipam-agent":
    from cni_ipam.agent.main import main
elif name in ("cni-ipam", "calico-ipam"):
    from cni_ipam.plugin.main import main
else:
    from cni_ipam.ctl.main import main

main()
