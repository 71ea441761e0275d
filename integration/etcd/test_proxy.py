"""What the recording proxy tells of a plain HTTP client's requests to a real etcd."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from integration.etcd.client import RANGE, TXN, Client, create, read_past
from integration.etcd.exchange import Compare, Operation, Written
from integration.etcd.gateway import encode
from integration.etcd.proxy import Proxy
from integration.etcd.relay import KEPT_ANSWER_BYTES
from integration.network import becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator

RESET = "reset by peer"


@pytest.fixture
def proxy(etcd) -> Iterator[Proxy]:
    """A proxy in front of a clean etcd."""
    with Proxy(etcd.endpoints[0], archive=[]) as made:
        yield made


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    """A connection through the proxy."""
    made = Client(proxy.endpoint)
    yield made
    made.close()


def test_requests_and_answers_pass_unchanged(etcd, client):
    """What is put through the proxy lies in etcd, and comes back through it."""
    client.put("/a", "ä" * 100_000)
    assert "ä" * 100_000 == client.get("/a")
    assert "ä" * 100_000 == read_past(etcd, "/a")


def test_one_connection_serves_many_requests(proxy, client):
    """Keep-alive: three requests of one client are counted on one connection."""
    for _ in range(3):
        client.get("/a")
    assert [3] == [len(found) for found in proxy.by_connection().values()]


def test_two_clients_have_a_connection_each(proxy, client):
    """Requests are told apart by connection."""
    other = Client(proxy.endpoint)
    client.get("/a")
    other.get("/a")
    client.get("/a")
    other.close()
    assert [2, 1] == [len(found) for found in proxy.by_connection().values()]


def test_requests_are_counted_in_total_and_by_path(proxy, client):
    """`count` is the number of requests, or of those for one path."""
    client.put("/a", "1")
    client.get("/a")
    assert (2, 1) == (proxy.count(), proxy.count(RANGE))


def test_a_chunked_body_is_understood(proxy, client):
    """A client may send its body in chunks."""
    chunks = iter([b'{"key":', b'"%s"}' % encode("/a").encode()])
    client.request("POST", RANGE, chunks, encode_chunked=True)
    assert 200 == client.getresponse().status
    assert [Operation("range", "/a")] == proxy.requests[0].operations


def test_a_transaction_is_decoded(proxy, client):
    """Compares, operations and alternatives are told with keys and values as texts."""
    client.call(TXN, create("/a", "1"))
    (seen,) = proxy.requests
    assert [Compare("/a", "MOD", "EQUAL", 0)] == seen.compares
    assert [Operation("put", "/a", None, "1")] == seen.operations
    assert [Operation("range", "/a")] == seen.alternatives


def test_both_spellings_of_a_field_are_decoded(proxy, client):
    """The gateway takes request_put and range_end as well as requestPut and rangeEnd."""
    steps = [
        {"request_range": {"key": encode("/a"), "range_end": encode("/b")}},
        {"request_put": {"key": encode("/c"), "value": encode("1")}},
        {"requestDeleteRange": {"key": encode("/d"), "rangeEnd": encode("/e")}},
    ]
    client.call(TXN, {"success": steps})
    expected = [
        Operation("range", "/a", "/b"),
        Operation("put", "/c", None, "1"),
        Operation("delete", "/d", "/e"),
    ]
    assert expected == proxy.requests[0].operations


def test_a_transaction_that_lost_is_told_from_one_that_won(proxy, client):
    """`succeeded` is what the server's answer says."""
    client.call(TXN, create("/a", "1"))
    client.call(TXN, create("/a", "2"))
    assert [True, False] == [seen.succeeded for seen in proxy.requests]


def test_what_was_written_is_recorded_with_its_revision(etcd, proxy, client):
    """A put, a transaction that won and a removal are written; one that lost is not."""
    client.call(TXN, create("/a", "1"))
    first = proxy.requests[0].revision
    client.call(TXN, create("/a", "2"))
    client.put("/a", "3")
    client.call(TXN, {"success": [{"requestDeleteRange": {"key": encode("/a")}}]})
    expected = [
        Written("/a", "1", first),
        Written("/a", "3", first + 1),
        Written("/a", None, first + 2),
    ]
    assert expected == proxy.writes


