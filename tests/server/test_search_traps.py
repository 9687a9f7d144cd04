"""What Elasticsearch answers wrongly without saying so, or says late: a user gets what is right, or a clear error.

Each test names its trap (found on 9.5.3), and shows it on the real node where that takes one request. Those that others
cover, with the names of their tests:

- approximate hits with quantized scores, of any vector field; the best passage is another one by quantized vectors:
  ``test_search_oracle.py``, every score
- a filter after the search leaves fewer than k:
  ``test_searching.py`` test_k_hits_come_back_where_k_documents_match_the_filter
- k or num_candidates out of range: ``test_searching.py`` test_k_out_of_range, test_num_candidates_out_of_range
- text without a keyword, values of another type: ``tests/unit/test_filters.py``
- the score of a negative dot product: ``test_searching.py`` test_scores_of_a_dot_product_model_are_dot_products
- an alias that moves to vectors of other dims:
  ``test_search_modes.py`` test_a_searcher_follows_its_alias_to_an_encoder_of_other_dims
- pages of equal scores overlap:
  ``test_search_modes.py`` test_pages_neither_overlap_nor_leave_a_gap_where_scores_are_equal
- a kNN search highlights nothing: ``test_search_modes.py`` test_words_are_highlighted_in_every_mode
- vectors cannot be counted: ``test_search_modes.py`` test_analysed_text_has_no_facet
- the boolean and date keys of counts are numbers: ``test_search_modes.py`` test_facets_count_all_that_match_or_the_hits
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector import Indexer, PassageOptions, Searcher
from esvector.errors import (
    ConfigError,
    FilterError,
    IndexNotFoundError,
    PartialResultsError,
    SearchError,
    UnknownFieldError,
)
from esvector.mapping import load_template
from tests.support.encoders import HashEncoder

DIMS = 32
COUNT = 600
OLD, NEW = 10_500, 1_000  # in two segments: of 10,000 candidates the share of the new one is less than it has
MODES: list[Any] = ["vector", "exact", "text", "hybrid"]
BY_VECTOR: list[Any] = MODES[:2]
QUERY = "a number of things"


class Odd(HashEncoder):
    """Gives vectors of another length, or of none, for some queries."""

    def __init__(self) -> None:
        super().__init__(DIMS)

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._vector(text) * np.float32(self._length(text)) for text in texts])

    def _length(self, text: str) -> float:
        return {"nothing": 0.0, "a little longer": 1.0004, "much longer": 7.5}.get(text, 1.0)


def records(count: int = COUNT) -> list[dict[str, Any]]:
    source = random.Random(8)
    return [
        {"id": f"d{n}", "text": f"document number {n}", "year": source.randrange(1990, 2025), "even": n % 2 == 0}
        for n in range(count)
    ]


RECORDS = records()


def best(query: str, k: int, wanted: Any = None) -> list[str]:
    encoder = HashEncoder(DIMS)
    chosen = [record for record in RECORDS if wanted is None or wanted(record)]
    scores = encoder.encode_document([record["text"] for record in chosen]) @ encoder.encode_query([query])[0]
    return [chosen[row]["id"] for row in np.argsort(-scores)[:k]]


def load(
    es: Elasticsearch, alias: str, root: Path, *, shards: int = 1, index_options: Any = None, **options: Any
) -> Searcher:
    """Index the records, or the ``documents`` of ``options``, which are else those of the indexer."""
    template = load_template(passages="passages" in options)
    template["settings"]["index"]["number_of_shards"] = shards
    if index_options is not None:
        template["mappings"]["properties"]["vector"] = {"type": "dense_vector", "index_options": index_options}
    made = options.pop("documents", RECORDS)
    encoder = options.pop("encoder", HashEncoder(DIMS))
    Indexer(es, alias, encoder=encoder, mapping=template, dead_letters=root / "dead.jsonl", **options).run(made)
    return Searcher(es, alias, encoder=encoder)


@pytest.fixture(scope="module")
def searcher(es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """An index of two shards."""
    yield load(es, "traps", tmp_path_factory.mktemp("traps"), shards=2, encoder=Odd())
    for index in es.indices.get(index="traps*"):
        es.indices.delete(index=index)


def raw_knn(searcher: Searcher, **changes: Any) -> dict[str, Any]:
    vector = HashEncoder(DIMS).encode_query([QUERY])[0].tolist()
    return {"field": "vector", "query_vector": vector, "k": 7, "num_candidates": 100} | changes


# How many hits


@pytest.mark.parametrize("mode", ["vector", "exact"])
def test_k_is_not_ten(searcher: Searcher, mode: Any) -> None:
    """Without a ``size`` of its own a search answers ten hits, whatever k is."""
    raw = searcher.client.search(index="traps", knn=raw_knn(searcher, k=30))
    assert len(raw["hits"]["hits"]) == 10
    assert [hit.id for hit in searcher.search(QUERY, k=30, mode=mode)] == best(QUERY, 30)


@pytest.mark.parametrize("mode", ["vector", "exact"])
def test_k_is_of_all_shards_together(searcher: Searcher, mode: Any) -> None:
    """A kNN query in the query DSL gives k hits of each shard."""
    raw = searcher.client.search(index="traps", query={"knn": raw_knn(searcher)}, size=100)
    assert len(raw["hits"]["hits"]) == 14
    each: list[Any] = [{}, {"where": "year >= 2000"}]
    for options in each:
        wanted = (lambda record: record["year"] >= 2000) if options else None
        assert [hit.id for hit in searcher.search(QUERY, k=7, mode=mode, **options)] == best(QUERY, 7, wanted)


@pytest.mark.parametrize("mode", MODES)
def test_more_hits_than_there_are_documents(searcher: Searcher, mode: Any) -> None:
    assert len(searcher.search("document", k=5000, mode=mode)) == COUNT
    assert len(searcher.search("document", k=5000, mode=mode, where="even = true")) == COUNT / 2
    assert searcher.search("document", k=50, offset=COUNT, mode=mode) == []
    assert len(searcher.search("document", k=50, offset=COUNT - 20, mode=mode)) == 20


def test_a_flat_field_answers_k_hits(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """A kNN query in the query DSL answers every document of a flat field, whatever k is."""
    searcher = load(es, alias, tmp_path, index_options={"type": "flat"})
    raw = es.search(index=alias, query={"knn": raw_knn(searcher)}, size=1000)
    assert len(raw["hits"]["hits"]) == COUNT
    for mode in BY_VECTOR:
        assert [hit.id for hit in searcher.search(QUERY, k=7, mode=mode)] == best(QUERY, 7)
        hits = searcher.search(QUERY, k=7, mode=mode, where="even = true")
        assert [hit.id for hit in hits] == best(QUERY, 7, lambda record: record["even"])


def test_no_more_than_10000_hits_however_they_are_cut(searcher: Searcher) -> None:
    """More than 10,000 by ``from`` and ``size``, or as candidates, are refused by the server."""
    each: list[Any] = [{"k": 10, "offset": 9_991}, {"k": 10_001}, {"num_candidates": 10_001}]
    for options in each:
        with pytest.raises(ConfigError, match="10000"):
            searcher.search(QUERY, **options)
    assert len(searcher.search(QUERY, k=1, offset=9_999)) == 0
    assert len(searcher.search(QUERY, k=10, num_candidates=10_000)) == 10


def test_matches_that_are_all_in_one_small_segment(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """What a request scans of a segment is in proportion to its size, so matches that are all in one may not be."""
    made = [{"id": f"d{n}", "text": f"text {n}", "batch": "old" if n < OLD else "new"} for n in range(OLD + NEW)]
    encoder = HashEncoder(8)
    searcher = load(es, alias, tmp_path, documents=made[:OLD], encoder=encoder)
    Indexer(es, alias, encoder=encoder, dead_letters=tmp_path / "dead.jsonl").run(made[OLD:])
    scores = encoder.encode_document([record["text"] for record in made[OLD:]]) @ encoder.encode_query([QUERY])[0]
    for mode in BY_VECTOR:
        for k in (10, NEW - 10):
            hits = searcher.search(QUERY, k=k, where="batch = new", mode=mode)
            assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1][:k], abs=2e-6)


# Where there is nothing to search


def tamper(es: Elasticsearch, alias: str, **facts: Any) -> None:
    ((index, found),) = es.indices.get_mapping(index=alias).items()
    meta = found["mappings"]["_meta"]
    es.indices.put_mapping(index=index, meta=meta | {"esvector": meta["esvector"] | facts})


@pytest.mark.parametrize("field", ["vectro", "year", "text.keyword"])
def test_a_vector_field_that_is_none_is_an_error(es: Elasticsearch, alias: str, tmp_path: Path, field: str) -> None:
    """A kNN search of a field that is not mapped finds nothing, and says nothing."""
    load(es, alias, tmp_path)
    if field == "vectro":
        assert es.search(index=alias, knn=raw_knn(Searcher(es, alias), field=field))["hits"]["hits"] == []
    tamper(es, alias, vector_field=field)
    for mode in [*BY_VECTOR, "hybrid"]:
        with pytest.raises(SearchError, match=field):
            Searcher(es, alias, encoder=HashEncoder(DIMS)).search(QUERY, mode=mode)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ({"type": "dense_vector", "dims": 16, "similarity": "cosine"}, "different number of dimensions"),
        ({"type": "dense_vector", "dims": DIMS, "index": False}, r"\[index\] set to \[true\]"),
    ],
)
def test_a_vector_field_of_another_making_is_an_error(
    es: Elasticsearch, alias: str, tmp_path: Path, vector: dict[str, Any], said: str
) -> None:
    load(es, alias, tmp_path)
    ((index, found),) = es.indices.get_mapping(index=alias).items()
    es.indices.delete(index=index)
    mappings = found["mappings"]
    es.indices.create(index=index, mappings=mappings | {"properties": mappings["properties"] | {"vector": vector}})
    es.index(index=index, id="1", document={"text": "x", "vector": [1.0] * vector["dims"]}, refresh=True)
    for mode in BY_VECTOR:
        with pytest.raises(SearchError, match=said):
            Searcher(es, index, encoder=HashEncoder(DIMS)).search(QUERY, mode=mode)


def test_an_alias_of_two_indices_is_an_error(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """Where one of them has vectors of other dims, its shards fail, and the search answers with what is left."""
    for n, dims in ((1, DIMS), (2, 16)):
        load(es, f"{alias}{n}", tmp_path, encoder=HashEncoder(dims))
        es.indices.put_alias(index=f"{alias}{n}-000001", name=alias)
    raw = es.search(index=alias, knn=raw_knn(Searcher(es, alias)))
    assert (raw["_shards"]["failed"], len(raw["hits"]["hits"])) == (1, 7)
    with pytest.raises(IndexNotFoundError, match="leads to 2 indices"):
        Searcher(es, alias, encoder=HashEncoder(DIMS)).search(QUERY)


@pytest.mark.parametrize("mode", MODES)
def test_an_index_that_goes_while_it_is_searched(es: Elasticsearch, alias: str, tmp_path: Path, mode: Any) -> None:
    searcher = load(es, alias, tmp_path)
    assert searcher.search("number", mode=mode)
    es.indices.close(index=f"{alias}-000001")
    with pytest.raises(SearchError, match="closed"):
        searcher.search("number", mode=mode)
    es.indices.delete(index=f"{alias}-000001")
    for queries in ("number", ["number", "document"]):
        with pytest.raises(IndexNotFoundError, match=f"no index {alias}"):
            searcher.search(queries, mode=mode)


def test_documents_without_a_vector_are_found_by_their_words(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    """They match a filter, and yet no vector search can give them back."""
    searcher = load(es, alias, tmp_path)
    lines: list[Any] = []
    for n in range(700):
        lines += [{"index": {}}, {"text": "hidden", "year": 1980 if n % 2 else 1991}]
    es.bulk(index=alias, operations=lines, refresh=True)
    assert len(searcher.search("hidden", k=1000, mode="text")) == 700
    expected = sum(record["year"] < 1995 for record in RECORDS)
    for mode in BY_VECTOR:
        assert len(searcher.search(QUERY, k=1000, mode=mode)) == COUNT
        assert searcher.search(QUERY, where="year < 1990", mode=mode) == []
        assert len(searcher.search(QUERY, k=1000, where="year < 1995", mode=mode)) == expected


# Shards that fail, or take too long


@pytest.fixture(scope="module")
def half(searcher: Searcher) -> Iterator[Searcher]:
    """A copy of the index, of which the node may have one shard only."""
    indices = searcher.client.indices
    indices.add_block(index="traps-000001", block="write")
    allowed = {"routing.allocation.total_shards_per_node": 1, "number_of_replicas": 0, "auto_expand_replicas": False}
    indices.clone(index="traps-000001", target="traps-half", settings={"index": allowed}, wait_for_active_shards=0)
    searcher.client.cluster.health(index="traps-half", wait_for_no_initializing_shards=True, timeout="30s")
    yield Searcher(searcher.client, "traps-half", encoder=Odd())
    indices.delete(index="traps-half")
    indices.put_settings(index="traps-000001", settings={"index.blocks.write": None})


@pytest.mark.parametrize("mode", MODES)
def test_hits_of_some_shards_are_an_error_or_marked(searcher: Searcher, half: Searcher, mode: Any) -> None:
    """By default a search answers with the hits of the shards that are there, and 200."""
    raw = half.client.search(index="traps-half", knn=raw_knn(searcher))
    assert (raw["_shards"]["failed"], len(raw["hits"]["hits"])) == (1, 7)
    each: list[Any] = [{}, {"where": "even = true"}, {"where": "year >= 1990", "facets": ["year"]}]
    for options in each:
        for queries in ("number", ["number", "document"]):
            with pytest.raises(PartialResultsError, match="missing shards"):
                half.search(queries, mode=mode, **options)
    whole = searcher.search("number", k=COUNT, mode=mode)
    some = half.search("number", k=COUNT, mode=mode, allow_partial=True)
    assert not whole.partial
    assert some.partial
    assert 0 < len(some) < COUNT
    assert {hit.id for hit in some} < {hit.id for hit in whole}
    assert all(found.partial for found in half.search(["a number", "document"], mode=mode, allow_partial=True))
    few = half.search("number", k=COUNT, mode=mode, where="even = true", facets=["even"], allow_partial=True)
    assert few.partial
    assert few.facets["even"].values == {"true": len(few)}


def test_an_example_of_some_shards_is_an_error(half: Searcher) -> None:
    there = half.search("number", k=1, allow_partial=True)[0].id
    with pytest.raises(PartialResultsError, match="missing shards"):
        half.similar(there, k=3)
    assert half.similar(there, k=3, allow_partial=True).partial


@pytest.mark.parametrize("mode", ["vector", "text"])
def test_a_search_that_runs_out_of_time_is_an_error_or_marked(
    es: Elasticsearch, alias: str, tmp_path: Path, mode: Any
) -> None:
    """By default a search answers with the hits that it has until then, and 200."""
    source = random.Random(1)
    made = [record | {"noise": "".join(source.choices("abcdefgh", k=1500))} for record in records(2000)]
    load(es, alias, tmp_path, documents=made)
    # Without a letter that all end in, each has to be read to its end. That takes most of a second: the clock by which
    # the server stops a search ticks each 200 ms.
    slow = {"bool": {"should": [{"regexp": {"noise": f".*a.*b.*{c}.*[{d}x]"}} for c in "abcdefgh" for d in "abcdefgh"]}}
    searcher = Searcher(es.options(max_retries=0), alias, encoder=HashEncoder(DIMS))
    asked: dict[str, Any] = {"mode": mode, "filter": slow}
    for queries in ("number", ["number", "document"]):
        with pytest.raises(PartialResultsError, match="Time exceeded"):
            searcher.search(queries, timeout=0.001, **asked)
    assert searcher.search("number", timeout=0.001, allow_partial=True, **asked).partial
    assert not searcher.search("number", timeout=1000, **asked).partial


# Queries


def test_a_query_without_a_direction_is_an_error(searcher: Searcher) -> None:
    each: list[Any] = [{}, {"mode": "exact"}, {"mode": "hybrid"}, {"where": "even = true"}]
    for options in each:
        with pytest.raises(SearchError, match="zero magnitude"):
            searcher.search("nothing", **options)
        with pytest.raises(SearchError, match="zero magnitude"):
            searcher.search(["something", "nothing"], **options)
    assert len(searcher.search("nothing", mode="text")) == 0


@pytest.mark.parametrize("query", ["a little longer", "much longer"])
def test_the_length_of_a_query_is_of_no_matter_to_a_cosine(searcher: Searcher, query: str) -> None:
    """The server takes a squared length within 0.001 of 1 for 1, and scores are off by as much."""
    vectors = HashEncoder(DIMS).encode_document([record["text"] for record in RECORDS])
    scores = np.sort(vectors @ HashEncoder(DIMS).encode_query([query])[0])[::-1]
    for mode in BY_VECTOR:
        hits = searcher.search(query, k=5, mode=mode)
        assert [hit.score for hit in hits] == pytest.approx(scores[:5], abs=2e-6)


def test_a_dot_product_with_nothing_is_zero(es: Elasticsearch, alias: str, tmp_path: Path) -> None:
    encoder = Odd()
    encoder.profile = replace(encoder.profile, similarity="dot", normalize=False)
    searcher = load(es, alias, tmp_path, encoder=encoder)
    for mode in BY_VECTOR:
        assert {hit.score for hit in searcher.search("nothing", k=9, mode=mode)} == {0.0}


# Filters


@pytest.mark.parametrize("mode", MODES)
def test_a_filter_that_can_match_nothing_is_an_error_and_not_an_empty_answer(searcher: Searcher, mode: Any) -> None:
    """A field that is not mapped has no documents, as far as the server is concerned."""
    raw = searcher.client.search(index="traps", knn=raw_knn(searcher, filter={"term": {"yaer": 2000}}))
    assert raw["hits"]["hits"] == []
    with pytest.raises(UnknownFieldError, match="year"):
        searcher.search("number", where="yaer = 2000", mode=mode)
    for where in ("year = recent", "even = 2", "even = maybe", "year >= 'now'"):
        with pytest.raises(FilterError):
            searcher.search("number", where=where, mode=mode)
    with pytest.raises(SearchError, match="recent"):
        searcher.search("number", filter={"term": {"year": "recent"}}, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_raw_filter_is_none(searcher: Searcher, mode: Any) -> None:
    assert searcher.search("number", filter=[], mode=mode) == searcher.search("number", mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_boosted_filter_does_not_change_a_score(searcher: Searcher, mode: Any) -> None:
    boosted = {"range": {"year": {"gte": 2000, "boost": 50}}}
    plain = searcher.search("number", k=5, where="year >= 2000", mode=mode)
    assert searcher.search("number", k=5, filter=boosted, mode=mode) == plain
    assert plain


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [10, 200])
def test_the_filter_of_an_alias_counts_before_the_search(searcher: Searcher, mode: Any, k: int) -> None:
    searcher.client.indices.put_alias(index="traps-000001", name="traps-even", filter={"term": {"even": True}})
    filtered = Searcher(searcher.client, "traps-even", encoder=Odd())
    for where, matches in ((None, 300), ("year >= 2000", sum(r["even"] and r["year"] >= 2000 for r in RECORDS))):
        hits = filtered.search("number", k=k, mode=mode, where=where)
        assert len(hits) == min(k, matches)
        assert all(hit.source["even"] for hit in hits)
    ids = [hit.id for hit in filtered.search(QUERY, k=7, mode="exact")]
    assert ids == best(QUERY, 7, lambda record: record["even"])


@pytest.mark.parametrize("mode", ["vector", "exact"])
def test_filters_of_documents_in_passages_all_count(es: Elasticsearch, alias: str, tmp_path: Path, mode: Any) -> None:
    """Inside of one ``bool``, filters of documents and of passages find nothing."""
    made = [record | {"text": f"{record['text']} " * 8} for record in RECORDS[:200]]
    encoder = HashEncoder(DIMS)
    load(es, alias, tmp_path, documents=made, encoder=encoder, passages=PassageOptions(20, 2))
    searcher = Searcher(es, alias, encoder=encoder, scope="even = true")
    raw: list[dict[str, Any]] = [{"exists": {"field": "text"}}, {"bool": {"must_not": {"term": {"year": 2001}}}}]
    ids = {r["id"] for r in made if r["even"] and 2000 <= r["year"] < 2020 and r["year"] != 2001}
    each: list[Any] = [{}, {"num_candidates": 1000}]
    for options in each:
        hits = searcher.search("q", k=200, where="year >= 2000 and not year >= 2020", filter=raw, mode=mode, **options)
        assert {hit.id for hit in hits} == ids
        assert len(searcher.search("q", k=5, where="year >= 2000", filter=raw, mode=mode, **options)) == 5


# Scores


QUANTIZED: list[dict[str, Any]] = [
    {"type": "int8_hnsw"},
    {"type": "int4_hnsw"},
    {"type": "int8_flat"},
    {"type": "int8_hnsw", "rescore_vector": {"oversample": 3}},
]


@pytest.mark.parametrize("quantized", QUANTIZED, ids=lambda options: str(options["type"]))
def test_scores_are_exact_however_few_bits_are_compared(
    es: Elasticsearch, alias: str, tmp_path: Path, quantized: dict[str, Any]
) -> None:
    """Where a mapping says nothing of rescoring, int8 and int4 hits have the scores of their quantized vectors."""
    searcher = load(es, alias, tmp_path, index_options=quantized, graph="inline")
    vectors = HashEncoder(DIMS).encode_document([record["text"] for record in RECORDS])
    scores = vectors @ HashEncoder(DIMS).encode_query([QUERY])[0]
    exact = {record["id"]: float(score) for record, score in zip(RECORDS, scores, strict=True)}
    if "rescore_vector" not in quantized:
        raw = es.search(index=alias, knn=raw_knn(searcher, k=10))["hits"]["hits"]
        assert max(abs(2 * hit["_score"] - 1 - exact[hit["_id"]]) for hit in raw) > 1e-5
    each: list[Any] = [{}, {"where": "even = true"}, {"where": "even = true", "num_candidates": 100}, {"mode": "exact"}]
    for options in each:
        for hit in searcher.search(QUERY, k=20, **options):
            assert hit.score == pytest.approx(exact[hit.id], abs=2e-6), options


@pytest.mark.parametrize("kind", ["int8_hnsw", "int4_hnsw"])
def test_the_least_similarity_is_of_exact_scores(es: Elasticsearch, alias: str, tmp_path: Path, kind: str) -> None:
    """The server compares the least similarity with quantized ones."""
    searcher = load(es, alias, tmp_path, index_options={"type": kind}, graph="inline")
    vectors = HashEncoder(DIMS).encode_document([record["text"] for record in RECORDS])
    scores = np.sort(vectors @ HashEncoder(DIMS).encode_query([QUERY])[0])[::-1]
    for rank in (1, 7, 20, 30):
        least = float(scores[rank - 1] + scores[rank]) / 2
        for mode in BY_VECTOR:
            hits = searcher.search(QUERY, k=100, mode=mode, min_similarity=least)
            assert len(hits) == rank


# What is sent, and what comes back


def test_vectors_never_come_back(searcher: Searcher) -> None:
    for mode in MODES:
        each: list[Any] = [{}, {"fields": ["vector"]}, {"fields": ["year", "vector", "esvector_hash"]}]
        for options in each:
            for hit in searcher.search("number", k=3, mode=mode, **options):
                assert not {"vector", "esvector_hash"} & set(hit.source)
    hit = searcher.similar("d3", k=1)[0]
    assert set(hit.source) == {"id", "text", "year", "even"}


def test_nothing_that_ends_a_search_early_is_sent(searcher: Searcher) -> None:
    """``terminate_after`` drops hits of a kNN search, and ``similarity`` and ``min_score`` go by quantized scores."""
    asked: list[dict[str, Any]] = [{"mode": mode} for mode in MODES]
    asked += [{"where": "even = true"}, {"min_similarity": 0.1}, {"facets": ["year"]}, {"offset": 20}]
    for options in asked:
        explanation = searcher.search("number", k=3, explain=True, **options).explanation
        assert explanation is not None
        for early in ("terminate_after", '"similarity"', "min_score", "timeout", "boost"):
            assert early not in explanation.console
