from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from esvector.errors import FilterError, UnknownFieldError
from esvector.fields import field_types
from esvector.search.filters import (
    And,
    Comparison,
    Filter,
    Literal,
    Membership,
    Nested,
    Not,
    Or,
    Value,
    compile_filter,
    to_query,
)

KEYWORD = {"type": "keyword", "ignore_above": 10}
FIELDS = field_types(
    {
        "properties": {
            **{
                kind: {"type": kind}
                for kind in ("byte", "long", "float", "half_float", "double", "ip", "geo_point", "binary")
            },
            **{name: {"type": "keyword"} for name in ("venue", "kind", "lang", "doi", "zip")},
            "year": {"type": "integer"},
            "page count": {"type": "integer"},
            "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
            "short": {"type": "text", "fields": {"keyword": KEYWORD}},
            "abstract": {"type": "text"},
            "deprecated": {"type": "boolean"},
            "published": {"type": "date", "format": "dd/MM/yyyy"},
            "seen": {"type": "date_nanos"},
            "host": {"type": "alias", "path": "ip"},
            "meta": {"properties": {"source": {"type": "keyword"}, "n": {"type": "short"}}},
            "passages": {"type": "nested", "properties": {"text": {"type": "text"}}},
            "authors": {
                "type": "nested",
                "properties": {
                    "name": {"type": "keyword"},
                    "born": {"type": "date"},
                    "at": {"properties": {"country": {"type": "keyword"}}},
                    "papers": {"type": "nested", "properties": {"title": {"type": "keyword"}, "n": {"type": "byte"}}},
                },
            },
            "stored": {"type": "keyword", "index": False, "doc_values": False},
            "vector": {"type": "dense_vector", "dims": 3},
        }
    }
)
ISO = {"format": "strict_date_optional_time_nanos"}


def query(expression: str) -> dict[str, Any]:
    return compile_filter(expression, FIELDS)


def equal(field: str, text: Value) -> Comparison:
    return Comparison(field, "=", Literal(text) if isinstance(text, str) else text)


def test_an_error_of_the_mapping_has_a_caret_too() -> None:
    with pytest.raises(FilterError) as caught:
        query("year >= 2020 and year < twenty")
    assert caught.value.position == 24
    assert caught.value.message.splitlines()[1:] == ["  year >= 2020 and year < twenty", "  " + " " * 24 + "^"]


def test_a_long_expression_is_shown_around_the_place() -> None:
    with pytest.raises(FilterError) as caught:
        query("a = 1 or " * 40 + "year = x" + " or a = 1" * 40)
    _, line, caret = caught.value.message.splitlines()
    assert line[caret.index("^") :].startswith("a = 1")
    assert len(line) < 120


def test_limits_of_a_query() -> None:
    tree: Filter = equal("year", 1)
    for level in range(24):
        tree = Or((tree, equal("year", level))) if level % 2 else And((tree, equal("year", level)))
    with pytest.raises(FilterError, match="more than 24 levels"):
        to_query(tree, FIELDS)
    for _ in range(10_000):
        tree = And((tree, equal("year", 1)))
    with pytest.raises(FilterError, match="more than 24 levels"):
        to_query(tree, FIELDS)
    chain: Filter = equal("year", 1)
    for _ in range(998):
        chain = Or((chain, Not(Not(equal("year", 1)))))
    assert len(to_query(Or((chain, equal("year", 1))), FIELDS)["bool"]["should"]) == 1000
    with pytest.raises(FilterError, match="1,001 conditions"):
        to_query(Or((chain, equal("year", 1), equal("year", 1))), FIELDS)
    with pytest.raises(FilterError, match="1,001 conditions"):
        to_query(Membership("published", tuple(f"{year:04d}" for year in range(1000, 2001))), FIELDS)
    with pytest.raises(FilterError, match="10,001 values"):
        to_query(Membership("venue", tuple(map(str, range(10_001)))), FIELDS)


def between(field: str, first: str, last: str) -> dict[str, Any]:
    return {"range": {field: {"gte": first, "lte": last, **ISO}}}


