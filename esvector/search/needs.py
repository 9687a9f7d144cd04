"""What a search needs from outside while it runs.

A search is written once, as a generator that yields what it needs and is sent the answer. ``Searcher`` and
``AsyncSearcher`` differ in how they perform a need, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

from esvector.errors import SearchError
from esvector.passport import Passport
from esvector.types import Hit

__all__ = ["EncodeDocuments", "EncodeQueries", "LookUp", "Need", "Rerank", "Send", "Steps", "run", "run_async"]

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


def run(steps: Steps[T], perform: Callable[[Need], object]) -> T:
    """Return what ``steps`` return, each need performed; a SearchError goes to the steps, which may know a way on."""
    advance: Callable[[], Need] = partial(next, steps)
    while True:
        try:
            need = advance()
        except StopIteration as done:
            found: T = done.value
            return found
        started = perf_counter()
        try:
            advance = partial(steps.send, perform(need))
        except SearchError as error:
            advance = partial(steps.throw, error)
        need.seconds = perf_counter() - started


async def run_async(steps: Steps[T], perform: Callable[[Need], Awaitable[object]]) -> T:
    """Do the same as ``run``, and wait for nothing meanwhile."""
    advance: Callable[[], Need] = partial(next, steps)
    while True:
        try:
            need = advance()
        except StopIteration as done:
            found: T = done.value
            return found
        started = perf_counter()
        try:
            advance = partial(steps.send, await perform(need))
        except SearchError as error:
            advance = partial(steps.throw, error)
        need.seconds = perf_counter() - started
