"""Documents for the writer, several threads that write them, and the judge: what the index really holds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector.index.bulk import BulkWriter, RetryPolicy, WriteResult

__all__ = ["DIMS", "QUICK", "Batch", "assert_holds", "batch_of", "create_target", "until", "write"]

DIMS = 8
QUICK = RetryPolicy(give_up_after=30, first_wait=0.01, longest_wait=0.2, probe_every=0.1, request_timeout=20)


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents as ``BulkWriter.write`` takes them; ``vectors`` is (n, dims) float32."""

    ids: Sequence[str]
    versions: Sequence[int]
    sources: Sequence[bytes]
    vectors: NDArray[np.float32]

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.ids[part], self.versions[part], self.sources[part], self.vectors[part])


def batch_of(count: int, *, size: int = 20, version: int = 0, fields: Mapping[int, Mapping[str, Any]] = {}) -> Batch:
    """``count`` documents d0, d1...; ``size`` characters of filling each; ``fields`` are more of them, by number."""
    ids = [f"d{n}" for n in range(count)]
    sources = [orjson.dumps({"n": version + n, "filling": "x" * size, **fields.get(n, {})}) for n in range(count)]
    vectors = np.random.default_rng(version + count).standard_normal((count, DIMS)).astype(np.float32)
    return Batch(ids, [version + n for n in range(count)], sources, vectors)


def create_target(
    es: Elasticsearch, alias: str, *, shards: int = 1, fields: Mapping[str, Any] | None = None, dynamic: str = "true"
) -> str:
    """Create an index behind ``alias`` and return its name; its vectors come back bit for bit."""
    unindexed = {"type": "keyword", "index": False, "doc_values": False}
    vector = {"type": "dense_vector", "dims": DIMS, "similarity": "l2_norm", "index_options": {"type": "flat"}}
    es.indices.create(
        index=f"{alias}-1",
        aliases={alias: {}},
        settings={"number_of_shards": shards, "number_of_replicas": 0, "refresh_interval": -1},
        mappings={
            "dynamic": dynamic,
            "properties": {"n": {"type": "integer"}, "filling": unindexed, "vector": vector, **(fields or {})},
        },
    )
    return f"{alias}-1"


def write(writer: BulkWriter, batch: Batch, *, threads: int = 4, window: int = 250) -> WriteResult:
    """Write ``batch`` in windows by so many threads and add up the results; positions are those in the batch."""
    total = WriteResult()

    def one(start: int) -> WriteResult:
        part = batch[start : start + window]
        result = writer.deliver(writer.pack(part.ids, part.versions, part.sources, part.vectors))
        result.refused = [(start + position, reason) for position, reason in result.refused]
        return result

    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(one, range(0, len(batch.ids), window)):
            for name in (each.name for each in dataclasses.fields(WriteResult)):
                setattr(total, name, getattr(total, name) + getattr(result, name))
    return total


def until(ready: Callable[[], object], work: Future[Any], seconds: float = 30) -> None:
    """Wait until ``ready`` while ``work`` goes on; raises its error, or when it has ended before."""
    deadline = time.monotonic() + seconds
    while not ready():
        if work.done():
            raise AssertionError(f"it has ended: {work.result()}")
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def assert_holds(es: Elasticsearch, alias: str, batch: Batch, *, without: Sequence[int] = ()) -> None:
    """The index holds every document of ``batch`` but those ``without``, each once, with its own content; no others."""
    es.indices.refresh(index=alias)
    expected = {batch.ids[n]: n for n in range(len(batch.ids)) if n not in without}
    assert es.count(index=alias)["count"] == len(expected)
    found = es.search(
        index=alias, size=10_000, source={"exclude_vectors": False, "includes": ["n", "vector"]}, sort="_doc"
    )["hits"]["hits"]
    assert sorted(hit["_id"] for hit in found) == sorted(expected)
    for hit in found:
        position = expected[hit["_id"]]
        assert hit["_source"]["n"] == orjson.loads(batch.sources[position])["n"], hit["_id"]
        assert np.array_equal(np.array(hit["_source"]["vector"], np.float32), batch.vectors[position]), hit["_id"]
