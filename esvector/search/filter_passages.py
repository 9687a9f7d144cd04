"""Filters where documents were cut into passages: which conditions are about a passage, and which about its document.

Joined by ``and``, the conditions on fields of passages are about **the passage**: of a kNN search they leave out
passages, so that the best one of those left is the hit; of any other query one passage has to satisfy them all. The
rest, ``any passages (...)`` included, is about the document.

Elasticsearch decides by the looks of each filter of a kNN search whether it is about passages (9.5.3,
``NestedHelper``): it is if it can be seen to need a term, or a number in a range, of one of their fields. Whatever else
is joined to the document first, which leaves nothing of a filter on passages, or everything if it is a negation: wrong
hits, and no error. Integers that are equal to something are among the rest, and dates, since a range that all dates of
a shard are in becomes ``exists``. So all conditions on passages go into one entry, with one among them that shows.

And it asks the filters again of the passages of a hit, to find the best one. There, a ``nested`` query means something
else (9.5.3: of 52 hits, 38 came without their passage), so that an entry with one gets a way out for passages only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from esvector.errors import FilterError
from esvector.fields import FieldType
from esvector.search.filter_query import Place, check_size, clause_of, conjunction, peeled
from esvector.search.filter_syntax import explained
from esvector.search.filter_tree import And, Filter, Not, Or, flat

__all__ = ["document_filter", "knn_filters", "unless_passage"]

_NUMBERS = frozenset({"byte", "short", "integer", "long", "half_float", "float", "double"})
_WORDS = frozenset({"keyword", "text", "boolean"})
_SHOWN = {"term": _WORDS | {"ip"}, "terms": _WORDS, "range": _NUMBERS | {"ip"}}
# Of every passage that esvector writes, these are there and at least 0.
_OFFSETS = ("start", "end")


def knn_filters(
    where: str | Filter | None, fields: Mapping[str, FieldType], passages: str | None = None
) -> list[dict[str, Any]]:
    """The entries for the ``filter`` of a kNN search for ``where``, which all have to be true; none for None.

    ``passages`` is the nested field that the vectors are in, None where documents have one each.

    Raises FilterError or UnknownFieldError as ``compile_filter`` does, for a condition that mixes documents and
    passages, and for conditions on passages that Elasticsearch cannot tell from conditions on documents.
    """
    if where is None:
        return []
    with explained(where) as tree:
        if passages is None:
            return [check_size(clause_of(tree, Place(fields)))]
        inner, outer = _split(tree, fields, passages)
        entries = [_of_document(check_size(clause_of(part, Place(fields))), passages) for part in outer]
        return [*([_children(inner, fields, passages)] if inner else []), *entries]


def document_filter(
    where: str | Filter, fields: Mapping[str, FieldType], passages: str | None = None
) -> dict[str, Any]:
    """The clause for ``where`` in any other query: true for the documents that a kNN search filtered by it can find.

    Raises FilterError or UnknownFieldError as ``compile_filter`` does, and for a condition that mixes documents and
    passages.
    """
    with explained(where) as tree:
        inner, outer = ([], [tree]) if passages is None else _split(tree, fields, passages)
        if not inner:
            return check_size(clause_of(tree, Place(fields)))
        passage = {"nested": {"path": passages, "query": conjunction(inner, Place(fields, passages), 2)}}
        rest = conjunction(outer, Place(fields))["bool"] if outer else {}
        return check_size({"bool": {**rest, "filter": [passage, *rest.get("filter", [])]}} if outer else passage)


def _split(tree: Filter, fields: Mapping[str, FieldType], passages: str) -> tuple[list[Filter], list[Filter]]:
    """The conditions that have to be true of the passage, and those of its document."""
    inner: list[Filter] = []
    outer: list[Filter] = []
    for part in _conjuncts(tree):
        leaves = list(_leaves(part))
        about = [leaf for leaf in leaves if _is_inside(leaf, fields, passages)]
        if about and len(about) < len(leaves):
            raise FilterError(
                f"{about[0].field!r} is of a passage, and stands in one condition with fields of the document",
                f"Join them with and at the top, or ask whether a document has such a passage: any {passages} (...).",
                about[0].position,
            )
        (inner if about else outer).append(part)
    return inner, outer


def _conjuncts(tree: Filter) -> Iterator[Filter]:
    waiting = [tree]
    while waiting:
        node, negated = peeled(waiting.pop())
        kind: type[And] | type[Or] = Or if negated else And
        if isinstance(node, kind):
            parts = list(flat(kind, node))
            waiting += [Not(part) if negated else part for part in reversed(parts)]
        else:
            yield Not(node) if negated else node


def _leaves(tree: Filter) -> Iterator[Any]:
    """The conditions of ``tree`` that name a field; ``any FIELD (...)`` is one."""
    waiting = [tree]
    while waiting:
        match waiting.pop():
            case Not(part):
                waiting.append(part)
            case And(parts) | Or(parts):
                waiting += reversed(parts)
            case leaf:
                yield leaf


def _is_inside(leaf: Any, fields: Mapping[str, FieldType], passages: str) -> bool:  # noqa: ANN401  # any leaf
    name = getattr(leaf, "field", None)
    if not isinstance(name, str) or (field := fields.get(name)) is None:
        return False
    deeper = field.type == "nested" and field.nested == passages
    if deeper or (field.nested is not None and field.nested.startswith(f"{passages}.")):
        raise FilterError(
            f"{leaf.field!r} is in a nested field inside of {passages!r}, which a filter on passages does not reach",
            f"Ask whether a document has such a passage: any {passages} (...).",
            leaf.position,
        )
    return field.nested == passages


def _of_document(clause: dict[str, Any], passages: str) -> dict[str, Any]:
    if '"nested"' not in json.dumps(clause):
        return clause
    return unless_passage(clause, passages)


def unless_passage(clause: Mapping[str, Any], passages: str) -> dict[str, Any]:
    """``clause`` on documents, for a kNN search on passages: true for every passage, whatever it says."""
    return {"bool": {"should": [clause, {"term": {"_nested_path": passages}}], "minimum_should_match": 1}}


def _children(parts: Sequence[Filter], fields: Mapping[str, FieldType], passages: str) -> dict[str, Any]:
    body = check_size(conjunction(parts, Place(fields, passages)))["bool"]
    named = {field.exact: field for field in fields.values() if field.exact and field.nested == passages}
    needed = [_telling(clause, named) for clause in body.get("filter", [])]
    if not any(_shows(clause, named) for clause in needed):
        needed.insert(0, _anchor(fields, passages, parts))
    return {"bool": {**body, "filter": needed}}


def _telling(clause: dict[str, Any], named: Mapping[str, FieldType]) -> dict[str, Any]:
    """The same condition, with numbers that something is equal to in a range, too."""
    ((kind, body),) = clause.items()
    match kind:
        case "bool":
            parts = {key: [_telling(part, named) for part in body[key]] for key in ("filter", "should") if key in body}
            return {"bool": {**body, **parts}}
        case "term" | "terms":
            ((name, given),) = body.items()
            if named[name].type in _NUMBERS:
                values = given if kind == "terms" else [given]
                bounds = {"range": {name: {"gte": min(values), "lte": max(values)}}}
                return {"bool": {"filter": [bounds, clause]}} if len(values) > 1 else bounds
    return clause


def _shows(clause: Mapping[str, Any], named: Mapping[str, FieldType]) -> bool:
    """Whether Elasticsearch 9.5.3 sees that ``clause`` is true for passages only."""
    ((kind, body),) = clause.items()
    match kind:
        case "match_none":
            return True
        case "bool" if body.get("filter"):
            return any(_shows(part, named) for part in body["filter"])
        case "bool":
            return bool(body.get("should")) and all(_shows(part, named) for part in body["should"])
        case "term" | "terms" | "range":
            field = named[next(iter(body))]
            return field.indexed and field.type in _SHOWN[kind]
    return False


def _anchor(fields: Mapping[str, FieldType], passages: str, parts: Sequence[Filter]) -> dict[str, Any]:
    """A condition that is true for every passage, and shows."""
    for name in _OFFSETS:
        field = fields.get(f"{passages}.{name}")
        if field is not None and field.type in _NUMBERS and field.indexed:
            return {"range": {field.name: {"gte": 0}}}
    first = next(_leaves(parts[0]))
    raise FilterError(
        f"Elasticsearch cannot tell this condition on {first.field!r} from one on documents, and would ignore it",
        f"Add a condition with = on passages, ask of documents (any {passages} (...)), or map {passages}.start as an "
        "integer with an index and index the documents again.",
        first.position,
    )
