"""Filters that somebody wrote to see more than they may, and what must be true of whatever is made of them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from esvector.errors import EsvectorError
from esvector.fields import FieldType
from esvector.search.filters import (
    And,
    Comparison,
    Exists,
    Field,
    Filter,
    Literal,
    Membership,
    Nested,
    Not,
    Or,
    Prefix,
)

# Names that mean something to Elasticsearch, to a language, or to whoever puts texts together.
# fmt: off
NAMES = [
    "*", "_all", "_id", "_source", "_index", "_nested_path", "_field_names", "_routing", "tenan*", "tenant.*",
    "__proto__", "constructor", "prototype", "$where", "tenant\x00", "tenant ", " tenant", "TENANT", "ten\u200bant",
    "\u202etnanet", "tenant\ud800", "teńant", "", ".", "..", "tenant.", ".tenant", "tenant.keyword.keyword",
    "tenant'", 'tenant"', "tenant`", "tenant\\", "tenant)", "(tenant", "tenant:b", "tenant^2", "{}",
    '{"match_all":{}}', "bool", "should", "query", "and", "or", "not", "any", "tenant=b", "x" * 5000, "authors",
    "authors.*", "passages", "papers.title", "authors.papers", "../tenant", "${tenant}", "{{tenant}}", "vector",
    "%74enant", "\n",
]
# fmt: on

# Texts that mean something to a parser, a pattern, a serializer or a number.
# fmt: off
TEXTS = [
    "*", "?", "a*", ".*", "[a-z]+", "a|b", "~a", "@", "#", "&", "<1-9>", "*:*", "tenant:b", "tenant:(a OR b)",
    "+tenant:b", "a OR tenant:b", "b~2", "a^9", "NOT a", "_exists_:tenant", "b' or tenant = 'b", "' or ''='",
    "') or (tenant = 'b", 'b" or tenant = "b', '"}}', '"}},{"match_all":{}}', '{"match_all":{}}',
    '{"query":{"match_all":{}}}', "[]", "{}", '["a","b"]', "b\\", "\\", "\\'", "\\u0022", "\\\\'", "a\x00b", "\x00",
    "a\nb", "a\r\nb", "\u2028", "\u202eb", "\u200b", "\ufeffa", "\ud800", "\udfff\ud800", "a\udc00", "é", "é", "ﬀ",
    "İ", "😀", "null", "NULL", "undefined", "true", "False", "NaN", "Infinity", "-Infinity", "1e999999999",
    "-1e999999999", "1e-999999999", "9" * 5000, "0x1f", "0b1", "1_000", "\uff11\uff12\uff13", "1,5", "--1", "+-1",
    "9223372036854775808", "-9223372036854775809", "1e400", ".", "1e", "0" * 400 + "1", "now", "now-1d", "now/d",
    "now/d/d", "now-1d/d", "now+999999999y", "now-1", "now-1dd", "now||/d", "2020-01-01||+1M", "now-1d||", "now/x",
    "now\n-1d", "2020-13-01", "9999-12-31T23:59:59.999Z", "10000-01-01", "-2020-01-01", "0000", "10.0.0.0/8",
    "0.0.0.0/0", "::/0", "10.0.0.1/33", "1.2.3", "::ffff:0:0/0", "fe80::1%eth0", "10.0.0.0/-1", "a" * 40_000, "", " ",
    "a", "b", "A", "../../b", "${b}", "{{b}}", "<script>", "';--", "1; DROP", "%27", "b%00", "a'/**/or/**/'", "`",
]
# fmt: on

# fmt: off
_PIECES = [
    "and", "or", "not", "in", "any", "exists", "missing", "startswith", "has all", "=", "==", "!=", "<", ">=", "(",
    ")", ",", "'", '"', "`", "\\", "tenant", "authors", "name", "venue", "year", "1", "'b'", "*", "&&", "||", ":",
    "{", "}", "match_all", "--", "#", "/*", "$", "%", "~", "null", "now/d", "\x00", "\u202e", "\ud800", "\n", "'",
    "(",
]
# fmt: on

_NO_TEXTS: list[Any] = [None, {}, 1, b"a"]
_VALUES: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.choice(TEXTS),
    lambda rng: rng.choice(TEXTS) + rng.choice(TEXTS)[:50],
    lambda rng: Literal(rng.choice(TEXTS), rng.choice([None, -1, 10**9])),
    lambda rng: rng.choice(
        [
            0,
            -1,
            2**31,
            2**63,
            -(2**63) - 1,
            10**400,
            10**5000,
            Fraction(10**400),
            True,
            False,
            0.1,
            -0.0,
            math.inf,
            math.nan,
        ]
    ),
    lambda rng: rng.choice([Decimal("NaN"), Decimal("1e999999"), np.float32(1.5), np.int64(3), np.bool_(True)]),
    lambda rng: rng.choice([date(2020, 1, 1), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31)]),
    lambda rng: rng.choice([None, b"b", {"$ne": "a"}, {"match_all": {}}, ["a", "b"], ("b",), {"b"}, object()]),
    lambda rng: Literal(rng.choice(_NO_TEXTS)),
    lambda rng: rng.choice([Field("tenant"), Comparison("tenant", "=", "b"), Exists("tenant"), type, len]),
]


def quoted(text: str) -> str:
    """``text`` as a careful application writes it into an expression."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def value(rng: random.Random) -> Any:
    return rng.choice(_VALUES)(rng)


