"""A search from its options to its results: rankings, fusion, re-ranking, diversity, facets, explanation.

Nothing here waits for anything: what is needed from outside is yielded (``esvector.search.needs``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from esvector.encode.tower import unit_length
from esvector.errors import ConfigError, SearchError
from esvector.passport import Passport
from esvector.search.conditions import Conditions, Where
from esvector.search.diversity import diversify
from esvector.search.explaining import explain
from esvector.search.facets import check_facets, facets_body, read_facets
from esvector.search.fusion import reciprocal_rank, weighted
from esvector.search.needs import EncodeQueries, LookUp, Need, Rerank, Steps
from esvector.search.options import SearchOptions
from esvector.search.plan import Plan
from esvector.search.requests import read_vectors, stored_vectors_body, words
from esvector.search.results import Facet, Results
from esvector.search.retrieval import AliasMoved, Question, Vector, ask, by_text, by_vector, choose_plan
from esvector.search.target import Target, find_fields
from esvector.types import Hit, Leg

__all__ = ["of_current_target", "pose", "results_of", "search_steps", "stored_vectors"]

T = TypeVar("T")

_FETCHED = 1000  # vectors in one answer: of many queries together there may be more than an answer can hold
_MOVES = 3  # lookups of an alias that moves while it is searched


def search_steps(alias: str, queries: Sequence[str], options: SearchOptions, scope: Where) -> Steps[list[Results]]:
    """The results of each query. Raises as ``Searcher.search``."""
    if empty := [n for n, text in enumerate(queries) if not text.strip()]:
        raise ConfigError(f"query {empty[0] + 1} is empty", "write what you are looking for")

    def steps(target: Target) -> Steps[list[Results]]:
        question = pose(target, options, scope)
        plan = (yield from choose_plan(question)) if options.by_vector else None
        vectors: list[Vector] | None = None
        needs: list[Need] = []
        if options.by_vector:
            encode = EncodeQueries(target.passport, list(queries))
            needs.append(encode)
            vectors = (yield encode).tolist()
        return (yield from results_of(alias, question, plan, vectors, queries, needs))

    return (yield from of_current_target(alias, steps))


def of_current_target(alias: str, steps: Callable[[Target], Steps[T]]) -> Steps[T]:
    """What ``steps`` return for the index that the alias leads to; anew where it moves meanwhile.

    Another version may have other fields and another encoder: a request made for the old one can be wrong for it.
    """
    target: Target = yield LookUp()
    for _ in range(_MOVES):
        try:
            return (yield from steps(target))
        except AliasMoved:
            target = yield LookUp(again=True)
        except SearchError as error:
            fresh: Target = yield LookUp(again=True)
            if fresh == target:
                raise error
            target = fresh
    raise SearchError(f"the alias {alias} moved {_MOVES} times during one search", "search again")


def pose(target: Target, options: SearchOptions, scope: Where) -> Question:
    """Check what is asked against the index. Raises FilterError, UnknownFieldError or ConfigError."""
    if options.fields is not None:
        find_fields(list(options.fields), target.fields)
    check_facets(options.facets, target.fields)
    if options.by_text and not target.searchable_text:
        named = ", ".join(target.passport.text_fields)
        raise ConfigError(
            f"none of the text fields of {target.index} ({named}) is mapped as text, which a search by words needs",
            "use mode 'vector', or map them as text and index the documents again",
        )
    return Question(target, options, Conditions.of(target, scope, options.where, options.filter))


def results_of(
    alias: str,
    question: Question,
    plan: Plan | None,
    vectors: Sequence[Vector] | None,
    queries: Sequence[str] | None,
    needs: list[Need],
) -> Steps[list[Results]]:
    """The results for ``vectors`` and ``queries``, of which one may be missing, after what was needed so far."""
    options, target = question.options, question.target
    rankings: dict[str, list[list[Hit]]] = {}
    if vectors is not None and plan is not None:
        plan, found = yield from by_vector(question, plan, vectors, queries)
        rankings["vector"] = [_similar_enough(hits, options) for hits in found]
    if options.by_text and queries is not None:
        rankings["text"] = yield from by_text(question, queries)
    hits = _fused(rankings, options)
    if options.rerank is not None and queries is not None:
        hits = yield from _reranked(target.passport, options, queries, hits, needs)
    if options.diversity is not None:
        hits = yield from _diversified(question, hits)
    shown = [_selected(found[options.offset : options.end], options) for found in hits]
    facets = yield from _facets(question, shown, queries)
    needs += question.sent
    return [
        Results(
            found,
            facets=counted,
            partial=question.partial,
            explanation=explain(alias, question, plan, row, queries, needs) if options.explain else None,
        )
        for row, (found, counted) in enumerate(zip(shown, facets, strict=True))
    ]


def mean_vector(vectors: Sequence[Sequence[float]], passport: Passport) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One vector for a document: (dims,) float32, the mean of its passages', of equal weight where directions count."""
    stored = np.asarray(vectors, np.float32)
    if passport.encoder.similarity != "dot" and len(stored) > 1:
        stored = unit_length(stored)
    return np.asarray(stored.mean(axis=0), np.float32)


