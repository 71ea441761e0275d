"""The lab of the annotations for old firewalls."""

from integration.labs.run import find_story


def test_the_story_holds(lab):
    """Who may pass passes, who may not is refused, and no pod is left of it."""
    find_story("03-annotations")(lab)
    assert [] == lab.pods()
    assert "" == lab.ask("node1", "ip route show proto 85 scope link; ip netns list")
