"""A server with too much to do, or with limits: real refusals of a node that is made small."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from elasticsearch import Elasticsearch, ElasticsearchWarning

from esvector.errors import IndexingError
from esvector.index.bulk import BulkWriter, RetryPolicy
from tests.support.proxy import Proxy
from tests.support.proxy_faults import Inject
from tests.support.writing import QUICK, assert_holds, batch_of, create_target, until, write

BATCH = batch_of(2000, size=500)
PATIENT = RetryPolicy(give_up_after=60, first_wait=0.01, longest_wait=0.5)


@pytest.fixture
def proxy(tiny_url: str) -> Iterator[Proxy]:
    with Proxy(tiny_url) as proxy:
        yield proxy


@pytest.fixture
def index(tiny: Elasticsearch, alias_name: str) -> Iterator[str]:
    yield create_target(tiny, alias_name)
    tiny.indices.delete(index=f"{alias_name}-1")


@pytest.fixture
def alias_name() -> str:
    return "tiny"


def test_documents_refused_by_a_full_queue_are_sent_again_and_no_others(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy
) -> None:
    """Of two shards one may be refused: its documents alone are sent again, and fewer senders send at once."""
    create_target(tiny, "tiny", shards=2)
    try:
        writer = BulkWriter(behind, "tiny", retry=PATIENT, body_bytes=100_000)
        result = write(writer, BATCH, threads=8, window=100)
        traffic = writer.traffic
        assert (result.created, result.refused) == (2000, [])
        assert traffic.busy > 0
        assert traffic.sent_again == sum(body.count(b'"_id"') for body in proxy.bodies) - 2000
        assert traffic.requests == proxy.bulks
        assert_holds(tiny, "tiny", BATCH)
    finally:
        tiny.indices.delete(index="tiny-1")


def test_requests_refused_for_the_memory_they_take(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    def rejections() -> int:
        nodes = tiny.nodes.stats(metric="indexing_pressure")["nodes"].values()
        return sum(node["indexing_pressure"]["memory"]["total"]["coordinating_rejections"] for node in nodes)

    before = rejections()
    batch = batch_of(2000, size=8000)
    writer = BulkWriter(behind, "tiny", retry=PATIENT, body_bytes=900_000)
    assert write(writer, batch, threads=8, window=100).created == 2000
    assert rejections() > before
    assert proxy.statuses[429] > 0
    assert_holds(tiny, "tiny", batch)


def test_an_open_circuit_breaker_is_waited_for_with_smaller_bodies(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    batch = BATCH[:2000]
    writer = BulkWriter(behind, "tiny", retry=QUICK, body_bytes=500_000)
    with ThreadPoolExecutor(1) as pool:
        breaker(tiny, "1%")
        try:
            result = pool.submit(write, writer, batch, threads=1, window=1000)
            until(lambda: proxy.statuses[429] >= 4, result)
            assert "short of memory" in (writer.waiting_for or "")
        finally:
            breaker(tiny, None)
        assert result.result().created == 2000
    assert len(proxy.bodies[3]) < len(proxy.bodies[0]) / 4
    assert_holds(tiny, "tiny", batch)


def test_a_document_that_no_memory_will_ever_suffice_for_is_refused(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    batch = batch_of(16)
    reason = "[parent] Data too large"
    error = {"type": "circuit_breaking_exception", "reason": reason, "durability": "PERMANENT"}
    for number in (1, 2, 3, 4, 5):  # 16, 8, 4, 2 documents, and one
        proxy.on(number, Inject(429, {"error": {**error, "root_cause": [error]}, "status": 429}))
    result = write(BulkWriter(behind, "tiny", retry=QUICK), batch, threads=1)
    assert result.refused == [(0, f"429 {reason}")]
    assert_holds(tiny, "tiny", batch, without=[0])


def test_the_limit_of_a_request_is_learned_and_costs_only_what_is_over_it_alone(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    """Small neighbours of the one document of 2 MB are indexed; no later body comes near the limit of 1 MiB."""
    batch = batch_of(300, size=20_000, fields={150: {"filling": "y" * 2_000_000}})
    writer = BulkWriter(behind, "tiny", retry=QUICK, body_bytes=4 * 2**20)
    result = write(writer, batch, threads=1, window=300)
    assert result.created == 299
    assert [(position, reason[:3]) for position, reason in result.refused] == [(150, "413")]
    assert proxy.statuses[413] == 1  # nothing but the large one was ever too large
    assert_holds(tiny, "tiny", batch, without=[150])


def test_bodies_that_grew_over_the_limit_come_down_once_and_for_all(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    """They grow as long as that pays: until the first 413 here. Each halving costs one request."""
    batch = batch_of(2000, size=20_000)
    writer = BulkWriter(behind, "tiny", retry=QUICK, body_bytes=2 * 2**20)
    writer._bodies.limit = 4 * 2**20
    assert write(writer, batch, threads=1, window=500).created == 2000
    assert 0 < proxy.statuses[413] <= 4
    assert sum(len(body) > 2**20 for body in proxy.bodies) == proxy.statuses[413]
    assert_holds(tiny, "tiny", batch)


def test_an_operation_over_the_servers_limit_is_refused_and_its_neighbours_are_not(
    tiny: Elasticsearch, behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    """The server refuses all documents of the request with the same words; the largest one is sent alone then."""
    batch = batch_of(100, fields={37: {"filling": "y" * 100_000}})
    result = write(BulkWriter(behind, "tiny", retry=QUICK), batch, threads=1)
    assert [position for position, _ in result.refused] == [37]
    assert "exceeds the maximum allowed limit" in result.refused[0][1]
    assert proxy.bulks == 3
    assert_holds(tiny, "tiny", batch, without=[37])


def test_a_server_that_stays_busy_ends_the_run_after_its_own_deadline(
    behind: Elasticsearch, proxy: Proxy, index: str
) -> None:
    proxy.every(1, Inject(429, {"error": {"type": "es_rejected_execution_exception", "reason": "full"}, "status": 429}))
    policy = RetryPolicy(busy=0.3, first_wait=0.01, longest_wait=0.05)
    with pytest.raises(IndexingError, match=r"took no writes for 0\.3 s: 429 full"):
        write(BulkWriter(behind, "tiny", retry=policy), BATCH[:100], threads=1)


def breaker(client: Elasticsearch, limit: str | None) -> None:
    """Set the limit of the parent breaker, far below what the server recommends."""
    settings: dict[str, Any] = {"indices.breaker.total.limit": limit}
    with pytest.warns(ElasticsearchWarning, match="below the recommended minimum"):
        client.cluster.put_settings(transient=settings)
