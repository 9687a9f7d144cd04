"""Judging a search by queries whose relevant documents are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from esvector.errors import ConfigError, SearchError
from esvector.evaluate.formats import Qrels, Queries, Run
from esvector.evaluate.measures import DEFAULT_MEASURES, largest_cutoff, measure_run, parse_measures
from esvector.types import Hit

if TYPE_CHECKING:
    from esvector.search.options import SearchKeywords
    from esvector.search.searcher import Searcher

__all__ = ["Counts", "Evaluation", "Search", "evaluate", "hits_needed", "judge"]

Search = Callable[[Sequence[str]], Sequence[Sequence[Hit]]]
"""Anything that finds hits, best first, for each of several texts."""

_BATCH = 100  # queries searched at once
_NO_CUTOFF = 100  # hits for measures that look at all there are
_IDS = 10_000  # ids asked for at once; Elasticsearch 9.5 takes up to 65,536 (index.max_terms_count)


@dataclass(frozen=True, slots=True)
class Counts:
    """What queries, judgements, run and index have in common, and what not.

    Attributes:
        judged: queries that the measures are the mean of: those with judgements, of the queries that were given.
        unjudged: queries that were given and have no judgements; they are left out.
        unasked: queries that have judgements but were not given; they are left out.
        irrelevant: judged queries without any relevant document.
        empty: judged queries that found nothing.
        relevant: pairs of a judged query and a document relevant to it.
        missing: relevant documents that are not in the index; None where no index was looked at.
    """

    judged: int
    unjudged: int
    unasked: int
    irrelevant: int
    empty: int
    relevant: int
    missing: int | None = None

    def remarks(self) -> list[str]:
        """Return a line about each count that makes the measures say less than they seem to."""
        said = (
            ("queries without judgements, left out", self.unjudged),
            ("queries of the judgements that were not asked, left out", self.unasked),
            ("judged queries without a relevant document, which count 0 whatever they find", self.irrelevant),
            ("judged queries that found nothing, which count 0", self.empty),
            ("relevant documents that are not in the index, so that nothing finds them", self.missing),
        )
        return [f"{what}: {count:,}" for what, count in said if count]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a run is.

    Attributes:
        values: the mean of each measure over the judged queries.
        by_query: the measures of each judged query.
        run: what was found.
        counts: what was judged, and what was left out.
        remarks: sentences about what was left out, or looked at less far than a measure does.
    """

    values: Mapping[str, float]
    by_query: Mapping[str, Mapping[str, float]]
    run: Run
    counts: Counts
    remarks: tuple[str, ...] = ()

    def worst(self, measure: str, n: int = 5) -> list[str]:
        """Return the ids of the ``n`` queries with the lowest ``measure``, lowest first, of those below 1."""
        below = [query for query, values in self.by_query.items() if values[measure] < 1]
        return sorted(below, key=lambda query: self.by_query[query][measure])[:n]


