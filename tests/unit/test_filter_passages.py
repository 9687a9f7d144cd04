"""Which conditions of a filter are about a passage, and which about its document."""

from __future__ import annotations

import re
from typing import Any

import pytest

from esvector import Field
from esvector.errors import FilterError
from esvector.fields import field_types
from esvector.search.filter_passages import document_filter, knn_filters
from esvector.search.filter_scope import document_filters, knn_filter_list


def fields(start: dict[str, Any]) -> Any:
    inside = {
        "lang": {"type": "keyword"},
        "page": {"type": "integer"},
        "day": {"type": "date"},
        "score": {"type": "float", "index": False},
        "start": start,
        "text": {"type": "text", "index": False},
        "names": {"type": "nested", "properties": {"name": {"type": "keyword"}}},
    }
    return field_types(
        {
            "properties": {
                "year": {"type": "integer"},
                "lang": {"type": "keyword"},
                "authors": {"type": "nested", "properties": {"name": {"type": "keyword"}}},
                "passages": {"type": "nested", "properties": inside},
            }
        }
    )


SHIPPED = fields({"type": "integer", "index": False, "doc_values": False})
INDEXED = fields({"type": "integer", "doc_values": False})
EN, P3 = {"term": {"passages.lang": "en"}}, {"term": {"passages.page": 3}}
IN3 = {"range": {"passages.page": {"gte": 3, "lte": 3}}}
YEAR = {"term": {"year": 1}}
STARTS = {"range": {"passages.start": {"gte": 0}}}

TODAY = {"range": {"passages.day": {"gte": "now/d", "format": "strict_date_optional_time_nanos"}}}


DE = {"term": {"passages.lang": "de"}}


def way_out(clause: dict[str, Any]) -> dict[str, Any]:
    """What is asked of documents with a nested query is true for every passage of a hit."""
    return {"bool": {"should": [clause, {"term": {"_nested_path": "passages"}}], "minimum_should_match": 1}}


def of(clause: dict[str, Any]) -> dict[str, Any]:
    return {"nested": {"path": "passages", "query": clause}}


@pytest.mark.parametrize(
    ("where", "inner", "outer"),
    [
        ("year = 1", None, [YEAR]),
        ("passages.lang = en", {"filter": [EN]}, []),
        ("year = 1 and passages.lang = en and passages.lang != de", {"filter": [EN], "must_not": [DE]}, [YEAR]),
        ("passages.lang = en and passages.page != 3", {"filter": [EN], "must_not": [P3]}, []),
        ("not (year = 1 or passages.page = 3) and passages.lang = en", {"filter": [EN], "must_not": [P3]},
         [{"bool": {"must_not": [YEAR]}}]),
        ("passages.lang = en or passages.lang = de",
         {"filter": [{"bool": {"should": [EN, DE], "minimum_should_match": 1}}]}, []),
        ("year = 1 or any passages (lang = en)", None,
         [{"bool": {"should": [YEAR, of(EN)], "minimum_should_match": 1}}]),
        ("not any passages (lang = en)", None, [{"bool": {"must_not": [of(EN)]}}]),
        ("exists passages", None, [of({"bool": {"must_not": [{"match_none": {}}]}})]),
        ("authors.name = X", None, [{"nested": {"path": "authors", "query": {"term": {"authors.name": "X"}}}}]),
    ],
)  # fmt: skip
def test_conditions_are_parted(where: str, inner: dict[str, Any] | None, outer: list[dict[str, Any]]) -> None:
    children = [] if inner is None else [{"bool": inner}]
    entries = [way_out(entry) if "nested" in str(entry) else entry for entry in outer]
    assert knn_filters(where, SHIPPED, "passages") == children + entries
    asked = document_filter(where, SHIPPED, "passages")
    if inner is None:
        assert asked == outer[0]
    elif not outer:
        assert asked == of({"bool": inner})
    else:
        assert of({"bool": inner}) in asked["bool"]["filter"]


@pytest.mark.parametrize(
    ("where", "clause"),
    [
        ("not passages.lang = en", {"filter": [STARTS], "must_not": [EN]}),
        ("passages.lang startswith e", {"filter": [STARTS, {"prefix": {"passages.lang": {"value": "e"}}}]}),
        ("exists passages.lang", {"filter": [STARTS, {"exists": {"field": "passages.lang"}}]}),
        ("passages.day >= now/d", {"filter": [STARTS, TODAY]}),
        ("passages.score = 1", {"filter": [STARTS, {"range": {"passages.score": {"gte": 1.0, "lte": 1.0}}}]}),
        ("passages.lang = en or missing passages.page",
         {"filter": [STARTS, {"bool": {"should": [EN, {"bool": {"must_not": [{"exists": {"field": "passages.page"}}]}}],
                                       "minimum_should_match": 1}}]}),
    ],
)  # fmt: skip
def test_what_elasticsearch_would_take_for_a_condition_on_documents_is_joined_with_one_it_cannot(
    where: str, clause: dict[str, Any]
) -> None:
    assert knn_filters(where, INDEXED, "passages") == [{"bool": clause}]
    with pytest.raises(FilterError, match="cannot tell this condition") as caught:
        knn_filters(where, SHIPPED, "passages")
    assert caught.value.position is not None
    assert "any passages (...)" in caught.value.remedy
    assert document_filter(where, SHIPPED, "passages")["nested"]["path"] == "passages"


