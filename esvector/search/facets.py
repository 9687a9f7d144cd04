"""Counting the values of fields: over all that match, or over the hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from esvector.errors import FilterError
from esvector.fields import FieldType
from esvector.search.results import Facet
from esvector.search.target import find_fields

__all__ = ["check_facets", "facets_body", "read_facets"]

_VALUES = 20  # of a field, the most frequent ones
_NO_FACET = frozenset({"object", "nested", "dense_vector", "binary", "geo_point", "completion", "sparse_vector"})


def check_facets(names: Sequence[str], fields: Mapping[str, FieldType]) -> dict[str, str]:
    """The field to count for each name. Raises UnknownFieldError or FilterError for one that has no values to count."""
    found: dict[str, str] = {}
    for name, field in zip(names, find_fields(list(names), fields), strict=True):
        if field.type in _NO_FACET or field.exact is None or field.nested:
            why = "is analysed text" if field.type == "text" else f"is of type {field.type}"
            if field.nested:  # counted without its parent it would have no values, and no error (9.5.3)
                why = f"is inside the nested field {field.nested!r}"
            raise FilterError(
                f"the values of the field {name!r} cannot be counted: it {why}",
                "use a keyword, number, date or boolean",
            )
        found[name] = field.exact
    return found


def facets_body(counted: Mapping[str, str], conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the body that counts the values of fields (from ``check_facets``) over the documents that match."""
    aggs = {f"f{n}": {"terms": {"field": field, "size": _VALUES}} for n, field in enumerate(counted.values())}
    query = {"bool": {"filter": [dict(c) for c in conditions]}} if conditions else {"match_all": {}}
    return {"size": 0, "track_total_hits": False, "query": query, "aggs": aggs}


def read_facets(counted: Mapping[str, str], answer: Mapping[str, Any]) -> dict[str, Facet]:
    """Return what was counted, by the names that were asked for."""
    found = {}
    for n, name in enumerate(counted):
        counts = answer["aggregations"][f"f{n}"]
        # A boolean's key is 0 or 1 and a date's is milliseconds (9.5.3); the string is what a filter takes.
        values = {b.get("key_as_string", b["key"]): b["doc_count"] for b in counts["buckets"]}
        found[name] = Facet(values, counts["sum_other_doc_count"])
    return found
