"""What is said to BIRD at its socket, and what is said about its sessions."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from cni_ipam.ctl.bird import BirdKeeper, find_peer, write_file
from cni_ipam.ctl.bird_socket import BirdDown, BirdSocket
from cni_ipam.ctl.main import run
from cni_ipam.errors import OperatorError


class FakeBird:
    """Somebody at a control socket who has one answer for each command."""

    def __init__(self, path: str, answers: dict[str, str]) -> None:
        self.path = path
        self.answers = answers
        self.heard: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rw") as words:
                words.write("0001 BIRD 2.0.12 ready.\n")
                words.flush()
                for line in words:
                    self.heard.append(line.strip())
                    if line.strip() not in self.answers:
                        break
                    words.write(self.answers[line.strip()])
                    words.flush()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


DONE = "0002-Reading configuration from /etc/bird/bird.conf\n0003 Reconfigured\n"
REFUSED = "0002-Reading configuration from x\n8002 x:3:1 syntax error, unexpected '}'\n"


@pytest.fixture
def bird(tmp_path):
    made = FakeBird(str(tmp_path / "bird.ctl"), {"configure": DONE})
    yield made
    made.close()


@pytest.fixture
def keeper(bird, tmp_path):
    return BirdKeeper(str(tmp_path / "bird.conf"), bird.path)


def test_a_new_text_is_written_and_told(keeper, bird, tmp_path):
    """Once."""
    path = tmp_path / "bird.conf"
    assert [f"wrote {path}: with 10.0.0.0/8"] == keeper.update("route 10.0.0.0/8")
    assert [] == keeper.update("route 10.0.0.0/8")
    assert ("route 10.0.0.0/8", ["configure"]) == (path.read_text(), bird.heard)


def test_at_the_start_bird_is_told_even_if_the_file_is_right(keeper, bird, tmp_path):
    """Nobody knows which text it has read."""
    (tmp_path / "bird.conf").write_text("same")
    assert [] == keeper.update("same")
    assert ["configure"] == bird.heard


def test_a_changed_file_is_put_right(keeper, bird, tmp_path):
    """It is the records' alone."""
    keeper.update("right")
    (tmp_path / "bird.conf").write_text("wrong")
    assert 1 == len(keeper.update("right"))
    assert ("right", 2) == ((tmp_path / "bird.conf").read_text(), len(bird.heard))


def test_a_refused_text_is_taken_back(keeper, bird, tmp_path):
    """BIRD's words are told, and it is asked again only about another text."""
    keeper.update("old")
    bird.answers["configure"] = REFUSED
    for _ in range(2):
        with pytest.raises(OperatorError, match="goes on with the old one: x:3:1 syntax error"):
            keeper.update("bad")
    assert ("old", 2) == ((tmp_path / "bird.conf").read_text(), len(bird.heard))
    bird.answers["configure"] = DONE
    keeper.update("good")
    assert ("good", 3) == ((tmp_path / "bird.conf").read_text(), len(bird.heard))


def test_a_refused_text_is_tried_again_after_a_while(keeper, bird, tmp_path, monkeypatch):
    """The cause may have been in another file, and is mended."""
    monkeypatch.setattr("cni_ipam.ctl.bird.INTERVAL_SECONDS", 0.0)
    bird.answers["configure"] = REFUSED
    with pytest.raises(OperatorError):
        keeper.update("text")
    bird.answers["configure"] = DONE
    keeper.update("text")
    assert "text" == (tmp_path / "bird.conf").read_text()


def test_what_is_no_file_is_written_to(tmp_path):
    """And not replaced by one, as /dev/stdout would be."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(str(pipe), "text")
    assert (b"text", True) == (os.read(reader, 9), pipe.is_fifo())
    os.close(reader)


def test_a_refused_first_text_leaves_no_file(keeper, bird, tmp_path):
    """There was none."""
    bird.answers["configure"] = REFUSED
    with pytest.raises(OperatorError):
        keeper.update("bad")
    assert not (tmp_path / "bird.conf").exists()


def test_a_bird_that_is_down_finds_its_file_ready(tmp_path):
    """And is told once it is up, as it may have started a moment too early."""
    path, place = tmp_path / "bird.conf", str(tmp_path / "bird.ctl")
    keeper = BirdKeeper(str(path), place)
    for _ in range(2):
        with pytest.raises(BirdDown, match=f"{path} is ready for its start"):
            keeper.update("text")
    assert "text" == path.read_text()
    bird = FakeBird(place, {"configure": DONE})
    assert [] == keeper.update("text")
    assert ["configure"] == bird.heard
    bird.close()


OURS = (
    "protocol device {}\nprotocol static blocks4 { }\nprotocol bgp Mesh_10_0_0_1 from peer4 { }\n"
)
ELSEWHERE = "2002-Name Proto\n1002-device1    Device     ---        up     2022-01-27\n0000 \n"
INCLUDED = f"""\
{ELSEWHERE.removesuffix("0000 " + chr(10))}\
 blocks4    Static     master4    up     2022-01-27
 Mesh_10_0_0_1 BGP        ---        up     2022-01-27    Established
