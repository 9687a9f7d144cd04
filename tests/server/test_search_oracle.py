"""Every mode of search on a real node against brute force in numpy, over generated documents, filters and queries.

Each index of ``SETUPS`` is made of several segments, with documents that were changed and documents that were deleted.
Exact searches must find what the oracle finds, in its order and with its scores (``check_exact``); approximate ones
95 % of it on average at the default settings, with every score exact and k hits whenever k documents match. Vectors
are random, which is the hardest that a graph can be asked to find its way in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from esvector import Hit, Indexer, PassageOptions, Results, Searcher
from esvector.mapping import load_template
from esvector.vectors import ElementType
from tests.support.encoders import HashEncoder
from tests.support.search_oracle import (
    WORDS,
    Condition,
    Lengths,
    Oracle,
    Record,
    Vectors,
    check_exact,
    condition,
    recall,
    records,
    unit,
)

SEED = 20262
KS = [1, 3, 10, 40, 500]
LEGS: list[Any] = ["vector", "text"]
BY_VECTOR: list[Any] = ["vector", "exact"]


@dataclass(frozen=True, slots=True)
class Setup:
    """An index to search. ``graph`` is the type of its vector field where it is not the default one."""

    similarity: Literal["cosine", "dot"] = "cosine"
    element_type: ElementType = "float"
    shards: int = 1
    documents: int = 1200
    dims: int = 32
    passages: bool = False
    graph: str | None = None
    recall: float = 0.95
    noise: float = 2e-6

    def __str__(self) -> str:
        parts = [self.similarity, self.element_type, f"{self.shards}sh", self.graph or "", "pass" * self.passages]
        return "-".join(part for part in parts if part)


SETUPS = [
    Setup(documents=2000),
    Setup(shards=3),
    Setup(graph="hnsw"),
    Setup(graph="int4_hnsw", recall=0.9),
    # One bit for each dimension says little of random vectors: the default oversample of 3 is not made for them.
    Setup(graph="bbq_hnsw", dims=64, recall=0.5),
    Setup(graph="int8_flat", documents=600),
    Setup("dot", shards=2, documents=1600, noise=1e-5),
    Setup(element_type="bfloat16"),
    Setup("dot", element_type="bfloat16", noise=1e-5),
    Setup(element_type="byte", shards=2),
    Setup(passages=True, shards=2, documents=500),
    Setup("dot", passages=True, documents=400, noise=1e-5),
    Setup(element_type="bfloat16", passages=True, documents=400),
    Setup(element_type="byte", passages=True, documents=400),
]


@dataclass(frozen=True, slots=True)
class Made:
    """An index, its searcher, and what there is to find."""

    setup: Setup
    encoder: HashEncoder
    searcher: Searcher
    oracle: Oracle

    def query(self, text: str) -> Vectors:
        return np.asarray(self.encoder.encode_query([text])[0])


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def made(request: pytest.FixtureRequest, es: Elasticsearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    setup: Setup = request.param
    alias = f"oracle-{setup}"
    encoder = Lengths(setup.dims) if setup.similarity == "dot" else HashEncoder(setup.dims)
    try:
        stored = load(es, alias, setup, encoder, tmp_path_factory.mktemp("oracle"))
        vectors = vectors_of(es, alias, setup, encoder, stored)
        oracle = Oracle(stored, vectors, setup.similarity, setup.element_type, setup.noise)
        yield Made(setup, encoder, Searcher(es, alias, encoder=encoder), oracle)
    finally:
        for index in es.indices.get(index=f"{alias}*"):
            es.indices.delete(index=index)


def load(es: Elasticsearch, alias: str, setup: Setup, encoder: HashEncoder, root: Path) -> dict[str, Record]:
    """Index documents, then more of them and changed ones, then delete some; return what is there in the end."""
    template = load_template(passages=setup.passages)
    template["settings"]["index"]["number_of_shards"] = setup.shards
    if setup.graph:
        vector = {"type": "dense_vector", "index_options": {"type": setup.graph}}
        template["mappings"]["properties"]["vector"] = vector
    all_ = records(setup.documents, SEED, longest=40 if setup.passages else 10)
    first, later = all_[: setup.documents * 3 // 4], all_[setup.documents * 3 // 4 :]
    changed = [record | {"text": f"changed {record['text']}", "weight": 9.5} for record in first[::10]]
    options: dict[str, Any] = {"encoder": encoder, "dead_letters": root / "dead.jsonl"}
    Indexer(
        es,
        alias,
        mapping=template,
        element_type=setup.element_type,
        passages=PassageOptions(20, 3) if setup.passages else None,
        graph="inline",
        **options,
    ).run(first)
    Indexer(es, alias, **options).run(changed)
    report = Indexer(es, alias, **options).run(later)
    assert (report.indexed, report.dead) == (len(later), 0)
    stored = {record["id"]: record for record in [*first, *changed, *later]}
    gone = [stored.pop(record["id"])["id"] for record in all_[5::17]]
    es.bulk(index=alias, operations=[{"delete": {"_id": id_}} for id_ in gone], refresh=True)
    assert es.count(index=alias)["count"] == len(stored)
    (segments,) = es.indices.segments(index=alias)["indices"].values()
    for (shard,) in segments["shards"].values():
        assert len(shard["segments"]) > 1
        assert sum(segment["deleted_docs"] for segment in shard["segments"].values()) > 0
    return stored


def vectors_of(
    es: Elasticsearch, alias: str, setup: Setup, encoder: HashEncoder, stored: dict[str, Record]
) -> dict[str, Vectors]:
    """What is encoded of each document: its text, or its title and each of its passages, as the index has them."""
    parts = {id_: [record["text"]] for id_, record in stored.items()}
    if setup.passages:
        answer = es.search(index=alias, size=10_000, source={"includes": ["passages.text"]})
        assert len(answer["hits"]["hits"]) == len(stored)
        parts = {hit["_id"]: [one["text"] for one in hit["_source"]["passages"]] for hit in answer["hits"]["hits"]}
        assert max(len(texts) for texts in parts.values()) > 2
    return {
        id_: encoder.encode_document([" ".join([*texts_before(stored[id_]), text]) for text in texts])
        for id_, texts in parts.items()
    }


def texts_before(record: Mapping[str, Any]) -> list[str]:
    return [record["title"]] if "title" in record else []


@dataclass(frozen=True, slots=True)
class Asked:
    """A few queries that are asked together, with what is asked of them."""

    condition: Condition | None
    queries: list[str]
    k: int
    offset: int

    @property
    def options(self) -> dict[str, Any]:
        where = None if self.condition is None else self.condition.text
        return {"k": self.k, "offset": self.offset, "where": where}


def searches(made: Made, seed: int, count: int = 10) -> Iterator[Asked]:
    """Searches of every kind, the first without a filter; a few queries are the text of a document."""
    source = random.Random(f"{SEED} {seed}")
    own = sorted(record["text"] for record in made.oracle.records.values())
    for number in range(count):
        queries = [*(" ".join(source.sample(WORDS, 2)) for _ in range(2)), source.choice(own)]
        offset = source.choice([0, 0, 5, 25])
        yield Asked(condition(source) if number else None, queries, KS[number % len(KS)], offset)


def answers(made: Made, asked: Asked, **options: Any) -> Iterator[tuple[Results, dict[str, float]]]:
    """The results of each query, and the score of each document that matches."""
    found = made.searcher.search(asked.queries, **(asked.options | options))
    for query, hits in zip(asked.queries, found, strict=True):
        assert not hits.partial
        assert all(hit.source == made.oracle.records[hit.id] for hit in hits)
        yield hits, made.oracle.scores(made.query(query), asked.condition)


@pytest.mark.parametrize("mode", ["exact", "vector"])
def test_an_exact_search_finds_what_the_oracle_finds(made: Made, mode: Any) -> None:
    """In mode "vector", where few match a filter."""
    sizes = []
    for asked in searches(made, 1):
        if mode == "exact" or asked.condition is not None:
            for hits, scores in answers(made, asked, mode=mode):
                check_exact(hits, scores, asked.k, asked.offset, made.setup.noise)
                sizes.append(len(scores))
    assert 0 < np.median(sizes) < len(made.oracle.records)


def test_an_approximate_search_finds_nearly_that(made: Made) -> None:
    """Without a filter by the plan's own settings; with one by the same, since few would be compared exactly."""
    recalls = []
    for asked in searches(made, 2):
        k = min(asked.k, 100)
        options = {} if asked.condition is None else {"num_candidates": max(100, 3 * k)}
        for hits, scores in answers(made, asked, k=k, offset=0, **options):
            assert len(hits) == len({hit.id for hit in hits}) == min(k, len(scores))
            check_scores(hits, scores, made.setup.noise)
            recalls.append(recall(hits, scores, k, made.setup.noise))
    assert np.mean(recalls) >= made.setup.recall


