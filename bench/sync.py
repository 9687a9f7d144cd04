"""An unchanged re-run against a plain read: of the same file, and of all hashes by the same searches.

The plain side does one after the other, in one thread, and nothing else: no comparing, no account, no lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import orjson
from common import FLAT, ReadyEncoder, check, folder, in_turn, indexer, own_cpu, ratio, say_load, server, spread
from elasticsearch import Elasticsearch

from esvector import read_documents
from esvector.passport import HASH_FIELD
from esvector.types import Record

ALIAS = "bench-sync"
PAGE = 2048  # ids of a search, as many as a run asks for
SENTENCE = "a search engine compares the vector of a question with those of all documents and returns the nearest"


@click.command()
@click.option("--url", help="Address of Elasticsearch [default: a throw-away local node].")
@click.option("--documents", default=100_000, show_default=True)
@click.option("--words", default=60, show_default=True, help="Of each document's text.")
@click.option("--rounds", default=5, show_default=True)
def main(url: str | None, documents: int, words: int, rounds: int) -> None:
    """Print how much longer the re-run takes."""
    say_load("before")
    with server(url) as (client, process), folder() as here:
        source = here / "documents.jsonl"
        write_source(source, documents, words)
        encoder = ReadyEncoder(np.random.default_rng(1).standard_normal((1000, 64)).astype(np.float32))
        build = indexer(client, ALIAS, encoder, here, mapping=FLAT)
        check(build.run(read_documents(source)), indexed=documents)

        def rerun() -> None:
            report = indexer(client, ALIAS, encoder, here, mapping=FLAT).run(read_documents(source))
            check(report, unchanged=documents, encoded=0)

        def timed(side: Callable[[], None]) -> tuple[float, float]:
            started, used = time.perf_counter(), own_cpu(process)
            side()
            return time.perf_counter() - started, own_cpu(process) - used

        sides = {
            "re-run": lambda: timed(rerun),
            "plain": lambda: timed(lambda: plain(client, source, documents)),
        }
        found = in_turn(sides, rounds)
        client.indices.delete(index=f"{ALIAS}-000001")
    for column, what in enumerate(("wall", "CPU of both processes")):
        seconds = {name: [row[column] for row in rows] for name, rows in found.items()}
        print(f"{what}: " + ", ".join(f"{name} {spread(values)} s" for name, values in seconds.items()))
        print(f"{what}: the re-run takes {ratio(seconds['re-run'], seconds['plain'])} x the plain read")
    say_load("after")


def write_source(path: Path, documents: int, words: int) -> None:
    """Write records with a title, some words and two fields more, as JSON lines."""
    random, vocabulary = np.random.default_rng(2), SENTENCE.split()
    with path.open("wb") as stream:
        for number in range(documents):
            text = " ".join(vocabulary[word] for word in random.integers(len(vocabulary), size=words))
            fields = {"id": f"d{number}", "title": f"Document number {number}", "text": f"{text} {number}"}
            stream.write(orjson.dumps(fields | {"year": 1990 + number % 30, "venue": f"v{number % 7}"}) + b"\n")


def plain(client: Elasticsearch, source: Path, documents: int) -> None:
    """Read the file, then the hashes of its ids."""
    ids = [record.fields["id"] for record in read_documents(source) if isinstance(record, Record)]
    found = 0
    for start in range(0, len(ids), PAGE):
        answer = client.search(
            index=ALIAS,
            query={"ids": {"values": ids[start : start + PAGE]}},
            size=PAGE,
            sort=["_doc"],
            source=False,
            docvalue_fields=[HASH_FIELD],
            version=True,
            track_total_hits=False,
            filter_path=["hits.hits._id", "hits.hits._version", "hits.hits.fields"],
        )
        found += sum(1 for hit in answer["hits"]["hits"] if hit["fields"][HASH_FIELD][0])
    assert found == documents, found


if __name__ == "__main__":
    main()
