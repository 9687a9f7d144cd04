"""Three nodes, a replica of every shard, and a load during which nodes go: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector.client import connect
from tests.support.cluster import Cluster, three_nodes
from tests.support.crash_rounds import DIMS, OPTIONS, first_load, papers
from tests.support.crashing import Job
from tests.support.encoders import HashEncoder
from tests.support.judge import judge

ALIAS = "kept"
INDEX = f"{ALIAS}-000001"
FIRST = papers(12_000)
PART = 5000  # more than two windows: one is read ahead while the one before is compared

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, and an index with a replica that a load has made; one of the two has died and come back."""
    folder = tmp_path_factory.mktemp("first")
    with three_nodes() as cluster:
        with connect(cluster.url, environ={}) as client:
            first_load(client, ALIAS, folder, FIRST)
            cluster.wait("green", nodes=3)
        yield cluster


@pytest.fixture
def es(cluster: Cluster) -> Iterator[Elasticsearch]:
    with connect(cluster.url, environ={}) as client:
        yield client


class Fed:
    """The records of a source that is a pipe, given out part by part."""

    def __init__(self, path: Path, records: list[dict[str, Any]]) -> None:
        os.mkfifo(path)
        self._lines = [json.dumps(record).encode() + b"\n" for record in records]
        self._path = path

    def __enter__(self) -> Fed:
        self._pipe = self._path.open("wb", buffering=0)  # waits for the reader
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()

    def give(self, count: int) -> None:
        part, self._lines = self._lines[:count], self._lines[count:]
        self._pipe.write(b"".join(part))


def updated(name: str) -> list[dict[str, Any]]:
    return [{**record, "text": f"{record['text']} {name}"} for record in FIRST]


def job_of(cluster: Cluster, folder: Path) -> Job:
    return Job(cluster.url, ALIAS, folder / "source.jsonl", folder, OPTIONS, dims=DIMS)


def wait_until(ready: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def give(source: Fed, job: Job, count: int) -> None:
    """Give out so many records, and wait until some of them are acknowledged."""
    before = len(job.acked)
    source.give(count)
    wait_until(lambda: len(job.acked) > before)


def test_the_node_with_the_primary_dies_after_the_build(cluster: Cluster, es: Elasticsearch) -> None:
    assert es.indices.get_settings(index=INDEX)[INDEX]["settings"]["index"]["number_of_replicas"] == "1"
    victim = cluster.primary_of(INDEX)
    victim.kill()
    try:
        cluster.wait("yellow", nodes=2)
        judge(es, ALIAS, FIRST, HashEncoder(DIMS), acked=[record["id"] for record in FIRST])
    finally:
        victim.start()
    cluster.wait("green", nodes=3)


def test_the_node_with_the_primary_dies_during_an_update(cluster: Cluster, es: Elasticsearch, tmp_path: Path) -> None:
    records, job = updated("once"), job_of(cluster, tmp_path)
    source = Fed(job.source, records)
    with job.running() as running:
        with source:
            give(source, job, PART)
            victim = cluster.primary_of(INDEX)
            victim.kill()
            acked = job.acked
            assert len(acked) < len(records)
            source.give(len(records))
        assert running.wait().status == 0
    judge(es, ALIAS, records, HashEncoder(DIMS), report=job.report, acked=acked | job.acked, encoded=job.encoded)
    victim.start()
    cluster.wait("green", nodes=3)
    judge(es, ALIAS, records, HashEncoder(DIMS), acked=acked | job.acked)


def test_two_nodes_are_restarted_one_after_the_other_during_an_update(
    cluster: Cluster, es: Elasticsearch, tmp_path: Path
) -> None:
    records, job = updated("twice"), job_of(cluster, tmp_path)
    source = Fed(job.source, records)
    first = cluster.primary_of(INDEX)
    second = next(node for node in cluster.nodes if node is not first)
    with job.running() as running:
        with source:
            for node in (first, second):
                give(source, job, PART)
                node.terminate()
                node.start()
                cluster.wait("green", nodes=3)
            source.give(len(records))
        assert running.wait().status == 0
    judge(es, ALIAS, records, HashEncoder(DIMS), report=job.report, acked=job.acked, encoded=job.encoded)
