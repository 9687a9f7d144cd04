"""Query DSL that a user passes as it is: looked at, and copied, so that what was looked at is what is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from numbers import Integral, Real
from typing import Any, TypeAlias

from esvector.errors import FilterError

__all__ = ["MAX_RAW_CHARACTERS", "MAX_RAW_LEVELS", "MAX_RAW_VALUES", "Raw", "read_raw", "refuse_lookups"]

Raw: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]

MAX_RAW_LEVELS = 24
MAX_RAW_VALUES = 100_000
MAX_RAW_CHARACTERS = 1_000_000
# A query inside a query is an object in an object, and the innermost one holds up to three: range, field, bounds.
_OBJECTS_DEEP = 2 * MAX_RAW_LEVELS + 1

# Of Elasticsearch 9.5. Not `wrapper`, which hides a query in base64, nor `pinned` and `rule`, which are no conditions.
# fmt: off
_QUERIES = frozenset({
     "bool", "boosting", "combined_fields", "constant_score", "dis_max", "distance_feature", "exists",
     "field_masking_span", "function_score", "fuzzy", "geo_bounding_box", "geo_distance", "geo_grid", "geo_polygon",
     "geo_shape", "has_child", "has_parent", "ids", "intervals", "knn", "match", "match_all", "match_bool_prefix",
     "match_none", "match_phrase", "match_phrase_prefix", "more_like_this", "multi_match", "nested", "parent_id",
     "percolate", "prefix", "query_string", "range", "rank_feature", "regexp", "script", "script_score", "semantic",
     "shape", "simple_query_string", "span_containing", "span_first", "span_multi", "span_near", "span_not", "span_or",
     "span_term", "span_within", "sparse_vector", "term", "terms", "terms_set", "weighted_tokens", "wildcard",
})
# fmt: on


def read_raw(given: Raw | None) -> list[dict[str, Any]]:
    """``given`` as a list of queries that have to be true together; none for None.

    Each is a new object of plain JSON values. Raises FilterError, which names the place, for what is no query, is
    deeper than MAX_RAW_LEVELS queries or larger than MAX_RAW_VALUES values, or holds what is no JSON.
    """
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [_query(given, "filter", _Budget())]
    anything: object = given  # a str is a sequence, too
    if isinstance(anything, str | bytes) or not isinstance(given, Sequence):
        raise FilterError(
            f"filter is a {type(given).__name__}, but Query DSL is an object or a list of objects",
            "An expression goes into where; Query DSL looks like {'term': {'lang': 'en'}}.",
        )
    budget = _Budget()
    return [_query(query, f"filter[{n}]", budget) for n, query in enumerate(given)]


def refuse_lookups(queries: Sequence[Mapping[str, Any]]) -> None:
    """Raise FilterError where one of ``queries``, as ``read_raw`` gives them, reads another document than it matches.

    Such a query finds nothing outside a scope, but which documents it finds tells what is in one that is.
    """
    waiting: list[Any] = list(queries)
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            found = next((key for key, value in node.items() if _is_lookup(key, value)), None)
            if found is not None:
                raise FilterError(
                    f"the filter has {found} that reads another document, which a search with a scope does not do",
                    "Give the values or the text itself.",
                )


def _is_lookup(key: str, value: object) -> bool:
    match key, value:
        case "terms", dict():
            return any(isinstance(each, dict) for each in value.values())
        case "more_like_this", dict():
            return any(isinstance(each, dict) for name in ("like", "unlike") for each in _listing(value.get(name)))
        case ("percolate", {"id": _}) | ("indexed_shape", dict()) | ("query_vector_builder", dict()):
            return True
    return False


def _listing(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Budget:
    """How many values and characters the rest may still have."""

    def __init__(self) -> None:
        self.values = MAX_RAW_VALUES
        self.characters = MAX_RAW_CHARACTERS

    def spend(self, path: str, characters: int = 0) -> None:
        self.values -= 1
        self.characters -= characters
        if self.values < 0 or self.characters < 0:
            raise FilterError(
                f"{path}: the filter has more than {MAX_RAW_VALUES:,} values or {MAX_RAW_CHARACTERS:,} characters",
                "Ask for less at once.",
            )


def _query(given: object, path: str, budget: _Budget) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise FilterError(f"{path} is a {type(given).__name__}, but a query is an object", "Like {'term': {'a': 1}}.")
    # Counted on a copy: what says one thing when asked twice may say another.
    query = _copied(given, path, 1, budget)
    if len(query) != 1:
        raise FilterError(
            f"{path} has {len(query)} keys{_listed(query)}, but a query has one: its type",
            "Join several with {'bool': {'filter': [...]}}, or pass a list of queries.",
        )
    (kind,) = query
    if kind not in _QUERIES:
        raise FilterError(
            f"{path} begins with {kind[:60]!r}, which is no type of query",
            "Like {'term': {'lang': 'en'}}: the query itself, without 'query' or 'filter' around it.",
        )
    if not isinstance(query[kind], dict):
        raise FilterError(f"{path}.{kind} is not an object", "Like {'term': {'lang': 'en'}}.")
    return query


def _copied(given: Mapping[Any, Any], path: str, depth: int, budget: _Budget) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in list(given.items()):
        if not isinstance(key, str):
            raise FilterError(f"{path} has a key of type {type(key).__name__}", "Keys of JSON are strings.")
        name = _text(key, path, budget)
        made[name] = _value(value, f"{path}.{name[:60]}", depth, budget)
        _refuse(name, made[name], path)
    return made


def _refuse(key: str, value: object, path: str) -> None:
    """What a filter has no use for. A field may have either name."""
    if key == "inner_hits" and isinstance(value, dict | None):
        # They would mix with those that the passages of hits come from.
        raise FilterError(f"{path} has inner_hits, which a filter cannot have", "Leave it out.")
    if key == "wrapper" and isinstance(value, dict) and isinstance(value.get("query"), str):
        raise FilterError(f"{path} has a wrapper, whose query cannot be looked at", "Write the query, not its base64.")


def _value(given: object, path: str, depth: int, budget: _Budget) -> Any:  # noqa: ANN401  # any JSON
    match given:
        case str():
            return _text(given, path, budget)
        case Mapping() | list() | tuple() if depth >= _OBJECTS_DEEP:
            raise FilterError(
                f"{path[:200]}...: the filter is deeper than {MAX_RAW_LEVELS} queries",
                "Write it flatter: Elasticsearch takes 30, and what is around a filter has some of them.",
            )
        case Mapping():
            budget.spend(path)
            return _copied(given, path, depth + 1, budget)
        case list() | tuple():
            budget.spend(path)
            # A list directly inside a list is nowhere in Query DSL but counts, so that depth is bounded at all.
            return [
                _value(each, f"{path}[{n}]", depth + isinstance(each, list | tuple), budget)
                for n, each in enumerate(list(given))
            ]
    budget.spend(path)
    return _scalar(given, path)


def _scalar(given: object, path: str) -> str | int | float | bool | None:
    match given:
        case None | True | False:
            return given
        case Integral() if int(given).bit_length() < 1024:  # Python writes no longer ones than 4,300 digits
            return int(given)
        case Real() if _is_finite(given):
            return float(given)
        case date():
            return given.isoformat()
    shown = f" {float(given)}" if isinstance(given, float) else ""
    raise FilterError(
        f"{path} is a {type(given).__name__}{shown}, which is no JSON value",
        "Values are strings, finite numbers, true, false, null, dates, lists and objects.",
    )


def _is_finite(number: Real) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _text(given: str, path: str, budget: _Budget) -> str:
    text = str.__str__(given)
    budget.spend(path, len(text))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterError(f"{path} has a lone surrogate, which is no text", "Decode it correctly first.") from None
    return text


def _listed(query: Mapping[str, Any]) -> str:
    return f" ({', '.join(key[:30] for key in list(query)[:5])})" if query else ""