0000 \n"""


def test_a_bird_that_reads_another_file_is_told_once(keeper, bird, tmp_path):
    """And again only after it was right."""
    path = tmp_path / "bird.conf"
    told = f"bird: BIRD reads /etc/bird/bird.conf, which does not include {path}"
    bird.answers["show protocols"] = ELSEWHERE
    assert told == keeper.update(OURS)[-1]
    assert [f"wrote {path}: other settings"] == keeper.update(f"{OURS}# 2\n")
    bird.answers["show protocols"] = INCLUDED
    keeper.update(f"{OURS}# 3\n")
    bird.answers["show protocols"] = ELSEWHERE
    assert told == keeper.update(f"{OURS}# 4\n")[-1]


def test_a_file_that_includes_ours_is_as_good(keeper, bird, tmp_path):
    """BIRD has our protocols."""
    bird.answers["show protocols"] = INCLUDED
    assert [f"wrote {tmp_path / 'bird.conf'}: with Mesh_10_0_0_1"] == keeper.update(OURS)
    assert ["configure", "show protocols"] == bird.heard


def test_a_bird_that_reads_our_file_is_not_asked_for_its_protocols(keeper, bird, tmp_path):
    """By whatever path."""
    (tmp_path / "link.conf").symlink_to(tmp_path / "bird.conf")
    bird.answers["configure"] = DONE.replace("/etc/bird/bird.conf", str(tmp_path / "link.conf"))
    keeper.update(OURS)
    assert ["configure"] == bird.heard


def test_who_is_not_bird_is_not_believed(tmp_path):
    """Another program at the socket."""
    place = str(tmp_path / "bird.ctl")
    bird = FakeBird(place, {"show status": "hello\n"})
    with BirdSocket(place) as found, pytest.raises(BirdDown, match="it is not BIRD who answers"):
        found.ask("show status")
    bird.close()


def test_an_answer_that_breaks_off_is_none(tmp_path):
    """BIRD was killed meanwhile."""
    place = str(tmp_path / "bird.ctl")
    bird = FakeBird(place, {})
    with BirdSocket(place) as found, pytest.raises(BirdDown, match="in the middle of an answer"):
        found.ask("show status")
    bird.close()


# Sessions

BLANK = " "
# BIRD fills its columns with blanks.
PROTOCOLS = f"""\
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     2022-01-27{BLANK}
 Mesh_172_20_62_7 BGP        ---        up     2022-01-27    Established{BLANK}
 Mesh_172_20_58_60 BGP        ---        up     2022-01-27    Established{BLANK}
 node2      BGP        ---        up     2022-01-27    Established{BLANK}
 Global_172_20_34_231 BGP        ---        up     16:57:11      Established{BLANK}
0000{BLANK}
"""
TABLE = """\
BIRD is running.

IPv4 BGP status
+---------------+-------------------+-------+------------+-------------+
| PEER ADDRESS  |     PEER TYPE     | STATE |   SINCE    |    INFO     |
+---------------+-------------------+-------+------------+-------------+
| 172.20.62.7   | node-to-node mesh | up    | 2022-01-27 | Established |
| 172.20.58.60  | node-to-node mesh | up    | 2022-01-27 | Established |
| 172.20.34.231 | global            | up    | 16:57:11   | Established |
+---------------+-------------------+-------+------------+-------------+

IPv6 BGP status
No IPv6 peers found.

"""


def test_the_sessions_are_shown_as_calicoctl_shows_them(operator, bird):
    """The document's table, but for its first line: no Calico process runs here."""
    bird.answers["show protocols"] = PROTOCOLS
    result = operator.types("node", "status", "--bird-socket", bird.path)
    assert (0, TABLE) == (result.status, result.out)


def test_under_calicoctls_name_the_first_line_is_calicoctls(operator, bird, capsys):
    """Who has an alias may look for it."""
    bird.answers["show protocols"] = PROTOCOLS
    words = ("node", "status", "--bird-socket", bird.path)
    assert 0 == run(words, operator.environ, "calicoctl")
    expected = TABLE.replace("BIRD is running.", "Calico process is running.")
    assert expected == capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (
            "Node_fd00_1__9_port_1790 BGP  ---  start  16:57:11  Active        Socket: No route",
            (
                "fd00:1::9 port 1790",
                "node specific",
                "start",
                "16:57:11",
                "Active Socket: No route",
            ),
        ),
        (
            "Mesh_10_0_0_1 BGP        ---        down   2022-01-27",
            ("10.0.0.1", "node-to-node mesh", "down", "2022-01-27", ""),
        ),
    ],
)
def test_a_session_is_read_from_birds_line(line, row):
    """Also one that is not established, of IPv6, or with a port."""
    assert row == find_peer(line).row


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Name       Proto      Table      State  Since         Info",
        "Mesh_10_0_0 BGP ---  up  2022-01-27  Established",
        "Mesh_10_0_0_1 Static ---  up  2022-01-27  Established",
        "router BGP ---  up  2022-01-27  Established",
    ],
)
def test_other_lines_are_no_sessions(line):
    """Headings, other protocols, and what an operator named."""
    assert find_peer(line) is None


def test_without_bird_there_is_no_status(operator, tmp_path):
    """The socket is named, and how to name another one."""
    place = tmp_path / "none.ctl"
    result = operator.types("node", "status", "--bird-socket", str(place))
    assert (1, "") == (result.status, result.out)
    assert f"BIRD does not answer at {place}: No such file or directory\n" in result.err
    assert "--bird-socket" in result.err
