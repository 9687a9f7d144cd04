"""Every way of asking, on a real Elasticsearch: modes, paging, fields, facets, highlights, explanations."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import AsyncElasticsearch, Elasticsearch

from esvector import AsyncSearcher, Indexer, Searcher
from esvector.errors import ConfigError, DocumentNotFoundError, FilterError, IndexNotFoundError, UnknownFieldError
from esvector.search.options import SearchKeywords
from esvector.search.plan import SCAN_UP_TO
from tests.support.encoders import HashEncoder

DIMS = 32
ALIAS = "search-modes"
COUNT = SCAN_UP_TO + 1500
WORDS = ["river", "stone", "garden", "engine", "violin", "desert", "harbour", "lantern"]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    order = random.Random(5)
    return [
        {
            "id": f"d{i}",
            "title": f"{order.choice(WORDS)} {order.choice(WORDS)}",
            "text": f"number {i} of the {order.choice(WORDS)}",
            "year": order.randrange(1990, 2025),
            "venue": order.choice(["ACL", "EMNLP", "NeurIPS"]),
            "tenant": f"t{i % 7}",
            "rare": i % 97 == 0,
        }
        for i in range(COUNT)
    ]


@pytest.fixture(scope="module")
def index(es: Elasticsearch, records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    dead = tmp_path_factory.mktemp("dead") / "dead.jsonl"
    Indexer(es, ALIAS, encoder=HashEncoder(DIMS), dead_letters=dead).run(records)
    yield ALIAS
    for name in es.indices.get(index=f"{ALIAS}*"):
        es.indices.delete(index=name)


@pytest.fixture(scope="module")
def searcher(es: Elasticsearch, index: str) -> Searcher:
    return Searcher(es, index, encoder=HashEncoder(DIMS))


@pytest.fixture(scope="module")
def vectors(records: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return HashEncoder(DIMS).encode_document([f"{record['title']} {record['text']}" for record in records])


def brute_force(
    records: list[dict[str, Any]],
    vectors: np.ndarray[Any, np.dtype[np.float32]],
    query: str,
    k: int,
    wanted: Any = None,
) -> list[str]:
    scores = vectors @ HashEncoder(DIMS).encode_query([query])[0]
    order = sorted(range(len(records)), key=lambda row: (-float(scores[row]), records[row]["id"]))
    return [records[row]["id"] for row in order if wanted is None or wanted(records[row])][:k]


@pytest.mark.parametrize("k", [1, 10, 250])
def test_exact_search_finds_what_brute_force_finds(searcher: Searcher, records: Any, vectors: Any, k: int) -> None:
    for query in ("river", "a question", "engine stone"):
        assert [hit.id for hit in searcher.search(query, k=k, mode="exact")] == brute_force(records, vectors, query, k)


def test_a_filter_that_few_match_is_searched_exactly_and_says_so(
    searcher: Searcher, records: Any, vectors: Any
) -> None:
    results = searcher.search("river", k=20, where="rare = true", explain=True)
    assert [hit.id for hit in results] == brute_force(records, vectors, "river", 20, lambda record: record["rare"])
    assert results.explanation is not None
    assert results.explanation.plan.startswith("scan: few match")
    assert results.explanation.matches == sum(record["rare"] for record in records)


def test_a_filter_that_many_match_goes_by_the_graph(searcher: Searcher) -> None:
    results = searcher.search("river", k=20, where="year >= 1990", explain=True)
    assert len(results) == 20
    assert results.explanation is not None
    assert results.explanation.plan.startswith("kNN: many match")
    assert results.explanation.num_candidates == 500


def test_pages_follow_each_other(searcher: Searcher) -> None:
    whole = searcher.search("garden", k=30, mode="exact")
    pages = [searcher.search("garden", k=10, offset=offset, mode="exact") for offset in (0, 10, 20)]
    assert [hit for page in pages for hit in page] == whole


def test_text_mode_ranks_by_words(searcher: Searcher, records: Any) -> None:
    hits = searcher.search("violin harbour", k=10, mode="text")
    both = {record["id"] for record in records if {"violin", "harbour"} <= set(record["title"].split())}
    assert {hit.id for hit in hits} <= both
    assert all(hit.score > 0 for hit in hits)
    assert searcher.search("nowhere", mode="text") == []


def test_hybrid_shows_what_each_ranking_thought(searcher: Searcher) -> None:
    hits = searcher.search("violin harbour", k=10, mode="hybrid")
    by_vector = {hit.id: rank for rank, hit in enumerate(searcher.search("violin harbour", k=100), start=1)}
    by_text = {hit.id: hit.score for hit in searcher.search("violin harbour", k=100, mode="text")}
    for hit in hits:
        assert hit.legs
        if leg := hit.legs.get("vector"):
            assert by_vector[hit.id] == leg.rank
        if leg := hit.legs.get("text"):
            assert by_text[hit.id] == pytest.approx(leg.score)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_weights_of_a_hybrid_search_count(searcher: Searcher) -> None:
    words_only = searcher.search("violin harbour", k=5, mode="hybrid", weights={"vector": 0.0, "text": 1.0})
    by_text = searcher.search("violin harbour", k=5, mode="text")
    assert [hit.id for hit in words_only] == [hit.id for hit in by_text]


@pytest.mark.parametrize("mode", ["text", "exact", "vector"])
def test_pages_neither_overlap_nor_leave_a_gap_where_scores_are_equal(
    es: Elasticsearch, alias: str, tmp_path: Path, mode: Any
) -> None:
    same = [{"id": f"d{i * 7919 % 100:02}", "title": "river", "text": "stone"} for i in range(100)]
    Indexer(es, alias, encoder=HashEncoder(16), dead_letters=tmp_path / "dead.jsonl").run(same)
    its = Searcher(es, alias, encoder=HashEncoder(16))
    pages = [its.search("river stone", k=10, offset=offset, mode=mode) for offset in range(0, 100, 10)]
    assert sorted(hit.id for page in pages for hit in page) == sorted(record["id"] for record in same)


def test_hits_below_the_least_similarity_are_left_out(searcher: Searcher) -> None:
    hits = searcher.search("river stone", k=50, mode="exact")
    least = hits[10].score
    assert searcher.search("river stone", k=50, mode="exact", min_similarity=least) == hits[:11]
    assert searcher.search("river stone", k=50, min_similarity=1.1) == []


def test_only_the_fields_asked_for_come_back(searcher: Searcher) -> None:
    assert set(searcher.search("river", k=1, fields=["year", "venue"])[0].source) == {"year", "venue"}
    with pytest.raises(UnknownFieldError, match="year"):
        searcher.search("river", fields=["yaer"])


def test_facets_count_all_that_match_or_the_hits(searcher: Searcher, records: Any) -> None:
    matching = searcher.search("river", k=5, where="year >= 2020", facets=["venue", "rare"]).facets
    expected = Counter(record["venue"] for record in records if record["year"] >= 2020)
    assert matching["venue"].values == dict(expected.most_common())
    assert set(matching["rare"].values) == {"true", "false"}
    hits = searcher.search("river", k=25, facets=["year"], facets_of="hits")
    of_hits = Counter(hit.source["year"] for hit in hits)
    assert sum(hits.facets["year"].values.values()) + hits.facets["year"].others == 25
    assert all(of_hits[int(str(year))] == count for year, count in hits.facets["year"].values.items())


def test_facets_of_a_text_search_count_what_has_the_words(searcher: Searcher, records: Any) -> None:
    facets = searcher.search("violin", k=3, mode="text", facets=["venue"]).facets
    with_word = Counter(r["venue"] for r in records if "violin" in f"{r['title']} {r['text']}".split())
    assert facets["venue"].values == dict(with_word.most_common())


def test_analysed_text_has_no_facet(searcher: Searcher) -> None:
    with pytest.raises(UnknownFieldError, match="venue"):
        searcher.search("river", facets=["venu"])
    with pytest.raises(FilterError, match="vector"):
        searcher.search("river", facets=["vector"])


def test_words_are_highlighted_in_every_mode(searcher: Searcher) -> None:
    for mode in ("text", "vector", "hybrid"):
        hits = searcher.search("violin", k=5, mode=mode, where="title = 'violin stone'", highlight=True)
        assert hits
        assert all("<em>violin</em>" in hit.highlights["title"][0] for hit in hits), mode


def test_diverse_hits_resemble_each_other_less(searcher: Searcher, records: Any, vectors: Any) -> None:
    def closest(ids: list[str]) -> float:
        rows = vectors[[int(id_[1:]) for id_ in ids]]
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -1)
        return float(cosines.max())

    plain = [hit.id for hit in searcher.search("river", k=10)]
    diverse = [hit.id for hit in searcher.search("river", k=10, diversity=0.7)]
    assert len(diverse) == 10
    assert diverse[0] == plain[0]
    assert closest(diverse) < closest(plain)
    assert [hit.id for hit in searcher.search("river", k=10, diversity=0.0)] == plain


def test_an_explanation_can_be_pasted_and_tells_where_time_went(searcher: Searcher, es: Elasticsearch) -> None:
    results = searcher.search("river", k=3, where="venue = ACL", explain=True)
    explanation = results.explanation
    assert explanation is not None
    assert explanation.query_input == "river"
    assert set(explanation.seconds) == {"encoding", "elasticsearch", "network"}
    assert explanation.similarity == "cosine"
    path, _, body = explanation.console.partition("\n\n")[0].partition("\n")
    assert path == f"GET /{ALIAS}/_search"
    again = es.search(index=ALIAS, body=json.loads(body))
    assert [hit["_id"] for hit in again["hits"]["hits"]] == [hit.id for hit in results]
    assert searcher.search("river").explanation is None


def test_the_body_of_a_request_is_what_would_be_sent(searcher: Searcher, es: Elasticsearch) -> None:
    asked: list[SearchKeywords] = [
        {"k": 4},
        {"k": 4, "where": "rare = true"},
        {"k": 4, "where": "year = 1"},
        {"k": 4, "mode": "text"},
    ]
    for options in asked:
        body = searcher.request("river", **options)
        found = [hit["_id"] for hit in es.search(index=ALIAS, body=body)["hits"]["hits"]]
        assert found == [hit.id for hit in searcher.search("river", **options)]
    with pytest.raises(ConfigError, match="two requests"):
        searcher.request("river", mode="hybrid")


def test_many_queries_are_answered_as_each_alone(searcher: Searcher) -> None:
    queries = ["river", "engine harbour", "lantern"]
    asked: list[SearchKeywords] = [
        {"k": 5},
        {"k": 5, "mode": "hybrid"},
        {"k": 5, "mode": "exact"},
        {"k": 5, "where": "rare = true", "facets": ["venue"]},
    ]
    for options in asked:
        together = searcher.search(queries, **options)
        alone = [searcher.search(query, **options) for query in queries]
        assert together == alone
        assert [found.facets for found in together] == [found.facets for found in alone]


def test_several_examples_are_searched_for_together(searcher: Searcher, vectors: Any) -> None:
    hits = searcher.similar(["d1", "d2"], unlike=["d3"], k=10)
    assert not {"d1", "d2", "d3"} & {hit.id for hit in hits}
    wanted = vectors[[1, 2]].mean(axis=0) - 0.5 * vectors[3]
    assert hits[0].score == pytest.approx(
        float(vectors[int(hits[0].id[1:])] @ wanted / np.linalg.norm(wanted)), abs=1e-5
    )
    with pytest.raises(DocumentNotFoundError, match="d999999"):
        searcher.similar(["d1", "d999999"])
    with pytest.raises(ConfigError, match="example"):
        searcher.similar()
    with pytest.raises(ConfigError, match="words"):
        searcher.similar("d1", mode="hybrid")


def test_a_text_is_an_example(searcher: Searcher, records: Any) -> None:
    text = f"{records[42]['title']} {records[42]['text']}"
    hit = searcher.similar(text=text, k=1)[0]
    assert hit.id == "d42"
    assert hit.score == pytest.approx(1, abs=1e-6)


def test_a_scope_holds_in_every_way_of_asking(es: Elasticsearch, index: str) -> None:
    tenant = Searcher(es, index, encoder=HashEncoder(DIMS), scope="tenant = t3")
    asked: list[SearchKeywords] = [
        {"k": 30},
        {"k": 30, "mode": "exact"},
        {"k": 30, "mode": "text"},
        {"k": 30, "mode": "hybrid"},
        {"k": 30, "where": "tenant = t3 or tenant = t4 or not tenant = t3"},
        {"k": 30, "filter": {"bool": {"should": [{"match_all": {}}], "minimum_should_match": 0}}},
        {"k": 30, "filter": [{"match_all": {}}]},
        {"k": 30, "diversity": 0.5},
    ]
    for options in asked:
        hits = tenant.search("river stone", **options)
        assert {hit.source["tenant"] for hit in hits} == {"t3"}, options
    assert tenant.search("river", k=3, where="tenant = t4") == []
    facets = tenant.search("river", facets=["tenant"]).facets
    assert set(facets["tenant"].values) == {"t3"}
    assert tenant.similar("d3", k=5)
    with pytest.raises(DocumentNotFoundError, match="d4"):
        tenant.similar("d4")


def test_the_async_searcher_answers_the_same(server_url: str, searcher: Searcher) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncElasticsearch(server_url) as client:
            its = AsyncSearcher(client, ALIAS, encoder=HashEncoder(DIMS))
            many = await asyncio.gather(*(its.search(f"river {n}", k=3) for n in range(20)))
            one = await its.search(["river", "stone"], k=5, mode="hybrid", where="year > 2000", facets=["venue"])
            like = await its.similar("d1", k=3)
            assert await its.request("river", where="rare = true") == searcher.request("river", where="rare = true")
            try:
                await AsyncSearcher(client, "no-such-alias").search("river")
            except IndexNotFoundError as error:
                return many, one, like, error
            return (many, one, like)

    many, one, like, error = asyncio.run(ask())
    assert list(many) == [searcher.search(f"river {n}", k=3) for n in range(20)]
    assert one == searcher.search(["river", "stone"], k=5, mode="hybrid", where="year > 2000")
    assert [found.facets["venue"].values for found in one]
    assert like == searcher.similar("d1", k=3)
    assert "no-such-alias" in str(error)


def test_a_searcher_follows_its_alias_to_an_encoder_of_other_dims(
    es: Elasticsearch, alias: str, tmp_path: Path
) -> None:
    documents = [{"id": f"d{i}", "text": f"text {i}"} for i in range(50)]
    Indexer(es, alias, encoder=HashEncoder(16), dead_letters=tmp_path / "dead.jsonl").run(documents)
    searcher = Searcher(es, alias)
    assert searcher.similar("d7", k=1)
    Indexer(es, alias, encoder=HashEncoder(24), dead_letters=tmp_path / "dead.jsonl").run(documents)
    assert len(searcher.similar("d7", k=5)) == 5
    assert searcher.target.passport.encoder.dims == 24


def test_duplicates_without_waiting(es: Elasticsearch, server_url: str, alias: str, tmp_path: Path) -> None:
    records = [{"id": f"d{i}", "text": f"text {i // 2}", "part": i // 20} for i in range(60)]
    Indexer(es, alias, encoder=HashEncoder(16), dead_letters=tmp_path / "dead.jsonl").run(records)
    expected = list(Searcher(es, alias).duplicates(0.99, where="part > 0"))
    assert [{pair.first, pair.second} for pair in expected[:1]]
    assert len(expected) == 20

    async def ask() -> tuple[list[Any], bool]:
        async with AsyncElasticsearch(server_url) as client:
            its = AsyncSearcher(client, alias)
            found = [pair async for pair in its.duplicates(0.99, where="part > 0")]
            partly = its.duplicates(0.99)
            first = await anext(partly)
            await partly.aclose()
            with pytest.raises(ConfigError, match="least score"):
                await anext(its.duplicates(7))
            return found, first.score > 0.99

    found, one = asyncio.run(ask())
    assert sorted(found, key=lambda pair: pair.first) == sorted(expected, key=lambda pair: pair.first)
    assert one