def _similar_enough(hits: list[Hit], options: SearchOptions) -> list[Hit]:
    # By the exact scores of hits, where the server's own parameter would go by quantized ones (9.5.3).
    least = options.min_similarity
    return hits if least is None else [hit for hit in hits if hit.score >= least]


def _fused(rankings: Mapping[str, list[list[Hit]]], options: SearchOptions) -> list[list[Hit]]:
    if len(rankings) == 1:
        ((name, found),) = rankings.items()
        # What comes after it keeps what it said of a hit.
        return [_with_legs(hits, name) for hits in found] if options.rerank is not None else found
    fuse = reciprocal_rank if options.fusion == "rrf" else weighted
    together = zip(*rankings.values(), strict=True)
    return [fuse(dict(zip(rankings, found, strict=True)), options.weights) for found in together]


def _with_legs(hits: list[Hit], name: str) -> list[Hit]:
    return [replace(hit, legs={name: Leg(rank, hit.score)}) for rank, hit in enumerate(hits, start=1)]


def _reranked(
    passport: Passport,
    options: SearchOptions,
    queries: Sequence[str],
    hits: list[list[Hit]],
    needs: list[Need],
) -> Steps[list[list[Hit]]]:
    assert options.rerank is not None  # noqa: S101  # asked for, or this is not called
    first: list[Sequence[Hit]] = [found[: options.rerank_depth] for found in hits]
    need = Rerank(options.rerank, passport, list(queries), first)
    needs.append(need)
    ranked: list[list[Hit]] = yield need
    # The others keep their place behind those that were judged.
    return [[*judged, *found[options.rerank_depth :]] for judged, found in zip(ranked, hits, strict=True)]


def _diversified(question: Question, hits: list[list[Hit]]) -> Steps[list[list[Hit]]]:
    options, passport = question.options, question.target.passport
    ids = sorted({hit.id for found in hits for hit in found})
    stored = yield from stored_vectors(question, ids)
    ranked_by_vector = options.by_vector and options.mode != "hybrid" and options.rerank is None
    similarity = passport.encoder.similarity if ranked_by_vector else None
    chosen: list[list[Hit]] = []
    for found in hits:
        known = [hit for hit in found if hit.id in stored]
        if known:
            vectors = np.stack([stored[hit.id] for hit in known])
            scores = np.asarray([hit.score for hit in known], np.float32)
            order = diversify(scores, vectors, options.end, options.diversity or 0.0, similarity)
            known = [known[at] for at in order]
        chosen.append(known + [hit for hit in found if hit.id not in stored])
    return chosen


def stored_vectors(
    question: Question, document_ids: Sequence[str]
) -> Steps[dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """The vector of each document that is within reach and has one, by id: (dims,) float32."""
    field = question.target.passport.vector_field
    found: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    if not document_ids:
        return found
    parts = [document_ids[start : start + _FETCHED] for start in range(0, len(document_ids), _FETCHED)]
    bodies = [stored_vectors_body(field, part, question.conditions.document) for part in parts]
    answers = yield from ask(question, bodies)
    for hit in (hit for answer in answers for hit in answer["hits"]["hits"]):
        if vectors := read_vectors(hit["_source"], field):
            found[hit["_id"]] = mean_vector(vectors, question.target.passport)
    return found


def _selected(hits: list[Hit], options: SearchOptions) -> list[Hit]:
    """Without the texts that only the re-ranker needed."""
    if options.fields is None or options.rerank is None:
        return hits
    kept = set(options.fields)
    return [replace(hit, source={n: v for n, v in hit.source.items() if n in kept}) for hit in hits]


def _facets(question: Question, shown: list[list[Hit]], queries: Sequence[str] | None) -> Steps[list[dict[str, Facet]]]:
    options = question.options
    if not options.facets:
        return [{} for _ in shown]
    counted = check_facets(options.facets, question.target.fields)
    conditions = question.conditions.document
    if options.facets_of == "hits":
        over: list[Sequence[Mapping[str, Any]]] = [[{"ids": {"values": [hit.id for hit in hits]}}] for hits in shown]
    elif options.mode == "text" and queries is not None:
        over = [[*conditions, words(query, question.target.searchable_text)] for query in queries]
    else:
        over = [conditions]
    answers = yield from ask(question, [facets_body(counted, each) for each in over])
    facets = [read_facets(counted, answer) for answer in answers]
    return facets if len(facets) == len(shown) else facets * len(shown)
