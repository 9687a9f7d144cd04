"""A node that dies, restarts or stands still under a load: the run waits, goes on by itself, and loses nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from tests.support.cluster import RealNode, real_node
from tests.support.crash_rounds import DIMS, OPTIONS, papers, write_source
from tests.support.crashing import Job, Running
from tests.support.encoders import HashEncoder
from tests.support.judge import judge
from tests.support.proxy import Proxy

RECORDS = papers(6000)

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def own() -> Iterator[RealNode]:
    with real_node() as node:
        yield node


@pytest.fixture
def es(own: RealNode) -> Iterator[Elasticsearch]:
    with connect(own.url, environ={}) as client:
        yield client


@pytest.fixture
def job(own: RealNode, tmp_path: Path, request: pytest.FixtureRequest) -> Job:
    source = write_source(tmp_path / "source.jsonl", RECORDS)
    alias = request.node.name.removeprefix("test_").replace("_", "-")
    return Job(own.url, alias, source, tmp_path, OPTIONS, delay=0.0005, dims=DIMS)


def wait_until(ready: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def stopped(running: Running) -> bool:
    """Whether the process stands still, by a signal that it has sent itself."""
    assert running.process.poll() is None
    return "T (stopped)" in Path(f"/proc/{running.process.pid}/status").read_text()


def test_a_node_killed_amid_a_load(own: RealNode, job: Job, es: Elasticsearch) -> None:
    """Kill -9: what it had acknowledged is on its disk."""
    with job.running() as running:
        wait_until(lambda: len(job.acked) >= 1000)
        own.kill()
        acked = job.acked
        assert len(acked) < len(RECORDS)
        own.start()
        own.wait()
        assert running.wait().status == 0
    judge(es, job.alias, RECORDS, HashEncoder(DIMS), report=job.report, acked=acked | job.acked, encoded=job.encoded)


def test_a_node_restarted_while_it_merges(own: RealNode, job: Job, es: Elasticsearch) -> None:
    """SIGTERM, in good order: the merge that builds the graph is begun anew."""
    with job.running("after:merge:1", signal.SIGSTOP) as running:
        wait_until(lambda: stopped(running))
        own.terminate()
        running.send(signal.SIGCONT)
        own.start()
        own.wait()
        assert running.wait().status == 0
    judge(es, job.alias, RECORDS, HashEncoder(DIMS), report=job.report, acked=job.acked, encoded=job.encoded)


def test_a_server_that_is_away_when_readers_are_moved(own: RealNode, job: Job, es: Elasticsearch) -> None:
    """The run ends, and says what to do; the same command encodes nothing and moves them."""
    with Proxy(own.url) as proxy:
        through = Job(proxy.url, job.alias, job.source, job.folder, OPTIONS, dims=DIMS)
        with through.running("before:swap:1", signal.SIGSTOP) as running:
            wait_until(lambda: stopped(running))
            with proxy.down():
                running.send(signal.SIGCONT)
                attempt = running.wait(30)
        assert attempt.status == 1
        assert "the same command again" in attempt.said
        assert not es.indices.exists_alias(name=job.alias)
        through.done()
    judge(es, job.alias, RECORDS, HashEncoder(DIMS), report=job.report, acked=job.acked, encoded=job.encoded)


def test_a_node_that_stands_still_longer_than_requests_wait(own: RealNode, job: Job, es: Elasticsearch) -> None:
    """As in a long garbage collection: no pile of repeated requests, and nothing twice."""
    hasty = {**OPTIONS, "retry": {"first_wait": 0.05, "longest_wait": 0.5, "request_timeout": 2.0}}
    with Proxy(own.url) as proxy:
        through = Job(proxy.url, job.alias, job.source, job.folder, hasty, job.delay, dims=DIMS)
        with through.running() as running:
            wait_until(lambda: len(through.acked) >= 1000)
            with own.paused():
                before = proxy.bulks
                time.sleep(5)  # two and a half times what a request waits: this is the fault
                assert proxy.bulks - before <= 2 * 4  # senders, times what each can send in five seconds
            assert running.wait().status == 0
        repeated = len(proxy.bodies) - len(set(proxy.bodies))
        assert 1 <= repeated <= 8
    judge(
        es, job.alias, RECORDS, HashEncoder(DIMS), report=through.report, acked=through.acked, encoded=through.encoded
    )
