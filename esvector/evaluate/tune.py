"""Finding how to search an index: the cheapest settings that find enough, and what other vector types would give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esvector.client import describe_server
from esvector.encode.encoder import Encoder
from esvector.errors import ConfigError
from esvector.evaluate.frontier import Goal, Trial, choose, find_frontier, nearest
from esvector.evaluate.live import Live, look_up
from esvector.evaluate.memory import bytes_per_million
from esvector.evaluate.probing import Latency, Probe, Probed, interval, latency, probe
from esvector.evaluate.queries import Query
from esvector.evaluate.recall import check_probes, find_queries, ticks
from esvector.evaluate.sample_copy import read_sample, sample_copy
from esvector.evaluate.truth import Truth, find_truth
from esvector.index.settings import store_settings
from esvector.index.sizes import vector_types
from esvector.search.options import MAX_K
from esvector.types import SearchSettings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["CopyOptions", "TuneReport", "tune"]

_SAMPLE = 200
# Times k: what num_candidates are tried. Beyond, a search is slower and finds no more but in the worst of cases.
_STEPS = (1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 100)
_OVERSAMPLES = {"int8": (1.0, 2.0, 3.0), "int4": (1.0, 2.0, 3.0, 5.0), "bbq": (2.0, 3.0, 5.0, 10.0)}
_M, _EF_CONSTRUCTION = 16, 100  # Elasticsearch's own (9.5.3), where a mapping says nothing

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """Which vector types are tried on a copy of at most ``documents``; () is all that the vectors' dims allow.

    ``m`` and ``ef_construction`` () are those of the live index.
    """

    documents: int = 20_000
    types: tuple[str, ...] = ()
    m: tuple[int, ...] = ()
    ef_construction: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What was measured on ``index``, with so many ``queries`` drawn by ``seed``, for ``k`` hits.

    Attributes:
        trials: everything that was measured.
        frontier: of the live index, what no other trial beats.
        copied: documents of the sample copies; 0 where there were none.
        chosen: the cheapest trial of the live index that meets ``goal``; None when none does.
        nearest: in that case, the one that comes nearest.
        settings: what ``chosen`` comes to.
        stored: whether the settings are in the index's passport now.
    """

    alias: str
    index: str
    goal: Goal
    k: int
    queries: int
    seed: int
    documents: int
    trials: tuple[Trial, ...]
    frontier: tuple[Trial, ...]
    copied: int = 0
    chosen: Trial | None = None
    nearest: Trial | None = None
    settings: SearchSettings | None = None
    stored: bool = False