NONE: dict[str, Any] = {"match_none": {}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("year >= 2020", {"range": {"year": {"gte": 2020}}}),
        ("year = 2020.0", {"term": {"year": 2020}}),
        ("year = '2020'", {"term": {"year": 2020}}),
        ("year = 2.02e3", {"term": {"year": 2020}}),
        ("year in (2020, 2021, 2020, 2020.5)", {"terms": {"year": [2020, 2021]}}),
        ("year = 2019.5", NONE),
        ("year > 2019.5", {"range": {"year": {"gt": 2019}}}),
        ("year >= 2019.5", {"range": {"year": {"gte": 2020}}}),
        ("year < -0.5", {"range": {"year": {"lt": 0}}}),
        ("year <= -0.5", {"range": {"year": {"lte": -1}}}),
        ("byte = 300", NONE),
        ("byte > 127", NONE),
        ("byte >= 127", {"range": {"byte": {"gte": 127}}}),
        ("byte <= 127", {"exists": {"field": "byte"}}),
        ("byte < 1e999999999", {"exists": {"field": "byte"}}),
        ("long > 9223372036854775806.5", {"range": {"long": {"gt": 9223372036854775806}}}),
        ("long = 9223372036854775807", {"term": {"long": 9223372036854775807}}),
        ("long < -1e30", NONE),
        ("float = 0.1", {"term": {"float": 0.10000000149011612}}),
        ("float > 0.1", {"range": {"float": {"gt": 0.10000000149011612}}}),
        ("float < 1e39", {"exists": {"field": "float"}}),
        ("half_float = 0.1", {"term": {"half_float": 0.0999755859375}}),
        ("half_float = 65519", {"term": {"half_float": 65504.0}}),
        ("half_float >= 65520", NONE),
        ("double = 0.1", {"term": {"double": 0.1}}),
        ("double > 1e400", NONE),
        ("deprecated = TRUE", {"term": {"deprecated": True}}),
        ("deprecated in (true, false)", {"terms": {"deprecated": [True, False]}}),
        ("zip = 02139", {"term": {"zip": "02139"}}),
        ("zip = 1e3", {"term": {"zip": "1e3"}}),
        ("venue > 'é'", {"range": {"venue": {"gt": "é"}}}),
        ("title = x", {"term": {"title.keyword": "x"}}),
        ("exists title", {"exists": {"field": "title"}}),
        ("exists vector", {"exists": {"field": "vector"}}),
        ("exists geo_point", {"exists": {"field": "geo_point"}}),
        ("host = 10.1.2.3/8", {"term": {"ip": "10.0.0.0/8"}}),
        ("host in (::1, ::ffff:10.0.0.0/104)", {"terms": {"ip": ["::1", "10.0.0.0/8"]}}),
        ("ip >= 10.0.0.1", {"range": {"ip": {"gte": "10.0.0.1"}}}),
        ("published = 2020-01-01", between("published", "2020-01-01T00:00:00.000Z", "2020-01-01T23:59:59.999Z")),
        ("published = 2020-02", between("published", "2020-02-01T00:00:00.000Z", "2020-02-29T23:59:59.999Z")),
        ("published = 9999", between("published", "9999-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z")),
        ("published > 2020", {"range": {"published": {"gt": "2020-12-31T23:59:59.999Z", **ISO}}}),
        ("published <= 2020", {"range": {"published": {"lte": "2020-12-31T23:59:59.999Z", **ISO}}}),
        ("published < 2020", {"range": {"published": {"lt": "2020-01-01T00:00:00.000Z", **ISO}}}),
        ("published >= 2020", {"range": {"published": {"gte": "2020-01-01T00:00:00.000Z", **ISO}}}),
        ("published >= 2020-01-01T01:30+02:00", {"range": {"published": {"gte": "2019-12-31T23:30:00.000Z", **ISO}}}),
        (
            "published >= '2020-01-01 01:30:00.0001'",
            {"range": {"published": {"gte": "2020-01-01T01:30:00.001Z", **ISO}}},
        ),
        ("published = 2020-01-01T00:00:00.0001", NONE),
        ("published < 1969-12-31T23:59:59.9Z", {"range": {"published": {"lt": "1969-12-31T23:59:59.900Z", **ISO}}}),
        ("seen = 1970-01-01", between("seen", "1970-01-01T00:00:00.000000000Z", "1970-01-01T23:59:59.999999999Z")),
        ("seen = 2262", between("seen", "2262-01-01T00:00:00.000000000Z", "2262-04-11T23:47:16.854775807Z")),
        ("seen > 1969", {"exists": {"field": "seen"}}),
        ("seen in (1960, 2300)", NONE),
    ],
)
def test_one_condition(expression: str, expected: dict[str, Any]) -> None:
    assert query(expression) == expected


