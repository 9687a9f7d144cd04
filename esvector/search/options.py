"""What can be asked of a search beside its query: one record, checked as far as it can be without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from esvector.errors import ConfigError
from esvector.search.filter_raw import Raw
from esvector.search.filters import Filter

__all__ = ["MAX_K", "FacetsOf", "Fusion", "Mode", "RawFilter", "SearchKeywords", "SearchOptions"]

MAX_K = 10_000  # Elasticsearch's limit on num_candidates and on from + size, and so on k (9.5.3)

Mode = Literal["vector", "text", "hybrid", "exact"]
Fusion = Literal["rrf", "weighted"]
FacetsOf = Literal["matches", "hits"]
RawFilter = Raw | None

_LEAST_OF_A_LEG = 100  # hits of each ranking of a hybrid search: what is 60th in both should beat a lone 20th
_LEAST_OF_DIVERSITY = 5  # hits to choose each from


class SearchKeywords(TypedDict, total=False):
    """The keywords of ``search``; what each means is in ``SearchOptions``."""

    k: int
    offset: int
    where: str | Filter | None
    filter: RawFilter
    mode: Mode
    num_candidates: int | None
    oversample: float | None
    min_similarity: float | None
    fields: Sequence[str] | None
    highlight: bool
    facets: Sequence[str]
    facets_of: FacetsOf
    fusion: Fusion
    weights: Mapping[str, float] | None
    rerank: str | None
    rerank_depth: int
    diversity: float | None
    allow_partial: bool
    timeout: float | None
    explain: bool


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What is asked of a search.

    Attributes:
        k: how many hits.
        offset: hits to leave out before them, for a next page; all pages together have at most 10,000 hits.
        where: only documents for which this filter is true: an expression ("year >= 2020 and lang = en") or its tree.
        filter: the same as raw Query DSL, one query or a list; a document must satisfy both.
        mode: "vector" (approximate kNN where many documents match, exact where few do), "exact" (brute force),
            "text" (BM25 over the text fields), or "hybrid" (vector and text, fused).
        num_candidates: considered on each shard by an approximate search; None: by the plan.
        oversample: times k quantized hits that are compared again exactly; None: as tuned, else as mapped.
        min_similarity: hits of the vector ranking below it are left out: a cosine, or a dot product.
        fields: stored fields that hits bring; None is all.
        highlight: whether hits bring the places with words of the query.
        facets: fields whose values are counted.
        facets_of: whether over all documents that "matches" the filter (and, in text mode, the words), or the "hits".
        fusion: how a hybrid search joins its rankings: "rrf" (reciprocal rank fusion), or "weighted" (weighted sum of
            the scores, each ranking's scaled to 0..1).
        weights: of "vector" and "text" in the fusion; None is 1 each.
        rerank: name or folder of a cross-encoder that ranks the first hits anew.
        rerank_depth: how many of them.
        diversity: from 0 (none) to 1: how much a hit must differ from those before it (maximal marginal relevance).
        allow_partial: whether the hits of the shards that answered are good enough where some failed or ran out of
            time; they are then marked as ``partial``. Else that is an error.
        timeout: seconds after which shards stop searching; None is the server's own.
        explain: whether to say how the search was done.
    """

    k: int = 10
    offset: int = 0
    where: str | Filter | None = None
    filter: RawFilter = None
    mode: Mode = "vector"
    num_candidates: int | None = None
    oversample: float | None = None
    min_similarity: float | None = None
    fields: Sequence[str] | None = None
    highlight: bool = False
    facets: Sequence[str] = ()
    facets_of: FacetsOf = "matches"
    fusion: Fusion = "rrf"
    weights: Mapping[str, float] | None = field(default=None)
    rerank: str | None = None
    rerank_depth: int = 50
    diversity: float | None = None
    allow_partial: bool = False
    timeout: float | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("mode", Mode), ("fusion", Fusion), ("facets_of", FacetsOf)):
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, which does not exist", f"use {', '.join(get_args(allowed))}"
                )
        for name, least in (("k", 1), ("offset", 0), ("rerank_depth", 1)):
            value = getattr(self, name)
            # True is an int, and "5" would fail much later.
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_K:
                raise ConfigError(f"{name} is {value!r}, but must be between {least} and {MAX_K}", "ask for fewer hits")
        if self.end > MAX_K:
            raise ConfigError(
                f"offset + k is {self.end}, but must be at most {MAX_K}", "ask for fewer hits, or by a narrower filter"
            )
        self._check_numbers()
        self._check_combination()

    @property
    def end(self) -> int:
        """Rank of the last hit that is asked for."""
        return self.offset + self.k

    @property
    def by_vector(self) -> bool:
        """Whether vectors are compared."""
        return self.mode != "text"

    @property
    def by_text(self) -> bool:
        """Whether words are."""
        return self.mode in ("text", "hybrid")

    @property
    def depth(self) -> int:
        """How many hits each ranking gives, for those that are asked for to be found among them."""
        depth = self.end
        if self.rerank is not None:
            depth = max(depth, self.rerank_depth)
        if self.diversity is not None:
            depth = max(depth, _LEAST_OF_DIVERSITY * self.end)
        if self.mode == "hybrid":
            depth = max(depth, _LEAST_OF_A_LEG)
        return min(depth, MAX_K)

    def _check_numbers(self) -> None:
        if self.diversity is not None and not 0 <= self.diversity <= 1:
            raise ConfigError(f"diversity is {self.diversity}, but must be between 0 and 1")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"timeout is {self.timeout}, but must be more than 0 seconds")
        if self.oversample is not None and not (self.oversample == 0 or 1 <= self.oversample <= MAX_K):
            raise ConfigError(f"oversample is {self.oversample}, but must be 0 or at least 1")
        if self.num_candidates is not None and not self.end <= self.num_candidates <= MAX_K:
            raise ConfigError(
                f"num_candidates is {self.num_candidates}, but must be between k ({self.end}) and {MAX_K}"
            )

    def _check_combination(self) -> None:
        if isinstance(self.fields, str) or isinstance(self.facets, str):
            raise ConfigError("fields and facets are lists of names", 'write ["year"], not "year"')
        if not self.by_vector:
            for name in ("num_candidates", "oversample", "min_similarity"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} is about vectors, which mode 'text' does not compare", "leave it out")
        if self.weights is not None:
            if self.mode != "hybrid":
                raise ConfigError("weights are those of the rankings of mode 'hybrid'", "leave them out")
            if unknown := sorted(set(self.weights) - {"vector", "text"}):
                raise ConfigError(f"there is no ranking {unknown[0]!r} to weigh", "weigh 'vector' and 'text'")
