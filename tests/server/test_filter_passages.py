"""Filters of a kNN search on passages: the best passage of those left, against brute force."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector.fields import FieldType, field_types
from esvector.search.filter_passages import document_filter, knn_filters

Raw: TypeAlias = dict[str, Any]
DIMS = 8
DOCUMENTS = 80

INSIDE: dict[str, Any] = {
    "lang": {"type": "keyword"},
    "heading": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
    "page": {"type": "integer"},
    "weight": {"type": "float"},
    "small": {"type": "half_float"},
    "day": {"type": "date"},
    "seen": {"type": "date_nanos"},
    "checked": {"type": "boolean"},
    "host": {"type": "ip"},
    "valued": {"type": "keyword", "index": False},
    "paged": {"type": "long", "index": False},
    "wide": {"type": "long"},
    "short": {"type": "short"},
    "tiny": {"type": "byte"},
    "exact": {"type": "double"},
    "start": {"type": "integer", "doc_values": False},
    "vector": {
        "type": "dense_vector",
        "dims": DIMS,
        "similarity": "cosine",
        "index_options": {"type": "int8_hnsw", "rescore_vector": {"oversample": 2.0}},
    },
}
MAPPINGS: dict[str, Any] = {
    "properties": {
        "year": {"type": "integer"},
        "lang": {"type": "keyword"},
        "authors": {"type": "nested", "properties": {"name": {"type": "keyword"}}},
        "passages": {"type": "nested", "properties": INSIDE},
    }
}

POOLS: dict[str, Sequence[Any]] = {
    "lang": ["en", "de", "fr"],
    "heading": ["Intro", "Results", "In short"],
    "page": [1, 2, 3, 9],
    "weight": [0.5, 1.5],
    "small": [0.5, 1.5],
    "day": ["2020-01-01", "2021-06-01"],
    "seen": ["2020-01-01", "2021-06-01"],
    "checked": [True, False],
    "host": ["10.0.0.1", "10.0.9.1", "192.168.0.1"],
    "valued": ["x", "y"],
    "paged": [1, 2, 3],
    "wide": [1, 2**40],
    "short": [1, 2],
    "tiny": [1, 2],
    "exact": [0.0, 1.5],
}


def documents() -> list[Raw]:
    rng, vectors = random.Random(4), np.random.default_rng(4)
    made: list[Raw] = []
    for number in range(DOCUMENTS):
        passages = []
        for n in range(rng.randint(1, 5)):
            passage: Raw = {"start": 100 * n, "vector": vectors.standard_normal(DIMS).round(4).tolist()}
            for name, pool in POOLS.items():
                if rng.random() < 0.8:
                    passage[name] = rng.choice(pool)
            passages.append(passage)
        authors = [{"name": rng.choice("abc")} for _ in range(rng.randint(0, 2))]
        made.append(
            {"year": 2000 + number % 20, "lang": rng.choice(["en", "de"]), "authors": authors, "passages": passages}
        )
    return made


@dataclass(frozen=True, slots=True)
class Corpus:
    index: str
    documents: list[Raw]
    fields: dict[str, FieldType]


@pytest.fixture(scope="module")
def corpus(es: Elasticsearch) -> Iterator[Corpus]:
    index, made = f"pass-{uuid.uuid4().hex[:12]}", documents()
    es.indices.create(index=index, mappings=MAPPINGS, settings={"number_of_replicas": 0, "number_of_shards": 2})
    try:
        lines = [line for n, each in enumerate(made) for line in ({"index": {"_id": str(n)}}, each)]
        assert not es.bulk(index=index, operations=lines, refresh=True)["errors"]
        yield Corpus(index, made, field_types(MAPPINGS))
    finally:
        es.indices.delete(index=index)


Test: TypeAlias = Callable[[Raw], bool]


def always(_: Raw) -> bool:
    return True


# A filter, what it means for a passage, and what for a document.
CASES: list[tuple[str, Test, Test]] = [
    ("passages.lang = en", lambda p: p.get("lang") == "en", always),
    ("passages.lang != en", lambda p: p.get("lang") != "en", always),
    ("not passages.lang in (en, de)", lambda p: p.get("lang") not in ("en", "de"), always),
    ("passages.lang in (en, de)", lambda p: p.get("lang") in ("en", "de"), always),
    ("passages.lang > de", lambda p: p.get("lang", "") > "de", always),
    ("passages.lang startswith d", lambda p: p.get("lang", "").startswith("d"), always),
    ("passages.heading startswith In", lambda p: p.get("heading", "").startswith("In"), always),
    ("passages.heading = Intro", lambda p: p.get("heading") == "Intro", always),
    ("exists passages.lang", lambda p: "lang" in p, always),
    ("missing passages.lang", lambda p: "lang" not in p, always),
    ("passages.page = 3", lambda p: p.get("page") == 3, always),
    ("passages.page in (1, 9)", lambda p: p.get("page") in (1, 9), always),
    ("passages.page in (1, 3, 7)", lambda p: p.get("page") in (1, 3), always),
    ("passages.page >= 3", lambda p: p.get("page", 0) >= 3, always),
    ("passages.page = 2.5", lambda _: False, always),
    ("passages.page < 1e12", lambda p: "page" in p, always),
    ("passages.weight = 1.5", lambda p: p.get("weight") == 1.5, always),
    ("passages.weight in (0.5, 1.5)", lambda p: "weight" in p, always),
    ("passages.weight > 1", lambda p: p.get("weight", 0) > 1, always),
    ("passages.small = 0.5", lambda p: p.get("small") == 0.5, always),
    ("passages.small in (0.5, 7)", lambda p: p.get("small") == 0.5, always),
    ("passages.small < 1", lambda p: p.get("small", 9) < 1, always),
    ("passages.day = 2020", lambda p: p.get("day", "").startswith("2020"), always),
    ("passages.day in (2020-01-01, 2022)", lambda p: p.get("day") == "2020-01-01", always),
    ("passages.day < now-1d", lambda p: "day" in p, always),
    ("passages.seen > 2020", lambda p: p.get("seen", "") > "2021", always),
    ("passages.seen = now/d", lambda _: False, always),
    ("passages.checked = true", lambda p: p.get("checked") is True, always),
    ("passages.checked in (true, false)", lambda p: "checked" in p, always),
    ("passages.checked != true", lambda p: p.get("checked") is not True, always),
    ("passages.host = 10.0.0.1", lambda p: p.get("host") == "10.0.0.1", always),
    ("passages.host = 10.0.0.0/16", lambda p: p.get("host", "").startswith("10."), always),
    ("passages.host in (10.0.0.1, 192.168.0.0/16)", lambda p: p.get("host", "") in ("10.0.0.1", "192.168.0.1"), always),
    ("passages.host > 10.0.5.0", lambda p: p.get("host", "") in ("10.0.9.1", "192.168.0.1"), always),
    ("passages.valued = x", lambda p: p.get("valued") == "x", always),
    ("passages.valued startswith x", lambda p: p.get("valued") == "x", always),
    ("passages.valued in (x, z)", lambda p: p.get("valued") == "x", always),
    ("passages.paged = 2", lambda p: p.get("paged") == 2, always),
    ("passages.paged in (1, 3)", lambda p: p.get("paged") in (1, 3), always),
    ("passages.paged > 1", lambda p: p.get("paged", 0) > 1, always),
    ("passages.wide = 1", lambda p: p.get("wide") == 1, always),
    ("passages.wide in (1, 5)", lambda p: p.get("wide") == 1, always),
    ("passages.wide > 1", lambda p: p.get("wide", 0) > 1, always),
    ("passages.short = 2", lambda p: p.get("short") == 2, always),
    ("passages.short in (2, 5)", lambda p: p.get("short") == 2, always),
    ("passages.tiny = 2", lambda p: p.get("tiny") == 2, always),
    ("passages.tiny < 2", lambda p: p.get("tiny") == 1, always),
    ("passages.exact = 0", lambda p: p.get("exact") == 0, always),
    ("passages.exact in (0, 1.5)", lambda p: "exact" in p, always),
    ("passages.short = 2 or passages.tiny = 2", lambda p: p.get("short") == 2 or p.get("tiny") == 2, always),
    ("passages.start > 100", lambda p: p["start"] > 100, always),
    ("passages.lang = en and passages.page != 3", lambda p: p.get("lang") == "en" and p.get("page") != 3, always),
    ("passages.lang = en or passages.page = 3", lambda p: p.get("lang") == "en" or p.get("page") == 3, always),
    ("passages.lang = en or missing passages.page", lambda p: p.get("lang") == "en" or "page" not in p, always),
    ("not (passages.lang = en or passages.page = 3)", lambda p: p.get("lang") != "en" and p.get("page") != 3, always),
    ("not (passages.lang = en and passages.page = 3)", lambda p: not (p.get("lang") == "en" and p.get("page") == 3),
     always),
    ("year >= 2010", always, lambda d: d["year"] >= 2010),
    ("year != 2010 and lang = en", always, lambda d: d["year"] != 2010 and d["lang"] == "en"),
    ("not (lang = en or passages.lang = en)", lambda p: p.get("lang") != "en", lambda d: d["lang"] != "en"),
    ("lang = de and passages.lang = en", lambda p: p.get("lang") == "en", lambda d: d["lang"] == "de"),
    ("year < 2010 and missing passages.lang and passages.page = 1",
     lambda p: "lang" not in p and p.get("page") == 1, lambda d: d["year"] < 2010),
    ("any passages (lang = fr)", always, lambda d: any(p.get("lang") == "fr" for p in d["passages"])),
    ("not any passages (lang = fr)", always, lambda d: all(p.get("lang") != "fr" for p in d["passages"])),
    ("year = 2001 or any passages (lang = fr and page = 1)", always,
     lambda d: d["year"] == 2001 or any(p.get("lang") == "fr" and p.get("page") == 1 for p in d["passages"])),
    ("passages.lang = en and any passages (lang = fr)", lambda p: p.get("lang") == "en",
     lambda d: any(p.get("lang") == "fr" for p in d["passages"])),
    ("exists passages and not passages.page in (1, 2)", lambda p: p.get("page") not in (1, 2), always),
    ("authors.name = a", always, lambda d: any(a["name"] == "a" for a in d["authors"])),
    ("missing authors and passages.lang = en", lambda p: p.get("lang") == "en", lambda d: not d["authors"]),
    ("not authors.name = a and year > 2003", always,
     lambda d: d["year"] > 2003 and all(a["name"] != "a" for a in d["authors"])),
    ("year = 1999", always, lambda _: False),
    ("passages.lang = xx", lambda _: False, always),
]  # fmt: skip


def knn(query: Sequence[float] | NDArray[np.float64], filters: list[Raw]) -> Raw:
    inner = {"size": 1, "_source": ["passages.start"]}
    found = {"field": "passages.vector", "query_vector": list(query), "k": DOCUMENTS, "num_candidates": 1000}
    return {"knn": found | {"filter": filters, "inner_hits": inner}, "size": DOCUMENTS, "_source": False}


def best(corpus: Corpus, query: NDArray[np.float64], passage: Test, document: Test) -> dict[str, tuple[float, int]]:
    """The score and the place of the best passage of each document."""
    made = {}
    for number, each in enumerate(corpus.documents):
        kept = [p for p in each["passages"] if document(each) and passage(p)]
        scores = [np.dot(p["vector"], query) / np.linalg.norm(p["vector"]) / np.linalg.norm(query) for p in kept]
        if kept:
            top = int(np.argmax(scores))
            made[str(number)] = ((1 + float(scores[top])) / 2, kept[top]["start"])
    return made


@pytest.mark.parametrize(("where", "passage", "document"), CASES, ids=[case[0] for case in CASES])
def test_the_best_passage_of_those_left(
    es: Elasticsearch, corpus: Corpus, where: str, passage: Test, document: Test
) -> None:
    query = np.random.default_rng(len(where)).standard_normal(DIMS)
    expected = best(corpus, query, passage, document)
    hits = es.search(index=corpus.index, body=knn(query, knn_filters(where, corpus.fields, "passages")))["hits"]["hits"]
    found = {}
    for hit in hits:
        (inner,) = hit["inner_hits"].values()
        (top,) = inner["hits"]["hits"]
        found[hit["_id"]] = (top["_score"], top["_source"]["start"])
    assert {key: place for key, (_, place) in found.items()} == {key: place for key, (_, place) in expected.items()}
    assert [found[key][0] for key in found] == pytest.approx([expected[key][0] for key in found], abs=1e-5)
    # Any other query, such as the count before a search, is about the same documents.
    clause = document_filter(where, corpus.fields, "passages")
    answer = es.search(index=corpus.index, query={"bool": {"filter": [clause]}}, size=DOCUMENTS, source=False)
    assert {hit["_id"] for hit in answer["hits"]["hits"]} == set(expected)


def test_the_cases_are_not_trivial(corpus: Corpus) -> None:
    query = np.ones(DIMS)
    sizes = [len(best(corpus, query, passage, document)) for _, passage, document in CASES]
    assert sum(5 < size < DOCUMENTS for size in sizes) > 30


@pytest.mark.parametrize(
    "lost",
    [
        {"exists": {"field": "passages.lang"}},
        {"prefix": {"passages.lang": {"value": "e"}}},
        {"range": {"passages.lang": {"gte": "e"}}},
        {"term": {"passages.page": 3}},
        {"terms": {"passages.page": [1, 3]}},
        {"range": {"passages.day": {"gte": "1999-01-01"}}},
        {"bool": {"filter": [{"term": {"passages.lang": "en"}}, {"term": {"lang": "en"}}]}},
    ],
)
def test_why_all_this_the_server_finds_nothing_and_says_nothing(es: Elasticsearch, corpus: Corpus, lost: Raw) -> None:
    answer = es.search(index=corpus.index, body=knn([1.0] * DIMS, [lost]))
    assert (answer["hits"]["hits"], answer["_shards"]["failed"]) == ([], 0)


def test_why_all_this_the_server_ignores_a_negation(es: Elasticsearch, corpus: Corpus) -> None:
    ignored = {"bool": {"must_not": [{"exists": {"field": "passages.start"}}]}}
    answer = es.search(index=corpus.index, body=knn([1.0] * DIMS, [ignored]))
    assert len(answer["hits"]["hits"]) == DOCUMENTS


def test_why_all_this_passages_get_lost(es: Elasticsearch, corpus: Corpus) -> None:
    nested = {"nested": {"path": "passages", "query": {"term": {"passages.lang": "fr"}}}}
    hits = es.search(index=corpus.index, body=knn([1.0] * DIMS, [nested]))["hits"]["hits"]
    assert any(not inner["hits"]["hits"] for hit in hits for inner in hit["inner_hits"].values())
