"""An index that takes no writes, as over a full disk: all senders pause, and go on by themselves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from elasticsearch import Elasticsearch

from esvector.errors import IndexingError
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.pipeline import Stopped
from tests.support.proxy import Proxy
from tests.support.proxy_faults import Inject
from tests.support.writing import QUICK, assert_holds, batch_of, until, write

BATCH = batch_of(2000)
SENDERS = 4


@pytest.mark.parametrize(
    ("block", "said"), [("read_only_allow_delete", "flood-stage watermark"), ("write", r"FORBIDDEN/8/index write")]
)
def test_a_block_pauses_all_senders_until_it_goes(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str, block: str, said: str
) -> None:
    set_block(es, target, block, True)
    writer = BulkWriter(behind, target, retry=QUICK, body_bytes=20_000)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(write, writer, BATCH, threads=SENDERS)
        until(lambda: proxy.bulks >= SENDERS + 3, result)
        assert (writer.waiting_for or "").startswith("blocked for ")
        assert said in (writer.waiting_for or "")
        set_block(es, target, block, None)
        assert result.result().created == 2000
    assert writer.traffic.blocks == 1
    assert_holds(es, target, BATCH)


def test_while_it_is_blocked_one_request_asks_from_time_to_time(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    """However many senders there are; and the deadline is that of blocks, not that of any other trouble."""
    set_block(es, target, "read_only_allow_delete", True)
    policy = RetryPolicy(busy=0.01, blocked=1.0, probe_every=0.5, first_wait=0.01)
    with pytest.raises(IndexingError, match=r"took no writes for 1 s: .*flood-stage"):
        write(BulkWriter(behind, target, retry=policy), BATCH, threads=SENDERS)
    # Each sender meets it, once more if its first request was under way when it began; two or three probes follow, and
    # each asks a last time before it gives up. Without the pause there would be hundreds.
    assert proxy.bulks <= 2 * SENDERS + 3 + SENDERS


def test_an_answer_of_somebody_else_is_no_end_of_the_block(
    es: Elasticsearch, behind: Elasticsearch, proxy: Proxy, target: str
) -> None:
    """Only a write that the server has taken is."""
    set_block(es, target, "write", True)
    proxy.on(2, Inject(502))  # the first probe
    writer = BulkWriter(behind, target, retry=QUICK)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(write, writer, BATCH[:100], threads=1)
        until(lambda: proxy.bulks >= 5, result)
        set_block(es, target, "write", None)
        assert result.result().created == 100
    assert proxy.faults == 1
    assert writer.traffic.blocks == 1


def test_a_run_that_is_stopped_does_not_wait_for_the_block_to_go(es: Elasticsearch, target: str) -> None:
    set_block(es, target, "write", True)
    stopping = threading.Event()
    writer = BulkWriter(es, target, retry=RetryPolicy(probe_every=1000), stopping=stopping)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(write, writer, BATCH, threads=SENDERS)
        until(lambda: writer.waiting_for, result)
        stopping.set()
        with pytest.raises(Stopped):
            result.result(timeout=5)


def set_block(es: Elasticsearch, target: str, block: str, value: bool | None) -> None:
    es.indices.put_settings(index=f"{target}-1", settings={f"index.blocks.{block}": value})