def test_numbers_that_are_equal_show_in_a_range() -> None:
    bounds = {"range": {"passages.page": {"gte": 1, "lte": 9}}}
    listed = {"bool": {"filter": [bounds, {"terms": {"passages.page": [3, 9, 1]}}]}}
    either = {"bool": {"should": [EN, IN3], "minimum_should_match": 1}}
    for where, clause in [
        ("passages.page = 3", IN3),
        ("passages.page in (3, 9, 1)", listed),
        ("passages.lang = en or passages.page = 3", either),
    ]:
        assert knn_filters(where, SHIPPED, "passages") == [{"bool": {"filter": [clause]}}]


@pytest.mark.parametrize(
    ("where", "position", "message"),
    [
        ("year = 1 or passages.lang = en", 12, "'passages.lang' is of a passage"),
        ("lang = en and not (year = 1 and passages.page = 1)", 32, "'passages.page' is of a passage"),
        ("passages.names.name = X", 0, "'passages.names.name' is in a nested field inside of 'passages'"),
        ("any passages.names (name = X)", 4, "'passages.names' is in a nested field inside of"),
        ("passages.lnag = en", 0, "no field 'passages.lnag'"),
        ("passages.text = en", 0, "not searchable"),
        ("passages.page = x", 16, "'x' does not fit"),
        ("passages = en", 0, "of type nested"),
    ],
)
def test_what_cannot_be_asked(where: str, position: int, message: str) -> None:
    for asked in (knn_filters, document_filter):
        with pytest.raises(FilterError, match=re.escape(message)) as caught:
            asked(where, INDEXED, "passages")
        assert caught.value.position == position
        assert "^" in caught.value.message


def test_without_passages_of_its_own_an_index_has_ordinary_nested_fields() -> None:
    assert knn_filters("passages.lang = en", SHIPPED) == [of(EN)] == [document_filter("passages.lang = en", SHIPPED)]
    assert knn_filters(None, SHIPPED) == []


def test_scope_filter_and_query_dsl_are_entries_of_their_own() -> None:
    raw = {"bool": {"should": [{"match_all": {}}], "minimum_should_match": 0}}
    wide = (Field("year") == 1) | (Field("lang") == "en")
    for build in (knn_filter_list, document_filters):
        found = build(SHIPPED, scope="lang = a", where=wide, raw=[raw], passages="passages")
        assert found[0] == {"term": {"lang": "a"}}
        assert found[1]["bool"]["minimum_should_match"] == 1
        assert found[2:] == [raw]
        assert build(SHIPPED) == []


def test_a_nested_query_as_query_dsl_gets_the_way_out_of_those_on_documents() -> None:
    raw = [of(EN), {"term": {"year": 1}}]
    assert knn_filter_list(SHIPPED, raw=raw, passages="passages") == [way_out(of(EN)), {"term": {"year": 1}}]
    assert knn_filter_list(SHIPPED, raw=raw) == raw
    assert document_filters(SHIPPED, raw=raw, passages="passages") == raw


@pytest.mark.parametrize(
    "raw",
    [
        {"terms": {"lang": {"index": "other", "id": "1", "path": "lang"}}},
        {"bool": {"must_not": [{"terms": {"lang": {"index": "other", "id": "1", "path": "lang"}}}]}},
        {"more_like_this": {"fields": ["lang"], "like": [{"_index": "other", "_id": "1"}]}},
        {"more_like_this": {"fields": ["lang"], "like": "x", "unlike": {"_id": "1"}}},
        {"percolate": {"field": "q", "index": "other", "id": "1"}},
        {"geo_shape": {"where": {"indexed_shape": {"index": "other", "id": "1"}}}},
        {"knn": {"field": "v", "query_vector_builder": {"lookup": {"index": "other", "id": "1", "path": "v"}}}},
    ],
)
def test_with_a_scope_no_query_reads_a_document_that_may_be_outside_of_it(raw: dict[str, Any]) -> None:
    for build in (knn_filter_list, document_filters):
        assert build(SHIPPED, raw=raw) == [raw]
        with pytest.raises(FilterError, match="reads another document"):
            build(SHIPPED, scope="lang = a", raw=raw)


def test_with_a_scope_lists_and_texts_are_no_lookups() -> None:
    listed = {"terms": {"lang": ["a"], "boost": 2}}
    raw: list[dict[str, Any]] = [listed, {"more_like_this": {"fields": ["lang"], "like": ["a text", "b"]}}]
    assert knn_filter_list(SHIPPED, scope="lang = a", raw=raw)[1:] == raw
