"""docs/etcd.md: its commands are run in their order, in a namespace with the page's addresses."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_ipam.lean.record import record
from integration.daemon import Daemon
from integration.etcd.member import find_programs
from integration.etcd.node import EtcdNode
from integration.etcd.servers import VERSIONS
from integration.netns import Lab
from integration.network import BUNDLE, ROOT, becomes_true, find_obstacle
from integration.program import inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.netns import Namespace
    from integration.program import Answer

OBSTACLE = find_obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")

PAGE = ROOT / "docs" / "etcd.md"
ADDRESSES = {"m1": "10.0.0.11", "m2": "10.0.0.12", "m3": "10.0.0.13"}
PASSWORDS = {"NODE_PASSWORD": "node-of-the-test", "ROOT_PASSWORD": "root-of-the-test"}
USER = {"ETCD_USERNAME": "cni-ipam", "ETCD_PASSWORD": PASSWORDS["NODE_PASSWORD"]}
NAMED_CERTIFICATE = """
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \\
    -subj /CN=cni-ipam -keyout named-key.pem -out named.csr
openssl x509 -req -in named.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out named.pem
ETCDCTL_CERT=named.pem ETCDCTL_KEY=named-key.pem etcdctl get /calico/none
"""
PATIENCE_SECONDS = 90.0
# For the page's commands, whose own patience ends before that of a busy machine.
PATIENT = {"ETCDCTL_DIAL_TIMEOUT": "20s", "ETCDCTL_COMMAND_TIMEOUT": "20s"}


class Site:
    """The machine on which the page is followed: one namespace, one folder for all files."""

    def __init__(self, namespace: Namespace, folder: Path, version: str) -> None:
        self.namespace = namespace
        self.folder = folder
        for address in ADDRESSES.values():
            namespace.ip("address", "add", f"{address}/32", "dev", "lo")
        programs = str(Path(find_programs(version).etcd).parent)
        self._environment = {
            "PATH": f"{programs}:{BUNDLE}:{os.environ['PATH']}",
            "CNI_NETCONF_DIR": str(folder / "net.d"),
            **PASSWORDS,
        }
        self.members: list[Daemon] = []

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Commands of the page, which end with the first that fails."""
        return self.namespace.run(
            *("bash", "-euo", "pipefail", "-c", commands),
            cwd=self.folder,
            env=self._environment | PATIENT,
            check=False,
        )

    def start_members(self, commands: str) -> None:
        """Start each member as the page says."""
        assert "NAME=m1 ADDRESS=10.0.0.11\netcd " in commands
        for name, address in ADDRESSES.items():
            own = commands.replace("NAME=m1 ADDRESS=10.0.0.11", f"NAME={name} ADDRESS={address}")
            own = own.replace("\netcd ", "\nexec etcd ")
            own = own.replace("/etc/etcd/", f"{self.folder}/")
            own = own.replace("/var/lib/etcd", f"{self.folder}/{name}-data")
            member = Daemon(name, self.folder / f"{name}.log", self.namespace)
            member.spawn(["bash", "-euc", own], self._environment)
            self.members.append(member)

    def stop_members(self) -> None:
        for member in self.members:
            member.kill()

    def install_network_list(self) -> None:
        """What the page says in words: the node's files and its network list."""
        conflist = (ROOT / "conf" / "20-etcd.conflist").read_text()
        for name, file in (("ca", "ca"), ("node", "node1"), ("node-key", "node1-key")):
            conflist = conflist.replace(f"/etc/cni-ipam/{name}.pem", f"{self.folder}/{file}.pem")
        (self.folder / "net.d").mkdir()
        (self.folder / "net.d" / "20-etcd.conflist").write_text(conflist)


@record
class Story:
    """The page, followed: what its last commands printed, and calls of the plugin afterwards."""

    printed: str
    answers: dict[str, Answer]
    denied: subprocess.CompletedProcess[str]


