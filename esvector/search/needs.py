"""What a search needs from outside while it runs.

A search is written once, as a generator that yields what it needs and is sent the answer. ``Searcher`` and
``AsyncSearcher`` differ in how they perform a need, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from esvector.passport import Passport
from esvector.types import Hit

__all__ = ["EncodeDocuments", "EncodeQueries", "LookUp", "Need", "Rerank", "Send", "Steps"]

T = TypeVar("T")


@dataclass(slots=True)
class LookUp:
    """What the alias leads to: a Target. ``again`` asks the server although one is remembered."""

    again: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class EncodeQueries:
    """Embeddings of queries, in the number format of the index: (n, dims)."""

    passport: Passport
    texts: list[str]
    seconds: float = 0.0


@dataclass(slots=True)
class EncodeDocuments:
    """Embeddings of texts as documents, in the number format of the index: (n, dims)."""

    passport: Passport
    texts: list[str]
    seconds: float = 0.0


@dataclass(slots=True)
class Send:
    """Answers of Elasticsearch to the bodies of searches of the alias, in their order."""

    bodies: list[dict[str, Any]]
    allow_partial: bool = False
    seconds: float = 0.0
    answers: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Rerank:
    """The hits of each query, ranked anew by the cross-encoder ``model``."""

    model: str
    passport: Passport
    queries: list[str]
    hits: list[Sequence[Hit]]
    seconds: float = 0.0


Need: TypeAlias = LookUp | EncodeQueries | EncodeDocuments | Send | Rerank
Steps: TypeAlias = Generator[Need, Any, T]
