"""Exact search without scripts: every vector that matches is compared, in requests that the server has to scan.

Elasticsearch 9.5.3 has no exact query of its own for an indexed vector field. But a kNN search whose filter matches few
vectors of a segment compares each of them (Lucene 10.5.1, ``AbstractKnnVectorQuery``): at most ``num_candidates``,
scaled down to the segment's share of the shard. Which segments hold what matches is not known here, so documents are
cut into buckets by their content hash, small enough that each is scanned wherever its documents are.

Nothing here talks to a server: ``find_buckets`` yields bodies and is sent their answers; then there is an
``exact_body`` for each bucket, and ``merge`` of what they answer.
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
    "Bucket",
    "Count",
    "bucket_ranges",
    "count_body",
    "exact_body",
    "find_buckets",
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


@dataclass(frozen=True, slots=True)
class Bucket:
    """Documents that are scanned by one request: those that match all ``filters``, counted in ``count``."""

    filters: tuple[Mapping[str, Any], ...]
    count: Count


def find_buckets(
    vector_field: str, filters: Sequence[Mapping[str, Any]] = (), *, passages: bool = False
) -> Generator[dict[str, Any], Mapping[str, Any], list[Bucket]]:
    """Cut what matches ``filters`` into buckets to scan: yields bodies of searches, and is sent their answers.

    Raises SearchError when more of it cannot be told apart than one request can scan.
    """
    total, _ = read_counts((yield count_body(vector_field, filters, passages=passages)))
    ranges = bucket_ranges(total)
    if not ranges:
        return [Bucket(tuple(filters), total)]
    most = largest_bucket(total) / _SPARE
    found: list[Bucket] = []
    while ranges:
        _, counts = read_counts((yield count_body(vector_field, filters, ranges, passages=passages)))
        full = [one for one, count in zip(ranges, counts, strict=True) if count.vectors > most]
        found += [
            Bucket((*filters, one), count)
            for one, count in zip(ranges, counts, strict=True)
            if 0 < count.vectors <= most
        ]
        ranges = [part for one in full for part in split_range(one)]
    # What esvector did not write has no hash.
    rest = Count(
        total.documents - sum(bucket.count.documents for bucket in found),
        total.vectors - sum(bucket.count.vectors for bucket in found),
        total.everything,
    )
    if rest.vectors > most:
        raise _too_many(rest.vectors, f"are of documents without {HASH_FIELD}")
    return [*found, Bucket((*filters, _UNHASHED), rest)] if rest.vectors > 0 else found


def is_quantized(vector: Mapping[str, Any]) -> bool:
    """Whether the mapping of a vector field keeps vectors quantized, so that scores need the raw ones."""
    return str(vector.get("index_options", {}).get("type", "")).startswith(_QUANTIZED)


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
    if not count.vectors:
        return MAX_CANDIDATES
    share = min(1.0, count.vectors / (_DEAD * max(count.everything, count.vectors)))
    scanned = MAX_CANDIDATES * share + 16 * math.sqrt(MAX_CANDIDATES * share * (1 - share))
    return max(1, math.floor(_SPARE * min(scanned, MAX_CANDIDATES)))


def bucket_ranges(count: Count) -> list[dict[str, Any]]:
    """Return filters that cut what ``count`` counted into buckets to scan; none where it is one bucket as it is.

    Documents without a content hash are in none of them.
    """
    parts = math.ceil(count.vectors / largest_bucket(count))
    return _cut(0, _SPACE, parts) if parts > 1 else []


def split_range(bucket: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cut a bucket that is too full. Raises SearchError when there is nothing left to cut: equal hashes."""
    bounds = bucket["range"][HASH_FIELD]
    low, high = int(bounds["gte"], 16), int(bounds["lte"], 16) + 1
    if high - low == 1:
        raise _too_many(MAX_CANDIDATES, "and more are of documents that are equal")
    return _cut(low, high, min(_PARTS, high - low))


def exact_body(
    vector_field: str, vector: Sequence[float], size: int, bucket: Bucket, *, quantized: bool, passages: bool = False
) -> dict[str, Any]:
    """Return the body of a search that compares every vector of ``bucket``.

    ``vector`` is (dims,), ``size`` the hits that are wanted. They come with id and score only; of a document in
    passages, the score of the inner hit is the one that counts. For fields and texts, send the usual request with an
    ``ids`` filter of the best.
    """
    documents = max(1, bucket.count.documents)
    wanted = min(size, documents)
    knn: dict[str, Any] = {
        "field": vector_field,
        "query_vector": list(vector),
        # Of a quantized field the scan compares what is quantized, so all of it has to be rescored with raw vectors.
        "k": documents if quantized else wanted,
        "num_candidates": MAX_CANDIDATES,
        "filter": [dict(f) for f in bucket.filters] or [{"match_all": {}}],
    }
    if quantized:
        knn["rescore_vector"] = {"oversample": 1}
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


def _too_many(vectors: int, what: str) -> SearchError:
    return SearchError(
        f"an exact search is not possible: {vectors:,} vectors {what}, and one request compares at most "
        f"{MAX_CANDIDATES:,}",
        "index the documents with esvector, without repeating them, or search approximately",
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
