"""Which documents may be found: the searcher's scope and the user's filters, as clauses that only narrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esvector.search.filter_raw import Raw
from esvector.search.filter_scope import document_filters, knn_filter_list
from esvector.search.filters import Filter
from esvector.search.target import Target

__all__ = ["Conditions", "Where"]

Where = str | Filter | None
Clause = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Clauses that a document must satisfy, every one: ``knn`` for the filter of a kNN search, ``document`` for others.

    They differ where passages are filtered themselves: in a kNN search such a clause says which of them are compared.
    """

    knn: tuple[Clause, ...] = ()
    document: tuple[Clause, ...] = ()

    @classmethod
    def of(cls, target: Target, scope: Where, where: Where = None, raw: Raw | None = None) -> Conditions:
        """Return the conditions of a search: ``scope`` always, then ``where`` and ``raw`` (Query DSL).

        Raises FilterError for what cannot be understood, or is not in the mapping.
        """
        fields, passages = target.fields, target.passages
        return cls(
            tuple(knn_filter_list(fields, scope=scope, where=where, raw=raw, passages=passages)),
            tuple(document_filters(fields, scope=scope, where=where, raw=raw, passages=passages)),
        )

    def without(self, document_ids: list[str]) -> Conditions:
        """Return the same, and not these documents."""
        clause = {"bool": {"must_not": [{"ids": {"values": document_ids}}]}}
        return Conditions((*self.knn, clause), (*self.document, clause))
