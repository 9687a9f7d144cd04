"""Connections that break, answers that get lost or cannot be understood: nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from esvector.errors import IndexingError, ServerUnreachableError
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.pipeline import Stopped
from esvector.local.node import Node
from esvector.local.ports import free_port
from tests.support.proxy import Proxy
from tests.support.proxy_faults import (
    ApplyThenLose,
    Bandwidth,
    CutResponse,
    CutUpload,
    Fault,
    Inject,
    Latency,
    ResetPeer,
    Timeout,
)
from tests.support.writing import QUICK, assert_holds, batch_of, until, write

BATCH = batch_of(2000)
SMALL_BODIES = 20_000


def test_answers_lost_after_the_request_was_applied(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    proxy.every(3, ApplyThenLose())
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=SMALL_BODIES)
    result = write(writer, BATCH)
    assert proxy.faults > 3
    assert result.created + result.uncertain == 2000
    assert result.uncertain > 0
    assert result.repeated_ids == []
    assert writer.traffic.unknown == proxy.faults
    assert writer.traffic.requests == proxy.bulks
    assert_holds(es, target, BATCH)


def test_an_answer_lost_is_asked_for_again_with_identical_bytes(
    behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    proxy.on(2, ApplyThenLose())
    write(BulkWriter(behind, target, retry=QUICK, body_bytes=SMALL_BODIES), BATCH, threads=1)
    assert proxy.bodies[1] == proxy.bodies[2]


def test_uploads_cut_anywhere(es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str) -> None:
    order = random.Random(5)
    for number in range(1, 30, 2):
        proxy.on(number, CutUpload(order.randrange(SMALL_BODIES)))
    result = write(BulkWriter(behind, target, retry=QUICK, body_bytes=SMALL_BODIES), BATCH)
    assert proxy.faults == 15
    assert result.created + result.uncertain == 2000
    assert_holds(es, target, BATCH)


@pytest.mark.parametrize(
    "fault",
    [
        CutResponse(0),
        CutResponse(40),
        CutResponse(250),
        CutResponse(250, reset=True),
        ResetPeer(),
        Inject(200, ""),
        Inject(200, '{"items":[{"index":{"status":201}},'),
        Inject(200, {"items": [{"index": {"status": 201}}]}),
        Inject(200, {"items": "none"}),
        Inject(200, "<html>Welcome</html>", "text/html"),
        Inject(400, "<html>Bad request</html>", "text/html"),
        Inject(404, "<html>No such host</html>", "text/html"),
        Inject(502, "<html>Bad gateway</html>", "text/html"),
        Inject(503, {"error": {"type": "unavailable_shards_exception", "reason": "shard"}, "status": 503}),
        Inject(504, ""),
    ],
    ids=str,
)
def test_answers_that_say_nothing_are_no_answers(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str, fault: Fault
) -> None:
    proxy.on(1, fault)
    proxy.on(3, fault)
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=SMALL_BODIES)
    result = write(writer, BATCH[:500], threads=1)
    assert proxy.faults == 2
    assert result.created + result.uncertain == 500
    assert_holds(es, target, BATCH[:500])


def test_a_server_that_is_away_is_waited_for_and_said_so(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=SMALL_BODIES)
    with ThreadPoolExecutor(1) as pool:
        with proxy.down():
            result = pool.submit(write, writer, BATCH)
            until(lambda: "refused" in (writer.waiting_for or ""), result)
            assert re.fullmatch(r"waiting for Elasticsearch for \d+ s: Connection refused", writer.waiting_for or "")
        assert result.result().created + result.result().uncertain == 2000
    assert writer.waiting_for is None
    assert_holds(es, target, BATCH)


def test_a_server_that_stays_away_ends_the_run_after_its_own_deadline(alias: str) -> None:
    policy = RetryPolicy(unreachable=0.3, first_wait=0.01, longest_wait=0.05)
    with (
        connect(f"http://127.0.0.1:{free_port()}", environ={}) as nobody,
        pytest.raises(IndexingError, match=r"took no writes for 0\.3 s: Connection refused"),
    ):
        write(BulkWriter(nobody, alias, retry=policy), BATCH, threads=1)


def test_a_run_that_is_stopped_waits_for_nobody(alias: str) -> None:
    stopping = threading.Event()
    patient = RetryPolicy(first_wait=1000, longest_wait=1000, longest_absence=1000)
    with connect(f"http://127.0.0.1:{free_port()}", environ={}) as nobody, ThreadPoolExecutor(1) as pool:
        writer = BulkWriter(nobody, alias, retry=patient, stopping=stopping)
        result = pool.submit(write, writer, BATCH, threads=3)
        until(lambda: writer.waiting_for, result)
        stopping.set()
        with pytest.raises(Stopped):
            result.result(timeout=5)


@pytest.mark.parametrize("fault", [Latency(0.05), Bandwidth(1_000_000)], ids=str)
def test_a_slow_network_only_takes_longer(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str, fault: Fault
) -> None:
    proxy.every(1, fault)
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=SMALL_BODIES)
    assert write(writer, BATCH).created == 2000
    assert writer.traffic.sent_again == 0
    assert_holds(es, target, BATCH)


def test_a_server_that_hangs_gets_no_pile_of_repetitions(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str, node: Node
) -> None:
    """As in a long garbage collection: the connection stays, and nothing is answered."""
    hasty = RetryPolicy(give_up_after=60, first_wait=0.01, longest_wait=0.1, request_timeout=0.5)
    writer = BulkWriter(behind, target, retry=hasty, body_bytes=SMALL_BODIES)
    with ThreadPoolExecutor(1) as pool:
        with frozen(node):
            result = pool.submit(write, writer, BATCH[:250], threads=1)
            proxy.wait_for(lambda: proxy.bulks >= 3)
            assert proxy.bodies[0] == proxy.bodies[1] == proxy.bodies[2]
        assert result.result().created + result.result().uncertain == 250
    assert_holds(es, target, BATCH[:250])


def test_an_answer_that_never_comes_is_given_up(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    proxy.on(2, Timeout())
    hasty = RetryPolicy(first_wait=0.01, request_timeout=2)
    assert write(BulkWriter(behind, target, retry=hasty, body_bytes=SMALL_BODIES), BATCH).created == 2000
    assert_holds(es, target, BATCH)


def test_of_several_addresses_a_dead_one_is_left_out(es: Elasticsearch, proxy: Proxy, target: str) -> None:
    with connect(f"http://127.0.0.1:{free_port()}, {proxy.url}", environ={}) as client:
        assert client.indices.exists_alias(name=target)
        writer = BulkWriter(client, target, retry=QUICK, body_bytes=SMALL_BODIES)
        assert write(writer, BATCH).created == 2000
    assert writer.traffic.requests - proxy.bulks <= 8  # each of four threads may try the dead one, and once again later
    assert_holds(es, target, BATCH)


def test_a_connection_that_is_no_trusted_one_ends_the_run_at_once(server_url: str, target: str) -> None:
    with connect(server_url.replace("http://", "https://"), environ={}) as client:
        writer = BulkWriter(client, target)
        with pytest.raises(ServerUnreachableError, match="no trusted TLS connection"):
            writer.deliver(writer.pack(BATCH.ids, BATCH.versions, BATCH.sources, BATCH.vectors))
    assert writer.traffic.requests == 1


@contextmanager
def frozen(node: Node) -> Iterator[None]:
    pid = node.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