def check_scores(hits: Sequence[Hit], scores: dict[str, float], noise: float) -> None:
    """Each satisfies the filter and has its own score, and they are in the order of these."""
    assert {hit.id for hit in hits} <= scores.keys()
    found = [hit.score for hit in hits]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([scores[hit.id] for hit in hits], rel=noise, abs=noise)


def test_a_hit_shows_the_passage_that_it_has_its_score_from(made: Made) -> None:
    if not made.setup.passages:
        assert all(hit.passage is None for hit in made.searcher.search("river", k=5))
        return
    for asked in searches(made, 3, 4):
        for query, hits in zip(asked.queries, made.searcher.search(asked.queries, k=20), strict=True):
            for hit in hits:
                assert hit.passage is not None
                assert hit.source["text"][hit.passage.start : hit.passage.end] == hit.passage.text
                text = " ".join([*texts_before(hit.source), hit.passage.text])
                alone = Oracle(
                    {hit.id: dict(hit.source)},
                    {hit.id: made.encoder.encode_document([text])},
                    made.setup.similarity,
                    made.setup.element_type,
                )
                own = alone.scores(made.query(query))[hit.id]
                assert hit.score == hit.passage.score == pytest.approx(own, rel=made.setup.noise, abs=made.setup.noise)


def test_a_search_by_words_finds_the_documents_that_have_one(made: Made) -> None:
    for asked in searches(made, 4, 4):
        everything = made.searcher.search(asked.queries, mode="text", k=10_000, where=asked.options["where"])
        some = made.searcher.search(asked.queries, mode="text", **(asked.options | {"offset": 0}))
        for query, hits, best in zip(asked.queries, everything, some, strict=True):
            wanted = set(query.lower().split())
            expected = {
                id_
                for id_, record in made.oracle.records.items()
                if (asked.condition is None or asked.condition.holds(record))
                and wanted & set(f"{record.get('title', '')} {record['text']}".lower().split())
            }
            assert {hit.id for hit in hits} == expected
            assert len(hits) == len(expected)
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            assert min(scores, default=1) > 0
            assert [hit.score for hit in best] == pytest.approx(scores[: asked.k])
            by_id = {hit.id: hit.score for hit in hits}
            assert [by_id[hit.id] for hit in best] == pytest.approx([hit.score for hit in best])


