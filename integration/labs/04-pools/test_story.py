"""The lab of the pools."""

from integration.labs.run import find_story


def test_the_story_holds(lab):
    """Each section of the document holds, a page is served through all changes."""
    find_story("04-pools")(lab)
    assert [] == lab.pods()
    assert "" == lab.ask("node1", "ip route show proto 85 scope link; ip netns list")
