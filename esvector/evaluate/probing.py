"""Approximate searches of one index under several settings, in turns: what each finds, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.errors import require
from esvector.evaluate.live import Live, ask, ask_many
from esvector.evaluate.queries import Query
from esvector.evaluate.truth import Truth
from esvector.search.conditions import Conditions
from esvector.search.needs import Need, Send, Steps, run
from esvector.search.options import SearchOptions
from esvector.search.retrieval import Question, by_vector, choose_plan
from esvector.types import Hit, SearchSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["CONFIDENCE", "Interval", "Latency", "Probe", "Probed", "interval", "latency", "probe"]

CONFIDENCE = 0.95
_RESAMPLES = 2000
_WARM_UP = 2  # queries whose time does not count: caches are empty, and the server's code is not compiled


@dataclass(frozen=True, slots=True)
class Probe:
    """One way of searching: ``num_candidates`` and ``oversample`` None are what a search does by itself."""

    k: int
    num_candidates: int | None = None
    oversample: float | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a mean lies with a probability of ``CONFIDENCE``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of a search as a client sees them: the median, and what 95 of 100 searches stay under."""

    p50: float
    p95: float


@dataclass(slots=True)
class Probed:
    """What a probe found: recall and seconds of each query."""

    recalls: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def probe(
    client: Elasticsearch,
    live: Live,
    queries: Sequence[Query],
    probes: Sequence[Probe],
    truth: Truth,
    where: str | None = None,
    *,
    as_stored: bool = False,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> dict[Probe, Probed]:
    """Search for every query by every probe, one search at a time; ``done`` is called after each query.

    ``as_stored`` are the probes' numbers those of the passport, not of the search: a plan may then do without them.

    The probes take turns, in an order drawn anew for each query, so that nothing else that the machine does is to the
    merit or the cost of one of them.
    """
    draw = np.random.default_rng(seed)
    found = {one: Probed() for one in probes}
    for query in queries[:_WARM_UP]:
        for one in found:
            _search(client, live, query, one, where, as_stored=as_stored)
    for number, query in enumerate(queries):
        for place in draw.permutation(len(probes)).tolist():
            one = probes[place]
            started = time.perf_counter()
            hits = _search(client, live, query, one, where, as_stored=as_stored)
            found[one].seconds.append(time.perf_counter() - started)
            ids = [hit.id for hit in hits if hit.id != query.id]
            found[one].recalls.append(truth.recall(number, ids, one.k))
        done()
    return found


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the confidence interval of the mean of ``values``, one of each query, by a bootstrap over the queries.

    Bias-corrected and accelerated (BCa), because recall is far from normal near 1. Raises MissingExtraError without
    scipy.
    """
    require("evaluate", "scipy")
    from scipy import stats

    sample: NDArray[np.float64] = np.asarray(values, np.float64)
    if len(sample) < 2 or np.ptp(sample) == 0:  # nothing varies, so a bootstrap has nothing to say
        return Interval(float(sample.mean()), float(sample.mean()))
    found = stats.bootstrap(
        (sample,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def latency(seconds: Sequence[float]) -> Latency:
    """Return the median and the 95th percentile."""
    p50, p95 = np.percentile(seconds, [50, 95]).tolist()
    return Latency(p50, p95)


def _search(
    client: Elasticsearch, live: Live, query: Query, one: Probe, where: str | None, *, as_stored: bool
) -> list[Hit]:
    """Search as a ``Searcher`` does from the vector on: with its plan, and the stored fields.

    A document is not left out of its own neighbours by a filter, which would be another way of searching: one more is
    asked for.
    """
    k = one.k + (query.id is not None)
    candidates = None if one.num_candidates is None else max(one.num_candidates, k)
    target = live.target
    if as_stored and candidates is not None:
        settings = SearchSettings(candidates, k, one.oversample)
        target = replace(target, passport=replace(target.passport, search=settings))
        options = SearchOptions(k=k, where=where)
    else:
        options = SearchOptions(k=k, where=where, num_candidates=candidates, oversample=one.oversample)
    question = Question(target, options, Conditions.of(target, None, where))

    def steps() -> Steps[list[Hit]]:
        plan = yield from choose_plan(question)
        _, (hits,) = yield from by_vector(question, plan, [list(query.vector)])
        return hits

    def perform(need: Need) -> list[Mapping[str, Any]]:
        assert isinstance(need, Send)  # noqa: S101  # nothing has to be encoded or looked up
        bodies = need.bodies
        return [ask(client, live.name, bodies[0])] if len(bodies) == 1 else ask_many(client, live.name, bodies)

    return run(steps(), perform)
