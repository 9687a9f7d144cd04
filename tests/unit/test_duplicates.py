"""Clusters of pairs, and the bodies by which pairs are found; what a server answers is in tests/server."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from hypothesis import given
from hypothesis import strategies as st

from esvector import EncoderProfile, PassageOptions, Passport
from esvector.errors import ConfigError
from esvector.search.duplicates import Pair, clusters, find_pairs, nearest_body, page_body

PASSPORT = Passport(EncoderProfile("m", similarity="cosine"), ("text",), "vector", "0.1.0")
CLIENT = Elasticsearch("http://localhost:1")  # never asked


def pair(first: str, second: str) -> Pair:
    return Pair(first, second, 0.9)


def test_clusters_by_hand() -> None:
    found = clusters([pair("d", "e"), pair("a", "b"), pair("x", "y"), pair("e", "f"), pair("b", "c"), pair("a", "d")])
    assert found == [("a", "b", "c", "d", "e", "f"), ("x", "y")]
    assert clusters([]) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda p: p[0] != p[1]), max_size=60))
def test_clusters_are_connected_components(edges: list[tuple[int, int]]) -> None:
    near: dict[str, set[str]] = defaultdict(set)
    for a, b in edges:
        near[str(a)].add(str(b))
        near[str(b)].add(str(a))

    def reached(start: str) -> tuple[str, ...]:
        seen, front = {start}, [start]
        while front:
            front = [other for id_ in front for other in near[id_] if other not in seen]
            seen |= set(front)
        return tuple(sorted(seen))

    found = clusters(Pair(str(min(edge)), str(max(edge)), 1) for edge in edges)
    assert set(found) == {reached(id_) for id_ in near}
    assert [len(ids) for ids in found] == sorted(map(len, found), reverse=True)


def test_a_chain_of_many_documents_is_one_cluster() -> None:
    n = 50_000
    (found,) = clusters(pair(f"{i:06}", f"{i + 1:06}") for i in reversed(range(n)))
    assert len(found) == n + 1


def test_the_bodies() -> None:
    filters = [{"term": {"lang": "en"}}]
    assert page_body("moment", "vector", filters, None) == {
        "pit": {"id": "moment", "keep_alive": "10m"},
        "query": {"bool": {"filter": [{"exists": {"field": "vector"}}, {"term": {"lang": "en"}}]}},
        "sort": ["_shard_doc"],
        "size": 500,
        "_source": ["vector"],
        "track_total_hits": True,
    }
    assert page_body("moment", "vector", [], [17])["search_after"] == [17]
    assert nearest_body("moment", "vector", [0.5, 1], 11, 100, filters, quantized=True) == {
        "pit": {"id": "moment", "keep_alive": "10m"},
        "knn": {
            "field": "vector",
            "query_vector": [0.5, 1],
            "k": 11,
            "num_candidates": 100,
            "filter": [{"term": {"lang": "en"}}],
            "rescore_vector": {"oversample": 100 / 11},
        },
        "size": 11,
        "_source": False,
    }
    plain = nearest_body("moment", "vector", [0.5, 1], 200, 100, [], quantized=False)
    assert plain["knn"] == {"field": "vector", "query_vector": [0.5, 1], "k": 200, "num_candidates": 200}


@pytest.mark.parametrize("score", [90, 1.01, -1.5, float("nan"), float("inf")])
def test_a_score_that_no_pair_can_have(score: float) -> None:
    with pytest.raises(ConfigError, match="the least score of a pair is"):
        find_pairs(CLIENT, "papers", PASSPORT, score)


def test_a_dot_product_may_be_any_number() -> None:
    dot = replace(PASSPORT, encoder=EncoderProfile("m", similarity="dot"))
    find_pairs(CLIENT, "papers", dot, 90.0).close()
    with pytest.raises(ConfigError, match="is no dot product"):
        find_pairs(CLIENT, "papers", dot, float("nan"))


@pytest.mark.parametrize("wrong", [{"num_candidates": 0}, {"num_candidates": 10_001}])
def test_candidates_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="num_candidates is"):
        find_pairs(CLIENT, "papers", PASSPORT, 0.9, **wrong)


def test_an_index_in_passages_is_refused_at_once() -> None:
    cut = replace(PASSPORT, passages=PassageOptions(64, 8), vector_field="passages.vector")
    with pytest.raises(ConfigError, match="papers has its documents in passages") as error:
        find_pairs(CLIENT, "papers", cut, 0.9)
    assert "one vector each" in error.value.remedy
