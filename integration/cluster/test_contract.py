"""The API server as a datastore: the contract of all, and what is only so here.

Keys are handles, since the contract's are of no kind that Calico has. Four sentences cannot hold as
they stand: an API server takes no write that changes nothing, keeps only the fields of a record,
takes small objects only, and names have no case.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import pytest
import yaml

from cni_ipam.cni.kubernetes_settings import KubernetesSettings, parse_api_server
from cni_ipam.ctl.main import run
from cni_ipam.datastore import keys
from cni_ipam.datastore.kubernetes import KubernetesDatastore
from cni_ipam.datastore.kubernetes_client import KubernetesClient
from cni_ipam.datastore.kubernetes_objects import find_place
from cni_ipam.datastore.kubernetes_records import LABEL_TYPE
from cni_ipam.datastore.port import ABSENT, Range, Write
from cni_ipam.errors import Conflict, InputOutputError, NetconfError
from cni_ipam.lean.http import Credentials
from integration.cluster.authority import ADMIN
from integration.cluster.node import wait_served
from integration.network import ROOT, becomes_true
from tests.datastore.contract import DatastoreContract
from tests.datastore.golden import FRESH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from cni_ipam.datastore.port import Datastore
    from integration.cluster.cluster import Cluster

    OpenStore = Callable[[], Datastore]

CRDS = ROOT / "conf" / "crds"
GROUP = "/apis/crd.projectcalico.org/v1"
AFFINITY = "/calico/ipam/v2/host/node1/ipv4/block/10.0.0.0-30"
OWN = "/calico/ipam/v2/host/node1/ipv4/block/"
CLAIMED = '{"state":"confirmed","deleted":false}'
HANDLE = keys.HANDLES + "net.c1"
HELD = '{"block":{"10.0.0.0/30":1},"deleted":false}'
OTHER_NODE = '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node9"}}'


@pytest.fixture(scope="module")
def defined(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the custom resources."""
    cluster.kubectl("apply", "-f", str(CRDS))
    wait_served(cluster)
    yield cluster
    cluster.kubectl("delete", "-f", str(CRDS))


@pytest.fixture
def open_store(defined: Cluster) -> Iterator[OpenStore]:
    """Clients of an API server without records. They connect in the machine's network, so the
    threads of a test do, too, once each has asked for something."""
    for resource in ("ipamhandles", "ipamblocks", "blockaffinities"):
        assert 200 == defined.request("DELETE", f"{GROUP}/{resource}")[0]
    opened: list[KubernetesDatastore] = []
    access = KubernetesSettings(
        parse_api_server(defined.server),
        Credentials(ca_file=str(defined.ca)),
        token=defined.token(ADMIN),
        origin="the test",
    )

    def open_one() -> KubernetesDatastore:
        opened.append(KubernetesDatastore(KubernetesClient(access)))
        return opened[-1]

    with defined.machine.network():
        yield open_one
        for store in opened:
            store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Datastore:
    return open_store()


def find(store: Datastore, key: str) -> str | None:
    found = store.read([Range(key)])[0]
    return found[0].value if found else None


def post(cluster: Cluster, resource: str, name: str, spec: dict[str, Any], **metadata: Any) -> None:
    """Create an object as another program would."""
    kind = {
        "ipamhandles": "IPAMHandle",
        "ipamblocks": "IPAMBlock",
        "blockaffinities": "BlockAffinity",
    }[resource]
    made = {
        "kind": kind,
        "apiVersion": GROUP.removeprefix("/apis/"),
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }
    status, answer = cluster.request("POST", f"{GROUP}/{resource}", made)
    assert 201 == status, answer


def exists(cluster: Cluster, resource: str, name: str) -> bool:
    return 200 == cluster.request("GET", f"{GROUP}/{resource}/{name}")[0]