def tune(
    client: Elasticsearch,
    alias: str,
    *,
    recall: float = 0.95,
    p95: float | None = None,
    k: int = 10,
    where: Sequence[str | None] = (None,),
    queries: Sequence[str] | None = None,
    sample: int = _SAMPLE,
    copy: CopyOptions | None = None,
    store: bool = True,
    seed: int = 0,
    encoder: Encoder | None = None,
    device: str | None = None,
    query_cache: Path | None = None,
    state: Path | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> TuneReport:
    """Measure ways of searching ``alias`` for ``k`` hits, and choose the cheapest that finds ``recall`` in time.

    Cheapest is the lowest median time. It has to find ``recall`` with the lower end of its confidence interval, under
    every filter of ``where``, and 95 of 100 searches in ``p95`` seconds. With ``store`` it goes into the passport, from
    where later searches take it. ``queries`` and the arguments after ``seed`` are those of ``measure_recall``; with
    ``copy`` other vector types are measured, too, on temporary indices that are always deleted again.

    Raises ConfigError for numbers out of range, what ``measure_recall`` raises, and what ``store_settings`` does.
    """
    if not 0 < recall <= 1:
        raise ConfigError(f"the recall is {recall:g}", "state a share, such as 0.95")
    if p95 is not None and p95 <= 0:
        raise ConfigError(f"the 95th percentile is {p95:g} s", "state more than 0, or leave it out")
    live = look_up(client, alias)
    probes = _probes(live.vector_type, k)
    check_probes(probes)
    filters = {expression: live.filters(expression) for expression in where}
    asked = find_queries(client, live, queries, sample, seed, encoder=encoder, device=device, query_cache=query_cache)
    trials, documents = _measure_live(client, live, asked, probes, filters, seed, progress)
    goal = Goal(recall, p95)
    chosen = choose(trials, goal)
    copied: list[Trial] = []
    copies = 0
    if copy is not None:
        copied, copies = _measure_copies(client, live, asked, k, copy, seed, progress)
    settings = None
    if chosen is not None:
        settings = SearchSettings(chosen.num_candidates, k, chosen.oversample, round(chosen.recall, 4))
        if store:
            store_settings(client, alias, settings, index=live.name, state=state)
    return TuneReport(
        alias=alias,
        index=live.name,
        goal=goal,
        k=k,
        queries=len(asked),
        seed=seed,
        documents=documents,
        trials=(*trials, *copied),
        frontier=tuple(find_frontier(trials)),
        copied=copies,
        chosen=chosen,
        nearest=None if chosen is not None else nearest(trials, goal),
        settings=settings,
        stored=store and settings is not None,
    )


def _probes(vector_type: str, k: int) -> list[Probe]:
    """What to try: numbers of candidates, each with the oversamples that make a difference to it."""
    family = vector_type.partition("_")[0]
    candidates = list(dict.fromkeys(min(MAX_K, max(1, round(step * k))) for step in _STEPS))
    if family not in _OVERSAMPLES:
        return [Probe(k, each) for each in candidates]
    # Oversampling considers at least k * oversample candidates, whatever num_candidates says (9.5.3).
    return [Probe(k, each, over) for over in _OVERSAMPLES[family] for each in candidates if each >= k * over]


def _measure_live(
    client: Elasticsearch,
    live: Live,
    queries: Sequence[Query],
    probes: Sequence[Probe],
    filters: Mapping[str | None, Sequence[Mapping[str, Any]]],
    seed: int,
    progress: Progress,
) -> tuple[list[Trial], int]:
    """Measure the live index, under each filter; return the worst of each probe, and the documents there are."""
    found: dict[Probe, dict[str | None, Probed]] = {one: {} for one in probes}
    everything = 0
    for expression, clauses in filters.items():
        named = "" if expression is None else f", {expression}"
        tick = ticks(progress, f"searching exactly{named}", len(queries))
        truth = find_truth(client, live, queries, probes[0].k, clauses, tick)
        everything = truth.everything
        tick = ticks(progress, f"trying {len(probes)} settings{named}", len(queries))
        for one, probed in probe(
            client, live, queries, probes, truth, expression, as_stored=True, seed=seed, done=tick
        ).items():
            found[one][expression] = probed
    memory = bytes_per_million(client, live)
    return [_trial(live, one, found[one], memory, seed, of_live=True) for one in probes], everything


def _measure_copies(
    client: Elasticsearch,
    live: Live,
    queries: Sequence[Query],
    k: int,
    options: CopyOptions,
    seed: int,
    progress: Progress,
) -> tuple[list[Trial], int]:
    """Measure every vector type that is asked for on a copy of its own; return the trials, and the documents copied."""
    wanted = _index_options(client, live, options)
    progress("reading a sample", 0, 1)
    stored = read_sample(client, live, options.documents)
    truth: Truth | None = None
    trials: list[Trial] = []
    for index_options in wanted:
        named = _named(index_options)
        progress(f"building {named}", 0, 1)
        with sample_copy(client, live, stored, index_options) as copy:
            if truth is None:  # the vectors are the same in every copy
                truth = find_truth(client, copy, queries, k, (), ticks(progress, "searching exactly", len(queries)))
            probes = _probes(copy.vector_type, k)
            tick = ticks(progress, f"trying {len(probes)} settings of {named}", len(queries))
            found = probe(client, copy, queries, probes, truth, seed=seed, done=tick)
            memory = bytes_per_million(client, copy)
            trials += [_trial(copy, one, {None: found[one]}, memory, seed, of_live=False) for one in probes]
    return trials, len(stored)


def _index_options(client: Elasticsearch, live: Live, options: CopyOptions) -> list[dict[str, Any]]:
    """The ``index_options`` to try. Raises ConfigError for a type that the server does not take for such vectors."""
    passport = live.passport
    possible = [
        kind
        for element_type, kind in vector_types(
            passport.encoder.dims or 0, passport.encoder.similarity or "cosine", describe_server(client)
        )
        if element_type == passport.element_type
    ]
    if refused := [kind for kind in options.types if kind not in possible]:
        raise ConfigError(
            f"{', '.join(refused)} is no graph for {passport.element_type} vectors of {passport.encoder.dims} dims",
            f"choose of {', '.join(possible)}",
        )
    own = live.vector.get("index_options", {})
    ms = options.m or (int(own.get("m", _M)),)
    efs = options.ef_construction or (int(own.get("ef_construction", _EF_CONSTRUCTION)),)
    # Elasticsearch 9.5.3 takes any m and ef_construction in a mapping and then refuses every document.
    for name, values, highest in (("m", ms, 512), ("ef_construction", efs, 3200)):
        if wrong := [value for value in values if not 1 <= value <= highest]:
            raise ConfigError(f"{name} is {wrong[0]}", f"use 1 to {highest}")
    return [
        {"type": kind, "m": m, "ef_construction": ef} for kind in options.types or possible for m in ms for ef in efs
    ]


def _named(index_options: Mapping[str, Any]) -> str:
    return f"{index_options['type']} (m {index_options['m']}, ef_construction {index_options['ef_construction']})"


def _trial(
    live: Live, one: Probe, found: Mapping[str | None, Probed], memory: int, seed: int, *, of_live: bool
) -> Trial:
    """The trial of a probe, by the filter under which it found least, and the one under which it was slowest."""
    intervals = {where: interval(probed.recalls, seed) for where, probed in found.items()}
    worst = min(intervals, key=lambda where: intervals[where].low)
    times = [latency(probed.seconds) for probed in found.values()]
    own = live.vector.get("index_options", {})
    graph = live.vector_type.endswith("hnsw")
    return Trial(
        live=of_live,
        vector_type=live.vector_type,
        m=int(own.get("m", _M)) if graph else None,
        ef_construction=int(own.get("ef_construction", _EF_CONSTRUCTION)) if graph else None,
        num_candidates=one.num_candidates or one.k,
        oversample=one.oversample,
        recall=float(np.mean(found[worst].recalls)),
        interval=intervals[worst],
        latency=Latency(max(time.p50 for time in times), max(time.p95 for time in times)),
        bytes_per_million=memory,
        where=worst,
    )
