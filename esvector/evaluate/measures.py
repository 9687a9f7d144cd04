"""The measures of a ranking, all of them computed by ir-measures (which asks trec_eval's own code for most)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from esvector.errors import ConfigError, require
from esvector.evaluate.formats import Qrels, Run

__all__ = ["DEFAULT_MEASURES", "largest_cutoff", "measure_run", "parse_measures"]

DEFAULT_MEASURES = "nDCG@10 R@100 RR@10"

_MAX_CUTOFF = 10_000  # hits that a search of Elasticsearch can have
_ALLOWED = (
    "name some of nDCG@10, R@10, RR@10, P@10, AP@10, Success@10, Judged@10, with any cutoff from 1 to 10,000; "
    "nDCG, RR, AP, Judged without one; Rprec, Bpref, infAP, IPrec@0.1, SetP, SetR, SetF, SetAP, Compat; "
    "parameters as in P(rel=2)@5; a space between two measures and none within"
)


def parse_measures(names: str | Iterable[str]) -> tuple[Any, ...]:
    """Return the measures of ir-measures that ``names`` are: a list, or a string of them with spaces between.

    Each is there once, in the order they came; MRR@10 and RR@10 are the same. Raises ConfigError with all that are
    unknown or cannot be computed, MissingExtraError without ir-measures.
    """
    require("evaluate", "ir_measures", "pytrec_eval")
    measures: dict[str, Any] = {}
    bad = []
    for name in names.split() if isinstance(names, str) else names:
        try:
            measure = _parse(name)
        except (AssertionError, NameError, TypeError, ValueError):
            bad.append(name)
        else:
            measures[str(measure)] = measure
    if bad:
        raise ConfigError(f"no such measure: {', '.join(bad)}", _ALLOWED)
    if not measures:
        raise ConfigError("no measure is named", _ALLOWED)
    return tuple(measures.values())


def largest_cutoff(measures: Iterable[Any]) -> int | None:
    """Return how many hits the measures look at, at most; None where none of them has a cutoff."""
    return max((cutoff for measure in measures if (cutoff := measure.params.get("cutoff"))), default=None)


def measure_run(
    run: Run, qrels: Qrels, measures: Iterable[Any]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return the value of each measure over all queries of ``qrels``, and by query.

    A query that ``run`` does not have found nothing.
    """
    measures = list(measures)
    found = _pipeline().calc(measures, qrels, {query: _by_rank(hits) for query, hits in run.items() if query in qrels})
    values = {(metric.query_id, metric.measure): float(metric.value) for metric in found.per_query}
    by_query = {query: {str(measure): values[query, measure] for measure in measures} for query in qrels}
    return {str(measure): float(found.aggregated[measure]) for measure in measures}, by_query


def _by_rank(hits: Mapping[str, float]) -> dict[str, float]:
    """Scores that no two hits share, so that every measure sees the ranking that the user sees.

    Of equal scores, and it compares them as 32-bit floats, trec_eval would take the larger document id first, and
    ir-measures' RR@10 the one that came first.
    """
    ranking = sorted(hits, key=hits.__getitem__, reverse=True)
    return {document: float(-rank) for rank, document in enumerate(ranking)}


def _parse(name: str) -> Any:  # noqa: ANN401  # ir-measures has no types
    import ir_measures

    measure = ir_measures.parse_measure(name)
    cutoff = measure.params.get("cutoff", 1)
    pipeline = _pipeline()
    # A cutoff below 1 makes trec_eval's code crash the process. Counts such as NumRet have no mean.
    if not 1 <= cutoff <= _MAX_CUTOFF or not pipeline.supports(measure):
        raise ValueError
    if not isinstance(measure.aggregator(), ir_measures.MeanAgg):
        raise ValueError
    pipeline.calc([measure], {"q": {"d": 1}}, {"q": {"d": 1.0}})  # what is left of mistakes comes to light
    return measure


def _pipeline() -> Any:  # noqa: ANN401
    """What computes the measures: those parts of ir-measures that need no Perl and no download."""
    import ir_measures

    parts = [ir_measures.pytrec_eval, ir_measures.judged, ir_measures.msmarco, ir_measures.compat]
    return ir_measures.providers.FallbackProvider(parts)