class TestContract(DatastoreContract):
    """The datastore as the engine sees it."""

    atomic = False
    root = keys.HANDLES + "contract."

    def key(self, name: str) -> str:
        return self.root + name.replace("/", ".")

    def value(self, text: object) -> str:
        number = zlib.crc32(str(text).encode())
        return f'{{"block":{{"10.0.0.0/26":{number}}},"deleted":false}}'

    def names(self, entries: list[Any]) -> list[str]:
        return [entry.key.removeprefix(self.root).replace(".", "/") for entry in entries]

    @pytest.fixture
    def open_store(self, open_store: OpenStore) -> OpenStore:
        return open_store

    def test_an_equal_value_still_raises_the_revision(self, store: Datastore) -> None:
        """Not here: an API server has no write that changes nothing. It is success all the same,
        and the next writer is not put off."""
        self.create(store, "a")
        before = self.revision(store, "a")
        store.commit([Write(self.key("a"), self.value("a"), before)])
        assert before == self.revision(store, "a")
        store.commit([Write(self.key("a"), self.value("b"), before)])
        assert self.value("b") == self.get(store, "a").value

    def test_values_are_kept_to_the_byte(self, store: Datastore) -> None:
        """Of a record; fields that only a newer peer knows, with any text, are kept behind them.
        A number is a signed one of 64 bits."""
        value = (
            '{"block":{},"deleted":false,"v":"é\\u2028😀<>","n":9223372036854775807,"l":["",{}]}'
        )
        store.commit([Write(self.key("a"), value, ABSENT)])
        found = self.get(store, "a").value
        assert '{"block":{},"deleted":false,' == found[:28]
        for part in ('"n":9223372036854775807', '"l":["",{}]', "é\\u2028😀"):
            assert part in found

    def test_big_values_are_kept(self, store: Datastore) -> None:
        """A handle of 5000 blocks; an object may have a megabyte and a half."""
        blocks = ",".join(f'"10.{i >> 8}.{i & 255}.0/26":1' for i in range(5000))
        value = f'{{"block":{{{blocks}}},"deleted":false}}'
        store.commit([Write(self.key("a"), value, ABSENT)])
        kept = self.get(store, "a").value
        assert sorted(blocks.split(",")) == sorted(kept[10:].partition("}")[0].split(","))

    def test_keys_are_taken_literally(self, store: Datastore) -> None:
        """As far as an object can have the name; of others nothing is sent."""
        self.create(store, "a.x")
        for name in ("a_%/x", "a*/x", "../a"):
            with pytest.raises(NetconfError):
                self.create(store, name)
            assert self.find(store, name) is None
        assert ["a/x"] == self.names(store.read([Range(self.root, prefix=True)])[0])

    def test_a_prefix_gives_its_keys_in_order(self, store: Datastore) -> None:
        """In the order of the bytes of the keys; the API server's is that of the names."""
        self.create(store, "p/b", "p/a", "p/C", "p/10", "p/9")
        found = self.names(store.read([Range(self.key("p/"), prefix=True)])[0])
        assert ["p/10", "p/9", "p/C", "p/a", "p/b"] == found

    def test_a_prefix_ends_where_it_ends(self, store: Datastore) -> None:
        """`a/b` is a prefix of itself and of a/b0, but a/b/ is not one of a/b, a/b0 or a/c."""
        self.create(store, "a/a", "a/b", "a/b/x", "a/b/y", "a/b0", "a/c")
        without, with_slash = store.read(
            [Range(self.key("a/b"), prefix=True), Range(self.key("a/b/"), prefix=True)]
        )
        assert ["a/b", "a/b/x", "a/b/y", "a/b0"] == self.names(without)
        assert ["a/b/x", "a/b/y"] == self.names(with_slash)


