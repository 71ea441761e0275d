"""The routes of a node: a blackhole for each affine block, a host route for each pod.

`plan` decides and is pure; `netlink` (the plugin's path, lean) and `rtnl` (pyroute2, for long-lived
processes, and the reference) do, by the same verbs, in the network namespace of the caller.
Neither knows of pools or records. Ours are the routes of our protocol number in our table; no
other is touched, but for the route of an interface plugin whose place a host route takes.
"""
