"""Query DSL that is passed as it is: what is let through is what is sent, and the rest is an error with its place."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from esvector.errors import FilterError
from esvector.fields import field_types
from esvector.search.filter_raw import MAX_RAW_LEVELS, read_raw
from esvector.search.filters import compile_filter

TERM: dict[str, Any] = {"term": {"lang": "en"}}


def nested(levels: int) -> dict[str, Any]:
    query = TERM
    for _ in range(levels - 1):
        query = {"bool": {"must_not": [query]}}
    return query


def test_queries_pass_unchanged_as_new_objects() -> None:
    given = [TERM, {"bool": {"should": [TERM, {"range": {"year": {"gte": 2020, "lt": 2.5e3}}}], "boost": None}}]
    assert read_raw(given) == given
    assert read_raw(tuple(given)) == given
    assert read_raw(TERM) == [TERM]
    assert (read_raw(None), read_raw([])) == ([], [])
    read = read_raw(TERM)
    read[0]["term"]["lang"] = "fr"
    assert TERM["term"]["lang"] == "en"


def test_values_that_the_client_would_write_as_json() -> None:
    given = {"terms": {"x": (np.int64(1), np.float32(0.5), date(2020, 1, 31), True)}}
    assert read_raw(given) == [{"terms": {"x": [1, 0.5, "2020-01-31", True]}}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("year >= 2020", "filter is a str"),
        (5, "filter is a int"),
        ({}, "filter has 0 keys"),
        ({"term": {}, "range": {}}, "filter has 2 keys (term, range)"),
        ([TERM, {}], "filter[1] has 0 keys"),
        ([TERM, "x"], "filter[1] is a str"),
        ([TERM, [TERM]], "filter[1] is a list"),
        ({"query": TERM}, "begins with 'query', which is no type of query"),
        ({"filter": [TERM]}, "begins with 'filter'"),
        ({"mathc_all": {}}, "begins with 'mathc_all'"),
        ({"lang": "en"}, "begins with 'lang'"),
        ({"match_all": []}, "filter.match_all is not an object"),
        ({"term": {1: 2}}, "filter.term has a key of type int"),
        ({"term": {"a": {1, 2}}}, "filter.term.a is a set"),
        ({"term": {"a": b"x"}}, "filter.term.a is a bytes"),
        ({"term": {"a": 10**5000}}, "filter.term.a is a int"),
        ({"term": {"a": Fraction(10**400)}}, "filter.term.a is a Fraction"),
        ({"term": {"a": object()}}, "filter.term.a is a object"),
        ({"term": {"a": float("nan")}}, "filter.term.a is a float nan"),
        ({"bool": {"must": [TERM, {"term": {"a": "\ud800"}}]}}, "filter.bool.must[1].term.a has a lone surrogate"),
        ({"terms": {"a": ["x"] * 100_001}}, "more than 100,000 values"),
        ({"term": {"a": "x" * 1_000_001}}, "1,000,000 characters"),
        ([{"term": {"a": "x" * 600_000}}] * 2, "filter[1].term.a"),
        ({"nested": {"path": "passages", "query": TERM, "inner_hits": {}}}, "filter.nested has inner_hits"),
        ({"bool": {"must": [{"has_child": {"inner_hits": {"size": 9}}}]}}, "must[0].has_child has inner_hits"),
        ({"wrapper": {"query": base64.b64encode(b'{"match_all":{}}').decode()}}, "has a wrapper"),
        ({"bool": {"should": {"wrapper": {"query": "e30="}}}}, "filter.bool.should has a wrapper"),
    ],
)
def test_what_is_no_query_is_an_error_that_names_the_place(given: Any, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        read_raw(given)
    assert message in caught.value.message
    assert caught.value.remedy
    assert len(caught.value.message) < 500


def test_fields_may_be_called_like_what_is_refused() -> None:
    given: list[dict[str, Any]] = [
        {"term": {"inner_hits": 1}},
        {"term": {"wrapper": "x"}},
        {"range": {"wrapper": {"gte": 1}}},
    ]
    assert read_raw(given) == given


def test_depth_is_bounded_as_that_of_expressions() -> None:
    assert read_raw(nested(MAX_RAW_LEVELS)) == [nested(MAX_RAW_LEVELS)]
    fields = field_types({"properties": {"year": {"type": "integer"}}})
    expression = "year > 1"
    for level in range(23):
        expression = f"(year = 2 {'or' if level % 2 else 'and'} {expression})"
    compiled = compile_filter(expression, fields)
    assert read_raw(compiled) == [compiled]
    lists: Any = []
    for _ in range(10_000):
        lists = [lists]
    for deep in (nested(MAX_RAW_LEVELS + 1), nested(500), {"terms": {"a": lists}}):
        with pytest.raises(FilterError, match="deeper than 24 queries"):
            read_raw(deep)


def test_what_was_looked_at_is_what_is_sent() -> None:
    class Changing(Mapping[str, Any]):
        """Another query each time it is asked."""

        asked = 0

        def __getitem__(self, key: str) -> Any:
            return {"match_all": {}, "term": {"lang": "en"}}[key]

        def __iter__(self) -> Iterator[str]:
            self.asked += 1
            return iter(["term"] if self.asked == 1 else ["match_all", "term", "inner_hits"])

        def __len__(self) -> int:
            return 1

    assert read_raw(Changing()) == [TERM]