class TestRemoval:
    """In two steps, by whoever is there."""

    def test_a_removed_handle_leaves_no_object(self, store, defined):
        """Both steps were done."""
        store.commit([Write(HANDLE, HELD, ABSENT)])
        store.commit([Write(HANDLE, None, store.read([Range(HANDLE)])[0][0].revision)])
        assert not exists(defined, "ipamhandles", "net.c1")

    @pytest.mark.parametrize("prefix", [False, True])
    def test_an_object_that_is_marked_is_absent(self, store, defined, prefix):
        """Alone and in lists: its remover was killed between the steps."""
        spec = {"handleID": "net.c1", "block": {}, "deleted": True}
        post(defined, "ipamhandles", "net.c1", spec)
        assert [[]] == store.read([Range(HANDLE, prefix=prefix)])

    def test_who_meets_a_marked_object_removes_it(self, store, defined):
        """A read is enough."""
        spec = {"handleID": "net.c1", "block": {}, "deleted": True}
        post(defined, "ipamhandles", "net.c1", spec)
        store.read([Range(HANDLE)])
        assert not exists(defined, "ipamhandles", "net.c1")

    @pytest.mark.parametrize(
        ("resource", "name", "spec", "key", "value"),
        [
            (
                "ipamhandles",
                "net.c1",
                {"handleID": "net.c1", "block": {}, "deleted": True},
                HANDLE,
                HELD,
            ),
            (
                "blockaffinities",
                "node1-10-0-0-0-30",
                {"cidr": "10.0.0.0/30", "node": "node1", "state": "", "deleted": "true"},
                AFFINITY,
                CLAIMED,
            ),
        ],
    )
    def test_what_is_half_removed_is_made_again_at_once(
        self, store, defined, resource, name, spec, key, value
    ):
        """By one commit, without a conflict."""
        post(defined, resource, name, spec)
        store.commit([Write(key, value, ABSENT)])
        assert value == find(store, key)

    def test_only_the_object_that_was_marked_is_removed(self, store, defined):
        """One of the same name that was made anew meanwhile has another UID, and stays."""
        spec = {"handleID": "net.c1", "block": {}, "deleted": True}
        post(defined, "ipamhandles", "net.c1", spec)
        path = f"{GROUP}/ipamhandles/net.c1"
        marked = defined.get(path)
        assert 200 == defined.request("DELETE", path)[0]
        post(defined, "ipamhandles", "net.c1", {**spec, "deleted": False})
        store._finish_removal(marked, find_place(HANDLE))
        assert exists(defined, "ipamhandles", "net.c1")

    def test_an_affinity_is_marked_by_a_text(self, store, defined):
        """In the older group, as Calico spells it; its removal is taken all the same."""
        store.commit([Write(AFFINITY, CLAIMED, ABSENT)])
        assert (
            "false" == defined.get(f"{GROUP}/blockaffinities/node1-10-0-0-0-30")["spec"]["deleted"]
        )
        store.commit([Write(AFFINITY, None, store.read([Range(AFFINITY)])[0][0].revision)])
        assert not exists(defined, "blockaffinities", "node1-10-0-0-0-30")


class TestNames:
    """An object's name has no case, and lists go by labels."""

    def test_handles_that_differ_only_in_case_are_told_apart(self, store):
        """The second one is refused with both names, not tried a hundred times."""
        store.commit([Write(keys.HANDLES + "net.ABC", HELD, ABSENT)])
        with pytest.raises(InputOutputError) as caught:
            store.commit([Write(keys.HANDLES + "net.abc", HELD, ABSENT)])
        assert "net.abc cannot be recorded: the object net.abc is that of" in caught.value.msg
        assert "net.ABC" in caught.value.msg
        assert (None, HELD) == (
            find(store, keys.HANDLES + "net.abc"),
            find(store, keys.HANDLES + "net.ABC"),
        )

    def test_an_affinity_without_labels_is_met_and_labelled(self, store, defined):
        """One of Calico before 3.31, beside which the host has another: lists do not find it, and
        its creation would be tried for ever."""
        other = AFFINITY.replace("10.0.0.0", "10.0.0.4")
        store.commit([Write(other, CLAIMED, ABSENT)])
        spec = {"cidr": "10.0.0.0/30", "node": "node1", "state": "confirmed", "deleted": "false"}
        post(defined, "blockaffinities", "node1-10-0-0-0-30", spec, annotations={"mine": "kept"})
        assert [other] == [entry.key for entry in store.read([Range(OWN, prefix=True)])[0]]
        with pytest.raises(Conflict):
            store.commit([Write(AFFINITY, CLAIMED, ABSENT)])
        found = store.read([Range(OWN, prefix=True)])[0]
        assert [(AFFINITY, CLAIMED), (other, CLAIMED)] == [(e.key, e.value) for e in found]
        metadata = defined.get(f"{GROUP}/blockaffinities/node1-10-0-0-0-30")["metadata"]
        assert ("host", "kept") == (metadata["labels"][LABEL_TYPE], metadata["annotations"]["mine"])

    def test_an_affinity_that_has_its_labels_is_not_written_by_a_conflict(self, store):
        """Its revision stays."""
        store.commit([Write(AFFINITY, CLAIMED, ABSENT)])
        before = store.read([Range(AFFINITY)])
        with pytest.raises(Conflict):
            store.commit([Write(AFFINITY, CLAIMED, ABSENT)])
        assert before == store.read([Range(AFFINITY)])


