"""What a run leaves behind in a real Elasticsearch."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, Searcher, read_documents
from esvector.errors import ConfigError, HopelessInputError, IndexingError, InterruptedRun
from esvector.index.bulk import RetryPolicy
from esvector.index.inspect import describe_versions
from esvector.index.versions import list_versions, live_index
from esvector.types import IndexReport, Progress
from tests.support.encoders import HashEncoder

Records = list[dict[str, Any]]


def papers(n: int) -> Records:
    return [
        {"id": f"p{i}", "title": f"Paper {i}", "text": f"about subject {i}", "year": 1990 + i % 30} for i in range(n)
    ]


@pytest.fixture
def index(es: Elasticsearch, alias: str, tmp_path: Path) -> Any:
    def run(records: Any, encoder: Any = None, **options: Any) -> IndexReport:
        options.setdefault("dead_letters", tmp_path / "dead.jsonl")
        return Indexer(es, alias, encoder=encoder or HashEncoder(), **options).run(records)

    return run


def test_every_document_is_stored_under_its_own_names(index: Any, es: Elasticsearch, alias: str) -> None:
    report = index(papers(2500))
    assert (report.read, report.indexed, report.dead, report.superseded) == (2500, 2500, 0, 0)
    assert report.index == f"{alias}-000001"
    assert es.count(index=alias)["count"] == 2500
    stored = es.get(index=alias, id="p7")["_source"]
    assert len(stored.pop("esvector_hash")) == 32
    assert stored == {"id": "p7", "title": "Paper 7", "text": "about subject 7", "year": 1997}


def test_the_vector_is_the_one_of_the_text(index: Any, es: Elasticsearch, alias: str) -> None:
    encoder = HashEncoder(dims=96)
    index(papers(40), encoder)
    hits = es.search(index=alias, size=40, source={"includes": ["id", "title", "text", "vector"]})["hits"]["hits"]
    sources = [hit["_source"] for hit in hits]
    expected = encoder.encode_document([f"{s['title']} {s['text']}" for s in sources])
    assert np.allclose([s["vector"] for s in sources], expected, atol=1e-6)


def test_types_limits_and_graph_are_written_out(index: Any, es: Elasticsearch, alias: str) -> None:
    records = [
        {
            "id": str(i),
            "text": f"t {i}",
            "price": 1 if i % 2 else 2.5,
            "when": "2020-01-02",
            "ok": True,
            "tags": ["a"],
            "n": i,
        }
        for i in range(6)
    ]
    index(records, field_types={"n": "integer"})
    properties = es.indices.get_mapping(index=alias)[f"{alias}-000001"]["mappings"]["properties"]
    kinds = {name: prop["type"] for name, prop in properties.items()}
    assert kinds == {
        "id": "keyword", "text": "text", "title": "text", "price": "double", "when": "date",
        "ok": "boolean", "tags": "keyword", "n": "integer", "vector": "dense_vector",
        "esvector_hash": "keyword",
    }  # fmt: skip
    assert properties["vector"]["dims"] == 64
    assert properties["vector"]["similarity"] == "cosine"
    assert properties["vector"]["index_options"] == {
        "type": "int8_hnsw", "m": 16, "ef_construction": 100, "rescore_vector": {"oversample": 2.0},
    }  # fmt: skip


def test_the_passport_says_what_made_the_index(index: Any, es: Elasticsearch, alias: str) -> None:
    encoder = HashEncoder()
    index(papers(3), encoder)
    meta = es.indices.get_mapping(index=alias)[f"{alias}-000001"]["mappings"]["_meta"]["esvector"]
    assert meta["state"] == "ready"
    assert meta["encoder"] == encoder.profile.to_dict()
    assert meta["text_fields"] == ["title", "text"]
    assert meta["esvector"]


def test_settings_of_the_load_are_taken_back(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(3))
    settings = es.indices.get_settings(index=alias)[f"{alias}-000001"]["settings"]["index"]
    assert "refresh_interval" not in settings
    assert settings["auto_expand_replicas"] == "0-1"
    assert list(es.indices.get(index=alias)[f"{alias}-000001"]["aliases"]) == [alias]


def test_a_rebuilt_index_replaces_the_first_in_one_step(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(10))
    report = index(papers(20), rebuild=True)
    assert (report.index, report.previous) == (f"{alias}-000002", f"{alias}-000001")
    assert es.count(index=alias)["count"] == 20
    assert [(v.index[-1], v.live) for v in list_versions(es, alias)] == [("1", False), ("2", True)]


def test_the_last_record_of_an_id_wins_whatever_the_order_of_arrival(index: Any, es: Elasticsearch, alias: str) -> None:
    order = random.Random(5)
    records = [{"id": str(order.randrange(400)), "text": f"version {i}", "n": i} for i in range(4000)]
    last = {record["id"]: record["n"] for record in records}
    report = index(records, senders=6, body_bytes=20_000)
    assert report.indexed == len(last)
    assert report.superseded == 4000 - len(last)
    assert set(report.repeated_ids) <= set(last)
    stored = {hit["_id"]: hit["_source"]["n"] for hit in es.search(index=alias, size=1000)["hits"]["hits"]}
    assert stored == last


def test_bad_records_become_dead_letters_and_the_rest_goes_on(
    index: Any, es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    records: list[Any] = papers(50)
    records[3] = {"id": "empty", "text": "  "}
    records[4] = {"id": "list", "text": ["not", "a", "string"]}
    records[5] = {"id": "x" * 513, "text": "fine"}
    records[6] = "no mapping"
    records[7] = {"id": "big", "text": "x" * 11_000_000}
    records[8] = {"id": "year", "text": "fine", "year": "last year"}
    records[9] = {"id": "reserved", "text": "fine", "vector": [1, 2]}
    report = index(records)
    assert (report.read, report.indexed, report.dead) == (50, 43, 7)
    assert report.adds_up
    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    by_place = {letter["place"]: letter for letter in letters}
    assert set(by_place) == {f"record {n}" for n in (4, 5, 6, 7, 8, 9, 10)}
    assert by_place["record 9"]["id"] == "year"
    assert "year" in by_place["record 9"]["reason"]
    assert by_place["record 9"]["record"] == {"id": "year", "text": "fine", "year": "last year"}
    assert "too large" in by_place["record 8"]["reason"]
    assert "--vector-field" in by_place["record 10"]["reason"]
    assert report.dead_letters == str(tmp_path / "dead.jsonl")
    assert sum(report.reasons.values()) == 7


class Spoiling(HashEncoder):
    """Gives NaN for one text and a zero vector for another."""

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = super().encode_document(texts)
        for row, text in enumerate(texts):
            if "nan" in text:
                vectors[row, 1] = np.nan
            if "zero" in text:
                vectors[row] = 0
        return vectors


def test_vectors_that_cannot_be_searched_are_not_sent(index: Any, es: Elasticsearch, alias: str) -> None:
    report = index([{"id": "a", "text": "nan"}, {"id": "b", "text": "good"}, {"id": "c", "text": "zero"}], Spoiling())
    assert (report.indexed, report.dead) == (1, 2)
    assert {reason.split(" for ")[0] for reason in report.reasons} == {
        "the encoder gave NaN or infinity in its vector", "the encoder gave a zero vector",
    }  # fmt: skip


class WrongDims(HashEncoder):
    """Says 64 dims and gives 32."""

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_document(texts)[:, :32]


def test_a_failed_run_never_touches_what_readers_see(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(10))
    with pytest.raises(Exception, match="32") as failure:
        index(papers(20), WrongDims())
    assert "64 dims" in str(failure.value)
    assert [v.index for v in list_versions(es, alias)] == [f"{alias}-000001"]
    assert es.count(index=alias)["count"] == 10


def test_an_error_in_the_source_fails_the_run_as_a_whole(index: Any, es: Elasticsearch, alias: str) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from papers(3000)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        index(broken())
    assert live_index(es, alias) is None
    assert index(papers(3000)).index == f"{alias}-000001"


def test_an_interrupted_run_leaves_readers_alone_and_can_be_repeated(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    indexer = Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl")
    indexer.run(papers(10))

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRun, match="interrupted after"):
        indexer.run((record for record in papers(200_000)), interrupt)
    assert live_index(es, alias) == f"{alias}-000001"
    report = indexer.run(papers(30))
    assert report.indexed + report.unchanged == 30


def test_a_run_without_anything_to_index_makes_no_index_and_leaves_a_live_one_alone(
    index: Any, es: Elasticsearch, alias: str
) -> None:
    without_text = [{"id": str(i), "body": "x"} for i in range(5)]
    for records in ([], without_text):
        with pytest.raises(HopelessInputError):
            index(records)
    assert list_versions(es, alias) == []
    index(papers(10))
    assert index([]).read == 0
    assert index(without_text).dead == 5
    for records in ([], without_text):  # as the whole of a source they would leave nothing
        with pytest.raises(HopelessInputError):
            index(records, prune=True, most_pruned=1.0)
    assert es.count(index=alias)["count"] == 10


def test_a_run_whose_documents_are_all_refused_by_the_server_stops_early(
    index: Any, es: Elasticsearch, alias: str
) -> None:
    strict = {"mappings": {"dynamic": "strict", "properties": {"id": {"type": "keyword"}, "year": {"type": "ip"}}}}
    read = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for record in papers(100_000):
            read += 1
            yield record

    with pytest.raises(IndexingError, match="none of the first"):
        index(source(), mapping=strict)
    assert read < 50_000
    assert live_index(es, alias) is None


def test_an_index_deleted_while_loading_does_not_come_back(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    def source() -> Iterator[dict[str, Any]]:
        for n, record in enumerate(papers(20_000)):
            if n == 5000:
                es.indices.delete(index=f"{alias}-000001")
            yield record

    indexer = Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl", retry=RetryPolicy(5))
    with pytest.raises(IndexingError, match="nothing can be written"):
        indexer.run(source())
    assert list(es.indices.get(index=f"{alias}*")) == []


def test_a_name_that_is_taken_by_an_index_is_refused(index: Any, es: Elasticsearch, alias: str) -> None:
    es.indices.create(index=alias)
    with pytest.raises(IndexingError, match="is an index, not an alias"):
        index(papers(3))


@pytest.mark.parametrize("name", ["Papers", "a b", "", "-x", "x/y", "x,y", "x*", "x" * 250])
def test_a_name_that_elasticsearch_would_refuse(es: Elasticsearch, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        Indexer(es, name, encoder=HashEncoder())


def test_a_mapping_that_the_server_refuses_is_named(index: Any, es: Elasticsearch, alias: str) -> None:
    with pytest.raises(ConfigError, match="refuses the mapping"):
        index(papers(3), field_types={"year": "no_such_type"})
    assert list_versions(es, alias) == []


def test_files_of_every_format_give_the_same_documents(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": str(i), "text": f"text {i}", "year": 2000 + i, "score": i / 2, "ok": i % 2 == 0} for i in range(20)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    cells = [",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in row.values()) for row in rows]
    (tmp_path / "c.csv").write_text("id,text,year,score,ok\n" + "\n".join(cells) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.parquet"):
        indexer = Indexer(es, alias, encoder=HashEncoder(), field_types={"id": "keyword"}, rebuild=True)
        report = indexer.run(read_documents(tmp_path / name))
        assert report.indexed == 20, name
        hit = Searcher(es, alias, encoder=HashEncoder()).search("text 6", k=1)[0]
        assert (hit.id, hit.source["year"], hit.source["score"], hit.source["ok"]) == ("6", 2006, 3.0, True), name


def test_beir_layout_is_understood_as_it_is(index: Any, es: Elasticsearch, alias: str) -> None:
    index([{"_id": "d1", "title": "A title", "text": "and text", "metadata": {"year": 2019, "source": "who"}}])
    stored = es.get(index=alias, id="d1")["_source"]
    del stored["esvector_hash"]
    assert stored == {
        "title": "A title",
        "text": "and text",
        "year": 2019,
        "source": "who",
    }
    hit = Searcher(es, alias, encoder=HashEncoder()).search("A title and text", k=1, where="year = 2019")[0]
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_vectors_as_lists_of_floats_for_an_older_server(
    es: Elasticsearch, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esvector.client.Server.takes_packed_vectors", False)
    encoder = HashEncoder()
    Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(papers(30))
    hit = Searcher(es, alias, encoder=encoder).search("Paper 3 about subject 3", k=1)[0]
    assert hit.id == "p3"
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_an_index_of_another_version_of_esvector_is_replaced(
    es: Elasticsearch, alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its passport cannot be read, which is why its documents are indexed again."""
    records = [{"id": "1", "text": "one"}]
    made = Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl")
    first = made.run(records).index
    meta = es.indices.get_mapping(index=first)[first]["mappings"]["_meta"]
    del meta["esvector"]["probes"]
    es.indices.put_mapping(index=first, meta=meta)
    assert made.run(records).previous == first
    assert [version.index for version in describe_versions(es, alias)] == [f"{alias}-000002"]
    assert f"{first} is left out" in caplog.text


