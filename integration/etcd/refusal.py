"""What must hold after a call that etcd, or the way to it, does not serve.

    with unchanged(etcd):
        assert_refused(node.call("ADD", "c1"), 110, "the server's certificate is not trusted")

Stdout holds one error object, the status is 1, nothing was written, no secret is shown.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from integration.etcd.gateway import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from integration.etcd.servers import Cluster
    from integration.program import Answer

# A runtime gives up after 90 s; what no repetition helps is to be told long before any is tried.
AT_ONCE_SECONDS = 5.0


def assert_refused(answer: Answer, code: int, *phrases: str, secrets: Iterable[str] = ()) -> None:
    """One document with `code`, status 1, each phrase in the message or its details, no trace."""
    document = answer.document
    assert (1, code) == (answer.status, document["code"]), answer.stdout
    said = f"{document['msg']}\n{document.get('details', '')}"
    for phrase in phrases:
        assert phrase in said
    assert "Traceback" not in answer.stderr
    for secret in secrets:
        assert secret not in answer.stdout.decode() + answer.stderr


@contextlib.contextmanager
def unchanged(cluster: Cluster) -> Iterator[None]:
    """Nothing is written meanwhile: every write raises etcd's revision."""
    before = find_revision(cluster)
    yield
    assert before == find_revision(cluster)


def find_revision(cluster: Cluster) -> int:
    """The revision at which etcd is."""
    answer = cluster.administer("/v3/kv/range", {"key": encode("none")})
    return int(answer["header"]["revision"])


@contextlib.contextmanager
def at_once(seconds: float = AT_ONCE_SECONDS) -> Iterator[None]:
    """What happens inside is over before anything would be tried again for long."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds
