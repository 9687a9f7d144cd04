"""Which documents may be found: the user's filters and the searcher's own, as clauses that only narrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esvector.search.filters import Filter, compile_filter, to_query
from esvector.search.options import RawFilter
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
    def of(cls, target: Target, scope: Where, where: Where = None, raw: RawFilter = None) -> Conditions:
        """Return the conditions of a search: ``scope`` always, then ``where`` and ``raw`` (Query DSL).

        Raises FilterError for what cannot be understood, or is not in the mapping.
        """
        compiled: list[Clause] = [
            compile_filter(part, target.fields) if isinstance(part, str) else to_query(part, target.fields)
            for part in (scope, where)
            if part is not None
        ]
        if raw is not None:
            compiled += [raw] if isinstance(raw, Mapping) else list(raw)
        return cls(tuple(compiled), tuple(compiled))

    def without(self, document_ids: list[str]) -> Conditions:
        """Return the same, and not these documents."""
        clause = {"bool": {"must_not": [{"ids": {"values": document_ids}}]}}
        return Conditions((*self.knn, clause), (*self.document, clause))