def name(rng: random.Random, known: list[str]) -> str:
    return rng.choice(known) if rng.random() < 0.7 else rng.choice(NAMES)


def tree(rng: random.Random, known: list[str], depth: int = 3) -> Filter:
    """A tree as it may be built by hand: hostile names and values, and parts that are no filters at all."""
    match rng.randrange(14 if depth else 7):
        case 0:
            return Prefix(name(rng, known), value(rng))
        case 1:
            return Exists(name(rng, known))
        case 2:
            return Membership(name(rng, known), tuple(value(rng) for _ in range(rng.randrange(4))))
        case 3:
            return Comparison(name(rng, known), rng.choice(["~", "like", "", "or", ">", "$ne"]), value(rng))
        case 4 | 5 | 6:
            return Comparison(name(rng, known), rng.choice(["=", "=", "!=", "<", "<=", ">", ">="]), value(rng))
        case 7:
            return Nested(rng.choice(["authors", "authors.papers", "papers", *NAMES]), tree(rng, known, depth - 1))
        case 8 | 9:
            return Not(tree(rng, known, depth - 1))
        case 10 | 11:
            return And(tuple(_part(rng, known, depth) for _ in range(rng.randrange(4))))
        case _:
            return Or(tuple(_part(rng, known, depth) for _ in range(rng.randrange(1, 4))))


def _part(rng: random.Random, known: list[str], depth: int) -> Any:
    return value(rng) if rng.random() < 0.05 else tree(rng, known, depth - 1)


def expression(rng: random.Random, known: list[str]) -> str:
    """A text that somebody put together: carefully, carelessly, or of pieces of the language."""
    field, text = name(rng, known), rng.choice(TEXTS)
    match rng.randrange(8):
        case 0:
            return f"{field} = {quoted(text)}"
        case 1:
            return f"{field} = '{text}'"
        case 2:
            return f'{field} {rng.choice(["!=", "startswith", ">", "not startswith"])} "{text}"'
        case 3:
            return f"`{field}` in ({quoted(text)}, {rng.choice(TEXTS)})"
        case 4:
            return f"any {field} ({rng.choice(['name', 'tenant', text])} = {quoted(text)}) or {field} {text}"
        case 5:
            return f"{field}{text}{rng.choice(_PIECES)} {rng.choice(TEXTS)}"
        case 6:
            return " ".join(rng.choice([*_PIECES, *TEXTS]) for _ in range(rng.randrange(1, 12)))
        case _:
            return "venue = 'x' " + "".join(rng.choice([*_PIECES, " "]) for _ in range(rng.randrange(1, 12)))


def wheres(seed: int, count: int, known: list[str]) -> Iterator[str | Filter]:
    rng = random.Random(seed)
    for _ in range(count):
        yield expression(rng, known) if rng.random() < 0.5 else tree(rng, known)


_SCALARS = (str, int, float, bool)
_BOUNDS = {"gt", "gte", "lt", "lte", "format"}


def check_typed(query: Any, fields: Mapping[str, FieldType]) -> None:
    """``query`` is nothing but typed clauses on fields of the mapping, with one JSON value where a value belongs."""
    known = {each for field in fields.values() for each in (field.name, field.exact)}
    nested = {field.name for field in fields.values() if field.type == "nested"}
    waiting = [query]
    while waiting:
        ((kind, body),) = waiting.pop().items()
        match kind:
            case "bool":
                assert set(body) <= {"filter", "must_not", "should", "minimum_should_match"}
                assert body.get("minimum_should_match", 1) == 1
                assert ("should" in body) == ("minimum_should_match" in body)
                for part in ("filter", "must_not", "should"):
                    assert isinstance(body.get(part, []), list)
                    waiting += body.get(part, [])
            case "nested":
                assert set(body) == {"path", "query"}
                assert body["path"] in nested
                waiting.append(body["query"])
            case "exists":
                assert set(body) == {"field"}
                assert body["field"] in known
            case "match_none":
                assert body == {}
            case "term" | "terms" | "range" | "prefix":
                ((field, content),) = body.items()
                assert field in known or body == {"_nested_path": "passages"}
                _check_content(kind, content)
            case _:
                raise AssertionError(f"a clause of type {kind}")
    # What the client sends: one JSON text, which says the same when it is read again.
    assert json.loads(json.dumps(query, allow_nan=False, ensure_ascii=False).encode()) == query


def _check_content(kind: str, content: Any) -> None:
    match kind:
        case "range":
            assert set(content) <= _BOUNDS
            assert all(type(bound) in _SCALARS for bound in content.values())
        case "terms":
            assert isinstance(content, list)
            assert all(type(each) in _SCALARS for each in content)
        case "prefix":
            assert set(content) == {"value"}
            assert type(content["value"]) is str
        case _:
            assert type(content) in _SCALARS


def check_error(error: EsvectorError, where: object) -> None:
    """It says what, what to do, and of an expression where."""
    assert error.message
    assert error.remedy
    assert len(str(error)) < 2000
    position = getattr(error, "position", None)
    if isinstance(where, str):
        assert position is None or 0 <= position <= len(where)
        assert position is not None or "conditions" in error.message