def dated(field: str, **bounds: str) -> dict[str, Any]:
    return {"range": {field: {**bounds, **ISO}}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("published >= now-30d", dated("published", gte="now-30d")),
        ("published < now-1M-12h", dated("published", lt="now-1M-12h")),
        ("published > now", dated("published", gt="now")),
        ("published <= 'now+1H'", dated("published", lte="now+1H")),
        ("published = now-1d", dated("published", gte="now-1d", lte="now-1d")),
        # The server rounds every bound down, whatever the comparison: the end of a unit is the start of the next.
        ("published >= now-1M/M", dated("published", gte="now-1M/M")),
        ("published < now-1M/M", dated("published", lt="now-1M/M")),
        ("published > now-1M/M", dated("published", gte="now-1M/M+1M")),
        ("published <= now-1M/M", dated("published", lt="now-1M/M+1M")),
        ("published = now/d", dated("published", gte="now/d", lt="now/d+1d")),
        ("seen = now-1w/w", dated("seen", gte="now-1w/w", lt="now-1w/w+1w")),
        ("zip = now-1d", {"term": {"zip": "now-1d"}}),
    ],
)
def test_date_math(expression: str, expected: dict[str, Any]) -> None:
    assert query(expression) == expected


def test_date_math_in_a_list_and_negated() -> None:
    month, today = dated("published", gte="now/M", lt="now/M+1M"), dated("published", gte="now/d", lt="now/d+1d")
    assert query("published in (now/M, now/d)")["bool"]["should"] == [month, today]
    assert query("published != now/d") == {"bool": {"must_not": [today]}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("venue startswith 'neur*'", {"prefix": {"venue": {"value": "neur*"}}}),
        ("title startswith Neur", {"prefix": {"title.keyword": {"value": "Neur"}}}),
        ("venue not startswith x", {"bool": {"must_not": [{"prefix": {"venue": {"value": "x"}}}]}}),
        ("venue has all (a, b)", {"bool": {"filter": [{"term": {"venue": "a"}}, {"term": {"venue": "b"}}]}}),
        ("year has all (2020)", {"term": {"year": 2020}}),
        ("year has all (2020, 2020.5)", {"bool": {"filter": [{"term": {"year": 2020}}, NONE]}}),
    ],
)
def test_prefixes_and_lists_of_all(expression: str, expected: dict[str, Any]) -> None:
    assert query(expression) == expected


def of(path: str, clause: dict[str, Any]) -> dict[str, Any]:
    return {"nested": {"path": path, "query": clause}}


NAME, DE = {"term": {"authors.name": "X"}}, {"term": {"authors.at.country": "de"}}
ONE, PAPER = {"term": {"authors.papers.n": 1}}, "authors.papers"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("authors.name = X", of("authors", NAME)),
        ("authors.name != X", {"bool": {"must_not": [of("authors", NAME)]}}),
        (
            "authors.name = X and authors.at.country = de",
            {"bool": {"filter": [of("authors", NAME), of("authors", DE)]}},
        ),
        ("any authors (name = X and at.country = de)", of("authors", {"bool": {"filter": [NAME, DE]}})),
        ("any authors (name != X)", of("authors", {"bool": {"must_not": [NAME]}})),
        ("not any authors (name = X)", {"bool": {"must_not": [of("authors", NAME)]}}),
        ("authors.papers.n = 1", of(PAPER, ONE)),
        ("any authors (name = X and papers.n = 1)", of("authors", {"bool": {"filter": [NAME, of(PAPER, ONE)]}})),
        ("any authors (any papers (n = 1))", of("authors", of(PAPER, ONE))),
        ("any authors.papers (n = 1)", of(PAPER, ONE)),
        ("ANY `authors` (exists born)", of("authors", {"exists": {"field": "authors.born"}})),
        ("missing authors.born", {"bool": {"must_not": [of("authors", {"exists": {"field": "authors.born"}})]}}),
        ("exists authors", of("authors", {"bool": {"must_not": [NONE]}})),
        ("missing authors", {"bool": {"must_not": [of("authors", {"bool": {"must_not": [NONE]}})]}}),
        ("authors.born = now/d", of("authors", dated("authors.born", gte="now/d", lt="now/d+1d"))),
    ],
)
def test_nested_objects(expression: str, expected: dict[str, Any]) -> None:
    assert query(expression) == expected


