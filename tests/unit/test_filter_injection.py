"""Whatever a hostile filter says, what goes to the server is typed clauses or nothing, and the scope stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from esvector.errors import EsvectorError, FilterError
from esvector.fields import field_types
from esvector.search.filter_scope import document_filters, knn_filter_list
from esvector.search.filters import Comparison, compile_filter, parse
from tests.support.hostile import TEXTS, check_error, check_typed, quoted, wheres

CASES = 12_000

FIELDS = field_types(
    {
        "properties": {
            **{
                kind: {"type": kind} for kind in ("byte", "long", "float", "half_float", "double", "date", "date_nanos")
            },
            **{name: {"type": "keyword"} for name in ("tenant", "venue", "my field")},
            "year": {"type": "integer"},
            "open": {"type": "boolean"},
            "host": {"type": "ip"},
            "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
            "abstract": {"type": "text"},
            "vector": {"type": "dense_vector", "dims": 2},
            "authors": {
                "type": "nested",
                "properties": {
                    "name": {"type": "keyword"},
                    "tenant": {"type": "keyword"},
                    "papers": {
                        "type": "nested",
                        "properties": {"title": {"type": "keyword"}, "year": {"type": "short"}},
                    },
                },
            },
            "passages": {
                "type": "nested",
                "properties": {"tenant": {"type": "keyword"}, "start": {"type": "integer"}, "text": {"type": "text"}},
            },
        }
    }
)
KNOWN = sorted(FIELDS)
SCOPE = {"term": {"tenant": "a"}}


def test_only_typed_clauses_come_out_and_every_error_is_ours() -> None:
    compiled = 0
    for number, where in enumerate(wheres(20261, CASES, KNOWN)):
        try:
            query = compile_filter(where, FIELDS)
        except EsvectorError as error:
            check_error(error, where)
            continue
        except Exception as error:
            raise AssertionError(f"case {number}: {where!r}") from error
        check_typed(query, FIELDS)
        compiled += 1
    assert compiled > CASES / 10


@pytest.mark.parametrize("passages", [None, "passages"])
def test_the_scope_is_an_entry_that_no_filter_reaches(passages: str | None) -> None:
    compiled = 0
    for where in wheres(7, 3000, KNOWN):
        try:
            kept = knn_filter_list(FIELDS, scope="tenant = a", where=where, passages=passages)
            asked = document_filters(FIELDS, scope="tenant = a", where=where, passages=passages)
        except EsvectorError:
            continue
        compiled += 1
        assert (kept[0], asked[0], len(asked)) == (SCOPE, SCOPE, 2)
        for entry in kept + asked:
            check_typed(entry, FIELDS)
    assert compiled > 300


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("field", ["venue", "title", "authors.name"])
def test_a_quoted_text_is_compared_with_as_it_is(field: str, text: str) -> None:
    tree = parse(f"{field} = {quoted(text)}")
    assert isinstance(tree, Comparison)
    try:
        query = compile_filter(f"{field} = {quoted(text)}", FIELDS)
    except FilterError as error:
        if "bytes" in error.remedy or "surrogates" in error.remedy or "ignore_above" in error.remedy:
            return
        raise
    clause = query["nested"]["query"] if "nested" in query else query
    assert clause == {"term": {FIELDS[field].exact: text}}


def test_a_str_that_lies_is_read_once_as_what_it_is() -> None:
    class Lying(str):
        __slots__ = ()

        def encode(self, *_: Any, **__: Any) -> bytes:
            return b""

        def __str__(self) -> str:
            return "b"

    query = compile_filter(Comparison("tenant", "=", Lying("a")), FIELDS)
    assert query == SCOPE
    assert type(query["term"]["tenant"]) is str


def test_the_generator_is_hostile_in_every_way_it_is_meant_to_be() -> None:
    kinds = {type(where).__name__ for where in wheres(1, 500, KNOWN)}
    assert {"str", "Comparison", "Membership", "Prefix", "Exists", "Nested", "And", "Or", "Not"} <= kinds
