"""What a search is filtered by in all: a mandatory scope, the user's filter and raw Query DSL, each for itself.

They are entries of one list, which Elasticsearch joins with "and": nothing inside of one reaches another, so a user's
filter can only take away from what the scope leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esvector.fields import FieldType
from esvector.search.filter_passages import document_filter, knn_filters, unless_passage
from esvector.search.filter_raw import Raw, read_raw, refuse_lookups
from esvector.search.filter_tree import Filter

__all__ = ["document_filters", "knn_filter_list"]


def knn_filter_list(
    fields: Mapping[str, FieldType],
    *,
    scope: str | Filter | None = None,
    where: str | Filter | None = None,
    raw: Raw | None = None,
    passages: str | None = None,
) -> list[dict[str, Any]]:
    """The ``filter`` of a kNN search, as a list of queries that all have to be true.

    ``passages`` is the nested field that the vectors are in. Raises FilterError where one of the three cannot be read.
    """
    compiled = [entry for each in (scope, where) for entry in knn_filters(each, fields, passages)]
    queries = _looked_at(raw, scope)
    if passages is not None:
        queries = [unless_passage(query, passages) if "nested" in query else query for query in queries]
    return compiled + queries


def document_filters(
    fields: Mapping[str, FieldType],
    *,
    scope: str | Filter | None = None,
    where: str | Filter | None = None,
    raw: Raw | None = None,
    passages: str | None = None,
) -> list[dict[str, Any]]:
    """The same for the ``filter`` of a ``bool`` query, of a search for text, say, or of a count."""
    compiled = [document_filter(each, fields, passages) for each in (scope, where) if each is not None]
    return compiled + _looked_at(raw, scope)


def _looked_at(raw: Raw | None, scope: str | Filter | None) -> list[dict[str, Any]]:
    queries = read_raw(raw)
    if scope is not None:
        refuse_lookups(queries)
    return queries
