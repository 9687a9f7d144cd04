"""How to search vectors: over all that match, exactly, where they are few; else by the graph, and how widely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from esvector.search.options import MAX_K, SearchOptions
from esvector.search.target import Target

__all__ = ["SCAN_UP_TO", "Matches", "Plan", "default_candidates", "exact_plan", "make_plan"]

SCAN_UP_TO = 5_000
"""Vectors that are compared one by one rather than by the graph: a few milliseconds (docs/search.md)."""

# Of 34,375 film articles (384 dims, int8), the graph finds 0.990 of the ten nearest with 100 candidates and 0.996 with
# 200; of the half that matches a filter 0.961 with 100 and 0.991 with 500, in 2 ms more (bench/recall.py).
_CANDIDATES, _LEAST_CANDIDATES = 10, 200
_FILTERED_CANDIDATES, _LEAST_FILTERED_CANDIDATES = 20, 500
# Of the few that match, all are compared by their quantized vectors, and so many of the best again by their raw ones.
_LEAST_RESCORED = 500
_RESCORED = 10  # times the hits that are wanted
_OVERSAMPLE = 2.0  # where a mapping says nothing of rescoring: int8 scores would be off by 1e-3 else (9.5.3)


@dataclass(frozen=True, slots=True)
class Matches:
    """How many documents match a filter, and how many vectors they have: one each, or one for each passage.

    ``at_least`` says that counting ended there.
    """

    documents: int
    vectors: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How vectors are searched, and why.

    "kNN" goes by the graph. "scan" compares all that match, as few as they are, in one request, and the best of them
    again by their raw vectors. "exact" does so with every one, in as many requests as it takes. ``num_candidates`` and
    ``oversample`` are those of the first two.
    """

    name: Literal["kNN", "scan", "exact"]
    num_candidates: int
    oversample: float | None
    why: str
    matches: Matches | None = None


def make_plan(options: SearchOptions, target: Target, matches: Matches | None) -> Plan:
    """Choose by how many documents match; ``matches`` is None where no filter restricts them."""
    if options.mode == "exact":
        return exact_plan(matches, "mode 'exact' compares every document that matches")
    candidates, source = _candidates(options, target, filtered=matches is not None)
    oversample = options.oversample
    if oversample is None and target.passport.search is not None:
        oversample = target.passport.search.oversample
    if oversample is None and target.quantized and not target.rescored:
        oversample = _OVERSAMPLE
    if options.num_candidates is None and matches is not None and matches.vectors <= SCAN_UP_TO:
        # One bit for each dimension can leave the best one behind 500 others (tests/server/test_search_oracle.py).
        rescored = SCAN_UP_TO if target.binary else max(_LEAST_RESCORED, _RESCORED * options.depth)
        why = f"few match, at most {SCAN_UP_TO:,}, and comparing each is as quick as a graph"
        # As many candidates as there can be make the server compare each (9.5.3).
        return Plan("scan", MAX_K, max(oversample or 0, min(rescored, MAX_K) / options.depth), why, matches)
    return Plan("kNN", candidates, oversample, source, matches)


def exact_plan(matches: Matches | None, why: str) -> Plan:
    """Compare every document that matches."""
    return Plan("exact", MAX_K, None, why, matches)


def default_candidates(k: int, *, filtered: bool) -> int:
    """How many candidates of each shard are considered for ``k`` hits of an index that was not tuned."""
    times, least = (_FILTERED_CANDIDATES, _LEAST_FILTERED_CANDIDATES) if filtered else (_CANDIDATES, _LEAST_CANDIDATES)
    return min(MAX_K, max(least, times * k))


def _candidates(options: SearchOptions, target: Target, *, filtered: bool) -> tuple[int, str]:
    if options.num_candidates is not None:
        return max(options.num_candidates, options.depth), "num_candidates is what the search asks for"
    tuned = target.passport.search
    if tuned is not None:
        scaled = math.ceil(tuned.num_candidates * max(1.0, options.depth / tuned.k))
        found = "" if tuned.recall is None else f", with a recall of {tuned.recall:.3f}"
        return min(MAX_K, max(scaled, options.depth)), f"num_candidates is as tuned for k = {tuned.k}{found}"
    candidates = default_candidates(options.depth, filtered=filtered)
    return candidates, f"many match: the graph is searched with {candidates:,} candidates for {options.depth:,} hits"
