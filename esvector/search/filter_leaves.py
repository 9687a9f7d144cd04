"""One condition of a filter as Query DSL, checked against the mapping.

Values only ever become JSON values of ``term``, ``terms``, ``range`` and ``prefix`` clauses, and field names come from
the mapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from esvector.errors import FilterError, UnknownFieldError
from esvector.fields import FieldType
from esvector.search.filter_dates import date_math
from esvector.search.filter_tree import OPERATORS, Comparison, Exists, Literal, Membership, Nested, Prefix
from esvector.search.filter_values import SCALES, Scale, Span, read_address, read_boolean

__all__ = [
    "MAX_PREFIX",
    "MAX_VALUES",
    "Condition",
    "equal_clauses",
    "find_field",
    "prefix_clause",
    "range_clause",
    "unknown_field",
]

MAX_VALUES = 10_000
# Elasticsearch 9.5.3 answers 400 to a longer term, in bytes.
MAX_TERM_BYTES = 32_766

# In characters: every further one costs the server a state of an automaton.
MAX_PREFIX = 1000

Condition: TypeAlias = Comparison | Membership | Prefix | Exists

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_ORDERED = frozenset({"keyword", "ip", *SCALES})
_COMPARABLE = _ORDERED | {"boolean", "text"}
# Elasticsearch 9.5.3: `exists` on a binary field without doc values (the default) finds nothing, whatever is stored.
_WITHOUT_EXISTS = frozenset({"object", "nested", "binary"})
_RAW = "Pass another query as Query DSL (the filter argument of a search)."


def find_field(node: Condition, fields: Mapping[str, FieldType]) -> FieldType:
    """The field that ``node`` names, which ``exists`` works on.

    Raises UnknownFieldError with near names, or FilterError where no document could be found by it.
    """
    name = node.field
    if name not in fields:
        raise unknown_field(node, fields)
    found = fields[name]
    if found.type in _WITHOUT_EXISTS:
        inside = [other for other in fields if other.startswith(f"{name}.")]
        listed = f"Use one of its fields: {', '.join(inside[:10])}." if inside else _RAW
        raise FilterError(
            f"the field {name!r} is of type {found.type}, which has no value to filter on", listed, node.position
        )
    if not found.searchable:
        off = "index" if found.type == "text" else "index and doc_values"
        raise FilterError(
            f"the field {name!r} is not searchable: its mapping turns off {off}",
            "Map it with an index (or doc values) and index the documents again.",
            node.position,
        )
    return found


def equal_clauses(
    node: Comparison | Membership, values: Sequence[Literal], fields: Mapping[str, FieldType]
) -> list[dict[str, Any]]:
    """Clauses of which one is true for a document that has one of ``values`` in the field of ``node``; may be none.

    Raises FilterError where the field or a value does not allow it.
    """
    if len(values) > MAX_VALUES:
        raise FilterError(
            f"the list for {node.field!r} has {len(values):,} values; at most {MAX_VALUES:,} are allowed",
            "Ask for fewer at once.",
            node.position,
        )
    field = _comparable(node, fields)
    if field.type in SCALES:
        math = [_math(node, field, "=", value) for value in values]
        spans = [_span(node, field, value) for value, dated in zip(values, math, strict=True) if dated is None]
        return _equal_on_scale(field, SCALES[field.type], spans) + [dated for dated in math if dated is not None]
    return _terms(_exact(field), [_whole(node, field, value) for value in values])


def range_clause(node: Comparison, value: Literal, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The clause for ``<``, ``<=``, ``>`` or ``>=``; FilterError where the field or the value does not allow it."""
    if node.operator not in _RANGES:
        raise FilterError(f"{node.operator!r} is not a comparison", f"Use one of {' '.join(OPERATORS)}.", node.position)
    field = _comparable(node, fields)
    if field.type not in _ORDERED:
        raise FilterError(
            f"the field {node.field!r} is of type {field.type}, which has no order for {node.operator}",
            "Compare it with =, != or in (...)."
            + (f" Its keyword sub-field has an order: {field.exact}." if field.type == "text" else ""),
            node.position,
        )
    if (dated := _math(node, field, node.operator, value)) is not None:
        return dated
    if field.type in SCALES:
        return _range_on_scale(field, SCALES[field.type], node.operator, _span(node, field, value))
    if field.type == "ip" and "/" in value.text:
        raise _misfit(node, field, value, "an address; a network goes with =, != and in (...)")
    bound = _whole(node, field, value, bounded=False)
    return {"range": {field.name: {_RANGES[node.operator]: bound}}}


