"""What a search of a real Elasticsearch answers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from esvector import Indexer, Searcher
from esvector.errors import (
    ConfigError,
    DocumentNotFoundError,
    EncoderMismatchError,
    FilterError,
    IndexNotFoundError,
    SearchError,
    UnknownFieldError,
)
from tests.support.encoders import HashEncoder

DIMS = 32


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    order = random.Random(3)
    return [
        {"id": f"d{i}", "text": f"document number {i}", "year": order.randrange(1990, 2025), "rare": i % 100 == 0}
        for i in range(1500)
    ]


@pytest.fixture(scope="module")
def searcher(es: Elasticsearch, records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    Indexer(es, "search-tests", encoder=HashEncoder(DIMS), dead_letters=dead).run(records)
    yield Searcher(es, "search-tests", encoder=HashEncoder(DIMS))
    for index in es.indices.get(index="search-tests*"):
        es.indices.delete(index=index)


def exact(records: list[dict[str, Any]], query: str, k: int) -> list[tuple[str, float]]:
    encoder = HashEncoder(DIMS)
    vectors = encoder.encode_document([record["text"] for record in records])
    scores = vectors @ encoder.encode_query([query])[0]
    best = np.argsort(-scores, kind="stable")[:k]
    return [(records[i]["id"], float(scores[i])) for i in best]


def test_hits_and_scores_are_those_of_exact_search(searcher: Searcher, records: list[dict[str, Any]]) -> None:
    for query in ("document number 77", "something else", "a third question"):
        hits = searcher.search(query, k=5, num_candidates=1500)
        expected = exact(records, query, 5)
        assert [hit.id for hit in hits] == [id_ for id_, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_a_document_finds_itself_with_a_cosine_of_one(searcher: Searcher) -> None:
    hit = searcher.search("document number 9", k=1)[0]
    assert hit.id == "d9"
    assert hit.score == pytest.approx(1, abs=1e-6)
    assert set(hit.source) == {"id", "text", "year", "rare"}


@pytest.mark.parametrize("k", [1, 10, 30, 200, 1500, 3000])
def test_k_hits_come_back(searcher: Searcher, k: int) -> None:
    assert len(searcher.search("anything", k=k)) == min(k, 1500)


def test_k_hits_come_back_where_k_documents_match_the_filter(searcher: Searcher, records: list[dict[str, Any]]) -> None:
    for where, matches in (
        ("rare = true", lambda r: r["rare"]),
        ("year >= 2000", lambda r: r["year"] >= 2000),
        ("year = 1999 or year = 2003", lambda r: r["year"] in (1999, 2003)),
        ("rare = true and year < 2000", lambda r: r["rare"] and r["year"] < 2000),
    ):
        matching = {record["id"] for record in records if matches(record)}
        for k in (5, 20, 400):
            hits = searcher.search("anything at all", k=k, where=where)
            assert len(hits) == min(k, len(matching)), (where, k)
            assert {hit.id for hit in hits} <= matching


def test_where_and_raw_filter_must_both_match(searcher: Searcher) -> None:
    hits = searcher.search("x", k=50, where="rare = true", filter={"range": {"year": {"gte": 2010}}})
    assert hits
    assert all(hit.source["rare"] and hit.source["year"] >= 2010 for hit in hits)


def test_many_queries_give_the_same_hits_as_one_by_one(searcher: Searcher) -> None:
    queries = [f"document number {n}" for n in range(230)]
    together = searcher.search(queries, k=3)
    assert together == [searcher.search(query, k=3) for query in queries]
    assert searcher.search(queries[:1], k=3) == together[:1]
    assert searcher.search([], k=3) == []


def test_similar_leaves_out_the_document_itself_and_encodes_nothing(
    es: Elasticsearch, records: list[dict[str, Any]]
) -> None:
    encoder = HashEncoder(DIMS)
    hits = Searcher(es, "search-tests", encoder=encoder).similar("d42", k=4, where="year >= 1990")
    expected = [(id_, score) for id_, score in exact(records, "document number 42", 5) if id_ != "d42"]
    assert [hit.id for hit in hits] == [id_ for id_, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)
    assert encoder.encoded == 0


def test_similar_to_a_document_that_is_not_there(searcher: Searcher) -> None:
    with pytest.raises(DocumentNotFoundError, match="no document 'd99999'"):
        searcher.similar("d99999")


def test_the_request_can_be_seen_and_sent_by_hand(searcher: Searcher, es: Elasticsearch) -> None:
    body = searcher.request("document number 9", k=3, where="year >= 1990")
    answer = es.search(index="search-tests", body=body)
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [h.id for h in searcher.search("document number 9", k=3)]


@pytest.mark.parametrize("k", [0, -1, 10_001])
def test_k_out_of_range(searcher: Searcher, k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}"):
        searcher.search("x", k=k)


def test_num_candidates_out_of_range(searcher: Searcher) -> None:
    with pytest.raises(ConfigError, match="num_candidates is 5"):
        searcher.search("x", k=10, num_candidates=5)


def test_an_empty_query(searcher: Searcher) -> None:
    with pytest.raises(ConfigError, match="query 2 is empty"):
        searcher.search(["x", "  "])


def test_a_filter_on_a_field_that_is_not_there_names_near_ones(searcher: Searcher) -> None:
    with pytest.raises(UnknownFieldError, match="yaer") as error:
        searcher.search("x", where="yaer >= 2000")
    assert "year" in str(error.value)


def test_a_filter_that_cannot_be_read_shows_where(searcher: Searcher) -> None:
    with pytest.raises(FilterError) as error:
        searcher.search("x", where="year >= 2000 andd rare = true")
    assert error.value.position == 13


def test_a_raw_filter_that_the_server_refuses(searcher: Searcher) -> None:
    with pytest.raises(SearchError, match="no_such_query"):
        searcher.search("x", filter={"no_such_query": {}})
    with pytest.raises(SearchError, match="no_such_query"):
        searcher.search(["x", "y"], filter={"no_such_query": {}})


def test_no_such_alias(es: Elasticsearch) -> None:
    with pytest.raises(IndexNotFoundError, match="there is no index nothing-here"):
        Searcher(es, "nothing-here", encoder=HashEncoder()).search("x")


def test_an_index_that_esvector_did_not_make(es: Elasticsearch, alias: str) -> None:
    es.indices.create(index=alias)
    with pytest.raises(IndexNotFoundError, match="has no passport"):
        Searcher(es, alias, encoder=HashEncoder()).search("x")


def test_another_encoder_is_refused_with_both_sides_named(es: Elasticsearch, searcher: Searcher) -> None:
    other = HashEncoder(DIMS, name="other")
    with pytest.raises(EncoderMismatchError) as error:
        Searcher(es, "search-tests", encoder=other).search("x")
    message = str(error.value)
    assert f"hash-{DIMS}" in message
    assert f"other-{DIMS}" in message
    assert str(other.profile.weights) in message
    assert str(HashEncoder(DIMS).profile.weights) in message


@pytest.mark.parametrize(
    "change", [{"query_prompt": "query: "}, {"max_length": 65}, {"pooling": "cls"}, {"similarity": "dot"}, {"dims": 16}]
)
def test_a_changed_fact_of_the_encoder_is_refused(
    es: Elasticsearch, searcher: Searcher, change: dict[str, Any]
) -> None:
    encoder = HashEncoder(DIMS)
    encoder.profile = replace(encoder.profile, **change)
    with pytest.raises(EncoderMismatchError, match=next(iter(change))):
        Searcher(es, "search-tests", encoder=encoder).search("x")


def test_the_same_encoder_under_another_name_is_accepted(es: Elasticsearch, searcher: Searcher) -> None:
    encoder = HashEncoder(DIMS)
    encoder.profile = replace(encoder.profile, model="/elsewhere/hash")
    assert Searcher(es, "search-tests", encoder=encoder).search("document number 5", k=1)[0].id == "d5"


def test_a_search_follows_the_alias_to_a_new_version(es: Elasticsearch, alias: str, tmp_path: Any) -> None:
    indexer = Indexer(es, alias, encoder=HashEncoder(), dead_letters=tmp_path / "dead.jsonl", rebuild=True)
    indexer.run([{"id": "old", "text": "old text"}])
    searcher = Searcher(es, alias, encoder=HashEncoder())
    assert [hit.id for hit in searcher.search("old text")] == ["old"]
    indexer.run([{"id": "new", "text": "new text", "colour": "red"}])
    assert [hit.id for hit in searcher.search("new text")] == ["new"]
    assert [hit.id for hit in searcher.search("new text", where="colour = red")] == ["new"]
    Indexer(es, alias, encoder=HashEncoder(name="other"), dead_letters=tmp_path / "dead.jsonl").run(
        [{"id": "x", "text": "x"}]
    )
    with pytest.raises(EncoderMismatchError):
        searcher.search("x")


class DotEncoder(HashEncoder):
    """Vectors of many lengths, compared by their dot product."""

    def __init__(self) -> None:
        super().__init__(DIMS, "dot")
        self.profile = replace(self.profile, similarity="dot", normalize=False)

    def _vector(self, text: str) -> Any:
        return super()._vector(text) * np.float32(1 + len(text) % 7)


def test_scores_of_a_dot_product_model_are_dot_products(es: Elasticsearch, alias: str, tmp_path: Any) -> None:
    encoder = DotEncoder()
    texts = ["x" * n for n in range(1, 120)]
    records = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(records)
    scores = encoder.encode_document(texts) @ encoder.encode_query(["question"])[0]
    hits = Searcher(es, alias, encoder=encoder).search("question", k=119, num_candidates=1000)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {str(n): float(score) for n, score in enumerate(scores)}, abs=2e-4
    )
    assert min(hit.score for hit in hits) < 0 < max(hit.score for hit in hits)


def test_a_version_can_be_searched_by_its_own_name(es: Elasticsearch, searcher: Searcher) -> None:
    versioned = Searcher(es, "search-tests-000001", encoder=HashEncoder(DIMS))
    assert versioned.search("document number 5", k=1)[0].id == "d5"
