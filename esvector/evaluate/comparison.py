"""Whether one run is better than another on the same queries, or only seems to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esvector.errors import ConfigError, require
from esvector.evaluate.judging import Evaluation

__all__ = ["ALPHA", "Comparison", "compare"]

ALPHA = 0.05
"""Below this p value a difference counts as significant."""

_RESAMPLES = 9_999
_SAME = 1e-9  # differences of this size come from adding up in another order


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure of two evaluations.

    Attributes:
        measure: its name.
        value: its mean in the first.
        other: its mean in the second.
        difference: ``value - other``.
        p: how often a difference as large comes about where both are equally good.
        wins: queries for which the first is better.
        ties: queries for which both are as good.
        losses: queries for which the second is better.
    """

    measure: str
    value: float
    other: float
    difference: float
    p: float
    wins: int
    ties: int
    losses: int

    def is_worse(self, *, alpha: float = ALPHA, tolerance: float = 0.0) -> bool:
        """Whether the first is worse: its mean is lower by more than ``tolerance``, and ``p < alpha``."""
        return self.difference < -tolerance - _SAME and self.p < alpha


def compare(one: Evaluation, other: Evaluation) -> tuple[Comparison, ...]:
    """Compare two evaluations of the same queries, by each measure that both have.

    p is that of a paired randomization test on the mean difference, two-sided: had both searches been equally good,
    each query's difference could as well have had the other sign. Nothing is assumed about how the differences are
    distributed; those of RR or R take a handful of values, most of them 0, which a t-test does not expect (Smucker,
    Allan and Carterette, CIKM 2007). Each measure is tested by itself: of several, compare p with alpha divided by
    their number. Raises ConfigError where the queries differ or no measure is common.
    """
    require("evaluate", "scipy")
    if one.by_query.keys() != other.by_query.keys():
        only = sorted(one.by_query.keys() ^ other.by_query.keys())
        raise ConfigError(
            f"the two were judged on different queries: {len(only):,} are in one only, such as {only[0]!r}",
            "judge both with the same queries and judgements",
        )
    measures = [measure for measure in one.values if measure in other.values]
    if not measures:
        raise ConfigError(
            f"no measure is common to {', '.join(one.values)} and {', '.join(other.values)}", "measure both alike"
        )
    return tuple(_compare(measure, one, other) for measure in measures)


def _compare(measure: str, one: Evaluation, other: Evaluation) -> Comparison:
    differences = [values[measure] - other.by_query[query][measure] for query, values in one.by_query.items()]
    wins, losses = _count(differences, 1), _count(differences, -1)
    return Comparison(
        measure=measure,
        value=one.values[measure],
        other=other.values[measure],
        difference=one.values[measure] - other.values[measure],
        p=_p_value(differences),
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
    )


def _count(differences: Iterable[float], sign: int) -> int:
    return sum(sign * difference > _SAME for difference in differences)


def _p_value(differences: Sequence[float]) -> float:
    """Return p of the randomization test; the same differences always give the same."""
    import numpy as np
    from scipy.stats import permutation_test

    # A difference of 0 is the same with the other sign: without them the test is the same, and exact up to 13 queries.
    changed = np.array([difference for difference in differences if abs(difference) > _SAME])
    if len(changed) < 2:
        return 1.0
    found = permutation_test(
        (changed,),
        lambda sample, axis: sample.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
