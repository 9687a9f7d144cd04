"""The writer when the server is in trouble. Faults are real; a lost answer was applied and then thrown away."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elastic_transport import ConnectionTimeout
from elasticsearch import Elasticsearch
from elasticsearch._sync.client.indices import IndicesClient

from esvector import Indexer
from esvector.errors import IndexingError, InterruptedRun
from esvector.index.bulk import BulkWriter, RetryPolicy
from esvector.index.versions import live_index
from esvector.types import Progress
from tests.support.encoders import HashEncoder

QUICK = RetryPolicy(give_up_after=20, first_wait=0.01, longest_wait=0.1, probe_every=0.1)
FLAT = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": {"type": "flat"}}}}}


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every third bulk request is applied, and then its answer is lost."""
    calls = itertools.count(1)
    lost: list[int] = []
    bulk = Elasticsearch.bulk

    def apply_then_lose(self: Elasticsearch, **arguments: Any) -> Any:
        answer = bulk(self, **arguments)
        if (number := next(calls)) % 3 == 0:
            lost.append(number)
            raise ConnectionTimeout("the answer is lost")
        return answer

    monkeypatch.setattr(Elasticsearch, "bulk", apply_then_lose)
    return lost


def test_lost_answers_lose_and_double_nothing(
    es: Elasticsearch, alias: str, tmp_path: Path, lose_answers: list[int]
) -> None:
    order = random.Random(11)
    records = [{"id": str(order.randrange(3000)), "text": f"version {n}", "n": n} for n in range(6000)]
    last = {record["id"]: record["n"] for record in records}
    dead = tmp_path / "dead.jsonl"
    indexer = Indexer(
        es, alias, encoder=HashEncoder(16), mapping=FLAT, retry=QUICK, body_bytes=50_000, dead_letters=dead
    )
    report = indexer.run(records)
    assert len(lose_answers) > 3
    assert (report.indexed, report.superseded, report.dead) == (len(last), 6000 - len(last), 0)
    stored = es.search(index=alias, size=5000, source={"includes": ["n"]})["hits"]["hits"]
    assert {hit["_id"]: hit["_source"]["n"] for hit in stored} == last


def test_a_swap_whose_answer_is_lost_is_a_swap(
    es: Elasticsearch, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What readers see must never be deleted as if the run had failed."""
    update_aliases = IndicesClient.update_aliases

    def apply_then_lose(self: IndicesClient, **arguments: Any) -> Any:
        update_aliases(self, **arguments)
        raise ConnectionTimeout("the answer is lost")

    indexer = Indexer(es, alias, encoder=HashEncoder(16), mapping=FLAT, dead_letters=tmp_path / "dead.jsonl")
    indexer.run([{"id": "old", "text": "old"}])
    monkeypatch.setattr(IndicesClient, "update_aliases", apply_then_lose)
    again = Indexer(
        es, alias, encoder=HashEncoder(16), mapping=FLAT, dead_letters=tmp_path / "dead.jsonl", rebuild=True
    )
    report = again.run([{"id": "new", "text": "new"}])
    assert live_index(es, alias) == report.index == f"{alias}-000002"
    assert es.count(index=alias)["count"] == 1


def test_a_run_interrupted_after_its_swap_deletes_nothing(
    es: Elasticsearch, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_aliases = IndicesClient.update_aliases

    def apply_then_interrupt(self: IndicesClient, **arguments: Any) -> Any:
        update_aliases(self, **arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(IndicesClient, "update_aliases", apply_then_interrupt)
    indexer = Indexer(es, alias, encoder=HashEncoder(16), mapping=FLAT, dead_letters=tmp_path / "dead.jsonl")
    with pytest.raises(InterruptedRun, match="The run was complete"):
        indexer.run([{"id": "new", "text": "new"}])
    assert es.count(index=alias)["count"] == 1


def test_a_blocked_index_pauses_the_run_which_then_goes_on(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """As a disk over the flood-stage watermark does, and its recovery."""
    index = f"{alias}-000001"
    ticks = 0

    def source() -> Iterator[dict[str, Any]]:
        for n in range(6000):
            if n == 3000:
                es.indices.put_settings(index=index, settings={"index.blocks.read_only_allow_delete": True})
            yield {"id": str(n), "text": f"text {n}"}

    def unblock_later(progress: Progress) -> None:
        nonlocal ticks
        ticks += progress.read >= 6000 or progress.encoded >= 4000
        if ticks == 5:
            es.indices.put_settings(index=index, settings={"index.blocks.read_only_allow_delete": None})

    indexer = Indexer(
        es, alias, encoder=HashEncoder(16), mapping=FLAT, retry=QUICK, dead_letters=tmp_path / "dead.jsonl"
    )
    report = indexer.run(source(), unblock_later)
    assert ticks >= 5
    assert (report.indexed, report.dead) == (6000, 0)


def test_a_server_that_takes_nothing_ends_the_run_after_a_while(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    def source() -> Iterator[dict[str, Any]]:
        for n in range(3000):
            if n == 2000:
                es.indices.put_settings(index=f"{alias}-000001", settings={"index.blocks.read_only_allow_delete": True})
            yield {"id": str(n), "text": f"text {n}"}

    policy = RetryPolicy(give_up_after=0.5, first_wait=0.05, longest_wait=0.2)
    indexer = Indexer(
        es, alias, encoder=HashEncoder(16), mapping=FLAT, retry=policy, dead_letters=tmp_path / "dead.jsonl"
    )
    with pytest.raises(IndexingError, match=r"took no writes for 0\.5 s: .*flood-stage"):
        indexer.run(source())
    assert live_index(es, alias) is None


def test_one_malformed_operation_costs_only_itself(es: Elasticsearch, alias: str) -> None:
    """An id over 512 bytes fails its whole request; the indexer checks it before, the writer finds it by halving."""
    es.indices.create(index=f"{alias}-1", aliases={alias: {}}, mappings={"properties": {"vector": _vector(4)}})
    ids = [f"d{n}" for n in range(100)]
    ids[37] = "x" * 513
    vectors = np.eye(100, 4, dtype=np.float32) + 1
    writer = BulkWriter(es, alias, retry=QUICK)
    result = writer.deliver(writer.pack(ids, range(100), [b"{}"] * 100, vectors))
    assert result.created == 99
    assert [position for position, _ in result.refused] == [37]
    assert "512" in result.refused[0][1]


def test_a_write_never_creates_an_index(es: Elasticsearch, alias: str) -> None:
    writer = BulkWriter(es, alias, retry=QUICK)
    with pytest.raises(IndexingError, match="nothing can be written"):
        writer.deliver(writer.pack(["a"], [1], [b"{}"], np.ones((1, 4), np.float32)))
    assert not es.indices.exists(index=alias)


def _vector(dims: int) -> dict[str, Any]:
    return {"type": "dense_vector", "dims": dims, "index_options": {"type": "flat"}}