def test_levels_and_conditions_inside_nested_objects_count() -> None:
    deep: Filter = equal("n", 1)
    for level in range(21):
        deep = Or((deep, equal("n", level))) if level % 2 else And((deep, equal("n", level)))
    to_query(Nested("authors", Nested("papers", deep)), FIELDS)
    with pytest.raises(FilterError, match="more than 24 levels"):
        to_query(Nested("authors", Nested("papers", Or((deep, equal("n", 1))))), FIELDS)
    wide = Or(tuple(equal("name", str(n)) for n in range(1001)))
    with pytest.raises(FilterError, match="1,001 conditions"):
        to_query(Nested("authors", wide), FIELDS)


def test_zero_covers_both_zeros() -> None:
    # Compared as JSON, since 0.0 == -0.0.
    assert json.dumps(query("double = -0")["range"]) == '{"double": {"gte": -0.0, "lte": 0.0}}'
    assert json.dumps(query("float < 0")["range"]) == '{"float": {"lt": -0.0}}'
    assert json.dumps(query("half_float > 0")["range"]) == '{"half_float": {"gt": 0.0}}'
    assert query("double in (0, 1)")["bool"]["should"][0] == {"term": {"double": 1.0}}


YEAR, VENUE, DOI = {"term": {"year": 1}}, {"term": {"venue": "x"}}, {"exists": {"field": "doi"}}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("year = 1 and venue = x and exists doi", {"filter": [YEAR, VENUE, DOI]}),
        ("year = 1 and not venue = x and missing doi", {"filter": [YEAR], "must_not": [VENUE, DOI]}),
        ("year = 1 and venue != x", {"filter": [YEAR], "must_not": [VENUE]}),
        ("year = 1 and not (venue = x or exists doi)", {"filter": [YEAR], "must_not": [VENUE, DOI]}),
        ("year = 1 and not missing doi", {"filter": [YEAR, DOI]}),
        ("year = 1 or venue = x", {"should": [YEAR, VENUE], "minimum_should_match": 1}),
        ("year = 1 or venue != x", {"should": [YEAR, {"bool": {"must_not": [VENUE]}}], "minimum_should_match": 1}),
        ("venue != x", {"must_not": [VENUE]}),
        ("venue not in (x, y)", {"must_not": [{"terms": {"venue": ["x", "y"]}}]}),
        ("not (year = 1 and venue = x)", {"must_not": [{"bool": {"filter": [YEAR, VENUE]}}]}),
        ("not (year = 1 or venue = x)", {"must_not": [YEAR, VENUE]}),
        ("year != 2019.5", {"must_not": [NONE]}),
    ],
)
def test_combinations(expression: str, expected: dict[str, Any]) -> None:
    assert query(expression) == {"bool": expected}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("yaer", "Did you mean year?"),
        ("Title", "Did you mean title?"),
        ("source", "Did you mean meta.source"),
        ("titel", "Did you mean title?"),
        ("qqq", "Fields to compare: byte, long,"),
    ],
)
def test_an_unknown_field_lists_near_names(name: str, near: str) -> None:
    for expression in (f"{name} = 1", f"{name} in (1)", f"exists {name}"):
        with pytest.raises(UnknownFieldError, match=f"no field '{name}'") as caught:
            query(expression)
        assert caught.value.remedy.startswith(near)
        assert caught.value.position == expression.index(name)


