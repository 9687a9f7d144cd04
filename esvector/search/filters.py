"""Filters: an expression, its tree, and the Query DSL that it stands for.

::

    year >= 2020 and venue in ('ACL', 'EMNLP') and not missing doi

``parse`` reads an expression into a tree, which ``Field("year") >= 2020`` makes in Python; ``to_query`` turns a tree
into a query that is checked against the mapping, and ``compile_filter`` does both. What each comparison means is in
``docs/filters.md``; what a search is filtered by in all, in ``filter_scope.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esvector.fields import FieldType
from esvector.search.filter_field import Field
from esvector.search.filter_query import build_query
from esvector.search.filter_syntax import explained, parse_expression
from esvector.search.filter_tree import (
    And,
    Comparison,
    Exists,
    Filter,
    Literal,
    Membership,
    Nested,
    Not,
    Or,
    Prefix,
    Value,
)

__all__ = [
    "And",
    "Comparison",
    "Exists",
    "Field",
    "Filter",
    "Literal",
    "Membership",
    "Nested",
    "Not",
    "Or",
    "Prefix",
    "Value",
    "compile_filter",
    "parse",
    "to_query",
]


def parse(expression: str) -> Filter:
    """The tree of ``expression``; its values are still texts, since only a mapping can give them types.

    Raises FilterError, with ``position`` and a caret under the place, where it cannot be read or is too large.
    """
    return parse_expression(expression)


def to_query(tree: Filter, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The query that is true for exactly the documents that ``tree`` is true for; ``fields`` is from ``field_types``.

    It is made of ``term``, ``terms``, ``range``, ``prefix``, ``exists``, ``nested``, ``match_none`` and ``bool`` only,
    and does not score.

    Raises UnknownFieldError, with near names, for a field that is not in ``fields``, and FilterError for a field or
    value that cannot be compared so and for a tree that is larger than Elasticsearch takes.
    """
    return build_query(tree, fields)


def compile_filter(where: str | Filter, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The query for ``where``, an expression or a tree, with a caret under the place of any error in an expression.

    Raises FilterError or UnknownFieldError as ``parse`` and ``to_query`` do.
    """
    with explained(where) as tree:
        return build_query(tree, fields)
