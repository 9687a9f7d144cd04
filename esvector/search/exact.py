"""Exact search without scripts: every vector that matches is compared, in requests that the server has to scan.

Elasticsearch 9.5.3 has no exact query of its own for an indexed vector field. But a kNN search whose filter matches few
vectors of a segment compares each of them (Lucene 10.5.1, ``AbstractKnnVectorQuery``): at most ``num_candidates``,
scaled down to the segment's share of the shard. Which segments hold what matches is not known here, so documents are
cut into buckets by their content hash, small enough that each is scanned wherever its documents are. All functions are
pure:

1. ``find_buckets``: filters that cut what matches into buckets, with what each counts. It yields the bodies that count,
   and is sent their answers.
2. ``exact_body`` for each bucket, and ``merge`` of their answers.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from esvector.errors import SearchError
from esvector.passport import HASH_FIELD

__all__ = [
    "MAX_CANDIDATES",
    "Count",
    "bucket_ranges",
    "count_body",
    "exact_body",
    "find_buckets",
    "fullest_bucket",
    "is_quantized",
    "largest_bucket",
    "merge",
    "read_counts",
    "split_range",
]

MAX_CANDIDATES = 10_000
"""Highest num_candidates, and so the most vectors that one request can be made to scan (9.5.3)."""

_DIGITS = 32  # hex digits of a content hash
_SPACE = 16**_DIGITS
_PARTS = 16  # that a bucket which is too full is cut into
_SPARE = 0.8  # of what is scanned for sure: buckets are not all of one size
_UNHASHED: Mapping[str, Any] = {"bool": {"must_not": [{"exists": {"field": HASH_FIELD}}]}}
_DEAD = 2  # deleted documents count for a segment's share, too: as many of them as live ones are allowed for
_QUANTIZED = ("int8_", "int4_", "bbq_")


@dataclass(frozen=True, slots=True)
class Count:
    """Documents that match, their vectors (more than one of a document in passages), and all there are of both."""

    documents: int
    vectors: int
    everything: int


def is_quantized(vector: Mapping[str, Any]) -> bool:
    """Whether the mapping of a vector field keeps vectors quantized, so that scores need the raw ones."""
    return str(vector.get("index_options", {}).get("type", "")).startswith(_QUANTIZED)


def find_buckets(
    vector_field: str, filters: Sequence[Mapping[str, Any]] = (), *, passages: bool = False
) -> Generator[dict[str, Any], Mapping[str, Any], list[tuple[Mapping[str, Any], Count]]]:
    """Return filters, each with what it counts, that cut all that matches ``filters`` into buckets to scan.

    Yields bodies of searches, and is sent their answers. Raises SearchError when more vectors than one request can scan
    cannot be told apart.
    """
    total, _ = read_counts((yield count_body(vector_field, filters, passages=passages)))
    if not total.vectors:
        return []
    waiting: list[dict[str, Any]] = bucket_ranges(total)
    if len(waiting) == 1:
        return [(waiting[0], total)]
    most = fullest_bucket(total)
    found: list[tuple[Mapping[str, Any], Count]] = []
    while waiting:
        _, counts = read_counts((yield count_body(vector_field, filters, waiting, passages=passages)))
        counted = list(zip(waiting, counts, strict=True))
        found += [(bucket, count) for bucket, count in counted if count.documents and count.vectors <= most]
        waiting = [part for bucket, count in counted if count.vectors > most for part in split_range(bucket)]
    # What esvector did not write has no hash.
    documents = total.documents - sum(count.documents for _, count in found)
    vectors = total.vectors - sum(count.vectors for _, count in found)
    if vectors > most:
        raise _too_many(f"{vectors:,} vectors are of documents without {HASH_FIELD}")
    if vectors > 0:
        found.append((_UNHASHED, Count(documents, vectors, total.everything)))
    return found


def count_body(
    vector_field: str,
    filters: Sequence[Mapping[str, Any]] = (),
    buckets: Sequence[Mapping[str, Any]] = (),
    *,
    passages: bool = False,
) -> dict[str, Any]:
    """Return the body of a search that counts what matches every filter, in all and in each of ``buckets``."""
    path = vector_field.rpartition(".")[0]
    vectors: dict[str, Any] = {"aggs": {"vectors": {"nested": {"path": path}}}} if passages else {}
    body: dict[str, Any] = {
        "size": 0,
        "track_total_hits": True,
        "query": {"bool": {"filter": [dict(f) for f in filters]}},
        "aggs": {"everything": {"global": {}, **vectors}, **vectors.get("aggs", {})},
    }
    if buckets:
        body["aggs"]["buckets"] = {"filters": {"filters": [dict(b) for b in buckets]}, **vectors}
    return body


def read_counts(answer: Mapping[str, Any]) -> tuple[Count, list[Count]]:
    """Return what the answer to ``count_body`` counted: in all, and in each bucket."""
    found = answer["aggregations"]
    everything = found["everything"]["doc_count"] + found["everything"].get("vectors", {}).get("doc_count", 0)
    documents = answer["hits"]["total"]["value"]
    total = Count(documents, found.get("vectors", {}).get("doc_count", documents), everything)
    buckets = [
        Count(one["doc_count"], one.get("vectors", one)["doc_count"], everything)
        for one in found.get("buckets", {}).get("buckets", [])
    ]
    return total, buckets


def largest_bucket(count: Count) -> int:
    """Return how many vectors of ``count`` a bucket may have on average, so that all of them are scanned.

    Lucene 10.5.1 scans a segment with the share ``p`` of the shard when at most ``c*p + 16*sqrt(c*p*(1-p))`` of its
    vectors match, ``c`` being num_candidates. The worst case is a segment that holds nothing but all that match.
    """
    return max(1, math.floor(_SPARE * fullest_bucket(count)))


def fullest_bucket(count: Count) -> int:
    """Return how many vectors of ``count`` are scanned for sure by one request."""
    if not count.vectors:
        return MAX_CANDIDATES
    share = min(1.0, count.vectors / (_DEAD * max(count.everything, count.vectors)))
    scanned = MAX_CANDIDATES * share + 16 * math.sqrt(MAX_CANDIDATES * share * (1 - share))
    return max(1, math.floor(min(scanned, MAX_CANDIDATES)))


def bucket_ranges(count: Count) -> list[dict[str, Any]]:
    """Return filters that cut what ``count`` counted into buckets to scan; a single one is no cut at all.

    Documents without a content hash, which esvector did not write, are in none of several.
    """
    parts = math.ceil(count.vectors / largest_bucket(count))
    return [{"match_all": {}}] if parts <= 1 else _cut(0, _SPACE, parts)


def split_range(bucket: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cut a bucket that is too full. Raises SearchError when there is nothing left to cut: equal hashes."""
    bounds = bucket["range"][HASH_FIELD]
    low, high = int(bounds["gte"], 16), int(bounds["lte"], 16) + 1
    if high - low == 1:
        raise _too_many("more vectors than that are of equal documents")
    return _cut(low, high, min(_PARTS, high - low))


