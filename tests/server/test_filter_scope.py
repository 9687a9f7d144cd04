"""No filter of a user, whatever it is, brings back a document that is outside of the scope."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from esvector.errors import EsvectorError, FilterError
from esvector.fields import FieldType, field_types
from esvector.search.filter_raw import Raw
from esvector.search.filter_scope import document_filters, knn_filter_list
from esvector.search.filters import Field, Filter
from tests.support.hostile import NAMES, TEXTS, check_error, check_typed, wheres

SCOPE = Field("tenant") == "a"
DOCUMENTS = 40
VECTOR = {"type": "dense_vector", "dims": 2, "similarity": "l2_norm", "index_options": {"type": "hnsw"}}
MAPPINGS: dict[str, Any] = {
    "properties": {
        "tenant": {"type": "keyword"},
        "venue": {"type": "keyword"},
        "year": {"type": "integer"},
        "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
        "on": {"type": "date"},
        "seen": {"type": "date_nanos"},
        "half": {"type": "half_float"},
        "host": {"type": "ip"},
        "open": {"type": "boolean"},
        "authors": {
            "type": "nested",
            "properties": {
                "name": {"type": "keyword"},
                "tenant": {"type": "keyword"},
                "papers": {"type": "nested", "properties": {"title": {"type": "keyword"}}},
            },
        },
        "passages": {
            "type": "nested",
            "properties": {
                "tenant": {"type": "keyword"},
                "start": {"type": "integer", "doc_values": False},
                "vector": {
                    "type": "dense_vector",
                    "dims": 2,
                    "similarity": "l2_norm",
                    "index_options": {"type": "hnsw"},
                },
            },
        },
        "vector": VECTOR,
    }
}


@dataclass(frozen=True, slots=True)
class Corpus:
    index: str
    fields: dict[str, FieldType]
    inside: set[str]


@pytest.fixture(scope="module")
def corpus(es: Elasticsearch) -> Iterator[Corpus]:
    index, rng = f"scope-{uuid.uuid4().hex[:12]}", random.Random(3)
    es.indices.create(index=index, mappings=MAPPINGS, settings={"number_of_replicas": 0, "number_of_shards": 2})
    tenants = {str(n): rng.choice(["a", "b", "a b", "A", "*"]) for n in range(DOCUMENTS)}
    lines: list[dict[str, Any]] = []
    for number, tenant in tenants.items():
        # What is inside may belong to others: it is the document that the scope is about.
        passages = [
            {"tenant": rng.choice("ab"), "start": n, "vector": [rng.random(), rng.random()]} for n in range(1, 3)
        ]
        lines += [
            {"index": {"_id": number}},
            {
                "tenant": tenant,
                "venue": rng.choice(TEXTS[:20]),
                "title": rng.choice(["a", "b", "tenant b"]),
                "year": rng.choice([-1, 0, 2020]),
                "on": "2020-01-01",
                "host": "10.0.0.1",
                "open": True,
                "authors": [{"name": rng.choice("ab"), "tenant": rng.choice("ab"), "papers": [{"title": "b"}]}],
                "passages": passages,
                "vector": [rng.random(), rng.random()],
            },
        ]
    try:
        assert not es.bulk(index=index, operations=lines, refresh=True)["errors"]
        yield Corpus(index, field_types(MAPPINGS), {number for number, tenant in tenants.items() if tenant == "a"})
    finally:
        es.indices.delete(index=index)


def bodies(
    corpus: Corpus, where: str | Filter | None, raw: Raw | None, scope: Filter | None = SCOPE
) -> list[dict[str, Any]]:
    """A kNN search, one on passages, and a search for text. Raises FilterError as the filters do."""

    def knn(field: str, passages: str | None) -> dict[str, Any]:
        filters = knn_filter_list(corpus.fields, scope=scope, where=where, raw=raw, passages=passages)
        found = {"field": field, "query_vector": [0.5, 0.5], "k": DOCUMENTS, "num_candidates": 100, "filter": filters}
        return {"knn": found, "size": DOCUMENTS, "_source": False}

    text = document_filters(corpus.fields, scope=scope, where=where, raw=raw, passages="passages")
    query = {"should": [{"match": {"title": "tenant b"}}], "minimum_should_match": 0, "filter": text}
    return [
        knn("vector", None),
        knn("passages.vector", "passages"),
        {"query": {"bool": query}, "size": DOCUMENTS, "_source": False},
    ]


def answers(es: Elasticsearch, corpus: Corpus, asked: Sequence[dict[str, Any]]) -> Iterator[set[str] | str]:
    for start in range(0, len(asked), 150):
        lines = [line for body in asked[start : start + 150] for line in ({}, body)]
        for answer in es.msearch(index=corpus.index, searches=lines)["responses"]:
            if "error" in answer or answer["_shards"]["failed"]:
                yield str(answer)
            else:
                yield {hit["_id"] for hit in answer["hits"]["hits"]}


def test_no_expression_and_no_tree_leaves_the_scope_or_is_refused_by_the_server(
    es: Elasticsearch, corpus: Corpus
) -> None:
    asked: list[tuple[str | Filter, dict[str, Any]]] = []
    for where in wheres(5, 4000, sorted(corpus.fields)):
        try:
            made = bodies(corpus, where, None)
        except EsvectorError as error:
            check_error(error, where)
            continue
        for entry in made[2]["query"]["bool"]["filter"]:
            check_typed(entry, corpus.fields)
        asked += [(where, body) for body in made]
    assert len(asked) > 900
    seen = 0
    for (where, body), found in zip(asked, answers(es, corpus, [body for _, body in asked]), strict=True):
        assert isinstance(found, set), (where, body, found)
        assert found <= corpus.inside, (where, body)
        seen += bool(found)
    assert seen > 100


WIDE: list[dict[str, Any]] = [
    {"match_all": {}},
    {"match_all": {"boost": 1e9}},
    {"term": {"tenant": "b"}},
    {"terms": {"tenant": ["b", "A", "*"]}},
    {"exists": {"field": "tenant"}},
    {"ids": {"values": [str(n) for n in range(DOCUMENTS)]}},
    {"query_string": {"query": "*:*"}},
    {"query_string": {"query": "tenant:b OR *"}},
    {"query_string": {"query": "NOT _exists_:nothing"}},
    {"simple_query_string": {"query": "b | *", "fields": ["*"]}},
    {"multi_match": {"query": "a b", "fields": ["*"], "lenient": True}},
    {"wildcard": {"tenant": {"value": "*", "case_insensitive": True}}},
    {"regexp": {"tenant": ".*"}},
    {"prefix": {"tenant": ""}},
    {"fuzzy": {"tenant": {"value": "b", "fuzziness": 2}}},
    {"range": {"tenant": {"gte": ""}}},
    {"range": {"year": {}}},
    {"nested": {"path": "passages", "query": {"match_all": {}}}},
    {"nested": {"path": "passages", "query": {"term": {"passages.tenant": "b"}}, "score_mode": "max"}},
    {"nested": {"path": "nothing", "query": {"match_all": {}}, "ignore_unmapped": True}},
    {"term": {"passages.tenant": "b"}},
    {"term": {"_nested_path": "passages"}},
    {"term": {"_index": "x"}},
    {"more_like_this": {"fields": ["title"], "like": "tenant b", "min_term_freq": 1, "min_doc_freq": 1}},
    {"knn": {"field": "vector", "query_vector": [0.5, 0.5], "k": 40, "num_candidates": 100}},
    {"nested": {"path": "passages", "query": {"knn": {"field": "passages.vector", "query_vector": [1, 1], "k": 40}}}},
    {"function_score": {"query": {"match_all": {}}, "min_score": -1, "functions": []}},
    {"bool": {}},
    {"bool": {"must": [], "should": [], "filter": [], "must_not": []}},
    {"bool": {"must_not": [], "adjust_pure_negative": False}},
]
LEAST = [0, -1, 1, 5, "0%", "-100%", "100%", "-1", "0<0%", "2<-25% 9<-3"]


def wide(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(WIDE)
    parts = [wide(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    match rng.randrange(8):
        case 0:
            return {"constant_score": {"filter": parts[0], "boost": rng.choice([0, 1, 9])}}
        case 1:
            return {"boosting": {"positive": parts[0], "negative": parts[-1], "negative_boost": 0}}
        case 2:
            return {"dis_max": {"queries": parts, "tie_breaker": 1}}
        case 3:
            return {"function_score": {"query": parts[0], "boost_mode": "replace"}}
        case 4:
            return {"nested": {"path": rng.choice(["passages", "authors"]), "query": parts[0], "ignore_unmapped": True}}
        case _:
            kinds = ["must", "should", "filter", "must_not"]
            body: dict[str, Any] = {rng.choice(kinds): [part] for part in parts} | {"should": parts}
            return {"bool": body | {"minimum_should_match": rng.choice(LEAST)}}


def test_no_query_dsl_leaves_the_scope(es: Elasticsearch, corpus: Corpus) -> None:
    rng = random.Random(11)
    raws: list[Raw] = [*WIDE, [], *[[wide(rng) for _ in range(rng.randint(1, 3))] for _ in range(150)]]
    raws += [wide(rng) for _ in range(150)]
    asked = [(raw, body) for raw in raws for body in bodies(corpus, None, raw)]
    seen = refused = 0
    for (raw, body), found in zip(asked, answers(es, corpus, [body for _, body in asked]), strict=True):
        if isinstance(found, str):
            refused += 1
            continue
        assert found <= corpus.inside, (raw, body)
        seen += bool(found)
    assert seen > 300
    assert refused < len(asked) / 4


def test_all_three_at_once(es: Elasticsearch, corpus: Corpus) -> None:
    rng = random.Random(12)
    asked: list[dict[str, Any]] = []
    for where in wheres(6, 800, sorted(corpus.fields)):
        try:
            asked += bodies(corpus, where, [wide(rng) for _ in range(2)])
        except FilterError:
            continue
    for body, found in zip(asked, answers(es, corpus, asked), strict=True):
        assert isinstance(found, str) or found <= corpus.inside, body


def test_the_corpus_would_show_it(es: Elasticsearch, corpus: Corpus) -> None:
    without = list(answers(es, corpus, bodies(corpus, None, {"match_all": {}}, scope=None)))
    assert all(len(found) == DOCUMENTS for found in without)
    assert 5 < len(corpus.inside) < DOCUMENTS - 5
    assert list(answers(es, corpus, bodies(corpus, None, None))) == [corpus.inside] * 3


def test_a_scope_that_cannot_be_read_is_an_error_and_no_search_without_it(corpus: Corpus) -> None:
    scopes: list[str | Filter] = ["", "tenant = ", "tenatn = a", "year startswith 2"]
    scopes += [Field(name) == "a" for name in NAMES[:9]]
    for scope in scopes:
        for build in (knn_filter_list, document_filters):
            with pytest.raises(FilterError):
                build(corpus.fields, scope=scope, passages="passages")