@pytest.mark.parametrize("stated", [False, True])
def test_an_ingest_pipeline_of_the_clusters_templates_is_for_others(
    es: Elasticsearch, alias: str, tmp_path: Path, stated: bool
) -> None:
    """But one that the mapping of the user names is for us: here one that is missing, so that it is seen."""
    default = {"settings": {"index.default_pipeline": "not there"}}
    mapping = {**default, "mappings": {}} if stated else None
    if not stated:
        es.indices.put_index_template(name=alias, index_patterns=[f"{alias}-*"], template=default, priority=500)
    indexer = Indexer(es, alias, encoder=HashEncoder(), mapping=mapping, dead_letters=tmp_path / "dead.jsonl")
    try:
        if stated:
            with pytest.raises(HopelessInputError, match="not there"):
                indexer.run([{"id": "1", "text": "x"}])
        else:
            assert indexer.run([{"id": "1", "text": "x"}]).indexed == 1
    finally:
        es.options(ignore_status=404).indices.delete_index_template(name=alias)


def test_a_hidden_index_is_found_again(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    mapping = {"settings": {"index": {"hidden": True}}, "mappings": {}}
    records = [{"id": "1", "text": "x"}]
    options: dict[str, Any] = {"encoder": HashEncoder(), "dead_letters": tmp_path / "dead.jsonl"}
    first = Indexer(es, alias, mapping=mapping, **options).run(records)
    again = Indexer(es, alias, **options).run(records)
    assert (again.index, again.unchanged) == (first.index, 1)


def test_a_vector_field_within_an_object_is_refused(es: Elasticsearch, alias: str) -> None:
    with pytest.raises(ConfigError, match=r"emb\.vec"):
        Indexer(es, alias, encoder=HashEncoder(), vector_field="emb.vec")