def exact_body(
    vector_field: str,
    vector: Sequence[float],
    size: int,
    count: Count,
    filters: Sequence[Mapping[str, Any]],
    *,
    quantized: bool,
    passages: bool = False,
) -> dict[str, Any]:
    """Return the body of a search that compares every vector that matches ``filters`` (the bucket's own among them).

    ``count`` is what matches them, ``vector`` is (dims,), and ``size`` the hits that are wanted. They come with id and
    score only; of a document in passages, the score of the inner hit is the one that counts. For fields and texts, send
    the usual request with an ``ids`` filter of the best.
    """
    documents = max(1, count.documents)
    wanted = min(size, documents)
    knn: dict[str, Any] = {
        "field": vector_field,
        "query_vector": list(vector),
        "k": documents if quantized and passages else wanted,
        "num_candidates": MAX_CANDIDATES,
        "filter": [dict(f) for f in filters] or [{"match_all": {}}],
    }
    if quantized:
        # The scan compares what is quantized, so all of it has to be rescored with raw vectors.
        knn["rescore_vector"] = {"oversample": 1 if passages else math.ceil(1000 * documents / wanted) / 1000}
    if passages:
        knn["inner_hits"] = {"size": 1, "_source": False}
        # A document's passage is chosen by quantized vectors, and only then rescored (9.5.3): any of them may turn out
        # better by another one of its passages, which the inner hit is chosen from exactly.
        wanted = documents if quantized else wanted
    return {"knn": knn, "size": wanted, "_source": False}


def merge(answers: Sequence[Mapping[str, Any]], k: int) -> list[tuple[str, float]]:
    """Return id and ``_score`` of the ``k`` best over all buckets, best first, equal scores ordered by id."""
    found = [(hit["_id"], _score(hit)) for answer in answers for hit in answer["hits"]["hits"]]
    return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]


def _too_many(what: str) -> SearchError:
    return SearchError(
        f"an exact search compares at most {MAX_CANDIDATES:,} vectors in one request, and {what}",
        "index the documents with esvector, without repeating them, or search with mode 'vector'",
    )


def _score(hit: Mapping[str, Any]) -> float:
    inner = [best for nested in hit.get("inner_hits", {}).values() for best in nested["hits"]["hits"]]
    return float(inner[0]["_score"] if inner else hit["_score"])


def _cut(low: int, high: int, parts: int) -> list[dict[str, Any]]:
    """Ranges of hashes, the same share of them each; ``low`` is included, and ``high`` is not."""
    bounds = [low + (high - low) * part // parts for part in range(parts + 1)]
    return [
        {"range": {HASH_FIELD: {"gte": f"{first:0{_DIGITS}x}", "lte": f"{after - 1:0{_DIGITS}x}"}}}
        for first, after in pairwise(bounds)
    ]
