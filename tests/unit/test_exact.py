"""The requests of an exact search, without a server: every document is in one bucket, and none is too full."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from esvector.errors import SearchError
from esvector.passport import HASH_FIELD
from esvector.search.exact import (
    MAX_CANDIDATES,
    Count,
    bucket_ranges,
    exact_body,
    is_quantized,
    largest_bucket,
    merge,
    split_range,
)


def hashes(count: int) -> list[str]:
    return [hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest() for n in range(count)]


def holds(bucket: dict[str, Any], content: str) -> bool:
    bounds = bucket["range"][HASH_FIELD]
    return bool(bounds["gte"] <= content <= bounds["lte"])


@pytest.mark.parametrize("documents", [20_000, 1_000_003])
def test_buckets_hold_every_document_once_and_none_is_too_full(documents: int) -> None:
    buckets = bucket_ranges(Count(documents, documents, documents))
    sample = [*hashes(500), "0" * 32, "f" * 32]
    assert all(sum(holds(bucket, content) for bucket in buckets) == 1 for content in sample)
    assert documents / len(buckets) <= 0.8 * MAX_CANDIDATES


def test_a_bucket_that_is_cut_again_keeps_every_document() -> None:
    bucket = bucket_ranges(Count(50_000, 50_000, 50_000))[1]
    mine = [content for content in hashes(2000) if holds(bucket, content)]
    parts = split_range(bucket)
    assert mine
    assert all(sum(holds(part, content) for part in parts) == 1 for content in mine)


def test_what_fits_in_one_scan_is_not_cut() -> None:
    assert bucket_ranges(Count(1500, 1500, 1500)) == [{"match_all": {}}]
    assert bucket_ranges(Count(0, 0, 10)) == [{"match_all": {}}]


def test_documents_of_one_hash_cannot_be_cut_apart() -> None:
    content = random.Random(1).randbytes(16).hex()
    bucket = {"range": {HASH_FIELD: {"gte": "0" * 32, "lte": "f" * 32}}}
    for _ in range(31):
        bucket = next(part for part in split_range(bucket) if holds(part, content))
    last = next(part for part in split_range(bucket) if holds(part, content))
    assert last["range"][HASH_FIELD] == {"gte": content, "lte": content}
    with pytest.raises(SearchError, match="equal"):
        split_range(last)


def test_the_fewer_match_of_many_the_smaller_the_buckets() -> None:
    sizes = [largest_bucket(Count(n, n, 1_000_000)) for n in (1_000_000, 100_000, 10_000, 1_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert largest_bucket(Count(1_000, 1_000, 1_000_000)) < 1_000


def test_all_of_a_quantized_field_is_rescored() -> None:
    count = Count(700, 700, 700)
    raw = exact_body("vector", [1.0], 10, count, [], quantized=False)
    assert (raw["knn"]["k"], raw["size"], "rescore_vector" in raw["knn"]) == (10, 10, False)
    quantized = exact_body("vector", [1.0], 10, count, [], quantized=True)
    assert (quantized["knn"]["k"], quantized["size"]) == (10, 10)
    assert quantized["knn"]["rescore_vector"] == {"oversample": 70}
    assert is_quantized({"index_options": {"type": "int8_hnsw"}})
    assert not is_quantized({"index_options": {"type": "hnsw"}})


def test_the_best_of_all_buckets_by_their_best_passage() -> None:
    def answer(*hits: tuple[str, float, float | None]) -> dict[str, Any]:
        return {
            "hits": {
                "hits": [
                    {"_id": id_, "_score": score}
                    | ({} if inner is None else {"inner_hits": {"p": {"hits": {"hits": [{"_score": inner}]}}}})
                    for id_, score, inner in hits
                ]
            }
        }

    assert merge([answer(("b", 0.5, None), ("c", 0.9, None)), answer(("a", 0.5, None))], 2) == [("c", 0.9), ("a", 0.5)]
    assert merge([answer(("a", 0.5, 0.95)), answer(("b", 0.9, 0.9))], 1) == [("a", 0.95)]