def read_blocks() -> tuple[str, str, str, str]:
    """The page's commands: certificates, a member's start, the look at members, all others."""
    certificates, start, health, *rest = re.findall(
        r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return certificates, start, health, "\n".join(rest)


def call_plugin(site: Site) -> dict[str, Answer]:
    """ADD on node1: as a user, as nobody, without a certificate; STATUS with a common name."""
    conflist = json.loads((site.folder / "net.d" / "20-etcd.conflist").read_text())
    keys = {name: v for name, v in conflist["plugins"][1].items() if name.startswith("etcd_")}
    endpoints = keys.pop("etcd_endpoints").split(",")

    def call(settings: dict[str, str], verb: str = "ADD", **user: str) -> Answer:
        node = EtcdNode(site.folder, endpoints, "node1", wrapper=inside(site.namespace), **settings)
        netconf = node.netconf(ipam={"ipv4_pools": ["rack1"]}, status_when_unreachable=True)
        return node.call(verb, "c1", netconf, **user)

    named = {
        "etcd_cert_file": str(site.folder / "named.pem"),
        "etcd_key_file": str(site.folder / "named-key.pem"),
    }
    return {
        "user": call(keys, **USER),
        "nobody": call(keys),
        "no certificate": call({"etcd_ca_cert_file": keys["etcd_ca_cert_file"]}, **USER),
        "common name": call(keys | named, "STATUS", **USER),
    }


def follow_page(site: Site) -> Story:
    certificates, start, health, rest = read_blocks()
    made = site.run(certificates)
    assert made.returncode == 0, made.stderr
    site.start_members(start)
    ready = becomes_true(lambda: site.run(health).returncode == 0, PATIENCE_SECONDS)
    assert ready, "\n".join(member.read_tail() for member in site.members)
    site.install_network_list()
    done = site.run(f"{health}\n{rest}")
    assert done.returncode == 0, done.stdout + done.stderr
    named = site.run(health + NAMED_CERTIFICATE)
    assert named.returncode == 0, "no user by the common name: " + named.stderr
    own = f'{health}\nETCDCTL_USER="cni-ipam:$NODE_PASSWORD" etcdctl put /other value'
    return Story(done.stdout, call_plugin(site), site.run(own))


@pytest.fixture(scope="module", params=VERSIONS)
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    with Lab() as lab:
        folder = tmp_path_factory.mktemp("page")
        site = Site(lab.namespace("page"), folder, request.param)
        try:
            yield follow_page(site)
        finally:
            site.stop_members()


def test_commands_show_what_was_made(story: Story) -> None:
    """Nodes and pools by our tool, and their keys by etcd's own."""
    assert {"node1", "node2", "rack1"} <= set(story.printed.split())
    assert "/calico/resources/v3/projectcalico.org/ippools/rack1" in story.printed.splitlines()


def test_plugin_works_with_certificate_and_user(story: Story) -> None:
    """In the pool that selects the node by the label that the page gives it."""
    assert story.answers["user"].address.startswith("10.245.")


def test_nobody_is_refused(story: Story) -> None:
    """Where etcd has users, a certificate does not do."""
    assert 110 == story.answers["nobody"].document["code"]
    assert "ETCD_USERNAME" in story.answers["nobody"].document["details"]


def test_common_name_is_refused(story: Story) -> None:
    """With it etcdctl is a user without a password, but the JSON gateway takes no such request."""
    message = story.answers["common name"].document["msg"]
    assert "CommonName of client sending a request against gateway" in message


def test_no_certificate_is_refused(story: Story) -> None:
    """A user without a certificate does not get as far as the password."""
    assert 110 == story.answers["no certificate"].document["code"]
    assert "etcd_cert_file" in story.answers["no certificate"].document["details"]


def test_user_is_kept_to_its_prefixes(story: Story) -> None:
    """The role of the page ends with /calico/ and /cni-ipam/."""
    assert "permission denied" in story.denied.stderr


def test_links_lead_somewhere() -> None:
    """Files that the page names are there."""
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