def evaluate(
    search: Searcher | Search,
    queries: Queries,
    qrels: Qrels,
    measures: str | Iterable[str] = DEFAULT_MEASURES,
    *,
    k: int | None = None,
    options: SearchKeywords | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Search for every query that has judgements, and return how good that was.

    Args:
        search: a Searcher; or what finds hits for a list of texts, for which k and options are its own affair.
        queries: text by query id.
        qrels: relevance by document id by query id.
        measures: such as "nDCG@10 R@100", in the words of ir-measures.
        k: hits of a query; None is the largest cutoff of the measures, or 100 where one of them has none.
        options: what else ``Searcher.search`` is told, such as ``{"mode": "hybrid", "where": "year >= 2020"}``.
        progress: called with the number of queries done, and of all.

    Raises ConfigError where no query has judgements or no relevant document is in the index, and for unknown measures;
    MissingExtraError without the extra "evaluate"; and whatever the search raises.
    """
    from esvector.search.searcher import Searcher

    named = parse_measures(measures)
    asked = {query: text for query, text in queries.items() if query in qrels}
    _refuse_none(asked, queries, qrels)
    if isinstance(search, Searcher):
        wanted = hits_needed(named) if k is None else k
        missing, further = _count_missing(search, {query: qrels[query] for query in asked}), _too_few(named, wanted)
        search = _with_options(search, {**(options or {}), "k": wanted})
    elif options or k is not None:
        raise ConfigError("k and options are for a Searcher", "let the function that searches have its own")
    else:
        missing, further = None, []
    run = _search_all(search, asked, progress or (lambda _done, _total: None))
    return _judge(run, queries, qrels, named, missing, further)


def judge(
    run: Run,
    qrels: Qrels,
    measures: str | Iterable[str] = DEFAULT_MEASURES,
    *,
    queries: Iterable[str] | None = None,
) -> Evaluation:
    """Return how good ``run`` is, over ``queries`` (their ids; None is all that have judgements).

    A query that the run does not have found nothing. Raises ConfigError where no query has judgements.
    """
    named, given = parse_measures(measures), dict.fromkeys(run if queries is None else queries)
    _refuse_none([query for query in given if query in qrels], given, qrels)
    others = len(run.keys() - given.keys())
    further = [f"queries of the run that are none of the queries, left out: {others:,}"] if others else []
    return _judge(run, given if queries is not None else [*given, *qrels], qrels, named, None, further)


def hits_needed(measures: Iterable[Any]) -> int:
    """Return how many hits of a query the measures want to see: the largest cutoff; 100 where one has none."""
    measures = list(measures)
    open_ended = any(measure.params.get("cutoff") is None for measure in measures)
    return max(largest_cutoff(measures) or 1, _NO_CUTOFF if open_ended else 1)


def _judge(
    run: Run, asked: Iterable[str], qrels: Qrels, measures: Sequence[Any], missing: int | None, further: list[str]
) -> Evaluation:
    given = dict.fromkeys(asked)
    judged = {query: qrels[query] for query in given if query in qrels}
    values, by_query = measure_run(run, judged, measures)
    relevant = {query: sum(relevance > 0 for relevance in documents.values()) for query, documents in judged.items()}
    counts = Counts(
        judged=len(judged),
        unjudged=len(given) - len(judged),
        unasked=len(qrels.keys() - judged.keys()),
        irrelevant=sum(not count for count in relevant.values()),
        empty=sum(not run.get(query) for query in judged),
        relevant=sum(relevant.values()),
        missing=missing,
    )
    return Evaluation(values, by_query, run, counts, (*counts.remarks(), *further))


def _with_options(searcher: Searcher, options: SearchKeywords) -> Search:
    def search(texts: Sequence[str]) -> Sequence[Sequence[Hit]]:
        return searcher.search(texts, **options)

    return search


def _search_all(search: Search, queries: Queries, progress: Callable[[int, int], None]) -> dict[str, dict[str, float]]:
    run: dict[str, dict[str, float]] = {}
    names = list(queries)
    progress(0, len(names))
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        for query, hits in zip(batch, search([queries[query] for query in batch]), strict=True):
            run[query] = _ranking(query, hits)
        progress(len(run), len(names))
    return run


def _ranking(query: str, hits: Sequence[Hit]) -> dict[str, float]:
    """Scores of the hits; where their order is another one, as after diversity, scores that say the order."""
    scores = [hit.score for hit in hits]
    if any(score < below for score, below in pairwise(scores)):
        scores = [float(len(hits) - rank) for rank in range(len(hits))]
    ranking = {hit.id: score for hit, score in zip(hits, scores, strict=True)}
    if len(ranking) < len(hits):
        raise SearchError(f"the search found a document twice for the query {query!r}", "it must find each once")
    return ranking


def _count_missing(searcher: Searcher, qrels: Qrels) -> int:
    """Count the relevant documents that the index does not have. Raises ConfigError where it has none of them."""
    from esvector.client import explain_errors

    relevant = sorted({document for judged in qrels.values() for document, grade in judged.items() if grade > 0})
    index = searcher.target.index  # before anything else, for its own words about an alias that is not there
    with explain_errors(searcher.client):
        there: int = sum(
            searcher.client.count(index=index, query={"ids": {"values": relevant[start : start + _IDS]}})["count"]
            for start in range(0, len(relevant), _IDS)
        )
    if relevant and not there:
        raise ConfigError(
            f"none of the {len(relevant):,} relevant documents is in {index}: the judgements name {relevant[0]!r}",
            "judgements must name documents by the ids they are indexed under (see 'esvector index --id')",
        )
    return len(relevant) - int(there)


def _too_few(measures: Iterable[Any], k: int) -> list[str]:
    """Sentences about measures that look further than k hits."""
    said = []
    for measure in measures:
        cutoff = measure.params.get("cutoff")
        if cutoff is None:
            said.append(f"{measure} has no cutoff: it sees the first {k:,} hits")
        elif cutoff > k:
            said.append(f"{measure} looks at {cutoff:,} hits, but only k = {k:,} were asked for")
    return said


def _refuse_none(judged: Iterable[str], queries: Iterable[str], qrels: Qrels) -> None:
    if not any(True for _ in judged):
        examples = [next((repr(query) for query in names), "none") for names in (queries, qrels)]
        raise ConfigError(
            f"no query has judgements: the queries are such as {examples[0]}, those of the judgements {examples[1]}",
            "queries and judgements must be of the same collection, under the same ids",
        )
