"""SIGTERM and Ctrl-C: a run ends within its grace in whatever it does, and the same command goes on with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from esvector.local.node import Node
from tests.support.cluster import Server
from tests.support.crash_rounds import DIMS, OPTIONS, papers, write_source
from tests.support.crashing import Job, Running
from tests.support.encoders import HashEncoder
from tests.support.judge import judge
from tests.support.proxy import Proxy

RECORDS = papers(4000)
GRACE = 1.0
AT_ONCE = 10.0  # seconds that ending may take beside the grace: four of waiting for the server, on a busy machine


@pytest.fixture
def job(proxy: Proxy, alias: str, tmp_path: Path) -> Job:
    source = write_source(tmp_path / "source.jsonl", RECORDS)
    return Job(proxy.url, alias, source, tmp_path, {**OPTIONS, "grace": GRACE}, delay=0.0003, dims=DIMS)


def wait_until(ready: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def ended(running: Running, within: float) -> str:
    """How ``running`` ended, which has to be soon, as one that was interrupted."""
    begun = time.monotonic()
    attempt = running.wait(within + 30)
    assert attempt.status == 130, attempt
    assert time.monotonic() - begun < within, attempt
    return attempt.said


def finish(job: Job, es: Elasticsearch) -> None:
    job.done()
    judge(es, job.alias, RECORDS, HashEncoder(DIMS), report=job.report, acked=job.acked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("point", ["before:encode:5", "before:bulk:3"])
def test_amid_its_work(job: Job, es: Elasticsearch, point: str, number: signal.Signals) -> None:
    with job.running(point, number) as running:
        wait_until(lambda: "finishing what is under way" in (job.folder / "said").read_text())
        said = ended(running, AT_ONCE + GRACE)
    assert "the same command again" in said
    assert list(job.folder.glob("state/*/checkpoint"))
    finish(job, es)


def test_while_it_waits_for_its_input(job: Job, es: Elasticsearch) -> None:
    """A pipe that says no more, and does not end."""
    content = job.source.read_bytes()
    job.source.unlink()
    os.mkfifo(job.source)
    with job.running() as running, job.source.open("wb") as pipe:
        pipe.write(content[: len(content) * 3 // 4])
        pipe.flush()
        wait_until(lambda: len(job.acked) >= 2048)
        running.send(signal.SIGTERM)
        ended(running, AT_ONCE + GRACE)
    job.source.unlink()
    job.source.write_bytes(content)
    finish(job, es)


@contextmanager
def write_block(es: Elasticsearch, index: str) -> Iterator[None]:
    es.indices.put_settings(index=index, settings={"index.blocks.write": True})
    try:
        yield
    finally:
        es.indices.put_settings(index=index, settings={"index.blocks.write": None})


@pytest.mark.parametrize("trouble", ["refuses connections", "does not answer", "takes no writes"])
def test_while_elasticsearch(job: Job, es: Elasticsearch, proxy: Proxy, node: Node, trouble: str) -> None:
    troubles: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "refuses connections": proxy.down,
        "does not answer": lambda: Server(node.home).paused(),
        "takes no writes": lambda: write_block(es, f"{job.alias}-000001"),
    }
    with job.running() as running:
        wait_until(lambda: len(job.acked) >= 500)
        with troubles[trouble]():
            wait_until(lambda: job.encoded.total() == len(RECORDS))  # so that all that is left to do is to send
            assert len(job.acked) < len(RECORDS)
            running.send(signal.SIGTERM)
            ended(running, AT_ONCE + GRACE)
    finish(job, es)


def test_a_second_signal_ends_it_at_once(job: Job, es: Elasticsearch) -> None:
    patient = Job(job.url, job.alias, job.source, job.folder, {**OPTIONS, "grace": 60.0}, job.delay, dims=DIMS)
    with patient.running() as running:
        wait_until(lambda: len(patient.acked) >= 500)
        with write_block(es, f"{job.alias}-000001"):
            running.send(signal.SIGTERM)
            wait_until(lambda: "finishing what is under way" in (job.folder / "said").read_text())
            running.send(signal.SIGTERM)
            ended(running, AT_ONCE)
    finish(job, es)
