"""How much of what an exact search finds an approximate one finds, on the live index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from esvector.encode.encoder import Encoder
from esvector.errors import ConfigError
from esvector.evaluate.live import Live, look_up
from esvector.evaluate.probing import Interval, Latency, Probe, Probed, interval, latency, probe
from esvector.evaluate.queries import Query, encode_queries, sample_documents
from esvector.evaluate.truth import Truth, find_truth
from esvector.search.options import MAX_K

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["RecallPoint", "RecallReport", "measure_recall"]

_SAMPLE = 100
_WORST = 10  # percentile of the queries


@dataclass(frozen=True, slots=True)
class RecallPoint:
    """Recall at one ``k``, under one filter and one ``num_candidates``, of so many ``queries``.

    Attributes:
        k: how many hits were asked for.
        where: the filter; None for none.
        num_candidates: as it was asked for; None is what a search asks for by itself.
        oversample: likewise.
        queries: how many were asked.
        documents: that match the filter and have a vector.
        selectivity: their share of all that have a vector.
        recall: mean share of the exact k nearest documents that were found.
        interval: of that mean, at 95 % confidence.
        worst_decile: one query in ten finds this share or less.
        approximate: seconds of a search.
        exact: seconds of an exact search for the most hits.
    """

    k: int
    where: str | None
    num_candidates: int | None
    oversample: float | None
    queries: int
    documents: int
    selectivity: float
    recall: float
    interval: Interval
    worst_decile: float
    approximate: Latency
    exact: Latency


@dataclass(frozen=True, slots=True)
class RecallReport:
    """What was measured on ``index``, with queries of a "file" or stored "documents", drawn by ``seed``."""

    alias: str
    index: str
    vector_type: str
    source: Literal["file", "documents"]
    seed: int
    points: tuple[RecallPoint, ...]


def measure_recall(
    client: Elasticsearch,
    alias: str,
    *,
    queries: Sequence[str] | None = None,
    sample: int = _SAMPLE,
    k: Sequence[int] = (10, 100),
    where: Sequence[str | None] = (None,),
    num_candidates: Sequence[int | None] = (None,),
    oversample: float | None = None,
    seed: int = 0,
    encoder: Encoder | None = None,
    device: str | None = None,
    query_cache: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> RecallReport:
    """Search ``alias`` approximately and exactly for the same queries, and compare what is found.

    ``queries`` are texts; without them ``sample`` documents are drawn, and searched for by their own vectors. Every
    combination of ``k``, ``where`` (None: no filter) and ``num_candidates`` (None: as a search does by itself) is
    measured, with ``oversample``; ``num_candidates`` less than k are left out. ``progress`` is called with what is
    being done, how many queries are through, and of how many. The same ``seed`` gives the same report of an index that
    stays as it is, but for the times.

    Raises ConfigError for numbers out of range, FilterError, SearchError, and what opening the encoder raises.
    """
    probes = _probes(k, num_candidates, oversample)
    live = look_up(client, alias)
    filters = {expression: live.filters(expression) for expression in where}
    asked = find_queries(client, live, queries, sample, seed, encoder=encoder, device=device, query_cache=query_cache)
    points: list[RecallPoint] = []
    for expression, clauses in filters.items():
        named = "" if expression is None else f", {expression}"
        tick = ticks(progress, f"searching exactly{named}", len(asked))
        truth = find_truth(client, live, asked, max(k), clauses, tick)
        tick = ticks(progress, f"searching{named}", len(asked))
        found = probe(client, live, asked, probes, truth, expression, seed=seed, done=tick)
        points += [_point(one, expression, found[one], truth, seed) for one in probes]
    source: Literal["file", "documents"] = "documents" if queries is None else "file"
    return RecallReport(alias, live.name, live.vector_type, source, seed, tuple(points))


def find_queries(
    client: Elasticsearch,
    live: Live,
    queries: Sequence[str] | None,
    sample: int,
    seed: int,
    *,
    encoder: Encoder | None,
    device: str | None,
    query_cache: Path | None,
) -> list[Query]:
    """Return the queries of a measurement: the texts that were given, encoded, else ``sample`` stored documents."""
    if queries is not None:
        return encode_queries(live, queries, encoder=encoder, device=device, cache=query_cache)
    if not 1 <= sample <= MAX_K:
        raise ConfigError(f"the sample has {sample} documents", f"draw 1 to {MAX_K:,}")
    return sample_documents(client, live, sample, seed)


def check_probes(probes: Sequence[Probe]) -> None:
    """Raise ConfigError for a number that the server would refuse."""
    for one in probes:
        # A document that is searched for by its own vector is one more hit.
        if not 1 <= one.k < MAX_K:
            raise ConfigError(f"k is {one.k}, but must be between 1 and {MAX_K - 1}", "ask for fewer hits")
        if one.num_candidates is not None and not one.k <= one.num_candidates <= MAX_K:
            raise ConfigError(
                f"num_candidates is {one.num_candidates}, but must be between k ({one.k}) and {MAX_K}",
                "consider as many as are asked for, or more",
            )
        if one.oversample is not None and one.oversample != 0 and one.oversample < 1:
            raise ConfigError(f"oversample is {one.oversample:g}", "use 0 (no rescoring) or at least 1")


def _probes(k: Sequence[int], num_candidates: Sequence[int | None], oversample: float | None) -> list[Probe]:
    every = [Probe(each, candidates, oversample) for each in k for candidates in num_candidates]
    fitting = [one for one in every if one.num_candidates is None or one.num_candidates >= one.k]
    check_probes(fitting or every)
    return fitting


def _point(one: Probe, where: str | None, found: Probed, truth: Truth, seed: int) -> RecallPoint:
    return RecallPoint(
        k=one.k,
        where=where,
        num_candidates=one.num_candidates,
        oversample=one.oversample,
        queries=len(found.recalls),
        documents=truth.documents,
        selectivity=truth.documents / truth.everything if truth.everything else 0.0,
        recall=float(np.mean(found.recalls)),
        interval=interval(found.recalls, seed),
        worst_decile=float(np.percentile(found.recalls, _WORST)),
        approximate=latency(found.seconds),
        exact=latency(truth.seconds),
    )


def ticks(progress: Callable[[str, int, int], None], phase: str, total: int) -> Callable[[], None]:
    """Return what counts calls, and tells ``progress``."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(phase, done, total)

    progress(phase, 0, total)
    return tick