@pytest.mark.parametrize(
    ("expression", "position", "message", "remedy"),
    [
        ("year = abc", 7, "'abc' does not fit the field 'year' of type integer", "a number"),
        ("year = nan", 7, "'nan' does not fit", "a number"),
        ("year in (1, x)", 12, "'x' does not fit", "a number"),
        ("year = 1_000", 7, "does not fit", "a number"),
        ("year = 1e9999999999999999999", 7, "does not fit", "exponent"),
        ("double = inf", 9, "'inf' does not fit the field 'double' of type double", "a number"),
        ("deprecated = 1", 13, "'1' does not fit the field 'deprecated' of type boolean", "true or false"),
        ("deprecated > true", 0, "of type boolean, which has no order for >", "="),
        ("title < x", 0, "of type text, which has no order for <", "title.keyword"),
        ("abstract = x", 0, "analysed text, which cannot be compared exactly", "keyword sub-field"),
        ("abstract > x", 0, "analysed text", "keyword sub-field"),
        ("short = 'eleven char'", 8, "does not fit the field 'short' of type text", "at most 10 characters"),
        ("short = 😀😀😀😀😀😀", 8, "does not fit", "at most 10 characters"),
        (f"venue > {'é' * 16_384}", 8, "does not fit", "at most 32,766 bytes"),
        ("ip = 10.0.0", 5, "'10.0.0' does not fit the field 'ip' of type ip", "10.0.0.1"),
        ("ip = fe80::1%eth0", 5, "does not fit", "an address"),
        ("host > 10.0.0.0/8", 7, "does not fit the field 'host'", "a network goes with ="),
        ("published = 2020-02-30", 12, "does not fit", "not in the calendar"),
        ("published = 2020-01-01T24:00", 12, "does not fit", "not in the calendar"),
        ("published = 2020-01-01T00:00+19:00", 12, "does not fit", "not in the calendar"),
        ("published = 0001-01-01T00:00+01:00", 12, "does not fit", "not in the calendar"),
        ("published = 0000", 12, "does not fit", "not in the calendar"),
        ("published = 1577836800000", 12, "does not fit", "a date, like 2020-01-31"),
        ("published = 01/02/2020", 12, "does not fit", "a date, like 2020-01-31"),
        ("published = 2020-1-1", 12, "does not fit", "a date, like 2020-01-31"),
        ("meta = x", 0, "of type object", "meta.source, meta.n"),
        ("exists meta", 7, "of type object", "meta.source, meta.n"),
        ("authors = x", 0, "of type nested", "authors.name"),
        ("authors.at = x", 0, "of type object", "authors.at.country"),
        ("authors.nmae = x", 0, "no field 'authors.nmae'", "authors.name"),
        ("passages.text = x", 0, "analysed text", "keyword sub-field"),
        ("any authors (nmae = x)", 13, "no field 'nmae' inside 'authors'", "Did you mean name?"),
        ("any authors (authors.name = x)", 13, "no field 'authors.name' inside", "named as inside it"),
        ("any authors (year = 1)", 13, "no field 'year' inside 'authors'", "name, born, at.country"),
        ("any authors (any papers (n = x))", 29, "'x' does not fit the field 'n' of type byte", "a number"),
        ("any meta (source = x)", 4, "any needs a nested field, and 'meta' is of type object", "authors.papers"),
        ("any authrs (name = x)", 4, "no field 'authrs'", "Did you mean authors"),
        ("year startswith 20", 0, "of type integer, whose values have no beginning", "keyword"),
        ("abstract startswith x", 0, "analysed text", "keyword sub-field"),
        (f"venue startswith {'x' * 1001}", 17, "does not fit", "a beginning of at most 1,000 characters"),
        ("short startswith 'eleven char'", 17, "does not fit", "at most 10 characters"),
        ("published >= now-30x", 13, "'now-30x' does not fit the field 'published' of type date", "now-1M/M"),
        ("published >= NOW", 13, "does not fit", "now-1M/M"),
        ("published >= now/d-1d", 13, "does not fit", "the rounding last"),
        ("published >= now||/d", 16, "found '||/d'", "and, or"),
        ("published in (now-1d, now-d)", 22, "does not fit", "now-1M/M"),
        ("published >= now-\u0661d", 13, "does not fit", "now-1M/M"),
        ("published >= now-9999y", 13, "does not fit", "5,000 years before now"),
        ("seen >= now-51y", 8, "does not fit", "50 years before now"),
        ("seen < now+150y+51y", 7, "does not fit", "200 years after it"),
        ("year >= now", 8, "'now' does not fit the field 'year' of type integer", "a number"),
        ("vector = 1", 0, "of type dense_vector, which a filter cannot compare", "`exists` works"),
        ("geo_point = 1", 0, "of type geo_point, which a filter cannot compare", "keyword"),
        ("exists binary", 7, "of type binary", "Query DSL"),
        ("stored = x", 0, "is not searchable", "index"),
        ("exists stored", 7, "is not searchable", "index"),
    ],
)
def test_what_the_mapping_does_not_allow(expression: str, position: int, message: str, remedy: str) -> None:
    with pytest.raises(FilterError, match=re.escape(message)) as caught:
        query(expression)
    assert caught.value.position == position
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("year", 2020, "2020"),
        ("year", np.int64(2020), "2020"),
        ("double", 0.1, "0.1"),
        ("double", np.float64(0.1), "0.1"),
        ("double", Decimal("0.1"), "0.1"),
        ("deprecated", True, "true"),
        ("zip", True, "true"),
        ("published", date(2020, 1, 1), "2020-01-01"),
        ("published", datetime(2020, 1, 1), "2020-01-01T00:00:00"),
        ("seen", datetime(2020, 1, 1, 2, 3, 4, 5, UTC), "2020-01-01T02:03:04.000005Z"),
        ("venue", "a' or year = '1", r"'a\' or year = \'1'"),
    ],
)
def test_python_values_mean_what_their_text_means(field: str, value: Value, same: str) -> None:
    assert to_query(equal(field, value), FIELDS) == query(f"{field} = {same}")