def test_a_hybrid_search_is_the_reciprocal_rank_of_its_two_rankings(made: Made) -> None:
    for asked in searches(made, 5, 5):
        end = asked.k + asked.offset
        alone = asked.options | {"k": max(100, end), "offset": 0}
        legs = {mode: made.searcher.search(asked.queries, mode=mode, **alone) for mode in LEGS}
        for row, (hits, scores) in enumerate(answers(made, asked, mode="hybrid")):
            ranks: dict[str, dict[str, int]] = {}
            for mode, found in legs.items():
                for rank, hit in enumerate(found[row], start=1):
                    ranks.setdefault(hit.id, {})[mode] = rank
            fused = {id_: sum(1 / (60 + rank) for rank in of.values()) for id_, of in ranks.items()}
            order = sorted(fused, key=lambda id_: (-round(fused[id_], 12), id_))[asked.offset : end]
            assert [hit.id for hit in hits] == order
            assert [hit.score for hit in hits] == pytest.approx([fused[id_] for id_ in order], abs=1e-12)
            for hit in hits:
                assert {mode: leg.rank for mode, leg in hit.legs.items()} == ranks[hit.id]
                if "vector" in hit.legs:
                    noise = made.setup.noise
                    assert hit.legs["vector"].score == pytest.approx(scores[hit.id], rel=noise, abs=noise)


def test_what_is_similar_to_a_document_is_what_its_vector_finds(made: Made) -> None:
    source = random.Random(SEED)
    for id_ in source.sample(sorted(made.oracle.records), 4):
        where = condition(source)
        scores = made.oracle.scores(vector_of(made, id_), where)
        scores.pop(id_, None)
        for mode in BY_VECTOR:
            hits = made.searcher.similar(id_, k=10, where=where.text, mode=mode)
            check_exact(hits, scores, 10, noise=made.setup.noise)


def vector_of(made: Made, id_: str) -> Vectors:
    """The vector that the index gives back for a document, or what those of its passages have in common."""
    alias = made.searcher.alias
    stored = made.searcher.client.get(index=alias, id=id_, source_includes=["vector", "passages.vector"])["_source"]
    found = [one["vector"] for one in stored["passages"]] if made.setup.passages else [stored["vector"]]
    vectors = np.asarray(found, np.float64)
    return np.asarray((vectors if made.setup.similarity == "dot" else unit(vectors)).mean(axis=0), np.float32)
