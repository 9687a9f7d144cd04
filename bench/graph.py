"""What a graph costs: built while the documents come (inline), or by one merge at the end (deferred).

The same packed bulk requests fill an index of each kind in turn, on a throw-away node. Counted are the CPU seconds of
its processes and the wall time, both until every document is searchable with the final mapping, and recall@10 of
queries near the documents against exact search. A ratio is taken within a round; the medians are the result. "merged"
is with one segment forced on both sides, so that the same is there in the end.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import orjson
import psutil
from common import Floats, cpu_seconds, server
from elasticsearch import Elasticsearch
from numpy.typing import NDArray

from esvector.index import graph
from esvector.index.bulk import BulkWriter
from esvector.index.graph import finish_graph, loading_body
from esvector.index.segments import look_at_shards
from esvector.index.versions import create_version, loading_alias
from esvector.mapping import DEFAULT_INDEX_OPTIONS

ALIAS = "bench-graph"
WINDOW = 1024
QUERIES = 200
RATIOS = ("cpu", "wall", "cpu_merged")


@dataclass(frozen=True)
class Cost:
    """What one side took in one round."""

    cpu: float
    wall: float
    cpu_merged: float
    recall: float
    latency: float
    segments: int


@click.command()
@click.option("--documents", default=(2_000, 10_000, 30_000), multiple=True, show_default=True)
@click.option("--dims", default=384, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--heap-mb", default=1024, show_default=True)
@click.option("--setting", "settings", multiple=True, metavar="NAME=VALUE", help="Of the index, for both sides.")
def main(documents: tuple[int, ...], dims: int, rounds: int, heap_mb: int, settings: tuple[str, ...]) -> None:
    """Print costs and ratios for each number of documents."""
    extra = dict(setting.split("=", 1) for setting in settings)
    with server(None, heap_mb) as (client, process):
        measure(client, process, *corpus(5_000, dims), extra, deferred=False)  # warms the server up
        for count in documents:
            vectors, queries = corpus(count, dims)
            costs: dict[str, list[Cost]] = {"inline": [], "deferred": []}
            for round_ in range(rounds):
                order = sorted(costs, reverse=bool(round_ % 2))
                for side in order:
                    deferred = side == "deferred"
                    costs[side].append(measure(client, process, vectors, queries, extra, deferred=deferred))
            report(count, costs)


def report(count: int, costs: dict[str, list[Cost]]) -> None:
    """Print one line for each side, and the ratios."""
    for side, found in costs.items():
        middle = [statistics.median(getattr(cost, name) for cost in found) for name in (*RATIOS, "latency")]
        print(
            f"{count:9,} {side:9} CPU {middle[0]:6.1f} s   wall {middle[1]:6.1f} s   CPU merged {middle[2]:6.1f} s   "
            f"{middle[3]:5.2f} ms a query   "
            f"recall@10 {statistics.mean(cost.recall for cost in found):.4f}   {found[-1].segments} segments"
        )
    for name in RATIOS:
        ratios = [
            getattr(ours, name) / getattr(theirs, name)
            for ours, theirs in zip(costs["deferred"], costs["inline"], strict=True)
        ]
        print(f"{count:9,} {name:10} ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def corpus(count: int, dims: int) -> tuple[Floats, Floats]:
    """Unit vectors of ``count`` documents around 200 centres, as those of texts are, and of queries near some."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((200, dims)).astype(np.float32)
    vectors = centres[random.integers(200, size=count)] + 0.7 * random.standard_normal((count, dims))
    queries = vectors[random.integers(count, size=QUERIES)] + 0.5 * random.standard_normal((QUERIES, dims))
    return unit(vectors), unit(queries)


def unit(vectors: NDArray[Any]) -> Floats:
    """Return the rows with length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def measure(
    client: Elasticsearch,
    process: psutil.Process | None,
    vectors: Floats,
    queries: Floats,
    settings: dict[str, str],
    *,
    deferred: bool,
) -> Cost:
    """Fill a new index, finish it, look at it and delete it."""
    body = body_of(vectors.shape[1], settings)
    before, started = cpu_seconds(process), time.perf_counter()
    load_as = loading_body(body, "vector") if deferred else body
    index = create_version(client, ALIAS, load_as, in_the_end=body)
    load(client, index, vectors)
    client.indices.refresh(index=index)
    if deferred:
        done = finish_graph(client, index, body, "vector")
        assert done.exact <= graph.EXACT_DOCUMENTS
    wall, cpu = time.perf_counter() - started, cpu_seconds(process) - before
    recall, latency = search(client, index, vectors, queries)
    searching = cpu_seconds(process) - before - cpu
    segments = sum(shard.segments for shard in look_at_shards(client, index, "vector"))
    client.options(request_timeout=3600).indices.forcemerge(index=index, max_num_segments=1)
    cpu_merged = cpu_seconds(process) - before - searching
    client.indices.delete(index=index)
    return Cost(cpu, wall, cpu_merged, recall, latency, segments)


def body_of(dims: int, settings: dict[str, str]) -> dict[str, Any]:
    """Return the body that creates the final index."""
    vector = {
        "type": "dense_vector",
        "dims": dims,
        "index": True,
        "similarity": "cosine",
        "index_options": dict(DEFAULT_INDEX_OPTIONS),
    }
    properties = {"vector": vector, "title": {"type": "text"}, "id": {"type": "keyword"}}
    index = {"number_of_replicas": 0, "refresh_interval": "-1", **settings}
    return {"settings": {"index": index}, "mappings": {"properties": properties}}


def load(client: Elasticsearch, index: str, vectors: Floats) -> None:
    """Send every document, by four senders, as the indexer does."""
    writer = BulkWriter(client, loading_alias(index))

    def send(start: int) -> None:
        numbers = range(start + 1, min(start + WINDOW, len(vectors)) + 1)
        ids = [f"d{number}" for number in numbers]
        sources = [orjson.dumps({"id": id_, "title": f"Document number {id_}"}) for id_ in ids]
        result = writer.deliver(writer.pack(ids, numbers, sources, vectors[start : start + WINDOW]))
        assert result.created == len(ids), result.refused[:1]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(0, len(vectors), WINDOW)))


def search(client: Elasticsearch, index: str, vectors: Floats, queries: Floats, k: int = 10) -> tuple[float, float]:
    """Return recall@k and the median milliseconds of a query, one at a time."""
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    found, seconds = 0, []
    for query, wanted in zip(queries, best, strict=True):
        knn = {"field": "vector", "query_vector": query.tolist(), "k": k, "num_candidates": 100}
        started = time.perf_counter()
        hits = client.search(index=index, knn=knn, size=k, source=False)["hits"]["hits"]
        seconds.append(time.perf_counter() - started)
        found += len({hit["_id"] for hit in hits} & {f"d{number + 1}" for number in wanted})
    return found / best.size, 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
