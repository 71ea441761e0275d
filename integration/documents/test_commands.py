"""The documents' own calicoctl commands, typed into a shell as they stand there.

By three programs: our ipamctl under its own name, the same by a link named calicoctl, and Calico's
calicoctl, which is the witness that the answers in commands.yaml are right.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from integration.documents.shell import (
    COMMANDS,
    DOCUMENTS,
    Shell,
    bare,
    find_commands,
    find_objects,
    lines_of,
    rows_of,
    write_network,
)
from integration.etcd.calico import MISSING, PEERS
from integration.etcd.servers import Cluster
from integration.network import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACTS = yaml.safe_load(COMMANDS.read_text())
SCENES = FACTS["scenes"]
CALICOS = pytest.param(
    "Calico's", marks=pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
)
with_documents = pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the documents are not here")
each_document = pytest.mark.parametrize("document", ["000", "001", "002", "003", "004"])


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster("3.5", tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def etcd(server) -> dict[str, str]:
    """The variables that lead to an etcd without keys."""
    server.clear()
    return {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": server.endpoints[0]}


@pytest.fixture(params=["ipamctl", "calicoctl", CALICOS])
def shell(request, tmp_path: Path) -> Shell:
    """Each of the three programs, ipamctl under its own name on a file, the others on etcd."""
    if request.param == "ipamctl":
        return Shell(tmp_path, BUNDLE / "ipamctl", write_network(tmp_path), name="ipamctl")
    settings = request.getfixturevalue("etcd")
    folder = PEERS if request.param == "Calico's" else BUNDLE
    program = "calicoctl" if request.param == "Calico's" else "ipamctl"
    return Shell(tmp_path, folder / program, settings)


@pytest.fixture
def ipamctl(tmp_path: Path) -> Shell:
    """Ours alone."""
    return Shell(tmp_path, BUNDLE / "ipamctl", write_network(tmp_path))


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_is_answered_as_the_document_shows(shell, scene):
    """Tables and messages letter by letter but for blanks at the ends of lines; the wide table,
    which has more columns today, has the document's among them; YAML has the document's spec."""
    before = shell.gives("create", SCENES[scene]["before"])
    assert 0 == before.returncode, before.stderr
    for step in SCENES[scene]["steps"]:
        answer = shell.types(step["command"], step.get("manifest", ""))
        expected = step.get("shows") or step["answers"]
        if step["command"].endswith("-o wide"):
            headings = expected.splitlines()[0].split()
            assert rows_of(expected) == rows_of(answer, headings)
        elif step["command"].endswith("-o yaml"):
            spec = yaml.safe_load(expected)["spec"]
            assert spec == {k: v for k, v in yaml.safe_load(answer)["spec"].items() if k in spec}
        else:
            assert lines_of(expected) == lines_of(answer)


def test_the_documents_wide_table_can_still_be_had(shell):
    """Its five columns letter by letter, as custom columns."""
    scene = SCENES["another-block-size"]
    shell.gives("create", scene["before"])
    for step in scene["steps"]:
        shell.types(step["command"], step.get("manifest", ""))
        if step["command"].endswith("-o wide"):
            break
    columns = ",".join(step["shows"].splitlines()[0].split())
    answer = shell.types(f"calicoctl get ippool -o custom-columns={columns}")
    assert lines_of(step["shows"]) == lines_of(answer)


def test_todays_wide_table_has_newer_columns(ipamctl):
    """Those of calicoctl today."""
    ipamctl.gives("create", SCENES["external-pool"]["before"])
    headings, row = lines_of(ipamctl.types("calicoctl get ippool -o wide"))
    assert (
        "NAME                  CIDR            NAT     IPIPMODE   VXLANMODE   DISABLED   "
        "DISABLEBGPEXPORT   SELECTOR   ASSIGNMENTMODE"
    ) == headings
    assert (
        "default-ipv4-ippool   100.96.0.0/11   false   Never      Never       false      "
        "false              all()      Automatic"
    ) == row


# Manifests that are refused as they stand


@pytest.mark.parametrize("refused", FACTS["refused"], ids=lambda refused: refused["document"])
def test_a_manifest_that_would_do_harm_is_refused_with_the_fix(ipamctl, refused):
    """Who does what each error says has the object in the end, and nothing before."""
    manifest = refused["manifest"]
    for error, (wrong, right) in refused["errors"]:
        done = ipamctl.gives("apply", manifest)
        assert (1, "") == (done.returncode, done.stdout)
        assert done.stderr.endswith(f"{error}\n"), done.stderr
        assert wrong in manifest
        manifest = manifest.replace(wrong, right)
    assert "NAME   CIDR   SELECTOR" == ipamctl.types("calicoctl get ippool").strip()
    done = ipamctl.gives("apply", manifest)
    assert "Successfully applied 1 'IPPool' resource(s)\n" == done.stdout
    assert "!all()" == yaml.safe_load(manifest)["spec"]["nodeSelector"]


@pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
def test_why_a_selector_without_quotes_is_refused(etcd, tmp_path):
    """Calico takes it for all nodes: the pool that was for a few is for everybody."""
    calicoctl = Shell(tmp_path, PEERS / "calicoctl", etcd)
    manifest = FACTS["refused"][0]["manifest"]
    done = calicoctl.gives(
        "apply", manifest.replace("crd.projectcalico.org/v1", "projectcalico.org/v3")
    )
    assert "Successfully applied 1 'IPPool' resource(s)\n" == done.stdout
    (row,) = rows_of(calicoctl.types("calicoctl get ippool"))
    assert "all()" == row["SELECTOR"]


# That commands.yaml has everything that the documents have


def all_steps() -> list[tuple[str, dict]]:
    """Each step with its document."""
    parts = [*SCENES.values(), FACTS["bgp"]]
    return [(part["document"], step) for part in parts for step in part["steps"]]


def read_document(number: str) -> str:
    (path,) = DOCUMENTS.glob(f"{number}_*.txt")
    return path.read_text()


@with_documents
@each_document
def test_no_command_of_a_document_is_missing(document):
    """Each as often as it stands there, and none that does not."""
    listed = [
        step["command"]
        for number, step in all_steps()
        if number == document and "unwritten" not in step
    ]
    assert sorted(find_commands(read_document(document))) == sorted(listed)


@with_documents
@each_document
def test_no_object_of_a_document_is_missing(document):
    """Each manifest that is typed, each object that is shown, and those that are refused."""
    steps = [step for number, step in all_steps() if number == document]
    listed = {bare(step["manifest"]) for step in steps if "manifest" in step}
    listed |= {bare(step["shows"]) for step in steps if "apiVersion" in step.get("shows", "")}
    listed |= {bare(made["manifest"]) for made in FACTS["refused"] if made["document"] == document}
    assert set(find_objects(read_document(document), of_calico=True)) <= listed


@with_documents
def test_kubernetes_objects_of_the_documents_are_kubectls(ipamctl):
    """Each kind is refused in the words that calicoctl has for it."""
    documents = [path.read_text() for path in sorted(DOCUMENTS.glob("*.txt"))]
    blocks = [block for text in documents for block in find_objects(text, of_calico=False)]
    found = [one for block in blocks for one in yaml.safe_load_all(block) if one is not None]
    kinds = {(one["kind"], one["apiVersion"]): one for one in found}
    assert {"Namespace", "Deployment", "NetworkPolicy", "Pod"} == {kind for kind, _ in kinds}
    for (kind, version), one in kinds.items():
        done = ipamctl.gives("apply", json.dumps(one) + "\n")
        said = f"unknown resource type ({kind}) and/or version ({version})"
        assert (1, f"failed to execute command: {said}\n") == (done.returncode, done.stderr)


@with_documents
@each_document
def test_every_answer_that_a_document_shows_is_compared(document):
    """What commands.yaml calls shown stands in the document, line by line."""
    text = [line.strip() for line in read_document(document).splitlines()]
    shown = [
        line.strip()
        for number, step in all_steps()
        if number == document
        for line in step.get("shows", "").splitlines()
    ]
    assert [] == [line for line in shown if line not in text]
