"""What a search answers: hits, and what was asked for beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from esvector.types import Hit

__all__ = ["Explanation", "Facet", "Results"]

_NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]+\]")  # a text of JSON has no line breaks


@dataclass(frozen=True, slots=True)
class Facet:
    """How many documents have each value of a field, the most frequent first; ``others`` have none of these values."""

    values: Mapping[str | int | float | bool, int]
    others: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search was done.

    Attributes:
        alias: what was searched.
        index: the version behind it.
        encoder: the model of the passport.
        query_input: what the encoder read, prompt included; None where no query was encoded.
        similarity: what a vector's score is: "cosine" or "dot".
        plan: "exact", "kNN" or "text", with why.
        matches: documents that match the filter and have a vector; None where they were not counted.
        num_candidates: considered on each shard by an approximate search.
        bodies: the requests, in order; those that found the hits come first.
        seconds: spent "encoding", in "elasticsearch" (its own count, ``took``), on the "network" and the client beside
            it, and "reranking"; of several queries in one call, for all of them.
    """

    alias: str
    index: str
    encoder: str
    query_input: str | None
    similarity: str
    plan: str
    matches: int | None
    num_candidates: int | None
    bodies: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def console(self) -> str:
        """The requests as Kibana's Dev Tools take them."""
        path = f"GET /{self.alias}/_search"
        return "\n\n".join(f"{path}\n{_readable(body)}" for body in self.bodies)

    def __str__(self) -> str:
        """Everything but the requests, one line each."""
        lines = [
            f"index       {self.index} (of {self.alias})",
            f"encoder     {self.encoder}",
            *([] if self.query_input is None else [f"reads       {self.query_input!r}"]),
            f"similarity  {self.similarity}",
            f"plan        {self.plan}",
            *([] if self.matches is None else [f"matches     {self.matches:,} documents"]),
            *([] if self.num_candidates is None else [f"candidates  {self.num_candidates:,} on each shard"]),
            "time        " + ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in self.seconds.items()),
        ]
        return "\n".join(lines)


def _readable(body: Mapping[str, Any]) -> str:
    """JSON with an entry a line, but a vector on one."""
    text = json.dumps(body, ensure_ascii=False, indent=2)
    return _NUMBERS.sub(lambda found: " ".join(found[0].split()), text)


class Results(list[Hit]):
    """The hits of one query, best first: a list, with what was asked for beside them.

    Attributes:
        facets: counts by field, where they were asked for.
        partial: whether shards failed or ran out of time, and hits may be missing (only where that was allowed).
        explanation: how the search was done, where that was asked for.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        *,
        facets: Mapping[str, Facet] | None = None,
        partial: bool = False,
        explanation: Explanation | None = None,
    ) -> None:
        super().__init__(hits)
        self.facets = facets or {}
        self.partial = partial
        self.explanation = explanation
