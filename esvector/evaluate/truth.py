"""What an approximate search should have found: the exact neighbours of every query."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esvector.evaluate.live import Live, ask, ask_many
from esvector.evaluate.queries import Query
from esvector.search.exact import Count, exact_body, find_buckets, merge

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = ["Truth", "find_truth"]

_TIES = 20  # further neighbours, among which are those that equal the last one
_SAME = 1e-6  # of a score, which is a float32


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact neighbours of each query, best first, as id and ``_score``, without the document that it belongs to.

    ``documents`` match the filter, of ``everything`` that has a vector. ``seconds`` is what each exact search took.
    """

    neighbours: tuple[tuple[tuple[str, float], ...], ...]
    documents: int
    everything: int
    seconds: tuple[float, ...]

    def recall(self, query: int, found: Sequence[str], k: int) -> float:
        """Return the share of the ``k`` nearest of query number ``query`` that are among the first k of ``found``.

        Documents as near as the last of them count like it: which of equal ones come first is nobody's merit.
        """
        neighbours = self.neighbours[query]
        wanted = min(k, len(neighbours))
        if not wanted:
            return 1.0
        least = neighbours[wanted - 1][1] - _SAME
        right = {id_ for id_, score in neighbours if score >= least}
        return min(wanted, len(right.intersection(found[:k]))) / wanted


def find_truth(
    client: Elasticsearch,
    live: Live,
    queries: Sequence[Query],
    k: int,
    filters: Sequence[Mapping[str, Any]] = (),
    done: Callable[[], None] = lambda: None,
) -> Truth:
    """Search exactly for the ``k`` nearest documents of each query that match ``filters``; ``done`` after each.

    Raises SearchError where the index cannot be searched exactly.
    """
    field, passages = live.passport.vector_field, live.passages
    buckets = _buckets(client, live, filters)
    neighbours, seconds = [], []
    for query in queries:
        bodies = [
            exact_body(
                field,
                query.vector,
                k + 1 + _TIES,
                count,
                [*filters, bucket],
                quantized=live.target.quantized,
                passages=passages,
            )
            for bucket, count in buckets
        ]
        started = time.perf_counter()
        answers = ask_many(client, live.name, bodies)
        seconds.append(time.perf_counter() - started)
        best = [hit for hit in merge(answers, k + 1 + _TIES) if hit[0] != query.id]
        neighbours.append(tuple(best[: k + _TIES]))
        done()
    documents, everything = _count(client, live, filters), _count(client, live, ())
    return Truth(tuple(neighbours), documents, everything, tuple(seconds))


def _buckets(
    client: Elasticsearch, live: Live, filters: Sequence[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Count]]:
    steps = find_buckets(live.passport.vector_field, filters, passages=live.passages)
    body = next(steps)
    while True:
        try:
            body = steps.send(ask(client, live.name, body))
        except StopIteration as end:
            return list(end.value)


def _count(client: Elasticsearch, live: Live, filters: Sequence[Mapping[str, Any]]) -> int:
    """How many documents that match ``filters`` have a vector."""
    query = {"bool": {"filter": [live.has_vector(), *filters]}}
    answer = ask(client, live.name, {"query": query, "size": 0, "track_total_hits": True})
    return int(answer["hits"]["total"]["value"])