def test_a_refused_request_wrote_nothing(proxy, client):
    """A request that etcd answers with an error is no write."""
    refused = create("/a", "1")
    refused |= {"compare": [{"key": encode("/a"), "target": "NONE"}]}
    client.call(TXN, {**refused, "failure": refused["success"]})
    assert ([], False) == (proxy.writes, proxy.requests[0].succeeded)


def test_the_record_is_there_when_the_client_has_its_answer(proxy, client):
    """Nobody has to wait for the proxy after the answer."""
    for number in range(200):
        client.put("/a", str(number))
        assert number + 1 == len(proxy.writes)


def test_clear_forgets_and_keeps_what_was_written_in_the_archive(etcd):
    """The archive gets each write once, at `clear` or at the end."""
    archive: list[Written] = []
    with Proxy(etcd.endpoints[0], archive) as proxy:
        client = Client(proxy.endpoint)
        client.put("/a", "1")
        proxy.clear()
        assert (0, []) == (proxy.count(), proxy.writes)
        client.put("/a", "2")
        client.close()
    assert ["1", "2"] == [written.value for written in archive]


def test_clear_waits_for_what_is_on_its_way(etcd):
    """A write that comes late is not missing in the archive."""
    archive: list[Written] = []
    with Proxy(etcd.endpoints[0], archive) as proxy:
        proxy.delay(0.2)
        client = Client(proxy.endpoint)
        client.send_request("/v3/kv/put", {"key": encode("/a"), "value": encode("1")})
        client.close()
        proxy.clear()
        assert ["1"] == [written.value for written in archive]


def test_only_the_beginning_of_a_long_answer_is_kept(proxy, client):
    """Thousands of them have to find room; the head says all that is asked."""
    client.put("/a", "x" * 1_000_000)
    assert "x" * 1_000_000 == client.get("/a")
    seen = proxy.requests[-1]
    assert len(seen.answer) <= 2 * KEPT_ANSWER_BYTES
    assert (True, proxy.writes[0].revision) == (seen.succeeded, seen.revision)


def test_events_of_a_watch_pass_at_once(proxy, client):
    """Each event of a stream comes before the stream ends."""
    watcher = Client(proxy.endpoint)
    watcher.send_request("/v3/watch", {"create_request": {"key": encode("/a")}})
    answer = watcher.getresponse()
    assert json.loads(answer.readline())["result"]["created"]
    for value in ("1", "2"):
        client.put("/a", value)
        (event,) = json.loads(answer.readline())["result"]["events"]
        assert encode(value) == event["kv"]["value"]
    watcher.close()


def test_a_watch_ends_with_its_client(proxy):
    """The proxy's connection goes when the client's does."""
    watcher = Client(proxy.endpoint)
    watcher.send_request("/v3/watch", {"create_request": {"key": encode("/a")}})
    answer = watcher.getresponse()
    answer.readline()
    answer.close()
    watcher.close()
    assert becomes_true(lambda: proxy.requests[0].outcome == "lost")


def test_only_http_endpoints_are_taken():
    """The proxy cannot read what is encrypted."""
    with pytest.raises(ValueError, match="http://host:port"):
        Proxy("https://127.0.0.1:2379")


def test_a_proxy_stands_before_each_endpoint(etcd34, etcd35):
    """Several at once, each with its own record and faults."""
    with (
        Proxy(etcd34.endpoints[0], archive=[]) as first,
        Proxy(etcd35.endpoints[0], archive=[]) as second,
    ):
        first.cut_request(1)
        one, two = Client(first.endpoint), Client(second.endpoint)
        two.put("/a", "1")
        with pytest.raises(ConnectionResetError, match=RESET):
            one.get("/a")
        two.close()
        assert (1, 1) == (first.count(), second.count())
        assert ([], ["1"]) == (first.writes, [written.value for written in second.writes])


def test_many_clients_at_once_are_all_recorded(proxy):
    """Sixteen threads with a connection for every few requests."""

    def work(name: str) -> None:
        for number in range(20):
            client = Client(proxy.endpoint)
            client.put(f"/{name}/{number}", "1")
            client.put(f"/{name}/{number}", "2")
            client.close()

    threads = [threading.Thread(target=work, args=(str(name),)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    revisions = [written.revision for written in proxy.writes]
    assert (640, 640) == (proxy.count(), len(set(revisions)))
    assert sorted(revisions) == revisions
    assert 320 == len(proxy.by_connection())
