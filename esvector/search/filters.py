"""Filters: an expression, its tree, and the Query DSL that it stands for.

::

    year >= 2020 and venue in ('ACL', 'EMNLP') and not missing doi

``parse`` reads an expression into a tree, ``to_query`` turns a tree into a query that is checked against the mapping,
and ``compile_filter`` does both. What each comparison means is in ``docs/filters.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esvector.errors import FilterError
from esvector.fields import FieldType
from esvector.search.filter_query import build_query
from esvector.search.filter_syntax import located, parse_expression
from esvector.search.filter_tree import And, Comparison, Exists, Filter, Literal, Membership, Not, Or, Value

__all__ = [
    "And",
    "Comparison",
    "Exists",
    "Filter",
    "Literal",
    "Membership",
    "Not",
    "Or",
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

    It is made of ``term``, ``terms``, ``range``, ``exists``, ``match_none`` and ``bool`` only, and does not score.

    Raises UnknownFieldError, with near names, for a field that is not in ``fields``, and FilterError for a field or
    value that cannot be compared so and for a tree that is larger than Elasticsearch takes.
    """
    return build_query(tree, fields)


def compile_filter(expression: str, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The query for ``expression``: ``to_query(parse(expression), fields)``, with a caret under the place of any error.

    Raises FilterError or UnknownFieldError as the two do.
    """
    tree = parse_expression(expression)
    try:
        return build_query(tree, fields)
    except FilterError as error:
        raise located(error, expression) from None
