"""Which fields have values to count."""

from __future__ import annotations

import pytest

from esvector.errors import FilterError, UnknownFieldError
from esvector.fields import field_types
from esvector.search.facets import check_facets, facets_body, read_facets

FIELDS = field_types(
    {
        "properties": {
            "title": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
            "abstract": {"type": "text"},
            "year": {"type": "long"},
            "vector": {"type": "dense_vector", "dims": 3},
            "authors": {"type": "nested", "properties": {"name": {"type": "keyword"}}},
        }
    }
)


def test_text_is_counted_by_its_keyword_field() -> None:
    assert check_facets(["title", "year"], FIELDS) == {"title": "title.keyword", "year": "year"}


@pytest.mark.parametrize("name", ["abstract", "vector", "authors", "authors.name"])
def test_what_would_silently_have_no_values_is_refused(name: str) -> None:
    with pytest.raises(FilterError, match=name):
        check_facets([name], FIELDS)


def test_an_unknown_field_is_named_with_those_near() -> None:
    with pytest.raises(UnknownFieldError, match="year"):
        check_facets(["yaer"], FIELDS)


def test_counts_come_back_under_the_names_that_were_asked_for() -> None:
    counted = {"a field with > and [": "a field with > and ["}
    body = facets_body(counted, [{"term": {"lang": "en"}}])
    assert body["query"] == {"bool": {"filter": [{"term": {"lang": "en"}}]}}
    (name,) = body["aggs"]
    buckets = [{"key": 1, "key_as_string": "true", "doc_count": 3}, {"key": 7, "doc_count": 2}]
    answer = {"aggregations": {name: {"buckets": buckets, "sum_other_doc_count": 4}}}
    (facet,) = read_facets(counted, answer).values()
    assert (facet.values, facet.others) == ({"true": 3, 7: 2}, 4)
