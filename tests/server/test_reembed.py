"""A new version out of the live one, with nothing lost of what is written meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, Searcher
from esvector.client import connect
from esvector.errors import IndexNotFoundError, VerificationError
from esvector.index.reembed import reembed
from esvector.index.retries import RetryPolicy
from esvector.index.versions import list_versions, live_index
from esvector.types import Progress
from tests.support.encoders import HashEncoder
from tests.support.proxy import Proxy
from tests.support.proxy_faults import ApplyThenLose, Inject, ResetPeer


class CountingEncoder(HashEncoder):
    """Remembers what it encoded of documents."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.texts: list[str] = []

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_document(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        return super().encode_document(texts)


def papers(n: int) -> list[dict[str, Any]]:
    # One has an object that the BEIR layout would take apart, and ids are not those of a field.
    return [{"_id": f"p{i}", "text": f"about subject {i}", "year": 1990 + i % 30} for i in range(n)]


@pytest.fixture
def first(es: Elasticsearch, alias: str, tmp_path: Path) -> str:
    return Indexer(es, alias, encoder=HashEncoder(64), dead_letters=tmp_path / "dead.jsonl").run(papers(3000)).index


def sources(es: Elasticsearch, index: str) -> dict[str, Any]:
    es.indices.refresh(index=index)
    hits = es.search(index=index, size=10_000, source={"excludes": ["vector", "esvector_hash"]})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def test_another_encoder_without_the_source(es: Elasticsearch, alias: str, tmp_path: Path, first: str) -> None:
    encoder = CountingEncoder(96)
    report = reembed(Indexer(es, alias, encoder=encoder, rebuild=True, dead_letters=tmp_path / "dead.jsonl"))
    assert (report.load.index, report.load.previous) == (f"{alias}-000002", first)
    assert (report.load.indexed, report.passes) == (3000, 0)
    assert len(encoder.texts) == 3000
    assert report.recall > 0.95
    assert live_index(es, alias) == f"{alias}-000002"
    assert sources(es, alias) == sources(es, first)
    hit = Searcher(es, alias, encoder=HashEncoder(96)).search("about subject 1234", k=1)[0]
    assert hit.id == "p1234"
    assert hit.score == pytest.approx(1, abs=1e-5)
    again = Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(papers(3000))
    assert (again.index, again.unchanged) == (report.load.index, 3000)


def test_another_mapping_takes_the_vectors_along(es: Elasticsearch, alias: str, tmp_path: Path, first: str) -> None:
    bbq = {"mappings": {"properties": {"vector": {"type": "dense_vector", "index_options": {"type": "bbq_hnsw"}}}}}
    encoder = CountingEncoder(64)
    indexer = Indexer(es, alias, encoder=encoder, mapping=bbq, rebuild=True, dead_letters=tmp_path / "dead.jsonl")
    report = reembed(indexer, least_recall=0.0)
    assert encoder.texts == []
    assert report.load.indexed == 3000
    properties = es.indices.get_mapping(index=alias)[report.load.index]["mappings"]["properties"]
    assert properties["vector"]["index_options"]["type"] == "bbq_hnsw"
    hit = Searcher(es, alias, encoder=HashEncoder(64)).search("about subject 77", k=1)[0]
    assert hit.id == "p77"
    again = Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(papers(3000))
    assert (again.index, again.unchanged) == (report.load.index, 3000)


def test_what_others_write_meanwhile_is_there_in_the_end(
    es: Elasticsearch, alias: str, tmp_path: Path, first: str
) -> None:
    wrote = False

    def write_meanwhile(now: Progress) -> None:
        nonlocal wrote
        if not wrote and now.phase == "verifying":
            wrote = True
            es.update(index=first, id="p5", doc={"year": 2026})
            es.update(index=first, id="p6", doc={"text": "about nothing"})
            es.delete(index=first, id="p7")
            es.index(index=first, id="new", document={"text": "a new one", "vector": [1.0] * 64})

    indexer = Indexer(es, alias, encoder=CountingEncoder(96), rebuild=True, dead_letters=tmp_path / "dead.jsonl")
    report = reembed(indexer, progress=write_meanwhile)
    assert wrote
    assert report.passes >= 1
    found = sources(es, alias)
    assert found == sources(es, first)
    assert (found["p5"]["year"], found["p6"]["text"], "p7" in found) == (2026, "about nothing", False)
    hit = Searcher(es, alias, encoder=HashEncoder(96)).search("about nothing", k=1)[0]
    assert hit.id == "p6"
    es.index(index=first, id="again", document={"text": "not blocked any more"})


def test_lost_answers_and_a_server_in_trouble_are_waited_for(
    es: Elasticsearch, alias: str, tmp_path: Path, server_url: str, first: str
) -> None:
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client:
        proxy.once(f"GET /{first}/_stats", ResetPeer())
        proxy.once(f"PUT /{first}/_block/write", ApplyThenLose())
        proxy.once(f"PUT /{first}/_settings", Inject(503))
        proxy.once(f"PUT /{first}/_mapping", Inject(429))
        options: dict[str, Any] = {"retry": RetryPolicy(first_wait=0.05), "dead_letters": tmp_path / "dead.jsonl"}
        report = reembed(Indexer(client, alias, encoder=CountingEncoder(96), rebuild=True, **options))
        assert not proxy.unmet
    assert (report.load.indexed, live_index(es, alias)) == (3000, f"{alias}-000002")
    es.index(index=first, id="again", document={"text": "not blocked any more"})


def test_vectors_that_were_brought_along_can_be_taken_along_or_replaced(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    made = HashEncoder(64)
    vectors = made.encode_document([record["text"] for record in papers(50)])
    records = [{**record, "embedding": vector.tolist()} for record, vector in zip(papers(50), vectors, strict=True)]
    options: dict[str, Any] = {"dead_letters": tmp_path / "dead.jsonl"}
    Indexer(es, alias, encoder=made, given="embedding", **options).run(records)
    assert (
        reembed(Indexer(es, alias, encoder=made, rebuild=True, element_type="bfloat16", **options)).load.indexed == 50
    )
    hit = Searcher(es, alias, encoder=made).search("about subject 7", k=1)[0]
    assert (hit.id, round(hit.score, 2)) == ("p7", 1)
    encoder = CountingEncoder(96)
    assert reembed(Indexer(es, alias, encoder=encoder, rebuild=True, **options)).load.indexed == 50
    assert len(encoder.texts) == 50


def test_a_version_that_finds_too_little_is_not_served(
    es: Elasticsearch, alias: str, tmp_path: Path, first: str
) -> None:
    indexer = Indexer(es, alias, encoder=CountingEncoder(96), rebuild=True, dead_letters=tmp_path / "dead.jsonl")
    with pytest.raises(VerificationError, match=r"less than 1\.01"):
        reembed(indexer, least_recall=1.01)
    assert live_index(es, alias) == first
    assert reembed(indexer).load.index == f"{alias}-000002"


def test_there_must_be_something_to_start_from(es: Elasticsearch, alias: str) -> None:
    with pytest.raises(IndexNotFoundError, match="no live index"):
        reembed(Indexer(es, alias, encoder=HashEncoder(), rebuild=True))


def test_an_index_that_a_dead_run_closed_is_opened_by_the_next(
    es: Elasticsearch, alias: str, tmp_path: Path, first: str
) -> None:
    meta = es.indices.get_mapping(index=first)[first]["mappings"]["_meta"]
    es.indices.put_mapping(index=first, meta={**meta, "esvector_blocked": True})
    es.indices.add_block(index=first, block="write")
    Indexer(es, alias, encoder=HashEncoder(64), dead_letters=tmp_path / "dead.jsonl").run(papers(3001))
    assert es.count(index=alias)["count"] == 3001
    assert [version.index for version in list_versions(es, alias)] == [first]