class TestOlderDefinitions:
    """Of Calico's, which may lack a field: an API server drops that, unless it is told not to."""

    POOL = keys.POOLS + "pool"

    @pytest.fixture
    def lack(self, defined: Cluster) -> Iterator[Callable[[str, str], None]]:
        """Takes a field from the definition of a resource; it has it again afterwards."""
        files: list[Path] = []

        def take(resource: str, field: str) -> None:
            files.append(CRDS / f"{resource}.yaml")
            definition = yaml.safe_load(files[-1].read_text())
            (version,) = definition["spec"]["versions"]
            spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
            del spec["properties"][field]
            del spec["x-kubernetes-preserve-unknown-fields"]
            rules = spec.pop("x-kubernetes-validations", [])
            kept = [rule for rule in rules if f"self.{field}" not in rule["rule"]]
            spec.update({"x-kubernetes-validations": kept} if kept else {})
            defined.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
            self.wait_lacking(defined, definition, field, is_lacking=True)

        yield take
        for resource in ("ippools", "ipamconfigs", "ipreservations"):
            assert 200 == defined.request("DELETE", f"{GROUP}/{resource}")[0]
        for file in files:
            defined.kubectl("apply", "-f", str(file))
            self.wait_lacking(defined, yaml.safe_load(file.read_text()), "x", is_lacking=False)

    def wait_lacking(
        self, cluster: Cluster, definition: Any, field: str, *, is_lacking: bool
    ) -> None:
        """The API server goes by a definition a moment after it has taken it."""
        names = definition["spec"]["names"]
        path = f"{GROUP}/{names['plural']}?dryRun=All&fieldValidation=Strict"
        made = {"kind": names["kind"], "apiVersion": GROUP.removeprefix("/apis/")}
        made |= {"metadata": {"name": "probe"}, "spec": {field: None}}

        def look() -> bool:
            return is_lacking == ("unknown field" in str(cluster.request("POST", path, made)[1]))

        assert becomes_true(look)

    def pool(self, **spec: str) -> str:
        """A pool as `ipamctl create` writes one."""
        made = {"kind": "IPPool", "metadata": {"name": "pool"}}
        return json.dumps({**made, "spec": {"cidr": "10.0.0.0/24", **spec}})

    def test_a_restricted_pool_is_refused_rather_than_opened(self, store, defined, lack):
        """When it is made, and when it is changed; with the field and with what to do."""
        lack("ippools", "namespaceSelector")
        restricted = self.pool(namespaceSelector="team == 'a'", allowedUses=["Workload"])
        with pytest.raises(InputOutputError) as caught:
            store.commit([Write(self.POOL, restricted, ABSENT)])
        assert 'unknown field "spec.namespaceSelector"' in caught.value.msg
        assert "apply conf/crds" in caught.value.details
        assert not exists(defined, "ippools", "pool")

        store.commit([Write(self.POOL, self.pool(), ABSENT)])
        before = store.read([Range(self.POOL)])
        with pytest.raises(InputOutputError, match=r"spec\.namespaceSelector"):
            store.commit([Write(self.POOL, restricted, before[0][0].revision)])
        assert before == store.read([Range(self.POOL)])

    def test_a_default_pool_needs_no_newer_definition(self, store, defined, lack):
        """It says what holds where nothing is said; another word is refused."""
        lack("ippools", "assignmentMode")
        with pytest.raises(InputOutputError, match=r"spec\.assignmentMode"):
            store.commit([Write(self.POOL, self.pool(assignmentMode="Manual"), ABSENT)])
        store.commit([Write(self.POOL, self.pool(assignmentMode="Automatic"), ABSENT)])
        assert {"cidr": "10.0.0.0/24"} == defined.get(f"{GROUP}/ippools/pool")["spec"]
        changed = self.pool(assignmentMode="Automatic", nodeSelector="a == 'b'")
        store.commit([Write(self.POOL, changed, store.read([Range(self.POOL)])[0][0].revision)])
        assert "a == 'b'" == defined.get(f"{GROUP}/ippools/pool")["spec"]["nodeSelector"]

    @pytest.mark.usefixtures("open_store")
    def test_a_setting_that_is_not_stored_is_not_told_as_set(self, defined, lack, capsys):
        """By the command, too: it says the field, and what to do."""
        lack("ipamconfigs", "ipCooldownSeconds")
        environ = {"DATASTORE_TYPE": "kubernetes", "KUBECONFIG": str(defined.kubeconfig())}
        assert 1 == run(["ipam", "configure", "--ip-cooldown-seconds=30"], environ)
        told = capsys.readouterr()
        assert "spec.ipCooldownSeconds" in told.err
        assert "apply conf/crds" in told.err
        assert "Successfully" not in told.out
        assert not exists(defined, "ipamconfigs", "default")

    def test_a_block_is_written_without_what_the_definition_lacks(self, store, lack):
        """No address depends on it, and pods must start."""
        lack("ipamblocks", "affinityClaimTime")
        key = keys.BLOCKS + "ipv4/block/10.0.0.0-30"
        store.commit([Write(key, FRESH, ABSENT)])
        assert "affinity_claim_time" not in (find(store, key) or "affinity_claim_time")


