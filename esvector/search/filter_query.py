"""From the tree of a filter to Query DSL: and, or, not, nested objects, and the limits of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from esvector.errors import FilterError, UnknownFieldError
from esvector.fields import FieldType
from esvector.search.filter_leaves import (
    Condition,
    equal_clauses,
    find_field,
    prefix_clause,
    range_clause,
    unknown_field,
)
from esvector.search.filter_tree import (
    And,
    Comparison,
    Exists,
    Filter,
    Membership,
    Nested,
    Not,
    Or,
    Prefix,
    flat,
    literal,
)

__all__ = [
    "MAX_CLAUSES",
    "MAX_LEVELS",
    "Place",
    "build_query",
    "check_size",
    "clause_of",
    "conjunction",
    "peeled",
]

# Elasticsearch 9.5.3 refuses a query deeper than 30 (indices.query.bool.max_nested_depth), and what surrounds a filter
# takes some of them. Its limit on clauses depends on the heap, from 1,024 up.
MAX_LEVELS = 24
MAX_CLAUSES = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a filter a condition is: the ``fields`` it can name, by the names that they have there.

    ``path`` is the nested field whose objects are asked one by one, None where documents are.
    """

    fields: Mapping[str, FieldType]
    path: str | None = None

    def within(self, node: Nested) -> Place:
        """The place inside ``any FIELD (...)``. Raises FilterError where the field is not nested."""
        if (found := self.fields.get(node.field)) is None:
            raise unknown_field(node, self.fields)
        if found.type != "nested":
            nested = [name for name, field in self.fields.items() if field.type == "nested"]
            raise FilterError(
                f"any needs a nested field, and {node.field!r} is of type {found.type}",
                f"Nested fields: {', '.join(nested[:10]) or 'none'}. On other fields each condition stands for itself.",
                node.position,
            )
        start = f"{node.field}."
        inside = {name[len(start) :]: field for name, field in self.fields.items() if name.startswith(start)}
        return Place(inside, found.name)

    def asked(self, clause: Mapping[str, Any], path: str | None) -> dict[str, Any]:
        """``clause`` of the objects of the nested field ``path``, asked here: some of them satisfies it."""
        return dict(clause) if path == self.path else {"nested": {"path": path, "query": dict(clause)}}


def build_query(tree: Filter, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The query that is true for exactly the documents that ``tree`` is true for; see ``filters.to_query``."""
    return check_size(clause_of(tree, Place(fields)))


def check_size(query: dict[str, Any]) -> dict[str, Any]:
    """``query`` itself. Raises FilterError where it has more conditions than the server takes."""
    if (clauses := _leaves(query)) > MAX_CLAUSES:
        raise FilterError(
            f"the filter has {clauses:,} conditions; at most {MAX_CLAUSES:,} are allowed",
            "A list is one condition on a keyword or integer field: venue in ('ACL', 'EMNLP'). Or ask for less.",
        )
    return query


def clause_of(tree: Filter, place: Place, level: int = 1) -> dict[str, Any]:
    """The clause for ``tree``, ``level`` levels deep in a filter."""
    if level > MAX_LEVELS:
        raise FilterError(
            f"the filter is nested more than {MAX_LEVELS} levels deep, which Elasticsearch does not take",
            "Write it flatter: a = 1 and b = 2 and c = 3 is one level.",
        )
    node, negated = peeled(tree)
    if negated:
        return {"bool": {"must_not": [clause_of(part, place, level + 1) for part in flat(Or, node)]}}
    match node:
        case And():
            return conjunction(tuple(flat(And, node)), place, level)
        case Or():
            return _any([clause_of(part, place, level + 1) for part in flat(Or, node)])
        case Nested() if _is_named(node):
            inside = place.within(node)
            return place.asked(_inner(node, inside, level), inside.path)
        case _ if _is_named(node):
            return _leaf(node, place)
    raise FilterError(
        f"a {type(node).__name__} such as this is not a part of a filter",
        "Build it of Field(...), its comparisons, &, | and ~; names of fields are strings, lists of values tuples.",
    )


def peeled(tree: Filter) -> tuple[Filter, bool]:
    """``tree`` without the negations around it, and whether they come to one."""
    negated = False
    while True:
        if isinstance(tree, Not):
            tree, negated = tree.part, not negated
        elif isinstance(tree, Comparison) and tree.operator == "!=":
            tree, negated = replace(tree, operator="="), not negated
        else:
            return tree, negated


def conjunction(parts: Sequence[Filter], place: Place, level: int = 1) -> dict[str, Any]:
    """The clause that is true where every one of ``parts`` is; there is at least one."""
    body: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        node, negated = peeled(part)
        kind, nodes = ("must_not", list(flat(Or, node))) if negated else ("filter", [node])
        body.setdefault(kind, []).extend(clause_of(n, place, level + 1) for n in nodes)
    return {"bool": body}


def _inner(node: Nested, inside: Place, level: int) -> dict[str, Any]:
    try:
        return clause_of(node.part, inside, level + 1)
    except UnknownFieldError as error:
        raise UnknownFieldError(
            f"{error.message} inside {node.field!r}",
            f"{error.remedy} In any {node.field} (...) fields are named as inside it, without {node.field}.",
            error.position,
        ) from None


def _any(clauses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(clauses) == 1:
        return clauses[0]
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}} if clauses else {"match_none": {}}


def _leaves(query: Mapping[str, Any]) -> int:
    if "nested" in query:
        return _leaves(query["nested"]["query"])
    if "bool" not in query:
        return 1
    return sum(_leaves(part) for parts in query["bool"].values() if isinstance(parts, list) for part in parts)


def _leaf(node: Filter, place: Place) -> dict[str, Any]:
    match node:
        case Exists(name) if name in place.fields and place.fields[name].type == "nested":
            return place.asked({"bool": {"must_not": [{"match_none": {}}]}}, place.fields[name].name)
        case Exists():
            field = find_field(node, place.fields)
            return place.asked({"exists": {"field": field.name}}, field.nested)
        case Comparison(operator="="):
            return _of_field(node, _any(equal_clauses(node, [literal(node.value)], place.fields)), place)
        case Comparison():
            return _of_field(node, range_clause(node, literal(node.value), place.fields), place)
        case Membership():
            values = [literal(value) for value in node.values]
            return _of_field(node, _any(equal_clauses(node, values, place.fields)), place)
        case Prefix():
            return _of_field(node, prefix_clause(node, literal(node.value), place.fields), place)
    raise AssertionError(node)


def _is_named(node: object) -> bool:
    """Whether ``node`` is what its annotations say, which Python does not look at when a tree is built by hand."""
    match node:
        case Comparison(str(), str()) | Prefix(str()) | Exists(str()) | Nested(str()) | Membership(str(), tuple()):
            return True
    return False


def _of_field(node: Condition, clause: dict[str, Any], place: Place) -> dict[str, Any]:
    return place.asked(clause, place.fields[node.field].nested)