def prefix_clause(node: Prefix, value: Literal, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The clause for ``startswith``; FilterError where the field is no keyword or the text is too long."""
    field = _comparable(node, fields)
    if field.type not in ("keyword", "text"):
        raise FilterError(
            f"the field {node.field!r} is of type {field.type}, whose values have no beginning",
            "startswith works on keyword fields, and on text with a keyword sub-field.",
            node.position,
        )
    if len(value.text) > MAX_PREFIX:
        raise _misfit(node, field, value, f"a beginning of at most {MAX_PREFIX:,} characters")
    return {"prefix": {_exact(field): {"value": _whole(node, field, value)}}}


def _comparable(node: Comparison | Membership | Prefix, fields: Mapping[str, FieldType]) -> FieldType:
    field = find_field(node, fields)
    if field.type not in _COMPARABLE:
        raise FilterError(
            f"the field {node.field!r} is of type {field.type}, which a filter cannot compare",
            f"Comparisons work on {', '.join(sorted(_COMPARABLE))}; `exists` works on this one too. {_RAW}",
            node.position,
        )
    if field.exact is None:
        raise FilterError(
            f"the field {node.field!r} is analysed text, which cannot be compared exactly",
            "Add a keyword sub-field to its mapping (or map it as keyword) and index the documents again.",
            node.position,
        )
    return field


def _exact(field: FieldType) -> str:
    return field.exact or field.name


def _equal_on_scale(field: FieldType, scale: Scale, spans: Sequence[Span]) -> list[dict[str, Any]]:
    points: list[Any] = []
    ranges: list[dict[str, Any]] = []
    for span in dict.fromkeys(spans):
        first, last = max(span.first, scale.lowest), min(span.last, scale.highest)
        if first > last:
            continue
        # A term on a date is read in the mapping's format, which a range can name.
        if span.is_point and not scale.options:
            points.append(scale.write(first))
        else:
            bounds = {"gte": scale.write(first), "lte": scale.write(last)}
            ranges.append({"range": {field.name: {**bounds, **scale.options}}})
    return _terms(field.name, points) + ranges


def _terms(name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        return [{"terms": {name: distinct}}]
    return [{"term": {name: value}} for value in distinct]


def _range_on_scale(field: FieldType, scale: Scale, operator: str, span: Span) -> dict[str, Any]:
    # "Greater than a day" is after its last instant; "at least a day" is from its first.
    bound = span.first if operator in (">=", "<") else span.last
    above, below = bound > scale.highest, bound < scale.lowest
    at_top, at_bottom = bound == scale.highest, bound == scale.lowest
    if operator in (">", ">="):
        never, always = above or (operator == ">" and at_top), below or (operator == ">=" and at_bottom)
    else:
        never, always = below or (operator == "<" and at_bottom), above or (operator == "<=" and at_top)
    if never:
        return {"match_none": {}}
    if always:
        return {"exists": {"field": field.name}}
    return {"range": {field.name: {_RANGES[operator]: scale.write(bound), **scale.options}}}


def _math(node: Condition, field: FieldType, operator: str, value: Literal) -> dict[str, Any] | None:
    try:
        bounds = date_math(field.type, operator, value.text)
    except ValueError as error:
        raise _misfit(node, field, value, str(error)) from None
    return None if bounds is None else {"range": {field.name: {**bounds, **SCALES[field.type].options}}}


def _span(node: Condition, field: FieldType, value: Literal) -> Span:
    try:
        return SCALES[field.type].read(value.text)
    except ValueError as error:
        raise _misfit(node, field, value, str(error)) from None


def _whole(node: Condition, field: FieldType, value: Literal, bounded: bool = True) -> str | bool:
    """The JSON of a value that is compared as a whole; ``bounded`` if it must be short enough to be in the index."""
    try:
        if field.type == "boolean":
            return read_boolean(value.text)
        if field.type == "ip":
            return read_address(value.text)
        return _keyword(field, value.text, bounded)
    except ValueError as error:
        raise _misfit(node, field, value, str(error)) from None


def _keyword(field: FieldType, text: str, bounded: bool) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("text without lone surrogates") from None
    if size > MAX_TERM_BYTES:
        raise ValueError(f"a text of at most {MAX_TERM_BYTES:,} bytes; a longer one cannot be indexed")
    # Elasticsearch 9.5.3 counts ignore_above in UTF-16 code units, as Java does.
    if bounded and field.ignore_above is not None and len(text.encode("utf-16-le")) // 2 > field.ignore_above:
        raise ValueError(
            f"a text of at most {field.ignore_above} characters; longer ones are not indexed (ignore_above)"
        )
    return text


def _misfit(node: Condition, field: FieldType, value: Literal, expected: str) -> FilterError:
    return FilterError(
        f"{_shown(value.text)!r} does not fit the field {node.field!r} of type {field.type}",
        f"Compare it with {expected}.",
        node.position if value.position is None else value.position,
    )


def unknown_field(node: Condition | Nested, fields: Mapping[str, FieldType]) -> UnknownFieldError:
    """The error for a field that is not in ``fields``, with the names that are near."""
    name = node.field
    lower = {known.lower(): known for known in fields}
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=3)]
    near += [known for known in fields if known.endswith(f".{name}") and known not in near][:3]
    listed = [known for known, field in fields.items() if field.type in _COMPARABLE and field.exact]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Fields to compare: {', '.join(listed[:20]) or 'none'}."
    return UnknownFieldError(f"the index has no field {_shown(name)!r}", hint, node.position)


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