class TestLists:
    """Longer than a page, and while others write."""

    def test_a_list_of_several_pages_is_read_whole(self, store, monkeypatch):
        """By what each page says of the next one."""
        monkeypatch.setattr("cni_ipam.datastore.kubernetes_reader.PAGE_LIMIT", 2)
        names = [f"net.c{number}" for number in range(5)]
        store.commit([Write(keys.HANDLES + name, HELD, ABSENT) for name in names])
        entries = store.read([Range(keys.HANDLES, prefix=True)])[0]
        assert names == [entry.key.removeprefix(keys.HANDLES) for entry in entries]

    def test_changes_between_pages_disturb_no_list(self, store):
        """What was there all the time is given once."""
        names = [f"net.c{number}" for number in range(6)]
        store.commit([Write(keys.HANDLES + name, HELD, ABSENT) for name in names])
        pages = store.pages(keys.HANDLES, 2)
        found = [entry.key for entry in next(pages)]
        store.commit([Write(keys.HANDLES + "net.a", HELD, ABSENT)])
        found += [entry.key for page in pages for entry in page]
        assert [keys.HANDLES + name for name in names] == found


class TestWatches:
    """A node's object says more than its record."""

    def test_a_heartbeat_of_a_node_is_no_change(self, store, defined):
        """Though its object has another revision after each."""
        changes = store.watch(keys.NODES)
        try:
            defined.kubectl("create", "-f", "-", stdin=OTHER_NODE)
            made = next(changes)
            beat = '{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}'
            defined.kubectl("patch", "node", "node9", "--subresource=status", f"-p={beat}")
            defined.kubectl("label", "node", "node9", "row=3")
            labelled = next(changes)
        finally:
            defined.kubectl("delete", "node", "node9")
        assert [f"{keys.NODES}node9"] * 2 == [made.key, labelled.key]
        assert (False, True) == ('"row":"3"' in made.value, '"row":"3"' in labelled.value)
