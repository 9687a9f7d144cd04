from __future__ import annotations

import json
import re
from typing import Any

import pytest

from esvector.errors import PartialResultsError, SearchError
from esvector.search.requests import check_shards, knn_body, read_hits, read_vectors, refusal, to_similarity
from esvector.search.results import Explanation
from esvector.types import Hit, Passage


def test_the_filter_goes_inside_knn_and_size_is_k() -> None:
    assert knn_body("v", [1.0, 2.0], 7, num_candidates=100, filters=[{"term": {"a": 1}}, {"term": {"b": 2}}]) == {
        "knn": {
            "field": "v",
            "query_vector": [1.0, 2.0],
            "k": 7,
            "num_candidates": 100,
            "filter": [{"term": {"a": 1}}, {"term": {"b": 2}}],
        },
        "size": 7,
        "_source": {"excludes": ["v", "esvector_hash"]},
    }


@pytest.mark.parametrize("raw", [-1.0, -0.25, 0.0, 0.5, 1.0])
def test_scores_are_turned_back_into_cosines(raw: float) -> None:
    assert to_similarity((1 + raw) / 2, "cosine") == pytest.approx(raw)


@pytest.mark.parametrize("raw", [-1000.0, -1.0, -0.25, 0.0, 0.5, 40.0])
def test_scores_are_turned_back_into_dot_products(raw: float) -> None:
    score = raw + 1 if raw >= 0 else 1 / (1 - raw)
    assert to_similarity(score, "dot") == pytest.approx(raw)


def answer(**changes: Any) -> dict[str, Any]:
    hits: list[dict[str, Any]] = [
        {"_index": "i", "_id": id_, "_score": score, "_source": {}} for id_, score in (("b", 0.9), ("c", 1), ("a", 0.9))
    ]
    return {"timed_out": False, "_shards": {"total": 1, "failed": 0}, "hits": {"hits": hits}} | changes


def test_hits_are_sorted_and_equal_ones_stay_in_the_order_of_the_server() -> None:
    assert [hit.id for hit in read_hits(answer(), "cosine")] == ["c", "b", "a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"timed_out": True},
        {"_shards": {"total": 2, "failed": 1, "failures": [{"reason": {"reason": "disk"}}]}},
    ],
)
def test_a_partial_answer_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(PartialResultsError):
        check_shards(answer(**changes))
    assert check_shards(answer(**changes), allow_partial=True)
    assert not check_shards(answer())


MISSING = {
    "root_cause": [],
    "type": "search_phase_execution_exception",
    "reason": "start",
    "caused_by": {
        "type": "search_phase_execution_exception",
        "reason": "Search rejected due to missing shards [[p][1]]",
    },
}
LATE = {
    "root_cause": [{"type": "search_timeout_exception", "reason": "Time exceeded", "timed_out": True}],
    "type": "search_phase_execution_exception",
    "reason": "all shards failed",
}
WRONG = {
    "root_cause": [{"type": "parsing_exception", "reason": "unknown query [x]"}],
    "type": "search_phase_execution_exception",
    "reason": "all shards failed",
}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (MISSING, PartialResultsError, r"missing shards \[\[p\]\[1\]\]"),
        (LATE, PartialResultsError, "Time exceeded"),
        (WRONG, SearchError, r"unknown query \[x\]"),
        ({"type": "illegal_argument_exception", "reason": "no"}, SearchError, "no"),
        ({"reason": "ApiError(413, 'None')"}, SearchError, "413"),
    ],
)
def test_what_is_refused_says_why(error: dict[str, Any], kind: type[SearchError], said: str) -> None:
    found = refusal("papers", error)
    assert type(found) is kind
    assert re.search(said, found.message)
    assert "papers" in found.message


def test_of_passages_the_best_comes_along_and_all_are_left_out_of_the_source() -> None:
    assert knn_body("passages.v", [1.0], 3, num_candidates=100, filters=[{"term": {"a": 1}}], passages=True) == {
        "knn": {
            "field": "passages.v",
            "query_vector": [1.0],
            "k": 3,
            "num_candidates": 100,
            "filter": [{"term": {"a": 1}}],
            "inner_hits": {"size": 1, "_source": ["passages.text", "passages.start", "passages.end"]},
        },
        "size": 3,
        "_source": {"excludes": ["passages", "esvector_hash"]},
    }


def test_a_hit_has_its_best_passage() -> None:
    inner = {"_score": 0.75, "_source": {"text": "found", "start": 7, "end": 12}}
    hits = [{"_id": "a", "_score": 0.74, "inner_hits": {"passages": {"hits": {"hits": [inner]}}}}]
    (hit,) = read_hits(answer(hits={"hits": hits}), "cosine")
    assert hit == Hit("a", 0.5, {}, Passage("found", 7, 12, 0.5))


@pytest.mark.parametrize(
    ("source", "field", "vectors"),
    [
        ({"vector": [1.0, 2.0]}, "vector", [[1.0, 2.0]]),
        ({"x": 1}, "vector", []),
        ({"passages": [{"v": [1.0]}, {"v": [2.0]}]}, "passages.v", [[1.0], [2.0]]),
        ({"passages": {"v": [1.0]}}, "passages.v", [[1.0]]),
        ({"passages": []}, "passages.v", []),
        ({"passages": [{"text": "x"}]}, "passages.v", []),
        ({}, "passages.v", []),
    ],
)
def test_the_vectors_of_a_stored_document(source: dict[str, Any], field: str, vectors: list[list[float]]) -> None:
    assert read_vectors(source, field) == vectors


def test_requests_for_the_console_have_a_vector_on_one_line_and_texts_as_they_are() -> None:
    body = {"knn": {"query_vector": [0.1, -2e-05, 3.0], "k": 1}, "query": "[1,   2] and [ 3 ]"}
    explanation = Explanation("a", "a-000001", "m", None, "cosine", "kNN", None, None, (body,))
    path, _, text = explanation.console.partition("\n")
    assert path == "GET /a/_search"
    assert json.loads(text) == body
    assert '"query_vector": [ 0.1, -2e-05, 3.0 ]' in text
