"""Documents per second into a flat dense_vector field: esvector's writer, helpers.bulk, a raw replay of the same bytes.

The vectors are given, so this is the cost of serializing, sending and indexing alone. The sides take turns, each into
an index of its own; a ratio is taken within a round, and the median over the rounds is the result.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import numpy as np
import orjson
from common import Floats, post_all, server, url_of
from elasticsearch import Elasticsearch, helpers

from esvector.index.bulk import BulkWriter
from esvector.index.packing import pack
from esvector.index.pipeline import Pipeline, Stage

WINDOW = 1024
SENDERS = 4
Side = Callable[[str], None]


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=40_000, show_default=True)
@click.option("--dims", default=384, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--helpers/--no-helpers", "with_helpers", default=True, help="Whether the slow side takes part.")
def main(url: str | None, documents: int, dims: int, rounds: int, with_helpers: bool) -> None:
    """Print the ratios of esvector's writer to the other two."""
    with server(url) as (client, _process):
        fields, vectors = corpus(documents, dims)
        sides: dict[str, Side] = {
            "esvector": lambda index: write(client, index, fields, vectors),
            "helpers.bulk": lambda index: bulk_helper(client, index, fields, vectors),
            "raw replay, 1": replay_of(client, fields, vectors, connections=1),
            f"raw replay, {SENDERS}": replay_of(client, fields, vectors, connections=SENDERS),
        }
        if not with_helpers:
            del sides["helpers.bulk"]
        rates: dict[str, list[float]] = {name: [] for name in sides}
        gc.freeze()  # the corpus belongs to this script, not to a side: no collection looks through it again
        for round_ in range(rounds + 1):
            for name, side in sides.items():
                rate = documents / timed(client, side, documents, dims)
                if round_:  # the first round warms the server up
                    rates[name].append(rate)
        report(rates)


def report(rates: dict[str, list[float]]) -> None:
    """Print the median rate of each side, and of esvector's ratio to it."""
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["esvector"], values, strict=True)]
        print(
            f"{name:14} {statistics.median(values):9,.0f} documents/s   esvector is {statistics.median(ratios):6.2f} x "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def corpus(documents: int, dims: int) -> tuple[list[dict[str, Any]], Floats]:
    """Three small fields and a unit vector (documents, dims) float32 for each document."""
    random = np.random.default_rng(1)
    vectors = random.standard_normal((documents, dims)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fields = [{"id": f"d{n}", "title": f"Document number {n}", "year": 1990 + n % 30} for n in range(documents)]
    return fields, vectors


def write(client: Elasticsearch, index: str, fields: list[dict[str, Any]], vectors: Floats) -> None:
    """As the indexer does it: windows, serialized and sent by four workers."""
    writer = BulkWriter(client, index)

    def send(windows: Iterator[int]) -> Iterator[None]:
        for start in windows:
            window = slice(start, start + WINDOW)
            sources = [orjson.dumps(record) for record in fields[window]]
            ids = [record["id"] for record in fields[window]]
            result = writer.deliver(writer.pack(ids, range(start + 1, start + 1 + len(ids)), sources, vectors[window]))
            assert result.created == len(ids), result.refused[:1]
            yield None

    pipeline = Pipeline(range(0, len(fields), WINDOW), [Stage("write", send, workers=SENDERS)])
    pipeline.start()
    pipeline.join()


def bulk_helper(client: Elasticsearch, index: str, fields: list[dict[str, Any]], vectors: Floats) -> None:
    """What the usual script does: dictionaries with lists of floats, serialized by the client's default."""
    with Elasticsearch(url_of(client)) as plain:
        actions = (
            {"_index": index, "_id": record["id"], **record, "vector": vector.tolist()}
            for record, vector in zip(fields, vectors, strict=True)
        )
        helpers.bulk(plain.options(request_timeout=120), actions)


def replay_of(client: Elasticsearch, fields: list[dict[str, Any]], vectors: Floats, connections: int) -> Side:
    """Post the requests that the writer sends, made beforehand, over kept connections."""
    bodies = []
    for start in range(0, len(fields), WINDOW):
        window = slice(start, start + WINDOW)
        ids = [record["id"] for record in fields[window]]
        sources = [orjson.dumps(record) for record in fields[window]]
        block = pack(ids, range(start + 1, start + 1 + len(ids)), sources, vectors[window], "vector", packed=True)
        bodies += [block.body(part) for part in block.parts(4 * 2**20)]

    def replay(index: str) -> None:
        post_all(url_of(client), index, bodies, connections)

    return replay


def timed(client: Elasticsearch, side: Side, documents: int, dims: int) -> float:
    """Seconds that ``side`` takes to fill a new index, which is checked and deleted."""
    name = "bench-ingest-000001"
    vector = {"type": "dense_vector", "dims": dims, "similarity": "cosine", "index_options": {"type": "flat"}}
    client.options(ignore_status=404).indices.delete(index=name)
    client.indices.create(
        index=name,
        aliases={"bench-ingest": {}},
        settings={"number_of_replicas": 0, "refresh_interval": "-1"},
        mappings={"properties": {"vector": vector, "title": {"type": "text"}, "id": {"type": "keyword"}}},
    )
    started = time.perf_counter()
    side("bench-ingest")
    seconds = time.perf_counter() - started
    client.indices.refresh(index=name)
    assert client.count(index=name)["count"] == documents
    client.indices.delete(index=name)
    return seconds


if __name__ == "__main__":
    main()
