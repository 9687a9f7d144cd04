"""Running again: what is unchanged is left alone, what is new or changed is encoded, and what is gone can be pruned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, Searcher
from esvector.client import connect
from esvector.errors import ConfigError, IndexingError, InterruptedRun
from esvector.index.bulk import RetryPolicy
from esvector.index.versions import list_versions
from esvector.types import IndexReport
from tests.support.encoders import HashEncoder
from tests.support.proxy import Proxy

Records = list[dict[str, Any]]


class CountingEncoder(HashEncoder):
    """Remembers what it encoded."""

    def __init__(self, dims: int = 64) -> None:
        super().__init__(dims)
        self.texts: list[str] = []

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_document(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        return super().encode_document(texts)


def papers(n: int) -> Records:
    return [{"id": f"p{i}", "text": f"about subject {i}", "year": 1990 + i % 30} for i in range(n)]


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def index(es: Elasticsearch, alias: str, tmp_path: Path, encoder: CountingEncoder) -> Any:
    def run(records: Any, **options: Any) -> IndexReport:
        encoder.texts.clear()
        options.setdefault("encoder", encoder)
        return Indexer(es, alias, dead_letters=tmp_path / "dead.jsonl", **options).run(records)

    return run


def stored(es: Elasticsearch, alias: str) -> dict[str, Any]:
    es.indices.refresh(index=alias)
    hits = es.search(index=alias, size=10_000, source={"excludes": ["esvector_hash"]})["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def assert_vectors_fit(es: Elasticsearch, alias: str) -> None:
    hits = es.search(index=alias, size=10_000, source={"includes": ["text", "vector"]})["hits"]["hits"]
    expected = HashEncoder().encode_document([hit["_source"]["text"] for hit in hits])
    assert np.allclose([hit["_source"]["vector"] for hit in hits], expected, atol=1e-6)


def test_nothing_is_encoded_or_written_again(
    index: Any, es: Elasticsearch, alias: str, encoder: CountingEncoder
) -> None:
    first = index(papers(5000))
    before = es.indices.stats(index=alias)["_all"]["primaries"]["indexing"]["index_total"]
    report = index(papers(5000))
    assert (report.read, report.unchanged, report.indexed, report.encoded) == (5000, 5000, 0, 0)
    assert encoder.texts == []
    assert es.indices.stats(index=alias)["_all"]["primaries"]["indexing"]["index_total"] == before
    assert (report.index, report.previous) == (first.index, None)


def test_fields_in_another_order_are_no_change(index: Any) -> None:
    records: Records = [{**record, "of": {"venue": "here", "pages": [1, 2]}} for record in papers(20)]
    index(records)
    turned: Records = [
        {**dict(reversed(record.items())), "of": dict(reversed(record["of"].items()))} for record in records
    ]
    assert index(turned).unchanged == 20
    turned[3]["of"]["pages"].reverse()  # but the order of values is one
    assert index(turned).unchanged == 19


def test_new_and_changed_documents_are_encoded_and_no_other(
    index: Any, es: Elasticsearch, alias: str, encoder: CountingEncoder
) -> None:
    index(papers(3000))
    records = papers(3010)
    records[7]["text"] = "now about something else"
    records[2999]["text"] = "and this one, too"
    report = index(records)
    assert sorted(encoder.texts) == sorted(records[n]["text"] for n in (7, 2999, *range(3000, 3010)))
    assert (report.indexed, report.unchanged, report.encoded) == (12, 2998, 12)
    assert stored(es, alias) == {record["id"]: record for record in records}
    assert_vectors_fit(es, alias)


def test_a_change_beside_the_text_keeps_the_vector(
    index: Any, es: Elasticsearch, alias: str, encoder: CountingEncoder
) -> None:
    index(papers(20))
    records = papers(20)
    records[3]["year"] = 2026
    records[4]["venue"] = "new field"
    report = index(records)
    assert encoder.texts == []
    assert (report.indexed, report.unchanged, report.encoded) == (2, 18, 0)
    assert stored(es, alias) == {record["id"]: record for record in records}
    assert_vectors_fit(es, alias)


def test_a_document_that_is_moved_or_repeated_ends_as_its_last_record(
    index: Any, es: Elasticsearch, alias: str
) -> None:
    """Restoring the old text in a later record must not be taken for unchanged."""
    index(papers(100))
    records = papers(100)
    changed = {**records[5], "text": "changed for a moment"}
    report = index([changed, *records[50:], *records[:50]])
    assert stored(es, alias) == {record["id"]: record for record in records}
    assert_vectors_fit(es, alias)
    assert (report.read, report.superseded) == (101, 1)
    assert report.adds_up


def test_documents_that_left_the_source_stay_unless_pruned(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(200))
    assert index(papers(190)).pruned == 0
    assert len(stored(es, alias)) == 200
    report = index(papers(190), prune=True)
    assert (report.pruned, report.unchanged) == (10, 190)
    assert set(stored(es, alias)) == {record["id"] for record in papers(190)}
    assert index(papers(200)).indexed == 10


def test_a_source_that_lacks_too_much_prunes_nothing(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(200))
    with pytest.raises(IndexingError, match="150 of the 200 documents"):
        index(papers(50), prune=True)
    assert len(stored(es, alias)) == 200
    assert index(papers(50), prune=True, most_pruned=1.0).pruned == 150


def test_a_record_of_unknown_id_keeps_all_from_being_pruned(
    index: Any, es: Elasticsearch, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    index(papers(200))
    report = index([*papers(199), "cut off"], prune=True)
    assert (report.pruned, report.dead) == (0, 1)
    assert "nothing is pruned" in caplog.text


def test_a_refused_record_does_not_cost_the_document_that_is_there(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(20))
    records = papers(20)
    records[3]["text"] = ""
    report = index(records, prune=True)
    assert (report.dead, report.pruned) == (1, 0)
    assert len(stored(es, alias)) == 20


def test_another_encoder_builds_a_new_version(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(20))
    report = index(papers(20), encoder=CountingEncoder(32))
    assert (report.index, report.previous, report.indexed) == (f"{alias}-000002", f"{alias}-000001", 20)
    assert [version.live for version in list_versions(es, alias)] == [False, True]


def test_other_options_build_a_new_version_and_stay(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(20))
    assert index(papers(20), text_fields=("text", "year_text")).index == f"{alias}-000002"
    report = index(papers(20))
    assert (report.index, report.unchanged) == (f"{alias}-000002", 20)


def test_the_index_knows_its_encoder(es: Elasticsearch, alias: str) -> None:
    with pytest.raises(ConfigError, match="has to be named"):
        Indexer(es, alias).run(papers(3))


def test_records_can_be_left_out_by_a_rule(index: Any, es: Elasticsearch, alias: str) -> None:
    records = [*papers(20), {"id": "blank", "text": " "}]
    report = index(records, keep=lambda record: record.get("year") != 1990, skip_empty=True)
    assert (report.read, report.indexed, report.filtered, report.dead) == (21, 19, 2, 0)


def test_a_run_that_is_mostly_refused_stops_early(index: Any, es: Elasticsearch, alias: str) -> None:
    read = 0

    def source() -> Any:
        nonlocal read
        for n, record in enumerate(papers(100_000)):
            read += 1
            yield record if n % 3 == 0 else {"id": str(n)}

    with pytest.raises(IndexingError, match=r"could be indexed. The first refused one: record 2: no text"):
        index(source())
    assert read < 30_000
    assert list_versions(es, alias) == []


def test_searching_finds_what_was_synced(index: Any, es: Elasticsearch, alias: str) -> None:
    index(papers(50))
    records = papers(50)
    records[9]["text"] = "a completely different subject"
    index(records)
    hit = Searcher(es, alias, encoder=HashEncoder()).search("a completely different subject", k=1)[0]
    assert (hit.id, dict(hit.source)) == ("p9", records[9])
    assert hit.score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("more", [0, 1, 2])
def test_a_few_changed_documents_that_are_refused_are_dead_letters(
    es: Elasticsearch, alias: str, tmp_path: Path, more: int
) -> None:
    def run(records: list[dict[str, Any]]) -> IndexReport:
        return Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl").run(records)

    whole: list[dict[str, Any]] = [{"id": f"p{n}", "text": f"about {n}", "year": 2000} for n in range(200)]
    run(whole)
    bad = [{"id": f"p{n}", "text": "new", "year": "n.d."} for n in range(more)]
    report = run([*bad, *whole[more:]])
    assert (report.dead, report.unchanged) == (more, 200 - more)
    report = run(bad)  # the delta alone, which may be nothing at all
    assert (report.read, report.dead, es.count(index=alias)["count"]) == (more, more, 200)


def test_an_interrupt_does_not_wait_for_what_is_compared(
    es: Elasticsearch, alias: str, tmp_path: Path, server_url: str
) -> None:
    records = [{"id": f"p{n}", "text": f"about {n}"} for n in range(5_000)]
    options: dict[str, Any] = {"encoder": HashEncoder(), "dead_letters": tmp_path / "dead.jsonl"}
    Indexer(es, alias, **options).run(records)
    with Proxy(server_url) as proxy, connect(proxy.url, environ={}) as client, ExitStack() as stack:

        def interrupted() -> Iterator[dict[str, Any]]:
            yield from records[:2047]
            stack.enter_context(proxy.down())
            yield records[2047]  # the window is compared while the next is read
            raise KeyboardInterrupt

        with pytest.raises(InterruptedRun):
            Indexer(client, alias, **options, retry=RetryPolicy(give_up_after=3600)).run(interrupted())


def test_documents_that_another_program_wrote_are_not_pruned(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    def run(records: Records) -> IndexReport:
        dead = tmp_path / "dead.jsonl"
        return Indexer(es, alias, encoder=HashEncoder(), prune=True, dead_letters=dead).run(records)

    index = run(papers(20)).index
    es.index(index=index, id="theirs", document={"text": "x"}, refresh=True)
    assert run(papers(19)).pruned == 1
    assert es.exists(index=alias, id="theirs")
