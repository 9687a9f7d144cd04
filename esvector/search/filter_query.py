"""From the tree of a filter to Query DSL: and, or, not, and the limits of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from esvector.errors import FilterError
from esvector.fields import FieldType
from esvector.search.filter_leaves import equal_clauses, find_field, range_clause
from esvector.search.filter_tree import And, Comparison, Exists, Filter, Membership, Not, Or, flat, literal

__all__ = ["MAX_CLAUSES", "MAX_LEVELS", "build_query"]

# Elasticsearch 9.5.3 refuses a query deeper than 30 (indices.query.bool.max_nested_depth), and what surrounds a filter
# takes some of them. Its limit on clauses depends on the heap, from 1,024 up.
MAX_LEVELS = 24
MAX_CLAUSES = 1000


def build_query(tree: Filter, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The query that is true for exactly the documents that ``tree`` is true for; see ``filters.to_query``."""
    query = _clause(tree, fields, 1)
    if (clauses := _leaves(query)) > MAX_CLAUSES:
        raise FilterError(
            f"the filter has {clauses:,} conditions; at most {MAX_CLAUSES:,} are allowed",
            "A list is one condition on a keyword or integer field: venue in ('ACL', 'EMNLP'). Or ask for less.",
        )
    return query


def _clause(tree: Filter, fields: Mapping[str, FieldType], level: int) -> dict[str, Any]:
    if level > MAX_LEVELS:
        raise FilterError(
            f"the filter is nested more than {MAX_LEVELS} levels deep, which Elasticsearch does not take",
            "Write it flatter: a = 1 and b = 2 and c = 3 is one level.",
        )
    node, negated = _peeled(tree)
    if negated:
        return {"bool": {"must_not": [_clause(part, fields, level + 1) for part in flat(Or, node)]}}
    match node:
        case And():
            return _conjunction(node, fields, level)
        case Or():
            return _any([_clause(part, fields, level + 1) for part in flat(Or, node)])
        case _:
            return _leaf(node, fields)


def _peeled(tree: Filter) -> tuple[Filter, bool]:
    """``tree`` without the negations around it, and whether they come to one."""
    negated = False
    while True:
        if isinstance(tree, Not):
            tree, negated = tree.part, not negated
        elif isinstance(tree, Comparison) and tree.operator == "!=":
            tree, negated = replace(tree, operator="="), not negated
        else:
            return tree, negated


def _conjunction(tree: And, fields: Mapping[str, FieldType], level: int) -> dict[str, Any]:
    body: dict[str, list[dict[str, Any]]] = {}
    for part in flat(And, tree):
        node, negated = _peeled(part)
        kind, nodes = ("must_not", list(flat(Or, node))) if negated else ("filter", [node])
        body.setdefault(kind, []).extend(_clause(n, fields, level + 1) for n in nodes)
    return {"bool": body}


def _any(clauses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(clauses) == 1:
        return clauses[0]
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}} if clauses else {"match_none": {}}


def _leaves(query: dict[str, Any]) -> int:
    if "bool" not in query:
        return 1
    return sum(_leaves(part) for parts in query["bool"].values() if isinstance(parts, list) for part in parts)


def _leaf(node: Filter, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    match node:
        case Exists():
            return {"exists": {"field": find_field(node, fields).name}}
        case Comparison(operator="="):
            return _any(equal_clauses(node, [literal(node.value)], fields))
        case Comparison():
            return range_clause(node, literal(node.value), fields)
        case Membership():
            return _any(equal_clauses(node, [literal(value) for value in node.values], fields))
    raise FilterError(f"a {type(node).__name__} is not a part of a filter", "Build it of Comparison, And, Or, Not, ...")
