"""The lab of the policies by hand."""

from integration.labs.run import find_story


def test_the_story_holds(lab):
    """Each recipe lets through whom it should and nobody else, and no pod is left of it."""
    find_story("05-policy")(lab)
    assert [] == lab.pods()
    assert "" == lab.ask("node1", "ip route show proto 85 scope link; ip netns list")
