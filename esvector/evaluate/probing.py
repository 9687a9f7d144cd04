"""Approximate searches of one index under several settings, in turns: what each finds, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from esvector.errors import require
from esvector.evaluate.live import Live, ask
from esvector.evaluate.queries import Query
from esvector.evaluate.truth import Truth
from esvector.search.requests import knn_body

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["CONFIDENCE", "Interval", "Latency", "Probe", "Probed", "interval", "latency", "probe"]

CONFIDENCE = 0.95
_RESAMPLES = 2000
_WARM_UP = 5  # queries whose time does not count: caches are empty, and the server's code is not compiled


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
    filters: Sequence[Mapping[str, Any]] = (),
    *,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> dict[Probe, Probed]:
    """Search for every query by every probe, one search at a time; ``done`` is called after each query.

    The probes take turns, in an order drawn anew for each query, so that nothing else that the machine does is to the
    merit or the cost of one of them.
    """
    draw = np.random.default_rng(seed)
    found = {one: Probed() for one in probes}
    for query in queries[:_WARM_UP]:
        for one in found:
            ask(client, live.name, _body(live, query, one, filters))
    for number, query in enumerate(queries):
        for place in draw.permutation(len(probes)).tolist():
            one = probes[place]
            body = _body(live, query, one, filters)
            started = time.perf_counter()
            answer = ask(client, live.name, body)
            found[one].seconds.append(time.perf_counter() - started)
            ids = [hit["_id"] for hit in answer["hits"]["hits"] if hit["_id"] != query.id]
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


def _body(live: Live, query: Query, one: Probe, filters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a search as a user's is, but for the stored fields, which take the same time whatever is probed.

    A document is not left out of its own neighbours by a filter, which would be another way of searching: one more is
    asked for.
    """
    own = query.id is not None
    candidates = one.num_candidates
    body = knn_body(
        live.passport.vector_field,
        query.vector,
        one.k + own,
        num_candidates=None if candidates is None else max(candidates, one.k + own),
        filters=filters,
        passages=live.passages,
    )
    if one.oversample is not None:
        body["knn"]["rescore_vector"] = {"oversample": one.oversample}
    return body | {"_source": False}
