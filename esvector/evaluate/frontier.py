"""Ways of searching, measured: which of them are worth considering, and which is the cheapest that is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esvector.evaluate.probing import Interval, Latency

__all__ = ["Goal", "Trial", "choose", "find_frontier", "nearest"]

_AS_FAST = 1.05  # times the fastest median: the difference is within what two measurements of one setting differ


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted: ``recall`` at least, and ``p95`` seconds at most (None: whatever it takes)."""

    recall: float
    p95: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One way of searching, measured on the live index or on a sample copy of it.

    Attributes:
        live: whether the live index was searched; a copy has other vectors, fewer of them, and no filters.
        vector_type: type of the vector field's ``index_options``.
        m: neighbours of a vector in the graph; None where there is no graph.
        ef_construction: candidates that the graph was built with.
        num_candidates: what searches asked for.
        oversample: likewise; None where there is nothing to rescore.
        recall: mean share of the exact nearest documents that were found; under the filter that is worst.
        interval: of that mean, at 95 % confidence.
        latency: seconds of a search; under the filter that is slowest.
        bytes_per_million: memory for a fast search of a million vectors.
        where: the filter under which ``recall`` was lowest; None for none.
    """

    live: bool
    vector_type: str
    m: int | None
    ef_construction: int | None
    num_candidates: int
    oversample: float | None
    recall: float
    interval: Interval
    latency: Latency
    bytes_per_million: int
    where: str | None = None

    def meets(self, goal: Goal) -> bool:
        """Whether it reaches ``goal``: with the lower end of its interval, so that chance alone does not do it."""
        return self.interval.low >= goal.recall and self.in_time(goal)

    def in_time(self, goal: Goal) -> bool:
        """Whether it is as fast as ``goal`` wants it."""
        return goal.p95 is None or self.latency.p95 <= goal.p95


def find_frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Return those that no other beats, the fastest first: each finds more than everything that is faster."""
    best = -1.0
    found = []
    for trial in sorted(trials, key=lambda trial: (trial.latency.p50, -trial.recall)):
        if trial.recall > best:
            best = trial.recall
            found.append(trial)
    return found


def choose(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Return the cheapest that meets ``goal``: the one that finds most of those that are as fast as the fastest.

    As fast is a median within 5 %. None when none meets it.
    """
    good = [trial for trial in trials if trial.meets(goal)]
    if not good:
        return None
    limit = _AS_FAST * min(trial.latency.p50 for trial in good)
    return max((trial for trial in good if trial.latency.p50 <= limit), key=lambda t: (t.recall, -t.num_candidates))


def nearest(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """Return what comes nearest to a goal that none meets: the best that is in time, else the fastest good enough.

    Where none is either, it is the fastest of all; None of no trials.
    """
    if in_time := [trial for trial in trials if trial.in_time(goal)]:
        return max(in_time, key=lambda trial: (trial.interval.low, trial.recall, -trial.latency.p50))
    enough = [trial for trial in trials if trial.interval.low >= goal.recall]
    return min(enough or trials, key=lambda trial: trial.latency.p95, default=None)