@pytest.mark.parametrize("value", [None, {"$ne": 1}, ["x"], b"x", object()])
def test_objects_are_never_values(value: Any) -> None:
    with pytest.raises(FilterError, match=f"type {type(value).__name__}"):
        to_query(Comparison("venue", "=", value), FIELDS)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (equal("year", True), "'true' does not fit"),
        (equal("double", float("nan")), "'nan' does not fit"),
        (equal("deprecated", 1), "'1' does not fit"),
        (equal("venue", "\ud800"), "does not fit"),
        (Comparison("year", "~", 1), "'~' is not a comparison"),
        (And(()), "And has no parts"),
        (Or(()), "Or has no parts"),
        (Nested("authors", And(())), "And has no parts"),
        (And(5), "And has no parts"),  # type: ignore[arg-type]
        (And((equal("year", 1), 5)), "a int such as this"),  # type: ignore[arg-type]
        (Comparison({}, "=", 1), "a Comparison such as this"),  # type: ignore[arg-type]
        (Comparison("year", [], 1), "a Comparison such as this"),  # type: ignore[arg-type]
        (Membership("venue", "abc"), "a Membership such as this"),  # type: ignore[arg-type]
        (Nested([], equal("year", 1)), "a Nested such as this"),  # type: ignore[arg-type]
        (Comparison("venue", "=", Literal({})), "of type Literal"),  # type: ignore[arg-type]
        (Not(Or(())), "Or has no parts"),
        (Or((Or(()), equal("year", 1))), "Or has no parts"),
    ],
)
def test_a_tree_that_makes_no_sense(tree: Filter, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        to_query(tree, FIELDS)


def test_a_list_without_values_is_true_for_nothing() -> None:
    assert to_query(Membership("venue", ()), FIELDS) == NONE


@pytest.mark.parametrize("where", [None, {"term": {"year": 1}}, b"year = 1", ["year = 1"]])
def test_what_is_no_filter(where: Any) -> None:
    with pytest.raises(FilterError, match=f"a {type(where).__name__} is not a filter"):
        compile_filter(where, FIELDS)


def test_importing_does_not_load_the_parser() -> None:
    code = "import sys, esvector.search.filters; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
