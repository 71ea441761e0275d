"""The lab of the pool for infrastructure."""

from integration.labs.run import find_story


def test_the_story_holds(lab):
    """Pools, addresses, routes and requests are as it says, and no pod is left of it."""
    find_story("01-infra-pool")(lab)
    assert [] == lab.pods()
    assert "" == lab.ask("node1", "ip route show proto 85 scope link; ip netns list")
