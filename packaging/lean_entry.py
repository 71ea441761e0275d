"""Where the lean program, `cni-ipam` and `calico-ipam`, starts."""

from cni_ipam.plugin.main import main

main()
