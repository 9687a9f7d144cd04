"""Exact search against numpy, on a real Elasticsearch: whatever the segments, types, filters and passages are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch, helpers
from numpy.typing import NDArray

from esvector.errors import SearchError
from esvector.passport import HASH_FIELD
from esvector.search.exact import Count, exact_body, find_buckets, is_quantized, merge

DIMS = 64
K = 20
_Vectors = NDArray[np.float32]


def unit(vectors: NDArray[Any]) -> _Vectors:
    made: _Vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return made


@dataclass(slots=True)
class Corpus:
    """An index and what is in it: of each document its vectors (n, dims), and the group that filters go by."""

    es: Elasticsearch
    index: str
    passages: bool = False
    quantized: bool = False
    similarity: str = "cosine"
    vectors: dict[str, _Vectors] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    @property
    def field(self) -> str:
        return "passages.vector" if self.passages else "vector"

    def add(self, ids: Sequence[str], vectors: Sequence[_Vectors], group: int, *, hashed: bool = True) -> None:
        """Write a segment; ids that are there already leave a deleted document behind."""
        hashes = (hashlib.blake2b(id_.encode(), digest_size=16).hexdigest() for id_ in ids)
        actions = (
            {
                "_index": self.index,
                "_id": id_,
                "_source": {"group": group, **({HASH_FIELD: content} if hashed else {}), **self._placed(rows)},
            }
            for id_, rows, content in zip(ids, vectors, hashes, strict=True)
        )
        helpers.bulk(self.es, actions, chunk_size=2000)
        self.es.indices.refresh(index=self.index)
        self.vectors.update(zip(ids, vectors, strict=True))
        self.groups.update(dict.fromkeys(ids, group))

    def delete(self, ids: Sequence[str]) -> None:
        helpers.bulk(self.es, ({"_op_type": "delete", "_index": self.index, "_id": id_} for id_ in ids))
        self.es.indices.refresh(index=self.index)
        for id_ in ids:
            del self.vectors[id_], self.groups[id_]

    def buckets(self, filters: Sequence[Mapping[str, Any]] = ()) -> list[tuple[Mapping[str, Any], Count]]:
        steps = find_buckets(self.field, filters, passages=self.passages)
        body = next(steps)
        while True:
            try:
                body = steps.send(self.es.search(index=self.index, body=body).body)
            except StopIteration as end:
                found: list[tuple[Mapping[str, Any], Count]] = end.value
                return found

    def search(self, query: _Vectors, filters: Sequence[Mapping[str, Any]] = (), k: int = K) -> list[tuple[str, float]]:
        """What the requests of an exact search find."""
        bodies = [
            exact_body(
                self.field,
                query.tolist(),
                k,
                count,
                [*filters, bucket],
                quantized=self.quantized,
                passages=self.passages,
            )
            for bucket, count in self.buckets(filters)
        ]
        return merge([self.es.search(index=self.index, body=body).body for body in bodies], k)

    def truth(self, query: _Vectors, group: int | None = None, k: int = K) -> list[tuple[str, float]]:
        """What numpy finds, by the documented formulas of ``_score``."""
        found = []
        for id_, rows in self.vectors.items():
            if group is None or self.groups[id_] == group:
                raw = float((rows.astype(np.float64) @ query.astype(np.float64)).max())
                if self.similarity == "cosine":
                    found.append((id_, (1 + raw) / 2))
                else:
                    found.append((id_, raw + 1 if raw >= 0 else 1 / (1 - raw)))
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]

    def check(self, query: _Vectors, group: int | None = None, k: int = K) -> None:
        filters = [] if group is None else [{"term": {"group": group}}]
        found, expected = self.search(query, filters, k), self.truth(query, group, k)
        assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)

    def _placed(self, rows: _Vectors) -> dict[str, Any]:
        return (
            {"passages": [{"vector": row.tolist()} for row in rows]} if self.passages else {"vector": rows[0].tolist()}
        )


@pytest.fixture
def make(es: Elasticsearch, alias: str) -> Any:
    """Make an index whose vector field is of a type; nothing is merged."""

    def corpus(kind: str, *, passages: bool = False, similarity: str = "cosine", dims: int = DIMS) -> Corpus:
        vector = {
            "type": "dense_vector",
            "dims": dims,
            "similarity": similarity,
            # A graph of every segment, however small: it is what an exact search must not be led by.
            "index_options": {"type": kind} | ({"flat_index_threshold": 0} if kind.endswith("hnsw") else {}),
        }
        nested = {"passages": {"type": "nested", "properties": {"vector": vector}}}
        properties: dict[str, Any] = {
            **(nested if passages else {"vector": vector}),
            "group": {"type": "integer"},
            HASH_FIELD: {"type": "keyword", "index": False, "doc_values": True},
        }
        es.indices.create(
            index=alias,
            settings={"number_of_replicas": 0, "refresh_interval": -1, "merge.policy.max_merged_segment": "2mb"},
            mappings={"properties": properties},
        )
        return Corpus(es, alias, passages, is_quantized(vector), similarity)

    return corpus


def vectors(count: int, seed: int, *, dims: int = DIMS, most: int = 1) -> list[_Vectors]:
    draw = np.random.default_rng(seed)
    return [unit(draw.standard_normal((int(draw.integers(1, most + 1)), dims))) for _ in range(count)]


def names(count: int, prefix: str = "d") -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


@pytest.mark.parametrize("kind", ["hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw", "flat", "int8_flat"])
def test_every_type_is_searched_exactly_over_segments_updates_and_deletions(make: Any, kind: str) -> None:
    corpus = make(kind)
    corpus.add(names(2500), vectors(2500, 1), 0)
    corpus.add(names(1500, "e"), vectors(1500, 2), 1)
    corpus.add(names(300), vectors(300, 3), 2)  # updates of the first ones
    corpus.delete(names(200, "e"))
    for query in vectors(5, 4):
        corpus.check(query[0])
        for group in (0, 1, 2):
            corpus.check(query[0], group)


def test_max_inner_product_has_scores_of_its_own(make: Any) -> None:
    corpus = make("int8_hnsw", similarity="max_inner_product")
    draw = np.random.default_rng(8)
    longer = [rows * np.float32(draw.uniform(0.1, 4)) for rows in vectors(1500, 9)]
    corpus.add(names(1500), longer, 0)
    for query in vectors(3, 10):
        corpus.check(query[0] * np.float32(3))


@pytest.mark.parametrize("kind", ["hnsw", "int8_hnsw", "bbq_hnsw"])
def test_the_best_passage_of_each_document(make: Any, kind: str) -> None:
    corpus = make(kind, passages=True)
    corpus.add(names(700), vectors(700, 11, most=6), 0)
    corpus.add(names(400, "e"), vectors(400, 12, most=6), 1)
    corpus.add(names(50), vectors(50, 13, most=9), 1)
    corpus.delete(names(30, "e"))
    for query in vectors(4, 14):
        corpus.check(query[0])
        corpus.check(query[0], 1)


@pytest.mark.parametrize(
    ("kind", "passages"),
    [("int8_hnsw", False), ("int8_hnsw", True), pytest.param("hnsw", False, marks=pytest.mark.nightly)],
)
def test_more_than_one_request_can_scan_is_cut_into_buckets(make: Any, kind: str, passages: bool) -> None:
    corpus = make(kind, passages=passages, dims=32)
    count, most = (4000, 5) if passages else (13_000, 1)
    corpus.add(names(count), vectors(count, 21, dims=32, most=most), 0)
    others = 40 if passages else 200
    corpus.add(names(others, "u"), vectors(others, 22, dims=32, most=most), 1, hashed=False)
    buckets = corpus.buckets()
    assert len(buckets) > 2
    assert sum(count.vectors for _, count in buckets) == sum(map(len, corpus.vectors.values()))
    for query in vectors(3, 23, dims=32):
        corpus.check(query[0], k=50)
        corpus.check(query[0], 1)


def test_a_filter_whose_matches_are_all_in_one_small_segment(make: Any) -> None:
    """Lucene scales the number of candidates down to the segment's share of the shard, and would walk its graph."""
    corpus = make("hnsw", dims=32)
    corpus.add(names(12_000), vectors(12_000, 31, dims=32), 0)
    corpus.add(names(1_500, "e"), vectors(1_500, 32, dims=32), 1)
    for query in vectors(10, 33, dims=32):
        corpus.check(query[0], 1, k=100)


def test_documents_that_are_equal_are_told_apart_as_far_as_a_request_can(make: Any) -> None:
    corpus = make("flat", dims=4)
    same = [np.eye(1, 4, dtype=np.float32)] * 10_500
    hashes = "0" * 32
    actions = (
        {"_index": corpus.index, "_id": f"d{n}", "_source": {"vector": row[0].tolist(), HASH_FIELD: hashes}}
        for n, row in enumerate(same)
    )
    helpers.bulk(corpus.es, actions, chunk_size=2000)
    corpus.es.indices.refresh(index=corpus.index)
    with pytest.raises(SearchError, match="equal"):
        corpus.buckets()


def test_nothing_matches(make: Any) -> None:
    corpus = make("int8_hnsw")
    corpus.add(names(10), vectors(10, 41), 0)
    assert corpus.search(vectors(1, 42)[0][0], [{"term": {"group": 7}}]) == []
